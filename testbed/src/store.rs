//! The store of a lab's cluster, asked from outside through its version 2 API.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use serde_json::Value;

use crate::error::LabError;
use crate::http::{self, Answer, Request};
use crate::net::Net;

/// How long a member may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// The port of the store's clients.
pub const CLIENTS: u16 = 2379;

/// One member of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its id, in hexadecimal.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it.
    pub client_urls: Vec<String>,
}

impl Member {
    /// Says whether it is the member at this address.
    #[must_use]
    pub fn is_at(&self, address: Ipv4Addr) -> bool {
        let host = format!("//{address}:");
        self.peer_urls.iter().chain(&self.client_urls).any(|url| url.contains(&host))
    }
}

/// What happened to a key.
#[derive(Debug, Clone)]
pub struct Event {
    /// `set`, `expire` and so on.
    pub action: String,
    /// Which key.
    pub key: String,
    /// When in the store's history.
    pub index: u64,
}

/// The store as one node serves it.
#[derive(Debug, Clone, Copy)]
pub struct Store<'a> {
    /// The lab's network; none is this host's own.
    net: Option<&'a Net>,
    server: SocketAddrV4,
}

impl<'a> Store<'a> {
    /// Through the node at `address`.
    #[must_use]
    pub fn at(net: &'a Net, address: Ipv4Addr) -> Self {
        Self { net: Some(net), server: SocketAddrV4::new(address, CLIENTS) }
    }

    /// Through a member on this host.
    #[must_use]
    pub const fn on_this_host(server: SocketAddrV4) -> Self {
        Self { net: None, server }
    }

    /// Says whether this member has the quorum behind it.
    pub fn healthy(&self) -> Result<bool, LabError> {
        let answer = self.get("/health")?;
        Ok(answer.status == 200 && answer.body.contains("true"))
    }

    /// The members that it knows.
    pub fn members(&self) -> Result<Vec<Member>, LabError> {
        let answer = self.get("/v2/members")?;
        let json = answer.json()?;
        let members = json["members"].as_array().ok_or_else(|| answer.unexpected())?;
        Ok(members.iter().map(member).collect())
    }

    /// The member that leads, as far as this one knows.
    pub fn leader(&self) -> Result<Member, LabError> {
        Ok(member(&self.get("/v2/members/leader")?.json()?))
    }

    /// The value of a key, read through the quorum.
    pub fn value(&self, key: &str) -> Result<String, LabError> {
        let answer = self.get(&format!("/v2/keys{key}?quorum=true"))?;
        let json = answer.json()?;
        json["node"]["value"].as_str().map(str::to_owned).ok_or_else(|| answer.unexpected())
    }

    /// Sets a key.
    pub fn set(&self, key: &str, value: &str) -> Result<(), LabError> {
        let path = format!("/v2/keys{key}");
        let form = format!("value={}", escaped(value));
        let body = Some(("application/x-www-form-urlencoded", form.as_str()));
        let answer = self.ask(&Request { method: "PUT", path: &path, body }, ANSWER)?;
        answer.json().map(drop)
    }

    /// All keys below a folder with their values; none when there is no such folder.
    pub fn below(&self, folder: &str) -> Result<BTreeMap<String, String>, LabError> {
        let answer = self.get(&format!("/v2/keys{folder}?recursive=true&quorum=true"))?;
        let mut found = BTreeMap::new();
        if answer.status != 404 {
            gather(&answer.json()?["node"], &mut found);
        }
        Ok(found)
    }

    /// The index that the store is at.
    pub fn index(&self) -> Result<u64, LabError> {
        let answer = self.get("/v2/keys/")?;
        let index = answer.header("X-Etcd-Index").and_then(|index| index.parse().ok());
        index.ok_or_else(|| answer.unexpected())
    }

    /// Waits for the next event below a folder, from an index on.
    pub fn watch(&self, folder: &str, from: u64, limit: Duration) -> Result<Event, LabError> {
        let path = format!("/v2/keys{folder}?wait=true&recursive=true&waitIndex={from}");
        let answer = self.ask(&Request { method: "GET", path: &path, body: None }, limit)?;
        let json = answer.json()?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let index = json["node"]["modifiedIndex"].as_u64().ok_or_else(|| answer.unexpected())?;
        Ok(Event { action: text(&json["action"]), key: text(&json["node"]["key"]), index })
    }

    fn get(&self, path: &str) -> Result<Answer, LabError> {
        self.ask(&Request { method: "GET", path, body: None }, ANSWER)
    }

    fn ask(&self, request: &Request<'_>, limit: Duration) -> Result<Answer, LabError> {
        match self.net {
            Some(net) => http::ask(net, self.server, request, limit),
            None => http::ask_local(self.server, request, limit),
        }
    }
}

fn member(json: &Value) -> Member {
    let text = |name: &str| json[name].as_str().unwrap_or_default().to_owned();
    let list = |name: &str| {
        let urls = json[name].as_array().map(Vec::as_slice).unwrap_or_default();
        urls.iter().filter_map(|url| url.as_str().map(str::to_owned)).collect()
    };
    Member {
        id: text("id"),
        name: text("name"),
        peer_urls: list("peerURLs"),
        client_urls: list("clientURLs"),
    }
}

fn gather(node: &Value, found: &mut BTreeMap<String, String>) {
    if let (Some(key), Some(value)) = (node["key"].as_str(), node["value"].as_str()) {
        found.insert(key.to_owned(), value.to_owned());
    }
    for child in node["nodes"].as_array().into_iter().flatten() {
        gather(child, found);
    }
}

/// A value as forms carry it.
fn escaped(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let write =
        |byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    value.bytes().map(write).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_gathered_from_all_depths() {
        let node = serde_json::json!({ "key": "/a", "dir": true, "nodes": [
            { "key": "/a/x", "value": "1" },
            { "key": "/a/b", "dir": true, "nodes": [{ "key": "/a/b/y", "value": "2" }] },
        ]});
        let mut found = BTreeMap::new();
        gather(&node, &mut found);
        let found: Vec<_> = found.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(found, ["/a/b/y=2", "/a/x=1"]);
    }

    #[test]
    fn a_value_is_escaped_for_a_form() {
        assert_eq!(escaped("a b&c=ä"), "a%20b%26c%3D%C3%A4");
    }
}
