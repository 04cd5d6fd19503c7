//! Users who create, edit, flip and delete Services, and what each should have when they are done.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Service as ServiceObject;
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use landfall_crds::names::{annotations::IPS, conditions::GRANTED};
use landfall_tests::{
    backend::Service,
    lab::{Lab, eventually, seconds},
    services::{addresses, condition, in_words, services, virtual_ips},
};
use serde_json::{Value, json};

/// What a user does with its Service over and over, beside edits that mean nothing to Landfall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Habit {
    /// Single stack, and nothing else.
    Single,
    /// Dual stack, and nothing else.
    Dual,
    /// Asks for an address.
    Asks,
    /// Asks for one address, then for another.
    AsksAnother,
    /// Asks for the address for which its neighbour asks, and gives it back now and then.
    Contends,
    /// Is a load balancer, and is none.
    Flips,
    /// As [`Habit::Flips`], and is none in the end.
    FlipsAway,
    /// Is dual stack, and single stack.
    Widens,
    /// Is deleted and made anew under its name.
    Returns,
    /// As [`Habit::Returns`], and is not there in the end.
    Leaves,
}

const HABITS: [Habit; 10] = [
    Habit::Single,
    Habit::Dual,
    Habit::Asks,
    Habit::AsksAnother,
    Habit::Contends,
    Habit::Flips,
    Habit::FlipsAway,
    Habit::Widens,
    Habit::Returns,
    Habit::Leaves,
];

/// The pools that users take from: one that is barely large enough, so that what one gives back another
/// gets, and one for those who ask.
pub(crate) fn pools() -> [(&'static str, Value); 2] {
    [
        ("lan", json!({"addresses": ["192.168.10.128-192.168.10.171", "fd10::1:0/112"]})),
        ("asked", json!({"addresses": ["192.168.10.180-192.168.10.250"], "autoAssign": false})),
    ]
}

/// The most users that the pools suffice for.
const MOST: usize = 60;

/// A user of one Service.
#[derive(Clone, Debug)]
struct User {
    name: String,
    habit: Habit,
    /// What it asks for, now and later.
    asks: [IpAddr; 2],
    is_dual: bool,
    is_balancer: bool,
    exists: bool,
    asked: usize,
    edits: u32,
}

/// All users.
#[derive(Clone, Debug)]
pub(crate) struct Users {
    users: Vec<User>,
    seed: u64,
}

impl Users {
    /// So many users, with all habits in turn.
    pub(crate) fn new(prefix: &str, count: usize, seed: u64) -> Result<Self> {
        ensure!(count <= MOST, "the pools are made for {MOST} users");
        let user = |number: usize| {
            let habit = HABITS[number % HABITS.len()];
            let round = number / HABITS.len();
            // Two in two rounds contend for one address.
            let own = if habit == Habit::Contends { round / 2 * 2 } else { round };
            let first = 180 + own * 10;
            let last_byte = |offset| u8::try_from(first + offset).unwrap_or(u8::MAX);
            let asks = match habit {
                Habit::Contends => [0, 0],
                Habit::AsksAnother => [1, 2],
                _ => [3, 3],
            };
            User {
                name: format!("{prefix}-{number}"),
                habit,
                asks: asks.map(|offset| IpAddr::from([192, 168, 10, last_byte(offset)])),
                is_dual: !matches!(habit, Habit::Single | Habit::Contends | Habit::Widens),
                is_balancer: true,
                exists: false,
                asked: 0,
                edits: 0,
            }
        };
        Ok(Self { users: (0..count).map(user).collect(), seed })
    }

    /// Lets all of them go about their business for so long, and then come to an end.
    pub(crate) async fn live(&mut self, lab: &Lab, duration: Duration) -> Result<()> {
        let end = Instant::now() + duration;
        let seed = self.seed;
        let living = self.users.iter_mut().enumerate().map(|(number, user)| async move {
            let mut dice = fastrand::Rng::with_seed(seed + number as u64);
            user.live(lab, end, &mut dice).await.with_context(|| format!("{} {:?}", user.name, user.habit))
        });
        stream::iter(living).buffer_unordered(MOST).try_collect::<Vec<()>>().await?;
        let edits: u32 = self.users.iter().map(|user| user.edits).sum();
        eprintln!("faults: {} users did {edits} things", self.users.len());
        ensure!(edits as usize > 3 * self.users.len(), "the users did hardly anything: {edits}");
        Ok(())
    }

    /// Waits until each has what it asked for, and nothing else is left.
    pub(crate) async fn are_served(&self, lab: &Lab, limit: Duration) -> Result<()> {
        let start = Instant::now();
        eventually(limit, "each Service has what it asked for", async || self.served(lab).await).await?;
        eprintln!("faults: all users were served {:.1} s later", start.elapsed().as_secs_f64());
        Ok(())
    }

    async fn served(&self, lab: &Lab) -> Result<()> {
        let found = services(lab).list(&ListParams::default()).await?.items;
        let found: BTreeMap<String, ServiceObject> =
            found.into_iter().map(|service| (service.name_any(), service)).collect();
        let mut shown: BTreeSet<(IpAddr, String)> = BTreeSet::new();
        for user in &self.users {
            let service = found.get(&user.name);
            ensure!(service.is_some() == user.exists, "{}: there is {service:?}", user.name);
            let Some(service) = service else { continue };
            user.is_served(service)?;
            shown.extend(addresses(service).into_iter().map(|address| (address, user.name.clone())));
        }
        // Of two who want the same, one has it.
        for user in self.users.iter().filter(|user| user.exists && user.habit == Habit::Contends) {
            let holders = shown.iter().filter(|(address, _)| *address == user.asks[0]).count();
            ensure!(holders == 1, "{} has {holders} holders", user.asks[0]);
        }
        let vips = virtual_ips(lab).list(&ListParams::default()).await?.items;
        let mut claimed = BTreeSet::new();
        for vip in vips {
            ensure!(!vip.spec.claims.is_empty(), "{} is claimed by nobody", vip.name_any());
            for claim in &vip.spec.claims {
                claimed.insert((vip.spec.address.parse()?, claim.name.clone()));
            }
        }
        ensure!(
            claimed == shown,
            "only in VirtualIPs {:?}, only in Services {:?}",
            claimed.difference(&shown).collect::<Vec<_>>(),
            shown.difference(&claimed).collect::<Vec<_>>()
        );
        Ok(())
    }

    /// Deletes all that is left of them, and waits until every trace is gone.
    pub(crate) async fn leave(&mut self, lab: &Lab) -> Result<()> {
        for user in self.users.iter_mut().filter(|user| user.exists) {
            services(lab).delete(&user.name, &DeleteParams::default()).await?;
            user.exists = false;
        }
        self.are_served(lab, seconds(60)).await
    }
}

impl User {
    async fn live(&mut self, lab: &Lab, end: Instant, dice: &mut fastrand::Rng) -> Result<()> {
        // Not all at once.
        pause(dice, 2000).await;
        self.create(lab).await?;
        while Instant::now() < end {
            pause(dice, 3000).await;
            if dice.bool() { self.act(lab, dice).await? } else { self.fidget(lab, dice).await? }
        }
        self.conclude(lab).await
    }

    fn object(&self) -> Service {
        let policy = if self.is_dual { "PreferDualStack" } else { "SingleStack" };
        let object = Service::new(&self.name, "nobody").load_balancer().spec("ipFamilyPolicy", json!(policy));
        match self.habit {
            Habit::Asks | Habit::AsksAnother | Habit::Contends => {
                object.annotation(IPS, &self.asks[self.asked].to_string())
            }
            _ => object,
        }
    }

    async fn create(&mut self, lab: &Lab) -> Result<()> {
        self.edits += 1;
        self.object().apply(lab).await?;
        self.exists = true;
        Ok(())
    }

    async fn patch(&mut self, lab: &Lab, patch: Value) -> Result<()> {
        self.edits += 1;
        services(lab).patch(&self.name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// Something that is no reason to touch an address.
    async fn fidget(&mut self, lab: &Lab, dice: &mut fastrand::Rng) -> Result<()> {
        if !self.exists {
            return Ok(());
        }
        let number = dice.u16(1000..2000);
        let patch = match dice.u8(0..3) {
            0 => json!({"metadata": {"annotations": {"example.com/note": number.to_string()}}}),
            1 => json!({"metadata": {"labels": {"example.com/label": number.to_string()}}}),
            _ => json!({"spec": {"ports": [{"name": "tcp", "protocol": "TCP", "port": number}]}}),
        };
        self.patch(lab, patch).await
    }

    /// What its habit is.
    async fn act(&mut self, lab: &Lab, dice: &mut fastrand::Rng) -> Result<()> {
        match self.habit {
            Habit::Single | Habit::Dual | Habit::Asks => self.fidget(lab, dice).await,
            Habit::AsksAnother => self.ask(lab, 1 - self.asked).await,
            Habit::Contends | Habit::Flips | Habit::FlipsAway => self.flip(lab).await,
            Habit::Widens => self.widen(lab).await,
            Habit::Returns | Habit::Leaves if self.exists => self.delete(lab).await,
            Habit::Returns | Habit::Leaves => self.create(lab).await,
        }
    }

    async fn ask(&mut self, lab: &Lab, which: usize) -> Result<()> {
        self.asked = which;
        let patch = json!({"metadata": {"annotations": {IPS: self.asks[which].to_string()}}});
        self.patch(lab, patch).await
    }

    async fn flip(&mut self, lab: &Lab) -> Result<()> {
        self.is_balancer = !self.is_balancer;
        let type_ = if self.is_balancer { "LoadBalancer" } else { "ClusterIP" };
        self.patch(lab, json!({"spec": {"type": type_}})).await
    }

    async fn widen(&mut self, lab: &Lab) -> Result<()> {
        self.is_dual = !self.is_dual;
        let policy = if self.is_dual { "PreferDualStack" } else { "SingleStack" };
        self.patch(lab, json!({"spec": {"ipFamilyPolicy": policy}})).await
    }

    async fn delete(&mut self, lab: &Lab) -> Result<()> {
        self.edits += 1;
        services(lab).delete(&self.name, &DeleteParams::default()).await?;
        self.exists = false;
        // Its name is free when its address is.
        eventually(seconds(60), "the Service is gone", async || {
            let left = services(lab).get_opt(&self.name).await?;
            ensure!(left.is_none(), "{:?}", left.map(|service| (service.metadata, service.status)));
            Ok(())
        })
        .await
    }

    async fn conclude(&mut self, lab: &Lab) -> Result<()> {
        match self.habit {
            Habit::FlipsAway if self.is_balancer => self.flip(lab).await,
            Habit::Contends | Habit::Flips if !self.is_balancer => self.flip(lab).await,
            Habit::AsksAnother if self.asked == 0 => self.ask(lab, 1).await,
            Habit::Returns if !self.exists => self.create(lab).await,
            Habit::Leaves if self.exists => self.delete(lab).await,
            _ => Ok(()),
        }
    }

    /// Whether the Service says what its user asked for.
    fn is_served(&self, service: &ServiceObject) -> Result<()> {
        let (name, has) = (&self.name, addresses(service));
        let granted = condition(service, GRANTED);
        let says = granted.as_ref().map(in_words);
        if !self.is_balancer {
            let finalizers = service.finalizers();
            ensure!(
                has.is_empty() && says.is_none() && finalizers.is_empty(),
                "{name} is no load balancer, and has {has:?}, {says:?}, {finalizers:?}"
            );
            return Ok(());
        }
        let waits = self.habit == Habit::Contends && has.is_empty();
        let expected = if waits { "False" } else { "True" };
        ensure!(
            granted.is_some_and(|granted| granted.status == expected),
            "{name} has {has:?} and says {says:?}"
        );
        if waits {
            return Ok(());
        }
        let families: Vec<bool> = has.iter().map(IpAddr::is_ipv4).collect();
        let wanted: &[bool] = if self.is_dual { &[true, false] } else { &[true] };
        ensure!(families == wanted, "{name} has {has:?}");
        let asks = matches!(self.habit, Habit::Asks | Habit::AsksAnother | Habit::Contends);
        let asked = self.asks[self.asked];
        ensure!(!asks || has.contains(&asked), "{name} asks for {asked} and has {has:?}");
        Ok(())
    }
}

async fn pause(dice: &mut fastrand::Rng, milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(dice.u64(100..milliseconds))).await;
}
