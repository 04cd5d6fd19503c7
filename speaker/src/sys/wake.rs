//! Waiting for sockets, for a deadline and for other threads.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;
use smallvec::SmallVec;

/// So many descriptors are waited for without an allocation: a handful of links.
const IN_PLACE: usize = 32;
/// What is waited for.
pub type Descriptors<'fd> = SmallVec<[BorrowedFd<'fd>; IN_PLACE]>;

/// Ends another thread's [`wait`]. Clones wake the same thread.
#[derive(Clone, Debug)]
pub struct Waker(Arc<EventFd>);

impl Waker {
    /// Makes one.
    ///
    /// # Errors
    /// The kernel has no file descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?)))
    }

    /// Ends the current wait, or the next one if there is none. Never blocks.
    pub fn wake(&self) {
        // The counter can only refuse when it is about to overflow, and then it is readable anyway.
        let _ = self.0.write(1);
    }

    /// Takes note of all wakes so far, so that the next wait is a wait again.
    pub fn clear(&self) {
        let _ = self.0.read();
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Waits until one of `fds` is readable or broken, or `timeout` is over, to the nanosecond.
///
/// `ready` is emptied and then holds the positions in `fds` of those that want to be read.
///
/// # Errors
/// The kernel refuses to wait for these descriptors. An interruption by a signal is none: then nothing
/// is ready.
pub fn wait(fds: &Descriptors<'_>, timeout: Duration, ready: &mut Vec<usize>) -> io::Result<()> {
    ready.clear();
    let mut polled: SmallVec<[PollFd<'_>; IN_PLACE]> =
        fds.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    match ppoll(&mut polled, Some(TimeSpec::from_duration(timeout)), None) {
        Ok(0) | Err(Errno::EINTR) => Ok(()),
        Ok(_) => {
            let is_ready = |poll: &PollFd<'_>| poll.any().unwrap_or(true);
            ready.extend(polled.iter().enumerate().filter(|(_, poll)| is_ready(poll)).map(|(at, _)| at));
            Ok(())
        }
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wake_ends_the_wait_once() {
        let waker = Waker::new().unwrap();
        let mut ready = Vec::new();
        waker.wake();
        waker.clone().wake();
        let fds = Descriptors::from_iter([waker.as_fd()]);
        wait(&fds, Duration::from_secs(5), &mut ready).unwrap();
        assert_eq!(ready, [0]);
        waker.clear();
        wait(&fds, Duration::ZERO, &mut ready).unwrap();
        assert!(ready.is_empty());
    }
}
