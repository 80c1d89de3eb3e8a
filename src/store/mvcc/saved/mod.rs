//! The versions that a checkpoint has: in files that are written once and mapped.
//!
//! ```text
//!  revisions  1 ────────────────────▶ 700 ────▶ 820 ▶ 860 ▶ now
//!             part                    part      part  Making: what is newer, in the next part
//!             in the order of revisions, with its versions' order of keys behind them
//!
//!  View ─ Making ─▶ bytes of parts ─ (store::checkpoint writes and maps them) ─▶ Saved
//!    ▲                                                                             │
//!    ├── settle: versions in memory become places in parts, in steps ◀─────────────┤
//!    └── load: a tree and a log of events of parts alone, at a start ◀─────────────┘
//! ```
//! A small part that is not larger than what comes after it is written anew together with that, as in
//! `store::mvcc::sequence`: so there are few, and a version is written as often as it takes to double
//! from one checkpoint to a part that is large enough. What a compaction dropped is left out whenever a
//! part is written anew; once more is dropped than there is, all parts are. So nothing ever has to be
//! defragmented.
//!
//! Pure: bytes come out of here, and bytes that are mapped come in.
//!
//! Files: `part` reads one, `write` makes one, `making` decides what goes into the next, `load` makes a
//! store of them, `settle` makes a store that runs refer to them.

mod load;
mod making;
mod part;
mod settle;
#[cfg(test)]
pub(crate) mod tests;
mod write;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::store::mvcc::lease::Lease;
pub use crate::store::mvcc::saved::making::{Making, Piece};
pub use crate::store::mvcc::saved::part::{FORMAT, PartError, SavedPart};
pub(super) use crate::store::mvcc::saved::settle::Settling;
use crate::store::mvcc::view::View;

/// When something is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// A block, in bytes.
    pub block_bytes: usize,
    /// A part, in bytes.
    pub part_bytes: u64,
    /// A part, in versions.
    pub part_versions: usize,
    /// Which part of a full one is large enough to be merged with no other any more: one in so many.
    pub enough: usize,
}

impl Sizes {
    /// What the product writes. A block: enough that its checksum does not matter, little enough to be
    /// held. A part: what is sorted at once; each version takes three dozen bytes meanwhile. Enough: less
    /// than what a checkpoint under load has, so that this is written once.
    pub const PRODUCT: Self =
        Self { block_bytes: 256 << 10, part_bytes: 64 << 20, part_versions: 1 << 18, enough: 8 };

    fn is_enough(&self, part: &SavedPart) -> bool {
        part.bytes() >= self.part_bytes / self.enough as u64
            || part.count() >= self.part_versions / self.enough
    }
}

/// All that parts have.
#[derive(Debug, Clone, Default)]
pub struct Saved {
    /// In the order of revisions.
    pub parts: Vec<Arc<SavedPart>>,
    /// The revision up to which nothing is missing in them.
    pub revision: i64,
}

impl Saved {
    /// Returns how many bytes the versions in them count for.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes()).sum()
    }

    /// Tells whether it has a part: soonest of the newest, about which it is asked most.
    fn has(&self, part: &Arc<SavedPart>) -> bool {
        self.parts.iter().rev().any(|own| Arc::ptr_eq(own, part))
    }
}

/// What a store is beside its versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The revision of its last change.
    pub revision: i64,
    /// The revision of its last compaction.
    pub compact_revision: i64,
    /// Its leases, their ids going up.
    pub leases: Vec<Lease>,
}

impl Head {
    /// Returns the head of a view.
    pub fn of(view: &View) -> Self {
        Self {
            revision: view.revision,
            compact_revision: view.compact_revision,
            leases: view.leases().copied().collect(),
        }
    }
}
