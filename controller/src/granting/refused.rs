//! Claims that the API server refuses for good, as by a policy: of the address, of the Service, or of all.
//!
//! Which of these it is cannot be told, so both are put aside for a while. The address is given to nobody
//! meanwhile, lest it stay the lowest free one and hold its whole pool up; and a Service that is refused a second
//! time in a row waits, lest it go through all of the pool.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use super::ServiceKey;
use super::wait::{Until, Wait, reasons};

/// What was refused lately.
#[derive(Debug, Default)]
pub struct Refused {
    /// Addresses, with what the API server said.
    addresses: BTreeMap<IpAddr, String>,
    services: BTreeMap<ServiceKey, OfService>,
    /// Services whose guards are refused, with what the API server said.
    guards: BTreeMap<ServiceKey, String>,
}

/// Refusals in a row.
#[derive(Debug)]
struct OfService {
    number: u32,
    /// It is not tried before.
    until: Option<Instant>,
    /// What its owner is told: of the first time, so that it is told once.
    wait: Wait,
}

impl Refused {
    /// Notes a refusal. Returns how many there have been of this Service in a row.
    pub(crate) fn put(&mut self, address: IpAddr, service: &ServiceKey, said: &str) -> u32 {
        let said = short(said);
        let number =
            self.count(service, format!("the API server refuses to let the Service have an address: {said}"));
        self.addresses.insert(address, said);
        number
    }

    fn count(&mut self, service: &ServiceKey, message: String) -> u32 {
        let first = || OfService {
            number: 0,
            until: None,
            wait: Wait::new(reasons::WRITE_REFUSED, message, Until::Edited),
        };
        let of_service = self.services.entry(service.clone()).or_insert_with(first);
        of_service.number = of_service.number.saturating_add(1);
        of_service.number
    }

    /// Notes that a write to the Service itself is refused, without which it is given nothing. Returns how many
    /// refusals of it there have been in a row.
    pub(crate) fn put_service(&mut self, service: &ServiceKey, said: &str) -> u32 {
        self.count(service, format!("the API server refuses a write to the Service itself: {}", short(said)))
    }

    /// The Service is not tried before that.
    pub(crate) fn pause(&mut self, service: &ServiceKey, until: Instant) {
        if let Some(of_service) = self.services.get_mut(service) {
            of_service.until = Some(until);
        }
    }

    /// Ends the Service's pause if it is over, and says otherwise until when it goes on.
    pub(crate) fn end_pause(&mut self, service: &ServiceKey, now: Instant) -> Option<Instant> {
        let of_service = self.services.get_mut(service)?;
        of_service.until = of_service.until.filter(|until| *until > now);
        of_service.until
    }

    /// The Service has got an address, has changed, or is gone.
    pub(crate) fn forget(&mut self, service: &ServiceKey) {
        self.services.remove(service);
    }

    /// Whether the Service was refused an address.
    pub(crate) fn knows(&self, service: &ServiceKey) -> bool {
        self.services.contains_key(service)
    }

    /// The address may be tried again. Returns whether it had been put aside.
    pub(crate) fn end(&mut self, address: IpAddr) -> bool {
        self.addresses.remove(&address).is_some()
    }

    /// Whether the address is put aside.
    pub(crate) fn is_aside(&self, address: IpAddr) -> bool {
        self.addresses.contains_key(&address)
    }

    /// The Services that were refused and have got nothing since.
    pub(crate) fn services(&self) -> impl Iterator<Item = &ServiceKey> {
        self.services.keys()
    }

    /// Notes that the guard of a Service is refused; until it is written the Service is given nothing.
    pub(crate) fn put_guard(&mut self, service: &ServiceKey, said: &str) {
        self.guards.insert(service.clone(), short(said));
    }

    /// The guard of the Service is written, or needed no more.
    pub(crate) fn guard_is_written(&mut self, service: &ServiceKey) {
        self.guards.remove(service);
    }

    /// What the API server said of the Service's guard.
    pub(crate) fn of_guard(&self, service: &ServiceKey) -> Option<&str> {
        self.guards.get(service).map(String::as_str)
    }

    /// The addresses that are put aside.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.addresses.keys().copied()
    }

    /// What the API server said of an address that is put aside.
    pub(super) fn of_address(&self, address: IpAddr) -> Option<&str> {
        self.addresses.get(&address).map(String::as_str)
    }

    /// What to tell a Service that can be given nothing while something is put aside, if it was refused before:
    /// always the same, though it be tried now and then.
    pub(super) fn instead_of(&self, service: &ServiceKey) -> Option<&Wait> {
        let of_service = self.services.get(service).filter(|_| !self.addresses.is_empty());
        of_service.map(|it| &it.wait)
    }

    /// Why the Service is not tried now.
    pub(super) fn of_service(&self, service: &ServiceKey) -> Option<Wait> {
        if let Some(said) = self.of_guard(service) {
            let message = format!("the API server refuses to let the Service be guarded: {said}");
            return Some(Wait::new(reasons::WRITE_REFUSED, message, Until::Edited));
        }
        self.services.get(service).filter(|it| it.until.is_some()).map(|it| it.wait.clone())
    }
}

/// What the API server said, short and in one line.
fn short(text: &str) -> String {
    const LONGEST: usize = 400;
    let plain = text.chars().map(|it| if it.is_control() { ' ' } else { it });
    let mut short: String = plain.take(LONGEST).collect();
    if text.chars().nth(LONGEST).is_some() {
        short.push_str("...");
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    #[allow(clippy::disallowed_methods)] // A test needs some instant to count from.
    fn who_is_refused_is_told_of_the_first_time_for_as_long_as_it_waits() {
        let (mut refused, now) = (Refused::default(), Instant::now());
        let (a, b): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let web = ServiceKey { namespace: "shop".into(), name: "web".into() };
        assert_eq!(refused.put(a, &web, "no\nway"), 1);
        assert_eq!(refused.put(b, &web, "never"), 2);
        assert_eq!((refused.of_address(a), refused.of_address(b)), (Some("no way"), Some("never")));
        assert_eq!(refused.of_service(&web), None, "it is tried elsewhere at once");
        refused.pause(&web, now + Duration::from_secs(1));
        assert!(refused.of_service(&web).unwrap().message.ends_with("no way"));
        assert_eq!(refused.end_pause(&web, now), Some(now + Duration::from_secs(1)));
        assert_eq!(refused.end_pause(&web, now + Duration::from_secs(1)), None);
        assert_eq!(refused.of_service(&web), None);
        assert!(refused.end(a) && !refused.end(a));
        assert_eq!(refused.put(a, &web, &"x".repeat(10_000)), 3);
        assert!(refused.of_address(a).unwrap().len() < 500);
        refused.forget(&web);
        assert_eq!(refused.put(a, &web, "no"), 1);
    }
}
