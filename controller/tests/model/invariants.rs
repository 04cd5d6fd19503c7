//! What must hold, by name.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use landfall_controller::granting::request::{families, read};
use landfall_controller::granting::verdict::{addresses, has_our_finalizer, ingress, is_load_balancer};
use landfall_controller::status::{OURS, conditions_of};
use landfall_crds::address::Family;

use crate::api::Api;

/// How often each Service may still change its address, by name and family: once for each time that its
/// user asked for something else.
pub type Asked = BTreeMap<(String, Family), u32>;

/// `i4_unique`: no address stands in the status of two Services, at any moment.
pub fn i4_unique(api: &Api) {
    let mut shown: BTreeMap<IpAddr, &str> = BTreeMap::new();
    for (name, service) in &api.services {
        for address in addresses(service) {
            if let Some(other) = shown.insert(address, name) {
                panic!("i4_unique: {address} is shown by {other} and by {name}");
            }
        }
    }
}

/// `i5_stable`: the address of a living Service changes only when its user asked.
pub fn i5_stable(before: &BTreeMap<String, Vec<IpAddr>>, api: &Api, asked: &mut Asked) {
    for (name, was) in before {
        let Some(service) = api.services.get(name) else { continue };
        if service.metadata.deletion_timestamp.is_some() || !is_load_balancer(service) {
            continue;
        }
        let is = addresses(service);
        for address in was.iter().filter(|address| !is.contains(address)) {
            let left = asked.entry((name.clone(), Family::of(*address))).or_default();
            assert!(*left > 0, "i5_stable: {name} lost {address} and has {is:?}; nobody asked");
            *left -= 1;
        }
    }
}

/// The names of Services that wait for something.
pub fn waiting(api: &Api) -> BTreeSet<String> {
    let waits = |service: &Service| {
        conditions_of(service).iter().any(|known| known.type_ == OURS[0] && known.status != "True")
    };
    api.services.iter().filter(|(_, service)| waits(service)).map(|(name, _)| name.clone()).collect()
}

/// The addresses that every Service shows.
pub fn shown(api: &Api) -> BTreeMap<String, Vec<IpAddr>> {
    api.services.iter().map(|(name, service)| (name.clone(), addresses(service))).collect()
}

fn is_ours(service: &Service) -> bool {
    let class = service.spec.as_ref().and_then(|spec| spec.load_balancer_class.as_deref());
    is_load_balancer(service)
        && service.metadata.deletion_timestamp.is_none()
        && class.is_none_or(|class| class == "landfall.dev/lan")
        && !is_anothers(service)
}

/// Services of another implementation have such an address in this world.
pub fn is_anothers(service: &Service) -> bool {
    ingress(service).iter().any(|entry| entry.ip.as_deref().is_some_and(|ip| ip.starts_with("192.0.2.")))
}

/// Everything that holds once nobody wants anything any more.
pub fn quiet(api: &Api) {
    i4_unique(api);
    no_service_is_stuck(api);
    no_virtual_ip_without_service(api);
    every_service_has_what_its_condition_says(api);
    what_is_not_ours_bears_no_mark(api);
}

/// Where all nodes are well and speakers do what they are asked, addresses are announced by their first
/// candidates, and none of these has more than its share.
pub fn places_are_even(api: &Api) {
    let mut firsts: BTreeMap<&str, usize> = api.speakers.keys().map(|node| (node.as_str(), 0)).collect();
    let claimed: Vec<_> = api.vips.values().filter(|vip| !vip.spec.claims.is_empty()).collect();
    for vip in &claimed {
        let first = &vip.spec.placement.as_ref().unwrap().candidates[0].node;
        let announcer = vip.status.as_ref().and_then(|status| status.announcer.as_ref());
        let announcer = announcer.map(|announcer| &announcer.node);
        assert_eq!(announcer, Some(first), "{:?} is announced elsewhere", vip.metadata.name);
        *firsts.entry(first).or_default() += 1;
    }
    let share = claimed.len().div_ceil(firsts.len());
    assert!(firsts.values().all(|held| *held <= share), "uneven: {firsts:?}");
}

fn no_service_is_stuck(api: &Api) {
    for (name, service) in &api.services {
        assert!(
            service.metadata.deletion_timestamp.is_none(),
            "{name} is stuck in deletion: {:?}",
            service.metadata.finalizers
        );
    }
}

fn no_virtual_ip_without_service(api: &Api) {
    for (name, vip) in &api.vips {
        assert!(vip.metadata.deletion_timestamp.is_none(), "VirtualIP {name} is stuck in deletion");
        assert!(
            !vip.spec.claims.is_empty() || vip.spec.reservation.is_some(),
            "VirtualIP {name} is left behind by {:?}",
            vip.status.as_ref().map(|status| &status.last_holders)
        );
        for claim in &vip.spec.claims {
            let holder = format!("{}/{}", claim.namespace, claim.name);
            let service = api.services.get(&holder);
            let service = service.unwrap_or_else(|| panic!("VirtualIP {name}: {holder} does not exist"));
            assert!(is_ours(service), "VirtualIP {name}: {holder} is not ours");
            assert_eq!(service.metadata.uid.as_deref(), Some(claim.uid.as_str()), "VirtualIP {name}");
            let address = vip.address().unwrap();
            assert!(addresses(service).contains(&address), "{holder} claims {name} but does not show it");
        }
    }
}

fn every_service_has_what_its_condition_says(api: &Api) {
    for (name, service) in api.services.iter().filter(|(_, service)| is_ours(service)) {
        let shown = addresses(service);
        let of: BTreeSet<Family> = shown.iter().map(|address| Family::of(*address)).collect();
        assert_eq!(of.len(), shown.len(), "{name} shows two addresses of one family: {shown:?}");
        for address in &shown {
            let vip = api.vips.get(&landfall_crds::virtual_ip_name(*address));
            let claims = vip.map(|vip| vip.spec.claims.as_slice()).unwrap_or_default();
            let key = format!("{}/{}", claims[0].namespace, claims[0].name);
            assert_eq!((&key, claims.len()), (name, 1), "{name} shows {address} without claiming it");
        }
        let granted = conditions_of(service).iter().find(|known| known.type_ == OURS[0]);
        let granted = granted.unwrap_or_else(|| panic!("{name} does not say whether it is granted"));
        let families = families(service);
        if granted.status == "True" {
            let prefers = service.spec.as_ref().and_then(|spec| spec.ip_family_policy.as_deref());
            assert!(
                of.len() == families.len() || prefers == Some("PreferDualStack") && !of.is_empty(),
                "{name} says that it is granted but shows {shown:?}"
            );
            let request = read(service).unwrap();
            for asked in &request.addresses {
                assert!(
                    shown.contains(asked),
                    "{name} asks for {asked}, shows {shown:?}: {}",
                    granted.message
                );
            }
        } else {
            assert!(
                !granted.reason.is_empty() && granted.message.len() > 10,
                "{name} waits without a reason"
            );
        }
        let has_announced = conditions_of(service).iter().any(|known| known.type_ == OURS[1]);
        assert_eq!(has_announced, !shown.is_empty(), "{name}");
        assert!(shown.is_empty() || has_our_finalizer(service), "{name} has an address and no finalizer");
    }
}

fn what_is_not_ours_bears_no_mark(api: &Api) {
    for (name, service) in api.services.iter().filter(|(_, service)| !is_ours(service)) {
        assert!(!has_our_finalizer(service), "{name} is not ours and has our finalizer");
        let says = conditions_of(service).iter().any(|known| OURS.contains(&known.type_.as_str()));
        assert!(!says, "{name} is not ours and has our conditions");
    }
}
