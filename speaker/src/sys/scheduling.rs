//! How much this process asks of the kernel so that others' work does not delay the thread of the LAN.

use std::io;

/// What the scheduler does for a thread; see `sched(7)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheduling {
    /// It runs as soon as it wants to, before all ordinary threads.
    RealTime,
    /// It gets a larger share of the processors than ordinary threads do.
    Favoured,
    /// It is like all others.
    Ordinary,
}

/// Asks for the best scheduling of the calling thread that is granted: real time at the lowest priority
/// (`SCHED_FIFO` 1, not inherited by what it starts), which needs the capability SYS_NICE and, where real-time
/// groups are built in, a budget of the cgroup; else the least niceness, which needs SYS_NICE or a limit that
/// allows it.
///
/// The kernel itself sees to it that real-time threads leave ordinary ones a part of each second
/// (`kernel.sched_rt_runtime_us`).
#[allow(unsafe_code)]
pub fn prefer_this_thread() -> Scheduling {
    // SAFETY: all fields of `sched_param` are integers, for which zero is a valid value.
    let mut parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    parameters.sched_priority = 1;
    // SAFETY: 0 names the calling thread, and `parameters` outlives the call, which only reads it.
    let refused = unsafe {
        libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &raw const parameters)
    };
    if refused == 0 {
        return Scheduling::RealTime;
    }
    // SAFETY: no memory is passed. On Linux the niceness is a thread's own, and 0 names the calling one.
    let refused = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -20) };
    if refused == 0 { Scheduling::Favoured } else { Scheduling::Ordinary }
}

/// Keeps all memory that this process touches from being paged out, now and later; what is never touched
/// costs nothing. Needs the capability IPC_LOCK, or a limit (`RLIMIT_MEMLOCK`) that allows it.
///
/// # Errors
/// The kernel does not grant it; then nothing is locked.
#[allow(unsafe_code)]
pub fn lock_memory() -> io::Result<()> {
    let flags = libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT;
    // SAFETY: the call takes no memory of ours; it only changes how the kernel keeps what is mapped.
    if unsafe { libc::mlockall(flags) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(unsafe_code)]
    fn what_is_granted_is_what_the_kernel_says() {
        std::thread::spawn(|| {
            let granted = prefer_this_thread();
            // SAFETY: no memory is passed; 0 names the calling thread.
            let policy = unsafe { libc::sched_getscheduler(0) } & !libc::SCHED_RESET_ON_FORK;
            // SAFETY: as above.
            let niceness = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
            match granted {
                Scheduling::RealTime => assert_eq!(policy, libc::SCHED_FIFO),
                Scheduling::Favoured => assert_eq!((policy, niceness), (libc::SCHED_OTHER, -20)),
                Scheduling::Ordinary => assert_eq!(policy, libc::SCHED_OTHER),
            }
        })
        .join()
        .unwrap();
    }
}
