//! What operators do with pools, namespaces, nodes and VirtualIPs, wisely or not.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Time};
use k8s_openapi::jiff::Timestamp;
use landfall_crds::{
    IPPool, Quota, Reservation, Reservations, Scope, Sharing, VirtualIP, VirtualIPSpec, virtual_ip_name,
};

use crate::chaos::{Chaos, NODES};
use crate::ledger::holder;
use crate::objects::{endpoint_slice, namespace, node, pool, service_cidr};
use crate::random::Random;
use crate::users::NAMES;

const POOLS: [&str; 4] = ["red", "green", "blue", "grey"];

const RANGES: [&[&str]; 6] = [
    &["10.0.0.16/30", "fd00::10-fd00::12"],
    &["10.0.0.18-10.0.0.22"],
    &["fd00::11-fd00::14"],
    &["10.0.0.24/31", "fd00::20/127"],
    &["10.0.0.0-10.0.0.3"],
    &["10.0.0.20/30", "fd00::13-fd00::15"],
];

impl Chaos {
    pub fn an_operator_acts(&mut self) {
        match self.random.below(28) {
            0..=11 => self.edit_pools(),
            12 | 13 => self.edit_namespaces(),
            14 | 15 => self.edit_nodes(),
            16 => {
                let names: Vec<String> = self.cluster.api.vips.keys().cloned().collect();
                if !names.is_empty() {
                    let vip = self.random.pick(&names).clone();
                    self.cluster.api.delete_vip(&vip);
                    self.was_done(format!("delete-vip {vip}"));
                }
            }
            23 if !self.random.once_in(3) => {
                let names: Vec<String> = self.cluster.api.guards.keys().cloned().collect();
                if !names.is_empty() {
                    let guard = self.random.pick(&names).clone();
                    self.cluster.api.delete_guard(&guard);
                    self.was_done(format!("delete-guard {guard}"));
                }
            }
            17 if self.random.once_in(4) => {
                for vip in self.cluster.api.vips.keys().cloned().collect::<Vec<_>>() {
                    self.cluster.api.delete_vip(&vip);
                }
                self.was_done("delete-all-vips");
            }
            17..=21 | 26 | 27 => self.reserve(),
            24 | 25 => self.edit_endpoints(),
            22 if self.random.once_in(6) => self.lose_all_vips_when_quiet(),
            _ => self.edit_pools(),
        }
    }

    /// There are some pools from the start, most of which keep and hold back addresses.
    pub fn create_pools(&mut self) {
        for name in ["red", "blue"] {
            let mut new = pool(name, RANGES[if name == "red" { 0 } else { self.random.below(RANGES.len()) }]);
            let after = (*self.random.pick(&["40s", "40s", "10m"])).to_owned();
            new.spec.reservations = Some(Reservations { expire_after: Some(after) });
            new.spec.release_delay = Some((*self.random.pick(&["40s", "10m", "2h"])).to_owned());
            if self.random.once_in(2) {
                new.spec.sharing = Some(Sharing { namespaces: vec!["shop".into(), "office".into()] });
            }
            self.cluster.api.put_pool(new);
        }
    }

    fn edit_pools(&mut self) {
        let name = *self.random.pick(&POOLS);
        let known = self.cluster.api.pools.get(name).map(|known| (**known).clone());
        let edited = match known {
            Some(_) if self.random.once_in(10) => {
                self.cluster.api.delete_pool(name);
                return self.was_done(format!("delete-pool {name}"));
            }
            Some(mut known) => {
                edit_pool(&mut known, &mut self.random);
                known
            }
            None => {
                let mut new = pool(name, RANGES[self.random.below(RANGES.len())]);
                new.spec.reservations = Some(Reservations { expire_after: Some("10m".to_owned()) });
                new.spec.release_delay = Some("2h".to_owned());
                edit_pool(&mut new, &mut self.random);
                edit_pool(&mut new, &mut self.random);
                edit_pool(&mut new, &mut self.random);
                new
            }
        };
        let says = format!("edit-pool {name} {}", serde_json::json!(edited.spec));
        self.cluster.api.put_pool(edited);
        self.was_done(says);
    }

    fn edit_namespaces(&mut self) {
        let name = *self.random.pick(&["shop", "office"]);
        match self.random.below(6) {
            0 if self.cluster.api.namespaces.contains_key(name) => {
                self.ending.insert(name.to_owned());
                for (_, service) in NAMES.iter().filter(|(of, _)| *of == name) {
                    self.delete(&format!("{name}/{service}"));
                }
                self.was_done(format!("delete-namespace {name}"));
            }
            1 if !self.ending.contains(name) => {
                // As after a restore from a backup: another uid, and all that is in it.
                self.cluster.api.delete_namespace(name);
                self.cluster.api.put_namespace(namespace(name));
                self.was_done(format!("restore-namespace {name}"));
            }
            _ if !self.ending.contains(name) => {
                let mut labelled = namespace(name);
                let labels = labelled.metadata.labels.get_or_insert_default();
                labels.insert("team".to_owned(), (*self.random.pick(&["blue", "red"])).to_owned());
                self.cluster.api.put_namespace(labelled);
                self.was_done(format!("relabel-namespace {name}"));
            }
            _ => {}
        }
    }

    /// A namespace that is being deleted goes when nothing is left in it.
    pub fn namespaces_end(&mut self) {
        for name in self.ending.clone() {
            let is_in_it = |service: &String| service.starts_with(&format!("{name}/"));
            if !self.cluster.api.services.keys().any(is_in_it) {
                self.cluster.api.delete_namespace(&name);
                self.ending.remove(&name);
                self.was_done(format!("namespace-gone {name}"));
            }
        }
    }

    fn edit_nodes(&mut self) {
        let (pods, own): (&[&str], &[&str]) =
            *self.random.pick(&[(&["10.0.0.20/31"][..], &[][..]), (&[], &["10.0.0.18"]), (&[], &[])]);
        match self.random.below(6) {
            0 | 1 => {
                self.cluster.api.put_node(node("n1", pods, own));
                self.was_done(format!("edit-node n1 {pods:?} {own:?}"));
            }
            2..=4 => {
                self.cluster.api.put_service_cidr(service_cidr("more", &["10.0.0.24/31"]));
                self.was_done("add-service-cidr");
            }
            _ => {
                self.cluster.api.delete_service_cidr("more");
                self.was_done("delete-service-cidr");
            }
        }
    }

    /// Pods of a Service come to be on some nodes, or are there no more.
    fn edit_endpoints(&mut self) {
        let (namespace, service) = *self.random.pick(&NAMES);
        let family = *self.random.pick(&["IPv4", "IPv4", "IPv6"]);
        if self.random.once_in(4) {
            let name = format!("{namespace}/{service}-{}", family.to_lowercase());
            self.cluster.api.delete_endpoint_slice(&name);
            return self.was_done(format!("delete-endpoints {name}"));
        }
        let some: Vec<(&str, bool)> = NODES.iter().map(|node| (*node, !self.random.once_in(3))).collect();
        let some = &some[self.random.below(NODES.len())..];
        self.cluster.api.put_endpoint_slice(endpoint_slice(namespace, service, family, some));
        self.was_done(format!("edit-endpoints {namespace}/{service} {family} {some:?}"));
    }

    /// A person keeps an address for somebody, or no longer.
    fn reserve(&mut self) {
        let known = self.cluster.api.vips.values().map(|vip| vip.spec.address.clone());
        let mut addresses: Vec<String> = known.collect();
        addresses.extend(["10.0.0.17", "10.0.0.20", "fd00::11"].map(str::to_owned));
        let address = self.random.pick(&addresses).clone();
        let (namespace, name) = *self.random.pick(&NAMES);
        let name = (!self.random.once_in(4)).then(|| name.to_owned());
        let seconds = *self.random.pick(&[None, None, Some(20), Some(600), Some(7200)]);
        let expires =
            seconds.map(|seconds| Time(Timestamp::from_second(self.cluster.api.now + seconds).unwrap()));
        let reservation =
            Reservation { namespace: namespace.into(), name, expires, ..Reservation::default() };
        let vip = virtual_ip_name(address.parse().unwrap());
        match self.cluster.api.vips.get(&vip) {
            None => {
                let says = format!("reserve {address}: {}", serde_json::json!(reservation));
                let spec =
                    VirtualIPSpec { address, reservation: Some(reservation), ..VirtualIPSpec::default() };
                self.cluster.api.put_vip(VirtualIP::new(&vip, spec));
                self.was_done(says);
            }
            Some(known) if known.spec.reservation.is_some() && !self.random.once_in(3) => {
                // It is kept without anybody on it.
                let claims: Vec<String> = known.spec.claims.iter().map(holder).collect();
                if self.random.once_in(3) {
                    claims.iter().for_each(|service| self.delete(service));
                }
            }
            Some(known) if known.spec.reservation.is_some() => {
                let mut object = (**known).clone();
                object.spec.reservation = None;
                self.cluster.api.put_vip(object);
                self.was_done(format!("unreserve {address}"));
            }
            Some(known) => {
                let says = format!("reserve-later {address}: {}", serde_json::json!(reservation));
                let mut object = (**known).clone();
                object.spec.reservation = Some(reservation);
                let claims: Vec<String> = object.spec.claims.iter().map(holder).collect();
                self.cluster.api.put_vip(object);
                self.was_done(says);
                if self.random.once_in(2) {
                    claims.iter().for_each(|service| self.delete(service));
                }
            }
        }
    }

    /// As when the CRDs are deleted: no finalizer holds. Everybody knows who had what by then.
    fn lose_all_vips_when_quiet(&mut self) {
        self.become_quiet();
        for name in self.cluster.api.vips.keys().cloned().collect::<Vec<_>>() {
            let mut vip = (*self.cluster.api.vips[&name]).clone();
            if vip.spec.reservation.is_some() {
                continue;
            }
            vip.metadata.finalizers = None;
            self.cluster.api.put_vip(vip);
            self.cluster.api.delete_vip(&name);
        }
        self.was_done("lose-all-vips");
        if self.random.once_in(2) {
            let which = self.which();
            self.crash(which, "between effects".to_owned());
        }
    }
}

/// Changes one field, or the ranges, or takes all rules away.
fn edit_pool(edited: &mut IPPool, random: &mut Random) {
    let selector = |name: &str, value: &str| LabelSelector {
        match_labels: Some([(name.to_owned(), value.to_owned())].into()),
        ..LabelSelector::default()
    };
    let often = |text: &str| Some(text.to_owned());
    let spec = &mut edited.spec;
    match random.below(20) {
        0..=2 => {
            spec.addresses = RANGES[random.below(RANGES.len())].iter().map(ToString::to_string).collect()
        }
        3 => {
            let excluded = [None, Some("10.0.0.17/32"), Some("10.0.0.20/31"), Some("fd00::11/128")];
            spec.exclude = random.pick(&excluded).iter().map(ToString::to_string).collect();
        }
        4 => spec.auto_assign = !random.once_in(3),
        5 => spec.priority = random.below(3) as i32,
        6 => {
            let teams = [Some("blue"), Some("red"), None, None];
            spec.namespace_selector = random.pick(&teams).map(|team| selector("team", team));
        }
        7 => {
            let tiers = [Some("front"), Some("back"), None, None];
            spec.service_selector = random.pick(&tiers).map(|tier| selector("tier", tier));
        }
        8 | 9 | 18 => {
            let most = *random.pick(&[None, Some(0), Some(1), Some(2)]);
            spec.quota = most.map(|most| Quota { per_namespace: Some(most) });
        }
        10 => spec.scope = *random.pick(&[Scope::Any, Scope::Any, Scope::Internal, Scope::External]),
        11 => spec.require_source_ranges = random.once_in(2),
        12 | 13 => {
            spec.release_delay =
                random.pick(&[None, often("20s"), often("5m"), often("5m"), often("2h")]).clone();
        }
        14 | 15 => {
            let after = [None, Some(None), Some(often("40s")), Some(often("10m"))];
            spec.reservations = random.pick(&after).clone().map(|expire_after| Reservations { expire_after });
        }
        16 => {
            let namespaces =
                [None, Some(vec!["shop", "office"]), Some(vec!["shop", "office"]), Some(vec!["shop"])];
            spec.sharing = random.pick(&namespaces).as_ref().map(|namespaces| Sharing {
                namespaces: namespaces.iter().map(ToString::to_string).collect(),
            });
        }
        17 => spec.external_targets = if random.once_in(3) { vec!["10.9.0.0/16".into()] } else { Vec::new() },
        _ => {
            let kept = spec.clone();
            *spec = pool("plain", &[]).spec;
            spec.addresses = kept.addresses;
            (spec.reservations, spec.release_delay) = (kept.reservations, kept.release_delay);
        }
    }
}
