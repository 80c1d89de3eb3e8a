//! The watches of one stream: what each wants, and where in the history it stands. Pure.
//!
//! A watch has no queue: it goes on from a revision, so being slow costs nothing.

use std::collections::BTreeMap;
use std::ops::Bound;

use prost::Message as _;

use crate::foundation::limits::{WATCH_BYTES_MAX, WATCH_EVENTS_MAX, WATCHES_MAX};
use crate::rpc::server::v3::MESSAGE_BYTES_MAX;
use crate::rpc::server::v3::errors::COMPACTED;
use crate::store::keys_v3::answer;
use crate::store::mvcc::events::FollowBudget;
use crate::store::mvcc::{Event, EventFilter, KeyRange, MvccError, View};
use crate::wire::etcd::v3::etcdserverpb as pb;
use crate::wire::etcd::v3::etcdserverpb::watch_create_request::FilterType;

/// The id of an answer that is about no watch of the stream, or about all of them.
pub(super) const NO_WATCH: i64 = -1;

/// How much is done for one watch before the next has its turn.
const TURN: FollowBudget =
    FollowBudget { scanned_max: WATCH_EVENTS_MAX, bytes_max: WATCH_BYTES_MAX };

/// The watches of a stream, by their ids.
#[derive(Debug, Default)]
pub(super) struct Watches {
    by_id: BTreeMap<i64, Watch>,
    next_id: i64,
    /// The watch that had its turn last.
    last: i64,
}

#[derive(Debug)]
struct Watch {
    range: KeyRange<Box<[u8]>>,
    filter: EventFilter,
    prev_kv: bool,
    fragment: bool,
    /// The revision to go on from.
    next: i64,
    /// Of a watch that wants to be told when it is idle: whether something was said since the last
    /// time that idle watches were told.
    spoke: Option<bool>,
}

/// What a part of the work was.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// Every watch has all there is.
    Idle,
    /// A watch went on, and there is nothing to tell.
    Quiet,
    /// There is this to tell.
    Tell(Vec<pb::WatchResponse>),
}

impl Watches {
    /// Adds a watch of a store at `revision`, or says why not.
    pub(super) fn create(
        &mut self,
        asked: &pb::WatchCreateRequest,
        revision: i64,
    ) -> pb::WatchResponse {
        let refused = |why: &str| pb::WatchResponse {
            canceled: true,
            cancel_reason: why.to_owned(),
            ..about(NO_WATCH, revision, true)
        };
        let key: &[u8] = if asked.key.is_empty() { b"\0" } else { &asked.key };
        let range = KeyRange::from_wire(key, &asked.range_end);
        if range.is_empty() {
            return refused("mvcc: watcher range is empty");
        }
        if asked.start_revision < 0 {
            return refused(COMPACTED);
        }
        if asked.watch_id != 0 && self.by_id.contains_key(&asked.watch_id) {
            return refused("mvcc: duplicate watch ID provided on the WatchStream");
        }
        if self.by_id.len() >= WATCHES_MAX {
            return refused("corebox: the stream has as many watches as it can have; open another");
        }
        let id = if asked.watch_id == 0 { self.free_id() } else { asked.watch_id };
        let has = |filter: FilterType| asked.filters.contains(&filter.into());
        let watch = Watch {
            range: range.to_owned(),
            filter: EventFilter {
                no_put: has(FilterType::Noput),
                no_delete: has(FilterType::Nodelete),
            },
            prev_kv: asked.prev_kv,
            fragment: asked.fragment,
            next: if asked.start_revision == 0 { revision + 1 } else { asked.start_revision },
            spoke: asked.progress_notify.then_some(true),
        };
        self.by_id.insert(id, watch);
        about(id, revision, true)
    }

    fn free_id(&mut self) -> i64 {
        while self.by_id.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    /// Ends a watch; of one that is not there nothing is said.
    pub(super) fn cancel(&mut self, id: i64, revision: i64) -> Option<pb::WatchResponse> {
        self.by_id.remove(&id)?;
        Some(pb::WatchResponse { canceled: true, ..about(id, revision, false) })
    }

    /// Does the part of the work that is next: the watches take turns.
    pub(super) fn step(&mut self, view: &View) -> Step {
        let revision = view.revision();
        let after = self.by_id.range((Bound::Excluded(self.last), Bound::Unbounded));
        let mut in_turn = after.chain(self.by_id.range(..=self.last));
        let behind = in_turn.find(|(_, watch)| watch.next <= revision).map(|(id, _)| *id);
        let Some(id) = behind else { return Step::Idle };
        self.last = id;
        let Some(watch) = self.by_id.get_mut(&id) else { return Step::Quiet };
        match view.follow(watch.next, &watch.range, watch.filter, TURN) {
            Ok(followed) => {
                watch.next = followed.next;
                if followed.events.is_empty() {
                    return Step::Quiet;
                }
                watch.spoke = watch.spoke.map(|_| true);
                Step::Tell(watch.tell(id, &followed.events))
            }
            Err(error) => {
                self.by_id.remove(&id);
                Step::Tell(vec![lost(id, error)])
            }
        }
    }

    /// Says how far all watches have come, if all have come as far as the store.
    pub(super) fn progress(&self, revision: i64) -> Option<pb::WatchResponse> {
        let here = |watch: &Watch| watch.next == revision + 1;
        self.by_id.values().all(here).then(|| about(NO_WATCH, revision, false))
    }

    /// Tells whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Tells the watches that asked for it how far they have come, if they were told nothing since
    /// this was called last.
    pub(super) fn tell_idle(&mut self, revision: i64) -> Vec<pb::WatchResponse> {
        let idle = self.by_id.iter_mut().filter_map(|(id, watch)| {
            let spoke = std::mem::take(watch.spoke.as_mut()?);
            (!spoke && watch.next == revision + 1).then(|| about(*id, revision, false))
        });
        idle.collect()
    }
}

impl Watch {
    /// Makes the answers with some events: one, or as many as their bytes need.
    fn tell(&self, id: i64, events: &[Event]) -> Vec<pb::WatchResponse> {
        let mut told = Vec::new();
        let mut bytes = 0;
        for event in events {
            let event = answer::event(event, self.prev_kv);
            let length = event.encoded_len();
            if told.is_empty() || (self.fragment && bytes + length > FRAGMENT_BYTES_MAX) {
                told.push(about(id, self.next - 1, false));
                bytes = 0;
            }
            bytes += length;
            if let Some(answer) = told.last_mut() {
                answer.events.push(event);
            }
        }
        let last = told.len().saturating_sub(1);
        for answer in &mut told[..last] {
            answer.fragment = true;
        }
        told
    }
}

/// Most bytes of events in one part of an answer that may come in parts, which leaves room for what
/// is around them.
const FRAGMENT_BYTES_MAX: usize = MESSAGE_BYTES_MAX - 1024;

/// Makes an answer about a watch when the store was at a revision.
fn about(watch_id: i64, revision: i64, created: bool) -> pb::WatchResponse {
    let header = pb::ResponseHeader { revision, ..pb::ResponseHeader::default() };
    let header = Some(header);
    pb::WatchResponse { header, watch_id, created, ..pb::WatchResponse::default() }
}

/// Says that a watch wants what is compacted. As etcd's, the header has no revision: the watch has
/// come to none.
fn lost(id: i64, error: MvccError) -> pb::WatchResponse {
    // Nothing else is refused of one who follows.
    let MvccError::Compacted { compact_revision } = error else {
        return pb::WatchResponse { canceled: true, ..about(id, 0, false) };
    };
    pb::WatchResponse { canceled: true, compact_revision, ..about(id, 0, false) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::mvcc::{DeleteRange, Op, Put, Store};
    use crate::wire::etcd::v3::mvccpb;

    fn put(store: &mut Store, key: &[u8], value: &[u8]) {
        store.op(&Op::Put(Put { key, value, ..Put::default() })).unwrap();
    }

    fn delete(store: &mut Store, key: &[u8]) {
        let range = KeyRange::One(key);
        store.op(&Op::DeleteRange(DeleteRange { range, prev_kv: false })).unwrap();
    }

    fn asked(key: &[u8], start_revision: i64) -> pb::WatchCreateRequest {
        pb::WatchCreateRequest { key: key.to_vec(), start_revision, ..Default::default() }
    }

    /// Steps until all is told: what was told, as watch, revision, keys.
    fn told(watches: &mut Watches, store: &Store) -> Vec<(i64, i64, Vec<String>)> {
        let mut all = Vec::new();
        loop {
            match watches.step(&store.view()) {
                Step::Idle => return all,
                Step::Quiet => {}
                Step::Tell(answers) => all.extend(answers.iter().map(shown)),
            }
        }
    }

    fn shown(answer: &pb::WatchResponse) -> (i64, i64, Vec<String>) {
        let key = |event: &mvccpb::Event| {
            let kv = event.kv.clone().unwrap();
            format!("{}@{}", String::from_utf8(kv.key).unwrap(), kv.mod_revision)
        };
        let revision = answer.header.as_ref().unwrap().revision;
        (answer.watch_id, revision, answer.events.iter().map(key).collect())
    }

    #[test]
    fn a_watch_is_told_the_past_and_the_future_once() {
        let mut store = Store::default();
        put(&mut store, b"a", b"1");
        put(&mut store, b"b", b"1");
        let mut watches = Watches::default();
        assert_eq!(watches.create(&asked(b"a", 1), 3).watch_id, 0);
        assert_eq!(told(&mut watches, &store), [(0, 3, vec!["a@2".to_owned()])]);
        put(&mut store, b"a", b"2");
        delete(&mut store, b"a");
        let both = vec!["a@4".to_owned(), "a@5".to_owned()];
        assert_eq!(told(&mut watches, &store), [(0, 5, both)]);
        assert_eq!(told(&mut watches, &store), []);
    }

    #[test]
    fn what_cannot_be_watched_is_refused_in_the_words_of_etcd() {
        let mut watches = Watches::default();
        assert!(
            !watches.create(&pb::WatchCreateRequest { watch_id: 7, ..asked(b"a", 0) }, 1).canceled
        );
        let backwards = pb::WatchCreateRequest { range_end: b"a".into(), ..asked(b"b", 0) };
        let twice = pb::WatchCreateRequest { watch_id: 7, ..asked(b"a", 0) };
        for (request, reason) in [
            (backwards, "mvcc: watcher range is empty"),
            (asked(b"a", -1), "mvcc: required revision has been compacted"),
            (twice, "mvcc: duplicate watch ID provided on the WatchStream"),
        ] {
            let answer = watches.create(&request, 1);
            assert_eq!(answer.cancel_reason, reason);
            assert!(answer.created && answer.canceled);
            assert_eq!(answer.watch_id, NO_WATCH);
        }
    }

    #[test]
    fn an_id_that_a_client_chose_is_skipped() {
        let mut watches = Watches::default();
        watches.create(&pb::WatchCreateRequest { watch_id: 1, ..asked(b"a", 0) }, 1);
        let ids = [0, 2].map(|_| watches.create(&asked(b"a", 0), 1).watch_id);
        assert_eq!(ids, [0, 2]);
        assert_eq!(watches.cancel(9, 1), None);
        assert!(watches.cancel(1, 1).unwrap().canceled);
    }

    #[test]
    fn a_watch_of_what_is_compacted_ends_with_the_revision_of_the_compaction() {
        let mut store = Store::default();
        for value in [b"1", b"2", b"3"] {
            put(&mut store, b"a", value);
        }
        store.compact(3).unwrap();
        let mut watches = Watches::default();
        watches.create(&asked(b"a", 2), 4);
        watches.create(&asked(b"a", 3), 4);
        let Step::Tell(answers) = watches.step(&store.view()) else { panic!("nothing told") };
        // The second has its turn first: the last turn counts as that of the id 0.
        assert_eq!(shown(&answers[0]).2, ["a@3", "a@4"]);
        let Step::Tell(answers) = watches.step(&store.view()) else { panic!("nothing told") };
        assert!(answers[0].canceled);
        assert_eq!((answers[0].watch_id, answers[0].compact_revision), (0, 3));
        assert_eq!(shown(&answers[0]).1, 0);
        assert_eq!(watches.step(&store.view()), Step::Idle);
    }

    #[test]
    fn progress_is_told_when_every_watch_is_there() {
        let mut store = Store::default();
        put(&mut store, b"a", b"1");
        let mut watches = Watches::default();
        watches.create(&asked(b"a", 0), 2);
        assert_eq!(watches.progress(2).map(|answer| answer.watch_id), Some(NO_WATCH));
        watches.create(&asked(b"a", 1), 2);
        assert_eq!(watches.progress(2), None, "one has not been told the past");
        told(&mut watches, &store);
        assert!(watches.progress(2).is_some());
        watches.create(&asked(b"a", 9), 2);
        assert_eq!(watches.progress(2), None, "one begins in the future");
    }

    #[test]
    fn only_idle_watches_are_told_by_themselves() {
        let mut store = Store::default();
        let mut watches = Watches::default();
        let notify = pb::WatchCreateRequest { progress_notify: true, ..asked(b"a", 0) };
        watches.create(&notify, 1);
        watches.create(&asked(b"a", 0), 1);
        assert_eq!(watches.tell_idle(1), [], "it was just created");
        assert_eq!(watches.tell_idle(1).len(), 1);
        put(&mut store, b"a", b"1");
        assert_eq!(watches.tell_idle(2), [], "it has not been told all");
        told(&mut watches, &store);
        assert_eq!(watches.tell_idle(2), [], "it was told something");
        assert_eq!(watches.tell_idle(2).iter().map(shown).collect::<Vec<_>>(), [(0, 2, vec![])]);
    }

    #[test]
    fn a_filter_drops_events_and_the_rest_comes_with_what_was_before() {
        let mut store = Store::default();
        let mut watches = Watches::default();
        let no_put = pb::WatchCreateRequest {
            filters: vec![FilterType::Noput.into()],
            prev_kv: true,
            ..asked(b"a", 0)
        };
        watches.create(&no_put, 1);
        put(&mut store, b"a", b"1");
        assert_eq!(told(&mut watches, &store), []);
        delete(&mut store, b"a");
        let Step::Tell(answers) = watches.step(&store.view()) else { panic!("nothing told") };
        let event = &answers[0].events[0];
        assert_eq!(event.r#type(), mvccpb::event::EventType::Delete);
        assert_eq!(event.prev_kv.as_ref().unwrap().value, b"1");
    }

    #[test]
    fn a_large_answer_comes_in_parts_if_that_is_allowed() {
        let mut store = Store::default();
        let mut watches = Watches::default();
        watches.create(&pb::WatchCreateRequest { fragment: true, ..asked(b"a", 0) }, 1);
        let large = vec![b'x'; 1_200_000];
        put(&mut store, b"a", b"small");
        put(&mut store, b"a", &large[..1_000_000]);
        put(&mut store, b"a", &large);
        let Step::Tell(answers) = watches.step(&store.view()) else { panic!("nothing told") };
        assert_eq!(answers.iter().map(|answer| answer.events.len()).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(answers.iter().map(|answer| answer.fragment).collect::<Vec<_>>(), [true, false]);
    }
}
