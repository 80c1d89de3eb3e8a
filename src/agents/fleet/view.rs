//! What everyone in the daemon reads: the cluster, and whether it may be acted on.
//!
//! ```text
//!   mirror ──▶ feed ──▶ Cluster ──▶ engine, agent (woken)      presence ──▶ Health
//!                          ▲        server (reads)
//!   our own writes ────────┘
//! ```
//! The lock is held for one look or one change, never across a wait.

use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::agents::fleet::cluster::{Cluster, Matters};
use crate::rpc::client::mirror::Change;
use crate::wire::fleet::Registry;

/// How long after the store came back a missing machine is waited for. Every daemon renews its
/// presence within a second of hearing from the store again.
pub const RETURN_GRACE: Duration = Duration::from_secs(3);

/// Changes taken in before those who wait for them are woken.
const BATCH_MAX: usize = 1_024;

/// Whether what we see is true and we are part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health {
    /// The cluster is as the store has it.
    pub listed: bool,
    /// Our presence is registered.
    pub present: bool,
    /// When the store was last heard of again.
    pub since: Instant,
}

impl Health {
    /// Tells whether we may act and answer.
    pub fn live(&self) -> bool {
        self.listed && self.present
    }
}

/// The cluster and our place in it.
#[derive(Debug)]
pub struct View {
    cluster: RwLock<Cluster>,
    deciders: watch::Sender<u64>,
    health: watch::Sender<Health>,
}

impl View {
    /// Makes a view that has seen nothing.
    pub fn new(registry: Registry) -> Self {
        let health = Health { listed: false, present: false, since: Instant::now() };
        Self {
            cluster: RwLock::new(Cluster::new(registry)),
            deciders: watch::Sender::new(0),
            health: watch::Sender::new(health),
        }
    }

    /// Looks at the cluster.
    pub fn read<T>(&self, look: impl FnOnce(&Cluster) -> T) -> T {
        look(&self.cluster.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the cluster and wakes those it matters to.
    pub fn change(&self, how: impl FnOnce(&mut Cluster) -> Matters) {
        let matters = how(&mut self.cluster.write().unwrap_or_else(PoisonError::into_inner));
        if matters == Matters::ToDeciders {
            self.deciders.send_modify(|count| *count += 1);
        }
    }

    /// Tells of every change that may call for a decision.
    pub fn decisions(&self) -> watch::Receiver<u64> {
        self.deciders.subscribe()
    }

    /// Tells how we are, and when that changes.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    /// Notes whether our presence is registered.
    pub fn set_present(&self, present: bool) {
        self.health
            .send_if_modified(|health| std::mem::replace(&mut health.present, present) != present);
    }

    fn set_listed(&self, listed: bool) {
        self.health.send_if_modified(|health| {
            let before = std::mem::replace(&mut health.listed, listed);
            if listed && !before {
                health.since = Instant::now();
            }
            before != listed
        });
    }
}

/// Feeds the view with what the mirror tells, until it ends.
pub async fn feed(view: &View, mut changes: mpsc::Receiver<Change>, stop: CancellationToken) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    loop {
        let count = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            count = changes.recv_many(&mut batch, BATCH_MAX) => count,
        };
        if count == 0 {
            return;
        }
        let listed = batch.iter().rev().find_map(|change| match change {
            Change::Listed(_) => Some(true),
            Change::Lost { .. } => Some(false),
            Change::Changed { .. } => None,
        });
        for change in &batch {
            if let Change::Lost { why } = change {
                tracing::warn!(%why, "the store is away; units keep running, nothing is decided");
            }
        }
        view.change(|cluster| {
            let matters = batch.iter().map(|change| cluster.apply(change)).max();
            matters.unwrap_or(Matters::Not)
        });
        batch.clear();
        if let Some(listed) = listed {
            view.set_listed(listed);
        }
    }
}
