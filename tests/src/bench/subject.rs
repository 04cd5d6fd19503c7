//! What can be measured, and the lab that each needs.

use clap::ValueEnum;

use crate::lab::{LabOptions, ProxyMode};

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Subject {
    /// From a Service's creation to its address, and to the first ARP answer (2 min)
    Grant,
    /// Memory of controller and speakers at 100 Services (1 min)
    Memory,
    /// What clients miss when the owner's port goes dark, step by step, beside keepalived (8 min)
    Failover,
    /// Thousands of Services at once, beside a plain client that writes only what must be written (10 min)
    Grants,
    /// What each client of a LAN misses when all are clients of the node that dies (2 min)
    FailoverClients,
    /// A second crash 1 s after the first (3 min)
    FailoverTwice,
    /// Failover with 3, 5 and 10 nodes (7 min)
    FailoverNodes,
    /// Failover of 1,000 addresses (3 min)
    FailoverMany,
    /// Two LANs on each node, of which one fails (3 min)
    FailoverLans,
    /// Failover with kube-proxy in iptables mode (3 min)
    FailoverIptables,
    /// Planned moves of each kind, for clients that know the node and clients that do not (12 min)
    Moves,
    /// Rolling upgrades of the speakers, on real pods (15 min)
    Upgrades,
    /// The API server away for --minutes: crashes, restarts, and its return
    Offline,
    /// Every processor busy and memory short for --minutes, and then real deaths
    Starved,
    /// 2 % and then 10 % of all packets lost for --minutes each
    Lossy,
    /// 50,000 ARP requests a second at one owner of 1,000 addresses (2 min)
    Storm,
    /// --faults random faults with clients on, seeded (4 s each)
    Chaos,
}

/// Labs in which subjects are measured, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arena {
    /// Three speakers, a bystander with the backends, two clients.
    Small,
    /// The same with kube-proxy in iptables mode.
    Iptables,
    /// The same with many clients.
    Crowded,
    /// The same with a second LAN.
    TwoLans,
    /// Ten speakers and a bystander.
    Large,
    /// Real kubelets, Landfall installed as a user would.
    Pods,
    /// Five speakers, a bystander, three clients.
    Chaos,
}

impl Subject {
    /// Whether it is measured where no subject is named: those of the README that need but minutes.
    pub(super) fn is_of_the_whole(self) -> bool {
        matches!(self, Self::Grant | Self::Memory | Self::Failover | Self::Grants)
    }

    pub(super) fn arena(self) -> Arena {
        match self {
            Self::FailoverIptables => Arena::Iptables,
            Self::FailoverClients => Arena::Crowded,
            Self::FailoverLans => Arena::TwoLans,
            Self::FailoverNodes => Arena::Large,
            Self::Upgrades => Arena::Pods,
            Self::Chaos => Arena::Chaos,
            _ => Arena::Small,
        }
    }
}

impl Arena {
    pub(super) fn lab(self) -> LabOptions {
        let small = LabOptions { nodes: 4, clients: 2, kubelets: false, ..LabOptions::default() };
        match self {
            Self::Small => small,
            Self::Iptables => LabOptions { proxy: ProxyMode::Iptables, ..small },
            Self::Crowded => LabOptions { clients: 12, ..small },
            Self::TwoLans => LabOptions { second_lan: true, ..small },
            Self::Large => LabOptions { nodes: 11, ..small },
            Self::Pods => LabOptions { kubelets: true, ..small },
            Self::Chaos => LabOptions { nodes: 6, clients: 3, ..small },
        }
    }

    /// How many of the nodes have speakers from the start.
    pub(super) fn speakers(self) -> usize {
        match self {
            Self::Pods => 0,
            Self::Chaos => 5,
            _ => 3,
        }
    }
}
