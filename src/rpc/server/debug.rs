//! `/debug/vars` and `/config/local/log`: what a person looks at, and how much is logged.
//! Source: the specification A.7.

use std::path::Path;

use axum::body::Body;
use axum::response::Response;
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};

use crate::consensus::Member;
use crate::foundation::journal;
use crate::platform::host::process;
use crate::rpc::server::answer::{empty, json_answer, message, not_allowed};
use crate::rpc::server::{body, stats_v2};

/// Answers `/debug/vars`.
pub(super) fn vars(member: &Member) -> Response {
    let process = process::read(Path::new(process::PROC)).unwrap_or_default();
    let status = member.status();
    let hex = |id: u64| format!("{id:x}");
    let vars = [
        ("cmdline", json!(process.words)),
        ("file_descriptor_limit", json!(process.max_fds)),
        // Of Go's figures the one that there is here too: the memory that the system gave.
        ("memstats", json!({ "Sys": process.resident_bytes })),
        (
            "raft.status",
            json!({
                "id": hex(member.id()),
                "term": status.term,
                "commit": status.committed,
                "lead": hex(status.leader.unwrap_or_default()),
                "raftState": stats_v2::state(member),
                "applied": status.applied,
            }),
        ),
    ];
    let lines: Vec<_> = vars.iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
    json_answer(StatusCode::OK, format!("{{\n{}\n}}\n", lines.join(",\n")))
}

/// Answers `/config/local/log`.
pub(super) async fn log(request: Request<Body>) -> Response {
    if request.method() != Method::PUT {
        return not_allowed("PUT");
    }
    let refused = |said: &str| message(StatusCode::BAD_REQUEST, said);
    let Ok(bytes) = body::read(request.into_body()).await else {
        return refused("Invalid json body");
    };
    let Some(asked) = asked_level(&bytes) else { return refused("Invalid json body") };
    let level = level(&asked);
    if level.is_some_and(journal::change) {
        empty(StatusCode::NO_CONTENT)
    } else {
        refused(&format!("Invalid log level {asked}"))
    }
}

/// Reads `{"Level":"DEBUG"}` as Go does: the first value counts, and names in any case.
fn asked_level(bytes: &[u8]) -> Option<String> {
    let mut values = serde_json::Deserializer::from_slice(bytes).into_iter::<Value>();
    let Value::Object(fields) = values.next()?.ok()? else { return None };
    match fields.iter().find(|(name, _)| name.eq_ignore_ascii_case("level")) {
        None | Some((_, Value::Null)) => Some(String::new()),
        Some((_, Value::String(level))) => Some(level.clone()),
        Some(_) => None,
    }
}

/// Returns our name for a level of etcd.
fn level(asked: &str) -> Option<&'static str> {
    Some(match asked.to_ascii_uppercase().as_str() {
        "CRITICAL" | "C" | "ERROR" | "0" | "E" => "error",
        "WARNING" | "1" | "W" => "warn",
        "NOTICE" | "2" | "N" | "INFO" | "3" | "I" => "info",
        "DEBUG" | "4" | "D" => "debug",
        "TRACE" | "5" | "T" => "trace",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_read_as_go_reads_it() {
        let read = |text: &str| asked_level(text.as_bytes());
        assert_eq!(read(r#"{"level":"x"} trailing"#).as_deref(), Some("x"));
        assert_eq!(read("{}").as_deref(), Some(""));
        for wrong in ["", "[]", r#"{"Level":5}"#, "{"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        assert_eq!(
            (level("Notice"), level("4"), level("bogus")),
            (Some("info"), Some("debug"), None)
        );
    }
}
