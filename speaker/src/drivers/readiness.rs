//! Whether everything that a takeover needs is at hand, and what is missing. Pure.

use std::collections::BTreeSet;

use super::sockets::Problem;
use crate::filter::Health;
use crate::ownership::gates::Gates;

/// What the speaker has so far. Shared by all drivers through a `tokio::sync::watch`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Whether the node's network is known.
    pub network: bool,
    /// How many links there are to announce on.
    pub links: usize,
    /// Whether the sockets on the LAN were opened, and which could not be.
    pub sockets: Option<Vec<Problem>>,
    /// Where the addresses to look after are known from.
    pub vips: Known,
    /// Where the other speakers are known from.
    pub peers: Known,
    /// Where it is known from who may come in to Services with source ranges.
    pub guards: Known,
    /// How the packet filter fares, once it has been tried.
    pub filter: Option<Health>,
    /// Why the API server is out of reach, if it is.
    pub api: Option<String>,
    /// What the node lacks to serve what it announces.
    pub gates: Gates,
}

/// Where something is known from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Known {
    /// It is not known yet.
    #[default]
    NotYet,
    /// From the state file: it was so when the speaker last ran.
    FromFile,
    /// From a complete list of the API server.
    FromApi,
}

impl Readiness {
    /// What is missing, in words; nothing where the speaker is warm.
    ///
    /// An API server that is out of reach is no lack once a list, or the file in its stead, is there.
    pub fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        let mut lacks = |lack: bool, what: &str| {
            if lack {
                missing.push(what.to_owned());
            }
        };
        lacks(!self.network, "the node's interfaces are not listed yet");
        lacks(self.network && self.sockets.is_none(), "the sockets on the LAN are not open yet");
        let api = self.api.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
        lacks(self.vips == Known::NotYet, &format!("no list of VirtualIPs yet{api}"));
        lacks(self.peers == Known::NotYet, &format!("no list of Speakers yet{api}"));
        lacks(self.guards == Known::NotYet, &format!("no list of ServiceGuards yet{api}"));
        let is_known = self.vips != Known::NotYet && self.guards != Known::NotYet;
        lacks(is_known && self.filter.is_none(), "the packet filter is not in the kernel yet");
        missing.extend(self.filter.iter().filter_map(|filter| filter.missing.clone()));
        if self.all_failed() {
            missing.extend(self.problems());
        }
        missing
    }

    /// Whether all is known that a process needs to go on in the place of another, which still has the sockets and the
    /// table of the packet filter. That one's table stays and is enforced until this process has taken it over, which
    /// it can only once the other has let go of it.
    pub fn may_begin(&self) -> bool {
        self.network && [self.vips, self.peers, self.guards].iter().all(|known| *known != Known::NotYet)
    }

    /// Whether no link is left to announce on for want of sockets.
    fn all_failed(&self) -> bool {
        let failed: BTreeSet<_> =
            self.sockets.iter().flatten().map(|problem| problem.interface.as_str()).collect();
        !failed.is_empty() && failed.len() >= self.links
    }

    fn problems(&self) -> impl Iterator<Item = String> + '_ {
        self.sockets.iter().flatten().map(|problem| problem.message.clone())
    }

    /// What a person should know although it makes the speaker no less ready.
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks: Vec<_> = if self.all_failed() { Vec::new() } else { self.problems().collect() };
        remarks.extend(self.filter.iter().filter_map(|filter| filter.remark.clone()));
        if let Some(error) = &self.api {
            remarks.push(format!("the API server is out of reach, working from what is known: {error}"));
        } else if [self.vips, self.peers, self.guards].contains(&Known::FromFile) {
            remarks.push("working from the state file until the API server has answered".to_owned());
        }
        remarks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speaker_is_warm_with_a_file_and_without_an_api() {
        let mut readiness = Readiness { api: Some("connection refused".into()), ..Readiness::default() };
        assert_eq!(
            readiness.missing(),
            [
                "the node's interfaces are not listed yet",
                "no list of VirtualIPs yet: connection refused",
                "no list of Speakers yet: connection refused",
                "no list of ServiceGuards yet: connection refused",
            ]
        );
        readiness.network = true;
        readiness.sockets = Some(Vec::new());
        readiness.vips = Known::FromFile;
        readiness.peers = Known::FromFile;
        readiness.guards = Known::FromFile;
        assert_eq!(readiness.missing(), ["the packet filter is not in the kernel yet"]);
        readiness.filter = Some(Health::default());
        assert_eq!(readiness.missing(), [""; 0]);
        assert_eq!(
            readiness.remarks(),
            ["the API server is out of reach, working from what is known: connection refused"]
        );
    }

    #[test]
    fn sockets_that_cannot_be_opened_are_missing_where_no_link_is_left() {
        let message = "cannot open a raw socket on eth0: Operation not permitted".to_owned();
        let mut readiness = Readiness {
            network: true,
            links: 1,
            sockets: Some(vec![Problem { interface: "eth0".into(), message: message.clone() }]),
            vips: Known::FromApi,
            peers: Known::FromApi,
            guards: Known::FromApi,
            filter: Some(Health::default()),
            ..Readiness::default()
        };
        assert_eq!(readiness.missing(), [message.as_str()]);
        readiness.links = 2;
        assert_eq!(readiness.missing(), [""; 0]);
        assert_eq!(readiness.remarks(), [message]);
    }

    #[test]
    fn a_kernel_that_cannot_enforce_source_ranges_is_a_lack() {
        let lacking = "the kernel lacks what source ranges need: the set nodeports: Operation not supported";
        let health = Health { missing: Some(lacking.to_owned()), remark: None };
        let readiness = Readiness { filter: Some(health), ..Readiness::default() };
        assert!(readiness.missing().contains(&lacking.to_owned()));
        let health = Health { missing: None, remark: Some("no pings".to_owned()) };
        let readiness = Readiness { filter: Some(health), ..readiness };
        assert!(readiness.remarks().contains(&"no pings".to_owned()));
    }
}
