//! The watches of one stream: what each wants, and where in the history it stands. Pure.
//!
//! A watch has no queue: it goes on from a revision, so being slow costs nothing.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use crate::foundation::limits::{WATCH_BYTES_MAX, WATCH_EVENTS_MAX, WATCHES_MAX};
use crate::rpc::server::v3::errors::COMPACTED;
use crate::rpc::server::v3::frames::{BURST_BYTES, Frames, How, Told};
use crate::store::mvcc::events::FollowBudget;
use crate::store::mvcc::{EventFilter, KeyRange, MvccError, View};
use crate::wire::etcd::v3::etcdserverpb as pb;
use crate::wire::etcd::v3::etcdserverpb::watch_create_request::FilterType;

/// The id of an answer that is about no watch of the stream, or about all of them.
pub(super) const NO_WATCH: i64 = -1;

/// How much is done for one watch before the next has its turn.
const TURN: FollowBudget =
    FollowBudget { scanned_max: WATCH_EVENTS_MAX, bytes_max: WATCH_BYTES_MAX };

/// How often the history is followed in one burst of turns. A watch that stands where another like
/// it stood is told the same: that costs nearly nothing, and is not counted.
const BURST_FOLLOWS: usize = 32;

/// The watches of a stream, by their ids.
#[derive(Debug, Default)]
pub(super) struct Watches {
    by_id: BTreeMap<i64, Watch>,
    /// What they watch, each once.
    wants: BTreeSet<Arc<Want>>,
    next_id: i64,
    /// The watch that had its turn last.
    last: i64,
}

#[derive(Debug)]
struct Watch {
    want: Arc<Want>,
    /// The revision to go on from.
    next: i64,
    /// Of a watch that wants to be told when it is idle: whether something was said since the last
    /// time that idle watches were told.
    spoke: Option<bool>,
}

/// What a watch wants to be told, and how: watches that want the same have the same.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Want {
    range: KeyRange<Box<[u8]>>,
    filter: EventFilter,
    how: How,
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
        let want = self.want(Want {
            range: range.to_owned(),
            filter: EventFilter {
                no_put: has(FilterType::Noput),
                no_delete: has(FilterType::Nodelete),
            },
            how: How { prev_kv: asked.prev_kv, in_parts: asked.fragment },
        });
        let watch = Watch {
            want,
            next: if asked.start_revision == 0 { revision + 1 } else { asked.start_revision },
            spoke: asked.progress_notify.then_some(true),
        };
        self.by_id.insert(id, watch);
        about(id, revision, true)
    }

    /// Returns what a watch wants, shared with those that want the same.
    fn want(&mut self, want: Want) -> Arc<Want> {
        if let Some(same) = self.wants.get(&want) {
            return same.clone();
        }
        let want = Arc::new(want);
        self.wants.insert(want.clone());
        want
    }

    fn remove(&mut self, id: i64) -> Option<Watch> {
        let watch = self.by_id.remove(&id)?;
        // Nobody else has it but the set.
        if Arc::strong_count(&watch.want) == 2 {
            self.wants.remove(&watch.want);
        }
        Some(watch)
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
        self.remove(id)?;
        Some(pb::WatchResponse { canceled: true, ..about(id, revision, false) })
    }

    /// Does the part of the work that is next: those watches have a turn that are behind, one after
    /// the other, until there is enough to send. Tells whether they have all there is.
    ///
    /// `who` is what answers have of the member that answers.
    pub(super) fn burst(
        &mut self,
        view: &View,
        who: pb::ResponseHeader,
        frames: &mut Frames,
    ) -> bool {
        let mut burst = Burst { view, who, told: BTreeMap::new(), follows: 0 };
        let mut lost = Vec::new();
        let done = self.turns(&mut burst, frames, &mut lost);
        for id in lost {
            self.remove(id);
        }
        done
    }

    fn turns(&mut self, burst: &mut Burst<'_>, frames: &mut Frames, lost: &mut Vec<i64>) -> bool {
        let (revision, enough) = (burst.view.revision(), frames.len() + BURST_BYTES);
        let mut done = true;
        let after = (Bound::Excluded(self.last), Bound::Unbounded);
        let up_to = (Bound::Unbounded, Bound::Included(self.last));
        for part in [after, up_to] {
            for (&id, watch) in self.by_id.range_mut(part) {
                if watch.next > revision {
                    continue;
                }
                if frames.len() >= enough || burst.follows >= BURST_FOLLOWS {
                    return false;
                }
                self.last = id;
                match burst.follow(watch) {
                    Ok((told, next)) => {
                        watch.next = *next;
                        done &= watch.next > revision;
                        if !told.is_empty() {
                            watch.spoke = watch.spoke.map(|_| true);
                            frames.tell(id, told);
                        }
                    }
                    Err(error) => {
                        lost.push(id);
                        frames.answer(&burst.lost(id, error));
                    }
                }
            }
        }
        done
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

/// Turns that are taken together: of one moment, and without doing twice what is the same.
struct Burst<'a> {
    view: &'a View,
    who: pb::ResponseHeader,
    /// What was told already, and to where that came: by whom it is wanted, from where on.
    told: BTreeMap<(*const Want, i64), (Told, i64)>,
    follows: usize,
}

impl Burst<'_> {
    /// Returns what a watch is to be told, and where it stands then.
    fn follow(&mut self, watch: &Watch) -> Result<&(Told, i64), MvccError> {
        let Want { range, filter, how } = &*watch.want;
        match self.told.entry((Arc::as_ptr(&watch.want), watch.next)) {
            Entry::Occupied(same) => Ok(same.into_mut()),
            Entry::Vacant(new) => {
                self.follows += 1;
                let followed = self.view.follow(watch.next, range, *filter, TURN)?;
                let header = pb::ResponseHeader { revision: followed.next - 1, ..self.who };
                let told = Told::new(self.view, &header, &followed.events, *how);
                Ok(new.insert((told, followed.next)))
            }
        }
    }

    /// Says that a watch wants what is compacted. As etcd's, the header has no revision: the watch
    /// has come to none.
    fn lost(&self, id: i64, error: MvccError) -> pb::WatchResponse {
        let mut answer = about(id, 0, false);
        answer.canceled = true;
        // Nothing else is refused of one who follows.
        if let MvccError::Compacted { compact_revision } = error {
            answer.compact_revision = compact_revision;
        }
        answer.header = Some(pb::ResponseHeader { revision: 0, ..self.who });
        answer
    }
}

/// Makes an answer about a watch when the store was at a revision.
fn about(watch_id: i64, revision: i64, created: bool) -> pb::WatchResponse {
    let header = pb::ResponseHeader { revision, ..pb::ResponseHeader::default() };
    let header = Some(header);
    pb::WatchResponse { header, watch_id, created, ..pb::WatchResponse::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::server::v3::frames::tests::read;
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

    /// Takes turns until all is told: what was told.
    fn answers(watches: &mut Watches, store: &Store) -> Vec<pb::WatchResponse> {
        let (mut frames, mut all) = (Frames::default(), Vec::new());
        let mut done = false;
        while !done {
            done = watches.burst(&store.view(), who(), &mut frames);
            all.extend(read(&mut frames));
        }
        for answer in &all {
            let header = answer.header.unwrap();
            assert_eq!(pb::ResponseHeader { revision: 0, ..header }, who());
        }
        all
    }

    fn who() -> pb::ResponseHeader {
        pb::ResponseHeader { cluster_id: 1, member_id: 2, revision: 0, raft_term: 3 }
    }

    /// The same, as watch, revision, keys.
    fn told(watches: &mut Watches, store: &Store) -> Vec<(i64, i64, Vec<String>)> {
        answers(watches, store).iter().map(shown).collect()
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
        let answers = answers(&mut watches, &store);
        // The second has its turn first: the last turn counts as that of the id 0.
        assert_eq!(shown(&answers[0]).2, ["a@3", "a@4"]);
        assert!(answers[1].canceled);
        assert_eq!((answers[1].watch_id, answers[1].compact_revision), (0, 3));
        assert_eq!(shown(&answers[1]).1, 0);
        assert_eq!(answers.len(), 2);
        assert_eq!(watches.by_id.keys().collect::<Vec<_>>(), [&1]);
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
    fn watches_that_are_alike_are_told_the_same_by_turns() {
        let mut store = Store::default();
        let mut watches = Watches::default();
        for _ in 0..1000 {
            watches.create(&asked(b"a", 0), 1);
        }
        assert_eq!(watches.wants.len(), 1);
        put(&mut store, b"a", &[b'x'; 1000]);
        let mut frames = Frames::default();
        assert!(!watches.burst(&store.view(), who(), &mut frames), "not all at once");
        assert!((BURST_BYTES..BURST_BYTES + 2000).contains(&frames.len()));
        let mut all: Vec<_> = read(&mut frames).iter().map(shown).collect();
        all.extend(told(&mut watches, &store));
        let same = |id| (id, 2, vec!["a@2".to_owned()]);
        assert_eq!(all, (1..1000).chain([0]).map(same).collect::<Vec<_>>());
        for id in 0..1000 {
            watches.cancel(id, 2).unwrap();
        }
        assert!(watches.wants.is_empty());
    }

    #[test]
    fn watches_that_differ_are_told_what_each_wants() {
        let mut store = Store::default();
        put(&mut store, b"a", b"1");
        put(&mut store, b"a", b"2");
        let mut watches = Watches::default();
        let later = asked(b"a", 3);
        let before = pb::WatchCreateRequest { prev_kv: true, ..later.clone() };
        let other = asked(b"b", 3);
        for request in [&later, &before, &other, &asked(b"a", 2), &asked(b"a", 4), &before] {
            watches.create(request, 3);
        }
        let answers = answers(&mut watches, &store);
        let (first, last) = (vec!["a@2".to_owned(), "a@3".to_owned()], vec!["a@3".to_owned()]);
        assert_eq!(
            answers.iter().map(shown).collect::<Vec<_>>(),
            [(1, 3, last.clone()), (3, 3, first), (5, 3, last.clone()), (0, 3, last)]
        );
        let has = |answer: &pb::WatchResponse| answer.events[0].prev_kv.is_some();
        assert_eq!(answers.iter().map(has).collect::<Vec<_>>(), [true, false, true, false]);
    }

    #[test]
    fn a_burst_does_not_follow_more_than_it_should() {
        let mut store = Store::default();
        let mut watches = Watches::default();
        for number in 0..=u8::try_from(BURST_FOLLOWS).unwrap() {
            watches.create(&asked(&[number + 1], 0), 1);
        }
        put(&mut store, b"nobody's", b"1");
        let mut frames = Frames::default();
        assert!(!watches.burst(&store.view(), who(), &mut frames));
        assert!(watches.burst(&store.view(), who(), &mut frames));
        assert_eq!(frames.len(), 0);
        assert!(watches.progress(2).is_some());
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
        let answers = answers(&mut watches, &store);
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
        let answers = answers(&mut watches, &store);
        assert_eq!(answers.iter().map(|answer| answer.events.len()).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(answers.iter().map(|answer| answer.fragment).collect::<Vec<_>>(), [true, false]);
    }
}
