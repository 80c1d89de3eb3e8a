//! Parts in memory: what is in them, and what they let go.

use std::collections::BTreeSet;

use super::*;
use crate::platform::disk::Map;
use crate::store::mvcc::KeyRange;
use crate::store::mvcc::Version;
use crate::store::mvcc::record::Record;
use crate::store::mvcc::store::Store;
use crate::store::mvcc::txn::{DeleteRange, Op, Put};

/// So small that a few puts make several blocks and parts.
pub(crate) const SMALL: Sizes =
    Sizes { block_bytes: 60, part_bytes: 1_000, part_versions: 20, enough: 1 };

/// Makes the parts of a store, as files would be.
pub(crate) fn save(store: &Store, sizes: Sizes) -> Saved {
    let mut making = Making::new(store, sizes);
    let (mut parts, mut bytes) = (making.kept().to_vec(), Vec::new());
    while let Some(piece) = making.next_piece() {
        bytes.extend(piece.bytes);
        if piece.is_last {
            let map = Map::copied(std::mem::take(&mut bytes));
            parts.push(Arc::new(SavedPart::open(parts.len() as u64, map).unwrap()));
        }
    }
    assert!(bytes.is_empty(), "a part has no end");
    Saved { parts, revision: making.revision() }
}

/// Saves a store, which from then on refers to what is saved.
pub(crate) fn save_all(store: &mut Store, sizes: Sizes) {
    let saved = save(store, sizes);
    store.adopt(saved);
    while store.settle_step(3) {}
    check_settled(store);
}

/// Checks that a store refers to nothing but its parts where those have it.
fn check_settled(store: &Store) {
    let saved = store.saved();
    let compacted = store.state.compact_revision;
    let is_settled = |version: &Version| match version.part() {
        Some(part) => saved.has(part),
        None => version.main() > saved.revision,
    };
    for record in store.state.keys.iter() {
        let dropped = record.dropped_by(compacted);
        let mut kept = record.versions_from(dropped.versions);
        assert!(kept.all(is_settled), "a record is in memory still");
    }
    for event in store.state.log.iter_from(0).filter(|event| event.main() >= compacted) {
        assert!(is_settled(event), "{event:?} is in memory still");
    }
}

fn put(store: &mut Store, key: u32, value: &[u8]) {
    let key = key.to_be_bytes();
    store.op(&Op::Put(Put { key: &key, value, ..Put::default() })).unwrap();
}

#[test]
fn a_step_lets_go_of_no_more_than_it_may_however_many_versions_a_key_has() {
    let mut store = Store::default();
    (0..50).for_each(|_| put(&mut store, 1, b"value"));
    let saved = save(&store, SMALL);
    store.adopt(saved);
    let in_memory = |store: &Store| {
        let versions = store.state.keys.iter().flat_map(Record::versions);
        versions.filter(|version| version.part().is_none()).count()
    };
    let mut before = in_memory(&store);
    while before > 0 && store.settle_step(7) {
        let left = in_memory(&store);
        assert!((1..=7).contains(&(before - left)), "{before}, then {left}");
        before = left;
    }
    assert_eq!(before, 0);
    while store.settle_step(7) {}
    check_settled(&store);
}

#[test]
fn there_are_few_parts_and_each_version_is_written_a_few_times() {
    let sizes = Sizes { part_bytes: 1 << 20, part_versions: 1 << 20, ..SMALL };
    let mut store = Store::default();
    let (mut written, mut seen) = (0, BTreeSet::new());
    for round in 0..256 {
        for number in 0..10 {
            put(&mut store, round * 10 + number, b"value");
        }
        save_all(&mut store, sizes);
        let parts = &store.saved().parts;
        assert!(parts.len() <= 9, "{} parts after {round} rounds", parts.len());
        let new = parts.iter().filter(|part| seen.insert(part.file().to_vec()));
        written += new.map(|part| part.count()).sum::<usize>();
    }
    assert!(written <= 2_560 * 9, "{written} versions were written");
}

#[test]
fn a_full_part_is_not_written_again() {
    let mut store = Store::default();
    for round in 0..30 {
        for number in 0..10 {
            put(&mut store, round * 10 + number, b"v");
        }
        let before = store.saved().clone();
        save_all(&mut store, SMALL);
        let full = before.parts.iter().filter(|part| part.count() >= SMALL.part_versions);
        assert!(full.into_iter().all(|part| store.saved().has(part)));
        assert!(store.saved().parts.iter().all(|part| part.count() <= SMALL.part_versions));
    }
    assert!(store.saved().parts.len() <= 20);
}

#[test]
fn a_part_that_is_large_enough_is_merged_with_no_other() {
    let sizes = Sizes { enough: 4, ..SMALL };
    let mut store = Store::default();
    let mut counts = Vec::new();
    for (round, puts) in [5, 5, 2, 2, 2, 30, 4].into_iter().enumerate() {
        (0..puts).for_each(|_| put(&mut store, u32::try_from(round).unwrap(), b"v"));
        save_all(&mut store, sizes);
        let parts = store.saved().parts.iter();
        counts.push(parts.map(|part| part.count()).collect::<Vec<_>>());
    }
    let begun = vec![vec![5], vec![5, 5], vec![5, 5, 2], vec![5, 5, 4], vec![5, 5, 4, 2]];
    let ended = [vec![5, 5, 20, 16], vec![5, 5, 20, 16, 4]];
    assert_eq!(counts, [begun, ended.to_vec()].concat());
}

#[test]
fn graves_hide_nothing_of_a_key_that_a_sweep_has_not_reached() {
    let mut store = Store::default();
    (0..20).for_each(|_| put(&mut store, 9, b"value"));
    save_all(&mut store, SMALL);
    put(&mut store, 1, b"value");
    let key = 1_u32.to_be_bytes();
    let range = KeyRange::One(&key[..]);
    store.op(&Op::DeleteRange(DeleteRange { range, prev_kv: false })).unwrap();
    (0..4).for_each(|_| put(&mut store, 1, b"value"));
    store.compact(store.view().revision() - 1).unwrap();
    save_all(&mut store, SMALL);
}

#[test]
fn once_more_is_dropped_than_there_is_all_is_written_anew() {
    let mut store = Store::default();
    for round in 0..20 {
        for number in 0..10 {
            put(&mut store, number, &[round; 20]);
        }
        save_all(&mut store, SMALL);
    }
    let first = Arc::downgrade(&store.saved().parts[0]);
    let all = store.saved().bytes();
    store.compact(store.view().revision()).unwrap();
    while store.compact_step(10) {}
    save_all(&mut store, SMALL);
    let left = store.saved().bytes();
    assert_eq!(left, store.view().usage().total_bytes, "of {all} bytes");
    assert!(first.upgrade().is_none(), "a part is mapped that nobody needs");
}

#[test]
fn what_is_deleted_and_swept_while_a_checkpoint_is_made_stays_deleted() {
    let mut store = Store::default();
    for number in 0..100 {
        put(&mut store, number, b"value");
    }
    let first = save(&store, SMALL);
    let gone = 7_u32.to_be_bytes();
    let range = KeyRange::One(&gone[..]);
    store.op(&Op::DeleteRange(DeleteRange { range, prev_kv: false })).unwrap();
    put(&mut store, 200, b"value");
    store.compact(store.view().revision()).unwrap();
    while store.compact_step(10) {}
    store.adopt(first);
    while store.settle_step(3) {}
    let second = save(&store, SMALL);
    let head = Head::of(&store.view());
    let loaded = Store::load(&head, second.parts).unwrap();
    assert_eq!(loaded.view().get(&gone), None);
    assert_eq!(loaded.view().keys_count(), 100);
}

#[test]
fn a_view_from_before_reads_what_it_read() {
    let mut store = Store::default();
    for number in 0..100 {
        put(&mut store, number % 30, b"value");
    }
    let view = store.view();
    let before: Vec<_> = crate::store::mvcc::Checkpoint::new(view.clone()).collect();
    save_all(&mut store, SMALL);
    store.compact(90).unwrap();
    while store.compact_step(10) {}
    save_all(&mut store, SMALL);
    assert!(crate::store::mvcc::Checkpoint::new(view).eq(before));
}
