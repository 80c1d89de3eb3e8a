//! What changed, revision by revision, and how a watcher follows it.
//!
//! A watcher is a revision to go on from: it has no queue, and being slow costs nothing.

use crate::store::mvcc::error::MvccError;
use crate::store::mvcc::key_range::KeyRange;
use crate::store::mvcc::version::{KeyValue, Version};
use crate::store::mvcc::view::View;
use crate::store::mvcc::wire;

// Fields of an `Event`, with their wire types.
const TYPE: u8 = 1 << 3;
const DELETE: u8 = 1;
const KV: u8 = 2 << 3 | 2;
const PREV_KV: u8 = 3 << 3 | 2;

/// Appends the protobuf `Event` of a version and of what was there before.
pub fn encode(version: &Version, before: Option<&Version>, out: &mut Vec<u8>) {
    if version.is_tombstone() {
        out.extend_from_slice(&[TYPE, DELETE]);
    }
    wire::put_field(out, KV, &[version.encoded()]);
    if let Some(before) = before {
        wire::put_field(out, PREV_KV, &[before.encoded()]);
    }
}

/// Which events a watcher does not want.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct EventFilter {
    /// Not those of puts.
    pub no_put: bool,
    /// Not those of deletes.
    pub no_delete: bool,
}

impl EventFilter {
    fn lets_through(self, event: &Version) -> bool {
        !if event.is_tombstone() { self.no_delete } else { self.no_put }
    }
}

/// How much one step of following may do; the revision at which it is reached is finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FollowBudget {
    /// Events to look at.
    pub scanned_max: usize,
    /// Bytes of events to return.
    pub bytes_max: u64,
}

/// What happened since a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Followed {
    /// What was written, in order: whole revisions. A tombstone says that its key was deleted.
    pub events: Vec<Version>,
    /// The revision to go on from.
    pub next: i64,
}

impl View {
    /// Walks all events of a revision and later ones.
    pub fn events(&self, from: i64) -> Result<impl Iterator<Item = &Version>, MvccError> {
        if from < self.compact_revision {
            return Err(MvccError::Compacted { compact_revision: self.compact_revision });
        }
        let first = self.log.partition_point(|event| event.main() < from);
        Ok(self.log.iter_from(first))
    }

    /// Returns the events of a range from a revision on, until the budget is used.
    ///
    /// A revision of the future is waited for: nothing is returned, and it stays the next.
    pub fn follow<B: AsRef<[u8]>>(
        &self,
        from: i64,
        range: &KeyRange<B>,
        filter: EventFilter,
        budget: FollowBudget,
    ) -> Result<Followed, MvccError> {
        let mut events = Vec::new();
        let (mut bytes, mut done) = (0, 0);
        for (scanned, event) in self.events(from)?.enumerate() {
            let main = event.main();
            let used = scanned >= budget.scanned_max || bytes >= budget.bytes_max;
            if used && done != 0 && main != done {
                return Ok(Followed { events, next: main });
            }
            done = main;
            if range.contains(event.key()) && filter.lets_through(event) {
                bytes += event.bytes();
                events.push(event.clone());
            }
        }
        Ok(Followed { events, next: from.max(self.revision + 1) })
    }

    /// Returns what readers saw of a key before the revision of an event. What was before the compacted
    /// revision cannot be read, so it is not told either; nor is what was there before a key was created,
    /// which one revision can delete and put.
    pub fn before(&self, event: &Version) -> Option<&Version> {
        let KeyValue { key, create_revision, mod_revision, .. } = event.fields();
        if mod_revision <= self.compact_revision || create_revision == mod_revision {
            return None;
        }
        self.keys.get(key)?.live_at(mod_revision - 1)
    }
}
