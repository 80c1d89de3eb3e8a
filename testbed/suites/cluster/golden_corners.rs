//! A recording of etcd 3.4.23 in the corners of its v2 API is replayed: forms that are broken,
//! parameters that make no sense, methods and paths that are not served, every header.

use std::collections::BTreeMap;

use serde_json::Value;
use testbed::etcd::Member;
use testbed::http::{Answer, Request};

use super::golden::{RECORDED_PORTS, placed, recorded_member, timeless};

const RECORDING: &str = include_str!("../../golden/etcd-v2-corners.txt");
/// The recorded cluster's number, which follows from its URL.
const RECORDED_CLUSTER: &str = "a7ef944b95711739";
/// What an answer over HTTP always has, or has because of its length.
const NOT_RECORDED: &[&str] = &[
    "Date",
    "Content-Length",
    "Connection",
    "Access-Control-Allow-Headers",
    "Access-Control-Allow-Methods",
    "Access-Control-Allow-Origin",
];

/// An answer of ours that is not the recorded one.
struct Difference {
    asked: &'static str,
    why: &'static str,
    status: u16,
    body: &'static str,
}

const UNCLEAN: &str = "a path is cleaned without sending the client to another place";
const SUPERSET: &str = "the version whose behaviour clients can expect is 3.5";

const DIFFERENCES: &[Difference] = &[
    Difference { asked: "GET /v2/keys//a", why: UNCLEAN, status: 200, body: A },
    Difference { asked: "GET /v2/keys/./a", why: UNCLEAN, status: 200, body: A },
    Difference { asked: "GET /v2/keys/x/../a", why: UNCLEAN, status: 200, body: A },
    Difference {
        asked: "GET /version",
        why: SUPERSET,
        status: 200,
        body: r#"{"etcdserver":"3.5.30","etcdcluster":"3.5.0"}"#,
    },
    Difference {
        asked: "GET /health",
        why: SUPERSET,
        status: 200,
        body: r#"{"health":"true","reason":""}"#,
    },
];

/// What the recording has last of the key `/a`.
const A: &str = "{\"action\":\"get\",\"node\":{\"key\":\"/a\",\"value\":\"2\",\
                 \"modifiedIndex\":22,\"createdIndex\":19}}\n";

/// What was asked and what came of it.
struct Exchange {
    asked: String,
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

/// Reads the recording; its first lines say how.
fn exchanges() -> Vec<Exchange> {
    let (_, recorded) = RECORDING.split_once("\n\n").unwrap();
    recorded.trim_end().split("\n\n").map(exchange).collect()
}

fn exchange(text: &str) -> Exchange {
    let mut lines = text.lines();
    let asked = lines.next().unwrap().strip_prefix("> ").unwrap().to_owned();
    let status = lines.next().unwrap().strip_prefix("< ").unwrap().parse().unwrap();
    let (mut headers, mut body) = (BTreeMap::new(), String::new());
    for line in lines {
        match line.split_at(2) {
            ("< ", header) => {
                let (name, value) = header.split_once(": ").unwrap();
                headers.insert(name.to_owned(), value.to_owned());
            }
            ("= ", text) => body = format!("{text}\n"),
            ("~ ", text) => text.clone_into(&mut body),
            other => panic!("{other:?} is no line of a recording"),
        }
    }
    Exchange { asked, status, headers, body }
}

/// Asks what the recorded line says was asked.
fn ask(member: &Member, asked: &str) -> Answer {
    let mut words = asked.splitn(3, ' ');
    let (method, path) = (words.next().unwrap(), words.next().unwrap());
    let body = words.next().map(|body| match body.strip_prefix('[') {
        Some(rest) => {
            let (kind, body) = rest.split_once(']').unwrap();
            (kind, body.strip_prefix(' ').unwrap_or(body))
        }
        None => ("application/x-www-form-urlencoded", body),
    });
    member.ask(&Request { method, path, body }).unwrap()
}

/// The headers that a recording would have of an answer.
fn headers(answer: &Answer) -> BTreeMap<String, String> {
    let pairs = answer.head.lines().filter_map(|line| line.split_once(": "));
    let kept = pairs.filter(|(name, _)| !NOT_RECORDED.contains(name));
    kept.map(|(name, value)| {
        let value = if name.starts_with("X-Raft-") { "N" } else { value };
        (name.to_owned(), value.to_owned())
    })
    .collect()
}

/// A body to compare: etcd escapes a few characters in JSON that need not be.
fn meant(body: &str) -> Result<Value, String> {
    let parsed = serde_json::from_str(&timeless(body));
    parsed.map(as_begun).map_err(|_| body.to_owned())
}

/// Sets times to live, all of them multiples of 100, to what they were when they began.
fn as_begun(value: Value) -> Value {
    match value {
        Value::Array(list) => list.into_iter().map(as_begun).collect(),
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| match value.as_u64().filter(|_| name == "ttl") {
                Some(left) => (name, left.next_multiple_of(100).into()),
                None => (name, as_begun(value)),
            })
            .collect(),
        plain @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => plain,
    }
}

#[test]
fn every_corner_of_the_recorded_api_is_the_same() {
    let site = super::site("corners");
    let mut member = recorded_member(&site);
    member.start_healthy().unwrap();
    let members = member.json("/v2/members").unwrap();
    let id = members["members"][0]["id"].as_str().unwrap().to_owned();
    let cluster = member.get("/v2/members").unwrap();
    let cluster = cluster.header("X-Etcd-Cluster-Id").unwrap().to_owned();
    if member.client.port() == RECORDED_PORTS.0 {
        assert_eq!(cluster, RECORDED_CLUSTER, "the number follows from the URL");
    }
    let mut wrong = Vec::new();
    for exchange in exchanges() {
        let asked = placed(&exchange.asked, &member, &id);
        let known = DIFFERENCES.iter().find(|known| known.asked == exchange.asked);
        let status = known.map_or(exchange.status, |known| known.status);
        let body = known.map_or(exchange.body, |known| known.body.to_owned());
        let body = placed(&body, &member, &id);
        let expected: BTreeMap<_, _> = exchange.headers.into_iter().collect();
        let answer = ask(&member, &asked);
        let got = headers(&answer);
        let same_headers = known.is_some() || placed_headers(&expected, &cluster) == got;
        // Endings count too: some of etcd's answers end their line, others do not.
        let same_end = answer.body.ends_with('\n') == body.ends_with('\n');
        if answer.status != status
            || meant(&answer.body) != meant(&body)
            || !same_headers
            || !same_end
        {
            wrong.push(format!(
                "{asked}\n  recorded: {status} {expected:?} {body:?}\n  got: {} {got:?} {:?}",
                answer.status, answer.body,
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn placed_headers(recorded: &BTreeMap<String, String>, cluster: &str) -> BTreeMap<String, String> {
    let place = |(name, value): (&String, &String)| {
        (name.clone(), value.replace(RECORDED_CLUSTER, cluster))
    };
    recorded.iter().map(place).collect()
}

#[test]
fn each_difference_in_the_corners_is_still_one() {
    let recorded = exchanges();
    assert!(recorded.len() > 200, "only {} lines were recorded", recorded.len());
    for known in DIFFERENCES {
        let found = recorded.iter().find(|exchange| exchange.asked == known.asked);
        let found = found.unwrap_or_else(|| panic!("{} is not recorded", known.asked));
        let ours = (known.status, known.body);
        assert_ne!((found.status, found.body.as_str()), ours, "{}: {}", known.asked, known.why);
    }
}
