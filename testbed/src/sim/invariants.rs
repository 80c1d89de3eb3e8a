//! What must be true after every step of the simulation.
//!
//! Sources: the safety properties of Raft (Ongaro 2014, figure 3.2): election safety, log matching,
//! leader completeness, state machine safety, commits by a quorum; and that nothing which a member
//! has shown goes backwards while it runs. What is agreed on goes into the [`Truth`].

use std::collections::BTreeMap;
use std::fmt::Write as _;

use corebox::consensus::Member;
use corebox::consensus::log_store::Kept;
use corebox::consensus::types::{LogId, Vote};
use corebox::foundation::clock::Timestamp;
use corebox::store::tree_v2::Depth;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::{LogIdOptionExt as _, ServerState};

use crate::sim::record::{FOLD, fold};
use crate::sim::truth::Truth;

/// What one running member has shown so far; forgotten when it crashes.
#[derive(Debug, Default)]
struct Seen {
    log_version: u64,
    /// The term at each index that was checked.
    terms: BTreeMap<u64, u64>,
    vote: Option<Vote>,
    committed: Option<u64>,
    applied: Option<u64>,
    keys: u64,
    revision: i64,
    status: String,
}

/// The newest entry that is agreed on.
#[derive(Debug, Clone, Copy)]
struct Newest {
    index: u64,
    /// The term it is of.
    term: u64,
    /// A term in which it was agreed on, or a later one.
    known_in: u64,
    is_checked: bool,
}

/// Everything the members have shown so far.
#[derive(Debug, Default)]
pub struct Invariants {
    leaders: BTreeMap<u64, u64>,
    /// By index and term: the entry's hash and the term before it.
    entries: BTreeMap<(u64, u64), (u64, Option<u64>)>,
    committed: BTreeMap<u64, u64>,
    newest: Option<Newest>,
    /// Entries that may still be agreed on, by index and term.
    open: BTreeMap<(u64, u64), Kept>,
    stores: BTreeMap<u64, u64>,
    seen: BTreeMap<u64, Seen>,
    truth: Truth,
    installed: u64,
}

impl Invariants {
    /// Forgets what a member has shown: it begins anew.
    pub fn crashed(&mut self, number: u64) {
        self.seen.remove(&number);
    }

    /// Returns all that was agreed on.
    pub fn truth(&self) -> &Truth {
        &self.truth
    }

    /// Returns how often a member caught up by a checkpoint.
    pub fn installed(&self) -> u64 {
        self.installed
    }

    /// Checks one member; returns a line about it when something changed.
    pub fn check(
        &mut self,
        number: u64,
        member: &Member,
        now_ms: u64,
    ) -> Result<Option<String>, String> {
        let (raft, log, _) = member.parts();
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        if let Err(fatal) = &metrics.running_state {
            return Err(format!("member {number} stopped: {fatal}"));
        }
        let term = metrics.current_term;
        let committed = metrics.local_committed;
        {
            let view = log.view();
            self.check_log(number, &view.entries, view.version)?;
        }
        self.check_vote(number, metrics.vote)?;
        if metrics.state == ServerState::Leader {
            self.check_leader(number, term, member)?;
        }
        self.check_committed(number, committed, term)?;
        self.agree(now_ms)?;
        let (purged, snapshot) = (metrics.purged.index(), metrics.snapshot.index());
        let (state, last) = (metrics.state, metrics.last_log_index);
        let reported = metrics.last_applied.index();
        if purged > snapshot || snapshot > reported || reported > committed.index() {
            return Err(format!(
                "member {number} has purged {purged:?}, a checkpoint of {snapshot:?}, applied {reported:?}, committed {:?}",
                committed.index()
            ));
        }
        let applied = self.check_store(number, member)?;
        let mut status = String::new();
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

    /// Checks that the newest entry that is agreed on is with a quorum, as far as that can be seen:
    /// not too many of those that run lack it.
    pub fn check_quorum(&mut self, running: &[Member], members: u64) -> Result<(), String> {
        let Some(newest) = self.newest.as_mut().filter(|newest| !newest.is_checked) else {
            return Ok(());
        };
        newest.is_checked = true;
        let newest = *newest;
        let lacking = running.iter().filter(|member| !has(member, newest)).count() as u64;
        if lacking > (members - 1) / 2 {
            return Err(format!("{newest:?} is agreed on, and {lacking} of {members} lack it"));
        }
        Ok(())
    }

    fn check_vote(&mut self, number: u64, vote: Vote) -> Result<(), String> {
        let seen = self.seen.entry(number).or_default();
        let before = seen.vote.replace(vote);
        if before.is_some_and(|before| vote < before || vote.partial_cmp(&before).is_none()) {
            return Err(format!("member {number} voted {before:?} and then {vote:?}"));
        }
        Ok(())
    }

    fn check_leader(&mut self, number: u64, term: u64, member: &Member) -> Result<(), String> {
        let leader = *self.leaders.entry(term).or_insert(number);
        if leader != number {
            return Err(format!("members {leader} and {number} both led term {term}"));
        }
        match self.newest {
            Some(newest) if newest.known_in < term && !has(member, newest) => {
                Err(format!("member {number} leads term {term} without {newest:?}"))
            }
            _ => Ok(()),
        }
    }

    /// Carries out what has been agreed on.
    fn agree(&mut self, now_ms: u64) -> Result<(), String> {
        loop {
            let next = self.truth.next();
            let Some(term) = self.committed.get(&next) else { return Ok(()) };
            let Some(entry) = self.open.get(&(next, *term)) else { return Ok(()) };
            let entry = entry.clone().entry().map_err(|error| error.to_string())?;
            self.truth.apply(&entry, now_ms)?;
            self.open = self.open.split_off(&(next + 1, 0));
        }
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
            if index >= self.truth.next() {
                self.open.entry((index, term)).or_insert_with(|| entry.clone());
            }
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

    fn check_committed(
        &mut self,
        number: u64,
        committed: Option<LogId>,
        known_in: u64,
    ) -> Result<(), String> {
        let seen = self.seen.entry(number).or_default();
        let Some(last) = committed else { return Ok(()) };
        if Some(last.index) < seen.committed {
            return Err(format!("member {number} went back from {:?} to {last}", seen.committed));
        }
        if self.newest.is_none_or(|newest| newest.index < last.index) {
            let (index, term) = (last.index, last.leader_id.term);
            self.newest = Some(Newest { index, term, known_in, is_checked: false });
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
        let machine = &image.machine;
        let (keys, revision) = (machine.keys.index(), machine.keys_v3.view().revision());
        if keys < seen.keys || revision < seen.revision {
            return Err(format!(
                "member {number} went back from index {} and revision {} to {keys} and {revision}",
                seen.keys, seen.revision
            ));
        }
        (seen.keys, seen.revision) = (keys, revision);
        let first = seen.applied.replace(applied.unwrap_or(0)).map(|before| before + 1);
        if first.is_some_and(|first| !seen.terms.contains_key(&first)) {
            self.installed += 1;
        }
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

/// Has a member this entry, in its log or in its store?
fn has(member: &Member, newest: Newest) -> bool {
    let (_, log, store) = member.parts();
    let applied = store.image().position.applied.index() >= Some(newest.index);
    applied || log.view().entries.get(&newest.index).map(term) == Some(newest.term)
}

const fn term(entry: &Kept) -> u64 {
    entry.id.leader_id.term
}
