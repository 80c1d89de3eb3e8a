//! The types that tie our members to the consensus library.

use std::fmt;

use openraft::type_config::alias;
use openraft_rt::deterministic_rng::DeterministicRng;
use openraft_rt_tokio::TokioRuntime;

use crate::consensus::identity::Peer;
use crate::store::checkpoint::Stored;
use crate::store::{Batch, Outcome};

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} commands", self.commands.len())
    }
}

openraft::declare_raft_types!(
    /// One leader a term, as in the Raft paper: the default leader id allows several.
    ///
    /// The runtime draws from a task-local seed, in production too.
    pub TypeConfig:
        D = Batch,
        R = Vec<Outcome>,
        NodeId = u64,
        Node = Peer,
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>,
        AsyncRuntime = Runtime,
);

/// The runtime, with random numbers that a seed decides.
pub type Runtime = DeterministicRng<TokioRuntime>;
/// One entry of the log.
pub type Entry = alias::EntryOf<TypeConfig>;
/// A place in the log.
pub type LogId = alias::LogIdOf<TypeConfig>;
/// What a member has promised.
pub type Vote = alias::VoteOf<TypeConfig>;
/// What a snapshot covers.
pub type SnapshotMeta = alias::SnapshotMetaOf<TypeConfig>;
/// A snapshot: a whole checkpoint.
pub type Snapshot = alias::SnapshotOf<TypeConfig, Stored>;
/// Who the members are.
pub type Membership = alias::StoredMembershipOf<TypeConfig>;
/// The library, over our state machine.
pub type Raft = openraft::Raft<TypeConfig, crate::consensus::state_machine::StateMachine>;
