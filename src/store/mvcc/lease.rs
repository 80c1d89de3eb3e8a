//! Leases: how long they were granted for, and which keys live with them.
//!
//! Part of the replicated state: when a lease ends is the leader's business ([`crate::store::mvcc::expiry`]).

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::store::mvcc::error::MvccError;
use crate::store::mvcc::tree::{Entry, Tree};
use crate::store::mvcc::view::View;

/// Longest time to live, in seconds: etcd's limit.
pub const LEASE_TTL_MAX: i64 = 9_000_000_000;

/// What stands for "no lease" where a key names one.
pub const NO_LEASE: i64 = 0;

/// A lease as it was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Its id; never 0.
    pub id: i64,
    /// The seconds it lives after each renewal.
    pub ttl: i64,
    /// The seconds it still had when that was last written down; 0 if it was not, as always so far.
    pub remaining: i64,
}

/// Returns the time to live that is granted where one is asked for: at least `ttl_min`.
///
/// The leader decides it before the grant is replicated.
pub fn granted_ttl(ttl: i64, ttl_min: i64) -> Result<i64, MvccError> {
    if ttl > LEASE_TTL_MAX {
        return Err(MvccError::LeaseTtlTooLarge { ttl, ttl_max: LEASE_TTL_MAX });
    }
    Ok(ttl.max(ttl_min))
}

/// All leases.
#[derive(Debug, Clone, Default)]
pub(super) struct Leases {
    granted: Tree<Grant>,
    attached: Tree<Attachment>,
}

const ID_BYTES: usize = 8;

#[derive(Debug, Clone)]
struct Grant {
    id: [u8; ID_BYTES],
    lease: Lease,
}

/// The lease's id, then the key: so a lease's keys stand together, in their order.
#[derive(Debug, Clone)]
struct Attachment(Arc<[u8]>);

impl Entry for Grant {
    fn key(&self) -> &[u8] {
        &self.id
    }
}

impl Entry for Attachment {
    fn key(&self) -> &[u8] {
        &self.0
    }
}

/// Returns the id in bytes that are in the order of the numbers, negative ones first.
fn id_bytes(id: i64) -> [u8; ID_BYTES] {
    (id ^ i64::MIN).to_be_bytes()
}

fn attachment(id: i64, key: &[u8]) -> Vec<u8> {
    [&id_bytes(id), key].concat()
}

impl Leases {
    /// Takes leases, whose ids go up, and which key has which of them.
    pub(super) fn from_parts(leases: &[Lease], mut attached: Vec<(i64, &[u8])>) -> Self {
        attached.sort_unstable();
        let attached = attached.into_iter().map(|(id, key)| Attachment(attachment(id, key).into()));
        let granted = leases.iter().map(|lease| Grant { id: id_bytes(lease.id), lease: *lease });
        Self {
            granted: Tree::from_sorted(granted.collect()),
            attached: Tree::from_sorted(attached.collect()),
        }
    }

    pub(super) fn count(&self) -> usize {
        self.granted.live().count
    }

    pub(super) fn get(&self, id: i64) -> Option<&Lease> {
        self.granted.get(&id_bytes(id)).map(|grant| &grant.lease)
    }

    /// Walks the leases after one, or all.
    pub(super) fn after(&self, id: Option<i64>) -> impl Iterator<Item = &Lease> {
        let from = id.map_or_else(Vec::new, |id| attachment(id, b"\0"));
        self.granted.iter_from(&from).map(|grant| &grant.lease)
    }

    pub(super) fn keys(&self, id: i64) -> impl Iterator<Item = &[u8]> {
        let id = id_bytes(id);
        let attached = self.attached.iter_from(&id).map(|attachment| &*attachment.0);
        attached.map_while(move |composite| composite.strip_prefix(&id))
    }

    pub(super) fn grant(&mut self, lease: Lease) {
        self.granted.insert(Grant { id: id_bytes(lease.id), lease });
    }

    pub(super) fn remove(&mut self, id: i64) {
        self.granted.remove(&id_bytes(id));
    }

    /// Moves a key from one lease to another; either may be none.
    pub(super) fn move_key(&mut self, key: &[u8], from: i64, to: i64) {
        if from == to {
            return;
        }
        if from != NO_LEASE {
            self.attached.remove(&attachment(from, key));
        }
        if to != NO_LEASE {
            self.attached.insert(Attachment(attachment(to, key).into()));
        }
    }
}

impl View {
    /// Returns a lease.
    pub fn lease(&self, id: i64) -> Option<Lease> {
        self.leases.get(id).copied()
    }

    /// Walks all leases by id, negative ones first.
    pub fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.leases.after(None)
    }

    /// Returns how many leases there are.
    pub fn leases_count(&self) -> usize {
        self.leases.count()
    }

    /// Walks the keys of a lease, in their order.
    pub fn lease_keys(&self, id: i64) -> impl Iterator<Item = &[u8]> {
        self.leases.keys(id)
    }
}
