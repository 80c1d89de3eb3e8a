//! From commands to outcomes: gathers what waits into batches, and finds the leader for them.
//!
//! A command is sent at most once. Where it is certain that nothing was done (nobody led), it is
//! tried again until its deadline; where it is not, the caller is told so.

use std::sync::Arc;
use std::time::Duration;

use openraft::errors::{ClientWriteError, RaftError};
use prost::Message as _;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::consensus::identity::Peer;
use crate::consensus::network::{Caller, Line, Reply, Request};
use crate::consensus::state_machine::Progress;
use crate::consensus::types::Raft;
use crate::foundation::clock::Clock;
use crate::foundation::limits::{BATCH_BYTES_MAX, PROPOSALS_MAX};
use crate::foundation::tasks::Tasks;
use crate::store::keys_v3::Change;
use crate::store::{Batch, Command, Outcome};

/// Batches that may be under way at a time: enough to write one while another is being agreed on.
const BATCHES_MAX: usize = 4;
/// How long to wait before looking again for a leader.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Why there are no outcomes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Nothing was done, for lack of a leader, until the deadline.
    #[error("no leader was found in time; nothing was written")]
    NoLeader,
    /// The member that was asked does not lead, and may not pass it on.
    #[error("this member does not lead")]
    NotLeader,
    /// It may or may not have been done.
    #[error("the cluster did not answer in time: {why}")]
    Unknown {
        /// What happened.
        why: String,
    },
    /// Too much is waiting already; nothing was done.
    #[error("too many requests are waiting")]
    Overloaded,
    /// The member stops; nothing was done.
    #[error("this member is stopping")]
    Stopping,
}

/// What became of commands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The entry of the log that they are in.
    pub index: u64,
    /// One for each of them, in order.
    pub outcomes: Vec<Outcome>,
}

type Answer = oneshot::Sender<Result<Applied, ProposeError>>;

struct Proposal {
    /// Empty while a batch has them.
    commands: Vec<Command>,
    /// How many there are.
    count: usize,
    /// Came from another member, so not to be passed on again.
    forwarded: bool,
    deadline: Instant,
    answer: Answer,
}

/// Where commands go in. Clones are the same queue.
#[derive(Debug, Clone)]
pub struct Proposer {
    queue: mpsc::Sender<Proposal>,
}

/// What the proposer works with.
#[derive(Debug)]
pub struct Means {
    /// The library.
    pub raft: Raft,
    /// How other members are called.
    pub caller: Arc<Caller>,
    /// The wall clock, for the time of a batch.
    pub clock: Arc<dyn Clock>,
    /// How far this member has applied.
    pub progress: watch::Receiver<Progress>,
}

impl Proposer {
    /// Starts the task that gathers and sends.
    pub fn start(means: Means, tasks: &Tasks) -> Self {
        let (queue, proposals) = mpsc::channel(PROPOSALS_MAX);
        let gatherer = Gatherer { means: Arc::new(means), proposals, tasks: tasks.clone() };
        tasks.spawn("proposer", |stop| gatherer.run(stop));
        Self { queue }
    }

    /// Has commands applied, in one piece and in order: by this member as well, so that whoever
    /// asks it next finds what was written. After an error other than `Unknown` nothing was done.
    /// Dropping the future leaves it open whether they are applied.
    pub async fn propose(
        &self,
        commands: Vec<Command>,
        forwarded: bool,
        deadline: Duration,
    ) -> Result<Applied, ProposeError> {
        let (answer, wait) = oneshot::channel();
        let deadline = Instant::now() + deadline;
        let count = commands.len();
        let proposal = Proposal { commands, count, forwarded, deadline, answer };
        self.queue.try_send(proposal).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ProposeError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => ProposeError::Stopping,
        })?;
        let gone = |_| ProposeError::Unknown { why: "this member stopped".to_owned() };
        wait.await.map_err(gone)?
    }
}

struct Gatherer {
    means: Arc<Means>,
    proposals: mpsc::Receiver<Proposal>,
    tasks: Tasks,
}

impl Gatherer {
    async fn run(mut self, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(BATCHES_MAX));
        loop {
            let first = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                first = self.proposals.recv() => first,
            };
            let Some(first) = first else { return };
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let batch = self.gather(first);
            let means = self.means.clone();
            self.tasks.spawn("batch", |_stop| async move {
                means.send(batch).await;
                drop(place);
            });
        }
    }

    /// Takes what waits, up to a batch's size. What was forwarded goes with the rest.
    fn gather(&mut self, first: Proposal) -> Vec<Proposal> {
        let mut bytes = weight(&first);
        let mut batch = vec![first];
        while bytes < BATCH_BYTES_MAX
            && let Ok(next) = self.proposals.try_recv()
        {
            bytes += weight(&next);
            batch.push(next);
        }
        batch
    }
}

/// Returns about how many bytes a proposal takes in the log.
fn weight(proposal: &Proposal) -> usize {
    let one = |command: &Command| match command {
        Command::Put(put) => put.path.len() + put.value.len() + 32,
        Command::Append { path, value, .. } => path.len() + value.len() + 32,
        Command::Delete(delete) => delete.path.len() + delete.compare.value.len() + 32,
        Command::V3(Change::Op(op)) => op.encoded_len() + 32,
        Command::Expire | Command::Publish { .. } | Command::V3(_) => 64,
    };
    proposal.commands.iter().map(one).sum()
}

impl Means {
    /// Sees a batch through: here if this member leads, else at the leader.
    async fn send(&self, mut batch: Vec<Proposal>) {
        loop {
            let now = Instant::now();
            for late in batch.extract_if(.., |proposal| proposal.deadline <= now) {
                answer(late, Err(ProposeError::NoLeader));
            }
            let Some(deadline) = batch.iter().map(|proposal| proposal.deadline).max() else {
                return;
            };
            let leader = match self.write(&mut batch, deadline).await {
                Written::Done => return,
                Written::Elsewhere(leader) => leader,
            };
            for forwarded in batch.extract_if(.., |proposal| proposal.forwarded) {
                answer(forwarded, Err(ProposeError::NotLeader));
            }
            if let Some(leader) = leader
                && self.forward(leader, &mut batch, deadline).await
            {
                return;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Writes the batch if this member leads.
    async fn write(&self, batch: &mut Vec<Proposal>, deadline: Instant) -> Written {
        let commands: Arc<[Command]> =
            batch.iter_mut().flat_map(|proposal| std::mem::take(&mut proposal.commands)).collect();
        let entry = Batch { time: self.clock.now(), commands: commands.clone() };
        match tokio::time::timeout_at(deadline, self.raft.client_write(entry)).await {
            Ok(Ok(written)) => {
                let applied = Applied { index: written.log_id.index, outcomes: written.data };
                spread(std::mem::take(batch), applied);
            }
            // Not `error.forward_to_leader()`: it also knows a leader for an entry that was
            // discarded here, and the next leader may still commit that one.
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to)))) => {
                give_back(batch, &commands);
                return Written::Elsewhere(to.leader_node);
            }
            Ok(Err(error)) => refuse(std::mem::take(batch), &error.to_string()),
            Err(_) => refuse(std::mem::take(batch), "request timed out"),
        }
        Written::Done
    }

    /// Sends the batch to the leader. False when it is certain that nothing was done.
    async fn forward(&self, leader: Peer, batch: &mut Vec<Proposal>, deadline: Instant) -> bool {
        let commands: Vec<_> =
            batch.iter().flat_map(|proposal| proposal.commands.clone()).collect();
        if commands.is_empty() {
            return true;
        }
        let mut line = Line::new(self.caller.clone(), leader);
        let left = deadline.saturating_duration_since(Instant::now());
        match line.call(&Request::Propose(commands), left).await {
            Ok(Reply::Proposed(applied)) => {
                let mut progress = self.progress.clone();
                let here = progress.wait_for(|progress| progress.applied >= applied.index);
                match tokio::time::timeout_at(deadline, here).await {
                    Ok(Ok(_)) => spread(std::mem::take(batch), applied),
                    Ok(Err(_)) => refuse(std::mem::take(batch), "this member stopped"),
                    Err(_) => refuse(std::mem::take(batch), "this member is behind the others"),
                }
            }
            Ok(Reply::NotLeader) => return false,
            Ok(other) => refuse(std::mem::take(batch), &format!("the leader said {other:?}")),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => return false,
            Err(error) => refuse(std::mem::take(batch), &error.to_string()),
        }
        true
    }
}

/// How an attempt to write here ended.
enum Written {
    /// Everyone was told.
    Done,
    /// Nothing was done; this member leads, if anyone is known to.
    Elsewhere(Option<Peer>),
}

/// Returns to proposals what was to be written and was not.
fn give_back(batch: &mut [Proposal], commands: &[Command]) {
    let mut all = commands.iter().cloned();
    for proposal in batch {
        proposal.commands = all.by_ref().take(proposal.count).collect();
    }
}

fn spread(batch: Vec<Proposal>, applied: Applied) {
    let mut all = applied.outcomes.into_iter();
    for proposal in batch {
        let outcomes = all.by_ref().take(proposal.count).collect();
        answer(proposal, Ok(Applied { index: applied.index, outcomes }));
    }
}

fn refuse(batch: Vec<Proposal>, why: &str) {
    for proposal in batch {
        answer(proposal, Err(ProposeError::Unknown { why: why.to_owned() }));
    }
}

fn answer(proposal: Proposal, result: Result<Applied, ProposeError>) {
    // A caller that is gone no longer cares.
    drop(proposal.answer.send(result));
}
