//! Memberships in IPv6 multicast groups.

use std::collections::HashMap;
use std::io;
use std::net::Ipv6Addr;

use socket2::{Domain, Socket, Type};

use crate::lan::LinkIndex;

/// Keeps the node a member of any number of groups.
///
/// The kernel charges every membership to its socket and refuses when the socket's option memory
/// (`net.core.optmem_max`) is used up, so there are as many sockets as are needed.
#[derive(Debug, Default)]
pub struct Groups {
    sockets: Vec<Socket>,
    memberships: HashMap<(LinkIndex, Ipv6Addr), usize>,
}

impl Groups {
    /// Joins a group on a link (`IPV6_JOIN_GROUP`); the kernel reports that by MLD, so that snooping
    /// switches pass the group's frames on (RFC 4541). Joining twice is once.
    ///
    /// # Errors
    /// `ENODEV` where the link is gone or has IPv6 switched off.
    pub fn join(&mut self, link: LinkIndex, group: Ipv6Addr) -> io::Result<()> {
        if self.memberships.contains_key(&(link, group)) {
            return Ok(());
        }
        // The last socket is the one with room; earlier ones get room back when groups are left.
        for at in (0..self.sockets.len()).rev() {
            match self.sockets[at].join_multicast_v6(&group, link.0) {
                Ok(()) => {
                    self.memberships.insert((link, group), at);
                    return Ok(());
                }
                Err(error) if is_full(&error) => {}
                Err(error) => return Err(error),
            }
        }
        let socket = Socket::new(Domain::IPV6, Type::DGRAM.cloexec().nonblocking(), None)?;
        socket.join_multicast_v6(&group, link.0)?;
        self.memberships.insert((link, group), self.sockets.len());
        self.sockets.push(socket);
        Ok(())
    }

    /// Leaves a group on a link; one that was never joined is left already.
    ///
    /// # Errors
    /// What the kernel says. The membership counts as left all the same.
    pub fn leave(&mut self, link: LinkIndex, group: Ipv6Addr) -> io::Result<()> {
        match self.memberships.remove(&(link, group)) {
            Some(at) => self.sockets[at].leave_multicast_v6(&group, link.0),
            None => Ok(()),
        }
    }

    /// Forgets the memberships of links that are gone; the kernel has ended them with the link.
    pub fn keep_links(&mut self, exists: impl Fn(LinkIndex) -> bool) {
        self.memberships.retain(|(link, _), _| exists(*link));
    }

    /// How many groups are joined.
    pub fn len(&self) -> usize {
        self.memberships.len()
    }

    /// Whether no group is joined.
    pub fn is_empty(&self) -> bool {
        self.memberships.is_empty()
    }
}

/// Whether a socket has no memory for another membership.
fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::ENOMEM))
}
