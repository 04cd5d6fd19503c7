//! Which address a Service is given in one family.

use std::net::IpAddr;

use landfall_crds::VirtualIP;
use landfall_crds::address::Family;

use super::book::{AddressBook, Holder, Pool};
use super::request::Request;
use super::wait::{Until, Wait, quoted, reasons, some_of};
use super::{ServiceKey, named};
use crate::world::virtual_ips::{
    VirtualIps, claim_of, is_deleting, is_reserved_for_another, key_of_claim, last_holder,
};

/// At most so many pools are named in one message.
const MOST_NAMED: usize = 8;

/// An address that can be granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The address.
    pub address: IpAddr,
    /// The pool that it lies in.
    pub pool: Option<String>,
}

/// Chooses an address of `family` for `service`: the one that is asked for; else one that it has held
/// or that is kept for it; else the lowest free one of the best pool.
///
/// # Errors
/// There is none, for the reason given.
pub fn choose(
    book: &AddressBook,
    vips: &VirtualIps,
    service: &ServiceKey,
    request: &Request,
    family: Family,
) -> Result<Chosen, Wait> {
    if let Some(address) = request.address(family) {
        return asked(book, vips, service, request, address);
    }
    if let Some(own) = own(book, vips, service, request, family) {
        return Ok(own);
    }
    match &request.pools {
        Some(names) => from_named(book, names, family),
        None => from_any(book, family),
    }
}

/// The address that is asked for, if it can be had.
fn asked(
    book: &AddressBook,
    vips: &VirtualIps,
    service: &ServiceKey,
    request: &Request,
    address: IpAddr,
) -> Result<Chosen, Wait> {
    let Some((name, pool)) = book.pool_of(address).and_then(|name| Some((name, book.pool(name)?))) else {
        let excluded = book.pools().find(|(_, pool)| is_excluded(pool, address));
        let why = match excluded {
            Some((name, _)) => format!("pool {name} excludes it"),
            None => "no IPPool holds it".to_owned(),
        };
        let message =
            format!("{address} is asked for, but {why}: ask for another address, or add it to a pool");
        return Err(Wait::new(reasons::ADDRESS_NOT_IN_POOL, message, Until::Edited));
    };
    if let Some(names) = &request.pools
        && !names.iter().any(|wanted| wanted == name)
    {
        let message = format!(
            "{address} is asked for, but it lies in pool {name} and not in {}: ask for an address of that \
             pool, or remove one of the two wishes",
            some_of(names.iter().map(|name| quoted(name)), MOST_NAMED)
        );
        return Err(Wait::new(reasons::ADDRESS_NOT_IN_POOL, message, Until::Edited));
    }
    if !pool.is_ready() {
        return Err(Wait::new(
            reasons::POOL_NOT_READY,
            format!("{address} is asked for, but pool {name} grants nothing: {}", why_not_ready(pool)),
            Until::Edited,
        ));
    }
    match obstacle(book, vips, service, address, false) {
        Some(wait) => Err(wait),
        None => Ok(Chosen { address, pool: Some(name.to_owned()) }),
    }
}

/// An address that the Service held until now or that is reserved for it by name.
fn own(
    book: &AddressBook,
    vips: &VirtualIps,
    service: &ServiceKey,
    request: &Request,
    family: Family,
) -> Option<Chosen> {
    vips.of_service(service).filter(|address| Family::of(*address) == family).find_map(|address| {
        let name = book.pool_of(address)?;
        let usable = book.pool(name).is_some_and(Pool::is_ready) && request.accepts(address, Some(name));
        (usable && obstacle(book, vips, service, address, false).is_none())
            .then(|| Chosen { address, pool: Some(name.to_owned()) })
    })
}

/// What keeps the Service from having the address, pools aside. One that shows the address already
/// gets it back whatever has been written about it meanwhile, unless somebody else claims it.
pub fn obstacle(
    book: &AddressBook,
    vips: &VirtualIps,
    service: &ServiceKey,
    address: IpAddr,
    shows_it: bool,
) -> Option<Wait> {
    let taken = |by: String| {
        let message = format!("{address} is asked for, but {by}: ask for another address, or free this one");
        Some(Wait::new(reasons::ADDRESS_TAKEN, message, Until::Free(address)))
    };
    book.holders(address).iter().find_map(|holder| match holder {
        Holder::VirtualIp => {
            vips.get(address).and_then(|vip| obstacle_of_virtual_ip(vip, service, address, shows_it))
        }
        Holder::Busy => taken("it is being granted or released just now".into()),
        Holder::Status(by) | Holder::Lost(by) if by != service => {
            taken(format!("Service {} has it", named(by)))
        }
        Holder::ExternalIp(by) if by != service => {
            taken(format!("Service {} has it in spec.externalIPs", named(by)))
        }
        Holder::Status(_) | Holder::Lost(_) | Holder::ExternalIp(_) => None,
        Holder::Node(_) | Holder::Gateway(_) | Holder::SubnetEdge(_) if shows_it => None,
        Holder::Node(node) => no_station(address, &format!("node {node}'s own")),
        Holder::Gateway(node) => no_station(address, &format!("node {node}'s gateway")),
        Holder::SubnetEdge(node) => {
            no_station(address, &format!("the network's own or broadcast address on a subnet of node {node}"))
        }
    })
}

/// An address that belongs to the network itself.
fn no_station(address: IpAddr, what: &str) -> Option<Wait> {
    let message = format!("{address} is asked for, but it is {what}: ask for another address");
    Some(Wait::new(reasons::NODE_ADDRESS, message, Until::Free(address)))
}

fn obstacle_of_virtual_ip(
    vip: &VirtualIP,
    service: &ServiceKey,
    address: IpAddr,
    shows_it: bool,
) -> Option<Wait> {
    if claim_of(vip, service).is_some() {
        return None;
    }
    let until = Until::Free(address);
    if let Some(claim) = vip.spec.claims.first() {
        let by = named(&key_of_claim(claim));
        let message = format!(
            "{address} is asked for, but Service {by} has it: ask for another address, or free this one"
        );
        return Some(Wait::new(reasons::ADDRESS_TAKEN, message, until));
    }
    if shows_it {
        return None;
    }
    if is_reserved_for_another(vip, service) {
        let message = format!(
            "{address} is asked for, but VirtualIP {address} keeps it for another: see its spec.reservation"
        );
        return Some(Wait::new(reasons::ADDRESS_RESERVED, message, until));
    }
    let may_take_over = vip.spec.reservation.is_some() || last_holder(vip).as_ref() == Some(service);
    if may_take_over && !is_deleting(vip) {
        return None;
    }
    let message = format!("{address} is asked for, but its last holder is still giving it up: wait a moment");
    Some(Wait::new(reasons::ADDRESS_TAKEN, message, until))
}

/// The lowest free address of the first of the named pools that has one.
fn from_named(book: &AddressBook, names: &[String], family: Family) -> Result<Chosen, Wait> {
    let unknown: Vec<String> =
        names.iter().filter(|name| book.pool(name).is_none()).map(|name| quoted(name)).collect();
    if !unknown.is_empty() {
        let message = format!(
            "landfall.dev/pool names {}, which does not exist: existing pools are {}",
            some_of(unknown, MOST_NAMED),
            if book.has_no_pools() {
                "none".to_owned()
            } else {
                some_of(book.pools().map(|(name, _)| name), MOST_NAMED)
            }
        );
        return Err(Wait::new(reasons::POOL_UNKNOWN, message, Until::Edited));
    }
    let pools = names.iter().filter_map(|name| Some((name.as_str(), book.pool(name)?)));
    let until = Until::Any { family, pools: Some(names.to_vec()) };
    lowest_of(book, pools, family, |_| None).map_err(|refusals| refusals.into_wait(family, until))
}

/// The lowest free address of the best pool that gives to everybody.
fn from_any(book: &AddressBook, family: Family) -> Result<Chosen, Wait> {
    let until = Until::Any { family, pools: None };
    if book.has_no_pools() {
        let message = "there is no IPPool: create one whose spec.addresses holds addresses of your LAN";
        return Err(Wait::new(reasons::NO_POOL, message, until));
    }
    let by_name_only =
        |pool: &Pool| (!pool.object.spec.auto_assign).then_some("gives only to Services that name it");
    lowest_of(book, book.pools(), family, by_name_only).map_err(|refusals| refusals.into_wait(family, until))
}

fn lowest_of<'a>(
    book: &AddressBook,
    pools: impl Iterator<Item = (&'a str, &'a Pool)>,
    family: Family,
    unfit: impl Fn(&Pool) -> Option<&'static str>,
) -> Result<Chosen, Refusals> {
    let mut refusals = Refusals::default();
    for (name, pool) in pools {
        if pool.own.first(family).is_none() {
            refusals.others.push(format!("{name} holds no {family} address of its own"));
        } else if let Some(why) = unfit(pool) {
            refusals.others.push(format!("{name} {why}"));
        } else if !pool.is_ready() {
            refusals.not_ready.push(format!("{name} grants nothing ({})", why_not_ready(pool)));
        } else if let Some(address) = book.lowest_free(name, family) {
            return Ok(Chosen { address, pool: Some(name.to_owned()) });
        } else {
            refusals.exhausted.push(format!("{name} is exhausted"));
        }
    }
    Err(refusals)
}

/// What was wrong with each pool.
#[derive(Default)]
struct Refusals {
    exhausted: Vec<String>,
    not_ready: Vec<String>,
    others: Vec<String>,
}

impl Refusals {
    fn into_wait(self, family: Family, until: Until) -> Wait {
        let (reason, advice) = if !self.exhausted.is_empty() {
            (reasons::POOL_EXHAUSTED, "add addresses to a pool or release some")
        } else if !self.not_ready.is_empty() {
            (reasons::POOL_NOT_READY, "see the conditions of the pool")
        } else {
            (reasons::NO_POOL, "create a pool with such addresses")
        };
        let all = self.exhausted.into_iter().chain(self.not_ready).chain(self.others);
        let message = format!("no {family} address can be had: {}: {advice}", some_of(all, MOST_NAMED));
        Wait::new(reason, message, until)
    }
}

/// Why a pool grants nothing, in words.
pub fn why_not_ready(pool: &Pool) -> String {
    if pool.object.metadata.deletion_timestamp.is_some() {
        return "it is being deleted".to_owned();
    }
    let fields = pool.not_implemented.iter().map(|field| format!("spec.{field}"));
    format!("it sets {}, which this version does not enforce", some_of(fields, MOST_NAMED))
}

/// Whether the pool would hold the address if it were not excluded.
fn is_excluded(pool: &Pool, address: IpAddr) -> bool {
    let ranges = pool
        .object
        .spec
        .addresses
        .iter()
        .filter_map(|text| text.parse::<landfall_crds::address::AddressRange>().ok());
    ranges.into_iter().any(|range| range.contains(address)) && !pool.grantable.contains(address)
}
