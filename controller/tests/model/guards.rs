//! What must hold of ServiceGuards.

use landfall_controller::effects::Effect;
use landfall_controller::granting::verdict::{has_our_finalizer, is_load_balancer};
use landfall_controller::status::conditions_of;
use landfall_crds::names::annotations;
use landfall_crds::{VirtualIP, service_guard_name};

use crate::api::Api;
use crate::invariants::is_ours;
use crate::ledger::{Ledger, holder};
use crate::sources::{Stated, let_in, stated};

/// `guard_first`: a claim that comes to name a guard names one that the API server had since the last quiet.
pub fn guard_first(ledger: &Ledger, is: &VirtualIP, was: Option<&VirtualIP>) {
    for claim in &is.spec.claims {
        let Some(digest) = &claim.guard else { continue };
        let name = holder(claim);
        let before = was.iter().flat_map(|was| &was.spec.claims).find(|known| holder(known) == name);
        if before.is_some_and(|before| before.guard.as_ref() == Some(digest)) {
            continue;
        }
        let had = ledger.guards(&name).any(|guard| guard.spec.digest() == *digest);
        assert!(had, "guard_first: the claim of {name} on {:?} names {digest}", is.metadata.name);
    }
}

/// `guard_last`: a guard is removed only of a Service that needed none at some time since the last quiet.
pub fn guard_last(api: &Api, ledger: &Ledger, effect: &Effect, is_there: bool) {
    let Effect::DeleteServiceGuard { guard } = effect else { return };
    let name = guard.name.replacen('.', "/", 1);
    let needs = |service: &k8s_openapi::api::core::v1::Service| {
        let is_going = service.metadata.deletion_timestamp.is_some() && has_our_finalizer(service);
        is_load_balancer(service) && (is_ours(service) || is_going) && stated(service) != Stated::Nothing
    };
    let needed = ledger.services(&name).iter().all(|service| needs(service));
    assert!(
        is_there || !api.services.contains_key(&name) || !needed || ledger.was_gone(&name),
        "guard_last: the guard of {name} is removed"
    );
}

/// Every Service of ours that has source ranges has its guard, whether or not it has an address; nobody else has
/// one; and claims name it.
pub fn quiet(api: &Api) {
    for (name, service) in &api.services {
        let stated = stated(service);
        let needs = is_ours(service) && stated != Stated::Nothing;
        let guard_name = name.replacen('/', ".", 1);
        let guard = api.guards.get(&guard_name);
        assert_eq!(guard.is_some(), needs, "guards: that of {name}, which states {stated:?}");
        let says = conditions_of(service).iter().find(|known| known.type_ == "landfall.dev/Guarded");
        assert_eq!(says.is_some(), needs, "guards: what {name} says of it: {says:?}");
        let claims =
            api.vips.values().flat_map(|vip| &vip.spec.claims).filter(|claim| holder(claim) == *name);
        let digest = guard.map(|guard| guard.spec.digest());
        for claim in claims {
            assert_eq!(claim.guard, digest, "guards: what a claim of {name} names");
        }
        let Some(guard) = guard else { continue };
        let spec = &guard.spec;
        assert_eq!(Some(&spec.service.uid), service.metadata.uid.as_ref(), "guards: the uid of {name}");
        let (expected, is_closed) = match stated {
            Stated::Ranges(v4, v6) => ((v4, v6), false),
            Stated::Junk | Stated::Nothing => ((Vec::new(), Vec::new()), true),
        };
        assert_eq!(let_in(&spec.sources), expected, "guards: whom {name} lets in");
        assert_eq!(spec.closed.is_some(), is_closed, "guards: {name}");
        let spares = service.metadata.annotations.iter().flatten();
        let spares =
            spares.filter(|(key, _)| *key == annotations::GUARD_NODE_PORTS).any(|(_, it)| it == "false");
        let of_service = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
        let expected: Vec<_> =
            of_service.take(256).map(|port| (port.port, port.node_port.filter(|_| !spares))).collect();
        let guarded: Vec<_> = spec.ports.iter().map(|port| (port.port, port.node_port)).collect();
        assert_eq!(guarded, expected, "guards: the ports of {name}");
    }
    for guard in api.guards.values() {
        let service = &guard.spec.service;
        let name = format!("{}/{}", service.namespace, service.name);
        assert!(api.services.contains_key(&name), "guards: that of {name} is left behind");
        let key =
            landfall_crds::ClaimRef { namespace: service.namespace.clone(), name: service.name.clone() };
        assert_eq!(guard.metadata.name, Some(service_guard_name(&key)));
    }
}
