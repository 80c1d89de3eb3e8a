//! What a command did, in the store's own words, and how the v2 API says it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::foundation::clock::Timestamp;
use crate::store::keys_v3;
use crate::wire::etcd::keys_v2;
pub use crate::wire::etcd::keys_v2::{Action, Code};

/// A key or a directory as it was shown at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeView {
    /// The full path.
    pub key: String,
    /// The value; `None` for a directory, and for what was removed.
    pub value: Option<String>,
    /// Whether it is a directory.
    pub dir: bool,
    /// When it expires.
    pub expires: Option<Timestamp>,
    /// Seconds until then, rounded up.
    pub ttl: i64,
    /// What is in it, as far as it was asked for.
    pub nodes: Vec<Self>,
    /// The index of its last change.
    pub modified: u64,
    /// The index of its creation.
    pub created: u64,
}

/// A change, or what a read found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// What was done.
    pub action: Action,
    /// The node after it.
    pub node: NodeView,
    /// The node before it, if there was one.
    pub prev: Option<NodeView>,
    /// Whether it only gave the key more time: watchers are not told.
    pub refresh: bool,
}

impl Event {
    /// Returns the index at which it happened.
    pub fn index(&self) -> u64 {
        self.node.modified
    }
}

/// A command that was refused, and the index of the store then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// etcd's number for it.
    pub code: Code,
    /// What exactly.
    pub cause: String,
    /// The index of the store.
    pub index: u64,
}

/// How one command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// A keys command was done.
    Event(Arc<Event>),
    /// A keys command was refused.
    Refused(Refusal),
    /// A command without an answer was done.
    Done,
    /// How a change of the v3 keys ended.
    V3(Result<keys_v3::Answer, keys_v3::Refused>),
}

impl From<&NodeView> for keys_v2::Node {
    fn from(view: &NodeView) -> Self {
        view.clone().into()
    }
}

impl From<NodeView> for keys_v2::Node {
    fn from(view: NodeView) -> Self {
        Self {
            // The root says nothing about itself but that it is a directory.
            key: if view.key == "/" { String::new() } else { view.key },
            value: view.value,
            dir: view.dir,
            expiration: view.expires.map(Timestamp::rfc3339),
            ttl: view.ttl,
            nodes: view.nodes.into_iter().map(Self::from).collect(),
            modified_index: view.modified,
            created_index: view.created,
        }
    }
}

impl From<Event> for keys_v2::Event {
    fn from(event: Event) -> Self {
        Self {
            action: event.action,
            node: Some(event.node.into()),
            prev_node: event.prev.map(Into::into),
        }
    }
}

impl From<&Event> for keys_v2::Event {
    fn from(event: &Event) -> Self {
        event.clone().into()
    }
}

impl From<&Refusal> for keys_v2::KeysError {
    fn from(refusal: &Refusal) -> Self {
        Self::new(refusal.code, refusal.cause.clone(), refusal.index)
    }
}
