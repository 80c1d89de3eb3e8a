//! The store's keys through the v2 API, as a client sees them.
//!
//! Each call has its deadline inside and tries the endpoints in order; what a call answers is
//! what the store said, or why it could not be asked. A write is never sent twice by itself:
//! after [`KeysFailure::Unknown`] it may or may not have happened.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use crate::wire::etcd::keys_v2::{Code, Event, KeysError, Node};

/// A call across the seam.
pub type Call<'a, T> = Pin<Box<dyn Future<Output = Result<T, KeysFailure>> + Send + 'a>>;

/// Why a call did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KeysFailure {
    /// The store said no.
    #[error(transparent)]
    Refused(#[from] KeysError),
    /// No endpoint could be reached; nothing was done.
    #[error("cannot reach the store at {endpoints}: {why}")]
    Unreachable {
        /// The endpoints that were tried.
        endpoints: String,
        /// What the last one answered.
        why: String,
    },
    /// The connection broke or the deadline passed after the request was sent.
    #[error("the store at {endpoint} did not answer: {why}")]
    Unknown {
        /// The endpoint.
        endpoint: String,
        /// What happened.
        why: String,
    },
}

impl KeysFailure {
    /// Tells whether the store said exactly this.
    pub fn is(&self, code: Code) -> bool {
        matches!(self, Self::Refused(error) if error.is(code))
    }
}

/// An answer, and where the store stood when it gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What happened, or what was read.
    pub event: Event,
    /// `X-Etcd-Index`: a watch from the next index on misses nothing.
    pub index: u64,
}

/// What to read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Read {
    /// With everything below.
    pub recursive: bool,
    /// Sorted by key.
    pub sorted: bool,
    /// Not older than any write that was acknowledged before.
    pub quorum: bool,
}

/// What must be true before a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    Anything,
    /// The key is there.
    Present,
    /// The key is not there.
    Absent,
    /// The key has this value.
    Value(String),
    /// The key was last changed at this index.
    Index(u64),
}

/// What to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The value.
    pub value: String,
    /// How long the key lives; for ever if `None`. Whole seconds.
    pub ttl: Option<Duration>,
    /// What must be true before.
    pub expect: Expect,
}

impl Write {
    /// Writes `value` whatever was there, for ever.
    pub fn set(value: impl Into<String>) -> Self {
        Self { value: value.into(), ttl: None, expect: Expect::Anything }
    }

    /// Lets the key live for `ttl` only.
    #[must_use]
    pub fn for_time(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Writes only if `expect` is true.
    #[must_use]
    pub fn if_found(mut self, expect: Expect) -> Self {
        self.expect = expect;
        self
    }
}

/// What to remove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delete {
    /// A directory with everything in it too.
    pub recursive: bool,
    /// An empty directory too.
    pub dir: bool,
    /// What must be true before: `Anything`, `Value` or `Index`.
    pub expect: Expect,
}

/// The store's keys. Paths begin with `/`.
pub trait Keys: fmt::Debug + Send + Sync {
    /// Reads a key or a directory.
    fn get<'a>(&'a self, path: &'a str, read: Read) -> Call<'a, Answer>;

    /// Writes a key.
    fn put<'a>(&'a self, path: &'a str, write: Write) -> Call<'a, Answer>;

    /// Removes a key or a directory.
    fn delete<'a>(&'a self, path: &'a str, delete: Delete) -> Call<'a, Answer>;

    /// Waits for the first event at or below `path` with an index of at least `after + 1`.
    ///
    /// Waits without a deadline of its own. An error 401 says that events were lost: read again,
    /// then watch from that answer's index.
    fn watch<'a>(&'a self, path: &'a str, after: u64) -> Call<'a, Event>;
}

/// Returns every key below `node`, depth first, with its value.
pub fn leaves(node: &Node) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    let mut todo = vec![node];
    while let Some(node) = todo.pop() {
        if let Some(value) = &node.value {
            found.push((node.key.as_str(), value.as_str()));
        }
        todo.extend(node.nodes.iter().rev());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_are_the_keys_in_order() {
        let key = |key: &str, value: &str| Node {
            key: key.into(),
            value: Some(value.into()),
            ..Node::default()
        };
        let dir = |key: &str, nodes| Node { key: key.into(), dir: true, nodes, ..Node::default() };
        let tree = dir("/", vec![dir("/a", vec![key("/a/x", "1")]), key("/b", "2")]);
        assert_eq!(leaves(&tree), [("/a/x", "1"), ("/b", "2")]);
    }
}
