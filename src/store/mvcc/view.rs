//! What a reader holds: the whole store as it was at one moment.

use crate::store::mvcc::error::MvccError;
use crate::store::mvcc::key_range::KeyRange;
use crate::store::mvcc::lease::Leases;
use crate::store::mvcc::record::Record;
use crate::store::mvcc::revision;
use crate::store::mvcc::sequence::Sequence;
use crate::store::mvcc::tree::{Entry as _, Live, Tree};
use crate::store::mvcc::version::Version;

/// How many bytes keys and values take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// All versions that are kept: what a quota is about.
    pub total_bytes: u64,
    /// The newest version of each key that exists.
    pub live_bytes: u64,
}

/// The store at one moment. Cloning it takes a few counters; a clone does not change.
#[derive(Debug, Clone)]
pub struct View {
    pub(super) revision: i64,
    pub(super) compact_revision: i64,
    pub(super) keys: Tree<Record>,
    /// Every version from the compacted revision on, in the order of revisions.
    pub(super) log: Sequence<Version>,
    pub(super) leases: Leases,
    pub(super) usage: Usage,
}

impl Default for View {
    fn default() -> Self {
        Self {
            revision: revision::FIRST,
            compact_revision: revision::NEVER_COMPACTED,
            keys: Tree::default(),
            log: Sequence::default(),
            leases: Leases::default(),
            usage: Usage::default(),
        }
    }
}

/// The revision as which readers see the newest version of all, also of a transaction that is not
/// finished.
pub(super) const NEWEST: i64 = i64::MAX;

impl View {
    /// Returns the revision of the last change.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// Returns the revision of the last compaction, before which nothing can be read; -1 if there
    /// was none.
    pub fn compact_revision(&self) -> i64 {
        self.compact_revision
    }

    /// Returns how many bytes keys and values take.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// Returns how many keys exist.
    pub fn keys_count(&self) -> usize {
        self.keys.live().count
    }

    /// Returns the newest version of a key that exists.
    pub fn get(&self, key: &[u8]) -> Option<&Version> {
        self.keys.get(key)?.live()
    }

    /// Turns the revision of a request into one that records are asked with.
    pub(super) fn readable(&self, revision: i64) -> Result<i64, MvccError> {
        if revision <= 0 {
            return Ok(NEWEST);
        }
        if revision > self.revision {
            return Err(MvccError::FutureRevision { current: self.revision });
        }
        if revision < self.compact_revision {
            return Err(MvccError::Compacted { compact_revision: self.compact_revision });
        }
        Ok(revision)
    }

    /// Walks what readers at a readable revision see of a range, in the order of keys.
    pub(super) fn seen<'v>(
        &'v self,
        range: KeyRange<&'v [u8]>,
        at: i64,
    ) -> impl Iterator<Item = &'v Version> {
        // A key alone is asked for far more often than it is walked to.
        let one = match range {
            KeyRange::One(key) => Some(self.keys.get(key)),
            KeyRange::Span { .. } | KeyRange::From(_) => None,
        };
        let many = one.is_none().then(|| self.keys.iter_from(range.start()));
        let many = many.into_iter().flatten().take_while(move |record| range.reaches(record.key()));
        one.flatten().into_iter().chain(many).filter_map(move |record| record.live_at(at))
    }

    /// Returns how many keys of a range exist, and how many bytes an answer has of them: two look-ups.
    pub(super) fn newest(&self, range: KeyRange<&[u8]>) -> Live {
        match range {
            KeyRange::One(key) => self.keys.get(key).map(Record::counted).unwrap_or_default(),
            KeyRange::Span { .. } if range.is_empty() => Live::default(),
            KeyRange::Span { from, to } => self.keys.live_before(to) - self.keys.live_before(from),
            KeyRange::From(from) => self.keys.live() - self.keys.live_before(from),
        }
    }

    /// Counts what readers at a readable revision see of a range.
    ///
    /// At the newest revision that is two look-ups; before, it is what has changed since or the
    /// keys of the range, whichever are fewer.
    pub(super) fn count(&self, range: KeyRange<&[u8]>, at: i64) -> usize {
        if matches!(range, KeyRange::One(_)) {
            return self.seen(range, at).count();
        }
        let newest = self.newest(range).count;
        if at == NEWEST {
            return newest;
        }
        let since = self.log.partition_point(|event| event.main() <= at);
        if self.log.len() - since > newest {
            return self.seen(range, at).count();
        }
        let mut changed: Vec<&[u8]> = self.log.iter_from(since).map(Version::key).collect();
        changed.retain(|key| range.contains(key));
        changed.sort_unstable();
        changed.dedup();
        let records = || changed.iter().filter_map(|key| self.keys.get(key));
        let now = records().filter(|record| record.is_live()).count();
        let then = records().filter(|record| record.live_at(at).is_some()).count();
        newest - now + then
    }
}
