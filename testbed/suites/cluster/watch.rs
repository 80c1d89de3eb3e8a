//! Waiting for changes, as scripts do it with `curl`.

use serde_json::Value;
use testbed::etcd::{ANSWER, Member};
use testbed::http;

/// The action, the key and the index of an event.
fn told(event: &Value) -> (String, String, u64) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let node = &event["node"];
    (text(&event["action"]), text(&node["key"]), node["modifiedIndex"].as_u64().unwrap())
}

fn wait(member: &Member, path: &str) -> (String, String, u64) {
    told(&member.json(&format!("/v2/keys{path}")).unwrap())
}

#[test]
fn a_wait_from_the_past_is_told_what_happened() {
    let site = super::site("past");
    let member = super::alone(&site);
    member.set("/a", "1").unwrap();
    member.set("/b/x", "2").unwrap();
    member.set("/a", "3").unwrap();
    assert_eq!(wait(&member, "/a?wait=true&waitIndex=4"), ("set".into(), "/a".into(), 4));
    assert_eq!(wait(&member, "/a?wait=true&waitIndex=5"), ("set".into(), "/a".into(), 6));
    let below = "/b?wait=true&recursive=true&waitIndex=1";
    assert_eq!(wait(&member, below), ("set".into(), "/b/x".into(), 5));
}

#[test]
fn a_stream_goes_on_and_tells_of_a_key_that_expires() {
    let site = super::site("stream");
    let member = super::alone(&site);
    let path = "/v2/keys/s?wait=true&recursive=true&stream=true";
    let mut lines = http::follow_local(member.client, path, ANSWER).unwrap();
    let mut next = || told(&serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap());
    member.set("/s/a", "1").unwrap();
    assert_eq!(next(), ("set".into(), "/s/a".into(), 4));
    member.set("/elsewhere", "1").unwrap();
    assert_eq!(member.put("/s/lease", "value=mine&ttl=1").unwrap().status, 201);
    assert_eq!(next(), ("set".into(), "/s/lease".into(), 6));
    assert_eq!(next(), ("expire".into(), "/s/lease".into(), 7));
    assert_eq!(member.get("/v2/keys/s/lease").unwrap().status, 404);
}

#[test]
fn a_stream_through_one_member_tells_of_a_write_through_another() {
    let site = super::site("through");
    let members = super::started(&site, &["a", "b", "c"]);
    for reader in &members {
        let key = format!("/to/{}", reader.name);
        let path = format!("/v2/keys{key}?wait=true&stream=true");
        let mut lines = http::follow_local(reader.client, &path, ANSWER).unwrap();
        for writer in &members {
            writer.set(&key, &writer.name).unwrap();
            let event: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
            assert_eq!(event["node"]["value"], writer.name.as_str(), "through {}", reader.name);
        }
    }
}

#[test]
fn a_member_that_stops_ends_the_answers_of_those_who_wait() {
    let site = super::site("ends");
    let mut member = super::alone(&site);
    let path = "/v2/keys/never?wait=true&stream=true";
    let mut lines = http::follow_local(member.client, path, ANSWER).unwrap();
    member.terminate().unwrap();
    assert!(lines.next().is_none(), "nothing was written");
    assert_eq!(member.ended(ANSWER / 2).unwrap().code(), Some(0));
}

#[test]
fn a_wait_from_before_the_last_thousand_events_is_refused() {
    let site = super::site("thousand");
    let member = super::alone(&site);
    for number in 0..1001 {
        member.set("/n", &number.to_string()).unwrap();
    }
    let answer = member.get("/v2/keys/n?wait=true&waitIndex=4").unwrap();
    assert_eq!(answer.status, 400);
    let cleared = "{\"errorCode\":401,\"message\":\"The event in requested index is outdated and \
                   cleared\",\"cause\":\"the requested history has been cleared [5/4]\",\
                   \"index\":1004}\n";
    assert_eq!(answer.body, cleared);
    assert_eq!(wait(&member, "/n?wait=true&waitIndex=5"), ("set".into(), "/n".into(), 5));
}
