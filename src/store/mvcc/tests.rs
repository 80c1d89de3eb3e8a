//! What clients rely on, one rule each; several are faults that etcd once had, with their numbers.

use crate::store::mvcc::error::MvccError;
use crate::store::mvcc::events::{EventFilter, FollowBudget, encode};
use crate::store::mvcc::key_range::KeyRange;
use crate::store::mvcc::range::Range;
use crate::store::mvcc::store::Store;
use crate::store::mvcc::txn::{
    Compare, CompareResult, CompareTarget, DeleteRange, Op, OpOutcome, Put, Txn,
};
use crate::store::mvcc::version::Version;
use crate::store::mvcc::view::View;

const ALL: KeyRange<&[u8]> = KeyRange::From(b"\0");
const BUDGET: FollowBudget = FollowBudget { scanned_max: 1000, bytes_max: 1 << 20 };

fn put<'a>(key: &'a [u8], value: &'a [u8]) -> Op<'a> {
    Op::Put(Put { key, value, ..Put::default() })
}

fn put_with_lease(key: &[u8], lease: i64) -> Op<'_> {
    Op::Put(Put { key, lease, ..Put::default() })
}

fn delete(range: KeyRange<&[u8]>) -> Op<'_> {
    Op::DeleteRange(DeleteRange { range, prev_kv: false })
}

fn store_with(ops: &[Op<'_>]) -> Store {
    let mut store = Store::default();
    for op in ops {
        store.op(op).unwrap();
    }
    store
}

fn events(view: &View, from: i64) -> Vec<(i64, Vec<u8>, bool)> {
    let followed = view.follow(from, &ALL, EventFilter::default(), BUDGET).unwrap();
    let told = |event: &Version| (event.main(), event.key().to_vec(), event.is_tombstone());
    followed.events.iter().map(told).collect()
}

#[test]
fn a_new_store_is_at_revision_one_and_can_be_compacted_at_zero_once() {
    let mut store = Store::default();
    assert_eq!(store.view().revision(), 1);
    assert_eq!(store.compact(0), Ok(()));
    assert_eq!(store.compact(0), Err(MvccError::Compacted { compact_revision: 0 }));
    assert_eq!(store.compact(2), Err(MvccError::FutureRevision { current: 1 }));
}

#[test]
fn what_changes_nothing_takes_no_revision() {
    let mut store = store_with(&[put(b"a", b"1")]);
    let read = Op::Range(Range::of(ALL));
    let nothing = [
        delete(KeyRange::One(b"b")),
        read.clone(),
        Op::Txn(Txn { success: vec![read, delete(KeyRange::One(b"b"))], ..Txn::default() }),
        Op::Txn(Txn::default()),
    ];
    for op in nothing {
        store.op(&op).unwrap();
        assert_eq!(store.view().revision(), 2, "{op:?}");
    }
    let kept = Op::Put(Put { key: b"b", ignore_value: true, ..Put::default() });
    assert_eq!(store.op(&kept), Err(MvccError::KeyNotFound));
    assert_eq!(store.op(&put_with_lease(b"b", 9)), Err(MvccError::LeaseNotFound { id: 9 }));
    assert_eq!(store.view().revision(), 2);
}

#[test]
fn a_watcher_that_begins_at_the_compacted_revision_is_told_of_its_delete() {
    // etcd #18089 and #19179.
    let mut store = store_with(&[put(b"a", b"1"), delete(KeyRange::One(b"a")), put(b"b", b"1")]);
    store.compact(3).unwrap();
    while store.compact_step(1) {}
    let expected = vec![(3, b"a".to_vec(), true), (4, b"b".to_vec(), false)];
    assert_eq!(events(&store.view(), 3), expected);
    let refused = store.view().follow(2, &ALL, EventFilter::default(), BUDGET);
    assert_eq!(refused, Err(MvccError::Compacted { compact_revision: 3 }));
    store.compact(4).unwrap();
    while store.compact_step(1) {}
    assert_eq!(events(&store.view(), 4), vec![(4, b"b".to_vec(), false)]);
}

#[test]
fn a_watcher_of_a_revision_to_come_is_told_nothing_before() {
    // etcd #20221.
    let mut store = store_with(&[put(b"a", b"1")]);
    let follow = |store: &Store, from| {
        store.view().follow(from, &ALL, EventFilter::default(), BUDGET).unwrap()
    };
    assert_eq!(follow(&store, 5).next, 5);
    for value in [b"2", b"3", b"4"] {
        assert_eq!(follow(&store, 5).events, []);
        store.op(&put(b"a", value)).unwrap();
    }
    store.op(&put(b"a", b"5")).unwrap();
    let followed = follow(&store, 5);
    assert_eq!(followed.events.iter().map(Version::main).collect::<Vec<_>>(), [5, 6]);
    assert_eq!(followed.next, 7);
}

#[test]
fn a_revision_is_never_told_in_parts() {
    let puts = [b"a", b"b", b"c", b"d"].map(|key| put(key, b"v"));
    let txn = Op::Txn(Txn { success: puts.to_vec(), ..Txn::default() });
    let view = store_with(&[put(b"a", b"1"), txn, put(b"a", b"2")]).view();
    let little = FollowBudget { scanned_max: 1, bytes_max: 1 };
    let mut next = 1;
    let mut parts = Vec::new();
    while next <= view.revision() {
        let followed = view.follow(next, &ALL, EventFilter::default(), little).unwrap();
        parts.push(followed.events.len());
        next = followed.next;
    }
    assert_eq!(parts, [1, 4, 1]);
}

#[test]
fn a_watcher_can_leave_out_puts_or_deletes() {
    let view = store_with(&[put(b"a", b"1"), delete(ALL)]).view();
    let kinds = |filter| {
        let followed = view.follow(1, &ALL, filter, BUDGET).unwrap();
        followed.events.iter().map(Version::is_tombstone).collect::<Vec<_>>()
    };
    assert_eq!(kinds(EventFilter { no_put: true, no_delete: false }), [true]);
    assert_eq!(kinds(EventFilter { no_put: false, no_delete: true }), [false]);
    assert_eq!(kinds(EventFilter { no_put: true, no_delete: true }), [false; 0]);
}

#[test]
fn an_event_is_encoded_with_what_was_before() {
    let view = store_with(&[put(b"a", b"1"), delete(ALL)]).view();
    let event = view.events(3).unwrap().next().unwrap();
    let mut bytes = Vec::new();
    encode(event, view.before(event), &mut bytes);
    let kv = [0x0a, 1, b'a', 0x18, 3];
    let prev = [0x0a, 1, b'a', 0x10, 2, 0x18, 2, 0x20, 1, 0x2a, 1, b'1'];
    assert_eq!(bytes, [&[0x08, 1, 0x12, 5][..], &kv, &[0x1a, 12], &prev].concat());
    bytes.clear();
    encode(event, None, &mut bytes);
    assert_eq!(bytes, [&[0x08, 1, 0x12, 5][..], &kv].concat());
}

#[test]
fn a_range_is_encoded_as_the_field_of_its_answer() {
    let view = store_with(&[put(b"a", b"1")]).view();
    let mut query = Range::of(ALL);
    let mut bytes = Vec::new();
    view.range(&query).unwrap().encode_kvs(&mut bytes);
    let kv = [0x0a, 1, b'a', 0x10, 2, 0x18, 2, 0x20, 1];
    assert_eq!(bytes, [&[0x12, 12][..], &kv, &[0x2a, 1, b'1']].concat());
    query.keys_only = true;
    bytes.clear();
    view.range(&query).unwrap().encode_kvs(&mut bytes);
    assert_eq!(bytes, [&[0x12, 9][..], &kv].concat());
}

#[test]
fn a_transaction_that_reads_what_is_compacted_changes_nothing() {
    // etcd #18667.
    let mut store = store_with(&[put(b"a", b"1"), put(b"a", b"2")]);
    store.compact(3).unwrap();
    for (revision, refused) in [
        (2, MvccError::Compacted { compact_revision: 3 }),
        (4, MvccError::FutureRevision { current: 3 }),
    ] {
        let read = Op::Range(Range { revision, ..Range::of(ALL) });
        let txn = Txn { success: vec![put(b"b", b"1"), read], ..Txn::default() };
        assert_eq!(store.txn(&txn), Err(refused));
        assert_eq!(store.view().revision(), 3);
        assert_eq!(store.view().get(b"b"), None);
    }
}

#[test]
fn a_key_that_one_revision_deletes_and_creates_had_nothing_before_to_its_followers() {
    let key = KeyRange::One(&b"a"[..]);
    let within = |op| Op::Txn(Txn { success: vec![op], ..Txn::default() });
    let success = vec![within(put(b"a", b"2")), within(delete(key))];
    let mut store = store_with(&[put(b"a", b"1"), Op::Txn(Txn { success, ..Txn::default() })]);
    store.op(&put(b"a", b"3")).unwrap();
    let success = vec![delete(KeyRange::From(b"a")), put(b"a", b"4")];
    store.op(&Op::Txn(Txn { success, ..Txn::default() })).unwrap();
    let view = store.view();
    let followed = view.follow(2, &ALL, EventFilter::default(), BUDGET).unwrap();
    let had = |event: &Version| view.before(event).map(|prev| prev.fields().value.to_vec());
    let had: Vec<_> = followed.events.iter().map(had).collect();
    let one = |value: &[u8]| Some(value.to_vec());
    assert_eq!(had, [None, one(b"1"), one(b"1"), None, one(b"3"), None]);
}

#[test]
fn of_a_transaction_a_wrong_put_is_told_before_a_wrong_read() {
    let mut store = store_with(&[put(b"a", b"1")]);
    let read = Op::Range(Range { revision: 9, ..Range::of(ALL) });
    let within = Txn { success: vec![put_with_lease(b"a", 7)], ..Txn::default() };
    let txn = Txn { success: vec![read, Op::Txn(within)], ..Txn::default() };
    assert_eq!(store.txn(&txn), Err(MvccError::LeaseNotFound { id: 7 }));
}

#[test]
fn reads_in_a_transaction_see_its_writes_and_compares_do_not() {
    let mut store = store_with(&[put(b"a", b"1")]);
    let unchanged = Compare {
        range: KeyRange::One(b"a"),
        target: CompareTarget::Value(b"1"),
        result: CompareResult::Equal,
    };
    let read = || Op::Range(Range::of(KeyRange::One(b"a")));
    let within = Txn { compare: vec![unchanged], success: vec![read()], failure: vec![] };
    let success = vec![read(), put(b"a", b"2"), Op::Txn(within), put(b"b", b"1")];
    let outcome = store.txn(&Txn { success, ..Txn::default() }).unwrap();
    assert_eq!(outcome.revision, 3);
    let [OpOutcome::Range { revision: 2, .. }, _, OpOutcome::Txn(within), _] =
        outcome.responses.as_slice()
    else {
        panic!("{outcome:?}");
    };
    assert!(within.succeeded);
    let [OpOutcome::Range { revision: 3, result }] = within.responses.as_slice() else {
        panic!("{within:?}");
    };
    assert_eq!(result.kvs[0].fields().value, b"2");
    let view = store.view();
    let subs: Vec<u32> = view.events(3).unwrap().map(|event| event.revision().sub).collect();
    assert_eq!(subs, [0, 1]);
}

#[test]
fn a_missing_key_compares_as_zeros_but_has_no_value() {
    let view = Store::default().view();
    let succeeds = |target, result| {
        let compare = vec![Compare { range: KeyRange::One(b"a"), target, result }];
        let txn = Txn { compare, ..Txn::default() };
        view.read_txn(&txn).unwrap().unwrap().succeeded
    };
    assert!(succeeds(CompareTarget::Create(0), CompareResult::Equal));
    assert!(succeeds(CompareTarget::Mod(1), CompareResult::Less));
    assert!(!succeeds(CompareTarget::Value(b""), CompareResult::Equal));
    assert!(!succeeds(CompareTarget::Value(b"x"), CompareResult::NotEqual));
}

#[test]
fn a_lease_takes_its_keys_with_it_in_one_revision_and_in_their_order() {
    let mut store = Store::default();
    store.lease_grant(5, 60).unwrap();
    store.lease_grant(-6, 60).unwrap();
    assert_eq!(store.lease_grant(5, 60), Err(MvccError::LeaseExists { id: 5 }));
    assert_eq!(store.lease_grant(0, 60), Err(MvccError::LeaseNotFound { id: 0 }));
    for (key, lease) in [(b"c", 5), (b"a", 5), (b"b", -6), (b"d", 5)] {
        store.op(&put_with_lease(key, lease)).unwrap();
    }
    // A put without a lease detaches the key; one with another moves it.
    store.op(&put(b"d", b"")).unwrap();
    store.op(&put_with_lease(b"b", 5)).unwrap();
    assert_eq!(store.view().lease_keys(5).collect::<Vec<_>>(), [b"a", b"b", b"c"]);
    assert_eq!(store.view().lease_keys(-6).count(), 0);
    store.lease_revoke(5).unwrap();
    let view = store.view();
    assert_eq!(view.revision(), 8);
    let expected = [b"a", b"b", b"c"].map(|key| (8, key.to_vec(), true));
    assert_eq!(events(&view, 8), expected);
    assert_eq!(store.lease_revoke(5), Err(MvccError::LeaseNotFound { id: 5 }));
    store.lease_revoke(-6).unwrap();
    assert_eq!(store.view().revision(), 8, "it had no keys");
}

#[test]
fn the_store_goes_on_after_a_change_that_fails() {
    let mut store = Store::default();
    assert_eq!(store.lease_revoke(1), Err(MvccError::LeaseNotFound { id: 1 }));
    store.op(&put(b"a", b"1")).unwrap();
    assert_eq!(store.lease_grant(1, 5), Ok(()));
    assert_eq!(store.compact(2), Ok(()));
    assert_eq!(store.view().revision(), 2);
    assert_eq!(store.view().lease(1).map(|lease| lease.ttl), Some(5));
}

#[test]
fn a_page_of_the_past_tells_how_many_keys_there_were() {
    let keys: Vec<Vec<u8>> =
        (0..100_u32).map(|number| format!("k{number:03}").into_bytes()).collect();
    let mut store = Store::default();
    for key in &keys {
        store.op(&put(key, b"v")).unwrap();
    }
    let past = store.view().revision();
    store.op(&delete(KeyRange::Span { from: b"k010", to: b"k020" })).unwrap();
    store.op(&put(b"k0100", b"new")).unwrap();
    let view = store.view();
    let page = |revision| {
        let query = Range { revision, limit: 5, ..Range::of(ALL) };
        let found = view.range(&query).unwrap();
        (found.kvs.len(), found.count, found.more)
    };
    assert_eq!(page(past), (5, 100, true));
    assert_eq!(page(0), (5, 91, true));
}

#[test]
fn the_hash_is_that_of_etcd_before_and_after_a_compaction() {
    // Recorded from etcd 3.5.1, which was given the same commands.
    const LEASE: i64 = 2_324_035_569_665_033_992;
    let mut store = store_with(&[put(b"a", b"1"), put(b"b", b"2"), put(b"a", b"3")]);
    store.lease_grant(LEASE, 100).unwrap();
    let rest = [
        Op::Put(Put { key: b"c", value: b"4", lease: LEASE, ..Put::default() }),
        delete(KeyRange::One(b"b")),
        Op::Txn(Txn {
            success: vec![put(b"d", b"1"), delete(KeyRange::One(b"a")), put(b"e", b"x")],
            ..Txn::default()
        }),
    ];
    for op in &rest {
        store.op(op).unwrap();
    }
    let hash = |store: &Store, revision| store.view().hash_keys(revision).unwrap().hash;
    assert_eq!(hash(&store, 0), 1_554_944_975);
    assert_eq!(hash(&store, 4), 2_069_675_932);
    assert_eq!(hash(&store, 6), 832_604_077);
    store.compact(5).unwrap();
    for _ in 0..2 {
        assert_eq!(hash(&store, 0), 2_818_571_537);
        assert_eq!(hash(&store, 6), 232_993_724);
        while store.compact_step(1) {}
    }
    store.compact(6).unwrap();
    for _ in 0..2 {
        assert_eq!(hash(&store, 7), 1_633_340_340);
        while store.compact_step(1) {}
    }
}
