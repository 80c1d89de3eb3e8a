//! Requests of the v2 API, over few keys, so that they meet.
//!
//! Nothing ends while a story is told: when it does is not the same to both.

use crate::differential::Asked;
use crate::differential::chance::Chance;

const KEYS: &[&str] = &["", "/", "/a", "/a/b", "/a/b/c", "/d", "/d/e", "/_h", "/d/_h", "/q", "/f/"];
/// What a query or a form may say; the last of a list are wrong on purpose.
const OPTIONS: &[&str] = &[
    "prevExist=true",
    "prevExist=false",
    "prevValue=1",
    "prevValue=2",
    "prevValue=",
    "prevIndex=0",
    "dir=true",
    "recursive=true",
    "sorted=true",
    "quorum=true",
    "noValueOnSuccess=true",
    "refresh=true",
    "ttl=1000",
    "ttl=5000",
    "ttl=",
    "dir=x",
    "recursive=1",
    "sorted=no",
    "prevExist=maybe",
    "prevIndex=-1",
    "ttl=-1",
    "ttl=x",
    "refresh=x",
    "noValueOnSuccess=x",
    "waitIndex=x",
    "stream=x",
];

/// The next request, of a store that has come to an index.
pub fn request(chance: &mut Chance, index: i64) -> Asked {
    let key = chance.one_of(KEYS);
    if chance.once_in(25) {
        return wait(chance, key, index);
    }
    let method = chance.one_of(&["GET", "GET", "PUT", "PUT", "PUT", "POST", "DELETE"]);
    let mut words: Vec<String> = Vec::new();
    for _ in 0..chance.below(3) {
        words.push(chance.one_of(OPTIONS).to_owned());
    }
    if chance.once_in(12) {
        words.push(format!("prevIndex={}", chance.place(index)));
    }
    let writes = matches!(method, "PUT" | "POST");
    if writes && chance.below(5) > 0 {
        words.push(format!("value={}", chance.below(3)));
    }
    let said = words.join("&");
    if writes {
        let body = Some(("application/x-www-form-urlencoded", said));
        return Asked { method, path: format!("/v2/keys{key}"), body };
    }
    Asked { method, path: format!("/v2/keys{key}?{said}"), body: None }
}

/// A request that waits for a change.
fn wait(chance: &mut Chance, key: &str, index: i64) -> Asked {
    let mut path = format!("/v2/keys{key}?wait=true");
    for word in ["&recursive=true", "&stream=true"] {
        if chance.once_in(2) {
            path.push_str(word);
        }
    }
    if chance.once_in(2) {
        path = format!("{path}&waitIndex={}", chance.place(index));
    }
    Asked { method: "GET", path, body: None }
}

/// Whether the answer may come late, or go on.
#[must_use]
pub fn waits(asked: &Asked) -> bool {
    asked.path.contains("wait=true")
}
