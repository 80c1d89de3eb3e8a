//! The v3 API as JSON over HTTP: a recording of etcd 3.5.30 is replayed, and streams are followed.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;

use serde_json::{Value, json};
use testbed::etcd::{ANSWER, Member};
use testbed::etcd_v3::{Client, run};
use testbed::http::{Answer, Request};
use testbed::wait;

use super::golden::{Exchange, exchanges};

const RECORDING: &str = include_str!("../../golden/etcd-v3.txt");
/// What is another in each cluster, or in each run.
const ITS_OWN: &[&str] = &[
    "cluster_id",
    "member_id",
    "raft_term",
    "dbSize",
    "dbSizeInUse",
    "leader",
    "raftIndex",
    "raftTerm",
    "raftAppliedIndex",
    "ID",
    "name",
    "peerURLs",
    "clientURLs",
];
/// What a status has here and has not in 3.5: they are of 3.6.
const LATER: &[&str] = &["dbSizeQuota", "storageVersion", "downgradeInfo"];

fn post(member: &Member, path: &str, body: &str) -> Answer {
    let body = Some(("application/json", body));
    member.ask(&Request { method: "POST", path, body }).unwrap()
}

/// Makes of an answer what is the same in every cluster.
fn common(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let own = |name: &str| ITS_OWN.contains(&name);
            let field = |(name, value): (String, Value)| {
                let value = if own(&name) { Value::Null } else { common(value) };
                (name, value)
            };
            let kept = fields.into_iter().filter(|(name, _)| !LATER.contains(&name.as_str()));
            Value::Object(kept.map(field).collect())
        }
        Value::Array(values) => values.into_iter().map(common).collect(),
        plain @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => plain,
    }
}

#[test]
fn every_answer_is_the_recorded_one() {
    let site = super::site("json-golden");
    let member = super::alone(&site);
    wait::until("the member to tell its name", ANSWER, || {
        let list = member.json("/v2/members").map_err(|error| error.to_string())?;
        let known = list["members"][0]["name"] == "one";
        if known { Ok(()) } else { Err(list.to_string()) }
    })
    .unwrap();
    let mut replayed = 0;
    for Exchange { command: typed, status, body: recorded } in exchanges(RECORDING) {
        let (path, body) = typed.split_once(" -d ").unwrap_or((&typed, ""));
        let answer = match body {
            "" => member.get(path).unwrap(),
            body => post(&member, path, body),
        };
        assert_eq!(answer.status, status, "{typed}: {}", answer.body);
        match serde_json::from_str(&recorded) {
            Ok(recorded) => {
                let seen = serde_json::from_str(&answer.body).unwrap();
                assert_eq!(common(seen), common(recorded), "{typed}");
                assert_eq!(answer.header("content-type"), Some("application/json"));
            }
            Err(_) => assert_eq!(answer.body, recorded, "{typed}"),
        }
        replayed += 1;
    }
    assert_eq!(replayed, 17, "the recording has that many");
}

#[test]
fn bad_requests_are_refused_in_its_own_form() {
    let site = super::site("json-bad");
    let member = super::alone(&site);
    for (path, body, status, code, text) in [
        ("/v3/kv/put", "{", 400, 3, "the body is not JSON: EOF while parsing an object"),
        ("/v3/kv/put", "{\"key\":\"%\"}", 400, 3, "`key` is not in base64"),
        ("/v3/kv/put", "", 400, 3, "etcdserver: key is not provided"),
        ("/v3beta/kv/put", "{}", 400, 3, "etcdserver: key is not provided"),
        ("/v3/kv/nothing", "{}", 404, 5, "Not Found"),
        ("/v3/cluster/member/add", "{}", 501, 12, "corebox: changing the members"),
        ("/v3/watch", "[]", 400, 3, "the body is not JSON: an object was expected"),
        ("/v3/maintenance/snapshot", "{}", 501, 12, "corebox: a snapshot"),
    ] {
        let answer = post(&member, path, body);
        assert_eq!(answer.status, status, "{path} {body}: {}", answer.body);
        let said: Value = serde_json::from_str(&answer.body).unwrap();
        let said = said.get("error").unwrap_or(&said);
        assert_eq!(said["code"], code, "{path} {body}");
        assert!(said["message"].as_str().unwrap().starts_with(text), "{path} {body}: {said}");
    }
    assert_eq!(member.get("/v3/kv/range").unwrap().status, 501);
    let large = format!("{{\"key\":\"YQ==\",\"value\":\"{}\"}}", "A".repeat(2_400_000));
    let refused = post(&member, "/v3/kv/put", &large);
    assert_eq!((refused.status, refused.json().is_err()), (400, true));
    assert!(refused.body.contains("etcdserver: request is too large"), "{}", refused.body);
    let huge = format!("{{\"key\":\"YQ==\",\"value\":\"{}\"}}", "A".repeat(4_190_000));
    let refused = post(&member, "/v3/kv/put", &huge);
    assert_eq!(refused.status, 429, "{}", refused.body);
}

/// A request whose body goes on while its answer comes.
struct Stream {
    answers: BufReader<TcpStream>,
}

impl Stream {
    fn open(member: &Member, path: &str) -> Self {
        let mut stream = TcpStream::connect(member.client).unwrap();
        stream.set_read_timeout(Some(ANSWER)).unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        Self { answers: BufReader::new(stream) }
    }

    fn say(&mut self, text: &str) {
        let chunk = format!("{:x}\r\n{text}\r\n", text.len());
        self.answers.get_mut().write_all(chunk.as_bytes()).unwrap();
    }

    /// Ends the body; the answer goes on.
    fn said_all(&mut self) {
        self.answers.get_mut().write_all(b"0\r\n\r\n").unwrap();
    }

    /// Waits for the next line of JSON.
    fn next(&mut self) -> Value {
        loop {
            let mut line = String::new();
            assert!(self.answers.read_line(&mut line).unwrap() > 0, "the answer has ended");
            if line.starts_with('{') {
                return serde_json::from_str(&line).unwrap();
            }
        }
    }
}

#[test]
fn a_watch_is_a_line_for_each_answer_and_goes_on_when_all_is_asked() {
    let site = super::site("json-watch");
    let member = super::alone(&site);
    let put =
        |value: &str| run(async { Client::new(member.client).put("foo", value).await.unwrap() });
    let mut stream = Stream::open(&member, "/v3/watch");
    stream.say("{\"create_request\": {\"key\":\"Zm9v\",");
    stream.say("\"prev_kv\":true}}");
    let created = stream.next();
    assert_eq!(created["result"]["created"], true, "{created}");
    assert_eq!(created["result"]["header"]["revision"], "1");
    put("1").unwrap();
    let told = stream.next();
    let kv = json!({
        "key": "Zm9v", "create_revision": "2", "mod_revision": "2", "version": "1", "value": "MQ=="
    });
    assert_eq!(told["result"]["events"], json!([{ "kv": kv }]));
    stream.say("{\"progress_request\":{}}\n{\"cancel_request\":{\"watch_id\":\"7\"}}");
    let progress = stream.next();
    assert_eq!(progress["result"]["watch_id"], "-1", "{progress}");
    stream.said_all();
    put("2").unwrap();
    let told = stream.next();
    assert_eq!(told["result"]["events"][0]["prev_kv"]["value"], "MQ==", "{told}");
}

#[test]
fn leases_are_kept_alive_and_what_is_wrong_within_a_stream_is_said_in_it() {
    let site = super::site("json-lease");
    let member = super::alone(&site);
    let granted = post(&member, "/v3/lease/grant", r#"{"TTL":600,"ID":7}"#).json().unwrap();
    assert_eq!((&granted["ID"], &granted["TTL"]), (&json!("7"), &json!("600")));
    let kept = post(&member, "/v3/lease/keepalive", r#"{"ID":"7"}"#);
    let kept: Value = serde_json::from_str(kept.body.trim()).unwrap();
    assert_eq!(kept["result"]["TTL"], "600");
    for path in ["/v3/lease/timetolive", "/v3/kv/lease/timetolive"] {
        let left = post(&member, path, r#"{"ID":"7","keys":true}"#).json().unwrap();
        assert_eq!(left["grantedTTL"], "600", "{path}");
    }
    let mut stream = Stream::open(&member, "/v3/lease/keepalive");
    stream.say(r#"{"ID":7}"#);
    assert_eq!(stream.next()["result"]["ID"], "7");
    stream.say(r#"{"ID":"seven"}"#);
    let error = stream.next();
    assert_eq!(error["error"]["code"], 3);
    assert_eq!(error["error"]["message"], "`ID` is not a number of 64 bits");
}
