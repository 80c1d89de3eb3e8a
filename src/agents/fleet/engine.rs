//! The engine: the one machine that holds the lease decides which machine runs which unit.
//!
//! It looks when something has changed and at every interval, writes what `schedule` decides, and
//! acts only while its lease lasts. A lease is renewed at every interval. The machine that
//! follows need not wait for the lease's end where the leader's presence has expired.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::agents::fleet::cluster::Cluster;
use crate::agents::fleet::lease::{self, Found, Gate, Step};
use crate::agents::fleet::registry::Store;
use crate::agents::fleet::schedule::{Decision, Missing, decide};
use crate::agents::fleet::view::{Health, RETURN_GRACE, View};
use crate::rpc::client::keys::{Expect, KeysFailure};
use crate::wire::fleet::registry::{ENGINE_VERSION, LeaseObject};

/// How many decisions are being written at a time.
const PARALLEL: usize = 16;
/// Most decisions between two looks at the lease.
const DECISIONS_MAX: usize = 1_024;
/// How long giving the lease back may take when we leave.
const RELEASE_DEADLINE: Duration = Duration::from_secs(2);

/// The lease, as long as it is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    index: u64,
    until: Instant,
    renew: Instant,
    /// What a stolen lease makes us wait for.
    act_from: Instant,
}

/// The engine.
#[derive(Debug)]
pub struct Engine {
    machine: String,
    store: Store,
    view: Arc<View>,
    interval: Duration,
    held: Option<Held>,
}

impl Engine {
    /// Makes the engine of the machine of that id.
    pub fn new(machine: &str, store: Store, view: Arc<View>, interval: Duration) -> Self {
        Self { machine: machine.to_owned(), store, view, interval, held: None }
    }

    /// Works until told to stop, then gives the lease back.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut decisions = self.view.decisions();
        let mut health = self.view.health();
        let mut every = tokio::time::interval(self.interval);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let patience = health.borrow().since + RETURN_GRACE;
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Ok(()) = health.changed() => {}
                Ok(()) = decisions.changed() => {}
                () = tokio::time::sleep_until(patience), if patience > Instant::now() => {}
                _ = every.tick() => {}
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = self.turn(&health) => {}
            }
        }
        self.release().await;
    }

    async fn turn(&mut self, health: &watch::Receiver<Health>) {
        let now = *health.borrow();
        if !now.live() {
            return;
        }
        let missing = if Instant::now() < now.since + RETURN_GRACE {
            Missing::MayReturn
        } else {
            Missing::IsGone
        };
        let Some(held) = self.lead(missing).await else { return };
        if Instant::now() < held.act_from {
            return;
        }
        let started = Instant::now();
        let mut decisions = self.view.read(|cluster| decide(cluster, missing));
        decisions.truncate(DECISIONS_MAX);
        let applied = tokio::time::timeout_at(held.until, self.apply(decisions)).await;
        if applied.is_err() {
            tracing::warn!("decisions outlived the lease and were abandoned");
        }
        if started.elapsed() > self.interval {
            tracing::warn!(took = ?started.elapsed(), "a round took longer than the interval");
        }
    }

    /// Returns the lease if it is ours, after getting or renewing it.
    async fn lead(&mut self, missing: Missing) -> Option<Held> {
        if !self.gate().await {
            return None;
        }
        let now = Instant::now();
        if let Some(held) = self.held.filter(|held| now < held.until) {
            return if now < held.renew { Some(held) } else { self.renew(held).await };
        }
        self.held = None;
        let someone_leads = self.view.read(|cluster| {
            cluster.leader().is_some_and(|leader| {
                let present = cluster.machines().contains_key(&leader.machine_id);
                let other = leader.machine_id != self.machine;
                other
                    && leader.version >= ENGINE_VERSION
                    && (present || missing == Missing::MayReturn)
            })
        });
        if someone_leads {
            return None;
        }
        match self.elect(missing).await {
            Ok(held) => held,
            Err(failure) => {
                tracing::debug!(why = %failure, "the engine's lease was not taken");
                None
            }
        }
    }

    /// Tells whether the version of the engine's schema lets us take part.
    async fn gate(&self) -> bool {
        let version = self.view.read(Cluster::engine_version);
        match lease::gate(version) {
            Gate::Open => true,
            Gate::Shut => {
                tracing::debug!(version, "a newer engine is at work; staying out");
                false
            }
            Gate::Raise => self.store.raise_engine_version(version, ENGINE_VERSION).await.is_ok(),
        }
    }

    async fn renew(&mut self, held: Held) -> Option<Held> {
        match self.take(Expect::Index(held.index), Duration::ZERO).await {
            Ok(renewed) => {
                let renewed = Held { act_from: held.act_from, ..renewed };
                self.held = Some(renewed);
            }
            Err(KeysFailure::Refused(refusal)) => {
                tracing::warn!(why = %refusal, "the engine's lease was lost");
                self.held = None;
            }
            // Ours until its time is over; the next turn tries again.
            Err(failure) => tracing::debug!(why = %failure, "the engine's lease was not renewed"),
        }
        self.held
    }

    async fn elect(&mut self, missing: Missing) -> Result<Option<Held>, KeysFailure> {
        let found = self.store.lease().await?;
        let gone = |found: &Found| {
            let holder = &found.lease.machine_id;
            missing == Missing::IsGone
                && self.view.read(|cluster| !cluster.machines().contains_key(holder))
        };
        let holder_is_gone = found.as_ref().is_some_and(gone);
        let (expect, wait) = match lease::step(found.as_ref(), &self.machine, holder_is_gone) {
            Step::Acquire => (Expect::Absent, Duration::ZERO),
            Step::TakeOver { index } => (Expect::Index(index), Duration::ZERO),
            Step::Steal { index, wait } => (Expect::Index(index), wait),
            Step::StandBy => return Ok(None),
        };
        let held = self.take(expect, wait).await?;
        tracing::info!(machine = %self.machine, "this machine's engine decides now");
        self.held = Some(held);
        Ok(self.held)
    }

    async fn take(&self, expect: Expect, wait: Duration) -> Result<Held, KeysFailure> {
        let lease = LeaseObject { machine_id: self.machine.clone(), version: ENGINE_VERSION };
        let ttl = lease::ttl(self.interval) + wait;
        // Counted from before the store heard of it: it cannot end before we think it does.
        let asked = Instant::now();
        let index = self.store.take_lease(&lease, ttl, expect).await?;
        let (until, renew) = (asked + ttl, asked + self.interval);
        Ok(Held { index, until, renew, act_from: asked + wait })
    }

    /// Writes decisions: first who leaves, then who comes.
    async fn apply(&self, decisions: Vec<Decision>) {
        let (leave, come): (Vec<_>, Vec<_>) = decisions
            .into_iter()
            .partition(|decision| matches!(decision, Decision::Unschedule { .. }));
        for part in [leave, come] {
            let writes = stream::iter(part).map(|decision| self.write(decision));
            writes.buffer_unordered(PARALLEL).collect::<Vec<()>>().await;
        }
    }

    async fn write(&self, decision: Decision) {
        let written = match &decision {
            Decision::Unschedule { unit, machine, why } => {
                tracing::info!(%unit, %machine, reason = %why, "unit taken off its machine");
                self.store.unschedule(unit, machine).await
            }
            Decision::Schedule { unit, machine } => {
                tracing::info!(%unit, %machine, "unit scheduled");
                self.store.schedule(unit, machine).await
            }
        };
        if let Err(failure) = written {
            tracing::warn!(?decision, why = %failure, "a decision was not written; it will be");
        }
    }

    async fn release(&mut self) {
        let Some(held) = self.held.take() else { return };
        if !self.view.health().borrow().listed {
            return;
        }
        let release = self.store.drop_lease(held.index);
        if !matches!(tokio::time::timeout(RELEASE_DEADLINE, release).await, Ok(Ok(()))) {
            tracing::debug!("the engine's lease was not given back; it expires");
        }
    }
}
