//! Reads that are not stale: waits until this member has applied all that was acknowledged
//! anywhere before the read began (`ReadIndex`, Ongaro 2014, 6.4).
//!
//! All reads that wait share one round: a round that begins after a read came in serves it. A member
//! that leads alone needs a round only once in its term: from then on it has applied whatever it
//! acknowledges, and nobody else acknowledges anything.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openraft::errors::{LinearizableReadError, RaftError};
use openraft::raft::ReadPolicy;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::consensus::identity::Peer;
use crate::consensus::mistakes::{Mistake, Mistakes};
use crate::consensus::network::{Caller, Line, Reply, Request};
use crate::consensus::standing::Standing;
use crate::consensus::state_machine::Progress;
use crate::consensus::types::Raft;
use crate::foundation::limits::PROPOSALS_MAX;
use crate::foundation::tasks::Tasks;

/// How long one round may take before it is begun anew.
const ROUND: Duration = Duration::from_secs(2);
/// How long to wait before looking again for a leader.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Nobody could say in time whether a read would be stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no leader confirmed the read in time")]
pub struct ReadError;

/// Where reads wait. Clones are the same queue.
#[derive(Debug, Clone)]
pub struct Reader {
    queue: mpsc::Sender<oneshot::Sender<()>>,
    means: Arc<Means>,
}

/// What the reader works with.
#[derive(Debug)]
pub struct Means {
    /// The library.
    pub raft: Raft,
    /// How other members are called.
    pub caller: Arc<Caller>,
    /// How far this member has applied.
    pub progress: watch::Receiver<Progress>,
    /// Where this member stands.
    pub standing: Standing,
    /// The term in which this member leads alone and has had its round; 0 for none.
    pub settled_in: AtomicU64,
    /// The mistake to make, if any.
    pub mistakes: Mistakes,
}

impl Reader {
    /// Starts the task that runs the rounds.
    pub fn start(means: Means, tasks: &Tasks) -> Self {
        let (queue, waiting) = mpsc::channel(PROPOSALS_MAX);
        let means = Arc::new(means);
        let rounds = means.clone();
        tasks.spawn("reader", |stop| rounds.run(waiting, stop));
        Self { queue, means }
    }

    /// Returns once a local read shows all that was acknowledged before the call. Cancel safe.
    pub async fn barrier(&self, deadline: Duration) -> Result<(), ReadError> {
        if self.means.is_settled() {
            return Ok(());
        }
        let (answer, wait) = oneshot::channel();
        let work = async {
            self.queue.send(answer).await.map_err(|_| ReadError)?;
            wait.await.map_err(|_| ReadError)
        };
        tokio::time::timeout(deadline, work).await.map_err(|_| ReadError)?
    }

    /// Returns up to where a member must have applied so that a read that begins now is not
    /// stale there; `None` if this member does not lead. Only within the member's own tasks.
    pub async fn read_index(&self) -> Option<u64> {
        self.means.own_index().await.ok()
    }
}

impl Means {
    async fn run(
        self: Arc<Self>,
        mut waiting: mpsc::Receiver<oneshot::Sender<()>>,
        stop: CancellationToken,
    ) {
        loop {
            let first = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                first = waiting.recv() => first,
            };
            let Some(first) = first else { return };
            let mut served = vec![first];
            while let Ok(next) = waiting.try_recv() {
                served.push(next);
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.round() => {}
            }
            for answer in served {
                // An error means that the reader is gone, and no longer cares.
                answer.send(()).ok();
            }
        }
    }

    /// Waits until this member has applied what the leader says it must.
    async fn round(&self) {
        if self.mistakes.makes(Mistake::ReadAnywhere) {
            return;
        }
        let alone_in = self.standing.alone_in();
        let index = loop {
            let round = tokio::time::timeout(ROUND, self.index()).await;
            if let Ok(Some(index)) = round {
                break index;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        };
        let mut progress = self.progress.clone();
        // An error means that the member stops; its callers are gone then.
        if progress.wait_for(|progress| progress.applied >= index).await.is_ok() {
            self.settled_in.store(alone_in.unwrap_or(0), Ordering::Release);
        }
    }

    /// Tells whether this member leads alone, in a term in which a round has shown that it has
    /// applied all that was acknowledged before.
    fn is_settled(&self) -> bool {
        self.standing.alone_in().is_some_and(|term| term == self.settled_in.load(Ordering::Acquire))
    }

    /// Asks this member, or the one that leads.
    async fn index(&self) -> Option<u64> {
        let leader = match self.own_index().await {
            Ok(index) => return Some(index),
            Err(leader) => leader?,
        };
        let mut line = Line::new(self.caller.clone(), leader);
        match line.call(&Request::ReadIndex, ROUND).await {
            Ok(Reply::ReadIndex(index)) => Some(index),
            _ => None,
        }
    }

    /// Asks a quorum, if this member leads; else tells who does.
    async fn own_index(&self) -> Result<u64, Option<Peer>> {
        if self.mistakes.makes(Mistake::ReadLocal) && self.raft.is_leader() {
            return Ok(0);
        }
        match self.raft.get_read_log_id(ReadPolicy::ReadIndex).await {
            Ok((read, _applied)) => Ok(read.index()),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(to))) => {
                Err(to.leader_node)
            }
            Err(_) => Err(None),
        }
    }
}
