//! A part of the store, followed: what is there, then every change, in order and without a gap.
//!
//! ```text
//!   list ─▶ Listed ─▶ watch ─▶ Changed … ─┬─ cut: watch again from the same index
//!     ▲                                   └─ cut again: Lost, and list until that works
//!     └── history gone (401), or the store is back ◀──┘
//! ```
//! A reader that keeps up sees every change. One that falls behind the store's history, or was
//! cut off, gets a new list instead: it is told what *is*, not everything that was.
//!
//! **Not here:** what a change means, directories (only keys are told), hidden keys.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::foundation::backoff::Backoff;
use crate::foundation::tasks::Tasks;
use crate::rpc::client::keys::{Keys, KeysFailure, Read};
use crate::wire::etcd::keys_v2::{Action, Code, Event, Node};

/// Changes that wait for their reader before the mirror waits too.
const CHANGES_MAX: usize = 256;
/// Waits between tries while the store is away.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The longest of them: a store that is back is noticed this soon.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// A key's value, and when it got it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The value.
    pub value: String,
    /// The index of its last change.
    pub modified_index: u64,
}

/// Every key of the part, by its path, as it was at one index.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The store's index.
    pub index: u64,
    /// The keys.
    pub entries: BTreeMap<String, Entry>,
}

/// What the reader is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// This is what is there; forget what was told before.
    Listed(Snapshot),
    /// One key has changed.
    Changed {
        /// The index of the change. Removals of a whole directory share one.
        index: u64,
        /// The key.
        path: String,
        /// Its value now; `None` if it is gone.
        value: Option<String>,
        /// How it happened.
        action: Action,
    },
    /// The store is away; what was told may be old. `Listed` follows when it is back.
    Lost {
        /// What went wrong.
        why: String,
    },
}

/// Follows every key at and below `path` until the tasks stop or the reader is dropped.
pub fn follow(keys: Arc<dyn Keys>, path: &str, tasks: &Tasks) -> mpsc::Receiver<Change> {
    let (told, reader) = mpsc::channel(CHANGES_MAX);
    let mirror = Mirror {
        keys,
        path: path.to_owned(),
        told: told.clone(),
        backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT),
        away: false,
    };
    tasks.spawn("mirror", |stop| async move {
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = told.closed() => {}
            Closed = mirror.run() => {}
        }
    });
    reader
}

/// The reader is gone.
struct Closed;

struct Mirror {
    keys: Arc<dyn Keys>,
    path: String,
    told: mpsc::Sender<Change>,
    backoff: Backoff,
    /// Whether the reader was told that the store is away.
    away: bool,
}

impl Mirror {
    async fn run(mut self) -> Closed {
        loop {
            let Err(Closed) = self.round().await else { continue };
            return Closed;
        }
    }

    async fn round(&mut self) -> Result<(), Closed> {
        let seen = self.list().await?;
        self.tell(Change::Listed(seen.clone())).await?;
        self.watch(seen).await
    }

    /// Reads all of the part, however long the store is away.
    async fn list(&mut self) -> Result<Snapshot, Closed> {
        let read = Read { recursive: true, sorted: true, quorum: false };
        loop {
            let answered = self.keys.get(&self.path, read).await;
            let listed = match answered {
                Ok(answer) => snapshot(answer.index, answer.event.node.as_ref()),
                Err(KeysFailure::Refused(error)) if error.is(Code::KeyNotFound) => {
                    snapshot(error.index, None)
                }
                Err(failure) => {
                    self.lost(failure.to_string()).await?;
                    continue;
                }
            };
            self.backoff.reset();
            self.away = false;
            return Ok(listed);
        }
    }

    /// Tells each change until a new list is needed.
    async fn watch(&mut self, mut seen: Snapshot) -> Result<(), Closed> {
        let mut cut = false;
        loop {
            match self.keys.watch(&self.path, seen.index).await {
                Ok(event) => {
                    cut = false;
                    for change in seen.apply(&event) {
                        self.tell(change).await?;
                    }
                }
                Err(KeysFailure::Refused(error)) if error.is(Code::EventIndexCleared) => {
                    return Ok(());
                }
                Err(failure) if cut => return self.lost(failure.to_string()).await,
                Err(failure) => {
                    tracing::debug!(path = %self.path, why = %failure, "watch cut");
                    cut = true;
                    tokio::time::sleep(FIRST_WAIT).await;
                }
            }
        }
    }

    /// Tells once that the store is away, and waits before the next try.
    async fn lost(&mut self, why: String) -> Result<(), Closed> {
        if !std::mem::replace(&mut self.away, true) {
            self.tell(Change::Lost { why }).await?;
        }
        tokio::time::sleep(self.backoff.next_wait()).await;
        Ok(())
    }

    async fn tell(&self, change: Change) -> Result<(), Closed> {
        self.told.send(change).await.map_err(|_| Closed)
    }
}

fn snapshot(index: u64, root: Option<&Node>) -> Snapshot {
    let mut entries = BTreeMap::new();
    let mut todo: Vec<&Node> = root.into_iter().collect();
    while let Some(node) = todo.pop() {
        if let Some(value) = &node.value {
            let entry = Entry { value: value.clone(), modified_index: node.modified_index };
            entries.insert(node.key.clone(), entry);
        }
        todo.extend(&node.nodes);
    }
    Snapshot { index, entries }
}

impl Snapshot {
    /// Moves on by one event and returns what that changes, key by key.
    ///
    /// A directory that goes takes every key below it along.
    pub fn apply(&mut self, event: &Event) -> Vec<Change> {
        let Some(node) = &event.node else { return Vec::new() };
        let index = node.modified_index;
        self.index = self.index.max(index);
        let action = event.action;
        let gone = match action {
            Action::Get => return Vec::new(),
            Action::Delete | Action::CompareAndDelete | Action::Expire => {
                self.at_or_below(&node.key)
            }
            // A directory may have taken a key's place.
            _ if node.dir => {
                let known = self.entries.contains_key(&node.key);
                known.then(|| node.key.clone()).into_iter().collect()
            }
            Action::Set | Action::Create | Action::Update | Action::CompareAndSwap => {
                let value = node.value.clone().unwrap_or_default();
                let entry = Entry { value: value.clone(), modified_index: index };
                self.entries.insert(node.key.clone(), entry);
                let (path, value) = (node.key.clone(), Some(value));
                return vec![Change::Changed { index, path, value, action }];
            }
        };
        gone.into_iter()
            .map(|path| {
                self.entries.remove(&path);
                Change::Changed { index, path, value: None, action }
            })
            .collect()
    }

    fn at_or_below(&self, key: &str) -> Vec<String> {
        let folder = format!("{}/", key.trim_end_matches('/'));
        let within = |path: &&String| path.as_str() == key || path.starts_with(&folder);
        self.entries.range(key.to_owned()..).map(|(path, _)| path).filter(within).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::foundation::clock::{Timestamp, TokioClock};
    use crate::rpc::client::keys::{Delete, Expect, Write};
    use crate::rpc::client::keys_memory::MemoryKeys;

    struct World {
        keys: Arc<MemoryKeys>,
        tasks: Tasks,
    }

    impl World {
        fn new() -> Self {
            let clock = TokioClock::starting_at(Timestamp::from_secs(1_700_000_000));
            let keys = Arc::new(MemoryKeys::new(Arc::new(clock)));
            Self { keys, tasks: Tasks::default() }
        }

        fn follow(&self, path: &str) -> mpsc::Receiver<Change> {
            follow(self.keys.clone(), path, &self.tasks)
        }

        async fn set(&self, path: &str, value: &str) {
            self.keys.put(path, Write::set(value)).await.unwrap();
        }

        async fn remove(&self, path: &str) {
            let delete = Delete { recursive: true, dir: true, expect: Expect::Anything };
            self.keys.delete(path, delete).await.unwrap();
        }
    }

    /// Writes a change as a test reads it, without its indexes.
    fn short(change: &Change) -> String {
        match change {
            Change::Listed(seen) => {
                let entries = seen.entries.iter();
                let pairs: Vec<_> =
                    entries.map(|(path, entry)| format!("{path}={}", entry.value)).collect();
                format!("listed {}", pairs.join(" "))
            }
            Change::Changed { path, value: Some(value), .. } => format!("{path}={value}"),
            Change::Changed { path, value: None, .. } => format!("{path} gone"),
            Change::Lost { .. } => "lost".to_owned(),
        }
    }

    async fn next(reader: &mut mpsc::Receiver<Change>) -> String {
        let change = tokio::time::timeout(Duration::from_mins(1), reader.recv()).await;
        short(&change.expect("a change in time").expect("the mirror runs"))
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_there_comes_first_then_every_change() {
        let world = World::new();
        world.set("/a/x", "1").await;
        world.set("/b", "elsewhere").await;
        let mut reader = world.follow("/a");
        assert_eq!(next(&mut reader).await, "listed /a/x=1");
        world.set("/a/y", "2").await;
        world.set("/b", "again").await;
        world.remove("/a/x").await;
        assert_eq!(next(&mut reader).await, "/a/y=2");
        assert_eq!(next(&mut reader).await, "/a/x gone");
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_that_is_not_there_yet_is_empty() {
        let world = World::new();
        let mut reader = world.follow("/a");
        assert_eq!(next(&mut reader).await, "listed ");
        world.set("/a/x", "1").await;
        assert_eq!(next(&mut reader).await, "/a/x=1");
    }

    #[tokio::test(start_paused = true)]
    async fn a_directory_takes_its_keys_along_also_one_above() {
        let world = World::new();
        for path in ["/a/b/x", "/a/b/y", "/a/bc"] {
            world.set(path, "1").await;
        }
        let mut reader = world.follow("/a");
        next(&mut reader).await;
        world.remove("/a/b").await;
        assert_eq!(next(&mut reader).await, "/a/b/x gone");
        assert_eq!(next(&mut reader).await, "/a/b/y gone");
        world.remove("/a").await;
        assert_eq!(next(&mut reader).await, "/a/bc gone");
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_expires_is_gone() {
        let world = World::new();
        let write = Write::set("1").for_time(Duration::from_secs(9));
        world.keys.put("/a/x", write).await.unwrap();
        let mut reader = world.follow("/a");
        assert_eq!(next(&mut reader).await, "listed /a/x=1");
        let gone = reader.recv().await.unwrap();
        assert!(matches!(gone, Change::Changed { value: None, action: Action::Expire, .. }));
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_cut_goes_unnoticed() {
        let world = World::new();
        let mut reader = world.follow("/a");
        next(&mut reader).await;
        world.keys.set_reachable(false);
        tokio::time::sleep(Duration::from_millis(50)).await;
        world.keys.set_reachable(true);
        world.set("/a/x", "1").await;
        assert_eq!(next(&mut reader).await, "/a/x=1");
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_is_away_is_told_once_and_listed_when_it_is_back() {
        let world = World::new();
        let mut reader = world.follow("/a");
        next(&mut reader).await;
        world.keys.set_reachable(false);
        assert_eq!(next(&mut reader).await, "lost");
        tokio::time::sleep(Duration::from_mins(1)).await;
        assert!(reader.try_recv().is_err(), "it is told once");
        world.keys.set_reachable(true);
        world.set("/a/x", "1").await;
        assert_eq!(next(&mut reader).await, "listed /a/x=1");
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_was_never_there_is_told_too() {
        let world = World::new();
        world.keys.set_reachable(false);
        let mut reader = world.follow("/a");
        assert_eq!(next(&mut reader).await, "lost");
        world.keys.set_reachable(true);
        assert_eq!(next(&mut reader).await, "listed ");
    }

    #[tokio::test(start_paused = true)]
    async fn history_that_is_gone_means_a_new_list() {
        let world = World::new();
        world.set("/a/x", "old").await;
        let mut reader = world.follow("/a");
        assert_eq!(next(&mut reader).await, "listed /a/x=old");
        // The mirror does not get to run in between, and the store remembers 1000 changes.
        for number in 0..1_500 {
            world.set("/a/x", &number.to_string()).await;
        }
        assert_eq!(next(&mut reader).await, "listed /a/x=1499");
        world.set("/a/x", "new").await;
        assert_eq!(next(&mut reader).await, "/a/x=new");
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_leaves_ends_the_mirror() {
        let world = World::new();
        let mut reader = world.follow("/a");
        next(&mut reader).await;
        drop(reader);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(format!("{:?}", world.tasks), "Tasks { running: 0, .. }");
    }
}
