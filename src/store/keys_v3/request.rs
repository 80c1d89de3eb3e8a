//! From a v3 request to what the engine does, without copying a byte of it.

use serde::{Deserialize, Serialize};

use crate::store::mvcc::{
    Compare, CompareResult, CompareTarget, DeleteRange, KeyRange, MvccError, Op, Put, Range,
    SortOrder, SortTarget, Txn,
};
use crate::wire::etcd::v3::etcdserverpb as pb;
use crate::wire::etcd::v3::etcdserverpb::compare::TargetUnion;
use crate::wire::etcd::v3::etcdserverpb::request_op::Request;

/// A request that cannot be carried out; nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Refused {
    /// An operation of a transaction is none of those that are known.
    #[error("an operation of the transaction does nothing; leave it out")]
    NoOperation,
    /// A range is to be sorted in a way that is not known.
    #[error("the range is to be sorted in an unknown way")]
    UnknownSort,
    /// A transaction compares in a way that is not known.
    #[error("the transaction compares in an unknown way")]
    UnknownCompare,
    /// The engine refuses it.
    #[error(transparent)]
    Engine(#[from] MvccError),
    /// It takes room, and there is none.
    #[error(
        "the store has outgrown its quota; delete keys, compact, and then take the alarm back with `etcdctl alarm disarm`"
    )]
    NoSpace,
    /// Members differ in what they have.
    #[error("a member's store is not what the others have; replace that member")]
    Corrupt,
}

/// Reads an operation.
pub fn op(op: &pb::RequestOp) -> Result<Op<'_>, Refused> {
    Ok(match op.request.as_ref().ok_or(Refused::NoOperation)? {
        Request::RequestRange(request) => Op::Range(unchecked(request)?),
        Request::RequestPut(request) => Op::Put(put(request)),
        Request::RequestDeleteRange(request) => Op::DeleteRange(delete(request)),
        Request::RequestTxn(request) => Op::Txn(txn(request)?),
    })
}

/// Reads a range that is not part of a transaction, and checks it.
pub fn range(request: &pb::RangeRequest) -> Result<Range<'_>, Refused> {
    let range = unchecked(request)?;
    range.check()?;
    Ok(range)
}

/// Reads a range. One in a transaction is checked when its turn comes among the others.
fn unchecked(request: &pb::RangeRequest) -> Result<Range<'_>, Refused> {
    Ok(Range {
        range: KeyRange::from_wire(&request.key, &request.range_end),
        revision: request.revision,
        // A limit below zero is none.
        limit: usize::try_from(request.limit).unwrap_or(0),
        order: order(request.sort_order)?,
        target: target(request.sort_target)?,
        keys_only: request.keys_only,
        count_only: request.count_only,
        min_mod_revision: request.min_mod_revision,
        max_mod_revision: request.max_mod_revision,
        min_create_revision: request.min_create_revision,
        max_create_revision: request.max_create_revision,
    })
}

fn order(order: i32) -> Result<SortOrder, Refused> {
    use pb::range_request::SortOrder as Wire;
    Ok(match Wire::try_from(order).map_err(|_| Refused::UnknownSort)? {
        Wire::None => SortOrder::None,
        Wire::Ascend => SortOrder::Ascend,
        Wire::Descend => SortOrder::Descend,
    })
}

fn target(target: i32) -> Result<SortTarget, Refused> {
    use pb::range_request::SortTarget as Wire;
    Ok(match Wire::try_from(target).map_err(|_| Refused::UnknownSort)? {
        Wire::Key => SortTarget::Key,
        Wire::Version => SortTarget::Version,
        Wire::Create => SortTarget::Create,
        Wire::Mod => SortTarget::Mod,
        Wire::Value => SortTarget::Value,
    })
}

fn put(request: &pb::PutRequest) -> Put<'_> {
    Put {
        key: &request.key,
        value: &request.value,
        lease: request.lease,
        prev_kv: request.prev_kv,
        ignore_value: request.ignore_value,
        ignore_lease: request.ignore_lease,
    }
}

fn delete(request: &pb::DeleteRangeRequest) -> DeleteRange<'_> {
    let range = KeyRange::from_wire(&request.key, &request.range_end);
    DeleteRange { range, prev_kv: request.prev_kv }
}

/// Reads a transaction.
pub fn txn(request: &pb::TxnRequest) -> Result<Txn<'_>, Refused> {
    Ok(Txn {
        compare: request.compare.iter().map(compare).collect::<Result<_, _>>()?,
        success: request.success.iter().map(op).collect::<Result<_, _>>()?,
        failure: request.failure.iter().map(op).collect::<Result<_, _>>()?,
    })
}

fn compare(request: &pb::Compare) -> Result<Compare<'_>, Refused> {
    use pb::compare::{CompareResult as WireResult, CompareTarget as WireTarget};
    let unknown = |_| Refused::UnknownCompare;
    let result = match WireResult::try_from(request.result).map_err(unknown)? {
        WireResult::Equal => CompareResult::Equal,
        WireResult::Greater => CompareResult::Greater,
        WireResult::Less => CompareResult::Less,
        WireResult::NotEqual => CompareResult::NotEqual,
    };
    // What is compared with is zero or empty where it is missing or of another kind.
    let with = request.target_union.as_ref();
    let target = match (WireTarget::try_from(request.target).map_err(unknown)?, with) {
        (WireTarget::Version, Some(TargetUnion::Version(with))) => CompareTarget::Version(*with),
        (WireTarget::Version, _) => CompareTarget::Version(0),
        (WireTarget::Create, Some(TargetUnion::CreateRevision(with))) => {
            CompareTarget::Create(*with)
        }
        (WireTarget::Create, _) => CompareTarget::Create(0),
        (WireTarget::Mod, Some(TargetUnion::ModRevision(with))) => CompareTarget::Mod(*with),
        (WireTarget::Mod, _) => CompareTarget::Mod(0),
        (WireTarget::Value, Some(TargetUnion::Value(with))) => CompareTarget::Value(with),
        (WireTarget::Value, _) => CompareTarget::Value(&[]),
        (WireTarget::Lease, Some(TargetUnion::Lease(with))) => CompareTarget::Lease(*with),
        (WireTarget::Lease, _) => CompareTarget::Lease(0),
    };
    let range = KeyRange::from_wire(&request.key, &request.range_end);
    Ok(Compare { range, target, result })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_wrong_operation_of_a_transaction_is_the_one_refused() {
        let put = pb::PutRequest {
            key: b"a".to_vec(),
            value: b"1".to_vec(),
            ignore_value: true,
            ..pb::PutRequest::default()
        };
        let requests =
            [Request::RequestPut(put), Request::RequestRange(pb::RangeRequest::default())];
        let failure = requests.map(|request| pb::RequestOp { request: Some(request) }).to_vec();
        let asked = pb::TxnRequest { failure, ..pb::TxnRequest::default() };
        let checked = crate::store::mvcc::check_txn(&txn(&asked).unwrap(), 128);
        assert_eq!(checked, Err(MvccError::ValueProvided));
        let lone = range(&pb::RangeRequest::default()).map(drop);
        assert_eq!(lone, Err(MvccError::KeyNotProvided.into()));
    }
}
