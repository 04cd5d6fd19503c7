//! Whether a Service is ours to grant addresses to.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service};
use landfall_crds::address::{Family, parse_address};
use landfall_crds::names::{annotations, finalizers};

use super::ServiceKey;
use super::choice::{Seeker, Seeking, obstacle};
use super::plan::View;
use super::request::{annotation, families, read};
use super::wait::some_of;
use crate::status::is_shown_by_us;

/// Whose a Service is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is ours.
    Ours,
    /// It is of no concern to us, or not any more.
    NotOurs,
    /// It could be ours by its class, but somebody else has given it addresses.
    HeldByAnother {
        /// What to tell its owner.
        advice: String,
    },
}

/// Which classes are ours.
#[derive(Clone, Debug)]
pub struct Classes {
    /// The class that is ours by name.
    pub name: String,
    /// Whether Services without a class are ours.
    pub default: bool,
}

/// Judges a Service. `claims` says whether it claims the address by a VirtualIP, is about to, or did until
/// that vanished.
pub fn judge(
    service: &Service,
    key: &ServiceKey,
    classes: &Classes,
    view: View<'_>,
    claims: impl Fn(IpAddr) -> bool,
) -> Verdict {
    let spec = service.spec.as_ref();
    if !is_load_balancer(service) || service.metadata.deletion_timestamp.is_some() {
        return Verdict::NotOurs;
    }
    match spec.and_then(|spec| spec.load_balancer_class.as_deref()) {
        Some(class) if class == classes.name => return Verdict::Ours,
        Some(_) => return Verdict::NotOurs,
        None if !classes.default => return Verdict::NotOurs,
        None => {}
    }
    let entries = ingress(service);
    if entries.is_empty() {
        return Verdict::Ours;
    }
    let addresses = addresses(service);
    if addresses.iter().any(|address| claims(*address)) {
        return Verdict::Ours;
    }
    // Our finalizer alone is not enough: another controller may have been faster between it and our
    // first write of the status, or may have overwritten that. Then it is we who give way, for two
    // that write in turns would never end. What is just being taken over is still as the other wrote it, and is
    // judged anew until it is claimed: meanwhile somebody else may have used the quota up.
    if has_our_finalizer(service) && addresses.iter().any(|address| is_shown_by_us(service, *address)) {
        return Verdict::Ours;
    }
    if annotation(service, annotations::ADOPT) != Some("true") {
        return Verdict::HeldByAnother {
            advice: format!(
                "Another implementation gave this Service {}, so Landfall leaves it alone: set \
                 spec.loadBalancerClass to the implementation that shall have it, or annotate it with \
                 {}=true to have Landfall take these addresses over",
                some_of(entries.iter().map(shown), 4),
                annotations::ADOPT
            ),
        };
    }
    match adoptable(service, key, entries, &addresses, view) {
        Ok(()) => Verdict::Ours,
        Err(why) => Verdict::HeldByAnother {
            advice: format!(
                "{} is set, but Landfall cannot take the addresses over: {why}",
                annotations::ADOPT
            ),
        },
    }
}

fn adoptable(
    service: &Service,
    key: &ServiceKey,
    entries: &[LoadBalancerIngress],
    addresses: &[IpAddr],
    view: View<'_>,
) -> Result<(), String> {
    let request = read(service).map_err(|wait| wait.message)?;
    if addresses.len() != entries.len() {
        return Err("the status holds a host name".to_owned());
    }
    let families = families(service);
    let mut given: Vec<String> = Vec::new();
    for (at, address) in addresses.iter().enumerate() {
        let family = Family::of(*address);
        if !families.contains(&family) || addresses[..at].iter().any(|other| Family::of(*other) == family) {
            return Err(format!("{address} is not the one address of a family of this Service"));
        }
        let found = view.book.pool_of(*address).and_then(|name| Some((name, view.book.pool(name)?)));
        let Some((name, pool)) = found else { return Err(format!("no IPPool holds {address}")) };
        let seeker = Seeker { view, service, key, request: &request, given: &given, instead_of: None };
        if let Err(refused) = seeker.is_served_by(name, pool, family, Some(*address)) {
            return Err(format!("pool {name} {}", refused.text));
        }
        let seeking = Seeking { service, key, sharing_key: request.sharing_key.as_deref() };
        if let Some(wait) = obstacle(view, &seeking, *address, false) {
            return Err(wait.message);
        }
        if !view.usage.counts(*address, name, &key.namespace) {
            given.push(name.to_owned());
        }
    }
    Ok(())
}

/// Whether the type is LoadBalancer.
pub fn is_load_balancer(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some("LoadBalancer")
}

/// `status.loadBalancer.ingress`.
pub fn ingress(service: &Service) -> &[LoadBalancerIngress] {
    service
        .status
        .as_ref()
        .and_then(|status| status.load_balancer.as_ref())
        .and_then(|balancer| balancer.ingress.as_deref())
        .unwrap_or_default()
}

/// The addresses in `status.loadBalancer.ingress`.
pub fn addresses(service: &Service) -> Vec<IpAddr> {
    ingress(service).iter().filter_map(|entry| parse_address(entry.ip.as_deref()?).ok()).collect()
}

/// Whether the finalizer that is ours alone is on the Service.
pub fn has_our_finalizer(service: &Service) -> bool {
    has_finalizer(service, finalizers::SERVICE_ADDRESS)
}

/// Whether both finalizers that we put on a Service are on it.
pub fn has_both_finalizers(service: &Service) -> bool {
    has_our_finalizer(service) && has_finalizer(service, finalizers::LOAD_BALANCER_CLEANUP)
}

pub(crate) fn has_finalizer(service: &Service, name: &str) -> bool {
    service.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == name)
}

fn shown(entry: &LoadBalancerIngress) -> String {
    entry.ip.clone().or_else(|| entry.hostname.clone()).unwrap_or_default()
}
