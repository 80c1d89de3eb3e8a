//! A client of the simulated cluster: the product's own client of the v2 API, over HTTP.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use corebox::foundation::random::Random;
use corebox::platform::net::Net;
use corebox::rpc::client::http::HttpClient;
use corebox::rpc::client::keys::{Expect, Keys as _, KeysFailure, Read, Write};
use corebox::rpc::client::keys_http::KeysClient;
use corebox::wire::etcd::keys_v2::{Code, Node};

use crate::sim::checks::{Answer, Ask, Before};
use crate::sim::net::TurmoilNet;
use crate::sim::record::Record;

/// How long a client waits; longer than a member works on a call.
const CALL_DEADLINE: Duration = Duration::from_millis(1_200);
/// How long a key with a time to live lives.
const TTL: Duration = Duration::from_secs(1);

/// What plain reads of one member have shown in one of its lives.
#[derive(Debug, Default, Clone, Copy)]
struct Shown {
    life: u64,
    index: u64,
}

/// A client: one call at a time, to any member.
#[derive(Debug)]
pub struct Client {
    number: u64,
    members: BTreeMap<u64, KeysClient>,
    record: Arc<Record>,
    random: Random,
    /// What this client last knew of each key.
    known: BTreeMap<String, Option<u64>>,
    shown: BTreeMap<u64, Shown>,
    written: u64,
    think_ms_max: u64,
}

impl Client {
    /// Makes a client; `urls` are where the members serve.
    ///
    /// # Panics
    ///
    /// Where a URL is none.
    pub fn new(
        number: u64,
        urls: &BTreeMap<u64, String>,
        record: &Arc<Record>,
        random: Random,
    ) -> Self {
        let net: Arc<dyn Net> = Arc::new(TurmoilNet);
        let member = |url: &String| {
            let url = url.parse().expect("the world's URLs are good");
            KeysClient::new(HttpClient::new(net.clone()), vec![url]).with_deadline(CALL_DEADLINE)
        };
        let members = urls.iter().map(|(number, url)| (*number, member(url))).collect();
        Self {
            number,
            members,
            record: record.clone(),
            think_ms_max: random.between(0, 100),
            random,
            known: BTreeMap::new(),
            shown: BTreeMap::new(),
            written: 0,
        }
    }

    /// Calls until told to stop. The error is what a plain read must never show.
    pub async fn work(mut self, stop: &AtomicBool) -> Result<(), String> {
        while !stop.load(Ordering::Relaxed) {
            let member = self.random.between(1, self.members.len() as u64);
            match self.random.below(12) {
                0 => self.plain_read(member).await?,
                1 => self.short_lived(member).await,
                _ => {
                    let ask = self.next_ask();
                    self.call(member, ask).await;
                }
            }
            let think = self.random.between(0, self.think_ms_max);
            tokio::time::sleep(Duration::from_millis(think)).await;
        }
        Ok(())
    }

    /// Writes and reads through every member until each has answered both, and until what was to
    /// live for a while is gone.
    pub async fn until_all_answer(mut self) {
        for member in 1..=self.members.len() as u64 {
            for write in [true, false] {
                loop {
                    let key = "/a".to_owned();
                    let ask = if write { self.put(key) } else { Ask::Read { key } };
                    let answer = self.call(member, ask).await;
                    if matches!(answer, Answer::Wrote(_) | Answer::Value(_)) {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
            while !self.nothing_short_lived(member).await {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }

    async fn nothing_short_lived(&self, member: u64) -> bool {
        let read = Read { quorum: true, recursive: true, sorted: false };
        match self.members[&member].get("/short", read).await {
            Ok(answer) => answer.event.node.is_some_and(|node| node.nodes.is_empty()),
            Err(failure) => failure.is(Code::KeyNotFound),
        }
    }

    fn put(&mut self, key: String) -> Ask {
        Ask::Put { key, value: self.next_value() }
    }

    fn next_value(&mut self) -> u64 {
        self.written += 1;
        self.number * 1_000_000 + self.written
    }

    fn next_ask(&mut self) -> Ask {
        let number = usize::try_from(self.random.below(3)).unwrap_or_default();
        let key = ["/a", "/b", "/c"][number].to_owned();
        match self.random.below(10) {
            0..3 => self.put(key),
            3..6 => {
                let expected = self.known.get(&key).copied().flatten();
                Ask::Swap { key, expected, value: self.next_value() }
            }
            _ => Ask::Read { key },
        }
    }

    /// A key that expires; whether it was written does not matter, that it goes does.
    async fn short_lived(&mut self, member: u64) {
        let write = Write::set("x").for_time(TTL);
        let path = format!("/short/{}", self.next_value());
        let written = self.members[&member].put(&path, write).await.is_ok();
        self.record.note(self.number, format_args!("short-lived at {member}: {written}"));
    }

    /// A read of what one member has: its index never goes back while it runs.
    async fn plain_read(&mut self, member: u64) -> Result<(), String> {
        let life = self.record.life(member);
        let read = self.members[&member].get("/a", Read::default()).await;
        let (index, modified) = match &read {
            Ok(answer) => {
                let node = answer.event.node.clone().unwrap_or_default();
                (answer.index, node.modified_index)
            }
            Err(KeysFailure::Refused(error)) => (error.index, 0),
            Err(_) => return Ok(()),
        };
        self.record.note(self.number, format_args!("plain read at {member}: {index} {modified}"));
        if modified > index {
            return Err(format!("member {member} showed index {modified} at {index}"));
        }
        let before = self.shown.entry(member).or_default();
        if before.life == life && self.record.life(member) == life && index < before.index {
            return Err(format!(
                "member {member} went back from index {} to {index}",
                before.index
            ));
        }
        *before = Shown { life, index };
        Ok(())
    }

    async fn call(&mut self, member: u64, ask: Ask) -> Answer {
        let at = self.record.begin(self.number, member, &ask);
        let answer = self.ask(member, &ask).await;
        match (&ask, &answer) {
            (Ask::Put { key, value } | Ask::Swap { key, value, .. }, Answer::Wrote(_)) => {
                self.known.insert(key.clone(), Some(*value));
            }
            (Ask::Read { key }, Answer::Value(value))
            | (Ask::Swap { key, .. }, Answer::Differs(Before::Known(value))) => {
                self.known.insert(key.clone(), *value);
            }
            _ => {}
        }
        self.record.end(at, self.number, answer.clone());
        answer
    }

    async fn ask(&self, member: u64, ask: &Ask) -> Answer {
        let keys = &self.members[&member];
        let done = match ask {
            Ask::Read { key } => {
                let quorum = Read { quorum: true, ..Read::default() };
                return match keys.get(key, quorum).await {
                    Ok(answer) => Answer::Value(value(answer.event.node.as_ref())),
                    Err(failure) if failure.is(Code::KeyNotFound) => Answer::Value(None),
                    Err(_) => Answer::Unknown,
                };
            }
            Ask::Put { key, value } => keys.put(key, Write::set(value.to_string())).await,
            Ask::Swap { key, expected, value } => {
                let expect = expected.map_or(Expect::Absent, |old| Expect::Value(old.to_string()));
                keys.put(key, Write::set(value.to_string()).if_found(expect)).await
            }
        };
        match done {
            Ok(answer) => Answer::Wrote(Before::Known(value(answer.event.prev_node.as_ref()))),
            Err(KeysFailure::Refused(error)) if error.is(Code::TestFailed) => {
                Answer::Differs(Before::Known(told(&error.cause)))
            }
            Err(failure) if failure.is(Code::NodeExist) => Answer::Differs(Before::Something),
            Err(failure) if failure.is(Code::KeyNotFound) => Answer::Differs(Before::Known(None)),
            Err(KeysFailure::Unreachable { .. }) => Answer::Refused,
            Err(_) => Answer::Unknown,
        }
    }
}

fn value(node: Option<&Node>) -> Option<u64> {
    node?.value.as_ref()?.parse().ok()
}

/// Reads the value in `[expected != value]`.
fn told(cause: &str) -> Option<u64> {
    cause.trim_end_matches(']').rsplit(' ').next()?.parse().ok()
}
