//! What counts as a difference.

use serde_json::json;

use super::*;

fn asked(path: &str) -> Asked {
    Asked { method: "POST", path: path.to_owned(), body: None }
}

fn seen(body: Value) -> Seen {
    let answer = Answer {
        status: 200,
        head: "HTTP/1.1 200 OK\r\nX-Etcd-Index: 7\r\nX-Raft-Index: 9".to_owned(),
        body: String::new(),
        whom: String::new(),
    };
    Seen::of(&answer, body)
}

/// Every body that is the given one but for one of its values.
fn with_one_other(body: &Value) -> Vec<Value> {
    let one_of = |parts: Vec<(String, Value)>, put: &dyn Fn(&str, Value) -> Value| -> Vec<Value> {
        let others = parts.iter().flat_map(|(at, part)| {
            with_one_other(part).into_iter().map(move |other| put(at, other))
        });
        others.collect()
    };
    match body {
        Value::Object(fields) => {
            let parts = fields.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
            let mut all = one_of(parts, &|name, other| {
                let mut body = body.clone();
                body[name] = other;
                body
            });
            for name in fields.keys() {
                let mut fields = fields.clone();
                fields.remove(name);
                all.push(Value::Object(fields));
            }
            all
        }
        Value::Array(items) => {
            let parts = items.iter().enumerate().map(|(at, item)| (at.to_string(), item.clone()));
            let mut all = one_of(parts.collect(), &|at, other| {
                let mut body = body.clone();
                body[at.parse::<usize>().unwrap()] = other;
                body
            });
            all.push(Value::Array(items[1..].to_vec()));
            all
        }
        Value::String(text) => vec![json!(format!("{text}0"))],
        Value::Number(number) => vec![json!(number.as_i64().unwrap() + 100)],
        Value::Bool(so) => vec![json!(!so)],
        Value::Null => Vec::new(),
    }
}

/// Each field of an answer, changed alone, must be told, but for those named.
fn every_field_counts(asked: &Asked, body: &Value, masked: usize) {
    let right = seen(body.clone());
    assert_eq!(difference(asked, &right, &right, 2), None);
    let others = with_one_other(body);
    let told = others.iter().filter(|other| {
        let wrong = seen((*other).clone());
        let one = difference(asked, &wrong, &right, 2).is_some();
        assert_eq!(one, difference(asked, &right, &wrong, 2).is_some(), "{other}");
        one
    });
    assert_eq!(told.count() + masked, others.len(), "{asked:?}");
}

#[test]
fn every_field_of_an_answer_of_the_v3_api_is_compared() {
    let kv = json!({
        "key": "YQ==", "create_revision": "2", "mod_revision": "3", "version": "2",
        "value": "MQ==", "lease": "1",
    });
    // Of the header not who answered, and in which term.
    let header = json!({ "cluster_id": "1", "member_id": "2", "revision": "3", "raft_term": "4" });
    let range = json!({ "header": header, "kvs": [kv], "more": true, "count": "2" });
    every_field_counts(&asked("/v3/kv/range"), &range, 3);
    let txn = json!({
        "header": header,
        "succeeded": true,
        "responses": [{ "response_put": { "header": { "revision": "3" }, "prev_kv": kv } }],
    });
    every_field_counts(&asked("/v3/kv/txn"), &txn, 3);
    let grant = json!({ "header": header, "ID": "1", "TTL": "3000" });
    every_field_counts(&asked("/v3/lease/grant"), &grant, 3);
    let left = json!({ "header": header, "ID": "1", "TTL": "2999", "grantedTTL": "3000" });
    every_field_counts(&asked("/v3/lease/timetolive"), &left, 3);
    let leases = json!({ "leases": [{ "ID": "1" }, { "ID": "2" }] });
    every_field_counts(&asked("/v3/lease/leases"), &leases, 0);
    let refused = json!({ "code": 5, "message": "no" });
    every_field_counts(&asked("/v3/kv/put"), &refused, 0);
    let hash = json!({ "hash": 7, "compact_revision": 2, "revision": 9 });
    every_field_counts(&asked("/etcdserverpb.Maintenance/HashKV"), &hash, 0);
    let told = json!({
        "revisions": [[{ "type": "PUT", "kv": kv, "prev_kv": kv }]],
        "end": { "canceled": true, "compact_revision": 2 },
    });
    every_field_counts(&asked("/etcdserverpb.Watch/Watch"), &told, 0);
}

#[test]
fn every_field_of_an_answer_of_the_v2_api_is_compared() {
    let node = json!({
        "key": "/a", "value": "1", "dir": false, "expiration": "2026-11-24T10:47:42Z", "ttl": 7,
        "modifiedIndex": 5, "createdIndex": 4,
    });
    let listed = json!({ "key": "/", "dir": true, "nodes": [node] });
    let event = json!({ "action": "set", "node": node, "prevNode": listed });
    every_field_counts(&asked("/v2/keys/a"), &event, 0);
    // What has happened since it waits: index 7.
    let mut later = event.clone();
    later["node"]["modifiedIndex"] = json!(9);
    every_field_counts(&asked("/v2/keys/a?wait=true&stream=true"), &json!([later, event]), 0);
    let refused = json!({ "errorCode": 100, "message": "no", "cause": "/a", "index": 5 });
    every_field_counts(&asked("/v2/keys/a"), &refused, 0);
}

#[test]
fn what_is_known_to_differ_is_let_pass_in_that_direction_only() {
    let removal = |key: &str, index: i64| {
        json!({
            "action": "delete",
            "node": { "key": key, "modifiedIndex": index },
            "prevNode": { "key": key, "dir": true },
        })
    };
    let set = json!({ "action": "set", "node": { "key": "/a/b", "modifiedIndex": 12 } });
    let (above, itself) = (removal("/a", 9), removal("/a/b", 10));
    let (once, stream) = ("/v2/keys/a/b?wait=true", "/v2/keys/a/b?wait=true&stream=true");
    let (error, compacted) = ("no", "etcdserver: mvcc: required revision has been compacted");
    let hash = "/etcdserverpb.Maintenance/HashKV";
    for (path, ours, theirs) in [
        (once, json!([above]), json!([])),
        (once, json!([above]), json!([set])),
        (stream, json!([above, set]), json!([set])),
        (stream, json!([itself]), json!([itself, itself])),
        (
            "/v2/keys/a?wait=true",
            json!([set]),
            json!([{ "action": "set", "node": { "key": "/a/_h", "modifiedIndex": 5 } }]),
        ),
        (stream, json!([removal("/a/b", 5), set]), json!([removal("/a/b", 5)])),
        (
            "/v3/kv/put",
            json!({ "code": 3, "message": error }),
            json!({ "code": 3, "message": error, "error": error }),
        ),
        (
            hash,
            json!({ "hash": 1, "hash_revision": 3, "compact_revision": 3 }),
            json!({ "code": 11, "message": compacted }),
        ),
    ] {
        let (ours, theirs) = (seen(ours), seen(theirs));
        assert_eq!(difference(&asked(path), &ours, &theirs, 0), None);
        assert!(difference(&asked(path), &theirs, &ours, 0).is_some(), "{path} {theirs}");
    }
    let ours = seen(json!({ "hash": 1, "hash_revision": 4, "compact_revision": 3 }));
    let theirs = seen(json!({ "code": 11, "message": compacted }));
    assert!(difference(&asked(hash), &ours, &theirs, 0).is_some());
}

#[test]
fn status_and_headers_are_compared() {
    let (asked, right) = (asked("/v2/keys/a"), seen(json!({})));
    let status = Seen { status: 201, ..right.clone() };
    assert!(difference(&asked, &right, &status, 2).is_some());
    for (name, value, differs) in
        [("x-etcd-index", "8", true), ("allow", "GET", true), ("x-raft-term", "", true)]
    {
        let mut wrong = right.clone();
        wrong.headers.insert(name.to_owned(), value.to_owned());
        assert_eq!(difference(&asked, &right, &wrong, 2).is_some(), differs, "{name}");
    }
}

#[test]
fn time_that_is_counted_may_differ_by_what_lies_between() {
    let at = |ttl: i64, expiration: &str| seen(json!({ "ttl": ttl, "expiration": expiration }));
    let (asked, right) = (asked("/v2/keys/a"), at(10, "2026-02-28T23:59:59.9Z"));
    assert_eq!(difference(&asked, &right, &at(8, "2026-03-01T00:00:01Z"), 2), None);
    assert!(difference(&asked, &right, &at(7, "2026-03-01T00:00:01Z"), 2).is_some());
    assert!(difference(&asked, &right, &at(8, "2026-03-01T00:00:02Z"), 2).is_some());
    assert!(difference(&asked, &right, &at(8, "soon"), 2).is_some());
    let granted = |ttl: &str| seen(json!({ "TTL": ttl }));
    let (one, other) = (granted("3000"), granted("2999"));
    let path = |path: &str| Asked { method: "POST", path: path.to_owned(), body: None };
    assert!(difference(&path("/v3/lease/grant"), &one, &other, 2).is_some());
    assert_eq!(difference(&path("/v3/lease/timetolive"), &one, &other, 2), None);
}

#[test]
fn days_are_counted_as_in_a_calendar() {
    let day = |text: &str| moment(&format!("{text}T00:00:00Z")).unwrap() / 86_400;
    assert_eq!(day("2024-03-01") - day("2024-02-28"), 2);
    assert_eq!(day("2026-03-01") - day("2026-02-28"), 1);
    assert_eq!(day("2027-01-01") - day("2026-12-31"), 1);
    assert_eq!(day("2026-12-31") - day("2026-01-01"), 364);
}

#[test]
fn a_seed_is_one_list_of_requests() {
    let list = |seed| {
        let mut chance = Chance::new(seed);
        (0..200).map(|now| (v2::request(&mut chance, now), v3::step(&mut chance, now))).collect()
    };
    let (one, again, other): (Vec<_>, Vec<_>, Vec<_>) = (list(1), list(1), list(2));
    assert_eq!(one, again);
    assert_ne!(one, other);
}
