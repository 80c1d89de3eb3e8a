//! What goes into the next parts, and their bytes, piece by piece.

use std::cmp::Reverse;
use std::sync::Arc;

use crate::store::mvcc::revision::NEVER_COMPACTED;
use crate::store::mvcc::saved::Sizes;
use crate::store::mvcc::saved::part::SavedPart;
use crate::store::mvcc::saved::write::Writer;
use crate::store::mvcc::store::Store;
use crate::store::mvcc::tree::Entry as _;
use crate::store::mvcc::version::Version;
use crate::store::mvcc::view::View;

/// How many keys are walked over before the next one is looked up.
const WALKED_MAX: usize = 8;

/// Parts in the making: it may be walked beside the writer.
#[derive(Debug)]
pub struct Making {
    view: View,
    kept: Vec<Arc<SavedPart>>,
    /// Parts that are written anew, the first one last.
    anew: Vec<Arc<SavedPart>>,
    /// Where in the part that is written anew it stands.
    at: Option<Within>,
    /// What no part has and the log does not say any more: the first one last.
    loose: Vec<Version>,
    /// Whether what a compaction dropped may have to be told: that a key is gone which a part that
    /// stays still has.
    tells_graves: bool,
    /// The place in the log of the next event.
    log_at: usize,
    part: Writer,
    sizes: Sizes,
}

/// A part that is written anew.
#[derive(Debug)]
struct Within {
    part: Arc<SavedPart>,
    /// For each version whether it is still there; `None` if all are.
    there: Option<Vec<bool>>,
    at: usize,
}

/// The next bytes of a part.
#[derive(Debug)]
pub struct Piece {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Whether they end the part.
    pub is_last: bool,
}

impl Making {
    /// Decides which parts stay, and begins to make those that do not have to.
    pub fn new(store: &Store, sizes: Sizes) -> Self {
        let (view, saved) = (store.view(), &store.saved);
        let mut loose = seen_and_not_saved(&view, saved.revision);
        let from = view.compact_revision.max(saved.revision + 1);
        let log_at = view.log.partition_point(|event| event.main() < from);
        let newer = view.log.iter_from(log_at).map(Version::bytes);
        let mut new_bytes: u64 = loose.iter().map(Version::bytes).chain(newer).sum();
        let there = view.usage.total_bytes;
        let dropped = (saved.bytes() + new_bytes).saturating_sub(there);
        let (mut kept, mut anew) = (saved.parts.clone(), Vec::new());
        while let Some(last) = kept.last()
            && (dropped > there || (last.bytes() <= new_bytes && !sizes.is_enough(last)))
        {
            new_bytes += last.bytes();
            anew.extend(kept.pop());
        }
        let tells_graves = !kept.is_empty();
        if tells_graves {
            loose.extend(graves(store));
        }
        loose.sort_unstable_by_key(|version| Reverse(version.revision()));
        let part = Writer::new(sizes);
        Self { view, kept, anew, at: None, loose, tells_graves, log_at, part, sizes }
    }

    /// Returns the parts that stay as they are; those that are made come after them.
    pub fn kept(&self) -> &[Arc<SavedPart>] {
        &self.kept
    }

    /// Returns the revision up to which nothing is missing once they are made.
    pub fn revision(&self) -> i64 {
        self.view.revision
    }

    /// Returns the next bytes; each part's come one after the other.
    pub fn next_piece(&mut self) -> Option<Piece> {
        if !self.part.is_full() {
            self.fill_block();
        }
        let bytes = self.part.end_block();
        if !bytes.is_empty() {
            return Some(Piece { bytes, is_last: false });
        }
        if self.part.is_empty() {
            return None;
        }
        let part = std::mem::replace(&mut self.part, Writer::new(self.sizes));
        // Where a grave may be in it, it has to be looked through again when it is written anew.
        let compacted =
            if self.tells_graves { NEVER_COMPACTED } else { self.view.compact_revision };
        Some(Piece { bytes: part.end(compacted), is_last: true })
    }

    /// Takes versions until a block is full, or the part is, or there are no more.
    fn fill_block(&mut self) {
        while let Some(version) = self.next_anew().or_else(|| self.loose.pop()) {
            self.part.push(version);
            if self.part.block_is_full() || self.part.is_full() {
                return;
            }
        }
        for event in self.view.log.iter_from(self.log_at) {
            self.part.push(event.clone());
            self.log_at += 1;
            if self.part.block_is_full() || self.part.is_full() {
                return;
            }
        }
    }

    /// Returns the next version of the parts that are written anew, and is still there.
    fn next_anew(&mut self) -> Option<Version> {
        loop {
            if self.at.is_none() {
                let part = self.anew.pop()?;
                let there = self.still_there(&part);
                self.at = Some(Within { part, there, at: 0 });
            }
            let within = self.at.as_mut()?;
            while within.at < within.part.count() {
                let at = within.at;
                within.at += 1;
                if within.there.as_ref().is_none_or(|there| there[at]) {
                    return Some(within.part.version(at));
                }
            }
            self.at = None;
        }
    }

    /// Tells for each version of a part whether it is to be written again; `None` if all are.
    fn still_there(&self, part: &Arc<SavedPart>) -> Option<Vec<bool>> {
        let compacted = self.view.compact_revision;
        if part.compact_revision() == compacted {
            return None;
        }
        let mut there = vec![false; part.count()];
        let mut records = self.view.keys.iter().peekable();
        for at in (0..part.count()).map(|at| part.in_order_of_keys(at)) {
            let version = part.version(at);
            let key = version.key();
            let mut walked = 0;
            while records.peek().is_some_and(|record| record.key() < key) {
                if walked == WALKED_MAX {
                    records = self.view.keys.iter_from(key).peekable();
                    break;
                }
                records.next();
                walked += 1;
            }
            let record = records.peek().filter(|record| record.key() == key);
            let kept = record.is_some_and(|record| record.keeps(version.revision(), compacted));
            there[at] = kept || (self.tells_graves && version.is_tombstone());
        }
        Some(there)
    }
}

/// Returns what a compaction has kept of the revisions that are neither in a part nor in the log.
fn seen_and_not_saved(view: &View, saved: i64) -> Vec<Version> {
    let compacted = view.compact_revision;
    let mut seen = Vec::new();
    if saved + 1 >= compacted {
        return seen;
    }
    for record in view.keys.iter() {
        // Where the head is in a part, so are those before it: they are not even looked at.
        if record.head().part().is_some_and(|part| part.last() <= saved) {
            continue;
        }
        let dropped = record.dropped_by(compacted);
        let kept = record.versions_from(dropped.versions);
        let missing = kept.filter(|version| (saved + 1..compacted).contains(&version.main()));
        seen.extend(missing.cloned());
    }
    seen
}

/// Returns the deletions that a compaction has dropped, or will, before a part had them.
fn graves(store: &Store) -> impl Iterator<Item = Version> {
    let (log, saved) = (&store.state.log, store.saved.revision);
    let from = log.partition_point(|event| event.main() <= saved);
    let dropped = |version: &&Version| version.main() < store.state.compact_revision;
    let waiting = log.iter_from(from).take_while(dropped);
    let waiting = waiting.filter(|version| version.is_tombstone());
    store.graves.iter_from(0).chain(waiting).cloned()
}
