//! From what the engine did to a v3 answer. The headers have only the revision: who answers adds
//! the rest.

use std::borrow::Borrow;

use crate::store::mvcc::txn::TxnOutcome;
use crate::store::mvcc::{OpOutcome, RangeResult, Version};
use crate::wire::etcd::v3::etcdserverpb as pb;
use crate::wire::etcd::v3::etcdserverpb::response_op::Response;
use crate::wire::etcd::v3::mvccpb;

#[expect(clippy::unnecessary_wraps, reason = "what messages have it in")]
fn header(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { revision, ..pb::ResponseHeader::default() })
}

/// Shows what an operation did.
pub fn op(outcome: OpOutcome) -> pb::ResponseOp {
    let response = match outcome {
        OpOutcome::Range { revision, result } => Response::ResponseRange(range(revision, &result)),
        OpOutcome::Put { revision, prev } => {
            let prev_kv = prev.as_ref().map(key_value);
            Response::ResponsePut(pb::PutResponse { header: header(revision), prev_kv })
        }
        OpOutcome::DeleteRange { revision, deleted, prev } => {
            let prev_kvs = prev.iter().map(key_value).collect();
            Response::ResponseDeleteRange(pb::DeleteRangeResponse {
                header: header(revision),
                deleted: count(deleted),
                prev_kvs,
            })
        }
        OpOutcome::Txn(outcome) => Response::ResponseTxn(txn(outcome)),
    };
    pb::ResponseOp { response: Some(response) }
}

/// Shows what a transaction did.
pub fn txn(outcome: TxnOutcome) -> pb::TxnResponse {
    pb::TxnResponse {
        header: header(outcome.revision),
        succeeded: outcome.succeeded,
        responses: outcome.responses.into_iter().map(inner).collect(),
    }
}

/// Shows what an operation in a transaction did: of a transaction there, the header has nothing.
fn inner(outcome: OpOutcome) -> pb::ResponseOp {
    let mut shown = op(outcome);
    if let Some(Response::ResponseTxn(txn)) = &mut shown.response {
        txn.header = header(0);
    }
    shown
}

/// Shows what was read when the store was at a revision.
pub fn range<V: Borrow<Version>>(revision: i64, result: &RangeResult<V>) -> pb::RangeResponse {
    let shown = |version: &V| {
        let kv = key_value(version.borrow());
        if result.keys_only { mvccpb::KeyValue { value: Vec::new(), ..kv } } else { kv }
    };
    pb::RangeResponse {
        header: header(revision),
        kvs: result.kvs.iter().map(shown).collect(),
        ..counted(result.count, result.more)
    }
}

/// Shows how much was read, and no more.
pub fn counted(keys: usize, more: bool) -> pb::RangeResponse {
    pb::RangeResponse { more, count: count(keys), ..Default::default() }
}

/// Shows one version of a key.
pub(crate) fn key_value(version: &Version) -> mvccpb::KeyValue {
    let fields = version.fields();
    mvccpb::KeyValue {
        key: fields.key.to_vec(),
        create_revision: fields.create_revision,
        mod_revision: fields.mod_revision,
        version: fields.version,
        value: fields.value.to_vec(),
        lease: fields.lease,
    }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_outer_of_two_transactions_tells_the_revision() {
        let outcome = |responses| TxnOutcome { revision: 7, succeeded: true, responses };
        let shown = txn(outcome(vec![OpOutcome::Txn(outcome(Vec::new()))]));
        let Some(Response::ResponseTxn(nested)) = &shown.responses[0].response else {
            panic!("{shown:?}");
        };
        assert_eq!((shown.header, nested.header), (header(7), header(0)));
    }
}
