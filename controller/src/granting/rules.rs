//! Whom a pool serves: selectors, scope, source ranges and quota. They hold for an address that is asked
//! for as for one that is chosen; what is in use already is never taken away by them.

use std::collections::BTreeMap;

use landfall_crds::Scope;
use landfall_crds::address::Family;

use super::ServiceKey;
use super::book::Pool;
use super::usage::Usage;
use super::wait::{quoted, reasons, some_of};
use crate::ranking::reach::selects;
use crate::world::namespaces::NamespaceFacts;

/// Who asks for an address.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// The Service.
    pub key: &'a ServiceKey,
    /// Its labels.
    pub labels: Option<&'a BTreeMap<String, String>>,
    /// Its namespace; a Service may be seen before its namespace.
    pub namespace: Option<&'a NamespaceFacts>,
    /// Whether it asks for an internal load balancer.
    pub internal: bool,
    /// The family of the address that it asks for.
    pub family: Family,
    /// Whether it limits its sources in that family.
    pub source_ranges: bool,
    /// Whether it names the pool, or the address.
    pub names_it: bool,
}

/// Why a pool does not serve somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// One of [`reasons`].
    pub reason: &'static str,
    /// To follow the pool's name in a sentence.
    pub text: String,
}

impl Refused {
    fn new(reason: &'static str, text: impl Into<String>) -> Self {
        Self { reason, text: text.into() }
    }
}

/// Whether the pool serves the asker, quota aside.
///
/// # Errors
/// It does not, for the reason given.
pub fn serves(pool: &Pool, asker: &Asker<'_>, default_deny: bool) -> Result<(), Refused> {
    let spec = &pool.object.spec;
    let namespace = &asker.key.namespace;
    let unlabelled = BTreeMap::new();
    match &spec.namespace_selector {
        None if default_deny => {
            return Err(Refused::new(
                reasons::NAMESPACE_NOT_SELECTED,
                "selects no namespace (it has no spec.namespaceSelector, and the controller runs with --default-deny)",
            ));
        }
        Some(selector) => {
            let labels = asker.namespace.map_or(&unlabelled, |namespace| &namespace.labels);
            if !selects(selector, labels) {
                return Err(Refused::new(
                    reasons::NAMESPACE_NOT_SELECTED,
                    format!("does not select namespace {namespace} (see its spec.namespaceSelector)"),
                ));
            }
        }
        None => {}
    }
    if let Some(selector) = &spec.service_selector
        && !selects(selector, asker.labels.unwrap_or(&unlabelled))
    {
        return Err(Refused::new(
            reasons::SERVICE_NOT_SELECTED,
            "does not select the Service's labels (see its spec.serviceSelector)",
        ));
    }
    if !scope_serves(spec.scope, asker.internal, asker.names_it) {
        return Err(match spec.scope {
            Scope::Internal => Refused::new(reasons::NO_POOL, "serves internal load balancers only"),
            Scope::External => {
                Refused::new(reasons::NO_INTERNAL_POOL, "serves no internal load balancers (scope External)")
            }
            Scope::Any => Refused::new(
                reasons::NO_INTERNAL_POOL,
                "serves internal load balancers only where they name it (scope Any)",
            ),
        });
    }
    if spec.require_source_ranges && !asker.source_ranges {
        return Err(Refused::new(
            reasons::SOURCE_RANGES_REQUIRED,
            format!(
                "requires spec.loadBalancerSourceRanges that leave no half of all {} addresses open",
                asker.family
            ),
        ));
    }
    Ok(())
}

/// Whether a pool of this scope serves a Service that asks, or does not ask, for an internal load
/// balancer. A pool of scope Any may well be public, so it must be named.
pub fn scope_serves(scope: Scope, internal: bool, names_it: bool) -> bool {
    match scope {
        Scope::Any => !internal || names_it,
        Scope::Internal => internal,
        Scope::External => !internal,
    }
}

/// So many addresses of the pool one namespace may use at most, if that is limited.
pub fn quota(pool: &Pool) -> Option<i64> {
    pool.object.spec.quota.as_ref().and_then(|quota| quota.per_namespace).map(i64::from)
}

/// Whether the namespace may use one more address of the pool; `more` are those that are being
/// given to it besides.
///
/// # Errors
/// It may not.
pub fn has_quota(name: &str, pool: &Pool, namespace: &str, usage: &Usage, more: i64) -> Result<(), Refused> {
    let Some(most) = quota(pool) else { return Ok(()) };
    if usage.count(name, namespace) + more < most {
        return Ok(());
    }
    Err(Refused::new(
        reasons::QUOTA_EXCEEDED,
        format!("gives namespace {namespace} {most} addresses at most, and they are in use or kept"),
    ))
}

/// Why a pool grants nothing at all, in words.
pub fn why_not_ready(pool: &Pool) -> String {
    if pool.object.metadata.deletion_timestamp.is_some() {
        return "it is being deleted".to_owned();
    }
    let fields = pool.not_implemented.iter().map(|field| format!("spec.{field}"));
    format!("it sets {}, which this version does not enforce", some_of(fields, 8))
}

/// Names of pools as users wrote them, for messages.
pub(super) fn names(pools: &[String]) -> String {
    some_of(pools.iter().map(|name| quoted(name)), 8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use landfall_crds::IPPool;
    use landfall_crds::address::AddressSet;
    use serde_json::json;

    fn pool(spec: serde_json::Value) -> Pool {
        let mut all = json!({"addresses": ["10.0.0.0/24"]});
        for (field, value) in spec.as_object().unwrap() {
            all[field] = value.clone();
        }
        let object: IPPool = serde_json::from_value(json!({
            "apiVersion": "landfall.dev/v1alpha1", "kind": "IPPool", "metadata": {"name": "lan"}, "spec": all,
        }))
        .unwrap();
        Pool {
            object: Arc::new(object),
            grantable: AddressSet::new(),
            own: AddressSet::new(),
            overlaps: Vec::new(),
            cluster: Vec::new(),
            errors: Vec::new(),
            not_implemented: Vec::new(),
            free: AddressSet::new(),
            rank: 0,
        }
    }

    fn reason(spec: serde_json::Value, asker: &Asker<'_>, default_deny: bool) -> &'static str {
        serves(&pool(spec), asker, default_deny).map_or_else(|refused| refused.reason, |()| "")
    }

    #[test]
    fn every_rule_refuses_whom_it_should() {
        let key = ServiceKey { namespace: "shop".into(), name: "web".into() };
        let labels: BTreeMap<String, String> = [("tier".to_owned(), "front".to_owned())].into();
        let shop = NamespaceFacts { uid: "u".into(), labels: [("team".to_owned(), "a".to_owned())].into() };
        let plain = Asker {
            key: &key,
            labels: Some(&labels),
            namespace: Some(&shop),
            internal: false,
            family: Family::IPv4,
            source_ranges: false,
            names_it: false,
        };
        let internal = Asker { internal: true, ..plain };
        let named = Asker { names_it: true, ..internal };
        let ranged = Asker { source_ranges: true, ..plain };
        let unseen = Asker { namespace: None, labels: None, ..plain };
        let team = |value: &str| json!({"namespaceSelector": {"matchLabels": {"team": value}}});
        let tier = |value: &str| json!({"serviceSelector": {"matchLabels": {"tier": value}}});
        for (spec, asker, deny, wanted) in [
            (json!({}), plain, false, ""),
            (json!({}), plain, true, "NamespaceNotSelected"),
            (json!({"namespaceSelector": {}}), plain, true, ""),
            (json!({"namespaceSelector": {}}), unseen, true, ""),
            (team("a"), plain, true, ""),
            (team("b"), plain, false, "NamespaceNotSelected"),
            (team("a"), unseen, false, "NamespaceNotSelected"),
            (tier("front"), plain, false, ""),
            (tier("back"), plain, false, "ServiceNotSelected"),
            (tier("front"), unseen, false, "ServiceNotSelected"),
            (json!({"scope": "Any"}), internal, false, "NoInternalPool"),
            (json!({"scope": "Any"}), named, false, ""),
            (json!({"scope": "Internal"}), internal, false, ""),
            (json!({"scope": "Internal"}), plain, false, "NoPool"),
            (json!({"scope": "External"}), plain, false, ""),
            (json!({"scope": "External"}), internal, false, "NoInternalPool"),
            (json!({"scope": "External"}), named, false, "NoInternalPool"),
            (json!({"requireSourceRanges": true}), plain, false, "SourceRangesRequired"),
            (json!({"requireSourceRanges": true}), ranged, false, ""),
        ] {
            assert_eq!(reason(spec.clone(), &asker, deny), wanted, "{spec} {asker:?} {deny}");
        }
    }

    #[test]
    fn a_quota_counts_what_is_in_use_and_what_is_on_its_way() {
        let mut usage = Usage::default();
        usage.set("10.0.0.1".parse().unwrap(), &[("lan", "shop")].into());
        let limited = |most: i32| pool(json!({"quota": {"perNamespace": most}}));
        assert!(has_quota("lan", &limited(0), "office", &usage, 0).is_err());
        assert!(has_quota("lan", &limited(1), "shop", &usage, 0).is_err());
        assert!(has_quota("lan", &limited(2), "shop", &usage, 0).is_ok());
        assert!(has_quota("lan", &limited(2), "shop", &usage, 1).is_err());
        assert!(has_quota("lan", &limited(1), "shop", &usage, -1).is_ok(), "one goes as another comes");
        assert!(has_quota("lan", &pool(json!({})), "shop", &usage, 9).is_ok());
    }
}
