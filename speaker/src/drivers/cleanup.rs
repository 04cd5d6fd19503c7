//! Removes what the speaker leaves in the kernel when it ends: the table of source ranges. Nothing else does.

use std::io;

use crate::filter::program::TABLE;
use crate::sys::netfilter::{NftSocket, NoAnswer, Refusal};
use crate::wire::nftables::{Batch, Question};

/// What was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleanup {
    /// A table, and it is removed.
    Removed,
    /// Nothing.
    Nothing,
}

/// Why nothing could be removed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("cannot reach the kernel's packet filter: {0}")]
    Unreachable(#[source] io::Error),
    #[error(
        "the table inet {TABLE} may not be removed: stop the speaker of this node first, which owns it, and run this \
         with the capability NET_ADMIN in the node's network namespace ({0})"
    )]
    NotPermitted(#[source] Refusal),
    #[error("the table inet {TABLE} was not removed: {0}")]
    Failed(#[source] Refusal),
}

/// Removes the table, in the network namespace of the calling thread. From then on every Service with source ranges is open to
/// all.
///
/// # Errors
/// A speaker still runs, a capability is missing, or the kernel has no packet filter.
pub fn run() -> Result<Cleanup, Error> {
    let mut socket = NftSocket::open().map_err(Error::Unreachable)?;
    match socket.ask(Question::Table, |_| {}) {
        Ok(()) => {}
        Err(NoAnswer::Io(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(Cleanup::Nothing),
        Err(NoAnswer::Io(error)) => return Err(Error::Unreachable(error)),
        Err(NoAnswer::Interrupted) => return Err(Error::Unreachable(io::ErrorKind::Interrupted.into())),
    }
    match socket.commit(&Batch::delete()) {
        Ok(()) => Ok(Cleanup::Removed),
        Err(refusal) if refusal.error.raw_os_error() == Some(libc::EPERM) => {
            Err(Error::NotPermitted(refusal))
        }
        Err(refusal) if refusal.error.kind() == io::ErrorKind::NotFound => Ok(Cleanup::Nothing),
        Err(refusal) => Err(Error::Failed(refusal)),
    }
}
