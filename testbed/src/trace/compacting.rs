//! Compaction as apiservers agree on it: who moves the version of one key compacts, to where the
//! store was a round ago.

use std::time::Duration;

use corebox::wire::etcd::v3::etcdserverpb as pb;
use corebox::wire::etcd::v3::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use corebox::wire::etcd::v3::etcdserverpb::request_op::Request as Op;
use corebox::wire::etcd::v3::etcdserverpb::response_op::Response as OpAnswer;
use tokio::time::Instant;

use crate::etcd_v3::{Client, put, revision};
use crate::trace::mix::Mix;
use crate::trace::report::Request;
use crate::trace::shared::ApiServer;

/// Compacts in rounds, for as long as it is let.
pub(super) async fn keep(server: ApiServer, every: Duration) {
    let mut rounds = tokio::time::interval_at(Instant::now() + every, every);
    let mut compactor = Compactor { version: 0, revision: 0 };
    loop {
        let due = rounds.tick().await;
        compactor.round(&server, due).await;
    }
}

/// What a compactor knew after its last round.
#[derive(Debug, Clone, Copy)]
struct Compactor {
    /// Of the key by which they agree.
    version: i64,
    /// Of the store.
    revision: i64,
}

impl Compactor {
    async fn round(&mut self, server: &ApiServer, due: Instant) {
        let asked = agree(*self);
        let call = |mut client: Client| async move { client.kv.txn(asked).await };
        let Some(answer) = server.call(Request::Agree, due, call).await else { return };
        let before = std::mem::replace(&mut self.revision, revision(answer.header.as_ref()));
        if !answer.succeeded {
            self.version = version_in(answer);
            return;
        }
        let checked = server.known().checker.compactor_won(self.version);
        server.known().judge(checked);
        self.version += 1;
        if before == 0 {
            return;
        }
        let asked = pb::CompactionRequest { revision: before, physical: false };
        let call = |mut client: Client| async move { client.kv.compact(asked).await };
        server.call(Request::Compact, Instant::now(), call).await;
    }
}

/// The transaction that moves the key's version if it is still known, and reads it otherwise.
fn agree(known: Compactor) -> pb::TxnRequest {
    let key = Mix::compactors_key().into_bytes();
    let is_known = pb::Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Version.into(),
        key: key.clone(),
        target_union: Some(TargetUnion::Version(known.version)),
        range_end: Vec::new(),
    };
    let value = known.revision.to_string().into_bytes();
    let put = Op::RequestPut(pb::PutRequest { key: key.clone(), value, ..put() });
    let get = Op::RequestRange(pb::RangeRequest { key, ..pb::RangeRequest::default() });
    let op = |request| vec![pb::RequestOp { request: Some(request) }];
    pb::TxnRequest { compare: vec![is_known], success: op(put), failure: op(get) }
}

/// The version of the key in the answer of who did not move it.
fn version_in(answer: pb::TxnResponse) -> i64 {
    match answer.responses.into_iter().next().and_then(|answer| answer.response) {
        Some(OpAnswer::ResponseRange(range)) => range.kvs.first().map_or(0, |kv| kv.version),
        _ => 0,
    }
}
