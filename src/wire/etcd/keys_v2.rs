//! The JSON of `/v2/keys`: nodes, events, errors. Source: `etcd` 2.3 and 3.4, as recorded.

use serde::{Deserialize, Serialize};

/// A key or a directory. The order of the fields is the order in which etcd writes them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Node {
    /// The full path, `/` first; missing for the root.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub key: String,
    /// The value of a key; missing for a directory, and for a key that was deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Whether this is a directory.
    #[serde(skip_serializing_if = "is_false")]
    pub dir: bool,
    /// When it expires, RFC 3339 with nanoseconds, UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration: Option<String>,
    /// Seconds until it expires, rounded up; missing when zero.
    #[serde(skip_serializing_if = "is_zero_i64")]
    pub ttl: i64,
    /// What is in a directory, as far as it was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<Self>,
    /// The index of its last change.
    #[serde(skip_serializing_if = "is_zero")]
    pub modified_index: u64,
    /// The index of its creation.
    #[serde(skip_serializing_if = "is_zero")]
    pub created_index: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero_i64(number: &i64) -> bool {
    *number == 0
}

/// What a request or an event did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// Read.
    Get,
    /// Written, whether it was there or not.
    Set,
    /// Made new.
    Create,
    /// Changed.
    Update,
    /// Removed.
    Delete,
    /// Changed because it was as expected.
    CompareAndSwap,
    /// Removed because it was as expected.
    CompareAndDelete,
    /// Removed because its time was over.
    Expire,
}

/// A successful answer, and what a watch delivers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// What was done.
    pub action: Action,
    /// The node after it; missing where the client asked for no value on success.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub node: Option<Node>,
    /// The node before it, if there was one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub prev_node: Option<Node>,
}

/// An error as the client sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "camelCase")]
#[error("{error_code}: {message} ({cause}) [{index}]")]
pub struct KeysError {
    /// etcd's number for it, see [`Code`].
    pub error_code: u16,
    /// etcd's text for the number.
    pub message: String,
    /// What exactly; often the path.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cause: String,
    /// The store's index; zero where the request itself was wrong.
    #[serde(default)]
    pub index: u64,
}

impl KeysError {
    /// Makes an error from its number.
    pub fn new(code: Code, cause: impl Into<String>, index: u64) -> Self {
        Self {
            error_code: code as u16,
            message: code.message().to_owned(),
            cause: cause.into(),
            index,
        }
    }

    /// Tells whether this is that error.
    pub fn is(&self, code: Code) -> bool {
        self.error_code == code as u16
    }

    /// Returns the HTTP status that goes with the number.
    pub fn status(&self) -> u16 {
        match self.error_code {
            100 => 404,
            101 | 105 => 412,
            102 | 108 => 403,
            110 => 401,
            300 | 301 => 500,
            _ => 400,
        }
    }
}

/// etcd's numbers of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u16)]
pub enum Code {
    /// There is no such key.
    KeyNotFound = 100,
    /// The key is not as expected.
    TestFailed = 101,
    /// It is a directory.
    NotFile = 102,
    /// It is no directory.
    NotDir = 104,
    /// It is there already.
    NodeExist = 105,
    /// The root cannot be changed.
    RootReadOnly = 107,
    /// The directory is not empty.
    DirNotEmpty = 108,
    /// The client must say who it is.
    Unauthorized = 110,
    /// `prevValue` is empty.
    PrevValueRequired = 201,
    /// `ttl` is no number.
    TtlNaN = 202,
    /// An index is no number.
    IndexNaN = 203,
    /// A parameter makes no sense.
    InvalidField = 209,
    /// The form cannot be read.
    InvalidForm = 210,
    /// A refresh has a value.
    RefreshValue = 211,
    /// A refresh has no TTL.
    RefreshTtlRequired = 212,
    /// The cluster could not do it.
    RaftInternal = 300,
    /// There is no leader.
    LeaderElect = 301,
    /// The watcher was dropped.
    WatcherCleared = 400,
    /// The history no longer reaches back that far.
    EventIndexCleared = 401,
}

impl Code {
    /// Returns etcd's text.
    pub const fn message(self) -> &'static str {
        match self {
            Self::KeyNotFound => "Key not found",
            Self::TestFailed => "Compare failed",
            Self::NotFile => "Not a file",
            Self::NotDir => "Not a directory",
            Self::NodeExist => "Key already exists",
            Self::RootReadOnly => "Root is read only",
            Self::DirNotEmpty => "Directory not empty",
            Self::Unauthorized => "The request requires user authentication",
            Self::PrevValueRequired => "PrevValue is Required in POST form",
            Self::TtlNaN => "The given TTL in POST form is not a number",
            Self::IndexNaN => "The given index in POST form is not a number",
            Self::InvalidField => "Invalid field",
            Self::InvalidForm => "Invalid POST form",
            Self::RefreshValue => "Value provided on refresh",
            Self::RefreshTtlRequired => "A TTL must be provided on refresh",
            Self::RaftInternal => "Raft Internal Error",
            Self::LeaderElect => "During Leader Election",
            Self::WatcherCleared => "watcher is cleared due to etcd recovery",
            Self::EventIndexCleared => "The event in requested index is outdated and cleared",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_written_as_etcd_writes_it() {
        let node = Node {
            key: "/message".into(),
            value: Some(String::new()),
            modified_index: 5,
            created_index: 5,
            ..Node::default()
        };
        let event = Event { action: Action::CompareAndSwap, node: Some(node), prev_node: None };
        assert_eq!(
            serde_json::to_string(&event).unwrap(),
            r#"{"action":"compareAndSwap","node":{"key":"/message","value":"","modifiedIndex":5,"createdIndex":5}}"#,
        );
    }

    #[test]
    fn an_error_without_a_cause_has_no_such_field() {
        let error = KeysError::new(Code::RaftInternal, "", 0);
        assert_eq!(
            serde_json::to_string(&error).unwrap(),
            r#"{"errorCode":300,"message":"Raft Internal Error","index":0}"#,
        );
        assert_eq!(error.status(), 500);
    }
}
