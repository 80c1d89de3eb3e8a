//! What the v3 keys are and were: the entries that were agreed on, carried out once more, one
//! command after the other, beside all members.

use std::collections::{BTreeMap, BTreeSet};

use corebox::consensus::types::Entry;
use corebox::store::keys_v3::Change;
use corebox::store::{Batch, Command, Machine, Outcome};
use corebox::wire::etcd::v3::mvccpb;
use openraft::EntryPayload;

/// What a revision did to a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// The revision.
    pub revision: i64,
    /// The key.
    pub key: Vec<u8>,
    /// What it was given; `None`: it was deleted.
    pub value: Option<Vec<u8>>,
    /// The revision that created it; 0 for a deletion.
    pub created: i64,
    /// How many puts it has seen since; 0 for a deletion.
    pub version: i64,
    /// The lease it is attached to.
    pub lease: i64,
}

impl Fact {
    /// Reads what a client was told.
    pub fn told(kv: &mvccpb::KeyValue, deleted: bool) -> Self {
        Self {
            revision: kv.mod_revision,
            key: kv.key.clone(),
            value: (!deleted).then(|| kv.value.clone()),
            created: kv.create_revision,
            version: kv.version,
            lease: kv.lease,
        }
    }
}

/// The keys at a revision.
pub type Keys<'t> = BTreeMap<&'t [u8], &'t Fact>;

/// All that was agreed on.
#[derive(Debug, Default)]
pub struct Truth {
    machine: Machine,
    /// The index of the entry that comes next.
    next: u64,
    /// What each revision did, in its order.
    pub revisions: BTreeMap<i64, Vec<Fact>>,
    /// Which revisions were compacted.
    pub compactions: Vec<i64>,
    /// The leases that were granted.
    pub granted: BTreeSet<i64>,
    /// When each lease was revoked, in milliseconds.
    pub revoked: BTreeMap<i64, u64>,
    /// How often there was an alarm.
    pub alarms: u64,
}

impl Truth {
    /// Returns the index of the entry that comes next.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Returns the state after all of it.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Returns the revision of all of it.
    pub fn revision(&self) -> i64 {
        self.machine.keys_v3.view().revision()
    }

    /// Returns the revision before which history was dropped at last.
    pub fn compacted(&self) -> i64 {
        self.compactions.last().copied().unwrap_or(0)
    }

    /// Carries out the next entry. The error says what it did that no entry may do.
    pub fn apply(&mut self, entry: &Entry, now_ms: u64) -> Result<(), String> {
        self.next += 1;
        let EntryPayload::Normal(batch) = &entry.payload else { return Ok(()) };
        for command in &*batch.commands {
            let before = self.machine.keys.index();
            let one = Batch { time: batch.time, commands: [command.clone()].into() };
            let outcomes = self.machine.apply(&one);
            let moved = self.machine.keys.index().checked_sub(before);
            if !(moved.is_some_and(|by| by <= 1) || *command == Command::Expire) {
                return Err(format!("{command:?} moved the v2 index {before} by {moved:?}"));
            }
            self.learn(command, outcomes.first(), now_ms)?;
        }
        Ok(())
    }

    fn learn(
        &mut self,
        command: &Command,
        outcome: Option<&Outcome>,
        now_ms: u64,
    ) -> Result<(), String> {
        let (Command::V3(change), Some(Outcome::V3(Ok(_)))) = (command, outcome) else {
            return Ok(());
        };
        match change {
            Change::Compact { revision } => self.compactions.push(*revision),
            Change::LeaseRevoke { id } => drop(self.revoked.insert(*id, now_ms)),
            Change::RaiseAlarm(_) => self.alarms += 1,
            Change::LeaseGrant { id, .. } => drop(self.granted.insert(*id)),
            Change::Op(_) | Change::ClearAlarm(_) => {}
        }
        let view = self.machine.keys_v3.view();
        let last = self.revisions.last_key_value().map_or(1, |(revision, _)| *revision);
        if view.revision() == last {
            return Ok(());
        }
        let events = view.events(last + 1).map_err(|error| error.to_string())?;
        let facts: Vec<Fact> = events
            .map(|event| {
                let fields = event.fields();
                Fact {
                    revision: fields.mod_revision,
                    key: fields.key.to_vec(),
                    value: (!event.is_tombstone()).then(|| fields.value.to_vec()),
                    created: fields.create_revision,
                    version: fields.version,
                    lease: fields.lease,
                }
            })
            .collect();
        let one = facts.iter().all(|fact| fact.revision == last + 1);
        if view.revision() != last + 1 || facts.is_empty() || !one {
            return Err(format!("{change:?} at revision {last} made {facts:?}"));
        }
        self.revisions.insert(last + 1, facts);
        Ok(())
    }

    /// Returns the keys as they were at a revision.
    pub fn at(&self, revision: i64) -> Keys<'_> {
        let mut keys = Keys::new();
        for fact in self.revisions.range(..=revision).flat_map(|(_, facts)| facts) {
            if fact.value.is_some() {
                keys.insert(&fact.key, fact);
            } else {
                keys.remove(fact.key.as_slice());
            }
        }
        keys
    }
}
