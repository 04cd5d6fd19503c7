//! A pool's status, counted and written at a limited pace.

use std::time::Duration;

use super::subject::{Subject, exactly};
use super::{Mind, Now};
use crate::effects::Effect;
use crate::granting::pool_status::{Seen, changed_status};

/// The least time between two looks at a pool's status while something is to be noted there.
const HISTORY_PACE: Duration = Duration::from_millis(100);

impl Mind {
    pub(super) fn look_at_pool(&mut self, now: Now, name: &str, out: &mut Vec<Effect>) {
        let subject = Subject::Pool(name.to_owned());
        if let Some(counted) = self.pool_counted.get(name) {
            // A release waits for what is to be noted.
            let pace =
                if self.history.is_waiting(name) { HISTORY_PACE } else { self.config.pool_status_pace };
            let next = *counted + pace;
            if now.monotonic < next {
                return self.pending.wake(&subject, next);
            }
        }
        if !self.may_act_on(&subject, now) {
            return;
        }
        let Some(pool) = self.book.pool(name) else { return };
        self.pool_counted.insert(name.to_owned(), now.monotonic);
        let mut tallies = std::mem::take(&mut self.tallies);
        let tally = tallies.of(self.view(), &self.services, name, pool);
        let seen = Seen { book: &self.book, nodes: &self.nodes, tally, noted: self.history.of(name) };
        let wanted = changed_status(name, pool, seen, now.wall);
        let exactly = exactly(&pool.object.metadata);
        self.tallies = tallies;
        self.history.takes_off(name);
        let Some(status) = wanted else {
            return self.history_has_landed(name);
        };
        let effect = Effect::SetPoolStatus { pool: exactly, status: Box::new(status) };
        self.want(effect, Vec::new(), out);
    }
}
