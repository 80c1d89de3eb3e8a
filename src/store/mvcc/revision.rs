//! When something was written: the number of the change, and the place within it.

use std::fmt;

/// A revision of the store, and the ordinal of a write within it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revision {
    /// The revision of the store: every request that changes something has one of its own.
    pub main: i64,
    /// Which change of that request it was, from 0.
    pub sub: u32,
}

/// The revision of a store in which nothing was ever written.
pub const FIRST: i64 = 1;

/// What stands for "never" where a store tells the revision of its last compaction.
pub const NEVER_COMPACTED: i64 = -1;

impl Revision {
    /// Returns the 17 bytes under which etcd keeps a version, and which its hash is over.
    pub fn to_bytes(self) -> [u8; 17] {
        let mut bytes = [b'_'; 17];
        bytes[..8].copy_from_slice(&self.main.to_be_bytes());
        bytes[9..].copy_from_slice(&u64::from(self.sub).to_be_bytes());
        bytes
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}", self.main, self.sub)
    }
}
