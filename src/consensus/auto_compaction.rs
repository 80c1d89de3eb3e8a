//! Forgetting old history without being asked, by etcd's rules: the member that leads compacts, the
//! others only follow what it would have to know if it went.
//!
//! ```text
//!  Schedule::look(revision) ─▶ wait ─▶ Schedule::due(now, leads) ─▶ compacted through the log
//! ```
//! The schedule is pure; the clock is the runtime's, which nobody sets.

use std::collections::VecDeque;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::consensus::proposer::Proposer;
use crate::consensus::state_machine::StateMachine;
use crate::consensus::types::Raft;
use crate::foundation::clock::{Clock as _, Timestamp, TokioClock};
use crate::store::keys_v3::{Change, Refused};
use crate::store::mvcc::MvccError;
use crate::store::{Command, Outcome};

/// How often history is compacted at most, by time.
const HOUR: Duration = Duration::from_hours(1);
/// Into how many parts the time between two compactions is divided by looks at the revision.
const LOOKS: u32 = 10;
/// How often history is compacted by number of revisions.
const BY_REVISION_EVERY: Duration = Duration::from_mins(5);
/// How long a compaction may take until it is agreed on.
const COMPACT: Duration = Duration::from_secs(5);

/// What is kept of the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AutoCompaction {
    /// What is younger than this, which is not zero.
    Periodic(Duration),
    /// So many revisions, which is not zero.
    Revisions(i64),
}

/// Decides when to compact, and before which revision.
#[derive(Debug)]
struct Schedule {
    keep: AutoCompaction,
    /// What the revision was at each look, oldest first: as many as a period has, and no more.
    seen: VecDeque<i64>,
    /// The revision that was compacted last.
    compacted: i64,
    /// When that was, or when this began.
    since: Timestamp,
    /// How long after that the next compaction is.
    interval: Duration,
}

impl Schedule {
    fn new(keep: AutoCompaction, now: Timestamp) -> Self {
        // The first one waits until there is something that old.
        let interval = match keep {
            AutoCompaction::Periodic(period) => period,
            AutoCompaction::Revisions(_) => Duration::ZERO,
        };
        Self { keep, seen: VecDeque::new(), compacted: 0, since: now, interval }
    }

    /// Takes note of the revision; returns how long to wait before asking what is due.
    fn look(&mut self, revision: i64) -> Duration {
        let (wait, looks) = match self.keep {
            AutoCompaction::Periodic(period) => {
                // Shorter than this, the clock's own steps would be counted.
                let step = (period.min(HOUR) / LOOKS).max(Duration::from_nanos(1));
                (step, usize::try_from(period.as_nanos() / step.as_nanos()).unwrap_or(usize::MAX))
            }
            AutoCompaction::Revisions(_) => (BY_REVISION_EVERY, 0),
        };
        self.seen.push_back(revision);
        if self.seen.len() > looks.saturating_add(1) {
            self.seen.pop_front();
        }
        wait
    }

    /// Returns the revision before which history is to be dropped now.
    fn due(&self, now: Timestamp, revision: i64) -> Option<i64> {
        let before = match self.keep {
            AutoCompaction::Periodic(_) => *self.seen.front()?,
            AutoCompaction::Revisions(count) => revision - count,
        };
        let wanted = before > 0 && before != self.compacted;
        (wanted && now.since(self.since) >= self.interval).then_some(before)
    }

    /// Takes note that history was dropped before a revision.
    fn done(&mut self, now: Timestamp, revision: i64) {
        self.compacted = revision;
        self.since = now;
        if let AutoCompaction::Periodic(period) = self.keep {
            self.interval = period.min(HOUR);
        }
    }
}

/// What compacting needs.
#[derive(Debug)]
pub struct Means {
    /// The library, which knows who leads.
    pub raft: Raft,
    /// The store.
    pub store: StateMachine,
    /// How a compaction gets into the log.
    pub proposer: Proposer,
}

impl Means {
    /// Compacts as told while this member leads, until `stop`.
    pub async fn run(self, keep: AutoCompaction, stop: CancellationToken) {
        let clock = TokioClock::starting_at(Timestamp::EPOCH);
        let mut schedule = Schedule::new(keep, clock.now());
        loop {
            let wait = schedule.look(self.revision());
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            if !self.raft.is_leader() {
                continue;
            }
            if let Some(revision) = schedule.due(clock.now(), self.revision())
                && self.compact(revision).await
            {
                schedule.done(clock.now(), revision);
            }
        }
    }

    fn revision(&self) -> i64 {
        self.store.progress().borrow().revision
    }

    /// Has history dropped before a revision; tells whether it is gone. If not, it is tried again
    /// at the next look.
    async fn compact(&self, revision: i64) -> bool {
        let command = Command::V3(Change::Compact { revision });
        // As if it had been passed on, so that it is not passed on from here.
        let proposed = self.proposer.propose(vec![command], true, COMPACT).await;
        match proposed.map(|applied| applied.outcomes).as_deref() {
            Ok([Outcome::V3(Ok(_))]) => {
                tracing::info!(revision, "the history was compacted, as the settings say");
                true
            }
            // Somebody was faster.
            Ok([Outcome::V3(Err(Refused::Engine(MvccError::Compacted { .. })))]) => true,
            other => {
                tracing::warn!(revision, ?other, "the history could not be compacted");
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    /// Runs a schedule in which the revision is `revision_at` each minute; returns after how many
    /// minutes it compacted before what.
    fn run(
        keep: AutoCompaction,
        minutes: u64,
        revision_at: impl Fn(u64) -> i64,
    ) -> Vec<(u64, i64)> {
        let mut now = Timestamp::EPOCH;
        let minute = |now: Timestamp| now.since(Timestamp::EPOCH).as_secs() / 60;
        let mut schedule = Schedule::new(keep, now);
        let mut compacted = Vec::new();
        while minute(now) < minutes {
            now = now.plus(schedule.look(revision_at(minute(now))));
            if let Some(revision) = schedule.due(now, revision_at(minute(now))) {
                schedule.done(now, revision);
                compacted.push((minute(now), revision));
            }
        }
        compacted
    }

    fn each_minute(minute: u64) -> i64 {
        i64::try_from(minute).unwrap() + 1
    }

    #[test]
    fn an_hour_of_history_is_kept_and_dropped_each_hour() {
        let compacted = run(AutoCompaction::Periodic(HOUR), 200, each_minute);
        assert_eq!(compacted, [(60, 1), (120, 55), (180, 115)]);
    }

    #[test]
    fn a_day_is_waited_for_and_then_each_hour_drops_an_hour() {
        let compacted = run(AutoCompaction::Periodic(24 * HOUR), 27 * 60, each_minute);
        assert_eq!(compacted, [(1440, 1), (1500, 55), (1560, 115), (1620, 175)]);
    }

    #[test]
    fn a_short_period_is_its_own_interval() {
        let compacted = run(AutoCompaction::Periodic(10 * MINUTE), 40, each_minute);
        assert_eq!(compacted, [(10, 1), (20, 10), (30, 20), (40, 30)]);
    }

    #[test]
    fn what_did_not_change_is_not_compacted_again() {
        let rests = |minute: u64| each_minute(minute.min(20));
        let compacted = run(AutoCompaction::Periodic(10 * MINUTE), 80, rests);
        assert_eq!(compacted, [(10, 1), (20, 10), (30, 20), (40, 21)]);
    }

    #[test]
    fn a_number_of_revisions_is_kept() {
        let compacted = run(AutoCompaction::Revisions(8), 22, each_minute);
        assert_eq!(compacted, [(10, 3), (15, 8), (20, 13), (25, 18)]);
        assert_eq!(run(AutoCompaction::Revisions(100), 60, each_minute), []);
    }
}
