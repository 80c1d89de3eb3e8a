//! One member: opens its storage, starts the library and the tasks around it.

mod housekeeping;
mod peers;

use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openraft::errors::RaftError;
use openraft::{Config, Instant as _, ServerState, SnapshotPolicy};
use tokio::sync::{oneshot, watch};

use crate::consensus::auto_compaction::{self, AutoCompaction};
use crate::consensus::figures::Figures;
use crate::consensus::identity::{Cluster, Peer};
use crate::consensus::leases::{self, LeaseAsk, LeaseError};
use crate::consensus::log_store::{LogOptions, LogStore};
use crate::consensus::log_writer::WriterKind;
use crate::consensus::mistakes::{Mistake, Mistakes};
use crate::consensus::network::{Caller, Remotes, Stranger};
use crate::consensus::proposer::{self, ProposeError, Proposer};
use crate::consensus::reader::{self, ReadError, Reader};
use crate::consensus::space::Space;
use crate::consensus::standing::Standing;
use crate::consensus::state_machine::{Progress, StateMachine};
use crate::consensus::types::{Raft, Runtime, TypeConfig};
use crate::foundation::clock::Clock;
use crate::foundation::limits::QUOTA_BYTES;
use crate::foundation::random::Random;
use crate::foundation::tasks::{DrainTimeout, Tasks, Wrap};
use crate::platform::disk::Disk;
use crate::platform::net::Net;
use crate::store::checkpoint::CheckpointError;
use crate::store::machine::Machine;
use crate::store::wal::{Sizes, WalError};
use crate::store::{Command, Outcome};

/// Bytes of log after which a checkpoint is made: what a restart has to read at most.
pub const CHECKPOINT_LOG_BYTES: u64 = 16 << 20;
/// Entries kept behind a checkpoint, so that a follower that was away shortly needs no checkpoint.
const ENTRIES_KEPT: u64 = 5_000;
/// How long a member that is alone may take to apply its log.
const REPLAY: Duration = Duration::from_mins(10);
/// Most entries in one message to a follower.
const ENTRIES_A_MESSAGE: u64 = 300;
/// How long a forwarded proposal may take at the leader.
const FORWARDED: Duration = Duration::from_secs(5);
/// Election timeouts of silence after which a leader, or a leader's quorum, counts as gone.
const SILENT_ELECTIONS: u32 = 2;
/// How long a leader that stops waits for another to take over.
const HAND_OVER: Duration = Duration::from_millis(2_500);

/// How a member is to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which of the cluster's members this is.
    pub id: u64,
    /// The members the cluster begins with; later ones are in the log.
    pub cluster: Cluster,
    /// The folder for the log and the checkpoints.
    pub folder: PathBuf,
    /// Time between a leader's signs of life, in milliseconds.
    pub heartbeat_ms: u64,
    /// Silence after which a follower stands for election, in milliseconds; up to twice of it.
    pub election_ms: u64,
    /// Where the log's writer runs.
    pub writer: WriterKind,
    /// How large segments of the log are.
    pub sizes: Sizes,
    /// Bytes of log after which a checkpoint is made.
    pub checkpoint_log_bytes: u64,
    /// Entries kept behind a checkpoint.
    pub entries_kept: u64,
    /// How many bytes the v3 keys may take; `None` for any.
    pub quota_bytes: Option<u64>,
    /// What is kept of the v3 keys' history; `None` for all that is not compacted by hand.
    pub auto_compaction: Option<AutoCompaction>,
    /// The mistake to make, if any.
    pub mistakes: Mistakes,
}

impl Options {
    /// Returns the product's options for a member.
    pub fn new(id: u64, cluster: Cluster, folder: PathBuf) -> Self {
        Self {
            id,
            cluster,
            folder,
            heartbeat_ms: 100,
            election_ms: 1_000,
            writer: WriterKind::Thread,
            sizes: Sizes::default(),
            checkpoint_log_bytes: CHECKPOINT_LOG_BYTES,
            entries_kept: ENTRIES_KEPT,
            quota_bytes: Some(QUOTA_BYTES),
            auto_compaction: None,
            mistakes: Mistakes::default(),
        }
    }

    /// Returns the library's settings; see `docs/adr/0003-openraft.md`.
    fn raft_config(&self) -> Config {
        Config {
            cluster_name: format!("{:x}", self.cluster.id),
            heartbeat_interval: self.heartbeat_ms,
            election_timeout_min: self.election_ms,
            election_timeout_max: self.election_ms * 2,
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: self.entries_kept,
            max_payload_entries: ENTRIES_A_MESSAGE,
            backoff: "50ms 100ms ..500ms".to_owned(),
            enable_pre_vote: Some(true),
            // The library's default loses acknowledged writes after a leader's loss of power.
            enable_leader_restore: Some(self.mistakes.makes(Mistake::RestoreLeader)),
            ..Config::default()
        }
    }
}

/// The world, as far as a member touches it.
#[derive(Debug, Clone)]
pub struct Seams {
    /// Connections to the others.
    pub net: Arc<dyn Net>,
    /// Where the log and the checkpoints are.
    pub disk: Arc<dyn Disk>,
    /// The time that batches get.
    pub clock: Arc<dyn Clock>,
    /// Chance, for election timeouts.
    pub random: Arc<Random>,
}

/// A member could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log cannot be used.
    #[error(transparent)]
    Log(#[from] WalError),
    /// The checkpoint cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The library refused.
    #[error("the consensus library cannot start: {why}")]
    Library {
        /// Its own words.
        why: String,
    },
}

/// Leadership was not handed over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoveError {
    /// This member does not lead.
    #[error("this member does not lead; ask the one that does")]
    NotLeader,
    /// The other is no voting member.
    #[error("the one that is to lead is no voting member of this cluster")]
    NoVoter,
    /// Nobody took it over in time.
    #[error("nobody took leadership over in time")]
    Late,
    /// The library refused.
    #[error("the consensus library does not hand over: {why}")]
    Library {
        /// Its own words.
        why: String,
    },
}

/// Where a member stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The member that leads, as far as this one knows.
    pub leader: Option<u64>,
    /// Whether this member leads.
    pub leads: bool,
    /// Whether this member stands for election.
    pub stands: bool,
    /// The term.
    pub term: u64,
    /// The index of the last entry that is known here to be agreed on.
    pub committed: u64,
    /// The index of the last entry that was applied here.
    pub applied: u64,
    /// Why this member has stopped by itself, if it has.
    pub failed: Option<String>,
}

/// A running member. Clones are the same member.
#[derive(Debug, Clone)]
pub struct Member {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    id: u64,
    raft: Raft,
    standing: Standing,
    log: LogStore,
    store: StateMachine,
    proposer: Proposer,
    reader: Reader,
    leases: Arc<leases::Means>,
    space: Space,
    caller: Arc<Caller>,
    figures: Arc<Figures>,
    /// When a leader last spoke to this member.
    heard: Mutex<Option<tokio::time::Instant>>,
    /// Why nothing more is written, where the library was not told.
    broken: Mutex<Option<String>>,
    tasks: Mutex<Option<Tasks>>,
}

/// Returns what our storage said, without what the library puts before it.
fn own_words(said: &str) -> String {
    said.rsplit_once("io::error::Error: ").map_or(said, |(_, own)| own).to_owned()
}

/// Makes the wrap that gives every task of a member its own seed for the library's random numbers.
fn seeded(random: Arc<Random>) -> Wrap {
    Arc::new(move |work| Box::pin(Runtime::scope(random.next_u64(), work)))
}

impl Member {
    /// Opens the storage and starts everything; the others may be away.
    pub async fn start(options: Options, seams: Seams) -> Result<Self, StartError> {
        let seed = seams.random.next_u64();
        Box::pin(Runtime::scope(seed, Self::start_seeded(options, seams))).await
    }

    async fn start_seeded(options: Options, seams: Seams) -> Result<Self, StartError> {
        let tasks = Tasks::wrapped(seeded(seams.random.clone()));
        let inline = options.writer == WriterKind::Task;
        let checkpoints = options.folder.join("checkpoint");
        let figures = Arc::new(Figures::new(seams.clock.now()));
        let disk = seams.disk.clone();
        let store =
            StateMachine::open(disk, &checkpoints, inline, options.quota_bytes, figures.clone())?;
        let log_options = LogOptions {
            writer: options.writer,
            sizes: options.sizes,
            mistakes: options.mistakes,
            grown_bytes: options.checkpoint_log_bytes,
            covered: store.image().position.applied.map_or(0, |id| id.index),
        };
        let folder = options.folder.join("wal");
        let log = LogStore::open(seams.disk, &folder, log_options, figures.clone(), &tasks)?;
        let caller = Arc::new(Caller {
            me: options.id,
            cluster: options.cluster.id,
            net: seams.net,
            stranger: Mutex::new(None),
            figures: figures.clone(),
        });
        let raft = start_raft(&options, caller.clone(), &log, &store).await?;
        let standing = Standing::new(options.id, &raft);
        let means = proposer::Means {
            raft: raft.clone(),
            caller: caller.clone(),
            clock: seams.clock.clone(),
            progress: store.progress(),
        };
        let proposer = Proposer::start(means, &tasks);
        let means = reader::Means {
            raft: raft.clone(),
            caller: caller.clone(),
            progress: store.progress(),
            standing: standing.clone(),
            settled_in: AtomicU64::new(0),
            mistakes: options.mistakes,
        };
        let reader = Reader::start(means, &tasks);
        let leases = Arc::new(leases::Means {
            standing: standing.clone(),
            store: store.clone(),
            proposer: proposer.clone(),
            reader: reader.clone(),
            caller: caller.clone(),
            grace: Duration::from_millis(options.election_ms),
        });
        tasks.spawn("leases", |stop| leases.clone().run(stop));
        let space = Space {
            member: options.id,
            quota_bytes: options.quota_bytes,
            store: store.clone(),
            proposer: proposer.clone(),
        };
        tasks.spawn("space", |stop| space.clone().run(stop));
        if let Some(keep) = options.auto_compaction {
            let means = auto_compaction::Means {
                raft: raft.clone(),
                store: store.clone(),
                proposer: proposer.clone(),
            };
            tasks.spawn("auto-compaction", |stop| means.run(keep, stop));
        }
        let inner = Inner {
            id: options.id,
            raft,
            standing,
            log,
            store,
            proposer,
            reader,
            leases,
            space,
            caller,
            figures,
            heard: Mutex::default(),
            broken: Mutex::default(),
            tasks: Mutex::default(),
        };
        let member = Self { inner: Arc::new(inner) };
        let log_end = member.clone();
        tasks.spawn("log-end", |stop| async move { log_end.end_with_log(stop).await });
        let leadership = member.clone();
        let clock = seams.clock.clone();
        tasks.spawn("leadership", |stop| async move { leadership.see_leaders(clock, stop).await });
        let expiry = member.clone();
        tasks.spawn("expiry", |stop| async move { expiry.expire(seams.clock, stop).await });
        let sweeping = member.clone();
        tasks.spawn("compaction", |stop| async move { sweeping.sweep(stop).await });
        let checkpoints = member.clone();
        tasks.spawn("checkpoints", |stop| async move { checkpoints.checkpoint(stop).await });
        *member.tasks() = Some(tasks);
        Ok(member)
    }

    /// Returns the term.
    pub fn term(&self) -> u64 {
        self.inner.standing.term()
    }

    /// Returns this member's number.
    pub fn id(&self) -> u64 {
        self.inner.id
    }

    /// Returns the cluster's number.
    pub fn cluster(&self) -> u64 {
        self.inner.caller.cluster
    }

    /// Has commands applied; see [`Proposer::propose`].
    pub async fn propose(
        &self,
        commands: Vec<Command>,
        deadline: Duration,
    ) -> Result<Vec<Outcome>, ProposeError> {
        let _pending = self.inner.figures.pending.enter();
        let proposed = self.inner.proposer.propose(commands, false, deadline).await;
        if proposed.is_err() {
            self.inner.figures.failed.add(1);
        }
        Ok(proposed?.outcomes)
    }

    /// Returns once a local read is not stale; see [`Reader::barrier`].
    pub async fn barrier(&self, deadline: Duration) -> Result<(), ReadError> {
        let confirmed = self.inner.reader.barrier(deadline).await;
        if confirmed.is_err() {
            self.inner.figures.reads_failed.add(1);
        }
        confirmed
    }

    /// Returns what this member counts about itself.
    pub fn figures(&self) -> &Figures {
        &self.inner.figures
    }

    /// Has the member that leads answer for a lease.
    pub async fn lease(
        &self,
        ask: LeaseAsk,
        deadline: Duration,
    ) -> Result<Option<i64>, LeaseError> {
        let leases = self.inner.leases.clone();
        let asked = async move { leases.ask(ask, deadline).await };
        self.within("lease", asked).await.unwrap_or(Err(LeaseError))
    }

    /// Returns how much room there is for the v3 keys.
    pub fn space(&self) -> &Space {
        &self.inner.space
    }

    /// Makes another member lead, and waits until it does.
    pub async fn move_leader(&self, to: u64, deadline: Duration) -> Result<(), MoveError> {
        let inner = self.inner.clone();
        let moved = async move { inner.move_leader(to, deadline).await };
        self.within("move leader", moved).await.unwrap_or(Err(MoveError::Late))
    }

    /// Does what calls the library in a task of this member, which has a seed; `None` if it stops.
    async fn within<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let (answer, wait) = oneshot::channel();
        let tasks = self.tasks().clone()?;
        tasks.spawn(name, |stop| async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                // An error means that nobody waits any more.
                done = work => drop(answer.send(done)),
            }
        });
        wait.await.ok()
    }

    /// Looks at the state that this member has applied.
    pub fn read<T>(&self, look: impl FnOnce(&Machine) -> T) -> T {
        look(&self.inner.store.image().machine)
    }

    /// Returns a channel that tells how far this member has applied.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.inner.store.progress()
    }

    /// Returns the members of the cluster as of what this member has applied.
    pub fn members(&self) -> Vec<(u64, Peer)> {
        let image = self.inner.store.image();
        image.position.membership.nodes().map(|(id, peer)| (*id, peer.clone())).collect()
    }

    /// Returns where this member stands.
    pub fn status(&self) -> Status {
        let metrics = self.inner.raft.metrics();
        let metrics = openraft::async_runtime::watch::WatchReceiver::borrow_watched(&metrics);
        let failed =
            || metrics.running_state.as_ref().err().map(|error| own_words(&error.to_string()));
        Status {
            leader: metrics.current_leader,
            leads: metrics.state == ServerState::Leader,
            stands: metrics.state == ServerState::Candidate,
            term: metrics.current_term,
            committed: metrics.local_committed.map_or(0, |id| id.index),
            applied: self.inner.store.image().position.applied.map_or(0, |id| id.index),
            failed: self.broken().clone().or_else(failed),
        }
    }

    /// Tells whether this member is of use: it has heard of its leader lately, or leads a quorum that
    /// has answered lately. One that was cut off goes on to follow or to lead, as far as it knows.
    pub fn is_led(&self) -> bool {
        let metrics = self.inner.raft.metrics();
        let metrics = openraft::async_runtime::watch::WatchReceiver::borrow_watched(&metrics);
        let lately = self.inner.leases.grace * SILENT_ELECTIONS;
        match metrics.current_leader {
            Some(leader) if leader == self.inner.id => {
                let answered = metrics.last_quorum_acked.is_some_and(|at| at.elapsed() < lately);
                answered || metrics.membership_config.voter_ids().count() == 1
            }
            Some(_) => {
                let heard = *self.inner.heard.lock().unwrap_or_else(PoisonError::into_inner);
                heard.is_some_and(|at| at.elapsed() < lately)
            }
            None => false,
        }
    }

    /// Returns the last one that answered for another cluster when this member called it.
    pub fn stranger(&self) -> Option<Stranger> {
        self.inner.caller.stranger.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the library, the log and the store, for checks from outside.
    pub fn parts(&self) -> (&Raft, &LogStore, &StateMachine) {
        (&self.inner.raft, &self.inner.log, &self.inner.store)
    }

    /// Hands leadership over if this member leads, finishes what is under way, and stops.
    pub async fn stop(&self, grace: Duration) -> Result<(), DrainTimeout> {
        let Some(tasks) = self.tasks().take() else { return Ok(()) };
        let inner = self.inner.clone();
        let hand_over = async move {
            inner.hand_over().await;
            // It was asked to end: how it ended is no longer of interest.
            drop(inner.raft.shutdown().await);
            // So is whether the log can still be written.
            drop(inner.log.settle().await);
        };
        Box::pin(Runtime::scope(0, hand_over)).await;
        tasks.drain(grace).await
    }

    fn tasks(&self) -> std::sync::MutexGuard<'_, Option<Tasks>> {
        self.inner.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn end(&self, why: String) {
        self.broken().get_or_insert(why);
        // It ends because it cannot go on: how the library ends is of no interest.
        drop(self.inner.raft.shutdown().await);
    }

    fn broken(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.inner.broken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Makes another member lead, the one whose log is the longest, and waits until it does.
    async fn hand_over(&self) {
        use openraft::async_runtime::watch::WatchReceiver as _;

        let metrics = self.raft.metrics();
        let best = {
            let metrics = metrics.borrow_watched();
            let others = metrics.replication.iter().flatten().filter(|(id, _)| **id != self.id);
            others.max_by_key(|(_, at)| **at).map(|(id, _)| *id)
        };
        let Some(best) = best.filter(|_| self.raft.is_leader()) else { return };
        match self.move_leader(best, HAND_OVER).await {
            Ok(()) => tracing::info!(to = format_args!("{best:x}"), "leadership handed over"),
            Err(error) => tracing::warn!(%error, "leadership was not handed over"),
        }
    }

    async fn move_leader(&self, to: u64, deadline: Duration) -> Result<(), MoveError> {
        if !self.raft.is_leader() {
            return Err(MoveError::NotLeader);
        }
        if !self.store.image().position.membership.voter_ids().any(|voter| voter == to) {
            return Err(MoveError::NoVoter);
        }
        if to == self.id {
            return Ok(());
        }
        let asked = self.raft.trigger().transfer_leader(to).await;
        asked.map_err(|error| MoveError::Library { why: error.to_string() })?;
        let taken = |metrics: &openraft::RaftMetrics<TypeConfig>| {
            metrics.current_leader.is_some_and(|leader| leader != self.id)
        };
        let taken = self.raft.wait(Some(deadline)).metrics(taken, "another leads").await;
        taken.map(drop).map_err(|_| MoveError::Late)
    }
}

async fn start_raft(
    options: &Options,
    caller: Arc<Caller>,
    log: &LogStore,
    store: &StateMachine,
) -> Result<Raft, StartError> {
    let library = |why: String| StartError::Library { why };
    let config = options.raft_config().validate().map_err(|error| library(error.to_string()))?;
    let started =
        Raft::new(options.id, Arc::new(config), Remotes(caller), log.clone(), store.clone()).await;
    let raft = started.map_err(|error| library(error.to_string()))?;
    let initialized = raft.is_initialized().await.map_err(|error| library(error.to_string()))?;
    if !initialized {
        let begun = raft.initialize(options.cluster.members.clone()).await;
        // An API error says that another member was first.
        if let Err(RaftError::Fatal(error)) = begun {
            return Err(library(error.to_string()));
        }
    }
    if options.cluster.members.len() == 1 {
        // Nobody else could lead: there is no need to wait for silence.
        raft.trigger().elect(false).await.map_err(|error| library(error.to_string()))?;
        // All of its log is agreed on, though the log may not say so.
        if let Some(last) = log.last_index() {
            let wait = raft.wait(Some(REPLAY));
            let applied = wait.applied_index_at_least(Some(last), "its own log").await;
            applied.map_err(|error| library(error.to_string()))?;
        }
    }
    Ok(raft)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_that_lost_power_stands_for_election_again() {
        let cluster = Cluster::parse("a=http://127.0.0.1:1", "t").unwrap();
        let options = Options::new(1, cluster, PathBuf::from("/x"));
        let config = options.raft_config().validate().unwrap();
        assert_eq!(config.enable_leader_restore, Some(false));
        assert_eq!(config.enable_pre_vote, Some(true));
    }
}
