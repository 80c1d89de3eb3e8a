//! When leases end: kept by the leader alone, who then has them revoked through the log.
//!
//! A new leader does not know which renewals its predecessor granted. So it gives every lease its
//! whole time again, or what was written down of it, and the time an election takes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::foundation::clock::Timestamp;
use crate::store::mvcc::lease::Lease;

/// How long a revocation may take before it is proposed again.
const REVOKE_RETRY: Duration = Duration::from_secs(3);

/// The ends of all leases.
#[derive(Debug, Default)]
pub struct Expiry {
    deadlines: BTreeMap<i64, Deadline>,
    /// When each is to be looked at next.
    queue: BTreeSet<(Timestamp, i64)>,
}

#[derive(Debug, Clone, Copy)]
struct Deadline {
    ttl: i64,
    ends: Timestamp,
    queued: Timestamp,
}

impl Expiry {
    /// Begins as the new leader; `grace` is the time an election takes.
    pub fn promote(
        leases: impl IntoIterator<Item = Lease>,
        grace: Duration,
        now: Timestamp,
    ) -> Self {
        let mut expiry = Self::default();
        for lease in leases {
            let secs = if lease.remaining > 0 { lease.remaining } else { lease.ttl };
            let ends = now.plus(grace).plus(seconds(secs));
            expiry.set(lease.id, lease.ttl, ends);
        }
        expiry
    }

    /// Takes note of a lease that was granted.
    pub fn granted(&mut self, id: i64, ttl: i64, now: Timestamp) {
        self.set(id, ttl, now.plus(seconds(ttl)));
    }

    /// Takes note that a lease was revoked.
    pub fn revoked(&mut self, id: i64) {
        if let Some(deadline) = self.deadlines.remove(&id) {
            self.queue.remove(&(deadline.queued, id));
        }
    }

    /// Gives a lease its whole time again and returns it, in seconds; `None` if there is no such
    /// lease or it has ended.
    pub fn renew(&mut self, id: i64, now: Timestamp) -> Option<i64> {
        let Deadline { ttl, ends, .. } = *self.deadlines.get(&id)?;
        if ends <= now {
            return None;
        }
        self.set(id, ttl, now.plus(seconds(ttl)));
        Some(ttl)
    }

    /// Returns how many whole seconds a lease still has; `None` if there is no such lease or it has
    /// ended.
    pub fn remaining(&self, id: i64, now: Timestamp) -> Option<i64> {
        let ends = self.deadlines.get(&id)?.ends;
        (ends > now).then(|| whole_seconds(ends, now))
    }

    /// Returns when [`Expiry::due`] has something next.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// Returns up to `count_max` leases that have ended, the first first. They come again after a
    /// while unless they were revoked.
    pub fn due(&mut self, now: Timestamp, count_max: usize) -> Vec<i64> {
        let due = self.queue.iter().take_while(|(at, _)| *at <= now).take(count_max);
        let ids: Vec<i64> = due.map(|(_, id)| *id).collect();
        for id in &ids {
            self.queue_at(*id, now.plus(REVOKE_RETRY));
        }
        ids
    }

    fn set(&mut self, id: i64, ttl: i64, ends: Timestamp) {
        self.revoked(id);
        self.deadlines.insert(id, Deadline { ttl, ends, queued: ends });
        self.queue.insert((ends, id));
    }

    fn queue_at(&mut self, id: i64, at: Timestamp) {
        if let Some(deadline) = self.deadlines.get_mut(&id) {
            self.queue.remove(&(deadline.queued, id));
            deadline.queued = at;
            self.queue.insert((at, id));
        }
    }
}

fn seconds(secs: i64) -> Duration {
    Duration::from_secs(u64::try_from(secs).unwrap_or(0))
}

fn whole_seconds(ends: Timestamp, now: Timestamp) -> i64 {
    i64::try_from(ends.since(now).as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_secs(1000 + secs)
    }

    #[test]
    fn a_renewed_lease_lives_its_whole_time_again() {
        let mut expiry = Expiry::default();
        expiry.granted(7, 10, at(0));
        assert_eq!(expiry.remaining(7, at(4)), Some(6));
        assert_eq!(expiry.renew(7, at(9)), Some(10));
        assert_eq!(expiry.next_due(), Some(at(19)));
        assert_eq!(expiry.due(at(18), 10), [0; 0]);
        assert_eq!(expiry.renew(7, at(19)), None, "it has ended");
        assert_eq!(expiry.remaining(7, at(19)), None);
        assert_eq!(expiry.renew(8, at(0)), None, "there is none");
    }

    #[test]
    fn what_is_due_is_due_again_until_it_is_revoked() {
        let mut expiry = Expiry::default();
        for id in 1..=3 {
            expiry.granted(id, id, at(0));
        }
        assert_eq!(expiry.due(at(2), 1), [1]);
        assert_eq!(expiry.due(at(2), 10), [2]);
        assert_eq!(expiry.due(at(3), 10), [3]);
        expiry.revoked(2);
        assert_eq!(expiry.due(at(4), 10), [0; 0]);
        assert_eq!(expiry.due(at(6), 10), [1, 3]);
    }

    #[test]
    fn a_new_leader_gives_each_lease_its_time_and_a_grace() {
        let fresh = Lease { id: 1, ttl: 10, remaining: 0 };
        let old = Lease { id: -2, ttl: 1000, remaining: 50 };
        let mut expiry = Expiry::promote([fresh, old], Duration::from_secs(2), at(0));
        assert_eq!(expiry.remaining(1, at(0)), Some(12));
        assert_eq!(expiry.remaining(-2, at(0)), Some(52));
        assert_eq!(expiry.renew(-2, at(5)), Some(1000));
    }
}
