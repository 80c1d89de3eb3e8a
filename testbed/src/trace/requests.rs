//! Does what the mix asks for, and tells the checker what came of it.

use corebox::wire::etcd::v3::etcdserverpb as pb;
use corebox::wire::etcd::v3::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use corebox::wire::etcd::v3::etcdserverpb::request_op::Request as Op;
use corebox::wire::etcd::v3::etcdserverpb::response_op::Response as OpAnswer;
use tokio::time::Instant;
use tonic::{Response, Status};

use crate::etcd::ANSWER;
use crate::etcd_v3::{Client, end_of, put, revision};
use crate::http;
use crate::trace::checker::{Found, Read, ResourceId, Written};
use crate::trace::history::{Value, Version};
use crate::trace::listing::{Listing, version};
use crate::trace::mix::{Ask, Change};
use crate::trace::report::Request;
use crate::trace::shared::ApiServer;

/// How long leases of events live, in seconds: as an apiserver's.
const TTL: i64 = 3660;

impl ApiServer {
    /// Asks what was due at some time.
    pub(super) async fn ask(self, ask: Ask, due: Instant) {
        match ask {
            Ask::Get(of, key) => self.get(of, key, due).await,
            Ask::List(of) => drop(self.list(of, due).await),
            Ask::Count(of) => self.count(of, due).await,
            Ask::Change(change) => self.change(change, due).await,
            Ask::Grant => self.grant(due).await,
            Ask::Status => self.status(due).await,
            Ask::Health => self.health(due).await,
        }
    }

    async fn get(&self, of: ResourceId, key: String, due: Instant) {
        let floor = self.known().checker.newest();
        let asked = range(&key);
        let call = |mut client: Client| async move { client.kv.range(asked).await };
        let Some(answer) = self.call(Request::Get, due, call).await else { return };
        let read = one_key(floor, &key, &answer);
        let mut known = self.known();
        known.mix.learned(of, &key, modified(&read));
        let checked = known.checker.read(of, read);
        known.judge(checked);
    }

    /// Lists a resource; returns what it found, and at which revision.
    pub(super) async fn list(
        &self,
        of: ResourceId,
        due: Instant,
    ) -> Option<(i64, Vec<(String, Version)>)> {
        let (floor, prefix) = {
            let known = self.known();
            (known.checker.newest(), known.checker.prefix(of).to_owned())
        };
        let (revision, found) = self.pages(&prefix, due).await?;
        let mut known = self.known();
        let all = Found::All(found.clone());
        let checked = known.checker.read(of, Read { floor, revision, found: all });
        known.judge(checked);
        Some((revision, found))
    }

    /// Reads all pages of a prefix.
    pub(super) async fn pages(
        &self,
        prefix: &str,
        mut due: Instant,
    ) -> Option<(i64, Vec<(String, Version)>)> {
        let mut listing = Listing::new(prefix);
        loop {
            let asked = listing.ask();
            let call = |mut client: Client| async move { client.kv.range(asked).await };
            let answer = self.call(Request::List, due, call).await?;
            match listing.take(&answer) {
                Ok(true) => return Some(listing.done()),
                Ok(false) => due = Instant::now(),
                Err(violation) => {
                    self.known().judge(Err(violation));
                    return None;
                }
            }
        }
    }

    async fn count(&self, of: ResourceId, due: Instant) {
        let (floor, prefix) = {
            let known = self.known();
            (known.checker.newest(), known.checker.prefix(of).to_owned())
        };
        let range_end = end_of(&prefix);
        let asked = pb::RangeRequest { range_end, count_only: true, ..range(&prefix) };
        let call = |mut client: Client| async move { client.kv.range(asked).await };
        let Some(answer) = self.call(Request::Count, due, call).await else { return };
        let (revision, found) = (revision(answer.header.as_ref()), Found::Count(answer.count));
        let mut known = self.known();
        let checked = known.checker.read(of, Read { floor, revision, found });
        known.judge(checked);
    }

    async fn change(&self, change: Change, due: Instant) {
        let floor = self.known().checker.newest();
        let (kind, asked) = (Request::of(&change), txn(&change));
        let call = |mut client: Client| async move { client.kv.txn(asked).await };
        let Some(answer) = self.call(kind, due, call).await else { return };
        let Change { resource, key, base, value, lease } = change;
        let revision = revision(answer.header.as_ref());
        let mut known = self.known();
        if answer.succeeded {
            known.mix.learned(resource, &key, value.as_ref().map(|_| revision));
            let value = value.map(|value| (Value::of(&value), lease));
            let checked = known.checker.wrote(resource, revision, Written { key, base, value });
            return known.judge(checked);
        }
        known.report.conflicts += 1;
        let op = answer.responses.into_iter().next().and_then(|answer| answer.response);
        let found = match op {
            Some(OpAnswer::ResponseRange(range)) => range,
            _ => pb::RangeResponse::default(),
        };
        // The header is the transaction's.
        let read = Read { revision, ..one_key(floor, &key, &found) };
        known.mix.learned(resource, &key, modified(&read));
        let checked = known.checker.conflict(resource, base, read);
        known.judge(checked);
    }

    async fn grant(&self, due: Instant) {
        let asked = pb::LeaseGrantRequest { ttl: TTL, id: 0 };
        let call = |mut client: Client| async move { client.lease.lease_grant(asked).await };
        let answer = self.call(Request::Grant, due, call).await;
        self.known().mix.granted(answer.map(|answer| answer.id));
    }

    async fn status(&self, due: Instant) {
        let call = |mut client: Client| async move {
            client.maintenance.status(pb::StatusRequest {}).await
        };
        let Some(answer) = self.call(Request::Status, due, call).await else { return };
        self.known().report.versions.insert(answer.version);
    }

    async fn health(&self, due: Instant) {
        let (_, address, _) = self.member();
        let asked = tokio::task::spawn_blocking(move || {
            let request = http::Request { method: "GET", path: "/health", body: None };
            http::ask_local(address, &request, ANSWER)
        });
        let call = |_| async move {
            match asked.await {
                Ok(Ok(answer)) if answer.status == 200 => Ok(Response::new(())),
                Ok(Ok(answer)) => Err(Status::unavailable(answer.body)),
                Ok(Err(error)) => Err(Status::unavailable(crate::error::chain(&error))),
                Err(error) => Err(Status::internal(error.to_string())),
            }
        };
        self.call(Request::Health, due, call).await;
    }
}

fn range(key: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: key.into(), ..pb::RangeRequest::default() }
}

/// What a read of one key found.
fn one_key(floor: i64, key: &str, answer: &pb::RangeResponse) -> Read {
    let found = Found::Key(key.to_owned(), answer.kvs.first().map(version));
    Read { floor, revision: revision(answer.header.as_ref()), found }
}

/// The revision of the key that was read.
fn modified(read: &Read) -> Option<i64> {
    match &read.found {
        Found::Key(_, version) => version.as_ref().map(|version| version.modified),
        Found::All(_) | Found::Count(_) => None,
    }
}

/// The transaction that changes a key on a revision, and reads it where it has another.
fn txn(change: &Change) -> pb::TxnRequest {
    let key = change.key.clone().into_bytes();
    let has_base = pb::Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key: key.clone(),
        target_union: Some(TargetUnion::ModRevision(change.base)),
        range_end: Vec::new(),
    };
    let then = match &change.value {
        Some(value) => {
            let (value, lease) = (value.clone(), change.lease);
            Op::RequestPut(pb::PutRequest { key, value, lease, ..put() })
        }
        None => Op::RequestDeleteRange(pb::DeleteRangeRequest {
            key,
            ..pb::DeleteRangeRequest::default()
        }),
    };
    let op = |request| vec![pb::RequestOp { request: Some(request) }];
    let otherwise = op(Op::RequestRange(range(&change.key)));
    pb::TxnRequest { compare: vec![has_base], success: op(then), failure: otherwise }
}
