//! What changed, revision by revision, and how a watcher follows it.
//!
//! A watcher is a revision to go on from: it has no queue, and being slow costs nothing.

use crate::store::mvcc::error::MvccError;
use crate::store::mvcc::key_range::KeyRange;
use crate::store::mvcc::version::Version;
use crate::store::mvcc::view::View;
use crate::store::mvcc::wire;

/// A key was put or deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub(super) version: Version,
    pub(super) prev: Option<Version>,
}

// Fields of an `Event`, with their wire types.
const TYPE: u8 = 1 << 3;
const DELETE: u8 = 1;
const KV: u8 = 2 << 3 | 2;
const PREV_KV: u8 = 3 << 3 | 2;

impl Event {
    pub(super) fn new(version: Version, prev: Option<Version>) -> Self {
        Self { version, prev }
    }

    /// Returns what was written: a tombstone if the key was deleted.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// Returns what readers saw before this revision; of those that are followed, `None` too if that
    /// is compacted, or if the key is created here.
    pub fn prev(&self) -> Option<&Version> {
        self.prev.as_ref()
    }

    /// Returns the key.
    pub fn key(&self) -> &[u8] {
        self.version.key()
    }

    /// Appends the protobuf `Event`.
    pub fn encode(&self, with_prev: bool, out: &mut Vec<u8>) {
        if self.version.is_tombstone() {
            out.extend_from_slice(&[TYPE, DELETE]);
        }
        wire::put_field(out, KV, &[self.version.encoded()]);
        if let Some(prev) = self.prev.as_ref().filter(|_| with_prev) {
            wire::put_field(out, PREV_KV, &[prev.encoded()]);
        }
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
    fn lets_through(self, event: &Event) -> bool {
        !if event.version.is_tombstone() { self.no_delete } else { self.no_put }
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
    /// Whole revisions, in order.
    pub events: Vec<Event>,
    /// The revision to go on from.
    pub next: i64,
}

impl View {
    /// Walks all events of a revision and later ones.
    pub fn events(&self, from: i64) -> Result<impl Iterator<Item = &Event>, MvccError> {
        if from < self.compact_revision {
            return Err(MvccError::Compacted { compact_revision: self.compact_revision });
        }
        let first = self.log.partition_point(|event| event.version.main() < from);
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
            let main = event.version.main();
            let used = scanned >= budget.scanned_max || bytes >= budget.bytes_max;
            if used && done != 0 && main != done {
                return Ok(Followed { events, next: main });
            }
            done = main;
            if range.contains(event.key()) && filter.lets_through(event) {
                bytes += event.version.bytes();
                events.push(self.deliverable(event));
            }
        }
        Ok(Followed { events, next: from.max(self.revision + 1) })
    }

    /// What was before the compacted revision cannot be read, so it is not told either; nor is what
    /// was there before a key was created, which one revision can delete and put.
    fn deliverable(&self, event: &Event) -> Event {
        let main = event.version.main();
        let told = main > self.compact_revision && event.version.fields().create_revision != main;
        Event { version: event.version.clone(), prev: event.prev.clone().filter(|_| told) }
    }
}
