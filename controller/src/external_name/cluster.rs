//! Names of the cluster itself: which Service one names, and where it leads through other ExternalName Services.
//!
//! Pods get these from the cluster DNS, which makes them from the API (Kubernetes DNS-based service discovery,
//! specification 1.1.0): `<service>.<namespace>.svc.<cluster domain>`. So the API is asked, not DNS.

use k8s_openapi::api::core::v1::Service;
use landfall_crds::ClaimRef;

use super::name::{DnsName, Fault, Flaw, read, read_leniently};
use crate::granting::named;

/// So many Services may lead to one another before one that leads outside.
pub const MOST_STEPS: usize = 8;

/// What a name is to the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Outside.
    Outside,
    /// The name of a Service.
    Service(ClaimRef),
    /// Another one below the cluster domain, for example that of one pod behind a Service.
    Inside,
}

/// Where the name stands.
///
/// # Errors
/// It lies where the cluster has the names of its Services, and names none.
pub fn place(name: &DnsName, domain: &DnsName) -> Result<Place, Flaw> {
    let Some(below) = name.below(domain) else { return Ok(Place::Outside) };
    let labels: Vec<&str> = below.split('.').filter(|label| !label.is_empty()).collect();
    match labels[..] {
        [] | ["svc"] | [_, "svc"] => Err(Flaw::IncompleteClusterName),
        [name, namespace, "svc"] => {
            Ok(Place::Service(ClaimRef { namespace: namespace.to_owned(), name: name.to_owned() }))
        }
        _ => Ok(Place::Inside),
    }
}

/// Where an ExternalName Service leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// To a name whose addresses DNS knows.
    Dns(DnsName),
    /// To a Service of the cluster that has addresses of its own.
    Service(ClaimRef),
    /// To a Service that does not exist.
    Missing(ClaimRef),
    /// Nowhere, by its own name.
    Nowhere(Fault),
    /// Nowhere, by the name of another Service that it leads to.
    NowhereBy(ClaimRef, Fault),
    /// Through more Services than [`MOST_STEPS`].
    TooLong,
}

/// A route, and what it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// Where the Service leads.
    pub route: Route,
    /// Whether its own name is one of the cluster.
    pub is_inside: bool,
    /// What is wrong with its name though DNS can be asked for it.
    pub fault: Option<Fault>,
    /// The other Services that it leads through or to, missing ones too.
    pub through: Vec<ClaimRef>,
}

/// Follows the name of an ExternalName Service; `services` knows every Service of the cluster.
pub fn way<'a>(
    key: &ClaimRef,
    text: &str,
    domain: &DnsName,
    services: impl Fn(&ClaimRef) -> Option<&'a Service>,
) -> Way {
    let fault = read(text).err();
    let mut way = Way { route: Route::TooLong, is_inside: false, fault: None, through: Vec::new() };
    let name = match read_leniently(text) {
        Ok(name) => name,
        Err(fault) => {
            way.route = Route::Nowhere(completed(text, key, domain, fault));
            return way;
        }
    };
    way.is_inside = name.is_within(domain);
    way.fault = fault.map(|fault| completed(text, key, domain, fault));
    way.route = follow(key, name, domain, services, &mut way.through);
    way
}

fn follow<'a>(
    key: &ClaimRef,
    mut name: DnsName,
    domain: &DnsName,
    services: impl Fn(&ClaimRef) -> Option<&'a Service>,
    through: &mut Vec<ClaimRef>,
) -> Route {
    let nowhere = |through: &[ClaimRef], fault| match through.last() {
        None => Route::Nowhere(fault),
        Some(by) => Route::NowhereBy(by.clone(), fault),
    };
    let because = |flaw| Fault { flaw, is_refused: false, instead: None };
    for _ in 0..=MOST_STEPS {
        let next = match place(&name, domain) {
            Ok(Place::Outside | Place::Inside) => return Route::Dns(name),
            Ok(Place::Service(next)) => next,
            Err(flaw) => return nowhere(through, completed(name.as_str(), key, domain, because(flaw))),
        };
        if next == *key && through.is_empty() {
            return Route::Nowhere(because(Flaw::SelfReference));
        }
        if next == *key || through.contains(&next) {
            let steps = [key].into_iter().chain(&*through).chain([&next]).map(named);
            let circle = steps.collect::<Vec<_>>().join(", ");
            return Route::Nowhere(because(Flaw::Circle(circle)));
        }
        through.push(next.clone());
        let Some(service) = services(&next) else { return Route::Missing(next) };
        let Some(text) = external_name(service) else { return Route::Service(next) };
        name = match read_leniently(text) {
            Ok(name) => name,
            Err(fault) => return Route::NowhereBy(next, fault),
        };
    }
    Route::TooLong
}

/// `spec.externalName` of a Service of type ExternalName.
pub fn external_name(service: &Service) -> Option<&str> {
    let spec = service.spec.as_ref().filter(|spec| spec.type_.as_deref() == Some("ExternalName"))?;
    Some(spec.external_name.as_deref().unwrap_or_default())
}

/// The fault, with what to write instead where a name of the cluster was meant but not written out.
fn completed(text: &str, key: &ClaimRef, domain: &DnsName, fault: Fault) -> Fault {
    let text = text.strip_suffix('.').unwrap_or(text);
    let labels: Vec<&str> = text.split('.').collect();
    let instead = match (&fault.flaw, &labels[..]) {
        (Flaw::SingleLabel, [name]) => format!("{name}.{}.svc.{domain}", key.namespace),
        (Flaw::IncompleteClusterName, [name, "svc"]) => format!("{name}.{}.svc.{domain}", key.namespace),
        (Flaw::IncompleteClusterName, [.., "svc"]) => format!("{text}.{domain}"),
        (Flaw::IncompleteClusterName, [name, "svc", ..]) => format!("{name}.{}.svc.{domain}", key.namespace),
        _ => return fault,
    };
    // For a single label another name outside may be meant as well.
    let instead = match fault.flaw {
        Flaw::SingleLabel => format!("{instead} for a Service of this namespace, or else the whole name"),
        _ => instead,
    };
    Fault { instead: Some(instead), ..fault }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn key(text: &str) -> ClaimRef {
        let (namespace, name) = text.split_once('/').unwrap();
        ClaimRef { namespace: namespace.to_owned(), name: name.to_owned() }
    }

    fn domain() -> DnsName {
        read("cluster.local").unwrap()
    }

    /// Services by namespace and name; those with a name lead there, the others have addresses.
    struct Cluster(BTreeMap<ClaimRef, Service>);

    impl Cluster {
        fn of(services: &[(&str, Option<&str>)]) -> Self {
            let service = |name: &Option<&str>| {
                let spec = match name {
                    Some(name) => json!({"type": "ExternalName", "externalName": name}),
                    // As the API server keeps it after a change of the type.
                    None => json!({"type": "ClusterIP", "externalName": "former.example.com"}),
                };
                serde_json::from_value(json!({"spec": spec})).unwrap()
            };
            Self(services.iter().map(|(at, name)| (key(at), service(name))).collect())
        }

        fn way(&self, from: &str) -> Way {
            let text = external_name(&self.0[&key(from)]).unwrap();
            way(&key(from), text, &domain(), |key| self.0.get(key))
        }

        fn route(&self, from: &str) -> Route {
            self.way(from).route
        }
    }

    #[test]
    fn a_name_outside_is_for_dns_and_one_of_a_service_for_the_api() {
        let cluster = Cluster::of(&[
            ("shop/out", Some("db.example.com.")),
            ("shop/in", Some("db.prod.svc.cluster.local")),
            ("shop/pod", Some("db-0.db.prod.svc.cluster.local")),
            ("shop/gone", Some("cache.prod.svc.cluster.local")),
            ("prod/db", None),
        ]);
        assert_eq!(cluster.route("shop/out"), Route::Dns(read("db.example.com").unwrap()));
        assert_eq!(cluster.route("shop/in"), Route::Service(key("prod/db")));
        assert_eq!(cluster.route("shop/pod"), Route::Dns(read("db-0.db.prod.svc.cluster.local").unwrap()));
        assert_eq!(cluster.route("shop/gone"), Route::Missing(key("prod/cache")));
        assert!(cluster.way("shop/in").is_inside && cluster.way("shop/pod").is_inside);
        assert!(!cluster.way("shop/out").is_inside);
        assert_eq!(cluster.way("shop/gone").through, [key("prod/cache")], "to be looked at when it comes");
    }

    #[test]
    fn a_name_that_leads_through_other_services_is_followed_to_its_end() {
        let cluster = Cluster::of(&[
            ("a/a", Some("b.b.svc.cluster.local")),
            ("b/b", Some("c.c.svc.cluster.local")),
            ("c/c", Some("db.example.com")),
            ("a/bad", Some("bad.b.svc.cluster.local")),
            ("b/bad", Some("10.0.0.1")),
        ]);
        assert_eq!(cluster.route("a/a"), Route::Dns(read("db.example.com").unwrap()));
        assert_eq!(cluster.way("a/a").through, [key("b/b"), key("c/c")]);
        assert!(matches!(cluster.route("a/bad"), Route::NowhereBy(by, fault)
            if by == key("b/bad") && matches!(fault.flaw, Flaw::IpAddress(_))));
    }

    #[test]
    fn circles_are_found_by_whoever_leads_into_them() {
        let cluster = Cluster::of(&[
            ("a/self", Some("self.a.svc.cluster.local")),
            ("a/x", Some("y.b.svc.cluster.local")),
            ("b/y", Some("x.a.svc.cluster.local")),
            ("c/z", Some("y.b.svc.cluster.local")),
        ]);
        let flaw = |from| match cluster.route(from) {
            Route::Nowhere(Fault { flaw, .. }) => flaw,
            other => panic!("{other:?}"),
        };
        assert_eq!(flaw("a/self"), Flaw::SelfReference);
        assert_eq!(flaw("a/x"), Flaw::Circle("a/x, b/y, a/x".to_owned()));
        assert_eq!(flaw("c/z"), Flaw::Circle("c/z, b/y, a/x, b/y".to_owned()));
        let long: Vec<(String, String)> = (0..12)
            .map(|number| (format!("a/s{number}"), format!("s{}.a.svc.cluster.local", number + 1)))
            .collect();
        let long: Vec<(&str, Option<&str>)> =
            long.iter().map(|(at, name)| (at.as_str(), Some(name.as_str()))).collect();
        assert_eq!(Cluster::of(&long).route("a/s0"), Route::TooLong);
    }

    #[test]
    fn what_is_only_a_part_of_a_name_of_the_cluster_is_told_in_full() {
        let instead = |text: &str| {
            let cluster = Cluster::of(&[("shop/web", Some(text))]);
            let way = cluster.way("shop/web");
            let fault = match way.route {
                Route::Nowhere(fault) => fault,
                _ => way.fault.unwrap(),
            };
            (fault.flaw.reason(), fault.instead.unwrap_or_default())
        };
        let db = "db.prod.svc.cluster.local".to_owned();
        let own = "db.shop.svc.cluster.local".to_owned();
        assert_eq!(instead("db.prod.svc"), ("IncompleteClusterName", db));
        assert_eq!(instead("db.svc"), ("IncompleteClusterName", own.clone()));
        assert_eq!(instead("db.svc.cluster.local"), ("IncompleteClusterName", own.clone()));
        assert_eq!(instead("svc.cluster.local"), ("IncompleteClusterName", String::new()));
        let (reason, advice) = instead("db");
        assert!(reason == "SingleLabel" && advice.starts_with(&own), "{advice}");
        let single = Cluster::of(&[("shop/web", Some("db"))]).way("shop/web");
        assert_eq!(single.route, Route::Dns(read_leniently("db").unwrap()), "DNS is asked all the same");
    }

    proptest! {
        /// However Services lead to each other, each way ends, and looks at no Service twice.
        #[test]
        fn every_way_ends(targets in proptest::collection::vec(proptest::option::of(0_usize..8), 8)) {
            let services: Vec<(String, Option<String>)> = targets
                .iter()
                .enumerate()
                .map(|(at, to)| (format!("n/s{at}"), to.map(|to| format!("s{to}.n.svc.cluster.local"))))
                .collect();
            let services: Vec<(&str, Option<&str>)> =
                services.iter().map(|(at, to)| (at.as_str(), to.as_deref())).collect();
            let cluster = Cluster::of(&services);
            for (at, _) in services.iter().filter(|(_, to)| to.is_some()) {
                let way = cluster.way(at);
                let mut seen = way.through.clone();
                seen.sort();
                seen.dedup();
                prop_assert_eq!(seen.len(), way.through.len());
                let ends_well = matches!(way.route, Route::Service(_));
                let is_circle = matches!(&way.route, Route::Nowhere(fault)
                    if matches!(fault.flaw, Flaw::Circle(_) | Flaw::SelfReference));
                prop_assert!(ends_well || is_circle || way.route == Route::TooLong, "{:?}", way.route);
            }
        }
    }
}
