//! The known differences: each with the requests that it is about, the reason, and what it lets
//! pass. All of them are meant; a difference that is not here is a bug.

use serde_json::Value;

use crate::differential::v2::waits;
use crate::differential::{Asked, Seen, each_field};

/// A difference that is meant.
struct Known {
    /// Why it is.
    #[expect(dead_code, reason = "for people")]
    why: &'static str,
    /// Says which requests may show it.
    applies: fn(&Asked) -> bool,
    /// Makes two answers equal, ours and theirs, that differ in nothing else.
    even_out: fn(&Asked, &mut Seen, &mut Seen),
}

const KNOWN: &[Known] = &[
    Known {
        why: "without `sorted`, etcd lists a directory in the random order of a map of Go",
        applies: |asked| {
            let listed = asked.path.starts_with("/v2/keys") && !waits(asked);
            listed && !asked.path.contains("sorted=true")
        },
        even_out: |_, ours, theirs| {
            for seen in [ours, theirs] {
                each_field(&mut seen.body, &mut |name, value| {
                    if let ("nodes", Value::Array(nodes)) = (name, value) {
                        nodes.sort_by_key(|node| node["key"].to_string());
                    }
                });
            }
        },
    },
    Known {
        why: "a stream of exactly a path is told twice in etcd that the path is gone",
        applies: |asked| waits(asked) && streams(asked),
        even_out: |_, _, theirs| {
            if let Some(events) = theirs.body.as_array_mut() {
                events.dedup_by(|event, before| event == before && is_removal(event));
            }
        },
    },
    Known {
        why: "who waits below a directory that is removed is told so, in etcd only if what it waits \
              for was there; ours cannot know, and etcd does not ask where it finds this in history",
        applies: waits,
        even_out: |asked, ours, theirs| {
            let (Some(events), Some(told)) = (ours.body.as_array_mut(), theirs.body.as_array_mut())
            else {
                return;
            };
            let before = events.len();
            let index = |event: &Value| event["node"]["modifiedIndex"].clone();
            events.retain(|event| {
                !is_removal_above(event, waited(asked))
                    || told.iter().any(|one| index(one) == index(event))
            });
            if events.len() < before && !streams(asked) {
                // Ours was over with it, and theirs goes on to wait.
                told.clear();
            }
        },
    },
    Known {
        why: "of history, etcd tells hidden keys to who waits above them, though not when they \
              change; ours never does",
        applies: waits,
        even_out: |asked, ours, theirs| {
            let first = theirs.body[0]["node"]["key"].as_str().unwrap_or_default();
            if is_from_history(theirs) && is_hidden(first, waited(asked)) {
                ours.body = theirs.body.clone();
            }
        },
    },
    Known {
        why: "a stream that finds its first change in history ends there in etcd, though the \
              connection stays; ours goes on",
        applies: |asked| waits(asked) && streams(asked),
        even_out: |_, ours, theirs| {
            if let Some(events) = ours.body.as_array_mut()
                && is_from_history(theirs)
            {
                events.truncate(1);
            }
        },
    },
    Known {
        why: "etcd lists leases by when they end, which its leader alone knows here; ours by id",
        applies: |asked| asked.path == "/v3/lease/leases",
        even_out: |_, ours, theirs| {
            for seen in [ours, theirs] {
                if let Some(Value::Array(leases)) = seen.body.get_mut("leases") {
                    leases.sort_by_key(|lease| lease["ID"].to_string());
                }
            }
        },
    },
    Known {
        why: "etcd lists the keys of a lease in the random order of a map of Go",
        applies: |asked| asked.path == "/v3/lease/timetolive",
        even_out: |_, ours, theirs| {
            for seen in [ours, theirs] {
                if let Some(Value::Array(keys)) = seen.body.get_mut("keys") {
                    keys.sort_by_key(Value::to_string);
                }
            }
        },
    },
    Known {
        why: "the gateway of 3.5.1 says an error's message twice, that of 3.5.30 and ours once",
        applies: |asked| asked.path.starts_with("/v3/"),
        even_out: |_, _, theirs| {
            if let Some(fields) = theirs.body.as_object_mut()
                && fields.get("error").is_some()
                && fields.get("error") == fields.get("message")
            {
                fields.remove("error");
            }
        },
    },
    Known {
        why: "3.5.1 does not hash up to exactly the compacted revision, by which later members are \
              compared",
        applies: |asked| asked.path == "/etcdserverpb.Maintenance/HashKV",
        even_out: |_, ours, theirs| {
            let refused =
                theirs.body["message"] == "etcdserver: mvcc: required revision has been compacted";
            if refused && ours.body["hash_revision"] == ours.body["compact_revision"] {
                theirs.body = ours.body.clone();
            }
        },
    },
    Known {
        why: "the answer to `HashKV` tells its revision since 3.6, and ours does",
        applies: |asked| asked.path == "/etcdserverpb.Maintenance/HashKV",
        even_out: |_, ours, theirs| {
            for seen in [ours, theirs] {
                if let Some(fields) = seen.body.as_object_mut() {
                    fields.remove("hash_revision");
                }
            }
        },
    },
];

/// Takes from two answers to a request what is known to differ.
pub(super) fn even_out(asked: &Asked, ours: &mut Seen, theirs: &mut Seen) {
    for known in KNOWN.iter().filter(|known| (known.applies)(asked)) {
        (known.even_out)(asked, ours, theirs);
    }
}

/// The path that is waited for.
fn waited(asked: &Asked) -> &str {
    let path = asked.path.split('?').next().unwrap_or_default();
    path.strip_prefix("/v2/keys").unwrap_or_default().trim_end_matches('/')
}

fn streams(asked: &Asked) -> bool {
    asked.path.contains("stream=true")
}

/// Whether the first change of an answer is from before it was begun.
fn is_from_history(seen: &Seen) -> bool {
    let begun: Option<i64> = seen.headers.get("x-etcd-index").and_then(|index| index.parse().ok());
    let first = seen.body[0]["node"]["modifiedIndex"].as_i64();
    first.is_some_and(|first| begun.is_some_and(|begun| first <= begun))
}

fn is_removal(event: &Value) -> bool {
    matches!(event["action"].as_str(), Some("delete" | "compareAndDelete"))
}

/// Whether a directory was removed that `path` is below.
fn is_removal_above(event: &Value, path: &str) -> bool {
    let key = event["node"]["key"].as_str().unwrap_or_default();
    let below = path.strip_prefix(key).is_some_and(|rest| rest.starts_with('/'));
    below && is_removal(event) && event["prevNode"]["dir"] == true
}

/// Whether a key is hidden from who looks at `path`.
fn is_hidden(key: &str, path: &str) -> bool {
    key.strip_prefix(path).is_some_and(|rest| rest.contains("/_"))
}
