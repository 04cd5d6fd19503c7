//! The kernel's tables, as the filter asks for them and is told of them.

use std::io;
use std::time::{Duration, Instant};

use crate::filter::set::Set;
use crate::filter::table::{Operation, Table, Transaction};
use crate::filter::{COUNTING, Count, Counter, Event, Failure, FailureKind, Holds, Owner, TableId};
use crate::metrics::Metrics;
use crate::metrics::filter::{CommitLabels, CommitResult};
use crate::sys::netfilter::{NftSocket, NoAnswer, Refusal};
use crate::wire::nftables::read::{self, Chains, Sets, TableFacts};
use crate::wire::nftables::{About, Batch, OWNED, PERSISTENT, Question};

/// How often all is read anew because others changed their tables meanwhile.
const ATTEMPTS: usize = 20;
/// How long to wait for them.
const PAUSE: Duration = Duration::from_millis(10);

/// The way to the kernel's tables.
#[derive(Debug)]
pub struct Nftables {
    socket: Option<NftSocket>,
    /// The flags of the table, or those that it is made with.
    flags: u32,
    metrics: Metrics,
}

impl Nftables {
    /// Nothing is opened yet.
    pub fn new(metrics: Metrics) -> Self {
        // Where the kernel can, it keeps all others from changing the table, also from flushing it.
        Self { socket: None, flags: OWNED | PERSISTENT, metrics }
    }

    /// As [`Self::new`], for a table that others may change, as on kernels before 6.9.
    pub fn shared(metrics: Metrics) -> Self {
        Self { flags: 0, ..Self::new(metrics) }
    }

    fn socket(&mut self) -> io::Result<&mut NftSocket> {
        if self.socket.is_none() {
            self.socket = Some(NftSocket::open()?);
        }
        self.socket.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Has the kernel do a transaction.
    pub fn commit(&mut self, transaction: &Transaction) -> Event {
        if transaction.is_empty() {
            return Event::Done;
        }
        let start = Instant::now();
        let mut done = self.try_commit(transaction);
        if let Err(Refusal { about: About::Table, error, .. }) = &done
            && is_creating(transaction)
            && self.flags != 0
            && matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL))
        {
            tracing::debug!("the kernel cannot keep others from changing the table");
            self.flags = 0;
            done = self.try_commit(transaction);
        }
        self.metrics.filter.commit_seconds.observe(start.elapsed().as_secs_f64());
        let failure = done.err().map(|refusal| self.failure(&refusal, is_creating(transaction)));
        let result = failure.as_ref().map_or(CommitResult::Done, |failure| failure.kind.into());
        self.metrics.filter.commits.get_or_create(&CommitLabels { result }).inc();
        failure.map_or(Event::Done, Event::Failed)
    }

    fn try_commit(&mut self, transaction: &Transaction) -> Result<(), Refusal> {
        let batch = Batch::new(transaction, self.flags);
        let socket = self.socket().map_err(|error| Refusal { about: About::Batch, error, text: None })?;
        socket.commit(&batch)
    }

    fn failure(&mut self, refusal: &Refusal, is_creating: bool) -> Failure {
        let kind = kind(refusal.about, &refusal.error, is_creating);
        if kind == FailureKind::Busy {
            // An answer that comes late must not be taken for that to a later question.
            self.socket = None;
        }
        let text = refusal.text.as_ref().map(|text| format!(" ({text})")).unwrap_or_default();
        Failure { what: refusal.about.to_string(), error: format!("{}{text}", refusal.error), kind }
    }

    /// Asks the kernel what it holds.
    pub fn dump(&mut self) -> Event {
        for _ in 0..ATTEMPTS {
            match self.try_dump() {
                Ok(holds) => return Event::Dumped(holds),
                Err(NoAnswer::Interrupted) => std::thread::sleep(PAUSE),
                Err(NoAnswer::Io(error)) => return self.no_answer("reading the table", error),
            }
        }
        self.no_answer("reading the table", io::Error::other("others change their tables all the time"))
    }

    fn no_answer(&mut self, what: &str, error: io::Error) -> Event {
        self.socket = None;
        Event::Failed(Failure {
            what: what.to_owned(),
            kind: match error.raw_os_error() {
                Some(libc::EPERM | libc::EACCES) => FailureKind::NotPermitted,
                Some(libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT | libc::EOPNOTSUPP) => {
                    FailureKind::Unsupported
                }
                _ => FailureKind::Busy,
            },
            error: error.to_string(),
        })
    }

    fn facts(&mut self) -> Result<Option<TableFacts>, NoAnswer> {
        let mut facts = None;
        match self.socket()?.ask(Question::Table, |message| facts = TableFacts::read(message)) {
            Ok(()) => Ok(facts),
            Err(NoAnswer::Io(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn try_dump(&mut self) -> Result<Holds, NoAnswer> {
        let Some(facts) = self.facts()? else { return Ok(Holds::Nothing) };
        let (mut chains, mut sets) = (Chains::default(), Sets::default());
        let socket = self.socket()?;
        socket.ask(Question::Chains, |message| chains.take(message))?;
        socket.ask(Question::Sets, |message| sets.take(message))?;
        let shape = sets.shape().filter(|_| facts.is_of_this_layout && chains.are_ours());
        let Some(shape) = shape else { return Ok(Holds::Foreign) };
        let mut elements = Vec::new();
        for set in sets.all().filter(|set| !set.is_dynamic()) {
            socket.ask(Question::Elements(set), |message| elements.extend(read::elements(set, message)))?;
        }
        let Some(elements) = elements.into_iter().collect::<Option<Vec<_>>>() else {
            return Ok(Holds::Foreign);
        };
        // A table without an owner loses that flag with the process that owned it, and is there to be taken over.
        self.flags = if facts.flags & PERSISTENT == 0 { facts.flags } else { OWNED | PERSISTENT };
        Ok(Holds::Ours { table: Box::new(Table::from_elements(shape, elements)), id: self.id(&facts) })
    }

    fn id(&self, facts: &TableFacts) -> TableId {
        let ours = self.socket.as_ref().map(NftSocket::port);
        let owner = match facts.owner {
            None => Owner::Nobody,
            owner if owner == ours => Owner::Us,
            Some(_) => Owner::Another,
        };
        TableId { handle: facts.handle, owner }
    }

    /// Sees whether the table is there.
    pub fn look(&mut self) -> Event {
        match self.facts() {
            Ok(facts) => Event::Seen(facts.map(|facts| self.id(&facts))),
            Err(NoAnswer::Interrupted) => {
                self.no_answer("looking for the table", io::ErrorKind::Interrupted.into())
            }
            Err(NoAnswer::Io(error)) => self.no_answer("looking for the table", error),
        }
    }

    /// Reads what was counted, and removes counts of no more use. Nothing where it cannot be read now.
    pub fn count(&mut self, stale: &[Counter]) -> Option<Event> {
        match self.try_count(stale) {
            Ok(counts) => Some(Event::Counted(counts)),
            Err(error) => {
                tracing::debug!(%error, "counts cannot be read; trying again later");
                None
            }
        }
    }

    fn try_count(&mut self, stale: &[Counter]) -> Result<Vec<Count>, NoAnswer> {
        let socket = self.socket()?;
        if !stale.is_empty()
            && let Err(error) = socket.commit(&Batch::forget(stale))
        {
            tracing::debug!(%error, "counts of no more use cannot be removed");
        }
        let mut counts = Vec::new();
        for set in COUNTING {
            counts.append(&mut count_set(socket, set)?);
        }
        Ok(counts)
    }
}

/// What a set counts. Changes of others meanwhile do no harm to counts, save that some may be missing.
fn count_set(socket: &mut NftSocket, set: Set) -> Result<Vec<Count>, NoAnswer> {
    let mut counts = Vec::new();
    for _ in 0..ATTEMPTS {
        counts.clear();
        match socket.ask(Question::Elements(set), |message| counts.extend(read::counts(set, message))) {
            Err(NoAnswer::Interrupted) => std::thread::sleep(PAUSE),
            answer => return answer.map(|()| counts),
        }
    }
    Err(NoAnswer::Interrupted)
}

fn is_creating(transaction: &Transaction) -> bool {
    transaction.iter().any(|operation| matches!(operation, Operation::Create(_)))
}

/// What follows from a refusal.
fn kind(about: About, error: &io::Error, is_creating: bool) -> FailureKind {
    let is_lacking = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => return FailureKind::NotPermitted,
        Some(libc::EBUSY | libc::EINTR | libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM | libc::ETIMEDOUT) => {
            return FailureKind::Busy;
        }
        Some(libc::EOPNOTSUPP | libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT) => true,
        // An expression, or a kind of table or chain, that is not there. Or, where the table is not new, a part of it.
        Some(libc::ENOENT | libc::EINVAL) => is_creating,
        None => return FailureKind::Busy,
        _ => false,
    };
    match about {
        About::Rule { logs: true, .. } if is_lacking => FailureKind::NoLog,
        _ if is_lacking => FailureKind::Unsupported,
        _ => FailureKind::Mismatch,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::sources::Family;

    #[track_caller]
    fn check(about: About, errno: i32, is_creating: bool, expected: FailureKind) {
        assert_eq!(
            kind(about, &io::Error::from_raw_os_error(errno), is_creating),
            expected,
            "{about} {errno}"
        );
    }

    #[test]
    fn what_follows_from_a_refusal_depends_on_what_was_refused() {
        let rule = |logs| About::Rule { chain: "prerouting", place: 3, logs };
        let set = About::Set(Set::Addresses(Family::V4));
        for errno in [libc::EBUSY, libc::EINTR, libc::ENOBUFS, libc::ENOMEM, libc::EAGAIN] {
            check(About::Batch, errno, true, FailureKind::Busy);
            check(set, errno, false, FailureKind::Busy);
        }
        check(About::Table, libc::EPERM, false, FailureKind::NotPermitted);
        check(rule(false), libc::ENOENT, true, FailureKind::Unsupported);
        check(rule(false), libc::ENOENT, false, FailureKind::Mismatch);
        check(rule(true), libc::ENOENT, true, FailureKind::NoLog);
        check(set, libc::EOPNOTSUPP, false, FailureKind::Unsupported);
        check(About::Elements(Set::NodePorts), libc::ENOENT, false, FailureKind::Mismatch);
        check(About::Elements(Set::NodePorts), libc::EEXIST, false, FailureKind::Mismatch);
        let timed_out = io::Error::from(io::ErrorKind::WouldBlock);
        assert_eq!(kind(About::Batch, &timed_out, false), FailureKind::Busy);
    }
}
