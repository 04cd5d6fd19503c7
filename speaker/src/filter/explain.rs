//! Who may come in, in words.

use std::fmt;
use std::net::IpAddr;

use super::Filter;
use super::frontend::{Claim, Port, ServiceName};
use super::plan::Scope;
use super::sources::Family;
use super::wanted::Wanted;

/// How many ranges are named.
const NAMED: usize = 5;

/// Who may come in to an address, or to the node's ports of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The address; nothing where it is about ports of the node.
    pub address: Option<IpAddr>,
    /// The ports, each with its Service and with who is let in.
    pub ports: Vec<(Port, ServiceName, LetIn)>,
    /// Whether the kernel holds all of it.
    pub is_in_kernel: bool,
}

/// Who is let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LetIn {
    /// Everybody: the Service has no source ranges.
    Everybody,
    /// Those from these ranges.
    Ranges(Vec<String>),
    /// Nobody, and why.
    Nobody(String),
}

impl Wanted {
    fn let_in(&self, claim: &Claim, family: Option<Family>) -> LetIn {
        let Some(guard) = self.guard(&claim.service) else {
            return match claim.guard {
                Some(_) => LetIn::Nobody("its ServiceGuard is not known yet".to_owned()),
                None => LetIn::Everybody,
            };
        };
        if let Some(why) = &guard.closed {
            return LetIn::Nobody(why.clone());
        }
        let is_of =
            |range: &&String| family.is_none_or(|family| range.contains(':') == (family == Family::V6));
        let ranges: Vec<String> = guard.ranges.iter().filter(is_of).cloned().collect();
        if ranges.is_empty() {
            return LetIn::Nobody("it has no source range of this family".to_owned());
        }
        LetIn::Ranges(ranges)
    }
}

impl Filter {
    /// Who may come in to an address; nothing where no Service claims it.
    pub fn explain(&self, address: IpAddr) -> Option<Explanation> {
        let frontend = self.wanted.frontend(address)?;
        let family = Some(Family::of(address));
        let port =
            |(port, claim): (Port, &Claim)| (port, claim.service.clone(), self.wanted.let_in(claim, family));
        Some(Explanation {
            address: Some(address),
            ports: frontend.ports().map(port).collect(),
            is_in_kernel: self.install.holds(Scope::Address(address)),
        })
    }

    /// Who may come in to the node's ports of a Service; nothing where it has no source ranges.
    pub fn explain_node_ports(&self, service: &ServiceName) -> Option<Explanation> {
        let guard = self.wanted.guard(service)?;
        let claim = Claim { service: service.clone(), guard: Some(guard.digest.as_str().into()) };
        let port = |port: &Port| (*port, service.clone(), self.wanted.let_in(&claim, None));
        Some(Explanation {
            address: None,
            ports: guard.node_ports.iter().map(port).collect(),
            is_in_kernel: guard.node_ports.iter().all(|port| self.install.holds(Scope::NodePort(*port))),
        })
    }
}

impl fmt::Display for LetIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everybody => write!(f, "everybody"),
            Self::Ranges(ranges) => {
                let named = ranges.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>();
                write!(f, "{}", named.join(", "))?;
                match ranges.len().saturating_sub(NAMED) {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
            Self::Nobody(why) => write!(f, "nobody ({why})"),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => write!(f, "{address}")?,
            None => write!(f, "nodePorts")?,
        }
        for (place, (port, service, let_in)) in self.ports.iter().enumerate() {
            let separator = if place == 0 { ":" } else { ";" };
            write!(f, "{separator} {port} of {service} lets in {let_in}")?;
        }
        if self.ports.is_empty() {
            write!(f, ": nothing is served")?;
        }
        if !self.is_in_kernel {
            write!(f, "; not yet in the kernel")?;
        }
        Ok(())
    }
}
