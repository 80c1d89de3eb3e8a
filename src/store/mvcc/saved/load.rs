//! Making a store of parts: nothing is sorted, and no value is copied.
//!
//! Every block is checked on the way through the revisions, which makes the log of events. On the way
//! through the keys, all parts side by side, each key's versions come together, which makes the tree.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use crate::store::mvcc::lease::{Leases, NO_LEASE};
use crate::store::mvcc::record::Record;
use crate::store::mvcc::revision::{FIRST, NEVER_COMPACTED, Revision};
use crate::store::mvcc::saved::part::{PartError, SavedPart};
use crate::store::mvcc::saved::{Head, Saved};
use crate::store::mvcc::sequence::Sequence;
use crate::store::mvcc::store::Store;
use crate::store::mvcc::tree::Tree;
use crate::store::mvcc::version::Version;
use crate::store::mvcc::view::View;

/// A store in the making.
#[derive(Debug)]
struct Loading {
    view: View,
    /// The events from the compacted revision on.
    events: Vec<Version>,
    /// Which versions have a lease, in the order of revisions, and which.
    leased: Vec<(usize, i64)>,
    records: Vec<Record>,
    /// Which key has which lease.
    attached: Vec<(i64, Version)>,
}

impl Store {
    /// Makes a store of all its parts.
    pub fn load(head: &Head, parts: Vec<Arc<SavedPart>>) -> Result<Self, PartError> {
        let (revision, compact_revision) = (head.revision, head.compact_revision);
        let wrong = |what| PartError::Content { what };
        if revision < FIRST || compact_revision < NEVER_COMPACTED || compact_revision > revision {
            return Err(wrong("its revisions cannot be"));
        }
        if !head.leases.is_sorted_by(|one, other| one.id < other.id) {
            return Err(wrong("the leases are not in order"));
        }
        let count = parts.iter().map(|part| part.count()).sum();
        let mut loading = Loading {
            view: View { revision, compact_revision, ..View::default() },
            events: Vec::with_capacity(count),
            leased: Vec::new(),
            records: Vec::with_capacity(count),
            attached: Vec::new(),
        };
        loading.walk_revisions(&parts)?;
        loading.walk_keys(&parts)?;
        let Loading { mut view, events, records, attached, .. } = loading;
        let known = |id| head.leases.binary_search_by_key(&id, |lease| lease.id).is_ok();
        if attached.iter().any(|(id, _)| !known(*id)) {
            return Err(wrong("a key is attached to a lease that is not there"));
        }
        let attached = attached.iter().map(|(id, version)| (*id, version.key())).collect();
        view.leases = Leases::from_parts(&head.leases, attached);
        view.keys = Tree::from_sorted(records);
        view.log = Sequence::from_vec(events);
        let mut store = Self::from_view(view);
        store.saved = Saved { parts, revision };
        Ok(store)
    }
}

impl Loading {
    fn walk_revisions(&mut self, parts: &[Arc<SavedPart>]) -> Result<(), PartError> {
        let (mut last, mut in_order, mut base) = (Revision::default(), true, 0);
        for part in parts {
            part.check(|at, place, sub, fields| {
                let revision = Revision { main: fields.mod_revision, sub };
                in_order &= last < revision;
                last = revision;
                if fields.lease != NO_LEASE {
                    self.leased.push((base + at, fields.lease));
                }
                if revision.main >= self.view.compact_revision {
                    self.events.push(Version::saved(part, place));
                }
            })?;
            base += part.count();
        }
        if !in_order || last.main > self.view.revision {
            return Err(PartError::Content { what: "the revisions are not in order" });
        }
        Ok(())
    }

    fn walk_keys(&mut self, parts: &[Arc<SavedPart>]) -> Result<(), PartError> {
        let mut bases = vec![0];
        bases.extend(parts.iter().scan(0, |base, part| {
            *base += part.count();
            Some(*base)
        }));
        // Parts are in the order of revisions: of one key, the one in the first part comes first.
        let mut next: BinaryHeap<Reverse<(&[u8], usize, usize)>> = BinaryHeap::new();
        let head_of = |part: usize, at: usize| {
            (at < parts[part].count()).then(|| {
                let place = parts[part].place(parts[part].in_order_of_keys(at));
                Reverse((parts[part].key(place), part, at))
            })
        };
        next.extend((0..parts.len()).filter_map(|part| head_of(part, 0)));
        let mut of_key: Vec<(usize, Version)> = Vec::new();
        let mut last: &[u8] = b"";
        while let Some(mut first) = next.peek_mut() {
            let Reverse((key, part, at)) = *first;
            if key != last && !of_key.is_empty() {
                self.take_key(&mut of_key);
            }
            let ordinal = parts[part].in_order_of_keys(at);
            let found = (bases[part] + ordinal, parts[part].version(ordinal));
            let in_order = match of_key.last() {
                Some((before, _)) => *before < found.0,
                None => last < key || last.is_empty(),
            };
            if !in_order {
                return Err(PartError::Content { what: "the keys are not in order" });
            }
            of_key.push(found);
            last = key;
            match head_of(part, at + 1) {
                Some(head) => *first = head,
                None => drop(std::collections::binary_heap::PeekMut::pop(first)),
            }
        }
        if !of_key.is_empty() {
            self.take_key(&mut of_key);
        }
        Ok(())
    }

    /// Takes all versions of a key, the oldest first.
    fn take_key(&mut self, of_key: &mut Vec<(usize, Version)>) {
        let compacted = self.view.compact_revision;
        let mut versions = of_key.iter().map(|(_, version)| version);
        let Some(first) = versions.next() else { return };
        let mut record = Record::new(first.clone());
        versions.for_each(|version| record.push(version.clone()));
        let dropped = record.dropped_by(compacted);
        let newest = of_key.last().map_or(0, |(at, _)| *at);
        let kept = of_key.drain(..).skip(dropped.versions);
        if dropped.all {
            return drop(kept);
        }
        record.drop_oldest(dropped.versions);
        let usage = &mut self.view.usage;
        usage.total_bytes += kept.map(|(_, version)| version.bytes()).sum::<u64>();
        if let Some(live) = record.live() {
            usage.live_bytes += live.bytes();
            let lease = self.leased.binary_search_by_key(&newest, |(at, _)| *at);
            if let Ok(found) = lease {
                self.attached.push((self.leased[found].1, live.clone()));
            }
        }
        self.records.push(record);
    }
}
