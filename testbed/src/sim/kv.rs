//! A client of the v3 keys: the product's own, over gRPC. What it is told is checked when the
//! story is over, by [`crate::sim::promises`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use corebox::foundation::random::Random;
use corebox::foundation::tasks::Tasks;
use corebox::rpc::client::v3::{Client as Store, ClientError, Services, Settings};
use corebox::wire::etcd::v3::etcdserverpb as pb;
use corebox::wire::etcd::v3::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use corebox::wire::etcd::v3::etcdserverpb::request_op::Request;
use tonic::Code;

use crate::sim::net::TurmoilNet;
use crate::sim::promises::{Call, Kept, Said, Wish};
use crate::sim::record::Record;
use crate::sim::truth::Fact;

/// How long a client waits; longer than a member works on a call.
const CALL_DEADLINE: Duration = Duration::from_millis(1_200);
/// How long a connection may take.
const DIAL: Duration = Duration::from_millis(300);
/// Silence on a connection after which it is asked whether it lives, and how long it may take to say so.
const SILENCE: Duration = Duration::from_millis(700);
/// What all keys of these clients begin with, and what comes after them.
const PREFIX: (&[u8], &[u8]) = (b"c", b"d");
/// How long a lease lives, in seconds; members may give more.
const TTL: i64 = 1;

/// Makes a client of each member; `urls` are where they serve.
///
/// # Panics
///
/// Where a URL is none.
pub fn stores(urls: &BTreeMap<u64, String>) -> BTreeMap<u64, Store> {
    let tasks = Tasks::default();
    let store = |url: &String| {
        let url = url.parse().expect("the world's URLs are good");
        let settings = Settings {
            dial: DIAL,
            command: CALL_DEADLINE,
            silence: SILENCE,
            sign_of_life: SILENCE,
            ..Settings::of(vec![url])
        };
        Store::new(Arc::new(TurmoilNet), tasks.clone(), settings)
    };
    urls.iter().map(|(number, url)| (*number, store(url))).collect()
}

/// A client: one call at a time, to any member.
#[derive(Debug)]
pub struct KvClient {
    number: u64,
    members: BTreeMap<u64, Store>,
    record: Arc<Record>,
    random: Random,
    written: u64,
    /// The revision this client last saw of each key.
    known: BTreeMap<Vec<u8>, i64>,
    newest: i64,
    lease: Option<i64>,
    leases: i64,
}

impl KvClient {
    /// Makes a client; `urls` are where the members serve.
    pub fn new(
        number: u64,
        urls: &BTreeMap<u64, String>,
        record: &Arc<Record>,
        random: Random,
    ) -> Self {
        Self {
            number,
            members: stores(urls),
            record: record.clone(),
            random,
            written: 0,
            known: BTreeMap::new(),
            newest: 0,
            lease: None,
            leases: 0,
        }
    }

    /// Calls until told to stop.
    pub async fn work(mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let member = self.random.between(1, self.members.len() as u64);
            let store = self.members[&member].clone();
            if self.random.one_in(6) {
                self.keep_lease(&store).await;
            } else {
                self.call(member, &store).await;
            }
            let think = self.random.between(0, 100);
            tokio::time::sleep(Duration::from_millis(think)).await;
        }
    }

    async fn call(&mut self, member: u64, store: &Store) {
        let wish = self.wish();
        let at = self.record.begins(Call {
            client: self.number,
            member,
            life: self.record.life(member),
            wish: wish.clone(),
            said: Said::Nothing,
            start: 0,
            end: u64::MAX,
        });
        let said = ask(store, &wish).await;
        let said = said.unwrap_or_else(|error| refusal(store, &error));
        match &said {
            Said::Full => self.make_room(store).await,
            Said::Read { revision, facts } => {
                self.newest = self.newest.max(*revision);
                self.known = facts.iter().map(|fact| (fact.key.clone(), fact.revision)).collect();
            }
            Said::Done { revision } => self.newest = self.newest.max(*revision),
            Said::Differs { .. } | Said::Compacted | Said::No | Said::Nothing => {}
        }
        self.record.ends(at, said);
    }

    fn wish(&mut self) -> Wish {
        let number = usize::try_from(self.random.below(3)).unwrap_or_default();
        let key = [b"c0", b"c1", b"c2"][number].to_vec();
        match self.random.below(20) {
            0..5 => Wish::Put { key, value: self.value() },
            5..8 => {
                let found = self.known.get(&key).copied().unwrap_or(0);
                Wish::Swap { key, found, value: self.value() }
            }
            8 => Wish::Delete { key },
            9 => Wish::Compact { revision: self.newest - self.random.below(10).cast_signed() },
            10..13 => Wish::Stale,
            13..15 => Wish::Past { revision: self.newest - self.random.below(10).cast_signed() },
            _ => Wish::Read,
        }
    }

    fn value(&mut self) -> Vec<u8> {
        self.written += 1;
        format!("v{}-{}", self.number, self.written).into_bytes()
    }

    /// Does what an operator does when the keys have outgrown their quota.
    async fn make_room(&mut self, store: &Store) {
        let revision = self.newest;
        let compact = pb::CompactionRequest { revision, physical: false };
        let compacted = store.write(|mut one| async move { one.kv.compact(compact).await }).await;
        let disarm = pb::AlarmRequest {
            action: pb::alarm_request::AlarmAction::Deactivate.into(),
            member_id: 0,
            alarm: pb::AlarmType::Nospace.into(),
        };
        let disarmed =
            store.write(|mut one| async move { one.maintenance.alarm(disarm).await }).await;
        let (compacted, disarmed) = (compacted.is_ok(), disarmed.is_ok());
        self.record.note(
            self.number,
            format_args!("compacted at {revision}: {compacted}, disarmed: {disarmed}"),
        );
    }

    /// Grants a lease, or keeps the one alive that there is, or lets it end.
    async fn keep_lease(&mut self, store: &Store) {
        let start_us = now_us();
        let Some(id) = self.lease else {
            self.leases += 1;
            let id = self.number.cast_signed() * 1_000 + self.leases;
            let asked = pb::LeaseGrantRequest { id, ttl: TTL };
            let granted = store.write(|mut one| async move { one.lease.lease_grant(asked).await });
            if let Ok(granted) = granted.await {
                self.lease = Some(id);
                self.kept(Kept { id, start_us, ttl: granted.ttl });
                let key = format!("leased{id}").into_bytes();
                let put = pb::PutRequest { key, lease: id, ..pb::PutRequest::default() };
                // It lives for as long as the lease; whether it was put does not matter.
                store.write(|mut one| async move { one.kv.put(put).await }).await.ok();
            }
            return;
        };
        if self.random.one_in(5) {
            // It ends by itself.
            self.lease = None;
            return;
        }
        let asked = pb::LeaseKeepAliveRequest { id };
        let alive = async {
            let (_requests, mut answers) = store.keep_alive(asked).await.ok()?;
            answers.message().await.ok()?
        };
        if let Ok(Some(answer)) = tokio::time::timeout(CALL_DEADLINE, alive).await {
            self.kept(Kept { id, start_us, ttl: answer.ttl });
            self.lease = (answer.ttl > 0).then_some(id);
        } else {
            store.forget();
        }
    }

    fn kept(&self, kept: Kept) {
        self.record.note(self.number, format_args!("{kept:?}"));
        self.record.inner().kept.push(kept);
    }
}

/// Tells what became of what was asked.
fn refusal(store: &Store, error: &ClientError) -> Said {
    match error {
        ClientError::Unreachable { .. } => Said::No,
        ClientError::Late => {
            // The connection may be one on which nothing comes any more.
            store.forget();
            Said::Nothing
        }
        ClientError::Refused { status } => match status.code() {
            Code::OutOfRange if status.message().contains("compacted") => Said::Compacted,
            Code::ResourceExhausted if status.message().contains("space") => Said::Full,
            Code::OutOfRange
            | Code::InvalidArgument
            | Code::NotFound
            | Code::ResourceExhausted
            | Code::FailedPrecondition => Said::No,
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::DeadlineExceeded
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::Aborted
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
            | Code::Unauthenticated => Said::Nothing,
        },
    }
}

/// The simulation's time, in microseconds.
fn now_us() -> u64 {
    let elapsed = turmoil::sim_elapsed().unwrap_or_default();
    u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
}

fn range(revision: i64, serializable: bool) -> pb::RangeRequest {
    pb::RangeRequest {
        key: PREFIX.0.to_vec(),
        range_end: PREFIX.1.to_vec(),
        revision,
        serializable,
        ..pb::RangeRequest::default()
    }
}

fn put(key: &[u8], value: &[u8]) -> pb::RequestOp {
    let (key, value) = (key.to_vec(), value.to_vec());
    let put = pb::PutRequest { key, value, ..pb::PutRequest::default() };
    pb::RequestOp { request: Some(Request::RequestPut(put)) }
}

fn revision(header: Option<&pb::ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}

async fn ask(store: &Store, wish: &Wish) -> Result<Said, ClientError> {
    match wish {
        Wish::Read => read(store, range(0, false)).await,
        Wish::Stale => read(store, range(0, true)).await,
        Wish::Past { revision } => read(store, range(*revision, false)).await,
        Wish::Put { key, value } => {
            // The other key goes with it, in one revision.
            let success = vec![put(key, value), put(b"cboth", value)];
            txn(store, pb::TxnRequest { success, ..pb::TxnRequest::default() }).await
        }
        Wish::Swap { key, found, value } => {
            let compare = pb::Compare {
                result: CompareResult::Equal.into(),
                target: CompareTarget::Mod.into(),
                key: key.clone(),
                range_end: Vec::new(),
                target_union: Some(TargetUnion::ModRevision(*found)),
            };
            let (compare, success) = (vec![compare], vec![put(key, value)]);
            txn(store, pb::TxnRequest { compare, success, ..pb::TxnRequest::default() }).await
        }
        Wish::Delete { key } => {
            let delete = pb::DeleteRangeRequest { key: key.clone(), ..Default::default() };
            let answer =
                store.write(|mut one| async move { one.kv.delete_range(delete).await }).await?;
            let revision = revision(answer.header.as_ref());
            Ok(if answer.deleted > 0 {
                Said::Done { revision }
            } else {
                Said::Differs { revision }
            })
        }
        Wish::Compact { revision: at } => {
            let compact = pb::CompactionRequest { revision: *at, physical: false };
            store.write(|mut one| async move { one.kv.compact(compact).await }).await?;
            Ok(Said::Done { revision: *at })
        }
    }
}

async fn read(store: &Store, range: pb::RangeRequest) -> Result<Said, ClientError> {
    let answer = store.write(|mut one: Services| async move { one.kv.range(range).await }).await?;
    let revision = revision(answer.header.as_ref());
    Ok(Said::Read { revision, facts: answer.kvs.iter().map(|kv| Fact::told(kv, false)).collect() })
}

async fn txn(store: &Store, txn: pb::TxnRequest) -> Result<Said, ClientError> {
    let answer = store.write(|mut one: Services| async move { one.kv.txn(txn).await }).await?;
    let revision = revision(answer.header.as_ref());
    Ok(if answer.succeeded { Said::Done { revision } } else { Said::Differs { revision } })
}
