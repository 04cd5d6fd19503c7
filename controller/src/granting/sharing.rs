//! Several Services on one address: who may join whom, and who must leave after an edit.
//!
//! What a Service holds is recorded in its claim on the VirtualIP. An edit is judged against what the
//! others' claims record, so the one who edits is the one who collides, and the others keep what they
//! have. Where several were edited before anything could be written of them, see [`who_stays`].

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Service;
use landfall_crds::{Claim, ClaimSharing, Port, TrafficPolicy, VirtualIPSpec};

use super::book::Pool;
use super::claim::MOST_PORTS;
use super::wait::{quoted, reasons};
use super::{ServiceKey, claim, named};
use crate::world::virtual_ips::key_of_claim;

/// As many Services may share one address (`maxItems` of `spec.claims`).
const MOST_CLAIMS: usize = 64;

/// A Service that shares, or wants to.
#[derive(Clone, Debug)]
pub struct Party<'a> {
    /// The Service.
    pub key: &'a ServiceKey,
    /// Its ports.
    pub ports: Vec<Port>,
    /// Its traffic policy.
    pub policy: TrafficPolicy,
    /// Its sharing key, if it has one.
    pub sharing: Option<ClaimSharing>,
}

impl<'a> Party<'a> {
    /// What a Service brings along.
    pub fn of(service: &Service, key: &'a ServiceKey, sharing_key: Option<&str>) -> Self {
        Self {
            key,
            ports: claim::ports(service, key),
            policy: claim::traffic_policy(service),
            sharing: sharing_of(service, sharing_key),
        }
    }
}

/// What a claim says about sharing.
pub fn sharing_of(service: &Service, key: Option<&str>) -> Option<ClaimSharing> {
    let key = key?.to_owned();
    let is_local = claim::traffic_policy(service) == TrafficPolicy::Local;
    let selector = is_local.then(|| selector_text(service)).flatten();
    Some(ClaimSharing { key, selector })
}

/// `spec.selector` as one text; nothing without a selector, or with one that is too long to note.
fn selector_text(service: &Service) -> Option<String> {
    let selector = service.spec.as_ref()?.selector.as_ref()?;
    let text = selector.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",");
    (!text.is_empty() && text.len() <= 4096).then_some(text)
}

/// Why two Services cannot be on one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clash {
    /// One of [`reasons`].
    pub reason: &'static str,
    /// What is wrong and what to do.
    pub text: String,
}

/// Whether the party can be on the address beside those that claim it. `pool` says who may share across
/// namespaces; without one only what would collide counts, for a party that is on the address already.
///
/// # Errors
/// It cannot, for the reason given.
pub fn fits(spec: &VirtualIPSpec, party: &Party<'_>, pool: Option<&Pool>) -> Result<(), Clash> {
    let others = || spec.claims.iter().filter(|claim| key_of_claim(claim) != *party.key);
    if others().count() >= MOST_CLAIMS {
        let text = format!("{MOST_CLAIMS} Services share it already: ask for another address");
        return Err(Clash { reason: reasons::SHARING_CONFLICT, text });
    }
    for other in others() {
        beside(other, party, pool)?;
    }
    let of_others = || spec.ports.iter().filter(|port| port.claim != *party.key);
    if others().next().is_some() && of_others().count() + party.ports.len() > MOST_PORTS {
        let text = format!("more than {MOST_PORTS} ports would be served there: ask for another address");
        return Err(Clash { reason: reasons::SHARING_CONFLICT, text });
    }
    for mine in &party.ports {
        let taken = of_others().find(|port| (port.protocol, port.port) == (mine.protocol, mine.port));
        if let Some(taken) = taken {
            let protocol = match mine.protocol {
                landfall_crds::Protocol::Tcp => "TCP",
                landfall_crds::Protocol::Udp => "UDP",
                landfall_crds::Protocol::Sctp => "SCTP",
            };
            let text = format!(
                "Service {} serves port {}/{protocol} there: choose another port or another address",
                named(&taken.claim),
                mine.port
            );
            return Err(Clash { reason: reasons::SHARING_CONFLICT, text });
        }
    }
    Ok(())
}

/// Who may stay on an address after edits of several who are there: all who were not edited, and of the others,
/// who has held it longest first, each who collides with none that stays. `now` is what they are like now, of those
/// of whom that is known.
///
/// What stands on record of one that stays is still served there until its edit has been written too, so a younger
/// one may not have that either: two that exchange their ports could never be written.
pub fn who_stays(spec: &VirtualIPSpec, mut now: Vec<Party<'_>>) -> BTreeSet<ServiceKey> {
    let recorded = |key: &ServiceKey| {
        let of_key = spec.ports.iter().filter(|port| port.claim == *key);
        of_key.cloned().collect::<Vec<_>>()
    };
    let numbers =
        |ports: &[Port]| ports.iter().map(|port| (port.protocol, port.port)).collect::<BTreeSet<_>>();
    let is_edited = |claim: &Claim, party: &Party<'_>| {
        claim.sharing != party.sharing
            || claim.traffic_policy != party.policy
            || numbers(&recorded(party.key)) != numbers(&party.ports)
    };
    let keys: Vec<ServiceKey> = spec.claims.iter().map(key_of_claim).collect();
    let mut all: Vec<(bool, &Claim, Party<'_>)> = Vec::new();
    for (claim, key) in spec.claims.iter().zip(&keys) {
        let at = now.iter().position(|party| party.key == key);
        let edited = at.map(|at| now.swap_remove(at)).filter(|party| is_edited(claim, party));
        let as_it_was = || Party {
            key,
            ports: recorded(key),
            policy: claim.traffic_policy,
            sharing: claim.sharing.clone(),
        };
        all.push((edited.is_some(), claim, edited.unwrap_or_else(as_it_was)));
    }
    all.sort_by_key(|(is_edited, claim, party)| {
        (*is_edited, claim.since.as_ref().map(|since| since.0), party.key)
    });
    let mut stay = VirtualIPSpec { claims: Vec::new(), ports: Vec::new(), ..spec.clone() };
    for (_, claim, party) in all {
        if fits(&stay, &party, None).is_err() {
            continue;
        }
        let before = recorded(party.key);
        let Party { ports, policy: traffic_policy, sharing, .. } = party;
        stay.claims.push(Claim { traffic_policy, sharing, ..claim.clone() });
        let taken = numbers(&ports);
        stay.ports.extend(ports);
        stay.ports.extend(before.into_iter().filter(|port| !taken.contains(&(port.protocol, port.port))));
    }
    stay.claims.iter().map(key_of_claim).collect()
}

/// Whether the party can be beside one other claim, ports aside.
fn beside(other: &Claim, party: &Party<'_>, pool: Option<&Pool>) -> Result<(), Clash> {
    let key = key_of_claim(other);
    let by = named(&key);
    let (Some(mine), Some(theirs)) = (&party.sharing, &other.sharing) else {
        let text = format!("Service {by} has it: ask for another address, or free this one");
        return Err(Clash { reason: reasons::ADDRESS_TAKEN, text });
    };
    let conflict = |text: String| Err(Clash { reason: reasons::SHARING_CONFLICT, text });
    if mine.key != theirs.key {
        return conflict(format!(
            "Service {by} has it with the sharing key {}: name the same key, or ask for another address",
            quoted(&theirs.key)
        ));
    }
    let across = key.namespace != party.key.namespace;
    if let Some(pool) = pool.filter(|_| across) {
        let allowed = pool.object.spec.sharing.as_ref().map(|sharing| sharing.namespaces.as_slice());
        let may = |namespace: &String| allowed.is_some_and(|allowed| allowed.contains(namespace));
        if !may(&key.namespace) || !may(&party.key.namespace) {
            return conflict(format!(
                "Service {by} of another namespace has it, and the pool's spec.sharing.namespaces does not name \
                 both: ask for another address"
            ));
        }
    }
    if other.traffic_policy != party.policy {
        return conflict(format!(
            "Service {by} has it with another externalTrafficPolicy: use the same policy, or another address"
        ));
    }
    let same_pods = !across && mine.selector.is_some() && mine.selector == theirs.selector;
    if party.policy == TrafficPolicy::Local && !same_pods {
        return conflict(format!(
            "Service {by} has it, and with externalTrafficPolicy Local only Services of one namespace with the \
             same selector can share: ask for another address"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(ports: &[(&str, i32)], policy: &str, app: &str) -> Service {
        let ports: Vec<_> =
            ports.iter().map(|(protocol, port)| json!({"protocol": protocol, "port": port})).collect();
        serde_json::from_value(json!({
            "metadata": {"uid": "u"},
            "spec": {"ports": ports, "externalTrafficPolicy": policy, "selector": {"app": app}},
        }))
        .unwrap()
    }

    fn key(name: &str) -> ServiceKey {
        let (namespace, name) = name.split_once('/').unwrap();
        ServiceKey { namespace: namespace.into(), name: name.into() }
    }

    /// A VirtualIP on which `shop/web` has TCP 80 with key `k`.
    fn held(policy: &str, sharing: Option<&str>) -> VirtualIPSpec {
        let web = service(&[("TCP", 80)], policy, "web");
        let at = key("shop/web");
        let claim = Claim {
            namespace: at.namespace.clone(),
            name: at.name.clone(),
            traffic_policy: claim::traffic_policy(&web),
            sharing: sharing_of(&web, sharing),
            ..Claim::default()
        };
        VirtualIPSpec { claims: vec![claim], ports: claim::ports(&web, &at), ..VirtualIPSpec::default() }
    }

    fn verdict(spec: &VirtualIPSpec, by: &str, other: &Service, sharing: Option<&str>, pool: bool) -> String {
        let by = key(by);
        let party = Party::of(other, &by, sharing);
        let mut book = super::super::book::AddressBook::default();
        let object = serde_json::from_value(json!({
            "apiVersion": "landfall.dev/v1alpha1", "kind": "IPPool", "metadata": {"name": "lan"},
            "spec": {"addresses": ["10.0.0.0/24"], "sharing": {"namespaces": ["shop", "office"]}},
        }))
        .unwrap();
        book.put_pool(std::sync::Arc::new(object));
        match fits(spec, &party, book.pool("lan").filter(|_| pool)) {
            Ok(()) => String::new(),
            Err(clash) => format!("{}: {}", clash.reason, clash.text),
        }
    }

    #[test]
    fn services_share_where_nothing_collides() {
        let udp = service(&[("UDP", 80)], "Cluster", "dns");
        let tcp = service(&[("TCP", 443)], "Cluster", "other");
        for (by, other) in [("shop/dns", &udp), ("shop/tls", &tcp), ("office/tls", &tcp)] {
            assert_eq!(verdict(&held("Cluster", Some("k")), by, other, Some("k"), true), "", "{by}");
        }
        let same_pods = service(&[("TCP", 443)], "Local", "web");
        assert_eq!(verdict(&held("Local", Some("k")), "shop/tls", &same_pods, Some("k"), true), "");
    }

    #[test]
    fn what_collides_is_refused_and_said() {
        let tls = service(&[("TCP", 443)], "Cluster", "web");
        let same_port = service(&[("UDP", 53), ("TCP", 80)], "Cluster", "web");
        let local = service(&[("TCP", 443)], "Local", "web");
        let other_pods = service(&[("TCP", 443)], "Local", "tls");
        for (policy, theirs, by, other, mine, sentence) in [
            ("Cluster", None, "shop/tls", &tls, Some("k"), "AddressTaken: Service shop/web has it"),
            ("Cluster", Some("k"), "shop/tls", &tls, None, "AddressTaken: Service shop/web has it"),
            ("Cluster", Some("k"), "shop/tls", &tls, Some("l"), "with the sharing key 'k'"),
            ("Cluster", Some("k"), "shop/x", &same_port, Some("k"), "shop/web serves port 80/TCP"),
            ("Cluster", Some("k"), "shop/tls", &local, Some("k"), "another externalTrafficPolicy"),
            ("Local", Some("k"), "shop/tls", &other_pods, Some("k"), "the same selector"),
            ("Local", Some("k"), "office/tls", &local, Some("k"), "the same selector"),
            ("Cluster", Some("k"), "lab/tls", &tls, Some("k"), "does not name both"),
        ] {
            let said = verdict(&held(policy, theirs), by, other, mine, true);
            assert!(said.contains(sentence), "{by} {mine:?}: {said}");
        }
    }

    #[test]
    fn of_several_that_were_edited_at_once_the_longest_holder_stays() {
        let names = ["shop/a", "shop/b", "shop/c"].map(key);
        // Since then each holds the address, by its port on record; what each is like now: ports and key.
        type Row = ([i64; 3], [&'static [i32]; 3], [&'static str; 3], &'static str);
        let table: [Row; 11] = [
            ([1, 2, 3], [&[1], &[2], &[3]], ["k", "k", "k"], "abc"),
            // One was edited: whoever holds the address how long.
            ([1, 2, 3], [&[2], &[2], &[3]], ["k", "k", "k"], "bc"),
            ([1, 2, 3], [&[1], &[2], &[3]], ["l", "k", "k"], "bc"),
            // Two, into the same.
            ([1, 2, 3], [&[9], &[9], &[3]], ["k", "k", "k"], "ac"),
            ([2, 1, 3], [&[9], &[9], &[3]], ["k", "k", "k"], "bc"),
            ([1, 1, 1], [&[9], &[9], &[3]], ["k", "k", "k"], "ac"),
            // Each into what the other had.
            ([1, 2, 3], [&[2], &[1], &[3]], ["k", "k", "k"], "ac"),
            ([1, 2, 3], [&[2], &[8], &[3]], ["k", "k", "k"], "abc"),
            ([1, 2, 3], [&[8], &[1], &[3]], ["k", "k", "k"], "ac"),
            // All, to another key; and all but one.
            ([1, 2, 3], [&[1], &[2], &[3]], ["l", "l", "l"], "abc"),
            ([1, 2, 3], [&[1], &[2], &[3]], ["l", "l", "k"], "c"),
        ];
        for (since, now, keys, expected) in table {
            let mut spec = VirtualIPSpec::default();
            for (number, name) in (1..).zip(&names) {
                let service = service(&[("TCP", number)], "Cluster", "web");
                let at = since[usize::try_from(number).unwrap() - 1];
                let time = k8s_openapi::jiff::Timestamp::from_second(at).unwrap();
                spec.claims.push(Claim {
                    namespace: name.namespace.clone(),
                    name: name.name.clone(),
                    since: Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(time)),
                    sharing: sharing_of(&service, Some("k")),
                    ..Claim::default()
                });
                spec.ports.extend(claim::ports(&service, name));
            }
            let party = |at: usize| {
                let ports: Vec<_> = now[at].iter().map(|port| ("TCP", *port)).collect();
                Party::of(&service(&ports, "Cluster", "web"), &names[at], Some(keys[at]))
            };
            let stay = who_stays(&spec, (0..3).map(party).collect());
            let stay: String = stay.iter().map(|key| key.name.as_str()).collect();
            assert_eq!(stay, expected, "{since:?} {now:?} {keys:?}");
        }
    }

    #[test]
    fn who_is_on_the_address_already_does_not_lose_it_by_an_edit_of_the_pool() {
        let tls = service(&[("TCP", 443)], "Cluster", "web");
        assert_eq!(verdict(&held("Cluster", Some("k")), "lab/tls", &tls, Some("k"), false), "");
    }
}
