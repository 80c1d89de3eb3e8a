//! What the log carries: batches of commands, each with the time its leader gave it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::foundation::clock::Timestamp;
use crate::store::keys_v3;

/// What must be true of a key before a write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expect {
    /// Nothing: set it.
    Anything,
    /// It is there: update it.
    Present,
    /// It is not there: create it.
    Absent,
    /// It is as told: compare and swap.
    Equal(Compare),
}

/// What a key must be like. An empty value or an index of zero is not compared.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compare {
    /// Its value.
    pub value: String,
    /// The index of its last change.
    pub index: u64,
}

impl Compare {
    /// Tells whether anything is to be compared.
    pub fn is_empty(&self) -> bool {
        self.value.is_empty() && self.index == 0
    }
}

/// Writes a key or makes a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Put {
    /// The clean path, see [`crate::store::tree_v2::clean`].
    pub path: String,
    /// The value; not looked at for a directory.
    pub value: String,
    /// Whether to make a directory.
    pub dir: bool,
    /// Seconds to live from the batch's time on; for ever if `None`.
    pub ttl: Option<u64>,
    /// What must be true before.
    pub expect: Expect,
    /// Whether to keep the value and tell no watcher.
    pub refresh: bool,
}

/// Removes a key or a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delete {
    /// The clean path.
    pub path: String,
    /// A directory too, if it is empty.
    pub dir: bool,
    /// A directory with all that is in it.
    pub recursive: bool,
    /// What the key must be like.
    pub compare: Compare,
}

/// One change of the state. New kinds go to the end: the log has their numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Writes a key.
    Put(Put),
    /// Makes a key in a directory, named by the next index.
    Append {
        /// The directory's clean path.
        path: String,
        /// The value.
        value: String,
        /// Seconds to live.
        ttl: Option<u64>,
        /// Whether to make a directory instead.
        dir: bool,
    },
    /// Removes a key.
    Delete(Delete),
    /// Removes what has expired by the batch's time.
    Expire,
    /// Tells where a member serves its clients.
    Publish {
        /// The member.
        member: u64,
        /// Its name.
        name: String,
        /// Where it serves.
        client_urls: Vec<String>,
    },
    /// Changes the v3 keys.
    V3(keys_v3::Change),
}

/// Commands that are one entry of the log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// The leader's clock when it made the batch; never before the batch it follows.
    pub time: Timestamp,
    /// The commands, in order; the log, its readers and whoever applies them share them.
    pub commands: Arc<[Command]>,
}
