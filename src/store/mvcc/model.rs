//! The engine against a model that keeps every version in one list and answers by looking at all of
//! it.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::sample::select;

use crate::store::mvcc::checkpoint::Checkpoint;
use crate::store::mvcc::error::MvccError;
use crate::store::mvcc::events::{EventFilter, FollowBudget};
use crate::store::mvcc::key_range::KeyRange;
use crate::store::mvcc::range::{Range, RangeResult, SortOrder, SortTarget, field_bytes};
use crate::store::mvcc::restore::Restore;
use crate::store::mvcc::saved::tests::SMALL;
use crate::store::mvcc::saved::{self, Head};
use crate::store::mvcc::store::Store;
use crate::store::mvcc::tree::Live;
use crate::store::mvcc::txn::{
    Compare, CompareResult, CompareTarget, DeleteRange, Op, OpOutcome, Put, Txn, TxnOutcome,
};
use crate::store::mvcc::txn_check::check_txn;
use crate::store::mvcc::version::{KeyValue, Version};
use crate::store::mvcc::view::{NEWEST, View};

/// Every version there ever was.
#[derive(Debug, Clone)]
struct Model {
    revision: i64,
    compacted: i64,
    history: Vec<Version>,
    leases: BTreeSet<i64>,
    written: u32,
}

impl Model {
    fn new() -> Self {
        let (history, leases) = (Vec::new(), BTreeSet::new());
        Self { revision: 1, compacted: -1, history, leases, written: 0 }
    }

    fn newest(&self, key: &[u8], at: i64) -> Option<&Version> {
        let mut of_key = self.history.iter().filter(|version| version.key() == key);
        of_key.rfind(|version| version.main() <= at).filter(|version| !version.is_tombstone())
    }

    fn visible(&self, range: KeyRange<&[u8]>, at: i64) -> Vec<Version> {
        let keys: BTreeSet<&[u8]> = self.history.iter().map(Version::key).collect();
        let keys = keys.into_iter().filter(|key| range.contains(key));
        keys.filter_map(|key| self.newest(key, at)).cloned().collect()
    }

    fn readable(&self, revision: i64) -> Result<i64, MvccError> {
        match revision {
            ..=0 => Ok(i64::MAX),
            future if future > self.revision => {
                Err(MvccError::FutureRevision { current: self.revision })
            }
            old if old < self.compacted => {
                Err(MvccError::Compacted { compact_revision: self.compacted })
            }
            _ => Ok(revision),
        }
    }

    fn range(&self, query: &Range<'_>) -> Result<RangeResult<Version>, MvccError> {
        let mut kvs = self.visible(query.range, self.readable(query.revision)?);
        let count = kvs.len();
        kvs.retain(|version| {
            let KeyValue { mod_revision, create_revision, .. } = version.fields();
            mod_revision >= query.min_mod_revision
                && (query.max_mod_revision == 0 || mod_revision <= query.max_mod_revision)
                && create_revision >= query.min_create_revision
                && (query.max_create_revision == 0 || create_revision <= query.max_create_revision)
        });
        kvs.sort_by(|left, right| {
            let (one, other) = (left.fields(), right.fields());
            let order = match query.target {
                SortTarget::Key => one.key.cmp(other.key),
                SortTarget::Version => one.version.cmp(&other.version),
                SortTarget::Create => one.create_revision.cmp(&other.create_revision),
                SortTarget::Mod => one.mod_revision.cmp(&other.mod_revision),
                SortTarget::Value => one.value.cmp(other.value),
            };
            if query.order == SortOrder::Descend { order.reverse() } else { order }
        });
        let more = query.limit > 0 && kvs.len() > query.limit && !query.count_only;
        let wanted = if query.limit == 0 { usize::MAX } else { query.limit };
        kvs.truncate(if query.count_only { 0 } else { wanted });
        Ok(RangeResult { kvs, count, more, keys_only: query.keys_only })
    }

    fn within(&self) -> i64 {
        self.revision + i64::from(self.written > 0)
    }

    fn commit(&mut self) {
        self.revision = self.within();
        self.written = 0;
    }

    fn write(&mut self, fields: &KeyValue<'_>) {
        self.history.push(Version::new(fields, self.written, &mut Vec::new()));
        self.written += 1;
    }

    fn put(&mut self, put: &Put<'_>) -> OpOutcome {
        let main = self.revision + 1;
        let head = self.newest(put.key, i64::MAX).cloned();
        let old = head.as_ref().map(Version::fields);
        self.write(&KeyValue {
            key: put.key,
            create_revision: old.map_or(main, |old| old.create_revision),
            mod_revision: main,
            version: old.map_or(1, |old| old.version + 1),
            value: if put.ignore_value { old.unwrap_or_default().value } else { put.value },
            lease: if put.ignore_lease { old.unwrap_or_default().lease } else { put.lease },
        });
        OpOutcome::Put { revision: self.within(), prev: head.filter(|_| put.prev_kv) }
    }

    fn delete(&mut self, range: KeyRange<&[u8]>, prev_kv: bool) -> OpOutcome {
        let prev = self.visible(range, i64::MAX);
        let mod_revision = self.revision + 1;
        for version in &prev {
            self.write(&KeyValue { key: version.key(), mod_revision, ..KeyValue::default() });
        }
        let deleted = prev.len();
        let prev = if prev_kv { prev } else { Vec::new() };
        OpOutcome::DeleteRange { revision: self.within(), deleted, prev }
    }

    fn holds(&self, compare: &Compare<'_>) -> bool {
        let found = self.visible(compare.range, i64::MAX);
        if found.is_empty() && matches!(compare.target, CompareTarget::Value(_)) {
            return false;
        }
        let zero = [KeyValue::default()];
        let found: Vec<KeyValue<'_>> = found.iter().map(Version::fields).collect();
        let compared = if found.is_empty() { &zero[..] } else { &found[..] };
        compared.iter().all(|fields| {
            let order = match compare.target {
                CompareTarget::Version(wanted) => fields.version.cmp(&wanted),
                CompareTarget::Create(wanted) => fields.create_revision.cmp(&wanted),
                CompareTarget::Mod(wanted) => fields.mod_revision.cmp(&wanted),
                CompareTarget::Value(wanted) => fields.value.cmp(wanted),
                CompareTarget::Lease(wanted) => fields.lease.cmp(&wanted),
            };
            match compare.result {
                CompareResult::Equal => order.is_eq(),
                CompareResult::Greater => order.is_gt(),
                CompareResult::Less => order.is_lt(),
                CompareResult::NotEqual => order.is_ne(),
            }
        })
    }

    /// Does an operation after trying it on a copy, where it may fail halfway.
    fn op(&mut self, op: &Op<'_>) -> Result<OpOutcome, MvccError> {
        let before = self.clone();
        let outcome = self.op_within(op, &before);
        if outcome.is_ok() {
            self.commit();
            return outcome;
        }
        *self = before;
        let wrong = self.wrong(op);
        let of_put = |error: &&MvccError| {
            matches!(error, MvccError::KeyNotFound | MvccError::LeaseNotFound { .. })
        };
        let first = wrong.iter().find(of_put).or(wrong.first());
        first.map_or(outcome, |error| Err(*error))
    }

    /// All that is wrong with an operation, in order.
    fn wrong(&self, op: &Op<'_>) -> Vec<MvccError> {
        if let Op::Txn(txn) = op {
            let succeeded = txn.compare.iter().all(|compare| self.holds(compare));
            let ops = if succeeded { &txn.success } else { &txn.failure };
            return ops.iter().flat_map(|op| self.wrong(op)).collect();
        }
        self.clone().op_within(op, self).err().into_iter().collect()
    }

    fn op_within(&mut self, op: &Op<'_>, before: &Self) -> Result<OpOutcome, MvccError> {
        match op {
            Op::Put(put) => {
                if (put.ignore_value || put.ignore_lease)
                    && before.newest(put.key, i64::MAX).is_none()
                {
                    return Err(MvccError::KeyNotFound);
                }
                if put.lease != 0 && !self.leases.contains(&put.lease) {
                    return Err(MvccError::LeaseNotFound { id: put.lease });
                }
                Ok(self.put(put))
            }
            Op::DeleteRange(delete) => Ok(self.delete(delete.range, delete.prev_kv)),
            Op::Range(query) => {
                before.readable(query.revision)?;
                Ok(OpOutcome::Range { revision: self.within(), result: self.range(query)? })
            }
            Op::Txn(txn) => {
                let succeeded = txn.compare.iter().all(|compare| before.holds(compare));
                let ops = if succeeded { &txn.success } else { &txn.failure };
                let responses = ops.iter().map(|op| self.op_within(op, before));
                let responses = responses.collect::<Result<Vec<_>, _>>()?;
                Ok(OpOutcome::Txn(TxnOutcome { revision: self.within(), succeeded, responses }))
            }
        }
    }

    fn compact(&mut self, revision: i64) -> Result<(), MvccError> {
        if revision <= self.compacted {
            return Err(MvccError::Compacted { compact_revision: self.compacted });
        }
        if revision > self.revision {
            return Err(MvccError::FutureRevision { current: self.revision });
        }
        self.compacted = revision;
        Ok(())
    }

    fn events(&self, from: i64, range: KeyRange<&[u8]>) -> Vec<(Version, Option<Version>)> {
        let from = self.history.iter().filter(|version| version.main() >= from);
        from.filter(|version| range.contains(version.key()))
            .map(|version| {
                let main = version.main();
                let told = main > self.compacted && version.fields().create_revision != main;
                let prev = self.newest(version.key(), main - 1).filter(|_| told);
                (version.clone(), prev.cloned())
            })
            .collect()
    }

    fn hash(&self, revision: i64) -> u32 {
        let seen: Vec<Version> = self.visible(KeyRange::ALL, revision);
        let kept = self.visible(KeyRange::ALL, self.compacted);
        let hashed = self.history.iter().filter(|version| {
            let old = if seen.is_empty() { kept.contains(version) } else { seen.contains(version) };
            version.main() <= revision && (version.main() > self.compacted || old)
        });
        let mut bytes = b"key".to_vec();
        for version in hashed {
            let at = version.revision();
            bytes.extend_from_slice(&at.main.to_be_bytes());
            bytes.push(b'_');
            bytes.extend_from_slice(&u64::from(at.sub).to_be_bytes());
            if version.is_tombstone() {
                bytes.push(b't');
                let key = version.key();
                bytes.extend_from_slice(&[0x0a, u8::try_from(key.len()).unwrap()]);
                bytes.extend_from_slice(key);
            } else {
                bytes.extend_from_slice(version.encoded());
            }
        }
        crc32c::crc32c(&bytes)
    }
}

const KEYS: &[&[u8]] = &[b"a", b"aa", b"ab", b"b", b"ba", b"bb", b"c", b"ca", b"d", b"e", b"f\xff"];
const VALUES: &[&[u8]] = &[b"", b"x", b"yy", b"zzz"];
const LEASES: &[i64] = &[1, -2, i64::MAX];
const OPS_MAX: usize = 8;

fn key() -> impl Strategy<Value = &'static [u8]> {
    select(KEYS)
}

fn range() -> impl Strategy<Value = KeyRange<&'static [u8]>> {
    prop_oneof![
        key().prop_map(KeyRange::One),
        (key(), key()).prop_map(|(from, to)| KeyRange::Span { from, to }),
        key().prop_map(KeyRange::From),
    ]
}

fn put() -> impl Strategy<Value = Put<'static>> {
    let lease = prop_oneof![4 => Just(0), 1 => select(LEASES)];
    let flags = (any::<bool>(), prop::bool::weighted(0.1), prop::bool::weighted(0.1));
    (key(), select(VALUES), lease, flags).prop_map(
        |(key, value, lease, (prev_kv, ignore_value, ignore_lease))| Put {
            key,
            value: if ignore_value { b"" } else { value },
            lease: if ignore_lease { 0 } else { lease },
            prev_kv,
            ignore_value,
            ignore_lease,
        },
    )
}

fn delete() -> impl Strategy<Value = DeleteRange<'static>> {
    (range(), any::<bool>()).prop_map(|(range, prev_kv)| DeleteRange { range, prev_kv })
}

fn query() -> impl Strategy<Value = Range<'static>> {
    use SortOrder::{Ascend, Descend, None};
    use SortTarget::{Create, Key, Mod, Value, Version};
    let bound = || prop_oneof![3 => Just(0), 1 => 1_i64..60];
    (
        range(),
        prop_oneof![2 => Just(0), 3 => 1_i64..60],
        0_usize..5,
        select(&[None, None, None, Ascend, Descend]),
        select(&[Key, Key, Key, Version, Create, Mod, Value]),
        (any::<bool>(), prop::bool::weighted(0.2)),
        (bound(), bound(), bound(), bound()),
        prop::bool::weighted(0.5),
    )
        .prop_map(|(range, revision, limit, order, target, flags, bounds, filtered)| {
            let (keys_only, count_only) = flags;
            let (min_mod, max_mod, min_create, max_create) =
                if filtered { bounds } else { (0, 0, 0, 0) };
            Range {
                range,
                revision,
                limit,
                order,
                target,
                keys_only,
                count_only,
                min_mod_revision: min_mod,
                max_mod_revision: max_mod,
                min_create_revision: min_create,
                max_create_revision: max_create,
            }
        })
}

fn compare() -> impl Strategy<Value = Compare<'static>> {
    use CompareResult::{Equal, Greater, Less, NotEqual};
    let target = prop_oneof![
        (0_i64..3).prop_map(CompareTarget::Version),
        (0_i64..40).prop_map(CompareTarget::Create),
        (0_i64..40).prop_map(CompareTarget::Mod),
        select(VALUES).prop_map(CompareTarget::Value),
        select(&[0, 1, -2]).prop_map(CompareTarget::Lease),
    ];
    (range(), target, select(&[Equal, Greater, Less, NotEqual]))
        .prop_map(|(range, target, result)| Compare { range, target, result })
}

fn op() -> impl Strategy<Value = Op<'static>> {
    let leaf = prop_oneof![
        5 => put().prop_map(Op::Put),
        2 => delete().prop_map(Op::DeleteRange),
        1 => query().prop_map(|query| {
            // Most transactions should go through.
            Op::Range(Range { revision: if query.limit == 4 { query.revision } else { 0 }, ..query })
        }),
    ];
    leaf.prop_recursive(2, 8, 4, |inner| {
        let ops = || prop::collection::vec(inner.clone(), 0..4);
        (prop::collection::vec(compare(), 0..2), ops(), ops())
            .prop_map(|(compare, success, failure)| Op::Txn(Txn { compare, success, failure }))
    })
}

#[derive(Debug, Clone)]
enum Step {
    Op(Op<'static>),
    Compact {
        percent: i64,
    },
    Sweep {
        budget: usize,
    },
    Grant(i64),
    Revoke(i64),
    Look {
        query: Range<'static>,
        since: i64,
    },
    /// Makes a checkpoint of all and lets go of what it has; or begins one, or ends what was begun
    /// some steps before.
    Save {
        all: bool,
    },
    Settle {
        budget: usize,
    },
    Restore,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => op().prop_map(Step::Op),
        2 => (0_i64..=110).prop_map(|percent| Step::Compact { percent }),
        4 => (1_usize..6).prop_map(|budget| Step::Sweep { budget }),
        2 => select(LEASES).prop_map(Step::Grant),
        1 => select(LEASES).prop_map(Step::Revoke),
        8 => (query(), 0_i64..60).prop_map(|(query, since)| Step::Look { query, since }),
        2 => any::<bool>().prop_map(|all| Step::Save { all }),
        2 => (1_usize..6).prop_map(|budget| Step::Settle { budget }),
        1 => Just(Step::Restore),
    ]
}

fn check_look(view: &View, model: &Model, query: &Range<'static>, since: i64) {
    let found = view.range(query).map(RangeResult::into_owned);
    assert_eq!(found, model.range(query));
    let counted = view.range(&Range { count_only: true, ..*query }).map(|found| found.count);
    assert_eq!(counted, model.range(query).map(|found| found.count));
    // What an answer says of its length before it is encoded.
    let seen = view.seen(query.range, NEWEST);
    let seen = seen.map(|version| Live { count: 1, bytes: field_bytes(version) }).sum();
    assert_eq!(view.newest(query.range), seen);
    if model.readable(since).is_ok() {
        let hash = view.hash_keys(since).unwrap();
        let until = if since <= 0 { model.revision } else { since };
        assert_eq!((hash.hash, hash.hash_revision), (model.hash(until), until));
    } else {
        assert_eq!(view.hash_keys(since).err(), model.readable(since).err());
    }
    check_follow(view, model, query.range, since);
}

/// Follows in small steps and compares with all events at once.
fn check_follow(view: &View, model: &Model, range: KeyRange<&[u8]>, since: i64) {
    let budget = FollowBudget { scanned_max: 3, bytes_max: 100 };
    let filter = EventFilter::default();
    let (mut next, mut all) = (since, Vec::new());
    if since < model.compacted {
        let compacted = MvccError::Compacted { compact_revision: model.compacted };
        assert_eq!(view.follow(since, &range, filter, budget), Err(compacted));
        return;
    }
    loop {
        let followed = view.follow(next, &range, filter, budget).unwrap();
        assert!(followed.next > next || followed.events.is_empty());
        let within = next..followed.next;
        assert!(followed.events.iter().all(|event| within.contains(&event.main())));
        let told = |event: Version| (event.clone(), view.before(&event).cloned());
        all.extend(followed.events.into_iter().map(told));
        if followed.next == next || followed.next > view.revision() {
            assert_eq!(followed.next, since.max(view.revision() + 1));
            break;
        }
        next = followed.next;
    }
    assert_eq!(all, model.events(since, range));
}

fn check_leases(view: &View, model: &Model) {
    let ids: Vec<i64> = view.leases().map(|lease| lease.id).collect();
    assert_eq!(ids, model.leases.iter().copied().collect::<Vec<_>>());
    let mut keys: BTreeMap<i64, Vec<Vec<u8>>> = BTreeMap::new();
    for version in model.visible(KeyRange::ALL, i64::MAX) {
        keys.entry(version.fields().lease).or_default().push(version.key().to_vec());
    }
    for id in ids {
        let found: Vec<Vec<u8>> = view.lease_keys(id).map(<[u8]>::to_vec).collect();
        assert_eq!(found, keys.remove(&id).unwrap_or_default());
    }
    keys.remove(&0);
    assert_eq!(keys, BTreeMap::new(), "a key is attached to a lease that is gone");
}

/// Checks that nothing but what can still be read is there.
fn check_swept(view: &View, model: &Model) {
    let events: Vec<Version> = view.events(model.compacted.max(0)).unwrap().cloned().collect();
    assert_eq!(events.len(), model.events(model.compacted, KeyRange::ALL).len());
    assert_eq!(view.log.len(), events.len());
    let kept = model.visible(KeyRange::ALL, model.compacted);
    let later = model.history.iter().filter(|version| version.main() >= model.compacted);
    let before = kept.iter().filter(|version| version.main() < model.compacted);
    let total: u64 = later.chain(before).map(Version::bytes).sum();
    let live = model.visible(KeyRange::ALL, i64::MAX);
    assert_eq!(view.usage().total_bytes, total);
    assert_eq!(view.usage().live_bytes, live.iter().map(Version::bytes).sum::<u64>());
}

fn restored(view: View) -> Store {
    let mut restore = Restore::default();
    Checkpoint::new(view).for_each(|chunk| restore.chunk(&chunk).unwrap());
    restore.finish().unwrap()
}

/// Three stores that differ in when they free memory, and the model of all of them.
struct Trial {
    /// In steps; after each compaction at once; never.
    stores: [Store; 3],
    /// A checkpoint of the first one that is made meanwhile.
    making: Option<saved::Saved>,
    model: Model,
}

impl Trial {
    fn all<T: PartialEq + std::fmt::Debug>(&mut self, does: impl Fn(&mut Store) -> T) -> T {
        let [one, other, third] = &mut self.stores;
        let done = does(one);
        assert_eq!(done, does(other));
        assert_eq!(done, does(third));
        done
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Op(op) => {
                if let Op::Txn(txn) = op
                    && check_txn(txn, OPS_MAX).is_err()
                {
                    return;
                }
                let expected = self.model.op(op);
                assert_eq!(self.all(|store| store.op(op)), expected);
            }
            Step::Compact { percent } => {
                let revision = self.model.revision * percent / 100;
                let expected = self.model.compact(revision);
                assert_eq!(self.all(|store| store.compact(revision)), expected);
                while self.stores[1].compact_step(2) {}
                check_swept(&self.stores[1].view(), &self.model);
            }
            Step::Sweep { budget } => {
                self.stores[0].compact_step(*budget);
            }
            Step::Grant(id) => {
                let new = self.model.leases.insert(*id);
                assert_eq!(self.all(|store| store.lease_grant(*id, 5)).is_ok(), new);
            }
            Step::Revoke(id) => {
                let known = self.model.leases.remove(id);
                let keys = self.model.visible(KeyRange::ALL, i64::MAX);
                for version in keys.iter().filter(|version| version.fields().lease == *id) {
                    self.model.delete(KeyRange::One(version.key()), false);
                }
                self.model.commit();
                assert_eq!(self.all(|store| store.lease_revoke(*id)).is_ok(), known);
            }
            Step::Look { query, since } => {
                for store in &self.stores {
                    check_look(&store.view(), &self.model, query, *since);
                }
            }
            Step::Save { all: true } => {
                if let Some(saved) = self.making.take() {
                    self.stores[0].adopt(saved);
                }
                self.stores[0..2].iter_mut().for_each(|store| saved::tests::save_all(store, SMALL));
            }
            Step::Save { all: false } => {
                let store = &mut self.stores[0];
                match self.making.take() {
                    Some(saved) => drop(store.adopt(saved)),
                    None => self.making = Some(saved::tests::save(store, SMALL)),
                }
            }
            Step::Settle { budget } => {
                self.stores[0].settle_step(*budget);
            }
            Step::Restore => {
                let chunks = |store: &Store| Checkpoint::new(store.view()).collect::<Vec<_>>();
                assert_eq!(chunks(&self.stores[0]), chunks(&self.stores[1]));
                assert_eq!(chunks(&self.stores[0]), chunks(&self.stores[2]));
                let view = self.stores[0].view();
                check_swept(&restored(view.clone()).view(), &self.model);
                let saved = saved::tests::save(&self.stores[0], SMALL);
                let store = Store::load(&Head::of(&view), saved.parts).unwrap();
                assert_eq!(chunks(&store), chunks(&self.stores[0]));
                check_swept(&store.view(), &self.model);
                self.stores[0] = store;
                self.making = None;
            }
        }
        for store in &self.stores {
            assert_eq!(store.view().revision(), self.model.revision);
            check_leases(&store.view(), &self.model);
        }
    }
}

proptest! {
    #[test]
    fn the_engine_answers_as_a_list_of_all_versions_would(
        steps in prop::collection::vec(step(), 1..80),
        look in (query(), 0_i64..60),
        keep_at in 0_usize..80,
    ) {
        let mut trial = Trial { stores: Default::default(), making: None, model: Model::new() };
        let mut old = None;
        for (at, step) in steps.iter().enumerate() {
            if at == keep_at {
                old = Some((trial.stores[0].view(), trial.model.clone()));
            }
            trial.step(step);
        }
        trial.step(&Step::Look { query: look.0, since: look.1 });
        trial.step(&Step::Restore);
        if let Some((view, model)) = old {
            check_look(&view, &model, &look.0, look.1);
            check_look(&view, &model, &Range::of(KeyRange::ALL), model.compacted);
            check_leases(&view, &model);
        }
    }
}
