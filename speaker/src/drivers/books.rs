//! What the speaker knows from the API, and how it reads the objects there. Pure.
//!
//! The watch keeps the books; the state file is a copy of them for the next start.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use landfall_crds::address::parse_address;
use landfall_crds::{Speaker, TrafficPolicy, VirtualIP, VirtualIPSpec};

use crate::filter::frontend::{Frontend, Guard, ServiceName};
use crate::lan::{NodeName, PeerInfo, PeerLink, Vip};

/// The addresses to look after, who may come in there, and the other speakers, as last told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Books {
    /// The addresses.
    pub vips: BTreeMap<IpAddr, Vip>,
    /// Who serves what at each of them.
    pub frontends: BTreeMap<IpAddr, Arc<Frontend>>,
    /// Who may come in to Services with source ranges.
    pub guards: BTreeMap<ServiceName, Arc<Guard>>,
    /// The other speakers.
    pub peers: BTreeMap<NodeName, PeerInfo>,
}

impl Books {
    /// Writes an address in. The highest term ever seen stays, and that it was announced stays, for as
    /// long as the address is in the books. True where anything changed.
    pub fn write(&mut self, mut vip: Vip) -> bool {
        if let Some(old) = self.vips.get(&vip.address) {
            vip.last_term = vip.last_term.max(old.last_term);
            vip.announced_before |= old.announced_before;
            if *old == vip {
                return false;
            }
        }
        self.vips.insert(vip.address, vip);
        true
    }

    /// Writes in who serves what at an address. True where that is news.
    pub fn serve(&mut self, address: IpAddr, frontend: Frontend) -> bool {
        if self.frontends.get(&address).is_some_and(|old| **old == frontend) {
            return false;
        }
        self.frontends.insert(address, Arc::new(frontend));
        true
    }

    /// Strikes an address out.
    pub fn strike(&mut self, address: IpAddr) {
        self.vips.remove(&address);
        self.frontends.remove(&address);
    }

    /// Writes in who may come in to a Service. True where that is news.
    pub fn guard(&mut self, service: ServiceName, mut guard: Guard) -> bool {
        if let Some(old) = self.guards.get(&service) {
            guard.succeed(old);
            if **old == guard {
                return false;
            }
        }
        self.guards.insert(service, Arc::new(guard));
        true
    }

    /// Whether a claim on any address asks for the guard of a Service.
    pub fn asks_for_guard_of(&self, service: &ServiceName) -> bool {
        let mut claims = self.frontends.values().flat_map(|frontend| frontend.claims());
        claims.any(|claim| claim.service == *service && claim.guard.is_some())
    }

    /// Remembers a term under which an address was announced. True where it was not known.
    pub fn raise_term(&mut self, address: IpAddr, term: u64) -> bool {
        let Some(vip) = self.vips.get_mut(&address) else { return false };
        let higher = vip.last_term < term || !vip.announced_before;
        vip.last_term = vip.last_term.max(term);
        vip.announced_before = true;
        higher
    }

    /// Every address of another speaker's node.
    pub fn addresses_of_peers(&self) -> BTreeSet<IpAddr> {
        self.peers.values().flat_map(PeerInfo::addresses).collect()
    }

    /// Every name or glob of interfaces that an address is to be announced on.
    pub fn named_interfaces(&self) -> BTreeSet<String> {
        self.vips.values().flat_map(|vip| vip.interfaces.iter().cloned()).collect()
    }
}

/// An address to look after, from its object. Nothing where the object holds no address.
pub fn vip(object: &VirtualIP) -> Option<Vip> {
    let spec = &object.spec;
    let status = object.status.as_ref();
    let announcer = status.and_then(|status| status.announcer.as_ref());
    let announce = spec.announce.clone().unwrap_or_default();
    let candidates = spec.placement.iter().flat_map(|placement| &placement.candidates);
    Some(Vip {
        address: object.address()?,
        claimed: !spec.claims.is_empty(),
        epoch: spec.placement.as_ref().map_or(0, |placement| placement.epoch),
        candidates: candidates.map(|candidate| candidate.node.as_str().into()).collect(),
        interfaces: announce.interfaces,
        fallback: announce.fallback,
        health_checks: health_checks(spec),
        guard: Frontend::of(object).asks().cloned(),
        last_term: announcer.map_or(0, |announcer| announcer.term.try_into().unwrap_or(0)),
        announced_before: announcer.is_some()
            || status.is_some_and(|status| !status.last_announcers.is_empty()),
    })
}

fn health_checks(spec: &VirtualIPSpec) -> Vec<u16> {
    let local = spec.claims.iter().filter(|claim| claim.traffic_policy == TrafficPolicy::Local);
    local.filter_map(|claim| claim.health_check_node_port?.try_into().ok()).collect()
}

/// Another speaker, from its object. What cannot be read in it is left out.
pub fn peer(object: &Speaker) -> Option<PeerInfo> {
    let node = object.metadata.name.as_deref()?.into();
    let interfaces = object.status.iter().flat_map(|status| &status.interfaces);
    let links = interfaces.filter_map(|interface| {
        Some(PeerLink {
            mac: interface.mac.parse().ok()?,
            subnets: interface.subnets.iter().filter_map(|text| text.parse::<IpNet>().ok()).collect(),
            addresses: interface.addresses.iter().filter_map(|text| parse_address(text).ok()).collect(),
            address: interface.address.as_deref().and_then(|text| parse_address(text).ok()),
        })
    });
    Some(PeerInfo { node, links: links.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_crds::{Fallback, SpeakerStatus};
    use serde_json::{Value, json};

    fn object(spec: Value, status: Value) -> VirtualIP {
        let kind = json!({"apiVersion": "landfall.dev/v1alpha1", "kind": "VirtualIP"});
        let mut object = json!({"metadata": {"name": "192.168.10.50"}, "spec": spec, "status": status});
        object.as_object_mut().unwrap().extend(kind.as_object().unwrap().clone());
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn an_object_is_read_as_an_address_to_look_after() {
        let object = object(
            json!({
                "address": "192.168.10.50",
                "claims": [
                    {"namespace": "default", "name": "web", "uid": "u"},
                    {"namespace": "default", "name": "api", "uid": "v", "trafficPolicy": "Local",
                     "healthCheckNodePort": 30007},
                ],
                "placement": {"epoch": 7, "candidates": [{"node": "n1"}, {"node": "n2"}]},
                "announce": {"interfaces": ["eth*"], "fallback": "Listed"},
            }),
            json!({"announcer": {
                "node": "n2", "interface": "eth0", "mac": "02:00:00:00:00:02", "term": 4, "epoch": 7,
                "since": "2026-01-01T00:00:00Z",
            }}),
        );
        let vip = vip(&object).unwrap();
        assert_eq!(vip.address, "192.168.10.50".parse::<IpAddr>().unwrap());
        assert!(vip.claimed && vip.announced_before);
        assert_eq!((vip.epoch, vip.last_term, vip.fallback), (7, 4, Fallback::Listed));
        assert_eq!(vip.candidates, ["n1".into(), "n2".into()]);
        assert_eq!(
            (vip.interfaces.as_slice(), vip.health_checks.as_slice()),
            (&["eth*".to_owned()][..], &[30007][..])
        );
    }

    #[test]
    fn a_guard_that_follows_another_knows_what_that_was_called() {
        let mut books = Books::default();
        let service = ServiceName::new("shop", "web");
        let guard = |digest: &str| Guard { digest: digest.to_owned(), ..Guard::default() };
        assert!(books.guard(service.clone(), guard("d1")));
        assert!(!books.guard(service.clone(), guard("d1")), "the same again");
        assert!(books.guard(service.clone(), guard("d2")));
        assert!(books.guards[&service].is_at_least("d1"));
        assert!(!books.guard(service.clone(), guard("d2")), "nothing new");
        let claim = |guard: Option<&str>| crate::filter::frontend::Claim {
            service: service.clone(),
            guard: guard.map(Into::into),
        };
        let address = "192.168.10.50".parse().unwrap();
        assert!(books.serve(address, Frontend::new(vec![claim(None)], [])));
        assert!(!books.asks_for_guard_of(&service));
        assert!(books.serve(address, Frontend::new(vec![claim(Some("d2"))], [])));
        assert!(!books.serve(address, Frontend::new(vec![claim(Some("d2"))], [])));
        assert!(books.asks_for_guard_of(&service));
        books.strike(address);
        assert!(!books.asks_for_guard_of(&service));
    }

    #[test]
    fn an_object_without_placement_or_status_is_read_too() {
        let object = object(json!({"address": "192.168.10.50"}), json!(null));
        let vip = vip(&object).unwrap();
        assert!(!vip.claimed && !vip.announced_before && vip.candidates.is_empty());
        assert_eq!((vip.epoch, vip.last_term), (0, 0));
    }

    #[test]
    fn a_peer_is_read_as_far_as_it_makes_sense() {
        let mut speaker = Speaker::new("n2", landfall_crds::SpeakerSpec {});
        let status = json!({"interfaces": [
            {"name": "eth0", "mac": "02:00:00:00:00:02", "subnets": ["192.168.10.0/24", "nonsense"],
             "addresses": ["192.168.10.12"], "carrier": "Up", "address": "192.168.10.12"},
            {"name": "eth1", "mac": "nonsense"},
        ]});
        speaker.status = Some(serde_json::from_value::<SpeakerStatus>(status).unwrap());
        let peer = peer(&speaker).unwrap();
        assert_eq!(&*peer.node, "n2");
        assert_eq!(peer.links.len(), 1);
        assert_eq!(peer.links[0].subnets, ["192.168.10.0/24".parse().unwrap()]);
        assert_eq!(peer.links[0].address, Some("192.168.10.12".parse().unwrap()));
    }

    #[test]
    fn a_term_once_seen_is_never_forgotten_while_the_address_is_there() {
        let object = object(json!({"address": "192.168.10.50"}), json!(null));
        let vip = vip(&object).unwrap();
        let mut books = Books::default();
        assert!(!books.raise_term(vip.address, 9), "an address that is not in the books has no term");
        assert!(books.write(vip.clone()));
        assert!(books.raise_term(vip.address, 9));
        assert!(!books.write(vip.clone()), "the object knows of no term, the books do");
        let known = &books.vips[&vip.address];
        assert!(known.announced_before && known.last_term == 9);
        assert!(books.write(Vip { interfaces: vec!["eth1".into()], ..vip }));
        assert_eq!(books.named_interfaces(), ["eth1".to_owned()].into());
    }
}
