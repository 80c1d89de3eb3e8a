//! After a checkpoint: what it has is let go from memory, and referred to where it is mapped.
//!
//! In steps between batches, first through the keys in their order, so that each leaf of the tree is
//! touched by few of them, then through the log of events. Whoever holds an older view keeps what that
//! refers to.

use std::ops::Range;
use std::sync::Arc;

use crate::store::mvcc::record::Record;
use crate::store::mvcc::revision::Revision;
use crate::store::mvcc::saved::Saved;
use crate::store::mvcc::saved::part::SavedPart;
use crate::store::mvcc::store::Store;
use crate::store::mvcc::tree::Entry as _;
use crate::store::mvcc::version::Version;

/// How many events that need nothing are passed in the time in which one is changed.
const PASSED_FOR_ONE: usize = 16;

/// How far the steps have come.
#[derive(Debug)]
pub(in crate::store::mvcc) struct Settling {
    /// Parts whose versions are still in memory, the next one last.
    parts: Vec<Arc<SavedPart>>,
    /// How many of that one's are done, in the order of keys.
    done: usize,
    /// The next event.
    next: Revision,
}

impl Store {
    /// Returns what the last checkpoint has.
    pub fn saved(&self) -> &Saved {
        &self.saved
    }

    /// Takes note of a new checkpoint of this store, and returns the parts that it does not have any
    /// more. [`Store::settle_step`] does the rest; whoever holds those parts until that is done spares the
    /// last step to unmap them.
    pub fn adopt(&mut self, saved: Saved) -> Vec<Arc<SavedPart>> {
        let before = self.settling.take();
        let waiting = before.as_ref().map_or(&[][..], |settling| &settling.parts);
        let both = self.saved.parts.iter().zip(&saved.parts);
        let stay = both.take_while(|(old, new)| Arc::ptr_eq(old, new)).count();
        let waits = |part: &Arc<SavedPart>| waiting.iter().any(|other| Arc::ptr_eq(other, part));
        let wanted = |(at, part): &(usize, &Arc<SavedPart>)| *at >= stay || waits(part);
        let new = saved.parts.iter().enumerate().rev().filter(wanted);
        let parts: Vec<_> = new.map(|(_, part)| part.clone()).collect();
        // Events before the first of them were settled with the parts before it.
        let first = parts.last().map(|part| Revision { main: part.version(0).main(), sub: 0 });
        let next = before.iter().map(|settling| settling.next).chain(first).min();
        self.settling = next.map(|next| Settling { parts, done: 0, next });
        let buried = self.graves.partition_point(|version| version.main() <= saved.revision);
        self.graves.drop_front(buried);
        let before = std::mem::replace(&mut self.saved, saved);
        before.parts.into_iter().skip(stay).filter(|part| !self.saved.has(part)).collect()
    }

    /// Lets go of some versions that a checkpoint has, up to `versions_max`; tells whether there is
    /// more to do.
    pub fn settle_step(&mut self, versions_max: usize) -> bool {
        let Some(mut settling) = self.settling.take() else { return false };
        let more = if let Some(part) = settling.parts.last() {
            settling.done = self.settle_keys(part, settling.done, versions_max);
            if settling.done >= part.count() {
                settling.parts.pop();
                settling.done = 0;
            }
            true
        } else {
            let next = self.settle_events(settling.next, versions_max);
            settling.next = next.unwrap_or(settling.next);
            next.is_some()
        };
        self.settling = more.then_some(settling);
        more
    }

    /// Goes on in a part's order of keys and returns how far it came.
    fn settle_keys(&mut self, part: &Arc<SavedPart>, done: usize, versions_max: usize) -> usize {
        let end = part.count().min(done.saturating_add(versions_max.max(1)));
        let mut at = done;
        while at < end {
            let first = part.version(part.in_order_of_keys(at));
            let settle = |records: &mut [Record]| settle_leaf(records, part, at..end);
            at = self.state.keys.change_leaf(first.key(), settle);
        }
        at
    }

    /// Goes on in the log and returns the next event, if there is one.
    fn settle_events(&mut self, next: Revision, versions_max: usize) -> Option<Revision> {
        let saved = &self.saved;
        let log = &mut self.state.log;
        let is_wanted = |version: &Version| is_needed(version, saved);
        let from = log.partition_point(|version| version.revision() < next);
        let passed_max = versions_max.saturating_mul(PASSED_FOR_ONE);
        let passed = log.iter_from(from).take(passed_max).take_while(|version| !is_wanted(version));
        let first = from + passed.count();
        let mut finder = Finder { saved, hint: None };
        log.change(first, versions_max.max(1), is_wanted, |version| {
            if let Some(found) = finder.find(version.revision()) {
                *version = found;
            }
        });
        log.get(first + versions_max.max(1)).map(Version::revision)
    }
}

/// Tells whether a version should be referred to in a part, and is not.
fn is_needed(version: &Version, saved: &Saved) -> bool {
    match version.part() {
        Some(part) => !saved.has(part),
        None => version.main() <= saved.revision,
    }
}

/// Settles those records that are next to each other, and returns how far in the part's order of keys
/// it came: at least one further.
fn settle_leaf(records: &mut [Record], part: &Arc<SavedPart>, range: Range<usize>) -> usize {
    let version = |at| part.version(part.in_order_of_keys(at));
    let (mut index, mut at, mut same) = (0, range.start, Vec::new());
    while at < range.end {
        let first = version(at);
        let key = first.key();
        index += records[index..].iter().take_while(|record| record.key() < key).count();
        if index == records.len() && at > range.start {
            return at;
        }
        same.clear();
        same.extend((at..range.end).map(version).take_while(|version| version.key() == key));
        // Where it is not there, it was compacted meanwhile.
        if let Some(record) = records.get_mut(index).filter(|record| record.key() == key) {
            record.replace(&same);
        }
        at += same.len();
    }
    at
}

/// Finds versions in parts; fast where they are asked for in their order.
struct Finder<'a> {
    saved: &'a Saved,
    /// The one after the last that was found.
    hint: Option<(&'a Arc<SavedPart>, usize)>,
}

impl Finder<'_> {
    fn find(&mut self, revision: Revision) -> Option<Version> {
        let hinted = self
            .hint
            .filter(|(part, at)| *at < part.count() && part.version(*at).revision() == revision);
        let (part, at) = hinted.or_else(|| {
            let parts = &self.saved.parts;
            let from = parts.partition_point(|part| part.last() < revision.main);
            // One revision may begin in a part and go on in the next ones.
            let may_have = |part: &&Arc<SavedPart>| part.version(0).main() <= revision.main;
            let mut parts = parts[from..].iter().take_while(may_have);
            parts.find_map(|part| Some((part, part.find(revision)?)))
        })?;
        self.hint = Some((part, at + 1));
        Some(part.version(at))
    }
}
