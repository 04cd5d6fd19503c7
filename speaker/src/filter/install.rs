//! What to do next about the kernel: learn what it holds, bring it to what is wanted, notice when others
//! undo that, and after a failure begin anew from what it holds then.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::Action;
use super::answers::{Failure, FailureKind, Health, Holds, Owner, TableId};
use super::frontend::Port;
use super::plan::{Plan, Scope, all_scopes, plan};
use super::shape::Shape;
use super::table::{AddressEntry, Barrier, Operation, Table, Transaction};
use super::wanted::Wanted;

/// So many changes may follow each other at once, and then one each [`SPACING`]: what comes faster is made in
/// one. Each is a few transactions, for which all others wait who change the kernel's tables.
const BURST: u32 = 5;
const SPACING: Duration = Duration::from_millis(100);
/// How often to see whether the table is still there.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How often to compare all that is in it, where others may change it.
const VERIFY_EVERY: Duration = Duration::from_secs(600);
/// The first wait after a failure; it doubles with each further one.
const FIRST_RETRY: Duration = Duration::from_millis(50);
/// The longest wait.
const LAST_RETRY: Duration = Duration::from_secs(5);
/// The longest wait where the table may not be changed.
const LAST_RETRY_NOT_PERMITTED: Duration = Duration::from_secs(1);
/// How often to see whether another process that owns the table has ended.
const LOOK_AT_OWNER_EVERY: Duration = Duration::from_millis(50);
/// How often to read what that process has changed.
const READ_BESIDE_EVERY: Duration = Duration::from_secs(1);
/// How long the other process may take to end before a person should know that it hinders this one.
const OWNER_PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait where the kernel lacks something: a module may still come.
const LACK_RETRY: Duration = Duration::from_secs(30);
/// After so many failures in a row a person should know.
const TELL_AFTER: u32 = 3;

#[derive(Debug, Default)]
enum Kernel {
    /// What it holds is not known.
    #[default]
    Unknown,
    Nothing,
    Foreign,
    Holds(Box<Table>),
}

/// A change that is being made.
#[derive(Debug)]
struct Change {
    rest: VecDeque<Transaction>,
    /// What the table holds in the end.
    shape: Shape,
    addresses: BTreeMap<IpAddr, Option<AddressEntry>>,
    node_ports: BTreeMap<Port, Option<Barrier>>,
    /// Whether the table is made anew.
    is_new: bool,
}

impl Change {
    fn concerns(&self, scope: Scope) -> bool {
        match scope {
            Scope::Address(address) => self.addresses.contains_key(&address),
            Scope::NodePort(port) => self.node_ports.contains_key(&port),
        }
    }
}

/// The mind's half that faces the kernel.
#[derive(Debug, Default)]
pub(super) struct Install {
    kernel: Kernel,
    /// What may differ between what is held and what is wanted.
    dirty: BTreeSet<Scope>,
    change: Option<Change>,
    /// Whether an answer is awaited.
    is_asking: bool,
    /// The table was made by another process: its rules are to be replaced, whatever they are.
    is_adopted: bool,
    id: Option<TableId>,
    /// Since when there is something to change in a table that another process owns.
    hindered_since: Option<Instant>,
    /// When the last change would have been due at an even pace.
    pace: Option<Instant>,
    retry_at: Option<Instant>,
    look_at: Option<Instant>,
    verify_at: Option<Instant>,
    failures: u32,
    health: Option<Health>,
    lacks_log: bool,
}

impl Install {
    /// Where to write down what may have to change.
    pub(super) fn dirty(&mut self) -> &mut BTreeSet<Scope> {
        &mut self.dirty
    }

    /// Whether the kernel holds a table of ours, as far as is known.
    pub(super) fn is_up(&self) -> bool {
        matches!(self.kernel, Kernel::Holds(_))
    }

    /// Whether the kernel holds what is wanted within a scope.
    pub(super) fn holds(&self, scope: Scope) -> bool {
        self.is_up()
            && !self.dirty.contains(&scope)
            && !self.change.as_ref().is_some_and(|change| change.concerns(scope))
    }

    /// When there is something to do.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        if self.is_asking {
            return None;
        }
        match self.kernel {
            Kernel::Holds(_) => {
                let pace = self.pace.filter(|_| !self.dirty.is_empty() || self.is_adopted);
                let pace = pace.map(|pace| pace.checked_sub(SPACING * BURST).unwrap_or(pace));
                [pace, self.look_at, self.verify_at, self.retry_at].into_iter().flatten().min()
            }
            _ => self.retry_at,
        }
    }

    /// Does what is due. Tells within which scopes there was nothing to change after all.
    pub(super) fn go_on(&mut self, now: Instant, wanted: &Wanted, out: &mut Vec<Action>) -> BTreeSet<Scope> {
        if self.is_asking || self.retry_at.is_some_and(|at| now < at) {
            return BTreeSet::new();
        }
        self.retry_at = None;
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        match self.kernel {
            Kernel::Unknown => self.ask(Action::Dump, out),
            Kernel::Holds(_) if is_due(self.look_at) => {
                self.look_at = Some(now + LOOK_EVERY);
                self.ask(Action::Look, out);
            }
            Kernel::Holds(_) if is_due(self.verify_at) => self.ask(Action::Dump, out),
            Kernel::Holds(_) if self.is_anothers() => return self.go_on_beside(now, wanted, out),
            Kernel::Holds(_) if self.dirty.is_empty() && !self.is_adopted => {}
            _ => return self.begin(now, wanted, out),
        }
        BTreeSet::new()
    }

    fn is_anothers(&self) -> bool {
        self.id.is_some_and(|id| id.owner == Owner::Another)
    }

    /// The process that owns the table is about to end. What it holds already needs no change, and the owner, which
    /// hears of the same, makes what does.
    fn go_on_beside(&mut self, now: Instant, wanted: &Wanted, out: &mut Vec<Action>) -> BTreeSet<Scope> {
        let Kernel::Holds(known) = &self.kernel else { return BTreeSet::new() };
        let target = wanted.table();
        let is_same = |scope: &Scope| match *scope {
            Scope::Address(address) => known.address(address) == target.address(address),
            Scope::NodePort(port) => known.node_port(port) == target.node_port(port),
        };
        let settled: BTreeSet<_> = self.dirty.extract_if(.., |scope| is_same(scope)).collect();
        if self.dirty.is_empty() {
            self.hindered_since = None;
            self.tell(Health { missing: None, remark: self.remark() }, out);
        } else if now >= *self.hindered_since.get_or_insert(now) + OWNER_PATIENCE {
            let missing =
                "the packet filter may not be changed: another process owns the table and does not end";
            self.tell(Health { missing: Some(missing.to_owned()), remark: None }, out);
        }
        settled
    }

    fn ask(&mut self, action: Action, out: &mut Vec<Action>) {
        self.is_asking = true;
        out.push(action);
    }

    /// Begins a change, if it is time for one.
    fn begin(&mut self, now: Instant, wanted: &Wanted, out: &mut Vec<Action>) -> BTreeSet<Scope> {
        let pace = self.pace.map_or(now, |pace| pace.max(now));
        if pace > now + SPACING * BURST {
            return BTreeSet::new();
        }
        self.pace = Some(pace + SPACING);
        let target = wanted.table();
        let needed = target.needs().telling(target.shape.log);
        let scopes = match &self.kernel {
            Kernel::Holds(_) => std::mem::take(&mut self.dirty),
            _ => all_scopes(&Table::default(), target),
        };
        let from_nothing = || plan(&Table::empty(needed.clone()), target, &scopes);
        let Plan { transactions, shape } = match &self.kernel {
            Kernel::Holds(known) if std::mem::take(&mut self.is_adopted) => {
                let from = known.shape.clone();
                let mut adopted = known.as_ref().clone();
                adopted.shape = from.and(&needed).telling(needed.log);
                let mut plan = plan(&adopted, target, &scopes);
                plan.transactions.insert(0, vec![Operation::Reshape { from, to: adopted.shape }]);
                plan
            }
            Kernel::Holds(known) => plan(known, target, &scopes),
            Kernel::Nothing => {
                let mut plan = from_nothing();
                plan.transactions.insert(0, vec![Operation::Create(needed.clone())]);
                plan
            }
            // All at once: the old table guards until the new one does.
            _ => {
                let mut plan = from_nothing();
                let anew = [Operation::Delete, Operation::Create(needed.clone())];
                let all = anew.into_iter().chain(plan.transactions.drain(..).flatten()).collect();
                plan.transactions.push(all);
                plan
            }
        };
        let is_new = !self.is_up();
        if is_new {
            self.dirty.clear();
            self.is_adopted = false;
        }
        let (addresses, node_ports) = (BTreeMap::new(), BTreeMap::new());
        let mut change = Change { rest: transactions.into(), shape, addresses, node_ports, is_new };
        for scope in scopes {
            match scope {
                Scope::Address(address) => {
                    change.addresses.insert(address, target.address(address).cloned());
                }
                Scope::NodePort(port) => {
                    change.node_ports.insert(port, target.node_port(port).cloned());
                }
            }
        }
        self.change = Some(change);
        self.commit_next(out);
        if self.is_asking { BTreeSet::new() } else { self.finish(now, out) }
    }

    fn commit_next(&mut self, out: &mut Vec<Action>) {
        let next = self.change.as_mut().and_then(|change| change.rest.pop_front());
        if let Some(transaction) = next {
            self.ask(Action::Commit(transaction), out);
        }
    }

    /// A transaction has come true. Tells within which scopes all is done now.
    pub(super) fn done(&mut self, now: Instant, out: &mut Vec<Action>) -> BTreeSet<Scope> {
        self.is_asking = false;
        self.commit_next(out);
        if self.is_asking { BTreeSet::new() } else { self.finish(now, out) }
    }

    fn finish(&mut self, now: Instant, out: &mut Vec<Action>) -> BTreeSet<Scope> {
        let Some(change) = self.change.take() else { return BTreeSet::new() };
        let mut table = match std::mem::take(&mut self.kernel) {
            Kernel::Holds(table) if !change.is_new => table,
            _ => Box::default(),
        };
        table.shape = change.shape;
        let mut scopes = BTreeSet::new();
        for (address, entry) in change.addresses {
            table.set_address(address, entry);
            scopes.insert(Scope::Address(address));
        }
        for (port, barrier) in change.node_ports {
            table.set_node_port(port, barrier);
            scopes.insert(Scope::NodePort(port));
        }
        self.kernel = Kernel::Holds(table);
        if change.is_new {
            // Which it is is learnt at the first look.
            self.id = None;
            self.look_at = Some(now);
            self.verify_at = Some(now + VERIFY_EVERY);
        }
        self.failures = 0;
        self.tell(Health { missing: None, remark: self.remark() }, out);
        scopes
    }

    /// The kernel told what it holds.
    pub(super) fn dumped(&mut self, now: Instant, holds: Holds, wanted: &Wanted) {
        self.is_asking = false;
        self.kernel = match holds {
            Holds::Nothing => Kernel::Nothing,
            Holds::Foreign => Kernel::Foreign,
            Holds::Ours { table, id } => {
                self.dirty = all_scopes(&table, wanted.table());
                self.is_adopted |=
                    self.id.is_none_or(|known| known.handle != id.handle) || id.owner != Owner::Us;
                self.id = Some(id);
                let is_anothers = id.owner == Owner::Another;
                self.look_at = Some(now + if is_anothers { LOOK_AT_OWNER_EVERY } else { LOOK_EVERY });
                self.verify_at = match id.owner {
                    Owner::Nobody => Some(now + VERIFY_EVERY),
                    Owner::Us => None,
                    Owner::Another => Some(now + READ_BESIDE_EVERY),
                };
                Kernel::Holds(table)
            }
        };
    }

    /// The kernel did not do it. Whatever it was, what it holds is asked for anew.
    pub(super) fn failed(
        &mut self,
        now: Instant,
        failure: Failure,
        wanted: &mut Wanted,
        out: &mut Vec<Action>,
    ) {
        self.is_asking = false;
        self.change = None;
        self.kernel = Kernel::Unknown;
        self.is_adopted = true;
        self.failures += 1;
        let doublings = self.failures.min(16) - 1;
        let mut wait = (FIRST_RETRY * 2_u32.pow(doublings)).min(LAST_RETRY);
        let Failure { what, error, kind } = failure;
        let text = format!("{what}: {error}");
        match kind {
            FailureKind::NoLog if !self.lacks_log => {
                self.lacks_log = true;
                wanted.set_log(false);
                wait = Duration::ZERO;
            }
            FailureKind::Unsupported | FailureKind::NoLog => {
                wait = LACK_RETRY;
                let missing = format!("the kernel lacks what source ranges need: {text}");
                self.tell(Health { missing: Some(missing), remark: None }, out);
            }
            FailureKind::NotPermitted => {
                // Most often it belongs to a process that is about to end.
                wait = wait.min(LAST_RETRY_NOT_PERMITTED);
                let missing = format!(
                    "the packet filter may not be changed: {text}; it needs the capability NET_ADMIN, and the table \
                     {} must not belong to another process",
                    super::program::TABLE
                );
                self.tell(Health { missing: Some(missing), remark: None }, out);
            }
            FailureKind::Busy | FailureKind::Mismatch if self.failures >= TELL_AFTER => {
                let missing = format!("the packet filter cannot be changed: {text}");
                self.tell(Health { missing: Some(missing), remark: None }, out);
            }
            FailureKind::Busy | FailureKind::Mismatch => {}
        }
        self.retry_at = Some(now + wait);
    }

    /// The table was seen, or not. True where it vanished, or is another.
    pub(super) fn seen(&mut self, now: Instant, id: Option<TableId>, out: &mut Vec<Action>) -> bool {
        self.is_asking = false;
        if !self.is_up() {
            return false;
        }
        match (id, self.id) {
            (Some(_), None) => self.id = id,
            (Some(seen), Some(known)) if seen.handle == known.handle => {
                if known.owner == Owner::Another {
                    // Once it has ended, what it did and what it left undone is to be learnt.
                    self.look_at = Some(now + LOOK_AT_OWNER_EVERY);
                    if seen.owner != Owner::Another {
                        self.kernel = Kernel::Unknown;
                    }
                }
                self.id = id;
            }
            _ => {
                self.kernel = Kernel::Unknown;
                self.id = None;
                // What is urgent does not wait for its turn.
                self.pace = None;
                self.retry_at = Some(now);
                out.push(Action::Vanished);
                return true;
            }
        }
        false
    }

    fn remark(&self) -> Option<String> {
        self.lacks_log.then(|| {
            "the kernel cannot tell the speaker of packets (nft log to a group): pings to announced addresses are not \
             answered, and who is refused is counted but not told"
                .to_owned()
        })
    }

    fn tell(&mut self, health: Health, out: &mut Vec<Action>) {
        if self.health.as_ref() != Some(&health) {
            self.health = Some(health.clone());
            out.push(Action::Health(health));
        }
    }
}
