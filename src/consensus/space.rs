//! How much room the v3 keys may take: a member whose store outgrows its quota tells all others, by
//! an alarm in the log, and all refuse what would take more.
//!
//! Quotas are settings of a member and may differ, so they decide nothing that is replicated; the
//! alarm does.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::consensus::proposer::{ProposeError, Proposer};
use crate::consensus::state_machine::StateMachine;
use crate::store::Command;
use crate::store::keys_v3::{Alarm, Change, Raised};

/// How long one attempt to raise the alarm may take.
const RAISE: Duration = Duration::from_secs(5);
/// How long to wait before the next.
const RAISE_AGAIN: Duration = Duration::from_millis(500);

/// How much room there is, and how to say that there is none.
#[derive(Debug, Clone)]
pub struct Space {
    /// The member whose room it is.
    pub member: u64,
    /// How many bytes the v3 keys may take; `None` for any.
    pub quota_bytes: Option<u64>,
    /// The store.
    pub store: StateMachine,
    /// How the alarm gets into the log.
    pub proposer: Proposer,
}

impl Space {
    /// Tells whether there is room for so many bytes more.
    pub fn has_room(&self, bytes: u64) -> bool {
        let taken = || self.store.image().machine.keys_v3.bytes();
        self.quota_bytes.is_none_or(|quota| taken().saturating_add(bytes) < quota)
    }

    /// Raises this member's alarm, unless it is raised.
    pub async fn raise(&self, deadline: Duration) -> Result<(), ProposeError> {
        let raised = Raised { alarm: Alarm::NoSpace, member: self.member };
        if self.store.image().machine.keys_v3.alarms().has(raised) {
            return Ok(());
        }
        tracing::warn!(
            quota_bytes = self.quota_bytes,
            "the v3 keys have outgrown their quota: nothing more is put until keys are deleted, the history is compacted and the alarm is disarmed"
        );
        let command = Command::V3(Change::RaiseAlarm(raised));
        self.proposer.propose(vec![command], false, deadline).await.map(drop)
    }

    /// Raises the alarm whenever what was applied has outgrown the quota, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let Some(quota_bytes) = self.quota_bytes else { return };
        let mut outgrown = Outgrown { quota_bytes, told_bytes: 0 };
        let mut chores = self.store.chores();
        loop {
            let grown = chores.wait_for(|chores| outgrown.by(chores.outgrown_bytes.unwrap_or(0)));
            if !matches!(stop.run_until_cancelled(grown).await, Some(Ok(_))) {
                return;
            }
            while let Err(error) = self.raise(RAISE).await {
                tracing::debug!(%error, "there is no space left, and the others could not be told");
                let paused = stop.run_until_cancelled(tokio::time::sleep(RAISE_AGAIN)).await;
                if paused.is_none() {
                    return;
                }
            }
        }
    }
}

/// Decides when to tell: each time that a store beyond its quota has grown. So an alarm that was
/// taken back too early is not raised before something is written, as in etcd.
#[derive(Debug)]
struct Outgrown {
    quota_bytes: u64,
    /// The size at which it was told last; 0 if it has been within the quota since.
    told_bytes: u64,
}

impl Outgrown {
    fn by(&mut self, bytes: u64) -> bool {
        if bytes < self.quota_bytes {
            self.told_bytes = 0;
            return false;
        }
        let grown = bytes > self.told_bytes;
        self.told_bytes = bytes;
        grown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_when_the_store_grows_beyond_its_quota_and_not_before() {
        let mut outgrown = Outgrown { quota_bytes: 100, told_bytes: 0 };
        let told = [99, 100, 100, 101, 90, 100, 120, 110, 115].map(|bytes| outgrown.by(bytes));
        assert_eq!(told, [false, true, false, true, false, true, true, false, true]);
    }
}
