//! How much room a change may take, by etcd's own rules: what a quota is checked with before the
//! change is made.

use crate::store::keys_v3::Change;
use crate::wire::etcd::v3::etcdserverpb::request_op::Request;
use crate::wire::etcd::v3::etcdserverpb::{PutRequest, RequestOp, TxnRequest};

/// Bytes that a version of a key is taken to need besides its key and its value.
const VERSION_BYTES: u64 = 256;
/// Bytes that a lease is taken to need.
pub const LEASE_BYTES: u64 = 64;

/// Returns how many bytes a change may take; 0 if it takes none.
pub fn of(change: &Change) -> u64 {
    match change {
        Change::Op(op) => of_op(op),
        Change::LeaseGrant { .. } => LEASE_BYTES,
        Change::Compact { .. }
        | Change::LeaseRevoke { .. }
        | Change::RaiseAlarm(_)
        | Change::ClearAlarm(_) => 0,
    }
}

fn of_op(op: &RequestOp) -> u64 {
    match &op.request {
        Some(Request::RequestPut(put)) => of_put(put),
        Some(Request::RequestTxn(txn)) => of_txn(txn),
        Some(Request::RequestRange(_) | Request::RequestDeleteRange(_)) | None => 0,
    }
}

fn of_put(put: &PutRequest) -> u64 {
    VERSION_BYTES + put.key.len() as u64 + put.value.len() as u64
}

/// A transaction goes one of two ways; the one that needs more counts.
fn of_txn(txn: &TxnRequest) -> u64 {
    let sum = |ops: &[RequestOp]| ops.iter().map(of_op).sum::<u64>();
    sum(&txn.success).max(sum(&txn.failure))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::etcd::v3::etcdserverpb::RangeRequest;

    fn op(request: Request) -> RequestOp {
        RequestOp { request: Some(request) }
    }

    fn put(value_bytes: usize) -> RequestOp {
        let value = vec![0; value_bytes];
        op(Request::RequestPut(PutRequest { key: b"k".into(), value, ..PutRequest::default() }))
    }

    #[test]
    fn a_transaction_costs_what_its_dearer_way_does() {
        let within = TxnRequest { failure: vec![put(1000)], ..TxnRequest::default() };
        let txn = TxnRequest {
            success: vec![put(10), op(Request::RequestTxn(within))],
            failure: vec![put(1000)],
            ..TxnRequest::default()
        };
        let change = Change::Op(op(Request::RequestTxn(txn)));
        assert_eq!(of(&change), (257 + 10) + (257 + 1000));
    }

    #[test]
    fn what_only_reads_deletes_or_ends_costs_nothing() {
        let read = op(Request::RequestRange(RangeRequest::default()));
        let txn = TxnRequest { success: vec![read], ..TxnRequest::default() };
        assert_eq!(of(&Change::Op(op(Request::RequestTxn(txn)))), 0);
        assert_eq!(of(&Change::Compact { revision: 1 }), 0);
        assert_eq!(of(&Change::LeaseRevoke { id: 1 }), 0);
        assert_eq!(of(&Change::LeaseGrant { id: 1, ttl: 1 }), 64);
    }
}
