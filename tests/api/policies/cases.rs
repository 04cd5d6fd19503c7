//! The cases of `deploy/policies/cases.yaml`: their shape, how one is tried, and what counts as met. The
//! file's header tells what its words mean.

use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{Namespace, Node, Service},
    networking::v1::ServiceCIDR,
    rbac::v1::ClusterRoleBinding,
};
use kube::{
    Api, Client,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
};
use landfall_crds::{IPPool, ServiceGuard, Speaker, VirtualIP};
use landfall_tests::lab::landfall::NAMESPACE;
use serde::Deserialize;
use serde_json::{Value, json};

/// Who writes where a case tells no field manager.
const MANAGER: &str = "landfall-test";
/// In every refusal by a policy, and in none by RBAC.
const BY_POLICY: &str = "ValidatingAdmissionPolicy";

pub(super) type Answer = kube::Result<Option<DynamicObject>>;

pub(super) fn said(answer: &Answer) -> String {
    match answer {
        Ok(_) => "the API server accepted it".to_owned(),
        Err(kube::Error::Api(status)) => format!("the API server said {}: {}", status.code, status.message),
        Err(error) => format!("{error}"),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Script {
    pub(super) fixtures: Vec<Fixture>,
    pub(super) cases: Vec<Case>,
}

/// What is done for real before the cases.
#[derive(Deserialize)]
#[serde(try_from = "Entry")]
pub(super) struct Fixture(pub(super) Attempt);

#[derive(Deserialize)]
#[serde(try_from = "Entry")]
pub(super) struct Case {
    pub(super) name: String,
    pub(super) attempt: Attempt,
    pub(super) expect: Expect,
}

/// With which rights Landfall's accounts go.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rights {
    /// Those that `deploy/` gives.
    Given,
    /// Both accounts are cluster-admin.
    All,
}

#[derive(Debug)]
pub(super) enum Expect {
    /// With the given rights and with all.
    Allowed,
    /// With the given rights by anyone; with all rights by a policy, with these words.
    Denied { message: String },
    /// With the given rights, by RBAC.
    Forbidden,
}

impl Expect {
    pub(super) fn is_met(&self, rights: Rights, answer: &Answer) -> bool {
        let refusal = match answer {
            Err(kube::Error::Api(status)) if status.code == 403 => Some(status.message.as_str()),
            _ => None,
        };
        match (self, rights) {
            (Self::Allowed, _) => answer.is_ok(),
            (Self::Denied { .. }, Rights::Given) => refusal.is_some(),
            (Self::Denied { message }, Rights::All) => {
                refusal.is_some_and(|words| words.contains(BY_POLICY) && words.contains(message))
            }
            (Self::Forbidden, _) => {
                refusal.is_some_and(|words| words.contains(" cannot ") && !words.contains(BY_POLICY))
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) who: Who,
    pub(super) kind: Kind,
    pub(super) deed: Deed,
}

#[derive(Debug)]
pub(super) enum Deed {
    Create(Value),
    Patch { name: String, subresource: Option<String>, patch: Patch<Value>, manager: String },
    Delete { name: String },
    List,
}

impl Attempt {
    /// What the API server made of it; nothing where it deleted or listed something.
    pub(super) async fn send(&self, client: Client, dry_run: bool) -> Answer {
        let api = self.kind.api(client);
        match &self.deed {
            Deed::Create(object) => {
                let params = PostParams { dry_run, field_manager: Some(MANAGER.to_owned()) };
                let object = serde_json::from_value(self.kind.with_type(object.clone()))
                    .map_err(kube::Error::SerdeError)?;
                api.create(&params, &object).await.map(Some)
            }
            Deed::Patch { name, subresource, patch, manager } => {
                let params = PatchParams {
                    dry_run,
                    force: matches!(patch, Patch::Apply(_)),
                    field_manager: Some(manager.clone()),
                    ..PatchParams::default()
                };
                match subresource {
                    Some(subresource) => api.patch_subresource(subresource, name, &params, patch).await,
                    None => api.patch(name, &params, patch).await,
                }
                .map(Some)
            }
            Deed::Delete { name } => {
                let params = DeleteParams { dry_run, ..DeleteParams::default() };
                api.delete(name, &params).await.map(|_| None)
            }
            Deed::List => api.list(&ListParams::default().limit(1)).await.map(|_| None),
        }
    }
}

/// As whom something is done.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(untagged, deny_unknown_fields, expecting = "{account, node} or {user, groups}")]
pub(super) enum Who {
    #[default]
    #[serde(skip)]
    Administrator,
    Account {
        account: Account,
        node: Option<String>,
    },
    User {
        user: String,
        #[serde(default)]
        groups: Vec<String>,
    },
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub(super) enum Account {
    Controller,
    Speaker,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub(super) enum Kind {
    Namespace,
    Node,
    Service,
    ServiceCIDR,
    ClusterRoleBinding,
    Lease,
    VirtualIP,
    ServiceGuard,
    Speaker,
    IPPool,
}

impl Kind {
    fn resource(self) -> ApiResource {
        match self {
            Self::Namespace => ApiResource::erase::<Namespace>(&()),
            Self::Node => ApiResource::erase::<Node>(&()),
            Self::Service => ApiResource::erase::<Service>(&()),
            Self::ServiceCIDR => ApiResource::erase::<ServiceCIDR>(&()),
            Self::ClusterRoleBinding => ApiResource::erase::<ClusterRoleBinding>(&()),
            Self::Lease => ApiResource::erase::<Lease>(&()),
            Self::VirtualIP => ApiResource::erase::<VirtualIP>(&()),
            Self::ServiceGuard => ApiResource::erase::<ServiceGuard>(&()),
            Self::Speaker => ApiResource::erase::<Speaker>(&()),
            Self::IPPool => ApiResource::erase::<IPPool>(&()),
        }
    }

    pub(super) fn api(self, client: Client) -> Api<DynamicObject> {
        match self {
            Self::Service => Api::namespaced_with(client, "default", &self.resource()),
            Self::Lease => Api::namespaced_with(client, NAMESPACE, &self.resource()),
            _ => Api::all_with(client, &self.resource()),
        }
    }

    /// An object that says what it is, as creating and applying ask for.
    fn with_type(self, mut object: Value) -> Value {
        let ApiResource { api_version, kind, .. } = self.resource();
        object["apiVersion"] = json!(api_version);
        object["kind"] = json!(kind);
        object
    }
}

/// A fixture or a case as the file has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    case: Option<String>,
    #[serde(default, rename = "as")]
    who: Who,
    verb: Verb,
    kind: Kind,
    name: Option<String>,
    subresource: Option<String>,
    #[serde(rename = "type")]
    patch: Option<PatchType>,
    manager: Option<String>,
    object: Option<Value>,
    expect: Option<Expected>,
    message: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
enum Verb {
    Create,
    Patch,
    Delete,
    List,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
enum PatchType {
    Merge,
    Json,
    Strategic,
    Apply,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Expected {
    Allowed,
    Denied,
    Forbidden,
}

impl TryFrom<Entry> for Attempt {
    type Error = Error;

    fn try_from(entry: Entry) -> Result<Self> {
        let Entry { who, verb, kind, name, subresource, patch, manager, object, .. } = entry;
        let deed = match (verb, name, object) {
            (Verb::Patch, Some(name), Some(object)) => {
                let patch = match patch.unwrap_or(PatchType::Merge) {
                    PatchType::Merge => Patch::Merge(object),
                    PatchType::Strategic => Patch::Strategic(object),
                    PatchType::Json => Patch::Json(serde_json::from_value(object)?),
                    PatchType::Apply => {
                        let mut object = kind.with_type(object);
                        object["metadata"]["name"] = json!(name);
                        Patch::Apply(object)
                    }
                };
                Deed::Patch { name, subresource, patch, manager: manager.unwrap_or(MANAGER.to_owned()) }
            }
            (_, _, _) if subresource.is_some() || patch.is_some() || manager.is_some() => {
                bail!("subresource, type and manager are for patches with name and object")
            }
            (Verb::Create, None, Some(object)) => Deed::Create(object),
            (Verb::Delete, Some(name), None) => Deed::Delete { name },
            (Verb::List, None, None) => Deed::List,
            _ => bail!("create takes object, patch name and object, delete name, list nothing"),
        };
        Ok(Self { who, kind, deed })
    }
}

impl TryFrom<Entry> for Fixture {
    type Error = Error;

    fn try_from(entry: Entry) -> Result<Self> {
        ensure!(
            entry.case.is_none() && entry.expect.is_none() && entry.message.is_none(),
            "a fixture has no case, expect or message"
        );
        ensure!(entry.patch != Some(PatchType::Apply), "a fixture creates by create, so that it is cleared");
        entry.try_into().map(Self)
    }
}

impl TryFrom<Entry> for Case {
    type Error = Error;

    fn try_from(mut entry: Entry) -> Result<Self> {
        let name = entry.case.take().context("a case says in `case` what is tried")?;
        let expect = match (entry.expect, entry.message.take()) {
            (Some(Expected::Allowed), None) => Expect::Allowed,
            (Some(Expected::Forbidden), None) => Expect::Forbidden,
            (Some(Expected::Denied), Some(message)) => Expect::Denied { message },
            _ => bail!("{name}: expect is allowed, forbidden, or denied with a message"),
        };
        let attempt = entry.try_into().map_err(|error: Error| anyhow!("{name}: {error:#}"))?;
        Ok(Self { name, attempt, expect })
    }
}
