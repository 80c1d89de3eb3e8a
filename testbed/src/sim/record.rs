//! What happened in a run: every line folded into a hash, and the calls of the clients.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::sim::checks::{Answer, Ask, Operation};
use crate::sim::promises::{Call, Kept, Said, Watch};

/// The start of a [`fold`].
pub const FOLD: u64 = 0xcbf2_9ce4_8422_2325;

/// A hash that is the same in every process (FNV-1a).
pub fn fold(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The trace of a run and the history of its clients.
#[derive(Debug)]
pub struct Record {
    inner: Mutex<Inner>,
    keep_lines: bool,
}

/// What the record holds.
#[derive(Debug, Default)]
pub struct Inner {
    /// The hash of all lines so far.
    pub hash: u64,
    /// How many lines there were.
    pub events: u64,
    /// The time of what happens outside any host, in microseconds.
    pub now_us: u128,
    /// The lines, where they are kept.
    pub lines: Vec<String>,
    /// The calls.
    pub history: Vec<Operation>,
    /// The calls of clients of the v3 keys.
    pub calls: Vec<Call>,
    /// What watches of the v3 keys heard.
    pub watches: Vec<Watch>,
    /// Until when leases of the v3 keys live.
    pub kept: Vec<Kept>,
    /// How often each member has crashed.
    pub lives: BTreeMap<u64, u64>,
}

impl Record {
    /// Makes an empty record.
    pub fn new(keep_lines: bool) -> Self {
        Self { inner: Mutex::new(Inner { hash: FOLD, ..Inner::default() }), keep_lines }
    }

    /// Returns what is recorded, locked.
    pub fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns how often a member has crashed.
    pub fn life(&self, member: u64) -> u64 {
        self.inner().lives.get(&member).copied().unwrap_or_default()
    }

    /// Writes a line.
    pub fn note(&self, who: u64, what: fmt::Arguments<'_>) {
        let mut inner = self.inner();
        let now = turmoil::sim_elapsed().map_or(inner.now_us, |elapsed| elapsed.as_micros());
        let line = format!("{now} {who} {what}");
        inner.hash = fold(inner.hash, line.as_bytes());
        inner.events += 1;
        if self.keep_lines {
            inner.lines.push(line);
        }
    }

    /// Notes that a client asks; the answer is the call's place in the history.
    pub fn begin(&self, client: u64, member: u64, ask: &Ask) -> usize {
        self.note(client, format_args!("asks {member} {ask:?}"));
        let mut inner = self.inner();
        let start = inner.events;
        let answer = Answer::Unknown;
        inner.history.push(Operation { ask: ask.clone(), answer, start, end: None });
        inner.history.len() - 1
    }

    /// Notes what it was told.
    pub fn end(&self, at: usize, client: u64, answer: Answer) {
        self.note(client, format_args!("is told {answer:?}"));
        let mut inner = self.inner();
        let end = inner.events;
        let operation = &mut inner.history[at];
        operation.answer = answer;
        operation.end = Some(end);
    }

    /// Notes that a client of the v3 keys asks; the answer is the call's place.
    pub fn begins(&self, call: Call) -> usize {
        self.note(call.client, format_args!("asks {} {:?}", call.member, call.wish));
        let mut inner = self.inner();
        let start = inner.events;
        inner.calls.push(Call { start, ..call });
        inner.calls.len() - 1
    }

    /// Notes what it was told.
    pub fn ends(&self, at: usize, said: Said) {
        let client = self.inner().calls[at].client;
        self.note(client, format_args!("is told {said:?}"));
        let mut inner = self.inner();
        let end = inner.events;
        let call = &mut inner.calls[at];
        call.said = said;
        call.end = end;
    }

    /// Makes room for what a watch hears; the answer is its place.
    pub fn watches(&self, watch: Watch) -> usize {
        let mut inner = self.inner();
        inner.watches.push(watch);
        inner.watches.len() - 1
    }
}
