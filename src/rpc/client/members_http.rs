//! Who the members of a store are and how they fare, as they say over HTTP.
//!
//! **Not here:** changing the membership.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::foundation::exit::chain;
use crate::rpc::client::http::{HttpClient, Request, Response};
use crate::rpc::client::url::Url;

/// A member as `/v2/members` shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its id, lowercase hex.
    pub id: String,
    /// Its name; empty until it has started once.
    #[serde(default)]
    pub name: String,
    /// Where its peers reach it.
    #[serde(rename = "peerURLs", default, deserialize_with = "null_is_empty")]
    pub peer_urls: Vec<String>,
    /// Where clients reach it.
    #[serde(rename = "clientURLs", default, deserialize_with = "null_is_empty")]
    pub client_urls: Vec<String>,
}

fn null_is_empty<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

#[derive(Deserialize)]
struct Members {
    #[serde(default)]
    members: Vec<Member>,
}

/// Why nobody could tell.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", reasons.join("; "))]
pub struct NoAnswer {
    /// What went wrong at each endpoint, in order.
    pub reasons: Vec<String>,
    /// Whether at least one of them said something, though nothing of use.
    pub someone_spoke: bool,
}

/// How a member fares, as it says itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It can serve.
    Healthy,
    /// It says that it cannot, and why if it told.
    Unhealthy(String),
    /// It says nothing, and this is why.
    Unreachable(String),
}

/// Asks members about themselves.
#[derive(Debug, Clone)]
pub struct MembersClient {
    http: HttpClient,
    deadline: Duration,
}

impl MembersClient {
    /// Makes a client that gives each endpoint `deadline` for one request.
    pub const fn new(http: HttpClient, deadline: Duration) -> Self {
        Self { http, deadline }
    }

    /// Asks `endpoints` in order who the members are.
    pub async fn list(&self, endpoints: &[Url]) -> Result<Vec<Member>, NoAnswer> {
        let members: Members = self.first(endpoints, "/v2/members").await?;
        Ok(members.members)
    }

    /// Asks `endpoints` in order who leads.
    pub async fn leader(&self, endpoints: &[Url]) -> Result<Member, NoAnswer> {
        self.first(endpoints, "/v2/members/leader").await
    }

    /// Asks one member how it fares.
    pub async fn health(&self, endpoint: &Url) -> Health {
        let request = Request::get(endpoint.below("/health")).within(self.deadline);
        let response = match self.http.call(&endpoint.origin, request).await {
            Ok(response) => response,
            Err(error) => return Health::Unreachable(chain(&error)),
        };
        let said: serde_json::Value = serde_json::from_slice(&response.body).unwrap_or_default();
        match said.get("health").and_then(serde_json::Value::as_str) {
            Some("true") if response.status.is_success() => Health::Healthy,
            _ => {
                let reason = said.get("reason").and_then(serde_json::Value::as_str);
                Health::Unhealthy(reason.unwrap_or_default().to_owned())
            }
        }
    }

    async fn first<T: for<'de> Deserialize<'de>>(
        &self,
        endpoints: &[Url],
        path: &str,
    ) -> Result<T, NoAnswer> {
        let mut failed = NoAnswer { reasons: Vec::new(), someone_spoke: false };
        for endpoint in endpoints {
            let request = Request::get(endpoint.below(path)).within(self.deadline);
            match self.http.call(&endpoint.origin, request).await {
                Err(error) => failed.reasons.push(chain(&error)),
                Ok(response) => match understood(endpoint, &response) {
                    Ok(answer) => return Ok(answer),
                    Err(reason) => {
                        failed.reasons.push(reason);
                        failed.someone_spoke = true;
                    }
                },
            }
        }
        Err(failed)
    }
}

fn understood<T: for<'de> Deserialize<'de>>(
    endpoint: &Url,
    response: &Response,
) -> Result<T, String> {
    if !response.status.is_success() {
        return Err(format!("{endpoint} said {}", response.status));
    }
    serde_json::from_slice(&response.body)
        .map_err(|error| format!("{endpoint} said nonsense: {error}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::foundation::tasks::Tasks;
    use crate::platform::net::MemoryNet;
    use crate::rpc::client::scripted::{Reply, Scripted, origin};

    async fn asked(reply: Reply) -> (MembersClient, Url, Tasks) {
        let (net, tasks) = (MemoryNet::default(), Tasks::default());
        let _server = Scripted::start(&net, &origin(), &tasks, vec![reply]).await;
        let client = MembersClient::new(HttpClient::new(Arc::new(net)), Duration::from_secs(1));
        (client, "http://10.0.0.1:2379".parse().unwrap(), tasks)
    }

    #[tokio::test(start_paused = true)]
    async fn members_are_read_also_where_a_list_is_null() {
        let body = r#"{"members":[{"id":"ce2a822cea30bfca","name":"a","peerURLs":["http://a:2380"],"clientURLs":null}]}"#;
        let (client, url, _tasks) = asked(Reply::ok(body)).await;
        let members = client.list(&[url]).await.unwrap();
        assert_eq!((members[0].name.as_str(), members[0].client_urls.len()), ("a", 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_member_that_says_so_is_unhealthy() {
        let body = r#"{"health":"false","reason":"RAFT NO LEADER"}"#;
        let (client, url, _tasks) = asked(Reply::status(503, "", body)).await;
        assert_eq!(client.health(&url).await, Health::Unhealthy("RAFT NO LEADER".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_member_is_unreachable() {
        let (client, url, _tasks) = asked(Reply::Hang).await;
        assert!(matches!(client.health(&url).await, Health::Unreachable(_)));
    }
}
