//! What a Service asks for.

use std::collections::BTreeSet;
use std::iter;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use landfall_crds::address::{Family, RangeError, parse_address};
use landfall_crds::names::annotations::{self, foreign};

use super::internal::asks_for_internal;
use super::wait::{Until, Wait, quoted, reasons, some_of};

/// More addresses than this in one annotation are not even read.
const MOST_ADDRESSES: usize = 16;

/// More pools than this in one annotation are not even sought.
const MOST_POOLS: usize = 16;

/// A sharing key has at most so many characters; it is written into VirtualIPs.
const LONGEST_KEY: usize = 256;

/// The field that asks for an address, as messages name it.
const FIELD: &str = "spec.loadBalancerIP";

/// What a Service asks for; a Service that names nothing takes what there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Addresses, at most one of each family.
    pub addresses: Vec<IpAddr>,
    /// Pools in order of preference.
    pub pools: Option<Vec<String>>,
    /// Only an address of a pool for internal load balancers.
    pub internal: bool,
    /// Services with the same key may have the same address.
    pub sharing_key: Option<String>,
    /// The address is to be kept for the Service's name while the Service is gone.
    pub reserve: bool,
}

impl Request {
    /// The address that is asked for in `family`.
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|address| Family::of(*address) == family)
    }

    /// Whether a pool of this name, or the address that the text says, is among what is asked for.
    pub fn mentions(&self, text: &str) -> bool {
        self.pools.iter().flatten().any(|name| name == text)
            || parse_address(text).is_ok_and(|address| self.addresses.contains(&address))
    }

    /// Whether an address that was taken from `pool` is what is asked for.
    pub fn accepts(&self, address: IpAddr, pool: Option<&str>) -> bool {
        if let Some(wanted) = self.address(Family::of(address)) {
            return wanted == address;
        }
        self.pools.as_ref().is_none_or(|pools| pools.iter().any(|name| Some(name.as_str()) == pool))
    }
}

/// The families of a Service, the primary one first.
pub fn families(service: &Service) -> Vec<Family> {
    let spec = service.spec.as_ref();
    let named = spec.and_then(|spec| spec.ip_families.as_deref()).unwrap_or_default();
    let mut families: Vec<Family> = Vec::new();
    for family in named.iter().filter_map(|name| match name.as_str() {
        "IPv4" => Some(Family::IPv4),
        "IPv6" => Some(Family::IPv6),
        _ => None,
    }) {
        if !families.contains(&family) {
            families.push(family);
        }
    }
    if families.is_empty() {
        // The API server fills the field in, so this is an object from before dual stack.
        families.push(Family::IPv4);
    }
    families
}

/// An annotation's value, or nothing where it is absent or blank.
pub fn annotation<'a>(service: &'a Service, name: &str) -> Option<&'a str> {
    let value = service.metadata.annotations.as_ref()?.get(name)?.trim();
    (!value.is_empty()).then_some(value)
}

/// Reads what the Service asks for. It may say so in several places, also in the words of other
/// implementations; which of two that differ is meant is never guessed.
///
/// # Errors
/// What is asked for is not understood or contradicts itself.
pub fn read(service: &Service) -> Result<Request, Wait> {
    Ok(Request {
        addresses: addresses(service)?,
        pools: agreed_pools(service)?,
        internal: asks_for_internal(service)?,
        sharing_key: sharing_key(service)?,
        reserve: reserve(service)?,
    })
}

/// The pools that are asked for, in order of preference; what contradicts them is not looked at.
pub fn pools(service: &Service) -> Option<Vec<String>> {
    own_pools(service).or_else(|| {
        let (_, name) = stated(service, foreign::POOL).next()?;
        Some(vec![name.to_owned()])
    })
}

/// Whether any annotation offers to share an address, whatever key it names.
pub fn has_sharing_key(service: &Service) -> bool {
    stated(service, sharing_keys()).next().is_some()
}

/// A [`Wait`] for an annotation that says something that it cannot say.
pub(super) fn invalid(message: String) -> Wait {
    Wait::new(reasons::ANNOTATION_INVALID, message, Until::Edited)
}

/// A [`Wait`] for two wishes that exclude each other.
pub(super) fn contradictory(message: String) -> Wait {
    Wait::new(reasons::REQUEST_CONTRADICTORY, message, Until::Edited)
}

/// Those of the annotations that say something, and what.
fn stated(
    service: &Service,
    names: impl IntoIterator<Item = &'static str>,
) -> impl Iterator<Item = (&'static str, &str)> {
    names.into_iter().filter_map(|name| Some((name, annotation(service, name)?)))
}

/// What the annotations say, each of which means the same, and the first that says it.
fn agreed(
    service: &Service,
    names: impl IntoIterator<Item = &'static str>,
) -> Result<Option<(&'static str, &str)>, Wait> {
    let mut all = stated(service, names);
    let Some((first, value)) = all.next() else { return Ok(None) };
    match all.find(|(_, other)| *other != value) {
        None => Ok(Some((first, value))),
        Some((second, other)) => Err(contradictory(format!(
            "{first} says {} and {second} says {}: let both say the same, or remove one",
            quoted(value),
            quoted(other)
        ))),
    }
}

/// The addresses that are asked for, at most one of each family of the Service.
fn addresses(service: &Service) -> Result<Vec<IpAddr>, Wait> {
    let families = families(service);
    let mut asked: Vec<(IpAddr, &'static str)> = Vec::new();
    let from_spec = service.spec.as_ref().and_then(|spec| spec.load_balancer_ip.as_deref());
    if let Some(text) = from_spec.map(str::trim).filter(|text| !text.is_empty()) {
        ask(&mut asked, &families, text, FIELD)?;
    }
    for (source, list) in stated(service, iter::once(annotations::IPS).chain(foreign::IPS)) {
        let texts: Vec<&str> = list.split(',').map(str::trim).filter(|text| !text.is_empty()).collect();
        if texts.len() > MOST_ADDRESSES {
            return Err(contradictory(format!(
                "{source} names {} addresses: name at most one of each family",
                texts.len()
            )));
        }
        for text in texts {
            ask(&mut asked, &families, text, source)?;
        }
    }
    Ok(asked.into_iter().map(|(address, _)| address).collect())
}

/// Adds one address to those that are asked for.
fn ask(
    asked: &mut Vec<(IpAddr, &'static str)>,
    families: &[Family],
    text: &str,
    source: &'static str,
) -> Result<(), Wait> {
    let address = address(text, source)?;
    let family = Family::of(address);
    if !families.contains(&family) {
        return Err(Wait::new(
            reasons::FAMILY_MISMATCH,
            format!(
                "{source} asks for {address}, but the Service has no {family} address: name an address of a \
                 family in spec.ipFamilies ({}), or change spec.ipFamilyPolicy",
                some_of(families, 2)
            ),
            Until::Edited,
        ));
    }
    match asked.iter().find(|(known, _)| Family::of(*known) == family) {
        None => asked.push((address, source)),
        Some((known, _)) if *known == address => {}
        Some((known, first)) => {
            let both = if *first == source {
                format!("{source} asks for {known} and for {address}")
            } else {
                format!("{first} asks for {known} and {source} for {address}")
            };
            return Err(contradictory(format!("{both}: ask for one {family} address")));
        }
    }
    Ok(())
}

fn address(text: &str, source: &str) -> Result<IpAddr, Wait> {
    let invalid = |message| Wait::new(reasons::ADDRESS_INVALID, message, Until::Edited);
    match parse_address(text) {
        // kube-vip takes it for a wish for DHCP, in the field as in its annotation.
        Ok(address) if address.is_unspecified() => Err(invalid(format!(
            "{source} says {address}, by which kube-vip leases an address by DHCP, but Landfall does not \
             lease addresses by DHCP: name an address, or none to be given one from a pool"
        ))),
        Ok(address) => Ok(address),
        Err(RangeError::Mapped(mapped)) => {
            Err(invalid(format!("{source} says {}", RangeError::Mapped(mapped))))
        }
        Err(_) => Err(invalid(format!(
            "{source} says {}, which is not an IPv4 or IPv6 address: write addresses such as 192.168.10.50 \
             or fd00::50, at most one of each family, separated by commas",
            quoted(text)
        ))),
    }
}

/// The pools of our own annotation.
fn own_pools(service: &Service) -> Option<Vec<String>> {
    let list = annotation(service, annotations::POOL)?;
    let mut seen = BTreeSet::new();
    let names: Vec<String> = list
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty() && seen.insert(*name))
        .map(str::to_owned)
        .collect();
    (!names.is_empty()).then_some(names)
}

fn too_many_pools(service: &Service) -> Option<Wait> {
    let number = own_pools(service)?.len();
    (number > MOST_POOLS)
        .then(|| invalid(format!("{} names {number} pools: name at most {MOST_POOLS}", annotations::POOL)))
}

/// The pools that are asked for, if all annotations mean the same. MetalLB's names one pool and no
/// list, so ours may name no other beside it.
fn agreed_pools(service: &Service) -> Result<Option<Vec<String>>, Wait> {
    if let Some(too_many) = too_many_pools(service) {
        return Err(too_many);
    }
    if let Some((source, name)) = agreed(service, foreign::POOL)?
        && let Some(own) = own_pools(service)
        && own != [name]
    {
        return Err(contradictory(format!(
            "{} names {} and {source} names {}: name that pool alone in both, or remove one of the two",
            annotations::POOL,
            quoted(&own.join(",")),
            quoted(name)
        )));
    }
    Ok(pools(service))
}

/// The annotations that name a sharing key.
fn sharing_keys() -> impl Iterator<Item = &'static str> {
    iter::once(annotations::SHARING_KEY).chain(foreign::SHARING_KEY)
}

/// The sharing key that the Service names.
pub(super) fn sharing_key(service: &Service) -> Result<Option<String>, Wait> {
    let Some((source, key)) = agreed(service, sharing_keys())? else { return Ok(None) };
    let length = key.chars().count();
    if length > LONGEST_KEY {
        return Err(invalid(format!(
            "{source} says {}, which has {length} characters: write at most {LONGEST_KEY}",
            quoted(key)
        )));
    }
    Ok(Some(key.to_owned()))
}

fn reserve(service: &Service) -> Result<bool, Wait> {
    match annotation(service, annotations::RESERVE) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => Err(invalid(format!(
            "{} says {}: write 'true' to keep the address for this Service's name, or 'false'",
            annotations::RESERVE,
            quoted(other)
        ))),
    }
}

#[cfg(test)]
mod tests;
