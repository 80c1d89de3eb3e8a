//! When the leases of the v3 keys end: counted by the member that leads, and by it alone.
//!
//! ```text
//!  applied: granted, revoked ─▶ Expiry ◀─ renewed: by this member's clients, or passed on by others
//!                                 └─ due ─▶ does this member still lead? ─▶ revoked through the log
//! ```
//! Whoever begins to lead gives every lease its whole time and the time an election takes: it does
//! not know which renewals its predecessor granted. The clock is the runtime's, which nobody sets.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::consensus::network::{Caller, Line, Reply, Request};
use crate::consensus::proposer::Proposer;
use crate::consensus::reader::Reader;
use crate::consensus::standing::Standing;
use crate::consensus::state_machine::StateMachine;
use crate::foundation::clock::{Clock as _, Timestamp, TokioClock};
use crate::foundation::limits::LEASES_REVOKED_MAX;
use crate::store::keys_v3::Change;
use crate::store::mvcc::{Expiry, Lease};
use crate::store::{Batch, Command, Outcome};

/// How long one question may take before it is asked anew.
const ROUND: Duration = Duration::from_secs(2);
/// How long to wait before looking again for a leader.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How long a revocation may take.
const REVOKE: Duration = Duration::from_secs(5);

/// What is asked of the member that leads. The answer is a number of seconds, or that there is no
/// such lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeaseAsk {
    /// Give it its whole time again.
    Renew(i64),
    /// Tell how long it still lives.
    Left(i64),
}

/// Nobody who leads answered in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no leader answered for the lease in time; ask again")]
pub struct LeaseError;

/// This member does not lead, or has only begun to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct DoesNotCount;

/// The ends of all leases, while this member leads.
#[derive(Debug)]
pub struct Leases {
    clock: TokioClock,
    expiry: Mutex<Option<Expiry>>,
    /// Something may be due earlier than it was.
    changed: Notify,
}

impl Default for Leases {
    fn default() -> Self {
        Self {
            clock: TokioClock::starting_at(Timestamp::EPOCH),
            expiry: Mutex::default(),
            changed: Notify::default(),
        }
    }
}

impl Leases {
    /// Takes note of what a batch did to leases.
    pub fn applied(&self, batch: &Batch, outcomes: &[Outcome]) {
        let mut expiry = self.expiry();
        let Some(expiry) = expiry.as_mut() else { return };
        let now = self.clock.now();
        for (command, outcome) in batch.commands.iter().zip(outcomes) {
            let (Command::V3(change), Outcome::V3(Ok(_))) = (command, outcome) else { continue };
            match change {
                Change::LeaseGrant { id, ttl } => expiry.granted(*id, *ttl, now),
                Change::LeaseRevoke { id } => expiry.revoked(*id),
                Change::Op(_)
                | Change::Compact { .. }
                | Change::RaiseAlarm(_)
                | Change::ClearAlarm(_) => continue,
            }
            self.changed.notify_one();
        }
    }

    /// Begins to count; `leases` are all there are.
    fn begin(&self, leases: impl Iterator<Item = Lease>, grace: Duration) {
        *self.expiry() = Some(Expiry::promote(leases, grace, self.clock.now()));
    }

    /// Stops counting.
    fn end(&self) {
        *self.expiry() = None;
    }

    /// Answers if this member counts.
    fn answer(&self, ask: LeaseAsk) -> Result<Option<i64>, DoesNotCount> {
        let mut expiry = self.expiry();
        let expiry = expiry.as_mut().ok_or(DoesNotCount)?;
        let now = self.clock.now();
        Ok(match ask {
            LeaseAsk::Renew(id) => expiry.renew(id, now),
            LeaseAsk::Left(id) => expiry.remaining(id, now),
        })
    }

    fn due(&self) -> Vec<i64> {
        let now = self.clock.now();
        self.expiry().as_mut().map_or_else(Vec::new, |expiry| expiry.due(now, LEASES_REVOKED_MAX))
    }

    /// Waits until something is due.
    async fn wait(&self) {
        loop {
            let due = self.expiry().as_ref().and_then(Expiry::next_due);
            let slept = async {
                match due {
                    Some(due) => tokio::time::sleep(due.since(self.clock.now())).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.changed.notified() => {}
                () = slept => return,
            }
        }
    }

    fn expiry(&self) -> MutexGuard<'_, Option<Expiry>> {
        self.expiry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What counting needs.
#[derive(Debug)]
pub struct Means {
    /// Where this member stands.
    pub standing: Standing,
    /// The store.
    pub store: StateMachine,
    /// How revocations get into the log.
    pub proposer: Proposer,
    /// How a leader makes sure that it leads.
    pub reader: Reader,
    /// How other members are called.
    pub caller: Arc<Caller>,
    /// The time an election takes.
    pub grace: Duration,
}

impl Means {
    /// Counts whenever this member leads, until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let term = self.standing.leads_in();
            let work = async {
                match term {
                    Some(_) => self.count().await,
                    None => std::future::pending().await,
                }
            };
            let over = tokio::select! {
                biased;
                () = stop.cancelled() => true,
                () = work => false,
                goes_on = self.while_leads_in(term) => !goes_on,
            };
            self.store.leases().end();
            if over {
                return;
            }
        }
    }

    /// Waits until this member leads in another term, or in none; false where the library ends.
    async fn while_leads_in(&self, term: Option<u64>) -> bool {
        let mut standing = self.standing.clone();
        while standing.leads_in() == term {
            if !standing.changed().await {
                return false;
            }
        }
        true
    }

    /// Counts for as long as it is polled; ends only with the library.
    async fn count(&self) {
        // What earlier leaders granted has to be here first.
        let index = loop {
            if let Some(index) = self.confirmed().await {
                break index;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        };
        let mut progress = self.store.progress();
        if progress.wait_for(|progress| progress.applied >= index).await.is_err() {
            return;
        }
        {
            // Held, so that nothing is granted in between.
            let image = self.store.image();
            let view = image.machine.keys_v3.view();
            self.store.leases().begin(view.leases().copied(), self.grace);
        }
        loop {
            self.store.leases().wait().await;
            self.revoke(self.store.leases().due()).await;
        }
    }

    /// Has leases revoked, if this member still leads. What fails comes again.
    async fn revoke(&self, ids: Vec<i64>) {
        // Another may lead by now, and have renewed them.
        if ids.is_empty() || self.confirmed().await.is_none() {
            return;
        }
        let command = |id| Command::V3(Change::LeaseRevoke { id });
        let commands = ids.into_iter().map(command).collect();
        // As if it had been passed on, so that it is not passed on from here.
        if let Err(error) = self.proposer.propose(commands, true, REVOKE).await {
            tracing::debug!(%error, "leases have ended, and could not be revoked");
        }
    }

    /// Makes sure that this member leads; returns up to where it must have applied.
    async fn confirmed(&self) -> Option<u64> {
        tokio::time::timeout(ROUND, self.reader.read_index()).await.ok()?
    }

    /// Answers if this member leads.
    pub async fn answer(&self, ask: LeaseAsk) -> Option<Option<i64>> {
        self.confirmed().await?;
        self.store.leases().answer(ask).ok()
    }

    /// Has whoever leads answer.
    pub async fn ask(&self, ask: LeaseAsk, deadline: Duration) -> Result<Option<i64>, LeaseError> {
        let deadline = Instant::now() + deadline;
        let asked = async {
            loop {
                if let Some(answer) = self.answer(ask).await {
                    return answer;
                }
                if let Some(answer) = self.ask_leader(ask).await {
                    return answer;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        tokio::time::timeout_at(deadline, asked).await.map_err(|_| LeaseError)
    }

    async fn ask_leader(&self, ask: LeaseAsk) -> Option<Option<i64>> {
        let leader = self.standing.other_leader()?;
        let mut line = Line::new(self.caller.clone(), leader);
        match line.call(&Request::Lease(ask), ROUND).await {
            Ok(Reply::Lease(answer)) => Some(answer),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::keys_v3::Answer;

    fn applied(leases: &Leases, change: Change) {
        let batch = Batch { commands: [Command::V3(change)].into(), ..Batch::default() };
        leases.applied(&batch, &[Outcome::V3(Ok(Answer::Done { revision: 1 }))]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_lead_does_not_answer() {
        let leases = Leases::default();
        applied(&leases, Change::LeaseGrant { id: 7, ttl: 10 });
        assert_eq!(leases.answer(LeaseAsk::Left(7)), Err(DoesNotCount));
        leases.begin(std::iter::empty(), Duration::ZERO);
        assert_eq!(leases.answer(LeaseAsk::Left(7)), Ok(None));
        leases.end();
        assert_eq!(leases.answer(LeaseAsk::Renew(7)), Err(DoesNotCount));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_is_granted_while_one_waits_is_due_in_its_time() {
        let leases = Leases::default();
        let old = Lease { id: 1, ttl: 100, remaining: 0 };
        leases.begin(std::iter::once(old), Duration::from_secs(1));
        let start = Instant::now();
        let grant = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            applied(&leases, Change::LeaseGrant { id: 7, ttl: 10 });
        };
        tokio::join!(leases.wait(), grant);
        assert_eq!(start.elapsed().as_secs(), 15);
        assert_eq!(leases.due(), [7]);
        applied(&leases, Change::LeaseRevoke { id: 7 });
        assert_eq!(leases.answer(LeaseAsk::Left(7)), Ok(None));
        assert_eq!(leases.answer(LeaseAsk::Left(1)), Ok(Some(86)));
    }
}
