//! Why the engine refuses something. How a client is told is decided where it is answered.

use serde::{Deserialize, Serialize};

/// A request that cannot be carried out; nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum MvccError {
    /// The revision's history is gone.
    #[error("the history before revision {compact_revision} is compacted; ask from there on")]
    Compacted {
        /// The revision of the last compaction: reading there is allowed.
        compact_revision: i64,
    },
    /// The revision has not been reached.
    #[error("the store is at revision {current}, before the one that was asked for")]
    FutureRevision {
        /// The store's revision.
        current: i64,
    },
    /// A request names no key.
    #[error("the request names no key")]
    KeyNotProvided,
    /// A put that keeps the value or the lease of its key, which does not exist.
    #[error("there is no such key whose value or lease could be kept; put it with both")]
    KeyNotFound,
    /// A put that keeps the value and has one.
    #[error("the put keeps the key's value and brings another; leave one of them out")]
    ValueProvided,
    /// A put that keeps the lease and has one.
    #[error("the put keeps the key's lease and brings another; leave one of them out")]
    LeaseProvided,
    /// A transaction has more operations or compares than are allowed.
    #[error("the transaction has more than {ops_max} operations; make it several")]
    TooManyOps {
        /// The limit.
        ops_max: usize,
    },
    /// A transaction writes a key twice.
    #[error("the transaction writes one key more than once")]
    DuplicateKey,
    /// There is no such lease.
    #[error("there is no lease {id:016x}; grant it first")]
    LeaseNotFound {
        /// The lease.
        id: i64,
    },
    /// There is such a lease.
    #[error("the lease {id:016x} exists already; choose another id")]
    LeaseExists {
        /// The lease.
        id: i64,
    },
    /// A lease's time to live is beyond the limit.
    #[error("a lease cannot live {ttl} s; the most is {ttl_max} s")]
    LeaseTtlTooLarge {
        /// What was asked for.
        ttl: i64,
        /// The limit.
        ttl_max: i64,
    },
}
