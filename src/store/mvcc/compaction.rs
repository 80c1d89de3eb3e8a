//! Forgetting history: at once for readers, in steps for memory.
//!
//! A compaction takes effect when it is applied. What it drops is freed by [`Store::compact_step`]
//! between batches, so that no batch waits for a large one. The events up to the revision say which
//! keys have something to drop; those before it are dropped with them.

use crate::store::mvcc::error::MvccError;
use crate::store::mvcc::store::Store;
use crate::store::mvcc::version::Version;

/// How many events go from the log at once: what stays of a chunk of it is copied each time.
const FORGOTTEN_TOGETHER: usize = 4096;

/// How far the steps have come.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sweep {
    /// How many events at the front of the log are done with, and go.
    swept: usize,
    /// How many after them are done with, and stay: those of the compacted revision itself.
    kept: usize,
}

impl Store {
    /// Compacts the history before `revision`.
    pub fn compact(&mut self, revision: i64) -> Result<(), MvccError> {
        let compact_revision = self.state.compact_revision;
        if revision <= compact_revision {
            return Err(MvccError::Compacted { compact_revision });
        }
        if revision > self.state.revision {
            return Err(MvccError::FutureRevision { current: self.state.revision });
        }
        self.state.compact_revision = revision;
        self.sweep = Some(Sweep::default());
        Ok(())
    }

    /// Frees what the last compaction dropped, looking at up to `events_max` events; tells whether
    /// there is more to do.
    pub fn compact_step(&mut self, events_max: usize) -> bool {
        let Some(Sweep { mut swept, mut kept }) = self.sweep else { return false };
        let revision = self.state.compact_revision;
        let events_max = events_max.max(1);
        let events = self.state.log.iter_from(swept + kept).take(events_max);
        let versions: Vec<_> =
            events.cloned().take_while(|version| version.main() <= revision).collect();
        for version in &versions {
            self.compact_key(version.key(), revision);
        }
        let before = versions.partition_point(|version| version.main() < revision);
        swept += before;
        // Those of the revision itself come after all that go.
        kept += versions.len() - before;
        let finished = versions.len() < events_max;
        if finished || swept >= FORGOTTEN_TOGETHER {
            self.forget(swept);
            swept = 0;
        }
        self.sweep = (!finished).then_some(Sweep { swept, kept });
        !finished
    }

    /// Drops the first `count` events.
    fn forget(&mut self, count: usize) {
        // Also before the first checkpoint: one may be in the making, of a copy that still has what
        // was deleted since.
        let dropped = self.state.log.iter_from(0).take(count);
        let unsaved = dropped.filter(|version| version.main() > self.saved.revision);
        let graves = unsaved.filter(|version| version.is_tombstone());
        graves.for_each(|version| self.graves.push(version.clone()));
        self.state.log.drop_front(count);
    }

    fn compact_key(&mut self, key: &[u8], revision: i64) {
        // A key that was deleted was dropped with its first event; its later ones find nothing.
        let Some(record) = self.state.keys.get(key) else { return };
        let dropped = record.dropped_by(revision);
        if dropped.versions == 0 {
            return;
        }
        let bytes: u64 = record.versions().take(dropped.versions).map(Version::bytes).sum();
        self.state.usage.total_bytes -= bytes;
        if dropped.all {
            self.state.keys.remove(key);
        } else {
            self.state.keys.update(key, |record| record.drop_oldest(dropped.versions));
        }
    }
}
