//! A client that watches the v3 keys: it goes on at another member wherever its stream ends, from
//! the revision it has come to. What it is told is checked by [`crate::sim::promises`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use corebox::foundation::random::Random;
use corebox::rpc::client::v3::{Client as Store, Stream};
use corebox::wire::etcd::v3::etcdserverpb as pb;
use corebox::wire::etcd::v3::etcdserverpb::watch_create_request::FilterType;
use corebox::wire::etcd::v3::etcdserverpb::watch_request::RequestUnion;
use corebox::wire::etcd::v3::mvccpb::event::EventType;

use crate::sim::kv::stores;
use crate::sim::promises::{Heard, Interest, Watch};
use crate::sim::record::Record;
use crate::sim::truth::Fact;

/// How long to listen before the store is asked how far it has come.
const LISTEN: Duration = Duration::from_millis(400);
/// How often it may say nothing before another member is asked.
const SILENCES_MAX: u32 = 3;

/// A client that watches.
#[derive(Debug)]
pub struct Watcher {
    number: u64,
    members: BTreeMap<u64, Store>,
    record: Arc<Record>,
    random: Random,
    /// The place of its watch in the record.
    at: usize,
    interest: Interest,
    /// The revision to go on from.
    next: i64,
}

impl Watcher {
    /// Makes a client; `urls` are where the members serve.
    pub fn new(
        number: u64,
        urls: &BTreeMap<u64, String>,
        record: &Arc<Record>,
        random: Random,
    ) -> Self {
        let members = stores(urls);
        let key = |key: &[u8], end: &[u8]| (key.to_vec(), end.to_vec());
        let range = match random.below(3) {
            0 => key(b"\0", b"\0"),
            1 => key(b"c", b"d"),
            _ => key(b"cboth", b""),
        };
        let interest = Interest {
            range,
            no_put: random.one_in(8),
            no_delete: random.one_in(8),
            prev: random.one_in(2),
        };
        let at =
            record.watches(Watch { client: number, interest: interest.clone(), heard: Vec::new() });
        Self { number, members, record: record.clone(), random, at, interest, next: 1 }
    }

    /// Watches until it has been told of everything up to the revision that `last` will have.
    pub async fn work(mut self, last: &AtomicI64) {
        let done = |next: i64| {
            let last = last.load(Ordering::Relaxed);
            last > 0 && next > last
        };
        while !done(self.next) {
            let member = self.random.between(1, self.members.len() as u64);
            let store = self.members[&member].clone();
            self.hear(Heard::Asked { from: self.next });
            if let Ok((requests, answers)) = store.watch(vec![self.create()]).await {
                self.listen((requests, answers), &done).await;
            }
            store.forget();
            tokio::time::sleep(Duration::from_millis(self.random.between(1, 100))).await;
        }
    }

    fn create(&self) -> pb::WatchRequest {
        let filters = [
            (self.interest.no_put, FilterType::Noput),
            (self.interest.no_delete, FilterType::Nodelete),
        ];
        let filters = filters.into_iter().filter(|(wanted, _)| *wanted);
        let create = pb::WatchCreateRequest {
            key: self.interest.range.0.clone(),
            range_end: self.interest.range.1.clone(),
            start_revision: self.next,
            filters: filters.map(|(_, filter)| filter.into()).collect(),
            prev_kv: self.interest.prev,
            ..pb::WatchCreateRequest::default()
        };
        pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
    }

    async fn listen(
        &mut self,
        stream: Stream<pb::WatchRequest, pb::WatchResponse>,
        done: &impl Fn(i64) -> bool,
    ) {
        let (requests, mut answers) = stream;
        let mut silences = 0;
        while silences < SILENCES_MAX && !done(self.next) && !self.random.one_in(40) {
            let Ok(answer) = tokio::time::timeout(LISTEN, answers.message()).await else {
                silences += 1;
                let progress = RequestUnion::ProgressRequest(pb::WatchProgressRequest {});
                let request = pb::WatchRequest { request_union: Some(progress) };
                if requests.send(request).await.is_err() {
                    return;
                }
                continue;
            };
            let Ok(Some(answer)) = answer else { return };
            silences = 0;
            if !self.take(&answer) {
                return;
            }
        }
    }

    /// Takes an answer; tells whether the watch goes on.
    fn take(&mut self, answer: &pb::WatchResponse) -> bool {
        let revision = answer.header.as_ref().map_or(0, |header| header.revision);
        if answer.canceled {
            self.hear(Heard::Lost { compacted: answer.compact_revision });
            self.next = self.next.max(answer.compact_revision);
            return false;
        }
        if answer.created {
            return true;
        }
        if answer.events.is_empty() {
            self.hear(Heard::Progress { revision });
            self.next = self.next.max(revision + 1);
            return true;
        }
        let facts = answer.events.iter().map(|event| {
            let kv = event.kv.clone().unwrap_or_default();
            let fact = Fact::told(&kv, event.r#type == i32::from(EventType::Delete));
            (fact, event.prev_kv.as_ref().map(|kv| Fact::told(kv, false)))
        });
        let facts: Vec<_> = facts.collect();
        self.next = facts.last().map_or(self.next, |(fact, _)| fact.revision + 1);
        self.hear(Heard::Events { revision, facts });
        true
    }

    fn hear(&self, heard: Heard) {
        self.record.note(self.number, format_args!("{heard:?}"));
        self.record.inner().watches[self.at].heard.push(heard);
    }
}
