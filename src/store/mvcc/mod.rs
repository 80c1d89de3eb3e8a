//! The multi-version engine: every version of every key since the last compaction, in memory.
//!
//! ```text
//!  one writer                                                       many readers
//!  Store ── put, delete, txn, compact, leases ──▶ View ── clone ──▶ range, txn, follow, hash,
//!                                                  │                checkpoint
//!                   ┌──────────────────────────────┼────────────────────────┐
//!              keys: Tree<Record>         log: Sequence<Version>      leases: Leases
//!              key ▶ newest, older        revision ▶ what changed     id ▶ ttl; id+key
//!                   └──────────────┬───────────────┘
//!                               Version: the encoded KeyValue, in memory of its own,
//!                               or in a part of a checkpoint, which is mapped
//! ```
//! A [`View`] is a few pointers. A copy of it never changes: the writer copies the nodes that a view
//! still has before it changes them, each once for a batch. So readers never wait for the writer
//! nor it for them, and a range, a watch or a checkpoint may take as long as it likes.
//!
//! What is in the log is exactly what is in the records from the compacted revision on. Compaction
//! walks the part of the log that it drops: its cost is that of the changes, not of the keys.
//!
//! What a checkpoint has takes no memory but the index: [`saved`] says how.
//!
//! Pure: nothing here knows a clock, a file or a socket. Members that apply the same commands answer
//! the same, whatever part of a compaction each has carried out.
//!
//! **Not here:** the texts of errors on the wire (`rpc`), who may do what, quotas and alarms (the
//! state machine above, from [`Usage`]), waiting for events (the watch server).

pub mod checkpoint;
pub mod compaction;
pub mod error;
pub mod events;
pub mod expiry;
pub mod hash;
pub mod key_range;
pub mod lease;
pub mod listing;
#[cfg(test)]
mod model;
pub mod parts;
pub mod range;
mod record;
pub mod restore;
pub mod revision;
pub mod saved;
mod sequence;
pub mod store;
#[cfg(test)]
mod tests;
mod tree;
pub mod txn;
pub mod txn_check;
pub mod version;
pub mod view;
pub mod wire;

pub use checkpoint::Checkpoint;
pub use error::MvccError;
pub use events::{EventFilter, Followed};
pub use expiry::Expiry;
pub use hash::KeysHash;
pub use key_range::KeyRange;
pub use lease::Lease;
pub use listing::Listing;
pub use parts::{Part, Parts};
pub use range::{Range, RangeResult, SortOrder, SortTarget};
pub use restore::{Restore, RestoreError};
pub use revision::Revision;
pub use saved::{Making, PartError, Saved, SavedPart};
pub use store::Store;
pub use txn::{Compare, CompareResult, CompareTarget, DeleteRange, Op, OpOutcome, Put, Txn};
pub use txn_check::check_txn;
pub use version::{KeyValue, Version};
pub use view::{Usage, View};
