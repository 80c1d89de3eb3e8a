//! One stream of watches of the v3 API, and what each watch was told.

use std::collections::{BTreeMap, VecDeque};

use corebox::store::mvcc::KeyRange;
use corebox::wire::etcd::v3::etcdserverpb as pb;
use corebox::wire::etcd::v3::etcdserverpb::watch_create_request::FilterType;
use corebox::wire::etcd::v3::etcdserverpb::watch_request::RequestUnion;
use corebox::wire::etcd::v3::mvccpb;
use corebox::wire::etcd::v3::mvccpb::event::EventType;
use serde_json::{Value, json};
use tonic::Status;

use crate::differential::Seen;
use crate::etcd_v3::{Client, WatchStream, revision};

/// The id of the watch that is told everything, by which it is known what others must be told.
const EVERYTHING: i64 = 0;

/// A stream of one server.
#[derive(Debug)]
pub(super) struct Watches {
    stream: WatchStream,
    by_id: BTreeMap<i64, Watch>,
    /// Answers without events, in their order.
    said: VecDeque<pb::WatchResponse>,
    /// All that changed.
    changes: Vec<mvccpb::Event>,
    /// The id of the watch that was asked for last.
    newest: i64,
}

/// A watch, and what it was told.
#[derive(Debug)]
struct Watch {
    asked: pb::WatchCreateRequest,
    /// The first revision that it is told of.
    start: i64,
    /// Whether it begins with what is compacted, and will be told so.
    doomed: bool,
    /// How many changes it should have been told, of the first so many of all.
    due: usize,
    looked_at: usize,
    /// Each answer's events, the parts of one put together.
    told: Vec<Vec<mvccpb::Event>>,
    /// Whether the last answer goes on in the next.
    unfinished: bool,
    /// How it was ended by the server.
    end: Option<Value>,
    canceled: bool,
}

impl Watches {
    /// Opens the stream, with a watch of everything.
    pub(super) async fn open(client: &Client) -> Result<Self, Status> {
        let asked = pb::WatchCreateRequest {
            key: b"\0".to_vec(),
            range_end: b"\0".to_vec(),
            ..pb::WatchCreateRequest::default()
        };
        let first = RequestUnion::CreateRequest(asked.clone());
        let stream = client.stream_with(first).await?;
        let (by_id, said, changes) = (BTreeMap::new(), VecDeque::new(), Vec::new());
        let mut watches = Self { stream, by_id, said, changes, newest: EVERYTHING };
        watches.begun(&asked, 0).await?;
        Ok(watches)
    }

    /// Begins a watch of a store whose history begins at `compacted`.
    pub(super) async fn create(
        &mut self,
        asked: &pb::WatchCreateRequest,
        compacted: i64,
    ) -> Result<Seen, Status> {
        self.stream.ask(RequestUnion::CreateRequest(asked.clone())).await;
        self.begun(asked, compacted).await
    }

    async fn begun(
        &mut self,
        asked: &pb::WatchCreateRequest,
        compacted: i64,
    ) -> Result<Seen, Status> {
        let answer = self.answer().await?;
        self.newest = answer.watch_id;
        let start = match asked.start_revision {
            0 => revision(answer.header.as_ref()) + 1,
            start => start,
        };
        if !answer.canceled {
            let watch = Watch {
                asked: asked.clone(),
                start,
                doomed: start < compacted,
                due: 0,
                looked_at: 0,
                told: Vec::new(),
                unfinished: false,
                end: None,
                canceled: false,
            };
            self.by_id.insert(answer.watch_id, watch);
        }
        Ok(Seen::body(shown(&answer)))
    }

    /// Whether the newest watch was told nothing yet.
    pub(super) fn newest_waits(&self) -> bool {
        let newest = self.by_id.get(&self.newest);
        newest.is_some_and(|watch| watch.lives() && watch.told() == 0)
    }

    /// Whether the watch with this id was ended by the server.
    pub(super) fn has_lost(&self, id: i64) -> bool {
        self.by_id.get(&id).is_some_and(|watch| watch.end.is_some())
    }

    /// Cancels the watch with this place among those that have begun; nothing, if it has ended.
    pub(super) async fn cancel(&mut self, place: usize) -> Result<Option<Seen>, Status> {
        let found = self.by_id.iter_mut().nth(place);
        let Some((id, watch)) = found.filter(|(id, watch)| **id != EVERYTHING && watch.lives())
        else {
            return Ok(None);
        };
        watch.canceled = true;
        let cancel = pb::WatchCancelRequest { watch_id: *id };
        self.stream.ask(RequestUnion::CancelRequest(cancel)).await;
        Ok(Some(Seen::body(shown(&self.answer().await?))))
    }

    /// Asks how far the stream has come.
    pub(super) async fn progress(&mut self) -> Result<Seen, Status> {
        self.stream.ask(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})).await;
        Ok(Seen::body(shown(&self.answer().await?)))
    }

    /// Waits until every watch was told what it should be of a store that has come to `revision`.
    pub(super) async fn settle(&mut self, revision: i64) -> Result<(), Status> {
        loop {
            let there = self.changes.last().map_or(1, mod_revision) >= revision;
            let late = self.by_id.iter_mut().find_map(|(id, watch)| {
                let late = !watch.has_all_of(&self.changes);
                late.then_some(*id)
            });
            if there && late.is_none() {
                return Ok(());
            }
            if let Err(status) = self.take().await {
                let id = late.unwrap_or(EVERYTHING);
                let what = self.by_id.get(&id).map(|watch| (&watch.asked, watch.due, watch.told()));
                let why = format!("{status}; not told all is the watch {id}: {what:?}");
                return Err(Status::aborted(why));
            }
        }
    }

    /// What each watch was told.
    pub(super) fn told(&self) -> impl Iterator<Item = (&i64, Seen)> {
        self.by_id.iter().map(|(id, watch)| (id, Seen::body(watch.shown())))
    }

    /// Waits for the next answer without events.
    async fn answer(&mut self) -> Result<pb::WatchResponse, Status> {
        loop {
            match self.said.pop_front() {
                Some(answer) => return Ok(answer),
                None => self.take().await?,
            }
        }
    }

    /// Waits for the next answer.
    async fn take(&mut self) -> Result<(), Status> {
        let answer = self.stream.next().await?;
        let Some(watch) = self.by_id.get_mut(&answer.watch_id).filter(|_| !answer.created) else {
            self.said.push_back(answer);
            return Ok(());
        };
        if answer.canceled && !watch.canceled {
            watch.end = Some(shown(&answer));
        } else if answer.events.is_empty() {
            self.said.push_back(answer);
        } else {
            if answer.watch_id == EVERYTHING {
                self.changes.extend(answer.events.iter().cloned());
            }
            watch.take(answer)?;
        }
        Ok(())
    }
}

impl Watch {
    fn lives(&self) -> bool {
        !self.canceled && self.end.is_none()
    }

    fn take(&mut self, answer: pb::WatchResponse) -> Result<(), Status> {
        let last = answer.events.last().map_or(0, mod_revision);
        if revision(answer.header.as_ref()) < last {
            return Err(Status::aborted(format!("told of more than its revision: {answer:?}")));
        }
        match self.told.last_mut().filter(|_| self.unfinished) {
            Some(events) => events.extend(answer.events),
            None => self.told.push(answer.events),
        }
        self.unfinished = answer.fragment;
        Ok(())
    }

    /// Tells whether it was told all that it should be.
    fn has_all_of(&mut self, changes: &[mvccpb::Event]) -> bool {
        if !self.lives() {
            return true;
        }
        let new = changes.get(self.looked_at..).unwrap_or_default();
        let (start, asked) = (self.start, &self.asked);
        self.due += new.iter().filter(|event| wants(asked, start, event)).count();
        self.looked_at = changes.len();
        !self.doomed && self.told() >= self.due
    }

    /// How many changes it was told.
    fn told(&self) -> usize {
        self.told.iter().map(Vec::len).sum()
    }

    /// All that it was told, by revision: how many revisions are in one answer does not matter, but
    /// one of them is never in two.
    fn shown(&self) -> Value {
        let mut revisions: Vec<Value> = Vec::new();
        for events in &self.told {
            let of_one = events.chunk_by(|one, next| mod_revision(one) == mod_revision(next));
            revisions.extend(of_one.map(|events| events.iter().map(event).collect()));
        }
        json!({ "revisions": revisions, "end": self.end })
    }
}

/// Tells whether a watch is to be told of an event.
fn wants(asked: &pb::WatchCreateRequest, start: i64, event: &mvccpb::Event) -> bool {
    let key: &[u8] = if asked.key.is_empty() { b"\0" } else { &asked.key };
    let unwanted = match event.r#type() {
        EventType::Put => FilterType::Noput,
        EventType::Delete => FilterType::Nodelete,
    };
    let range = KeyRange::from_wire(key, &asked.range_end);
    mod_revision(event) >= start
        && event.kv.as_ref().is_some_and(|kv| range.contains(&kv.key))
        && !asked.filters.contains(&unwanted.into())
}

fn mod_revision(event: &mvccpb::Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

fn event(event: &mvccpb::Event) -> Value {
    let shown = |kv: &mvccpb::KeyValue| {
        json!({
            "key": String::from_utf8_lossy(&kv.key),
            "create_revision": kv.create_revision,
            "mod_revision": kv.mod_revision,
            "version": kv.version,
            "value": String::from_utf8_lossy(&kv.value),
            "lease": kv.lease,
        })
    };
    json!({
        "type": event.r#type().as_str_name(),
        "kv": event.kv.as_ref().map(shown),
        "prev_kv": event.prev_kv.as_ref().map(shown),
    })
}

fn shown(answer: &pb::WatchResponse) -> Value {
    json!({
        "revision": revision(answer.header.as_ref()),
        "watch_id": answer.watch_id,
        "created": answer.created,
        "canceled": answer.canceled,
        "cancel_reason": answer.cancel_reason,
        "compact_revision": answer.compact_revision,
        "fragment": answer.fragment,
    })
}
