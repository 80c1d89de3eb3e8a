//! The v3 keys: the engine, with requests and answers in etcd's own words.
//!
//! ```text
//!  wire::etcd::v3 ── request ─▶ mvcc::Op ─▶ mvcc::Store ─▶ OpOutcome ── answer ─▶ wire::etcd::v3
//! ```
//! What changes the keys is carried by the log as it came over the wire, and so is what it did: a
//! member that passes a write on to the leader has the answer that its client waits for.
//!
//! Beside the engine are the [`Alarms`], which decide what is refused.

pub mod alarm;
pub mod answer;
pub mod cost;
pub mod request;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use crate::store::keys_v3::alarm::{Alarm, Alarms, Raised};
pub use crate::store::keys_v3::request::Refused;
use crate::store::mvcc::checkpoint::CHUNK_HEADER_BYTES;
use crate::store::mvcc::restore::chunk_bytes;
use crate::store::mvcc::saved::{Head, Making, PartError, Saved, SavedPart, Sizes};
use crate::store::mvcc::{Checkpoint, Restore, RestoreError, Store, View};
use crate::wire::etcd::v3::as_bytes;
use crate::wire::etcd::v3::etcdserverpb::{RequestOp, ResponseOp};

/// A change of the v3 keys, their leases or alarms. New kinds go to the end: the log has their
/// numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Puts, deletes, or does several things under conditions.
    Op(#[serde(with = "as_bytes")] RequestOp),
    /// Forgets the history before a revision.
    Compact {
        /// The revision.
        revision: i64,
    },
    /// Grants a lease.
    LeaseGrant {
        /// Its id, which is not 0.
        id: i64,
        /// The seconds it lives.
        ttl: i64,
    },
    /// Ends a lease, and deletes its keys.
    LeaseRevoke {
        /// Its id.
        id: i64,
    },
    /// Raises an alarm, if it is not raised.
    RaiseAlarm(Raised),
    /// Takes an alarm back.
    ClearAlarm(Raised),
}

/// What a change did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// What an operation answers; the headers in it have only the revision.
    Op(#[serde(with = "as_bytes")] ResponseOp),
    /// Another change was made.
    Done {
        /// The store's revision after it.
        revision: i64,
    },
    /// The alarms that the change was about: none, if the one to be taken back was not there.
    Alarms(Vec<Raised>),
}

/// The v3 keys of a member.
#[derive(Debug, Default)]
pub struct KeysV3 {
    store: Store,
    alarms: Alarms,
}

impl KeysV3 {
    /// Makes one change; a refused one changes nothing.
    pub fn apply(&mut self, change: &Change) -> Result<Answer, Refused> {
        self.alarms.check(change)?;
        match change {
            Change::Op(op) => {
                let outcome = self.store.op(&request::op(op)?)?;
                return Ok(Answer::Op(answer::op(outcome)));
            }
            Change::Compact { revision } => self.store.compact(*revision)?,
            Change::LeaseGrant { id, ttl } => self.store.lease_grant(*id, *ttl)?,
            Change::LeaseRevoke { id } => self.store.lease_revoke(*id)?,
            Change::RaiseAlarm(raised) => {
                self.alarms.raise(*raised);
                return Ok(Answer::Alarms(vec![*raised]));
            }
            Change::ClearAlarm(raised) => {
                let was_there = self.alarms.clear(*raised);
                return Ok(Answer::Alarms(was_there.then_some(*raised).into_iter().collect()));
            }
        }
        Ok(Answer::Done { revision: self.now().revision() })
    }

    /// Returns the keys as they are now, for as long as the caller likes.
    pub fn view(&self) -> View {
        self.store.view()
    }

    /// Looks at the keys as they are now; [`KeysV3::view`] is for whoever looks for longer.
    pub fn now(&self) -> &View {
        self.store.now()
    }

    /// Returns what the keys take of a quota, in bytes: all versions that are kept, and leases.
    pub fn bytes(&self) -> u64 {
        bytes(self.now())
    }

    /// Returns the alarms.
    pub fn alarms(&self) -> &Alarms {
        &self.alarms
    }

    /// Frees some of what the last compaction dropped; tells whether there is more to free.
    pub fn compact_step(&mut self, events_max: usize) -> bool {
        self.store.compact_step(events_max)
    }

    /// Returns what the last checkpoint has of them.
    pub fn saved(&self) -> &Saved {
        self.store.saved()
    }

    /// Begins to make the parts of the next checkpoint.
    pub fn making(&self, sizes: Sizes) -> Making {
        Making::new(&self.store, sizes)
    }

    /// Takes note of a new checkpoint, and returns the parts that it does not have any more.
    pub fn adopt(&mut self, saved: Saved) -> Vec<Arc<SavedPart>> {
        self.store.adopt(saved)
    }

    /// Lets go of some memory that the last checkpoint has; tells whether there is more.
    pub fn settle_step(&mut self, versions_max: usize) -> bool {
        self.store.settle_step(versions_max)
    }

    /// Makes the keys of the parts of a checkpoint.
    pub fn load(
        alarms: Alarms,
        head: &Head,
        parts: Vec<Arc<SavedPart>>,
    ) -> Result<Self, PartError> {
        Ok(Self { store: Store::load(head, parts)?, alarms })
    }

    /// Appends all that is there, in one piece: what members are compared by, and what
    /// [`KeysV3::restore`] reads.
    ///
    /// # Panics
    ///
    /// Never: plain data always encodes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let alarms = postcard::to_stdvec(&self.alarms).expect("plain data always encodes");
        out.extend_from_slice(&alarms);
        for chunk in Checkpoint::new(self.view()) {
            out.extend_from_slice(&chunk);
        }
    }

    /// Reads what [`KeysV3::encode`] wrote, all of it: checkpoints had the keys so.
    pub fn restore(bytes: &[u8]) -> Result<Self, RestoreError> {
        let wrong = |_| RestoreError::Content { chunk: 0, what: "no list of alarms is before it" };
        let (alarms, chunks) = postcard::take_from_bytes(bytes).map_err(wrong)?;
        Ok(Self { alarms, ..Self::restore_without_alarms(chunks)? })
    }

    /// Reads what was written before there were alarms.
    pub fn restore_without_alarms(mut bytes: &[u8]) -> Result<Self, RestoreError> {
        let mut restore = Restore::default();
        while !bytes.is_empty() {
            // A chunk that is cut off is given as it is, to be refused.
            let header = bytes.first_chunk::<CHUNK_HEADER_BYTES>();
            let length = header.and_then(|header| chunk_bytes(*header)).unwrap_or(bytes.len());
            let (chunk, rest) = bytes.split_at(length.min(bytes.len()));
            restore.chunk(chunk)?;
            bytes = rest;
        }
        Ok(Self { store: restore.finish()?, alarms: Alarms::default() })
    }
}

/// Returns what a view takes of a quota, in bytes.
pub fn bytes(view: &View) -> u64 {
    view.usage().total_bytes + view.leases_count() as u64 * cost::LEASE_BYTES
}

impl Clone for KeysV3 {
    fn clone(&self) -> Self {
        Self { store: self.store.copied(), alarms: self.alarms.clone() }
    }
}

/// Equal are those that members show alike, however far each has come with freeing memory.
impl PartialEq for KeysV3 {
    fn eq(&self, other: &Self) -> bool {
        self.alarms == other.alarms
            && Checkpoint::new(self.view()).eq(Checkpoint::new(other.view()))
    }
}

impl Eq for KeysV3 {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::mvcc::MvccError;
    use crate::wire::etcd::v3::etcdserverpb::request_op::Request;
    use crate::wire::etcd::v3::etcdserverpb::response_op::Response;
    use crate::wire::etcd::v3::etcdserverpb::{PutRequest, RangeRequest, TxnRequest};

    fn op(request: Request) -> RequestOp {
        RequestOp { request: Some(request) }
    }

    fn put(key: &[u8], value: &[u8], lease: i64) -> RequestOp {
        let (key, value) = (key.to_vec(), value.to_vec());
        op(Request::RequestPut(PutRequest { key, value, lease, ..PutRequest::default() }))
    }

    #[test]
    fn a_transaction_answers_in_its_order_with_the_revision_of_each() {
        let mut keys = KeysV3::default();
        let read = RangeRequest { key: b"a".into(), ..RangeRequest::default() };
        let success = vec![put(b"a", b"1", 0), op(Request::RequestRange(read))];
        let txn = TxnRequest { success, ..TxnRequest::default() };
        let done = keys.apply(&Change::Op(op(Request::RequestTxn(txn)))).unwrap();
        let Answer::Op(ResponseOp { response: Some(Response::ResponseTxn(txn)) }) = done else {
            panic!("{done:?}")
        };
        assert!(txn.succeeded);
        let revisions = txn.responses.iter().map(|response| match &response.response {
            Some(Response::ResponsePut(put)) => put.header.as_ref().unwrap().revision,
            Some(Response::ResponseRange(range)) => {
                assert_eq!(range.kvs[0].value, b"1");
                range.header.as_ref().unwrap().revision
            }
            other => panic!("{other:?}"),
        });
        assert_eq!(revisions.collect::<Vec<_>>(), [2, 2]);
    }

    #[test]
    fn what_was_encoded_is_restored_with_its_leases() {
        let mut keys = KeysV3::default();
        keys.apply(&Change::LeaseGrant { id: 7, ttl: 10 }).unwrap();
        for number in 0..2000_u32 {
            keys.apply(&Change::Op(put(&number.to_be_bytes(), &[7; 100], 7))).unwrap();
        }
        let raised = Raised { alarm: Alarm::NoSpace, member: 5 };
        keys.apply(&Change::RaiseAlarm(raised)).unwrap();
        let mut bytes = Vec::new();
        keys.encode(&mut bytes);
        let restored = KeysV3::restore(&bytes).unwrap();
        assert_eq!(restored, keys);
        assert_eq!(restored.view().lease_keys(7).count(), 2000);
        assert!(KeysV3::restore(&bytes[..bytes.len() - 1]).is_err());
        assert!(KeysV3::restore(&[]).is_err());
    }

    #[test]
    fn without_space_what_needs_none_is_still_done() {
        let mut keys = KeysV3::default();
        let raised = Raised { alarm: Alarm::NoSpace, member: 5 };
        keys.apply(&Change::LeaseGrant { id: 7, ttl: 10 }).unwrap();
        keys.apply(&Change::Op(put(b"a", b"1", 7))).unwrap();
        let done = keys.apply(&Change::RaiseAlarm(raised));
        assert_eq!(done, Ok(Answer::Alarms(vec![raised])));
        let before = keys.clone();
        let within = TxnRequest { failure: vec![put(b"b", b"1", 0)], ..TxnRequest::default() };
        for refused in [
            Change::Op(put(b"a", b"2", 0)),
            Change::Op(op(Request::RequestTxn(within))),
            Change::LeaseGrant { id: 8, ttl: 10 },
        ] {
            assert_eq!(keys.apply(&refused), Err(Refused::NoSpace), "{refused:?}");
        }
        assert_eq!(keys, before);
        keys.apply(&Change::Compact { revision: 2 }).unwrap();
        keys.apply(&Change::LeaseRevoke { id: 7 }).unwrap();
        assert_eq!(keys.view().revision(), 3, "the lease's key was deleted");
        let elsewhere = Raised { member: 6, ..raised };
        assert_eq!(keys.apply(&Change::ClearAlarm(elsewhere)), Ok(Answer::Alarms(Vec::new())));
        assert_eq!(keys.apply(&Change::Op(put(b"a", b"2", 0))), Err(Refused::NoSpace));
        let done = keys.apply(&Change::ClearAlarm(raised));
        assert_eq!(done, Ok(Answer::Alarms(vec![raised])));
        assert!(keys.apply(&Change::Op(put(b"a", b"2", 0))).is_ok());
    }

    #[test]
    fn where_members_differ_nothing_is_done_until_somebody_says_so() {
        let mut keys = KeysV3::default();
        let raised = Raised { alarm: Alarm::Corrupt, member: 5 };
        keys.apply(&Change::RaiseAlarm(raised)).unwrap();
        for refused in [Change::Op(put(b"a", b"2", 0)), Change::Compact { revision: 1 }] {
            assert_eq!(keys.apply(&refused), Err(Refused::Corrupt), "{refused:?}");
        }
        keys.apply(&Change::ClearAlarm(raised)).unwrap();
        assert!(keys.apply(&Change::Op(put(b"a", b"2", 0))).is_ok());
    }

    #[test]
    fn a_refused_change_changes_nothing() {
        let mut keys = KeysV3::default();
        let before = keys.clone();
        let refused = keys.apply(&Change::Op(put(b"a", b"1", 99))).unwrap_err();
        assert_eq!(refused, Refused::Engine(MvccError::LeaseNotFound { id: 99 }));
        assert_eq!(keys.apply(&Change::Op(RequestOp::default())), Err(Refused::NoOperation));
        assert_eq!(keys, before);
    }
}
