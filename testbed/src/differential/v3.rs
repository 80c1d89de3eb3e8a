//! Requests of the v3 API, over few keys, so that they meet.
//!
//! Not asked: a compaction that is not waited for, as 3.5.1 hashes differently meanwhile; a watch
//! from a revision below zero, which 3.5.1 takes as the first and later ones refuse; a watch with an
//! id of one that a compaction has ended, which 3.5.1 never frees; leases that end while the story is
//! told.

use corebox::wire::etcd::v3::etcdserverpb as pb;
use corebox::wire::etcd::v3::etcdserverpb::watch_create_request::FilterType;
use serde_json::{Value, json};

use crate::differential::Asked;
use crate::differential::chance::Chance;

/// In base64, as the gateway has them: none, `\0`, `a`, `aa`, `ab`, `b`, `bc`, `c`.
const KEYS: &[&str] = &["", "AA==", "YQ==", "YWE=", "YWI=", "Yg==", "YmM=", "Yw=="];
/// The same, as gRPC has them.
const RAW_KEYS: &[&str] = &["", "\0", "a", "aa", "ab", "b", "bc", "c"];
const TARGETS: &[&str] = &["KEY", "VERSION", "CREATE", "MOD", "VALUE"];

/// What is done next.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Both are asked.
    Ask(Asked),
    /// A watch begins, with those before on one stream.
    Watch(pb::WatchCreateRequest),
    /// A watch is canceled, of those that have begun the one with this place, if there are so many.
    Cancel(usize),
    /// The stream is asked how far it has come.
    Progress,
    /// The keys up to a revision are hashed.
    Hash(i64),
}

/// The next step, with a store that has come to a revision.
pub fn step(chance: &mut Chance, revision: i64) -> Step {
    match chance.below(100) {
        0..3 => Step::Watch(watch(chance, revision)),
        3 if chance.once_in(3) => Step::Cancel(usize::try_from(chance.below(40)).unwrap_or(0)),
        4 if chance.once_in(3) => Step::Progress,
        5 | 6 => Step::Hash(if chance.once_in(3) { 0 } else { chance.place(revision) }),
        _ => Step::Ask(request(chance, revision)),
    }
}

fn request(chance: &mut Chance, revision: i64) -> Asked {
    let (path, body) = match chance.below(20) {
        0..6 => ("/v3/kv/put", put(chance)),
        6..11 => ("/v3/kv/range", range(chance, revision)),
        11..13 => ("/v3/kv/deleterange", delete(chance)),
        13..16 => ("/v3/kv/txn", txn(chance, revision, 0)),
        16 if chance.below(6) == 0 => {
            ("/v3/kv/compaction", json!({ "revision": chance.place(revision), "physical": true }))
        }
        16 | 17 => (
            "/v3/lease/grant",
            json!({ "ID": 1 + chance.below(4), "TTL": 3000 + 1000 * chance.below(3) }),
        ),
        18 if chance.below(2) == 0 => ("/v3/lease/revoke", json!({ "ID": 1 + chance.below(5) })),
        18 => ("/v3/lease/timetolive", json!({ "ID": 1 + chance.below(5), "keys": true })),
        _ if chance.below(2) == 0 => ("/v3/lease/keepalive", json!({ "ID": 1 + chance.below(5) })),
        _ => ("/v3/lease/leases", json!({})),
    };
    Asked {
        method: "POST",
        path: path.to_owned(),
        body: Some(("application/json", body.to_string())),
    }
}

fn watch(chance: &mut Chance, revision: i64) -> pb::WatchCreateRequest {
    let mut asked = pb::WatchCreateRequest {
        key: chance.one_of(RAW_KEYS).into(),
        prev_kv: chance.once_in(2),
        progress_notify: chance.once_in(4),
        fragment: chance.once_in(4),
        ..pb::WatchCreateRequest::default()
    };
    if !chance.once_in(3) {
        asked.range_end = chance.one_of(RAW_KEYS).into();
    }
    if chance.once_in(2) {
        asked.start_revision = chance.place(revision);
    }
    if chance.once_in(6) {
        // Beyond those that the servers choose.
        asked.watch_id = 1000 + chance.number(10);
    }
    for filter in [FilterType::Noput, FilterType::Nodelete] {
        if chance.once_in(5) {
            asked.filters.push(filter.into());
        }
    }
    if asked.start_revision > 0 {
        // One that is told nothing does not show how far it has come.
        asked.filters.truncate(1);
    }
    asked
}

/// A put and a delete of a key that is watched.
pub fn touch(key: &[u8]) -> Vec<Asked> {
    let place = RAW_KEYS.iter().position(|raw| raw.as_bytes() == key).unwrap_or_default();
    // None is `\0` to a watch.
    let key = json!({ "key": KEYS[place.max(1)] });
    let ask = |path: &str| Asked {
        method: "POST",
        path: path.to_owned(),
        body: Some(("application/json", key.to_string())),
    };
    vec![ask("/v3/kv/put"), ask("/v3/kv/deleterange")]
}

fn put(chance: &mut Chance) -> Value {
    let mut body = json!({ "key": chance.one_of(KEYS), "prev_kv": chance.below(2) == 0 });
    match chance.below(8) {
        0 => body["ignore_value"] = json!(true),
        1 => body["ignore_lease"] = json!(true),
        2 => body["lease"] = json!(1 + chance.below(5)),
        _ => {}
    }
    if chance.below(6) > 0 {
        body["value"] = json!(chance.one_of(&["MQ==", "Mg==", "Mw=="]));
    }
    body
}

fn range(chance: &mut Chance, revision: i64) -> Value {
    let mut body = json!({ "key": chance.one_of(KEYS) });
    if chance.below(3) > 0 {
        body["range_end"] = json!(chance.one_of(KEYS));
    }
    for name in ["limit", "revision", "min_mod_revision", "max_mod_revision"] {
        if chance.below(6) == 0 {
            body[name] = json!(chance.place(revision));
        }
    }
    for name in ["min_create_revision", "max_create_revision"] {
        if chance.below(10) == 0 {
            body[name] = json!(chance.place(revision));
        }
    }
    for name in ["count_only", "keys_only", "serializable"] {
        body[name] = json!(chance.below(6) == 0);
    }
    body["sort_order"] = json!(chance.one_of(&["NONE", "ASCEND", "DESCEND"]));
    body["sort_target"] = json!(chance.one_of(TARGETS));
    body
}

fn delete(chance: &mut Chance) -> Value {
    let mut body = json!({ "key": chance.one_of(KEYS), "prev_kv": chance.below(2) == 0 });
    if chance.below(3) == 0 {
        body["range_end"] = json!(chance.one_of(KEYS));
    }
    body
}

fn txn(chance: &mut Chance, revision: i64, depth: u64) -> Value {
    let compare: Vec<_> = (0..chance.below(3)).map(|_| compare(chance, revision)).collect();
    let success: Vec<_> =
        (0..chance.below(4)).map(|_| operation(chance, revision, depth)).collect();
    let failure: Vec<_> =
        (0..chance.below(4)).map(|_| operation(chance, revision, depth)).collect();
    json!({ "compare": compare, "success": success, "failure": failure })
}

fn operation(chance: &mut Chance, revision: i64, depth: u64) -> Value {
    match chance.below(7) {
        0..3 => json!({ "request_put": put(chance) }),
        3 | 4 => json!({ "request_range": range(chance, revision) }),
        5 => json!({ "request_delete_range": delete(chance) }),
        _ if depth < 2 => json!({ "request_txn": txn(chance, revision, depth + 1) }),
        _ => json!({ "request_put": put(chance) }),
    }
}

fn compare(chance: &mut Chance, revision: i64) -> Value {
    let (target, field) = [
        ("VERSION", "version"),
        ("CREATE", "create_revision"),
        ("MOD", "mod_revision"),
        ("LEASE", "lease"),
        ("VALUE", "value"),
    ][usize::try_from(chance.below(5)).unwrap_or_default()];
    let result = chance.one_of(&["EQUAL", "GREATER", "LESS", "NOT_EQUAL"]);
    let mut body = json!({ "key": chance.one_of(KEYS), "target": target, "result": result });
    body[field] = match field {
        "value" => json!("MQ=="),
        "create_revision" | "mod_revision" if chance.once_in(2) => json!(chance.place(revision)),
        _ => json!(chance.below(5)),
    };
    if chance.below(4) == 0 {
        body["range_end"] = json!(chance.one_of(KEYS));
    }
    body
}
