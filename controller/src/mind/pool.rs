//! A pool's status, counted and written at a limited pace.

use super::subject::{Subject, exactly};
use super::{Mind, Now};
use crate::effects::Effect;
use crate::granting::pool_status::changed_status;

impl Mind {
    pub(super) fn look_at_pool(&mut self, now: Now, name: &str, out: &mut Vec<Effect>) {
        let subject = Subject::Pool(name.to_owned());
        if let Some(counted) = self.pool_counted.get(name) {
            let next = *counted + self.config.pool_status_pace;
            if now.monotonic < next {
                return self.pending.wake(&subject, next);
            }
        }
        if !self.may_act_on(&subject, now) {
            return;
        }
        let Some(pool) = self.book.pool(name) else { return };
        self.pool_counted.insert(name.to_owned(), now.monotonic);
        let Some(status) = changed_status(name, pool, &self.book, &self.vips, &self.nodes, now.wall) else {
            return;
        };
        let effect = Effect::SetPoolStatus { pool: exactly(&pool.object.metadata), status: Box::new(status) };
        self.want(effect, Vec::new(), out);
    }
}
