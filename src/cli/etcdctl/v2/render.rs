//! How an answer is written, to the byte as `etcdctl` 2 wrote it. Pure.

use serde::Serialize;

use crate::rpc::client::keys::Answer;
use crate::rpc::client::members_http::Member;
use crate::wire::etcd::keys_v2::{Action, Event, Node};

/// `--output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// The value alone.
    Simple,
    /// Lines of `Name: value`.
    Extended,
    /// As Go's client holds it.
    Json,
}

impl Format {
    /// Reads the flag's value.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "simple" => Ok(Self::Simple),
            "extended" => Ok(Self::Extended),
            "json" => Ok(Self::Json),
            _ => Err("write `simple`, `extended` or `json`".to_owned()),
        }
    }
}

/// What of an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Show {
    /// A value; a directory is an error.
    Key,
    /// What was written.
    Written,
    /// A directory that was made: nothing, in the simple format.
    Directory,
    /// What was removed: nothing for a directory, in the simple format.
    Removed,
    /// What is in a directory.
    Listing {
        /// Whether directories end in `/`.
        slashes: bool,
    },
}

/// What is written, and where to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Rendered {
    /// These lines, each with its end, perhaps none.
    Out(String),
    /// The key is a directory, which this verb does not show.
    IsDirectory(String),
}

/// Writes an answer.
pub(super) fn answer(answer: &Answer, show: Show, format: Format) -> Rendered {
    let Some(node) = &answer.event.node else { return Rendered::Out(String::new()) };
    let quiet = match show {
        Show::Key if node.dir => return Rendered::IsDirectory(node.key.clone()),
        Show::Listing { slashes } if format == Format::Simple => {
            return Rendered::Out(listing(node, slashes));
        }
        Show::Key | Show::Written | Show::Listing { .. } => false,
        Show::Directory => format == Format::Simple,
        Show::Removed => format == Format::Simple && node.dir,
    };
    Rendered::Out(if quiet { String::new() } else { response(&answer.event, answer.index, format) })
}

/// Writes a change that a watch was told; nothing for a directory's.
pub(super) fn change(event: &Event, recursive: bool, format: Format) -> Option<String> {
    let node = event.node.as_ref().filter(|node| !node.dir)?;
    let head = if recursive {
        format!("[{}] {}\n", action_name(event.action), node.key)
    } else {
        String::new()
    };
    Some(head + &response(event, node.modified_index, format))
}

/// Returns an action's name on the wire.
pub(super) const fn action_name(action: Action) -> &'static str {
    match action {
        Action::Get => "get",
        Action::Set => "set",
        Action::Create => "create",
        Action::Update => "update",
        Action::Delete => "delete",
        Action::CompareAndSwap => "compareAndSwap",
        Action::CompareAndDelete => "compareAndDelete",
        Action::Expire => "expire",
    }
}

fn response(event: &Event, index: u64, format: Format) -> String {
    let Some(node) = &event.node else { return String::new() };
    let value = node.value.as_deref().unwrap_or_default();
    let before = event.prev_node.as_ref().map(|prev| prev.value.clone().unwrap_or_default());
    let deleted = event.action == Action::Delete;
    match format {
        Format::Simple if deleted => format!("PrevNode.Value: {}\n", before.unwrap_or_default()),
        Format::Simple => format!("{value}\n"),
        Format::Extended => {
            let before = before.map(|before| format!("PrevNode.Value: {before}\n"));
            let Node { key, created_index, modified_index, ttl, .. } = node;
            let end = if deleted { String::new() } else { format!("\n{value}\n") };
            format!(
                "Key: {key}\nCreated-Index: {created_index}\nModified-Index: {modified_index}\n\
                 {}TTL: {ttl}\nIndex: {index}\n{end}",
                before.unwrap_or_default(),
            )
        }
        Format::Json => {
            let json = serde_json::to_string(&GoResponse::from(event));
            json.expect("an event's keys are strings, so that it can be written") + "\n"
        }
    }
}

fn listing(node: &Node, slashes: bool) -> String {
    let mut text = String::new();
    if !node.dir {
        text = format!("{}\n", node.key);
    }
    let mut todo: Vec<&Node> = node.nodes.iter().rev().collect();
    while let Some(node) = todo.pop() {
        let slash = if slashes && node.dir { "/" } else { "" };
        text.extend([&node.key, slash, "\n"]);
        todo.extend(node.nodes.iter().rev());
    }
    text
}

/// Writes one line for a member.
pub(super) fn member(member: &Member, leader: &str) -> String {
    let Member { id, name, .. } = member;
    let (peers, clients) = (member.peer_urls.join(","), member.client_urls.join(","));
    if name.is_empty() {
        format!("{id}[unstarted]: peerURLs={peers}")
    } else {
        let leads = id == leader;
        format!("{id}: name={name} peerURLs={peers} clientURLs={clients} isLeader={leads}")
    }
}

/// An event with the fields and in the order of Go's client, whose JSON scripts have read.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GoResponse<'a> {
    action: Action,
    node: Option<GoNode<'a>>,
    prev_node: Option<GoNode<'a>>,
}

impl<'a> From<&'a Event> for GoResponse<'a> {
    fn from(event: &'a Event) -> Self {
        let (node, prev) = (event.node.as_ref(), event.prev_node.as_ref());
        Self { action: event.action, node: node.map(Into::into), prev_node: prev.map(Into::into) }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GoNode<'a> {
    key: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    dir: bool,
    value: &'a str,
    /// Go writes a list that was never made as `null`.
    nodes: Option<Vec<Self>>,
    created_index: u64,
    modified_index: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<i64>,
}

impl<'a> From<&'a Node> for GoNode<'a> {
    fn from(node: &'a Node) -> Self {
        let nodes = (!node.nodes.is_empty()).then(|| node.nodes.iter().map(Self::from).collect());
        Self {
            key: &node.key,
            dir: node.dir,
            value: node.value.as_deref().unwrap_or_default(),
            nodes,
            created_index: node.created_index,
            modified_index: node.modified_index,
            expiration: node.expiration.as_deref(),
            ttl: Some(node.ttl).filter(|ttl| *ttl != 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(json: &str) -> Event {
        serde_json::from_str(json).unwrap()
    }

    fn check(json: &str, show: Show, format: Format, text: &str) {
        let answered = Answer { event: event(json), index: 9 };
        assert_eq!(answer(&answered, show, format), Rendered::Out(text.to_owned()));
    }

    const GET: &str =
        r#"{"action":"get","node":{"key":"/a","value":"1","modifiedIndex":7,"createdIndex":5}}"#;
    const DELETE: &str = r#"{"action":"delete","node":{"key":"/a","modifiedIndex":8,"createdIndex":5},"prevNode":{"key":"/a","value":"1","modifiedIndex":7,"createdIndex":5}}"#;
    const MKDIR: &str =
        r#"{"action":"create","node":{"key":"/d","dir":true,"modifiedIndex":8,"createdIndex":8}}"#;
    const LS: &str = r#"{"action":"get","node":{"dir":true,"nodes":[{"key":"/d","dir":true,"nodes":[{"key":"/d/x","value":"1"}]},{"key":"/e","value":"2"}]}}"#;

    #[test]
    fn the_simple_format_is_the_value() {
        check(GET, Show::Key, Format::Simple, "1\n");
        check(DELETE, Show::Removed, Format::Simple, "PrevNode.Value: 1\n");
        check(MKDIR, Show::Directory, Format::Simple, "");
        check(LS, Show::Listing { slashes: false }, Format::Simple, "/d\n/d/x\n/e\n");
        check(LS, Show::Listing { slashes: true }, Format::Simple, "/d/\n/d/x\n/e\n");
        check(GET, Show::Listing { slashes: true }, Format::Simple, "/a\n");
    }

    #[test]
    fn the_extended_format_names_what_it_tells() {
        let text = "Key: /a\nCreated-Index: 5\nModified-Index: 7\nTTL: 0\nIndex: 9\n\n1\n";
        check(GET, Show::Key, Format::Extended, text);
        let text =
            "Key: /a\nCreated-Index: 5\nModified-Index: 8\nPrevNode.Value: 1\nTTL: 0\nIndex: 9\n";
        check(DELETE, Show::Removed, Format::Extended, text);
    }

    #[test]
    fn json_is_what_gos_client_holds() {
        let text = r#"{"action":"get","node":{"key":"/a","value":"1","nodes":null,"createdIndex":5,"modifiedIndex":7},"prevNode":null}"#;
        check(GET, Show::Key, Format::Json, &format!("{text}\n"));
        let text = r#"{"action":"create","node":{"key":"/d","dir":true,"value":"","nodes":null,"createdIndex":8,"modifiedIndex":8},"prevNode":null}"#;
        check(MKDIR, Show::Directory, Format::Json, &format!("{text}\n"));
    }

    #[test]
    fn a_directory_has_no_value() {
        let answered = Answer { event: event(MKDIR), index: 9 };
        let rendered = answer(&answered, Show::Key, Format::Simple);
        assert_eq!(rendered, Rendered::IsDirectory("/d".into()));
    }

    #[test]
    fn a_recursive_watch_says_which_key_changed() {
        assert_eq!(change(&event(GET), false, Format::Simple).unwrap(), "1\n");
        let text = "[delete] /a\nPrevNode.Value: 1\n";
        assert_eq!(change(&event(DELETE), true, Format::Simple).unwrap(), text);
        assert_eq!(change(&event(MKDIR), true, Format::Simple), None);
    }

    #[test]
    fn a_member_is_one_line() {
        let mut core = Member {
            id: "ce2a822cea30bfca".into(),
            name: "core-1".into(),
            peer_urls: vec!["http://a:2380".into(), "http://a:7001".into()],
            client_urls: vec!["http://a:2379".into()],
        };
        assert_eq!(
            member(&core, "ce2a822cea30bfca"),
            "ce2a822cea30bfca: name=core-1 peerURLs=http://a:2380,http://a:7001 clientURLs=http://a:2379 isLeader=true",
        );
        core.name.clear();
        assert_eq!(
            member(&core, ""),
            "ce2a822cea30bfca[unstarted]: peerURLs=http://a:2380,http://a:7001",
        );
    }
}
