//! What source ranges mean, said as plainly as possible: each packet is held against the lists, one by one.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use landfall_crds::Protocol;

use crate::filter::frontend::{Claim, Frontend, Guard, Port, ServiceName};
use crate::filter::sources::Sources;
use crate::filter::wanted::Wanted;

/// A packet of a client, or one back to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    /// The client.
    pub(crate) client: IpAddr,
    /// The address that the client asked for.
    pub(crate) destination: IpAddr,
    /// The port; a ping without one.
    pub(crate) port: Option<Port>,
    /// Whether the address is the node's own.
    pub(crate) is_own: bool,
    /// Whether it goes back to the client.
    pub(crate) is_reply: bool,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It goes on.
    Passes,
    /// It is not let in: dropped.
    Dropped,
    /// It is let in, and nobody serves it: the client is told.
    Rejected,
}

/// A Service's ranges, as a person wrote them.
#[derive(Clone, Debug)]
pub(crate) struct Ranges {
    pub(crate) nets: Vec<IpNet>,
    pub(crate) node_ports: Vec<Port>,
}

/// All that is asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    /// Addresses, each with the Services that hold it and the port that each serves.
    pub(crate) addresses: BTreeMap<IpAddr, Vec<(ServiceName, Vec<Port>)>>,
    /// Services with ranges.
    pub(crate) guards: BTreeMap<ServiceName, Ranges>,
    /// Services that need ranges that are not known yet.
    pub(crate) awaited: Vec<ServiceName>,
}

impl World {
    /// What becomes of a packet.
    pub(crate) fn fate(&self, packet: &Packet) -> Fate {
        let Packet { client, destination, port, is_own, is_reply } = *packet;
        if let Some(claims) = self.addresses.get(&destination).filter(|claims| !claims.is_empty()) {
            let serves =
                |(_, ports): &&(ServiceName, Vec<Port>)| port.is_some_and(|port| ports.contains(&port));
            if let Some((service, _)) = claims.iter().find(serves) {
                return if self.lets_in(service, client) { Fate::Passes } else { Fate::Dropped };
            }
            if !claims.iter().any(|(service, _)| self.lets_in(service, client)) {
                return Fate::Dropped;
            }
            // Pings go on to the node that announces, and no reply is ever answered.
            return if port.is_none() || is_reply { Fate::Passes } else { Fate::Rejected };
        }
        let is_loopback = destination.is_loopback();
        if let Some(port) = port.filter(|_| is_own && !is_loopback) {
            let names = |ranges: &&Ranges| ranges.node_ports.contains(&port);
            let naming: Vec<&Ranges> = self.guards.values().filter(names).collect();
            // While two Services disagree about a port, nobody is let in.
            let agree = naming.windows(2).all(|two| two[0].sources() == two[1].sources());
            let lets_in = |ranges: &&Ranges| ranges.nets.iter().any(|net| net.contains(&client));
            if !agree || !naming.iter().all(lets_in) {
                return Fate::Dropped;
            }
        }
        Fate::Passes
    }

    fn lets_in(&self, service: &ServiceName, client: IpAddr) -> bool {
        match self.guards.get(service) {
            Some(ranges) => ranges.nets.iter().any(|net| net.contains(&client)),
            None => !self.awaited.contains(service),
        }
    }

    /// As the API tells of it.
    pub(crate) fn wanted(&self) -> Wanted {
        let mut wanted = Wanted::default();
        self.tell(&mut wanted);
        wanted
    }

    /// Makes that what is asked for. Tells what may have to change.
    pub(crate) fn tell(&self, wanted: &mut Wanted) -> std::collections::BTreeSet<crate::filter::plan::Scope> {
        let mut dirty = Default::default();
        let gone: Vec<_> =
            wanted.frontends().keys().filter(|at| !self.addresses.contains_key(*at)).copied().collect();
        for address in gone {
            wanted.set_frontend(address, None, &mut dirty);
        }
        let gone: Vec<_> =
            wanted.guards().keys().filter(|of| !self.guards.contains_key(*of)).cloned().collect();
        for service in gone {
            wanted.set_guard(&service, None, &mut dirty);
        }
        for (service, ranges) in &self.guards {
            wanted.set_guard(service, Some(Arc::new(ranges.guard())), &mut dirty);
        }
        for (address, claims) in &self.addresses {
            let frontend = Arc::new(self.frontend(claims));
            wanted.set_frontend(*address, Some(frontend), &mut dirty);
        }
        dirty
    }

    fn frontend(&self, claims: &[(ServiceName, Vec<Port>)]) -> Frontend {
        let needs =
            |service: &ServiceName| self.guards.contains_key(service) || self.awaited.contains(service);
        let claim = |(service, _): &(ServiceName, Vec<Port>)| Claim {
            service: service.clone(),
            guard: needs(service).then(|| "digest".into()),
        };
        let ports =
            claims.iter().flat_map(|(service, ports)| ports.iter().map(move |port| (*port, service.clone())));
        Frontend::new(claims.iter().map(claim).collect(), ports)
    }
}

impl Ranges {
    fn sources(&self) -> Sources {
        self.nets.iter().copied().collect()
    }

    fn guard(&self) -> Guard {
        Guard {
            digest: "digest".to_owned(),
            sources: self.sources(),
            ranges: self.nets.iter().map(ToString::to_string).collect(),
            node_ports: self.node_ports.clone(),
            ..Guard::default()
        }
    }
}

pub(crate) fn tcp(number: u16) -> Port {
    Port { protocol: Protocol::Tcp, number }
}
