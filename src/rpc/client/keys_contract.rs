//! What any store must do for its clients: one contract, which the twin in memory passes and
//! every real one must.

#![expect(clippy::unwrap_used, reason = "a contract that is broken ends the test which runs it")]

use std::time::Duration;

use crate::rpc::client::keys::{Delete, Expect, Keys, Read, Write, leaves};
use crate::wire::etcd::keys_v2::{Action, Code};

const ALL: Read = Read { recursive: true, sorted: true, quorum: true };
const FILE: Delete = Delete { recursive: false, dir: false, expect: Expect::Anything };
const TREE: Delete = Delete { recursive: true, dir: true, expect: Expect::Anything };

/// Tries everything that a store must do, below `folder`, which must not be there yet.
///
/// # Panics
///
/// Where the store does something else.
pub async fn contract(keys: &dyn Keys, folder: &str) {
    writes_are_read(keys, folder).await;
    expectations_are_kept(keys, folder).await;
    directories_are_listed_and_removed(keys, folder).await;
    watches_miss_nothing(keys, folder).await;
    keys_expire(keys, folder).await;
    keys.delete(folder, TREE).await.unwrap();
}

async fn writes_are_read(keys: &dyn Keys, folder: &str) {
    let path = format!("{folder}/a b&c=ü");
    let missing = keys.get(&path, ALL).await.unwrap_err();
    assert!(missing.is(Code::KeyNotFound), "{missing}");
    let set = keys.put(&path, Write::set("one\ntwo & 3=ü")).await.unwrap();
    assert_eq!((set.event.action, set.event.prev_node), (Action::Set, None));
    let read = keys.get(&path, ALL).await.unwrap();
    let node = read.event.node.unwrap();
    assert_eq!((node.key, node.value.as_deref()), (path.clone(), Some("one\ntwo & 3=ü")));
    assert!(read.index >= node.modified_index, "the answer tells where the store stands");
    let again = keys.put(&path, Write::set("")).await.unwrap();
    assert_eq!(again.event.prev_node.unwrap().value.as_deref(), Some("one\ntwo & 3=ü"));
    assert_eq!(again.event.node.unwrap().value.as_deref(), Some(""));
    let gone = keys.delete(&path, FILE).await.unwrap();
    assert_eq!(gone.event.action, Action::Delete);
    assert!(keys.delete(&path, FILE).await.unwrap_err().is(Code::KeyNotFound));
}

async fn expectations_are_kept(keys: &dyn Keys, folder: &str) {
    let path = format!("{folder}/cas");
    let write = |value: &str, expect| Write::set(value).if_found(expect);
    let refused = keys.put(&path, write("0", Expect::Present)).await.unwrap_err();
    assert!(refused.is(Code::KeyNotFound), "{refused}");
    let made = keys.put(&path, write("1", Expect::Absent)).await.unwrap();
    assert_eq!(made.event.action, Action::Create);
    let refused = keys.put(&path, write("2", Expect::Absent)).await.unwrap_err();
    assert!(refused.is(Code::NodeExist), "{refused}");
    let swapped = keys.put(&path, write("2", Expect::Value("1".into()))).await.unwrap();
    assert_eq!(swapped.event.action, Action::CompareAndSwap);
    let refused = keys.put(&path, write("3", Expect::Value("1".into()))).await.unwrap_err();
    assert!(refused.is(Code::TestFailed), "{refused}");
    let at = swapped.event.node.unwrap().modified_index;
    let swapped = keys.put(&path, write("3", Expect::Index(at))).await.unwrap();
    let refused = keys.put(&path, write("4", Expect::Index(at))).await.unwrap_err();
    assert!(refused.is(Code::TestFailed), "{refused}");
    let delete = |expect| Delete { expect, ..FILE };
    let refused = keys.delete(&path, delete(Expect::Value("2".into()))).await.unwrap_err();
    assert!(refused.is(Code::TestFailed), "{refused}");
    let at = swapped.event.node.unwrap().modified_index;
    let gone = keys.delete(&path, delete(Expect::Index(at))).await.unwrap();
    assert_eq!(gone.event.action, Action::CompareAndDelete);
}

async fn directories_are_listed_and_removed(keys: &dyn Keys, folder: &str) {
    let dir = format!("{folder}/dir");
    let path = |name: &str| format!("{dir}/{name}");
    for name in ["b", "a/x", "_hidden"] {
        keys.put(&path(name), Write::set(name)).await.unwrap();
    }
    let read = keys.get(&dir, ALL).await.unwrap().event.node.unwrap();
    let found: Vec<_> = leaves(&read).into_iter().map(|(_, value)| value).collect();
    assert_eq!(found, ["a/x", "b"], "sorted, and without what is hidden");
    let refused = keys.delete(&dir, FILE).await.unwrap_err();
    assert!(refused.is(Code::NotFile), "{refused}");
    let refused = keys.delete(&dir, Delete { dir: true, ..FILE }).await.unwrap_err();
    assert!(refused.is(Code::DirNotEmpty), "{refused}");
    let refused = keys.put(&path("b/c"), Write::set("1")).await.unwrap_err();
    assert!(refused.is(Code::NotDir), "{refused}");
    let gone = keys.delete(&dir, TREE).await.unwrap();
    assert!(gone.event.node.unwrap().dir);
}

async fn watches_miss_nothing(keys: &dyn Keys, folder: &str) {
    let dir = format!("{folder}/watched");
    let path = |name: &str| format!("{dir}/{name}");
    let first = keys.put(&path("a"), Write::set("1")).await.unwrap().index;
    keys.put(&path("a"), Write::set("2")).await.unwrap();
    keys.put(&format!("{folder}/elsewhere"), Write::set("x")).await.unwrap();
    keys.delete(&path("a"), FILE).await.unwrap();
    let event = keys.watch(&dir, first).await.unwrap();
    let node = event.node.unwrap();
    assert_eq!(node.value.as_deref(), Some("2"), "the past is told");
    let event = keys.watch(&dir, node.modified_index).await.unwrap();
    assert_eq!(event.action, Action::Delete, "elsewhere is not");
    let after = event.node.unwrap().modified_index;
    let key = path("b");
    let (event, written) = tokio::join!(keys.watch(&dir, after), keys.put(&key, Write::set("3")));
    let (event, written) = (event.unwrap(), written.unwrap().event);
    assert_eq!(event.node.unwrap().modified_index, written.node.unwrap().modified_index);
}

async fn keys_expire(keys: &dyn Keys, folder: &str) {
    let path = format!("{folder}/lease");
    let write = Write::set("mine").for_time(Duration::from_secs(1));
    let written = keys.put(&path, write).await.unwrap();
    let node = written.event.node.unwrap();
    assert_eq!((node.ttl, node.expiration.is_some()), (1, true));
    let event = keys.watch(&path, node.modified_index).await.unwrap();
    assert_eq!((event.action, event.node.unwrap().key), (Action::Expire, path.clone()));
    assert!(keys.get(&path, ALL).await.unwrap_err().is(Code::KeyNotFound));
}
