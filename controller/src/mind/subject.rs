//! What effects are about: one thing at a time is done to each of these.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use landfall_crds::ClaimRef;

use crate::effects::{Effect, Exactly};

/// An object that the mind may write. The order is the order in which pending ones are looked at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Subject {
    /// The VirtualIP of an address, whether or not it exists.
    VirtualIp(IpAddr),
    /// A Service.
    Service(ClaimRef),
    /// The ServiceGuard of a Service, whether or not it exists.
    Guard(ClaimRef),
    /// A pool.
    Pool(String),
}

/// What `effect` is about; nothing for [`Effect::Publish`].
pub(crate) fn of(effect: &Effect) -> Option<Subject> {
    match effect {
        Effect::AddFinalizers { service }
        | Effect::RemoveFinalizers { service }
        | Effect::SetIngress { service, .. }
        | Effect::SetConditions { service, .. } => Some(Subject::Service(service_key(service))),
        Effect::GetService { namespace, name } => {
            Some(Subject::Service(ClaimRef { namespace: namespace.clone(), name: name.clone() }))
        }
        Effect::CreateVirtualIp { name, .. } | Effect::GetVirtualIp { name } => {
            address_of_name(name).map(Subject::VirtualIp)
        }
        Effect::UpdateVirtualIp { virtual_ip, .. }
        | Effect::SetVirtualIpStatus { virtual_ip, .. }
        | Effect::DeleteVirtualIp { virtual_ip }
        | Effect::UnclaimVirtualIp { virtual_ip } => {
            address_of_name(&virtual_ip.name).map(Subject::VirtualIp)
        }
        Effect::CreateServiceGuard { name, .. } => service_of_name(name).map(Subject::Guard),
        Effect::UpdateServiceGuard { guard, .. } | Effect::DeleteServiceGuard { guard } => {
            service_of_name(&guard.name).map(Subject::Guard)
        }
        Effect::SetPoolStatus { pool, .. } => Some(Subject::Pool(pool.name.clone())),
        Effect::Publish(_) => None,
    }
}

/// The object that `effect` was decided on.
pub(crate) fn exactly_of(effect: &Effect) -> Option<&Exactly> {
    match effect {
        Effect::AddFinalizers { service }
        | Effect::RemoveFinalizers { service }
        | Effect::SetIngress { service, .. }
        | Effect::SetConditions { service, .. } => Some(service),
        Effect::UpdateVirtualIp { virtual_ip, .. }
        | Effect::SetVirtualIpStatus { virtual_ip, .. }
        | Effect::DeleteVirtualIp { virtual_ip }
        | Effect::UnclaimVirtualIp { virtual_ip } => Some(virtual_ip),
        Effect::UpdateServiceGuard { guard, .. } | Effect::DeleteServiceGuard { guard } => Some(guard),
        Effect::SetPoolStatus { pool, .. } => Some(pool),
        Effect::CreateVirtualIp { .. }
        | Effect::CreateServiceGuard { .. }
        | Effect::GetService { .. }
        | Effect::GetVirtualIp { .. }
        | Effect::Publish(_) => None,
    }
}

/// The namespace and name of an object.
pub(crate) fn key(meta: &ObjectMeta) -> ClaimRef {
    ClaimRef {
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
    }
}

/// The object as it is known, for an effect to be decided on.
pub(crate) fn exactly(meta: &ObjectMeta) -> Exactly {
    Exactly {
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        resource_version: meta.resource_version.clone().unwrap_or_default(),
    }
}

fn service_key(service: &Exactly) -> ClaimRef {
    ClaimRef { namespace: service.namespace.clone(), name: service.name.clone() }
}

/// The address that a VirtualIP of this name has (the inverse of [`landfall_crds::virtual_ip_name`]).
pub(crate) fn address_of_name(name: &str) -> Option<IpAddr> {
    if let Ok(v4) = name.parse::<Ipv4Addr>() {
        return Some(v4.into());
    }
    name.replace('-', ":").parse::<Ipv6Addr>().ok().map(IpAddr::from)
}

/// The Service whose ServiceGuard has this name (the inverse of [`landfall_crds::service_guard_name`]).
fn service_of_name(name: &str) -> Option<ClaimRef> {
    let (namespace, name) = name.split_once('.')?;
    Some(ClaimRef { namespace: namespace.to_owned(), name: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_crds::{service_guard_name, virtual_ip_name};

    #[test]
    fn a_name_tells_the_address() {
        for text in ["192.168.10.50", "fd00::10", "2001:db8::"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(address_of_name(&virtual_ip_name(address)), Some(address));
        }
        assert_eq!(address_of_name("web"), None);
        let service = ClaimRef { namespace: "shop".into(), name: "web".into() };
        assert_eq!(service_of_name(&service_guard_name(&service)), Some(service));
    }
}
