//! Who decides: the engine's lease, taken by at most one machine at a time.
//!
//! Pure. A lease is written only where the key is absent or as we saw it, so that two can never
//! hold it; what is left to chance is who comes first.

use std::time::Duration;

use crate::wire::fleet::registry::{ENGINE_VERSION, LeaseObject};

/// How many of the engine's intervals a lease lasts.
const INTERVALS: u32 = 5;

/// Returns how long a lease lasts, in whole seconds as the store counts them.
pub fn ttl(interval: Duration) -> Duration {
    whole_seconds(interval * INTERVALS)
}

/// Rounds up to whole seconds, at least one.
pub fn whole_seconds(time: Duration) -> Duration {
    let up = u64::from(time.subsec_nanos() > 0);
    Duration::from_secs((time.as_secs() + up).max(1))
}

/// A lease as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What it says.
    pub lease: LeaseObject,
    /// When it was last written.
    pub index: u64,
    /// How long it still lasts.
    pub left: Duration,
}

/// What to do about the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Write it where there is none.
    Acquire,
    /// Write it over the one at this index, which is ours or of a machine that is gone.
    TakeOver {
        /// That lease's index.
        index: u64,
    },
    /// Write it over that of an older engine, and wait until that would have ended.
    Steal {
        /// That lease's index.
        index: u64,
        /// How long to wait before the first decision.
        wait: Duration,
    },
    /// Somebody else decides.
    StandBy,
}

/// Decides what to do about the lease; `holder_is_gone` if its machine is known to be dead.
pub fn step(found: Option<&Found>, me: &str, holder_is_gone: bool) -> Step {
    let Some(found) = found else { return Step::Acquire };
    let index = found.index;
    if found.lease.machine_id == me || (holder_is_gone && found.lease.version <= ENGINE_VERSION) {
        Step::TakeOver { index }
    } else if found.lease.version < ENGINE_VERSION {
        Step::Steal { index, wait: found.left }
    } else {
        Step::StandBy
    }
}

/// What the version of the engine's schema in the registry means for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// It is ours.
    Open,
    /// It is older, or there is none: raise it first.
    Raise,
    /// It is newer: stay out of the election.
    Shut,
}

/// Compares the version in the registry with ours.
pub fn gate(version: u64) -> Gate {
    match version.cmp(&ENGINE_VERSION) {
        std::cmp::Ordering::Less => Gate::Raise,
        std::cmp::Ordering::Equal => Gate::Open,
        std::cmp::Ordering::Greater => Gate::Shut,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(machine: &str, version: u64) -> Found {
        let lease = LeaseObject { machine_id: machine.into(), version };
        Found { lease, index: 7, left: Duration::from_secs(4) }
    }

    #[test]
    fn the_table_of_steps_holds() {
        assert_eq!(step(None, "m1", false), Step::Acquire);
        assert_eq!(step(Some(&found("m1", 1)), "m1", false), Step::TakeOver { index: 7 });
        assert_eq!(step(Some(&found("m2", 1)), "m1", false), Step::StandBy);
        assert_eq!(step(Some(&found("m2", 1)), "m1", true), Step::TakeOver { index: 7 });
        assert_eq!(step(Some(&found("m2", 2)), "m1", true), Step::StandBy);
        let wait = Duration::from_secs(4);
        assert_eq!(step(Some(&found("m2", 0)), "m1", false), Step::Steal { index: 7, wait });
    }

    #[test]
    fn a_newer_engine_keeps_us_out() {
        assert_eq!([gate(0), gate(1), gate(2)], [Gate::Raise, Gate::Open, Gate::Shut]);
    }

    #[test]
    fn a_lease_lasts_whole_seconds() {
        assert_eq!(ttl(Duration::from_secs(2)), Duration::from_secs(10));
        assert_eq!(ttl(Duration::from_millis(250)), Duration::from_secs(2));
        assert_eq!(whole_seconds(Duration::ZERO), Duration::from_secs(1));
    }
}
