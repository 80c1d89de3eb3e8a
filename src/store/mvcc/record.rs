//! What the index keeps of a key: its newest version, and older ones until they are compacted.

use crate::store::mvcc::range::field_bytes;
use crate::store::mvcc::revision::Revision;
use crate::store::mvcc::sequence::Sequence;
use crate::store::mvcc::tree::Entry;
use crate::store::mvcc::version::Version;

/// A key with its history. A tombstone ends a generation of the key; the next put begins another.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    head: Version,
    /// In order, without `head`; empty, and then without memory, for a key written once.
    older: Sequence<Version>,
}

impl Entry for Record {
    fn key(&self) -> &[u8] {
        self.head.key()
    }

    fn is_live(&self) -> bool {
        !self.head.is_tombstone()
    }

    /// Returns how long its newest version is in an answer.
    fn bytes(&self) -> usize {
        field_bytes(&self.head)
    }
}

/// What compacting a record did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dropped {
    /// How many of the oldest versions go.
    pub(crate) versions: usize,
    /// Whether nothing is left.
    pub(crate) all: bool,
}

impl Record {
    /// Makes the record of a key with one version.
    pub(crate) fn new(version: Version) -> Self {
        Self { head: version, older: Sequence::default() }
    }

    /// Returns the newest version, which may be a tombstone.
    pub(crate) fn head(&self) -> &Version {
        &self.head
    }

    /// Returns the newest version unless it is a tombstone.
    pub(crate) fn live(&self) -> Option<&Version> {
        self.is_live().then_some(&self.head)
    }

    /// Adds a newer version.
    pub(crate) fn push(&mut self, version: Version) {
        self.older.push(std::mem::replace(&mut self.head, version));
    }

    /// Returns the newest version written at or before a revision, which may be a tombstone.
    pub(crate) fn at(&self, revision: i64) -> Option<&Version> {
        if revision == i64::MAX || self.head.main() <= revision {
            return Some(&self.head);
        }
        let after = self.older.partition_point(|version| version.main() <= revision);
        self.older.get(after.checked_sub(1)?)
    }

    /// Returns the version that a reader at a revision sees.
    pub(crate) fn live_at(&self, revision: i64) -> Option<&Version> {
        self.at(revision).filter(|version| !version.is_tombstone())
    }

    /// Walks all versions, the oldest first.
    pub(crate) fn versions(&self) -> impl Iterator<Item = &Version> {
        self.versions_from(0)
    }

    /// Walks the versions without the oldest `skip`.
    pub(crate) fn versions_from(&self, skip: usize) -> impl Iterator<Item = &Version> {
        let head = (skip <= self.older.len()).then_some(&self.head);
        self.older.iter_from(skip).chain(head)
    }

    /// Returns what a compaction at `revision` drops.
    ///
    /// A version stays if it was written at `revision` or later, or if readers at `revision` see
    /// it. So a tombstone at exactly `revision` stays: watchers may begin there.
    pub(crate) fn dropped_by(&self, revision: i64) -> Dropped {
        // Most records that are asked have been swept already: their second version says so.
        let mut oldest = self.versions();
        if let (Some(first), Some(second)) = (oldest.next(), oldest.next())
            && second.main() > revision
            && !first.is_tombstone()
        {
            return Dropped { versions: 0, all: false };
        }
        let older = self.older.partition_point(|version| version.main() < revision);
        if older == self.older.len() && self.head.main() < revision {
            let all = self.head.is_tombstone();
            return Dropped { versions: older + usize::from(all), all };
        }
        let next = self.older.get(older).unwrap_or(&self.head);
        let seen = older > 0
            && next.main() > revision
            && self.older.get(older - 1).is_some_and(|version| !version.is_tombstone());
        Dropped { versions: older - usize::from(seen), all: false }
    }

    /// Tells whether it has a version that a compaction at `compacted` keeps.
    pub(crate) fn keeps(&self, revision: Revision, compacted: i64) -> bool {
        let dropped = self.dropped_by(compacted);
        if self.head.revision() == revision {
            return !dropped.all;
        }
        let at = self.older.partition_point(|version| version.revision() < revision);
        let found = self.older.get(at).is_some_and(|version| version.revision() == revision);
        found && at >= dropped.versions
    }

    /// Puts versions, which are in order, in the places of those that say the same, where these are
    /// there.
    pub(crate) fn replace(&mut self, versions: &[Version]) {
        let (Some(first), Some(last)) = (versions.first(), versions.last()) else { return };
        let (first, last) = (first.revision(), last.revision());
        let from = self.older.partition_point(|older| older.revision() < first);
        let upto = self.older.partition_point(|older| older.revision() <= last);
        let mut versions = versions.iter().peekable();
        let mut take = |place: &mut Version| {
            let revision = place.revision();
            while versions.next_if(|version| version.revision() < revision).is_some() {}
            if let Some(same) = versions.next_if(|version| version.revision() == revision) {
                *place = same.clone();
            }
        };
        self.older.change(from, upto - from, |_| true, &mut take);
        take(&mut self.head);
    }

    /// Drops the oldest versions.
    pub(crate) fn drop_oldest(&mut self, count: usize) {
        self.older.drop_front(count);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::mvcc::version::KeyValue;

    fn put(main: i64) -> Version {
        let fields = KeyValue {
            key: b"k",
            create_revision: 1,
            mod_revision: main,
            version: 1,
            ..KeyValue::default()
        };
        Version::new(&fields, 0, &mut Vec::new())
    }

    fn tombstone(main: i64) -> Version {
        let fields = KeyValue { key: b"k", mod_revision: main, ..KeyValue::default() };
        Version::new(&fields, 0, &mut Vec::new())
    }

    fn left(versions: &[Version], compacted_at: i64) -> Vec<i64> {
        let mut record = Record::new(versions[0].clone());
        for version in &versions[1..] {
            record.push(version.clone());
        }
        let dropped = record.dropped_by(compacted_at);
        if dropped.all {
            assert_eq!(dropped.versions, versions.len());
            return Vec::new();
        }
        record.drop_oldest(dropped.versions);
        record.versions().map(Version::main).collect()
    }

    #[test]
    fn compaction_keeps_what_readers_at_its_revision_see() {
        let history = [put(2), put(4), tombstone(6), put(8)];
        assert_eq!(left(&history, 1), [2, 4, 6, 8]);
        assert_eq!(left(&history, 2), [2, 4, 6, 8]);
        assert_eq!(left(&history, 3), [2, 4, 6, 8]);
        assert_eq!(left(&history, 4), [4, 6, 8]);
        assert_eq!(left(&history, 5), [4, 6, 8]);
        assert_eq!(left(&history, 6), [6, 8], "a tombstone at exactly the revision stays");
        assert_eq!(left(&history, 7), [8]);
        assert_eq!(left(&history, 9), [8]);
    }

    #[test]
    fn versions_take_the_places_of_their_equals_wherever_others_are_between() {
        let record = |mains: &[i64]| {
            let mut record = Record::new(put(mains[0]));
            mains[1..].iter().for_each(|main| record.push(put(*main)));
            record
        };
        let all: Vec<i64> = (1..200).collect();
        let cases: [(&[i64], &[i64]); 7] = [
            (&all, &all),
            (&all, &[1, 100, 199]),
            (&all, &[150, 151, 152]),
            (&all, &[199]),
            (&[5], &[3, 5, 7]),
            (&[5, 9], &[1, 2, 3, 5, 6, 9]),
            (&[5, 9], &[1, 6]),
        ];
        for (mains, others) in cases {
            let mut record = record(mains);
            let others: Vec<_> = others.iter().map(|main| put(*main)).collect();
            let is_one = |version: &Version| {
                others.iter().any(|other| std::ptr::eq(other.encoded(), version.encoded()))
            };
            record.replace(&others);
            let found: Vec<_> = record.versions().map(Version::main).collect();
            assert_eq!(found, mains, "nothing else has changed");
            for version in record.versions() {
                assert_eq!(is_one(version), others.contains(version), "{}", version.main());
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_dropped_is_what_nobody_at_the_revision_or_later_sees(
            deletes in proptest::collection::vec(any::<bool>(), 1..12),
            revision in 0_i64..30,
        ) {
            let versions = deletes.iter().zip((2..).step_by(2));
            let history: Vec<_> =
                versions.map(|(delete, main)| if *delete { tombstone(main) } else { put(main) }).collect();
            let seen = history.iter().rfind(|version| version.main() <= revision);
            let is_kept = |version: &&Version| {
                version.main() >= revision || (Some(*version) == seen && !version.is_tombstone())
            };
            let kept: Vec<_> = history.iter().filter(is_kept).map(Version::main).collect();
            prop_assert_eq!(left(&history, revision), kept);
        }
    }

    #[test]
    fn a_key_that_was_gone_before_leaves_nothing() {
        assert_eq!(left(&[put(2), tombstone(3)], 3), [3]);
        assert_eq!(left(&[put(2), tombstone(3)], 4), [0; 0]);
        assert_eq!(left(&[put(2), put(3)], 9), [3]);
    }
}
