//! What must be true after every step of the simulation.
//!
//! Sources: the safety properties of Raft (Ongaro 2014, figure 3.2): election safety, log matching,
//! leader completeness as seen in committed entries, state machine safety; and that nothing which
//! a member has shown goes backwards while it runs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use corebox::consensus::Member;
use corebox::consensus::log_store::Kept;
use corebox::consensus::types::LogId;
use corebox::foundation::clock::Timestamp;
use corebox::store::tree_v2::Depth;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::{LogIdOptionExt as _, ServerState};

use crate::sim::record::{FOLD, fold};

/// What one running member has shown so far; forgotten when it crashes.
#[derive(Debug, Default)]
struct Seen {
    log_version: u64,
    /// The term at each index that was checked.
    terms: BTreeMap<u64, u64>,
    committed: Option<u64>,
    applied: Option<u64>,
    status: String,
}

/// Everything the members have shown so far.
#[derive(Debug, Default)]
pub struct Invariants {
    leaders: BTreeMap<u64, u64>,
    /// By index and term: the entry's hash and the term before it.
    entries: BTreeMap<(u64, u64), (u64, Option<u64>)>,
    committed: BTreeMap<u64, u64>,
    stores: BTreeMap<u64, u64>,
    seen: BTreeMap<u64, Seen>,
}

impl Invariants {
    /// Forgets what a member has shown: it begins anew.
    pub fn crashed(&mut self, number: u64) {
        self.seen.remove(&number);
    }

    /// Checks one member; returns a line about it when something changed.
    pub fn check(&mut self, number: u64, member: &Member) -> Result<Option<String>, String> {
        let (raft, log, _) = member.parts();
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        if let Err(fatal) = &metrics.running_state {
            return Err(format!("member {number} stopped: {fatal}"));
        }
        let term = metrics.current_term;
        if metrics.state == ServerState::Leader {
            let leader = *self.leaders.entry(term).or_insert(number);
            if leader != number {
                return Err(format!("members {leader} and {number} both led term {term}"));
            }
        }
        let committed = metrics.local_committed;
        {
            let view = log.view();
            self.check_log(number, &view.entries, view.version)?;
        }
        self.check_committed(number, committed)?;
        let applied = self.check_store(number, member)?;
        let mut status = String::new();
        let (state, last) = (metrics.state, metrics.last_log_index);
        let leader = metrics.current_leader.map(|leader| leader % 1000);
        // Writing to a string cannot fail.
        write!(status, "{state:?} term {term} leader {leader:?} log {last:?}").ok();
        write!(status, " committed {:?} applied {applied:?}", committed.index()).ok();
        let seen = self.seen.entry(number).or_default();
        if status == seen.status {
            return Ok(None);
        }
        seen.status.clone_from(&status);
        Ok(Some(status))
    }

    fn check_log(
        &mut self,
        number: u64,
        entries: &BTreeMap<u64, Kept>,
        version: u64,
    ) -> Result<(), String> {
        let seen = self.seen.entry(number).or_default();
        if seen.log_version == version {
            return Ok(());
        }
        seen.log_version = version;
        let last = entries.last_key_value().map_or(0, |(index, _)| *index);
        seen.terms.split_off(&(last + 1));
        for (&index, entry) in entries.iter().rev() {
            let term = term(entry);
            if seen.terms.insert(index, term) == Some(term) {
                break;
            }
            let before = index.checked_sub(1).and_then(|at| entries.get(&at)).map(self::term);
            let hash = fold(FOLD, &entry.body);
            let known = self.entries.entry((index, term)).or_insert((hash, before));
            known.1 = known.1.or(before);
            if known.0 != hash || (before.is_some() && known.1 != before) {
                return Err(format!(
                    "member {number} has another log at index {index} of term {term}"
                ));
            }
        }
        Ok(())
    }

    fn check_committed(&mut self, number: u64, committed: Option<LogId>) -> Result<(), String> {
        let seen = self.seen.entry(number).or_default();
        let Some(last) = committed else { return Ok(()) };
        if Some(last.index) < seen.committed {
            return Err(format!("member {number} went back from {:?} to {last}", seen.committed));
        }
        let from = seen.committed.replace(last.index).unwrap_or(0);
        if seen.terms.get(&last.index) != Some(&last.leader_id.term) {
            return Ok(()); // it came with a checkpoint, and the log may hold leftovers for a moment
        }
        for (&index, &term) in seen.terms.range(from..=last.index) {
            let known = *self.committed.entry(index).or_insert(term);
            if known != term {
                return Err(format!("index {index} was committed in terms {known} and {term}"));
            }
        }
        Ok(())
    }

    fn check_store(&mut self, number: u64, member: &Member) -> Result<Option<u64>, String> {
        let (_, _, store) = member.parts();
        let image = store.image();
        let applied = image.position.applied.index();
        let seen = self.seen.entry(number).or_default();
        if applied == seen.applied {
            return Ok(applied);
        }
        if applied < seen.applied {
            return Err(format!(
                "member {number} unapplied from {:?} to {applied:?}",
                seen.applied
            ));
        }
        seen.applied = applied;
        let machine = &image.machine;
        let tree = machine.keys.get("/", Depth::All, Timestamp::EPOCH);
        let shown = format!("{} {tree:?} {:?}", machine.keys.index(), machine.published);
        let mut hash = fold(FOLD, shown.as_bytes());
        let mut keys = Vec::new();
        machine.keys_v3.encode(&mut keys);
        hash = fold(hash, &keys);
        let known = *self.stores.entry(applied.unwrap_or(0)).or_insert(hash);
        if known != hash {
            return Err(format!("member {number} has another state at index {applied:?}"));
        }
        Ok(applied)
    }
}

const fn term(entry: &Kept) -> u64 {
    entry.id.leader_id.term
}
