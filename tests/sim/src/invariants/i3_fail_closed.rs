//! I3 fail closed: no announcement before its filter is in the kernel; no filter removed before its announcement
//! ended.
//!
//! The kernels of this world enforce at once what is asked for: [`Filter`] stands for what one holds, and holds all.
//! How long a real one takes, and what follows where it refuses, is tested in `speaker/tests`.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use super::Judge;

/// What a node's kernel holds of the filter.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// The addresses whose guard is not in the kernel.
    pub missing: BTreeSet<IpAddr>,
}

impl Filter {
    /// Whether the guard of an address, if it needs one, is in the kernel.
    pub fn is_installed(&self, address: IpAddr) -> bool {
        !self.missing.contains(&address)
    }
}

impl Judge {
    /// I3, when a node begins to answer for an address.
    pub(super) fn i3_fail_closed(&mut self, now: Instant, at: usize, node: usize, filter: &Filter) {
        let address = self.addresses[at].address;
        if !filter.is_installed(address) {
            let what = format!("n{} answers for {address} before its filter is in the kernel", node + 1);
            self.breaks("i3_fail_closed", now, what);
        }
    }
}
