//! The writer: the only one who changes the store, one command after the other.

use crate::store::mvcc::compaction::Sweep;
use crate::store::mvcc::error::MvccError;
use crate::store::mvcc::lease::{Lease, NO_LEASE};
use crate::store::mvcc::record::Record;
use crate::store::mvcc::saved::{Saved, Settling};
use crate::store::mvcc::sequence::Sequence;
use crate::store::mvcc::txn::{DeleteRange, Op, OpOutcome, Put};
use crate::store::mvcc::version::{KeyValue, Version};
use crate::store::mvcc::view::{NEWEST, View};

/// The store and what its writer needs.
#[derive(Debug, Default)]
pub struct Store {
    pub(super) state: View,
    pub(super) sweep: Option<Sweep>,
    /// What the last checkpoint has.
    pub(super) saved: Saved,
    pub(super) settling: Option<Settling>,
    /// Deletions that a compaction has dropped before a checkpoint had them: older parts may still
    /// have what was deleted.
    pub(super) graves: Sequence<Version>,
    /// How many changes the command that is being carried out has made.
    written: u32,
    /// Where versions are encoded.
    scratch: Vec<u8>,
}

impl Store {
    /// Goes on from a view, which itself does not change.
    pub fn from_view(view: View) -> Self {
        Self { state: view, ..Self::default() }
    }

    /// Returns a copy of the store, with what it knows of the last checkpoint.
    #[must_use]
    pub fn copied(&self) -> Self {
        let (saved, graves) = (self.saved.clone(), self.graves.clone());
        Self { saved, graves, ..Self::from_view(self.view()) }
    }

    /// Returns the store as it is now.
    pub fn view(&self) -> View {
        self.state.clone()
    }

    /// Looks at the store as it is now, without a copy that would stay.
    pub fn now(&self) -> &View {
        &self.state
    }

    /// Carries out one operation as a revision of its own.
    pub fn op(&mut self, op: &Op<'_>) -> Result<OpOutcome, MvccError> {
        match op {
            Op::Put(put) => {
                self.check_put(put)?;
                let outcome = self.put(put);
                self.commit();
                Ok(outcome)
            }
            Op::DeleteRange(delete) => {
                let outcome = self.delete_range(delete);
                self.commit();
                Ok(outcome)
            }
            Op::Range(range) => {
                let result = self.state.range(range)?.into_owned();
                Ok(OpOutcome::Range { revision: self.state.revision, result })
            }
            Op::Txn(txn) => self.txn(txn).map(OpOutcome::Txn),
        }
    }

    /// Grants a lease.
    pub fn lease_grant(&mut self, id: i64, ttl: i64) -> Result<(), MvccError> {
        if id == NO_LEASE {
            return Err(MvccError::LeaseNotFound { id });
        }
        if self.state.leases.get(id).is_some() {
            return Err(MvccError::LeaseExists { id });
        }
        self.state.leases.grant(Lease { id, ttl, remaining: 0 });
        Ok(())
    }

    /// Ends a lease: its keys are deleted in their order, in one revision.
    pub fn lease_revoke(&mut self, id: i64) -> Result<(), MvccError> {
        if self.state.leases.get(id).is_none() {
            return Err(MvccError::LeaseNotFound { id });
        }
        let keys: Vec<Box<[u8]>> = self.state.leases.keys(id).map(Box::from).collect();
        for key in keys {
            self.delete(&key);
        }
        self.commit();
        self.state.leases.remove(id);
        Ok(())
    }

    /// Returns the revision that readers within the command see.
    pub(super) fn revision_within(&self) -> i64 {
        self.state.revision + i64::from(self.written > 0)
    }

    /// Ends a command: what it changed becomes the next revision.
    pub(super) fn commit(&mut self) {
        self.state.revision = self.revision_within();
        self.written = 0;
    }

    /// Checks what a put needs of the store.
    pub(super) fn check_put(&self, put: &Put<'_>) -> Result<(), MvccError> {
        if (put.ignore_value || put.ignore_lease) && self.state.get(put.key).is_none() {
            return Err(MvccError::KeyNotFound);
        }
        if put.lease != NO_LEASE && self.state.leases.get(put.lease).is_none() {
            return Err(MvccError::LeaseNotFound { id: put.lease });
        }
        Ok(())
    }

    /// Puts a key within the command; the put was checked.
    pub(super) fn put(&mut self, put: &Put<'_>) -> OpOutcome {
        let main = self.state.revision + 1;
        let record = self.state.keys.get(put.key);
        let head = record.and_then(Record::live).cloned();
        let before = head.as_ref().map(Version::fields).unwrap_or_default();
        let created = head.is_none();
        let fields = KeyValue {
            key: put.key,
            create_revision: if created { main } else { before.create_revision },
            mod_revision: main,
            version: before.version + 1,
            value: if put.ignore_value { before.value } else { put.value },
            lease: if put.ignore_lease { before.lease } else { put.lease },
        };
        let version = Version::new(&fields, self.written, &mut self.scratch);
        self.state.leases.move_key(put.key, before.lease, fields.lease);
        self.append(version, head.as_ref());
        let prev = head.filter(|_| put.prev_kv);
        OpOutcome::Put { revision: self.revision_within(), prev }
    }

    /// Deletes a range within the command.
    pub(super) fn delete_range(&mut self, delete: &DeleteRange<'_>) -> OpOutcome {
        let doomed: Vec<Version> = self.state.seen(delete.range, NEWEST).cloned().collect();
        for version in &doomed {
            self.delete(version.key());
        }
        let deleted = doomed.len();
        let prev = if delete.prev_kv { doomed } else { Vec::new() };
        OpOutcome::DeleteRange { revision: self.revision_within(), deleted, prev }
    }

    fn delete(&mut self, key: &[u8]) {
        let Some(head) = self.state.get(key).cloned() else { return };
        let main = self.state.revision + 1;
        let fields = KeyValue { key, mod_revision: main, ..KeyValue::default() };
        let version = Version::new(&fields, self.written, &mut self.scratch);
        self.state.leases.move_key(key, head.fields().lease, NO_LEASE);
        self.append(version, Some(&head));
    }

    /// Makes a version the newest of its key; `replaced` is the live one before it.
    fn append(&mut self, version: Version, replaced: Option<&Version>) {
        let state = &mut self.state;
        let usage = &mut state.usage;
        usage.total_bytes += version.bytes();
        usage.live_bytes += if version.is_tombstone() { 0 } else { version.bytes() };
        usage.live_bytes -= replaced.map_or(0, Version::bytes);
        let updated = state.keys.update(version.key(), |record| record.push(version.clone()));
        if updated.is_none() {
            state.keys.insert(Record::new(version.clone()));
        }
        state.log.push(version);
        self.written += 1;
    }
}
