//! Where a member stands among the others, read without a copy: what every request asks.

use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::metrics::RaftServerMetrics;
use openraft::type_config::alias::WatchReceiverOf;

use crate::consensus::identity::Peer;
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

    /// Returns the term, if this member leads in it.
    pub fn leads_in(&self) -> Option<u64> {
        leads_in(&self.metrics.borrow_watched())
    }

    /// Returns the term, if this member leads in it and is the only one there is: then nobody else
    /// can lead, or waits for a sign of life, before this member itself has taken another in.
    pub fn alone_in(&self) -> Option<u64> {
        let metrics = self.metrics.borrow_watched();
        let alone = metrics.membership_config.nodes().all(|(id, _)| *id == self.member);
        leads_in(&metrics).filter(|_| alone)
    }

    /// Returns the member that leads, if that is another.
    pub fn other_leader(&self) -> Option<Peer> {
        let metrics = self.metrics.borrow_watched();
        let leader = metrics.current_leader.filter(|leader| *leader != self.member)?;
        let mut nodes = metrics.membership_config.nodes();
        nodes.find(|(id, _)| **id == leader).map(|(_, peer)| peer.clone())
    }

    /// Waits for a change; false once there will be none.
    pub async fn changed(&mut self) -> bool {
        self.metrics.changed().await.is_ok()
    }
}

fn leads_in(metrics: &RaftServerMetrics<TypeConfig>) -> Option<u64> {
    (metrics.state == ServerState::Leader).then_some(metrics.vote.leader_id.term)
}
