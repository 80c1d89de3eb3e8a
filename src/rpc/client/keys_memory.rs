//! The store's keys in this process: [`Keys`] on the very tree that members keep.
//!
//! Time is the given clock's; what has expired goes before each call is answered, and within
//! half a second of a watch, as a leader does it. It can be away, and can lose an answer.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::foundation::clock::Clock;
use crate::rpc::client::keys::{Answer, Call, Delete, Expect, Keys, KeysFailure, Read, Write};
use crate::store;
use crate::store::history::Interest;
use crate::store::tree_v2::{Depth, clean};
use crate::store::{Command, Outcome, TreeV2};
use crate::wire::etcd::keys_v2::{Code, Event, KeysError};

/// How often a leader looks for what has expired.
const EXPIRY_PERIOD: Duration = Duration::from_millis(500);
/// The name of the only endpoint.
const ENDPOINT: &str = "memory";

/// A store of its own. Share it by reference or in an `Arc`.
#[derive(Debug)]
pub struct MemoryKeys {
    tree: Mutex<TreeV2>,
    clock: Arc<dyn Clock>,
    /// Told whenever a watch should look again.
    moved: watch::Sender<State>,
    answers_to_lose: AtomicUsize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Here,
    Away,
}

impl MemoryKeys {
    /// Makes an empty store whose keys live by `clock`.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let moved = watch::Sender::new(State::Here);
        Self { tree: Mutex::default(), clock, moved, answers_to_lose: AtomicUsize::new(0) }
    }

    /// Goes away or comes back. Watches break when it goes.
    pub fn set_reachable(&self, reachable: bool) {
        self.moved.send_replace(if reachable { State::Here } else { State::Away });
    }

    /// Does what the next `count` writes ask but does not say so.
    pub fn lose_answers(&self, count: usize) {
        self.answers_to_lose.store(count, Ordering::Relaxed);
    }

    /// Removes what has expired by now.
    pub fn expire_due(&self) {
        let now = self.clock.now();
        let mut tree = self.tree();
        if tree.next_expiry().is_some_and(|at| at <= now) {
            tree.apply(&Command::Expire, now);
            self.moved.send_modify(|_| {});
        }
    }

    fn tree(&self) -> MutexGuard<'_, TreeV2> {
        self.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reach(&self) -> Result<(), KeysFailure> {
        match *self.moved.borrow() {
            State::Here => Ok(()),
            State::Away => {
                let why = "it is away".to_owned();
                Err(KeysFailure::Unreachable { endpoints: ENDPOINT.to_owned(), why })
            }
        }
    }

    fn read(&self, path: &str, read: Read) -> Result<Answer, KeysFailure> {
        self.reach()?;
        self.expire_due();
        let depth = if read.recursive { Depth::All } else { Depth::Children };
        let tree = self.tree();
        let event = tree.get(&clean(path), depth, self.clock.now()).map_err(refused)?;
        Ok(Answer { event: (&event).into(), index: tree.index() })
    }

    fn change(&self, command: &Command) -> Result<Answer, KeysFailure> {
        self.reach()?;
        self.expire_due();
        let mut tree = self.tree();
        let outcome = tree.apply(command, self.clock.now());
        let index = tree.index();
        drop(tree);
        self.moved.send_modify(|_| {});
        if self.loses_answer() {
            return Err(broken("the answer was lost"));
        }
        match outcome {
            Outcome::Event(event) => Ok(Answer { event: (&*event).into(), index }),
            Outcome::Refused(refusal) => Err(refused(refusal)),
            Outcome::Done | Outcome::V3(_) => Err(broken("this is no command of the keys")),
        }
    }

    fn loses_answer(&self) -> bool {
        let less = |left: usize| left.checked_sub(1);
        self.answers_to_lose.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    async fn next_event(&self, path: &str, after: u64) -> Result<Event, KeysFailure> {
        let interest = Interest { path: clean(path), recursive: true };
        let mut moved = self.moved.subscribe();
        self.reach()?;
        loop {
            if *moved.borrow_and_update() == State::Away {
                return Err(broken("it went away"));
            }
            self.expire_due();
            let found = self.tree().changed(&interest, after + 1).map_err(refused)?;
            if let Some(event) = found {
                return Ok((&*event).into());
            }
            // A change ends the wait early; a clock moved by hand is looked at when it is over.
            drop(tokio::time::timeout(EXPIRY_PERIOD, moved.changed()).await);
        }
    }
}

fn refused(refusal: impl std::borrow::Borrow<store::Refusal>) -> KeysFailure {
    KeysFailure::Refused(KeysError::from(refusal.borrow()))
}

fn broken(why: &str) -> KeysFailure {
    KeysFailure::Unknown { endpoint: ENDPOINT.to_owned(), why: why.to_owned() }
}

fn compare(value: &str, index: u64) -> store::Compare {
    store::Compare { value: value.to_owned(), index }
}

/// Says what is expected as the server would understand it from the URL.
fn expectation(expect: &Expect) -> Result<store::Expect, KeysFailure> {
    Ok(match expect {
        Expect::Anything | Expect::Index(0) => store::Expect::Anything,
        Expect::Present => store::Expect::Present,
        Expect::Absent => store::Expect::Absent,
        Expect::Value(value) if value.is_empty() => return Err(no_previous_value()),
        Expect::Value(value) => store::Expect::Equal(compare(value, 0)),
        Expect::Index(index) => store::Expect::Equal(compare("", *index)),
    })
}

fn no_previous_value() -> KeysFailure {
    let cause = "\"prevValue\" cannot be empty";
    KeysError::new(Code::PrevValueRequired, cause, 0).into()
}

impl Keys for MemoryKeys {
    fn get<'a>(&'a self, path: &'a str, read: Read) -> Call<'a, Answer> {
        Box::pin(async move { self.read(path, read) })
    }

    fn put<'a>(&'a self, path: &'a str, write: Write) -> Call<'a, Answer> {
        Box::pin(async move {
            self.change(&Command::Put(store::Put {
                path: clean(path),
                expect: expectation(&write.expect)?,
                value: write.value,
                dir: false,
                ttl: write.ttl.map(|ttl| ttl.as_secs()),
                refresh: false,
            }))
        })
    }

    fn delete<'a>(&'a self, path: &'a str, delete: Delete) -> Call<'a, Answer> {
        Box::pin(async move {
            let compare = match expectation(&delete.expect)? {
                store::Expect::Equal(compare) => compare,
                // A delete is never asked whether the key is there: it says so itself.
                store::Expect::Anything | store::Expect::Present | store::Expect::Absent => {
                    store::Compare::default()
                }
            };
            let (dir, recursive) = (delete.dir, delete.recursive);
            self.change(&Command::Delete(store::Delete {
                path: clean(path),
                dir,
                recursive,
                compare,
            }))
        })
    }

    fn watch<'a>(&'a self, path: &'a str, after: u64) -> Call<'a, Event> {
        Box::pin(self.next_event(path, after))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::foundation::clock::{ManualClock, Timestamp, TokioClock};
    use crate::rpc::client::keys_contract;
    use crate::wire::etcd::keys_v2::Action;

    fn by_tokio() -> MemoryKeys {
        MemoryKeys::new(Arc::new(TokioClock::starting_at(Timestamp::from_secs(1_700_000_000))))
    }

    #[tokio::test(start_paused = true)]
    async fn keeps_the_contract() {
        keys_contract::contract(&by_tokio(), "/contract").await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_moved_by_hand_expires_keys() {
        let clock = Arc::new(ManualClock::at(Timestamp::from_secs(1_700_000_000)));
        let keys = MemoryKeys::new(clock.clone());
        let write = Write::set("1").for_time(Duration::from_secs(5));
        let index = keys.put("/a", write).await.unwrap().index;
        let (event, ()) = tokio::join!(keys.watch("/", index), async {
            clock.advance(Duration::from_secs(6));
        });
        assert_eq!(event.unwrap().action, Action::Expire);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_is_away_does_nothing_and_breaks_its_watches() {
        let keys = by_tokio();
        let (watched, ()) = tokio::join!(keys.watch("/", 0), async { keys.set_reachable(false) });
        assert!(matches!(watched, Err(KeysFailure::Unknown { .. })), "{watched:?}");
        let failed = keys.put("/a", Write::set("1")).await;
        assert!(matches!(failed, Err(KeysFailure::Unreachable { .. })), "{failed:?}");
        keys.set_reachable(true);
        assert!(keys.get("/a", Read::default()).await.unwrap_err().is(Code::KeyNotFound));
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_whose_answer_is_lost_has_happened() {
        let keys = by_tokio();
        keys.lose_answers(1);
        let failed = keys.put("/a", Write::set("1")).await;
        assert!(matches!(failed, Err(KeysFailure::Unknown { .. })), "{failed:?}");
        assert_eq!(keys.get("/a", Read::default()).await.unwrap().event.node.unwrap().key, "/a");
    }
}
