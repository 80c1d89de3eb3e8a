//! Whether a member is of use, for load balancers and supervisors: `/health` as etcd answers it.
//!
//! `?exclude=NOSPACE` overlooks an alarm; `?serializable=true` asks about this member alone.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::response::Response;
use http::{HeaderValue, Method, StatusCode, header};
use serde_json::json;

use crate::consensus::Member;
use crate::rpc::server::keys_v2::{json_answer, text};
use crate::rpc::server::v3::alarm;

/// How long a quorum may take to show that it is there.
const DEADLINE: Duration = Duration::from_secs(1);

/// Answers a request for `/health`.
pub async fn answer(member: &Member, method: &Method, query: Option<&str>) -> Response {
    if method != Method::GET {
        return not_allowed();
    }
    let query = Query::parse(query);
    match unhealthy(member, &query).await {
        None => json_answer(StatusCode::OK, &said("true", "")),
        Some(reason) => unavailable(&said("false", &reason)),
    }
}

fn said(health: &str, reason: &str) -> String {
    json!({ "health": health, "reason": reason }).to_string()
}

/// Returns why the member is not of use.
async fn unhealthy(member: &Member, query: &Query) -> Option<String> {
    let alarms = member.read(|machine| machine.keys_v3.alarms().clone());
    let alarm = alarms.iter().map(|raised| alarm::name(raised.alarm));
    if let Some(name) = alarm.into_iter().find(|name| !query.excluded.contains(*name)) {
        return Some(format!("ALARM {name}"));
    }
    if query.serializable {
        return None;
    }
    if !member.is_led() {
        return Some("RAFT NO LEADER".to_owned());
    }
    let late = |_| "RANGE ERROR:etcdserver: request timed out".to_owned();
    member.barrier(DEADLINE).await.map_err(late).err()
}

/// What a request asks for beside its path.
#[derive(Debug, Default, PartialEq, Eq)]
struct Query {
    excluded: BTreeSet<String>,
    serializable: bool,
}

impl Query {
    fn parse(query: Option<&str>) -> Self {
        let mut parsed = Self::default();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            match &*name {
                "exclude" => {
                    parsed.excluded.insert(value.into_owned());
                }
                "serializable" => parsed.serializable = value == "true",
                _ => {}
            }
        }
        parsed
    }
}

fn not_allowed() -> Response {
    let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
    refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
    refused
}

/// Says what is wrong, on lines of their own.
fn unavailable(what: &str) -> Response {
    text(StatusCode::SERVICE_UNAVAILABLE, &format!("{what}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_what_to_overlook() {
        let query = Query::parse(Some("serializable=true&exclude=NOSPACE&exclude=x&other"));
        assert!(query.serializable);
        assert_eq!(query.excluded, ["NOSPACE", "x"].map(String::from).into());
        assert_eq!(Query::parse(None), Query::default());
    }
}
