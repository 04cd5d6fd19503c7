//! What each account may and may not write: the cases of `deploy/policies/cases.yaml`, played with real
//! tokens. First with the rights that `deploy/` gives. Then with all rights, where nothing but the
//! policies is left to refuse: so they are seen to hold by themselves, and not behind RBAC's back.

mod cases;

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::{authorization::v1::SubjectAccessReview, core::v1::Service};
use kube::{
    Api, Client, Config,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use landfall_tests::{
    lab::{
        Lab, eventually,
        landfall::{ByHand, CONTROLLER, NAMESPACE, SPEAKER, apply_crds, kubeconfig},
        repository, seconds,
    },
    services::{delete_pool, pool},
    story::Story,
};
use serde_json::json;

use cases::{Account, Attempt, Case, Deed, Expect, Fixture, Kind, Rights, Script, Who, said};

pub(crate) fn stories() -> Vec<Story> {
    vec![
        Story::new("policies: each account writes what is its own and nothing else", accounts_are_held),
        Story::new("policies: those that came before the CRDs stop no Service and wake up", before_the_crds),
    ]
}

/// Whoever applies `deploy/` first must not find that nobody can write Services.
async fn before_the_crds(lab: &Lab) -> Result<()> {
    ByHand::prepare(lab)?;
    let file = |path: &str| repository().join(path).display().to_string();
    let (crds, policy) = (file("crds"), file("deploy/policies/external-ips.yaml"));
    lab.kubectl(&["delete", "--wait", "--timeout=20s", "-f", &policy])?;
    lab.kubectl(&["delete", "--wait", "--timeout=20s", "-f", &crds])?;
    // Every policy is looked at anew when one changes; then this one loses what it knew of pools.
    tokio::time::sleep(seconds(2)).await;
    lab.kubectl(&["apply", "-f", &policy])?;
    tokio::time::sleep(seconds(2)).await;

    let services: Api<Service> = Api::default_namespaced(lab.client());
    let outer = |name: &str| -> Result<Service> {
        let spec = json!({"ports": [{"port": 80}], "externalIPs": ["198.51.100.50"]});
        Ok(serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec}))?)
    };
    services.create(&PostParams::default(), &outer("before-the-crds")?).await?;
    services.delete("before-the-crds", &DeleteParams::default()).await?;

    apply_crds(lab)?;
    pool(lab, "lan", &json!({"addresses": ["198.51.100.0/24"]})).await?;
    // The API server asks every 30 s which kinds there are.
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    eventually(seconds(45), "the policy is in effect", async || {
        match services.create(&dry_run, &outer("after-the-crds")?).await {
            Err(kube::Error::Api(status)) if status.message.contains("is an address of IPPool lan") => Ok(()),
            answer => bail!("{answer:?}"),
        }
    })
    .await?;
    delete_pool(lab, "lan").await
}

async fn accounts_are_held(lab: &Lab) -> Result<()> {
    let file = repository().join("deploy/policies/cases.yaml");
    let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let Script { fixtures, cases } =
        serde_saphyr::from_str(&text).with_context(|| file.display().to_string())?;
    ensure!(!cases.is_empty(), "{} holds no cases", file.display());
    ByHand::prepare(lab)?;
    let mut stage = Stage { lab, clients: BTreeMap::new(), made: Vec::new() };
    let played = stage.play(&fixtures, &cases).await;
    // Whatever came of it, the stories after this one find an empty cluster.
    let cleared = stage.clear().await;
    played.and(cleared)
}

/// The cluster in which the cases are played.
struct Stage<'a> {
    lab: &'a Lab,
    clients: BTreeMap<Who, Client>,
    /// What is to be deleted in the end, oldest first, and who made it.
    made: Vec<(Kind, String, Who)>,
}

impl Stage<'_> {
    async fn play(&mut self, fixtures: &[Fixture], cases: &[Case]) -> Result<()> {
        for Fixture(attempt) in fixtures {
            self.make(attempt).await?;
        }
        // The API server takes policies up within a second or so after they were written.
        eventually(seconds(15), "all policies are in effect", async || {
            let denials = cases.iter().filter(|case| matches!(case.expect, Expect::Denied { .. }));
            self.check(Rights::Given, denials).await.map(|_| ())
        })
        .await?;
        let given = self.check(Rights::Given, cases).await?;
        self.give_all_rights().await?;
        let cases_of_policies = cases.iter().filter(|case| !matches!(case.expect, Expect::Forbidden));
        let all = self.check(Rights::All, cases_of_policies).await?;
        eprintln!("policies: {} cases; {given} played with given rights, {all} with all rights", cases.len());
        Ok(())
    }

    /// Plays cases, all of them although some fail, and tells how many there were.
    async fn check<'c>(
        &mut self,
        rights: Rights,
        cases: impl IntoIterator<Item = &'c Case>,
    ) -> Result<usize> {
        let (mut count, mut failures) = (0, Vec::new());
        for case in cases {
            count += 1;
            let client = self.client(&case.attempt.who).await?;
            let answer = case.attempt.send(client, true).await;
            if !case.expect.is_met(rights, &answer) {
                failures.push(format!("{}: expected {:?}, but {}", case.name, case.expect, said(&answer)));
            }
        }
        ensure!(count > 0, "with rights {rights:?}, there is no case to play");
        ensure!(
            failures.is_empty(),
            "with rights {rights:?}, {} of {count} cases fail:\n{}",
            failures.len(),
            failures.join("\n")
        );
        Ok(count)
    }

    /// Does this for real. Rights that were given a moment ago may take another to count.
    async fn make(&mut self, attempt: &Attempt) -> Result<()> {
        let client = self.client(&attempt.who).await?;
        let made = eventually(seconds(10), &format!("{attempt:?}"), async || {
            match attempt.send(client.clone(), false).await {
                Ok(object) => Ok(object),
                // The lab brought its Nodes along. Anything else would be another story's.
                Err(kube::Error::Api(status)) if status.code == 409 && attempt.kind == Kind::Node => Ok(None),
                answer => bail!("{}", said(&answer)),
            }
        })
        .await?;
        if let (Deed::Create(_), Some(object)) = (&attempt.deed, made) {
            let name = object.metadata.name.context("an object without a name")?;
            self.made.push((attempt.kind, name, attempt.who.clone()));
        }
        Ok(())
    }

    async fn give_all_rights(&mut self) -> Result<()> {
        let accounts = [CONTROLLER, SPEAKER];
        let subject = |name| json!({"kind": "ServiceAccount", "namespace": NAMESPACE, "name": name});
        let binding = json!({
            "metadata": {"name": "landfall-test-all-rights"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": accounts.map(subject),
        });
        let deed = Deed::Create(binding);
        self.make(&Attempt { who: Who::Administrator, kind: Kind::ClusterRoleBinding, deed }).await?;
        let reviews: Api<SubjectAccessReview> = Api::all(self.lab.client());
        for account in accounts {
            let question: SubjectAccessReview = serde_json::from_value(json!({
                "metadata": {},
                "spec": {
                    "user": format!("system:serviceaccount:{NAMESPACE}:{account}"),
                    "resourceAttributes": {"verb": "*", "group": "*", "resource": "*"},
                },
            }))?;
            eventually(seconds(10), &format!("{account} has all rights"), async || {
                let answer = reviews.create(&PostParams::default(), &question).await?;
                ensure!(answer.status.as_ref().is_some_and(|status| status.allowed), "{:?}", answer.status);
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// Deletes what was made, newest first: as the administrator, except for what a policy lets nobody delete but
    /// who made it, and without waiting for whoever put a finalizer on it, who does not run.
    async fn clear(&mut self) -> Result<()> {
        let mut left = Vec::new();
        for (kind, name, maker) in std::mem::take(&mut self.made).iter().rev() {
            let who = if *kind == Kind::ServiceGuard { maker } else { &Who::Administrator };
            let api = kind.api(self.client(who).await?);
            let gone = eventually(seconds(10), "it is gone", async || {
                let bare = Patch::Merge(json!({"metadata": {"finalizers": null}}));
                match api.patch(name, &PatchParams::default(), &bare).await {
                    Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
                    patched => patched?,
                };
                api.delete(name, &DeleteParams::default()).await?;
                bail!("asked to delete it")
            });
            if let Err(error) = gone.await {
                left.push(format!("{kind:?} {name}: {error:#}"));
            }
        }
        ensure!(left.is_empty(), "left behind:\n{}", left.join("\n"));
        Ok(())
    }

    async fn client(&mut self, who: &Who) -> Result<Client> {
        if let Some(client) = self.clients.get(who) {
            return Ok(client.clone());
        }
        let client = match who {
            Who::Administrator => self.lab.client(),
            Who::User { user, groups } => {
                let mut config = config(self.lab.kubeconfig()).await?;
                config.auth_info.impersonate = Some(user.clone());
                config.auth_info.impersonate_groups = Some(groups.clone());
                Client::try_from(config)?
            }
            Who::Account { account, node } => {
                let name = match account {
                    Account::Controller => CONTROLLER,
                    Account::Speaker => SPEAKER,
                };
                let suffix = format!("policies-{}", node.as_deref().unwrap_or("unbound"));
                let file = kubeconfig(self.lab, name, node.as_deref(), &suffix).await?;
                Client::try_from(config(&file).await?)?
            }
        };
        self.clients.insert(who.clone(), client.clone());
        Ok(client)
    }
}

async fn config(file: &Path) -> Result<Config> {
    let mut config =
        Config::from_custom_kubeconfig(Kubeconfig::read_from(file)?, &KubeConfigOptions::default()).await?;
    config.read_timeout = Some(seconds(10));
    Ok(config)
}
