//! What users do with their Services, wisely or not.

use k8s_openapi::api::core::v1::{
    LoadBalancerIngress, LoadBalancerStatus, Service, ServicePort, ServiceStatus,
};
use landfall_controller::granting::verdict::addresses;
use landfall_crds::names::annotations::{self, foreign, internal};
use landfall_crds::{IPPool, Scope, VirtualIP};

use crate::api::{Api, as_strategy_has_it};
use crate::chaos::Chaos;
use crate::invariants;
use crate::objects::service_in;
use crate::random::Random;

pub const NAMES: [(&str, &str); 9] = [
    ("shop", "a"),
    ("shop", "b"),
    ("shop", "c"),
    ("shop", "d"),
    ("shop", "e"),
    ("office", "a"),
    ("office", "b"),
    ("office", "c"),
    ("office", "d"),
];

impl Chaos {
    pub fn a_user_acts(&mut self) {
        self.namespaces_end();
        let (namespace, name) = *self.random.pick(&NAMES);
        let key = format!("{namespace}/{name}");
        match self.random.below(68) {
            0..=5 => match self.cluster.api.services.contains_key(&key) {
                false => self.create(namespace, name),
                true => self.edit_request(&key),
            },
            6 | 7 => self.edit_request(&key),
            8 | 9 | 24 => self.edit(&key, "wish-in-vain", Self::wish_in_vain),
            10 => self.delete_and_covet(&key),
            11 => self.edit(&key, "flip-type", |_, service| {
                let spec = service.spec.as_mut().unwrap();
                let is_balancer = spec.type_.as_deref() == Some("LoadBalancer");
                spec.type_ = Some(if is_balancer { "NodePort" } else { "LoadBalancer" }.to_owned());
            }),
            12 | 13 => self.edit(&key, "edit-ports", |chaos, service| {
                service.spec.as_mut().unwrap().ports = Some(ports(&mut chaos.random));
            }),
            14 | 15 => self.edit(&key, "edit-sharing", |chaos, service| share(service, &mut chaos.random)),
            16 => self.edit(&key, "edit-policy", |chaos, service| policy(service, &mut chaos.random)),
            17 => self.edit(&key, "edit-families", |chaos, service| families(service, &mut chaos.random)),
            18 => {
                self.edit(&key, "edit-internal", |chaos, service| make_internal(service, &mut chaos.random))
            }
            19 => self.edit(&key, "edit-ranges", |chaos, service| ranges(service, &mut chaos.random)),
            20 => self.edit(&key, "edit-reserve", |chaos, service| {
                let values = [Some("true"), Some("true"), Some("false"), Some("yes"), None];
                annotate(service, annotations::RESERVE, *chaos.random.pick(&values));
            }),
            21 => self.edit(&key, "edit-labels", |chaos, service| label(service, &mut chaos.random)),
            22 => self.edit(&key, "edit-external-ips", |chaos, service| {
                let ips = [&["10.0.0.17"][..], &["10.0.0.21", "fd00::10"], &[], &[]];
                let ips: Vec<String> = chaos.random.pick(&ips).iter().map(ToString::to_string).collect();
                service.spec.as_mut().unwrap().external_ips = Some(ips).filter(|ips| !ips.is_empty());
            }),
            23 => self.restore(&key),
            25 if self.random.once_in(3) => {
                // By hand, and not on the way out: there it would end the Service at once. Together
                // with a VirtualIP that goes at the same moment, nothing would be left to tell that
                // the address is ours.
                self.become_quiet();
                self.edit(&key, "strip-finalizers", |_, service| service.metadata.finalizers = None);
                self.become_quiet();
            }
            25 => self.edit_request(&key),
            26..=32 => self.delete_and_covet(&key),
            61 | 62 => self.adopt(&key),
            63..=67 => self.edit(&key, "edit-ranges", |chaos, service| ranges(service, &mut chaos.random)),
            33..=48 => self.edit(&key, "wish-in-vain", Self::wish_in_vain),
            _ => self.an_operator_acts(),
        }
    }

    fn create(&mut self, namespace: &str, name: &str) {
        if !self.cluster.api.namespaces.contains_key(namespace) || self.ending.contains(namespace) {
            return;
        }
        let mut new = service_in(namespace, name);
        let random = &mut self.random;
        for (times, change) in [
            (3, families as fn(&mut Service, &mut Random)),
            (2, share),
            (6, policy),
            (8, make_internal),
            (4, ranges),
            (2, label),
        ] {
            if random.once_in(times) {
                change(&mut new, random);
            }
        }
        let spec = new.spec.as_mut().unwrap();
        spec.ports = Some(ports(random));
        spec.selector = Some([("app".to_owned(), (*random.pick(&["web", "web", "db"])).to_owned())].into());
        let mut is_adopted = false;
        match random.below(22) {
            0 => spec.load_balancer_class = Some("example.com/other".into()),
            1 | 3 | 4 => spec.load_balancer_class = Some("landfall.dev/lan".into()),
            2 => {
                let ip = format!("192.0.2.{}", usize::from(name.as_bytes()[0]) + namespace.len() * 10);
                given_by_another(&mut new, &ip);
            }
            5..=7 => {
                let ip = one_of(random, &["10.0.0.16", "10.0.0.19", "10.0.0.21", "10.0.0.25"]);
                given_by_another(&mut new, ip);
                if !random.once_in(3) {
                    annotate(&mut new, annotations::ADOPT, Some("true"));
                }
                is_adopted = true;
            }
            _ => {}
        }
        if !random.once_in(4) {
            annotate(&mut new, annotations::RESERVE, Some("true"));
        }
        ask(&mut new, random);
        let says = format!("create {namespace}/{name} {}", wishes(&new));
        if is_adopted {
            self.ledger.may_move(&format!("{namespace}/{name}"), self.cluster.controllers.len());
        }
        self.cluster.api.put_service(new);
        self.was_done(says);
    }

    /// One Service goes, and another one asks for what it had.
    fn delete_and_covet(&mut self, key: &str) {
        let had = self.cluster.api.services.get(key).and_then(|service| addresses(service).first().copied());
        self.delete(key);
        let (namespace, name) = *self.random.pick(&NAMES);
        let other = format!("{namespace}/{name}");
        if let Some(had) = had.filter(|_| other != key) {
            self.edit(&other, "covet", |_, service| {
                clear_wishes(service);
                annotate(service, annotations::IPS, Some(&had.to_string()));
            });
        }
    }

    pub fn delete(&mut self, key: &str) {
        if self.cluster.api.services.contains_key(key) {
            self.cluster.api.delete_service(key);
            self.was_done(format!("delete {key}"));
        }
    }

    fn edit(&mut self, key: &str, what: &str, change: impl FnOnce(&mut Self, &mut Service)) {
        let Some(known) = self.cluster.api.services.get(key).cloned() else { return };
        let mut service = (*known).clone();
        if service.metadata.deletion_timestamp.is_some() || invariants::is_anothers(&service) {
            return;
        }
        let spec = service.spec.as_mut().unwrap();
        if spec.type_.as_deref() != Some("LoadBalancer") && self.random.once_in(2) {
            spec.type_ = Some("LoadBalancer".to_owned());
        }
        change(self, &mut service);
        let service = as_strategy_has_it(service);
        self.ledger.edited(key, &known, &service, self.cluster.controllers.len());
        let says = format!("{what} {key} {}", wishes(&service));
        self.cluster.api.put_service(service);
        self.was_done(says);
    }

    fn edit_request(&mut self, key: &str) {
        self.edit(key, "edit-request", |chaos, service| ask(service, &mut chaos.random));
    }

    /// Has the addresses taken over that another implementation gave.
    fn adopt(&mut self, key: &str) {
        let Some(known) = self.cluster.api.services.get(key) else { return };
        if invariants::is_anothers(known) && known.metadata.deletion_timestamp.is_none() {
            let mut service = (**known).clone();
            annotate(&mut service, annotations::ADOPT, Some("true"));
            self.ledger.may_move(key, self.cluster.controllers.len());
            self.cluster.api.put_service(service);
            self.was_done(format!("adopt {key}"));
        }
    }

    /// As after a restore from a backup: the same manifest, another uid, no status.
    fn restore(&mut self, key: &str) {
        let Some(known) = self.cluster.api.services.get(key) else { return };
        let mut service = (**known).clone();
        if service.metadata.deletion_timestamp.is_some() || invariants::is_anothers(&service) {
            return;
        }
        let mut gone = service.clone();
        gone.metadata.finalizers = None;
        self.cluster.api.put_service(gone);
        self.cluster.api.delete_service(key);
        service.status = None;
        service.metadata.finalizers = None;
        self.cluster.api.put_service(service);
        self.was_done(format!("restore {key}"));
    }

    /// Asks for what somebody else has, for what is kept, or for a pool with rules, so that rare answers
    /// are given too.
    fn wish_in_vain(&mut self, service: &mut Service) {
        clear_wishes(service);
        for _ in 0..8 {
            let which = self.random.below(WISHES);
            let Some((name, value)) = a_wish(which, service, &self.cluster.api) else { continue };
            if matches!(which, 0..4 | 42..44) {
                annotate(service, annotations::SHARING_KEY, Some(one_of(&mut self.random, &["k", "k", "l"])));
            }
            if matches!(which, 22..25 | 40..42) {
                service.spec.as_mut().unwrap().load_balancer_source_ranges = None;
                annotate(service, annotations::SOURCE_RANGES, None);
            }
            return annotate(service, name, Some(&value));
        }
    }
}

/// So many wishes there are, some of them several times, since they are rarely possible.
const WISHES: usize = 50;

/// Something to ask for that somebody has, keeps or refuses, if there is such a thing.
fn a_wish(which: usize, service: &Service, api: &Api) -> Option<(&'static str, String)> {
    let pool_that = |rule: fn(&IPPool) -> bool| {
        let found = api.pools.iter().find(|(_, pool)| rule(pool)).map(|(name, _)| name.clone());
        found.map(|name| (annotations::POOL, name))
    };
    let vip_that = |rule: &dyn Fn(&VirtualIP) -> bool| {
        let found = api.vips.values().find(|vip| rule(vip));
        found.map(|vip| (annotations::IPS, vip.spec.address.clone()))
    };
    let ip = |text: &str| (annotations::IPS, text.to_owned());
    match which {
        0..=3 => vip_that(&|vip| vip.spec.claims.iter().any(|claim| claim.sharing.is_some())),
        4..=8 => vip_that(&|vip| vip.spec.claims.is_empty() && vip.spec.reservation.is_some()),
        9..=15 => {
            let meta = &service.metadata;
            let own = (meta.namespace.as_ref(), meta.name.as_ref());
            vip_that(&|vip| {
                let last = vip.status.iter().flat_map(|status| &status.last_holders).next();
                vip.spec.claims.is_empty()
                    && vip.spec.reservation.is_none()
                    && last.is_some_and(|last| (Some(&last.namespace), Some(&last.name)) != own)
            })
        }
        16 => pool_that(|pool| pool.spec.quota.is_some()),
        17..=19 => pool_that(|pool| pool.spec.namespace_selector.is_some()),
        20 | 21 => pool_that(|pool| pool.spec.service_selector.is_some()),
        22..=24 => pool_that(|pool| pool.spec.require_source_ranges),
        25 => pool_that(|pool| pool.spec.scope != Scope::Any),
        26 => {
            // Inside the cluster, if its ranges are known.
            let cidrs = api.service_cidrs.values().flat_map(|cidr| &cidr.spec).flat_map(|spec| &spec.cidrs);
            let pods = api.nodes.values().flat_map(|node| &node.spec).flat_map(|spec| &spec.pod_cidrs);
            let range = cidrs.chain(pods).flatten().next()?;
            range.split('/').next().map(ip)
        }
        27..=30 => {
            let is_in_pool = |address: &&str| {
                let address = address.parse().unwrap();
                api.pools.values().any(|pool| pool.spec.grantable().0.contains(address))
            };
            ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
                .iter()
                .find(|address| is_in_pool(address))
                .map(|text| ip(text))
        }
        31..=33 => {
            let key = (service.metadata.namespace.as_ref(), service.metadata.name.as_ref());
            let others = api
                .services
                .values()
                .filter(|other| (other.metadata.namespace.as_ref(), other.metadata.name.as_ref()) != key);
            let taken = others.filter_map(|other| addresses(other).first().copied()).next();
            taken.map(|taken| ip(&taken.to_string()))
        }
        34 => Some((internal::AZURE, "true".to_owned())),
        35 => Some(ip("10.0.0.300")),
        // The rarest once more.
        36 | 37 => a_wish(4, service, api),
        38 | 44 => a_wish(27, service, api),
        39 => a_wish(26, service, api),
        40 | 41 => a_wish(22, service, api),
        42 | 43 => vip_that(&|vip| vip.spec.claims.iter().any(|claim| claim.sharing.is_some())),
        _ => a_wish(9, service, api),
    }
}

/// What a Service asks for, in few words.
fn wishes(service: &Service) -> String {
    let meta = &service.metadata;
    serde_json::json!([meta.annotations, meta.labels, service.spec]).to_string()
}

fn one_of(random: &mut Random, texts: &[&'static str]) -> &'static str {
    texts[random.below(texts.len())]
}

fn given_by_another(service: &mut Service, ip: &str) {
    let entry = LoadBalancerIngress { ip: Some(ip.to_owned()), ..LoadBalancerIngress::default() };
    let balancer = LoadBalancerStatus { ingress: Some(vec![entry]) };
    service.status = Some(ServiceStatus { load_balancer: Some(balancer), ..ServiceStatus::default() });
}

fn annotate(service: &mut Service, name: &str, value: Option<&str>) {
    let all = service.metadata.annotations.get_or_insert_default();
    match value {
        Some(value) => drop(all.insert(name.to_owned(), value.to_owned())),
        None => drop(all.remove(name)),
    }
}

/// Takes away what asks for addresses and pools.
fn clear_wishes(service: &mut Service) {
    let all = service.metadata.annotations.get_or_insert_default();
    let asks = |name: &str| {
        name == annotations::IPS
            || name == annotations::POOL
            || foreign::IPS.contains(&name)
            || foreign::POOL.contains(&name)
    };
    all.retain(|name, _| !asks(name));
    service.spec.as_mut().unwrap().load_balancer_ip = None;
}

/// Asks for something, or for nothing.
fn ask(service: &mut Service, random: &mut Random) {
    const IPS: [&str; 11] = [
        "10.0.0.16",
        "10.0.0.17",
        "10.0.0.19",
        "10.0.0.22",
        "10.0.0.2",
        "fd00::10",
        "10.0.0.18,fd00::12",
        "10.0.0.16,10.0.0.17",
        "10.9.9.9",
        "10.0.0.24",
        "web",
    ];
    const POOLS: [&str; 5] = ["red", "green,blue", "none", "blue,grey", "grey"];
    clear_wishes(service);
    match random.below(16) {
        0 | 1 => annotate(service, annotations::IPS, Some(one_of(random, &IPS))),
        2 | 3 => annotate(service, annotations::POOL, Some(one_of(random, &POOLS))),
        4 => annotate(service, one_of(random, &foreign::IPS), Some(one_of(random, &IPS))),
        5 => {
            annotate(service, one_of(random, &foreign::POOL), Some(one_of(random, &["red", "blue", "none"])))
        }
        6 => {
            let ip = (*random.pick(&["10.0.0.16", "10.0.0.18", "10.0.0.300"])).to_owned();
            service.spec.as_mut().unwrap().load_balancer_ip = Some(ip);
        }
        7 => {
            annotate(service, annotations::POOL, Some("red"));
            annotate(service, foreign::POOL[0], Some(one_of(random, &["red", "blue"])));
        }
        8 => {
            annotate(service, annotations::IPS, Some("10.0.0.17"));
            annotate(service, foreign::IPS[0], Some(one_of(random, &["10.0.0.17", "10.0.0.18"])));
        }
        _ => {}
    }
}

fn ports(random: &mut Random) -> Vec<ServicePort> {
    let all = [("TCP", 80), ("TCP", 80), ("TCP", 443), ("UDP", 53), ("TCP", 8080), ("UDP", 80)];
    let mut ports: Vec<(&str, i32)> = (0..=random.below(2)).map(|_| *random.pick(&all)).collect();
    ports.dedup();
    if random.once_in(15) {
        // More than can be served at one address.
        ports = (1000..1257).map(|port| ("TCP", port)).collect();
    }
    let port = |(protocol, port): (&str, i32)| ServicePort {
        port,
        protocol: Some(protocol.to_owned()),
        node_port: Some(30000 + port),
        ..ServicePort::default()
    };
    ports.into_iter().map(port).collect()
}

fn share(service: &mut Service, random: &mut Random) {
    for name in foreign::SHARING_KEY {
        annotate(service, name, None);
    }
    let long = "k".repeat(300);
    let keys = [Some("k"), Some("k"), Some("k"), Some("l"), None];
    annotate(service, annotations::SHARING_KEY, *random.pick(&keys));
    match random.below(12) {
        0 => annotate(service, foreign::SHARING_KEY[0], Some("k")),
        1 => annotate(service, annotations::SHARING_KEY, Some(&long)),
        2 => {
            annotate(service, annotations::SHARING_KEY, None);
            annotate(service, foreign::SHARING_KEY[0], Some("k"));
        }
        _ => {}
    }
}

fn policy(service: &mut Service, random: &mut Random) {
    let spec = service.spec.as_mut().unwrap();
    spec.external_traffic_policy = Some((*random.pick(&["Local", "Cluster"])).to_owned());
    spec.selector = Some([("app".to_owned(), (*random.pick(&["web", "db"])).to_owned())].into());
}

fn families(service: &mut Service, random: &mut Random) {
    let spec = service.spec.as_mut().unwrap();
    let dual = random.once_in(2);
    let both = if dual { vec!["IPv4".to_owned(), "IPv6".to_owned()] } else { vec!["IPv4".to_owned()] };
    spec.ip_families = Some(both);
    let policies = ["PreferDualStack", "RequireDualStack"];
    let policy = if dual { *random.pick(&policies) } else { "SingleStack" };
    spec.ip_family_policy = Some(policy.to_owned());
}

fn make_internal(service: &mut Service, random: &mut Random) {
    for name in [internal::AZURE, internal::GKE] {
        annotate(service, name, None);
    }
    match random.below(8) {
        0..=2 => annotate(service, internal::AZURE, Some("true")),
        3 => annotate(service, internal::GKE, Some("Internal")),
        4 => annotate(service, internal::AZURE, Some("True")),
        5 => {
            annotate(service, internal::AZURE, Some("true"));
            annotate(service, internal::GKE, Some("External"));
        }
        _ => {}
    }
}

fn ranges(service: &mut Service, random: &mut Random) {
    annotate(service, annotations::SOURCE_RANGES, None);
    let field = [
        Some("192.168.0.0/16"),
        Some("fd00::/8"),
        Some("192.168.0.0/16,fd00::/8"),
        Some("0.0.0.0/0"),
        None,
        None,
    ];
    let field = random.pick(&field).map(|ranges| ranges.split(',').map(str::to_owned).collect());
    service.spec.as_mut().unwrap().load_balancer_source_ranges = field;
    if random.once_in(4) {
        let lists = ["192.168.0.0/16", " fd00::/8 , 10.9.0.0/16", "junk", "0.0.0.0/0,::/0", " "];
        annotate(service, annotations::SOURCE_RANGES, Some(one_of(random, &lists)));
    }
    let spares = [Some("false"), Some("true"), Some("no"), None, None, None];
    annotate(service, annotations::GUARD_NODE_PORTS, *random.pick(&spares));
}

fn label(service: &mut Service, random: &mut Random) {
    let labels = [Some("front"), Some("back"), None];
    let label = random.pick(&labels).map(|tier| [("tier".to_owned(), tier.to_owned())].into());
    service.metadata.labels = label;
}
