//! Where a member stands among the others, read without a copy: what every request asks.

use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::metrics::RaftServerMetrics;
use openraft::type_config::alias::WatchReceiverOf;

use crate::consensus::types::{Raft, TypeConfig};

/// Where one member stands. Clones tell the same.
#[derive(Clone)]
pub struct Standing {
    member: u64,
    metrics: WatchReceiverOf<TypeConfig, RaftServerMetrics<TypeConfig>>,
}

impl std::fmt::Debug for Standing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Standing").field("term", &self.term()).finish_non_exhaustive()
    }
}

impl Standing {
    /// Looks at where `member`, which is that of `raft`, stands.
    pub fn new(member: u64, raft: &Raft) -> Self {
        Self { member, metrics: raft.server_metrics() }
    }

    /// Returns the term.
    pub fn term(&self) -> u64 {
        self.metrics.borrow_watched().vote.leader_id.term
    }

    /// Returns the member that leads, as far as this one knows.
    pub fn leader(&self) -> Option<u64> {
        self.metrics.borrow_watched().current_leader
    }

    /// Returns the term, if this member leads in it and is the only one there is: then nobody else
    /// can lead, or waits for a sign of life, before this member itself has taken another in.
    pub fn alone_in(&self) -> Option<u64> {
        let metrics = self.metrics.borrow_watched();
        let leads = metrics.state == ServerState::Leader;
        let alone = metrics.membership_config.nodes().all(|(id, _)| *id == self.member);
        (leads && alone).then_some(metrics.vote.leader_id.term)
    }

    /// Waits for a change; false once there will be none.
    pub async fn changed(&mut self) -> bool {
        self.metrics.changed().await.is_ok()
    }
}
