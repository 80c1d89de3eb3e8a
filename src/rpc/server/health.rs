//! Whether a member is of use, for load balancers and supervisors, as etcd answers it: `/health` in
//! one word, `/livez` and `/readyz` as lists of checks, and each check by itself below them.
//!
//! ```text
//!  /health   ?exclude=NOSPACE     overlooks an alarm      ?serializable=true  this member alone
//!  /readyz   ?exclude=non_learner leaves out a check      ?verbose            with all checks
//! ```

use std::collections::BTreeSet;
use std::time::Duration;

use axum::response::Response;
use http::{Method, StatusCode};
use serde_json::json;

use crate::consensus::Member;
use crate::rpc::server::answer::{json_answer, not_allowed, text};
use crate::rpc::server::v3::alarm;
use crate::store::keys_v3::Alarm;

/// How long a quorum may take to show that it is there.
const DEADLINE: Duration = Duration::from_secs(1);
const TIMED_OUT: &str = "etcdserver: request timed out";

/// One thing that is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
    NonLearner,
}

/// What tells that a process need not be started again.
const ALIVE: &[Check] = &[Check::SerializableRead];
/// What tells that requests may be sent to it.
const READY: &[Check] =
    &[Check::DataCorruption, Check::SerializableRead, Check::LinearizableRead, Check::NonLearner];

/// Tells whether a path is one of those that are answered here.
pub fn serves(path: &str) -> bool {
    path == "/health" || checks(path).is_some()
}

/// Answers a request for a path that is served here.
pub async fn answer(member: &Member, path: &str, method: &Method, query: Option<&str>) -> Response {
    if method != Method::GET {
        return not_allowed("GET");
    }
    let query = Query::parse(query);
    if let Some(checks) = checks(path) {
        return checked(member, &checks, &query).await;
    }
    match unhealthy(member, &query).await {
        None => json_answer(StatusCode::OK, said("true", "")),
        Some(reason) => unavailable(&said("false", &reason)),
    }
}

/// Returns the checks that a path is about.
fn checks(path: &str) -> Option<Vec<Check>> {
    let (root, one) = match path.strip_prefix('/')?.split_once('/') {
        Some((root, one)) => (root, Some(one)),
        None => (&path[1..], None),
    };
    let all = match root {
        "livez" => ALIVE,
        "readyz" => READY,
        _ => return None,
    };
    let wanted = |check: &Check| one.is_none_or(|name| check.name() == name);
    let checks: Vec<_> = all.iter().copied().filter(wanted).collect();
    (!checks.is_empty()).then_some(checks)
}

async fn checked(member: &Member, checks: &[Check], query: &Query) -> Response {
    let (mut lines, mut well) = (Vec::new(), true);
    for check in checks {
        let name = check.name();
        if query.excluded.contains(name) {
            continue;
        }
        match check.carry_out(member).await {
            Ok(()) => lines.push(format!("[+]{name} ok\n")),
            Err(why) => {
                lines.push(format!("[-]{name} failed: {why}\n"));
                well = false;
            }
        }
    }
    let lines = lines.concat();
    match (well, query.verbose) {
        (false, _) => unavailable(&lines),
        (true, true) => text(StatusCode::OK, &format!("{lines}ok\n")),
        (true, false) => text(StatusCode::OK, "ok\n"),
    }
}

impl Check {
    fn name(self) -> &'static str {
        match self {
            Self::DataCorruption => "data_corruption",
            Self::SerializableRead => "serializable_read",
            Self::LinearizableRead => "linearizable_read",
            Self::NonLearner => "non_learner",
        }
    }

    /// Looks; the error is what is wrong.
    async fn carry_out(self, member: &Member) -> Result<(), &'static str> {
        let (well, why) = match self {
            Self::DataCorruption => {
                let corrupt = |alarm| member.read(|machine| machine.keys_v3.alarms().any(alarm));
                (!corrupt(Alarm::Corrupt), "alarm activated: CORRUPT")
            }
            Self::SerializableRead => {
                (member.status().failed.is_none(), "etcdserver: server stopped")
            }
            Self::LinearizableRead => (member.barrier(DEADLINE).await.is_ok(), TIMED_OUT),
            // Members that only listen are not there yet.
            Self::NonLearner => (true, ""),
        };
        if well { Ok(()) } else { Err(why) }
    }
}

fn said(health: &str, reason: &str) -> String {
    json!({ "health": health, "reason": reason }).to_string()
}

/// Returns why the member is not of use.
async fn unhealthy(member: &Member, query: &Query) -> Option<String> {
    let alarms = member.read(|machine| machine.keys_v3.alarms().clone());
    let mut alarms = alarms.iter().map(|raised| alarm::name(raised.alarm));
    if let Some(name) = alarms.find(|name| !query.excluded.contains(*name)) {
        return Some(format!("ALARM {name}"));
    }
    if query.serializable {
        return None;
    }
    if !member.is_led() {
        return Some("RAFT NO LEADER".to_owned());
    }
    let late = |_| format!("RANGE ERROR:{TIMED_OUT}");
    member.barrier(DEADLINE).await.map_err(late).err()
}

/// What a request asks for beside its path.
#[derive(Debug, Default, PartialEq, Eq)]
struct Query {
    excluded: BTreeSet<String>,
    serializable: bool,
    verbose: bool,
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
                "verbose" => parsed.verbose = true,
                _ => {}
            }
        }
        parsed
    }
}

/// Says what is wrong, with a line's end behind it as Go's server puts there.
fn unavailable(what: &str) -> Response {
    text(StatusCode::SERVICE_UNAVAILABLE, &format!("{what}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_what_to_overlook() {
        let query = Query::parse(Some("serializable=true&exclude=NOSPACE&exclude=x&verbose"));
        assert!(query.serializable && query.verbose);
        assert_eq!(query.excluded, ["NOSPACE", "x"].map(String::from).into());
        assert_eq!(Query::parse(None), Query::default());
    }

    #[test]
    fn a_path_names_all_checks_or_one() {
        assert_eq!(checks("/livez"), Some(vec![Check::SerializableRead]));
        assert_eq!(checks("/readyz").map(|checks| checks.len()), Some(4));
        assert_eq!(checks("/readyz/non_learner"), Some(vec![Check::NonLearner]));
        for other in ["/livez/non_learner", "/readyz/", "/healthz", "/", "", "/v2/keys"] {
            assert_eq!(checks(other), None, "{other}");
        }
        assert!(serves("/health") && !serves("/health/x"));
    }
}
