//! The keys of the v2 API: a tree of values and directories with one index over all.
//!
//! A view over a [`Keyspace`]: a record for each key and each directory, but the root. Source:
//! etcd v2's behaviour as in the specification A.1 to A.3, byte for byte where recorded.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::foundation::clock::Timestamp;
use crate::store::command::{Command, Compare, Delete, Expect, Put};
use crate::store::event::{Action, Code, Event, NodeView, Outcome, Refusal};
use crate::store::history::{History, Interest};
use crate::store::keyspace::Keyspace;

/// The index of an empty tree. etcd's first user index is 4, since its own keys come first.
const FIRST_INDEX: u64 = 3;

/// Deepest path, in components: keeps a listing's nesting within any reader's stack.
pub const DEPTH_MAX: usize = 256;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// `None` for a directory.
    value: Option<String>,
    created: u64,
    modified: u64,
    expires: Option<Timestamp>,
}

/// The v2 keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeV2 {
    index: u64,
    records: Keyspace<Record>,
    /// What expires, soonest first.
    expiries: BTreeSet<(Timestamp, String)>,
    history: History,
}

impl Default for TreeV2 {
    fn default() -> Self {
        Self {
            index: FIRST_INDEX,
            records: Keyspace::default(),
            expiries: BTreeSet::new(),
            history: History::default(),
        }
    }
}

/// Cleans a path as Go's `path.Clean` does: `//a/./b/..` is `/a`.
pub fn clean(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(kept.pop()),
            part => kept.push(part),
        }
    }
    format!("/{}", kept.join("/"))
}

/// How much of a directory to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Its children, and not what is in them.
    Children,
    /// All that is below it.
    All,
}

impl TreeV2 {
    /// Returns the index of the last change.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Returns when the next key expires, if any does.
    pub fn next_expiry(&self) -> Option<Timestamp> {
        self.expiries.first().map(|(at, _)| *at)
    }

    /// Reads a key or a directory as it looks at `now`.
    pub fn get(&self, path: &str, depth: Depth, now: Timestamp) -> Result<Event, Refusal> {
        let node = if path == "/" {
            NodeView { key: "/".into(), dir: true, ..NodeView::default() }
        } else {
            view(path, self.find(path)?, now)
        };
        let node = if node.dir { self.listing(node, depth, now) } else { node };
        Ok(Event { action: Action::Get, node, prev: None, refresh: false })
    }

    /// Finds the first change since the index `since` that a watcher is to be told of.
    pub fn changed(&self, interest: &Interest, since: u64) -> Result<Option<Arc<Event>>, Refusal> {
        self.history.find(interest, since, self.index)
    }

    /// Applies a command at the time `now`. Commands of other keyspaces are `Done` untouched.
    pub fn apply(&mut self, command: &Command, now: Timestamp) -> Outcome {
        let event = match command {
            Command::Put(put) => self.put(put, now),
            Command::Append { path, value, ttl, dir } => {
                let path = format!("{}/{:020}", path.trim_end_matches('/'), self.index + 1);
                let value = if *dir { None } else { Some(value.clone()) };
                self.create(&path, value, expiry(*ttl, now), now)
            }
            Command::Delete(delete) => self.delete(delete, now),
            Command::Expire => {
                self.expire(now);
                return Outcome::Done;
            }
            Command::Publish { .. } | Command::V3(_) => return Outcome::Done,
        };
        match event {
            Ok(event) => Outcome::Event(self.record(event)),
            Err(refusal) => Outcome::Refused(refusal),
        }
    }

    fn record(&mut self, event: Event) -> Arc<Event> {
        let event = Arc::new(event);
        self.history.push(event.clone());
        event
    }

    fn put(&mut self, put: &Put, now: Timestamp) -> Result<Event, Refusal> {
        if put.path == "/" {
            return Err(self.refuse(Code::RootReadOnly, "/"));
        }
        let expires = expiry(put.ttl, now);
        match &put.expect {
            Expect::Absent => {
                let value = (!put.dir).then(|| put.value.clone());
                self.create(&put.path, value, expires, now)
            }
            Expect::Present => self.update(put, expires, now),
            Expect::Equal(compare) => self.compare_and_swap(put, compare, expires, now),
            Expect::Anything => self.set(put, expires, now),
        }
    }

    fn set(
        &mut self,
        put: &Put,
        expires: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Event, Refusal> {
        let before = match self.find(&put.path) {
            Ok(record) => Some(record),
            Err(refusal) if put.refresh || refusal.code != Code::KeyNotFound => {
                return Err(refusal);
            }
            Err(_) => None,
        };
        if before.is_some_and(|record| record.value.is_none()) {
            return Err(self.refuse(Code::NotFile, &put.path));
        }
        let prev = before.map(|record| view(&put.path, record, now));
        let kept = before.filter(|_| put.refresh).and_then(|record| record.value.clone());
        let value = kept.or_else(|| (!put.dir).then(|| put.value.clone()));
        let node = self.place(&put.path, value, expires, now)?;
        Ok(Event { action: Action::Set, node, prev, refresh: put.refresh })
    }

    fn create(
        &mut self,
        path: &str,
        value: Option<String>,
        expires: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Event, Refusal> {
        match self.find(path) {
            Ok(_) => return Err(self.refuse(Code::NodeExist, path)),
            Err(refusal) if refusal.code != Code::KeyNotFound => return Err(refusal),
            Err(_) => {}
        }
        let node = self.place(path, value, expires, now)?;
        Ok(Event { action: Action::Create, node, prev: None, refresh: false })
    }

    fn update(
        &mut self,
        put: &Put,
        expires: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Event, Refusal> {
        let before = self.find(&put.path)?.clone();
        let prev = Some(view(&put.path, &before, now));
        let is_dir = before.value.is_none();
        if is_dir && !put.value.is_empty() {
            return Err(self.refuse(Code::NotFile, &put.path));
        }
        let value = match before.value {
            Some(old) if put.refresh => Some(old),
            Some(_) => Some(put.value.clone()),
            None => None,
        };
        let index = self.next_index();
        // etcd leaves a directory's stored index alone, and shows the new one in the answer.
        let modified = if is_dir { before.modified } else { index };
        let record = Record { value, created: before.created, modified, expires };
        let node = NodeView { modified: index, ..view(&put.path, &record, now) };
        self.replace(&put.path, record);
        Ok(Event { action: Action::Update, node, prev, refresh: put.refresh })
    }

    fn compare_and_swap(
        &mut self,
        put: &Put,
        compare: &Compare,
        expires: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Event, Refusal> {
        let before = self.matching(&put.path, compare)?;
        let prev = Some(view(&put.path, &before, now));
        let value = if put.refresh { before.value } else { Some(put.value.clone()) };
        let modified = self.next_index();
        let record = Record { value, created: before.created, modified, expires };
        let node = view(&put.path, &record, now);
        self.replace(&put.path, record);
        Ok(Event { action: Action::CompareAndSwap, node, prev, refresh: put.refresh })
    }

    fn delete(&mut self, delete: &Delete, now: Timestamp) -> Result<Event, Refusal> {
        let path = &delete.path;
        if path == "/" {
            // etcd compares the root before it finds that it is one.
            return Err(if delete.compare.is_empty() {
                self.refuse(Code::RootReadOnly, "/")
            } else {
                self.refuse(Code::NotFile, "")
            });
        }
        let (action, before) = if delete.compare.is_empty() {
            (Action::Delete, self.find(path)?.clone())
        } else {
            (Action::CompareAndDelete, self.matching(path, &delete.compare)?)
        };
        let is_dir = before.value.is_none();
        if is_dir && !delete.dir && !delete.recursive {
            return Err(self.refuse(Code::NotFile, path));
        }
        if is_dir && !delete.recursive && self.records.below(path).next().is_some() {
            return Err(self.refuse(Code::DirNotEmpty, path));
        }
        let prev = view(path, &before, now);
        Ok(self.take_away(action, path, &before, prev))
    }

    /// Removes what has expired by `now`, soonest first; each is a change of its own.
    fn expire(&mut self, now: Timestamp) {
        while let Some((at, path)) = self.expiries.first().cloned().filter(|(at, _)| *at <= now) {
            self.expiries.remove(&(at, path.clone()));
            let Some(before) = self.records.get(&path).cloned() else { continue };
            let prev = view(&path, &before, now);
            let event = self.take_away(Action::Expire, &path, &before, prev);
            self.record(event);
        }
    }

    /// Removes a node and all below it, and makes the change that says so.
    fn take_away(&mut self, action: Action, path: &str, before: &Record, prev: NodeView) -> Event {
        let modified = self.next_index();
        self.forget(path);
        for (below, record) in self.records.remove_below(path) {
            if let Some(at) = record.expires {
                self.expiries.remove(&(at, below));
            }
        }
        let dir = before.value.is_none();
        let node = NodeView {
            key: path.to_owned(),
            dir,
            modified,
            created: before.created,
            ..NodeView::default()
        };
        Event { action, node, prev: Some(prev), refresh: false }
    }

    /// Makes a node, with the directories above it where they are missing.
    fn place(
        &mut self,
        path: &str,
        value: Option<String>,
        expires: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<NodeView, Refusal> {
        if path.matches('/').count() > DEPTH_MAX {
            let cause = format!("a key has at most {DEPTH_MAX} components");
            return Err(self.refuse(Code::InvalidField, &cause));
        }
        let index = self.next_index();
        for above in ancestors(path) {
            if self.records.get(above).is_none() {
                let dir = Record { value: None, created: index, modified: index, expires: None };
                self.records.insert(above.to_owned(), dir);
            }
        }
        let record = Record { value, created: index, modified: index, expires };
        let node = view(path, &record, now);
        self.replace(path, record);
        Ok(node)
    }

    fn replace(&mut self, path: &str, record: Record) {
        let expires = record.expires;
        let before = match self.records.get_mut(path) {
            Some(found) => std::mem::replace(found, record).expires,
            None => self.records.insert(path.to_owned(), record).and_then(|record| record.expires),
        };
        if let Some(at) = before {
            self.expiries.remove(&(at, path.to_owned()));
        }
        if let Some(at) = expires {
            self.expiries.insert((at, path.to_owned()));
        }
    }

    fn forget(&mut self, path: &str) {
        if let Some(at) = self.records.remove(path).and_then(|record| record.expires) {
            self.expiries.remove(&(at, path.to_owned()));
        }
    }

    /// Finds a record; a refusal names the first component that is missing or no directory.
    fn find(&self, path: &str) -> Result<&Record, Refusal> {
        for above in ancestors(path) {
            match self.records.get(above) {
                None => return Err(self.refuse(Code::KeyNotFound, above)),
                Some(record) if record.value.is_some() => {
                    return Err(self.refuse(Code::NotDir, above));
                }
                Some(_) => {}
            }
        }
        self.records.get(path).ok_or_else(|| self.refuse(Code::KeyNotFound, path))
    }

    /// Finds a key that is as `compare` says.
    fn matching(&self, path: &str, compare: &Compare) -> Result<Record, Refusal> {
        let record = self.find(path)?;
        let Some(value) = &record.value else {
            return Err(self.refuse(Code::NotFile, path));
        };
        let mut differ = Vec::new();
        if !compare.value.is_empty() && compare.value != *value {
            differ.push(format!("[{} != {value}]", compare.value));
        }
        if compare.index != 0 && compare.index != record.modified {
            differ.push(format!("[{} != {}]", compare.index, record.modified));
        }
        if differ.is_empty() {
            Ok(record.clone())
        } else {
            Err(self.refuse(Code::TestFailed, &differ.join(" ")))
        }
    }

    fn listing(&self, mut node: NodeView, depth: Depth, now: Timestamp) -> NodeView {
        let children = self.records.children(&node.key).filter(|(path, _)| !hidden(path));
        node.nodes = children
            .map(|(path, record)| {
                let child = view(path, record, now);
                match depth {
                    Depth::All if child.dir => self.listing(child, depth, now),
                    Depth::All | Depth::Children => child,
                }
            })
            .collect();
        node
    }

    fn next_index(&mut self) -> u64 {
        self.index += 1;
        self.index
    }

    fn refuse(&self, code: Code, cause: &str) -> Refusal {
        Refusal { code, cause: cause.to_owned(), index: self.index }
    }
}

/// Tells whether the last component begins with `_`.
fn hidden(path: &str) -> bool {
    path.rsplit('/').next().is_some_and(|name| name.starts_with('_'))
}

/// Returns the directories above a path, from the top, without the root.
fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').skip(1).map(|(at, _)| &path[..at])
}

fn expiry(ttl: Option<u64>, now: Timestamp) -> Option<Timestamp> {
    ttl.map(|seconds| now.plus(Duration::from_secs(seconds)))
}

fn view(path: &str, record: &Record, now: Timestamp) -> NodeView {
    let left = record.expires.map_or(Duration::ZERO, |at| at.since(now));
    let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
    NodeView {
        key: path.to_owned(),
        value: record.value.clone(),
        dir: record.value.is_none(),
        expires: record.expires,
        ttl: i64::try_from(seconds).unwrap_or(i64::MAX),
        nodes: Vec::new(),
        modified: record.modified,
        created: record.created,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_000);

    fn put(path: &str, value: &str) -> Put {
        Put {
            path: clean(path),
            value: value.into(),
            dir: false,
            ttl: None,
            expect: Expect::Anything,
            refresh: false,
        }
    }

    fn done(tree: &mut TreeV2, command: &Command) -> Arc<Event> {
        let Outcome::Event(event) = tree.apply(command, NOW) else { panic!("{command:?} failed") };
        event
    }

    fn refused(tree: &mut TreeV2, command: &Command) -> (Code, String) {
        let Outcome::Refused(refusal) = tree.apply(command, NOW) else {
            panic!("{command:?} was not refused")
        };
        (refusal.code, refusal.cause)
    }

    #[test]
    fn paths_are_cleaned_as_go_does() {
        for (given, expected) in
            [("//a/./b/..", "/a"), ("", "/"), ("/", "/"), ("a/", "/a"), ("/../a", "/a")]
        {
            assert_eq!(clean(given), expected, "{given}");
        }
    }

    #[test]
    fn a_failed_write_leaves_no_trace() {
        let mut tree = TreeV2::default();
        done(&mut tree, &Command::Put(put("/f", "1")));
        let before = tree.clone();
        let cas = Put {
            expect: Expect::Equal(Compare { value: "2".into(), index: 9 }),
            ..put("/f", "3")
        };
        assert_eq!(
            refused(&mut tree, &Command::Put(cas)),
            (Code::TestFailed, "[2 != 1] [9 != 4]".to_owned()),
        );
        assert_eq!(
            refused(&mut tree, &Command::Put(put("/f/x", "1"))),
            (Code::NotDir, "/f".into())
        );
        let deep = "/x".repeat(DEPTH_MAX + 1);
        assert_eq!(refused(&mut tree, &Command::Put(put(&deep, "1"))).0, Code::InvalidField);
        assert_eq!(tree, before);
    }

    #[test]
    fn an_update_without_a_ttl_makes_a_key_permanent() {
        let mut tree = TreeV2::default();
        done(&mut tree, &Command::Put(Put { ttl: Some(5), ..put("/k", "1") }));
        assert_eq!(tree.next_expiry(), Some(Timestamp::from_secs(1_005)));
        done(&mut tree, &Command::Put(Put { expect: Expect::Present, ..put("/k", "2") }));
        assert_eq!(tree.next_expiry(), None);
    }

    #[test]
    fn a_refresh_keeps_the_value_and_tells_no_watcher() {
        let mut tree = TreeV2::default();
        done(&mut tree, &Command::Put(put("/k", "1")));
        let refresh = Put { ttl: Some(9), refresh: true, expect: Expect::Present, ..put("/k", "") };
        let event = done(&mut tree, &Command::Put(refresh.clone()));
        assert_eq!(event.node.value.as_deref(), Some("1"));
        let interest = Interest { path: "/k".into(), recursive: false };
        assert_eq!(tree.changed(&interest, event.index()).unwrap(), None);
        let missing = Put { path: "/none".into(), ..refresh };
        assert_eq!(refused(&mut tree, &Command::Put(missing)).0, Code::KeyNotFound);
    }

    #[test]
    fn a_directory_expires_with_all_that_is_in_it_and_its_keys_expire_no_more() {
        let mut tree = TreeV2::default();
        done(&mut tree, &Command::Put(Put { dir: true, ttl: Some(5), ..put("/d", "") }));
        done(&mut tree, &Command::Put(Put { ttl: Some(9), ..put("/d/k", "1") }));
        tree.apply(&Command::Expire, NOW.plus(Duration::from_secs(4)));
        assert!(tree.get("/d/k", Depth::Children, NOW).is_ok());
        tree.apply(&Command::Expire, NOW.plus(Duration::from_secs(20)));
        assert_eq!(tree.get("/d", Depth::Children, NOW).unwrap_err().code, Code::KeyNotFound);
        assert_eq!(tree.next_expiry(), None);
        let interest = Interest { path: "/d/k".into(), recursive: false };
        let event = tree.changed(&interest, 6).unwrap().unwrap();
        assert_eq!(
            (event.action, event.node.key.as_str(), event.node.dir),
            (Action::Expire, "/d", true)
        );
    }

    #[test]
    fn a_directory_takes_a_ttl_but_no_value() {
        let mut tree = TreeV2::default();
        done(&mut tree, &Command::Put(Put { dir: true, ..put("/d", "") }));
        let update = Put { expect: Expect::Present, ..put("/d", "x") };
        assert_eq!(refused(&mut tree, &Command::Put(update)).0, Code::NotFile);
        let update = Put { expect: Expect::Present, ttl: Some(3), ..put("/d", "") };
        let event = done(&mut tree, &Command::Put(update));
        assert_eq!((event.node.modified, event.node.created, event.node.ttl), (5, 4, 3));
        assert_eq!(tree.get("/d", Depth::Children, NOW).unwrap().node.modified, 4);
    }

    #[test]
    fn a_file_can_become_a_directory_by_a_set() {
        let mut tree = TreeV2::default();
        done(&mut tree, &Command::Put(put("/f", "1")));
        let event = done(&mut tree, &Command::Put(Put { dir: true, ..put("/f", "") }));
        assert!(event.node.dir);
        assert_eq!(event.prev.as_ref().and_then(|prev| prev.value.as_deref()), Some("1"));
    }
}
