//! What can be refused of a request without looking at the store: before it is replicated.
//!
//! The rules are etcd's, also in their order, which decides the error a client sees.

use std::collections::BTreeSet;

use crate::store::mvcc::error::MvccError;
use crate::store::mvcc::key_range::KeyRange;
use crate::store::mvcc::txn::{DeleteRange, Op, Put, Txn};

impl Op<'_> {
    /// Checks a request that is not part of another; a transaction may have `ops_max` operations in
    /// each of its lists, less what those around it have.
    pub fn check(&self, ops_max: usize) -> Result<(), MvccError> {
        match self {
            Op::Range(range) => range.check(),
            Op::Put(put) => put.check(),
            Op::DeleteRange(delete) => delete.check(),
            Op::Txn(txn) => check_txn(txn, ops_max),
        }
    }
}

impl Put<'_> {
    fn check(&self) -> Result<(), MvccError> {
        if self.key.is_empty() {
            return Err(MvccError::KeyNotProvided);
        }
        if self.ignore_value && !self.value.is_empty() {
            return Err(MvccError::ValueProvided);
        }
        if self.ignore_lease && self.lease != 0 {
            return Err(MvccError::LeaseProvided);
        }
        Ok(())
    }
}

impl DeleteRange<'_> {
    fn check(&self) -> Result<(), MvccError> {
        if self.range.start().is_empty() { Err(MvccError::KeyNotProvided) } else { Ok(()) }
    }
}

/// Checks a transaction.
pub fn check_txn(txn: &Txn<'_>, ops_max: usize) -> Result<(), MvccError> {
    check_ops(txn, ops_max, ops_max)?;
    writes_of(&txn.success)?;
    writes_of(&txn.failure)?;
    Ok(())
}

fn check_ops(txn: &Txn<'_>, left: usize, ops_max: usize) -> Result<(), MvccError> {
    let longest = txn.compare.len().max(txn.success.len()).max(txn.failure.len());
    let left = left.checked_sub(longest).ok_or(MvccError::TooManyOps { ops_max })?;
    if txn.compare.iter().any(|compare| compare.range.start().is_empty()) {
        return Err(MvccError::KeyNotProvided);
    }
    for op in txn.success.iter().chain(&txn.failure) {
        match op {
            Op::Txn(txn) => check_ops(txn, left, ops_max)?,
            Op::Range(_) | Op::Put(_) | Op::DeleteRange(_) => op.check(left)?,
        }
    }
    Ok(())
}

/// What a list of operations writes, whichever way the transactions in it go.
#[derive(Default)]
struct Writes<'a> {
    puts: BTreeSet<&'a [u8]>,
    deletes: Vec<KeyRange<&'a [u8]>>,
}

impl<'a> Writes<'a> {
    fn put(&mut self, key: &'a [u8]) -> Result<(), MvccError> {
        if self.deletes.iter().any(|range| range.contains(key)) || !self.puts.insert(key) {
            return Err(MvccError::DuplicateKey);
        }
        Ok(())
    }
}

/// Collects what is written and refuses a key that is put twice, or put and deleted.
///
/// Only one of the two lists of a transaction is carried out, so that both may put a key. A range
/// without an end clashes with no key: etcd reads its end, a zero byte, as it stands here, and
/// before that there is none. The operations are carried out in their order anyway.
fn writes_of<'a>(ops: &[Op<'a>]) -> Result<Writes<'a>, MvccError> {
    let mut writes = Writes::default();
    for op in ops {
        if let Op::DeleteRange(delete) = op
            && !matches!(delete.range, KeyRange::From(_))
        {
            writes.deletes.push(delete.range);
        }
    }
    for op in ops {
        if let Op::Txn(txn) = op {
            let success = writes_of(&txn.success)?;
            let failure = writes_of(&txn.failure)?;
            for key in success.puts.union(&failure.puts) {
                writes.put(key)?;
            }
            writes.deletes.extend(success.deletes);
            writes.deletes.extend(failure.deletes);
        }
    }
    for op in ops {
        if let Op::Put(put) = op {
            writes.put(put.key)?;
        }
    }
    Ok(writes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::mvcc::range::Range;
    use crate::store::mvcc::txn::{Compare, CompareResult, CompareTarget};

    const OPS_MAX: usize = 4;

    fn put(key: &[u8]) -> Op<'_> {
        Op::Put(Put { key, ..Put::default() })
    }

    fn delete<'a>(key: &'a [u8], end: &'a [u8]) -> Op<'a> {
        Op::DeleteRange(DeleteRange { range: KeyRange::from_wire(key, end), prev_kv: false })
    }

    fn success(ops: Vec<Op<'_>>) -> Txn<'_> {
        Txn { success: ops, ..Txn::default() }
    }

    fn either<'a>(success: Vec<Op<'a>>, failure: Vec<Op<'a>>) -> Op<'a> {
        Op::Txn(Txn { compare: Vec::new(), success, failure })
    }

    #[test]
    fn a_key_is_written_once() {
        let refused = |ops| check_txn(&success(ops), OPS_MAX) == Err(MvccError::DuplicateKey);
        assert!(refused(vec![put(b"a"), put(b"a")]));
        assert!(refused(vec![put(b"a"), delete(b"a", b"")]));
        assert!(refused(vec![delete(b"a", b"c"), put(b"b")]));
        assert!(!refused(vec![delete(b"a", b"c"), put(b"c")]));
        assert!(!refused(vec![delete(b"a", b"c"), delete(b"a", b"c")]));
        assert!(refused(vec![put(b"a"), either(vec![put(b"a")], vec![])]));
        assert!(refused(vec![delete(b"a", b"b"), either(vec![], vec![put(b"a")])]));
        assert!(refused(vec![put(b"a"), either(vec![delete(b"a", b"")], vec![])]));
    }

    #[test]
    fn a_range_without_an_end_clashes_with_no_key() {
        let open = || delete(b"a", b"\0");
        for ops in [
            vec![put(b"c"), open()],
            vec![open(), put(b"a")],
            vec![put(b"c"), either(vec![open()], vec![])],
            vec![either(vec![], vec![open()]), put(b"c")],
        ] {
            assert_eq!(check_txn(&success(ops), OPS_MAX), Ok(()));
        }
    }

    #[test]
    fn both_ways_of_a_transaction_may_write_the_same_key() {
        let both = || either(vec![put(b"a")], vec![put(b"a")]);
        assert_eq!(check_txn(&success(vec![both()]), OPS_MAX), Ok(()));
        let twice = check_txn(&success(vec![both(), both()]), OPS_MAX);
        assert_eq!(twice, Err(MvccError::DuplicateKey));
        let ways = Txn { success: vec![put(b"a")], failure: vec![put(b"a")], ..Txn::default() };
        assert_eq!(check_txn(&ways, OPS_MAX), Ok(()));
    }

    #[test]
    fn those_within_have_what_is_left_of_the_limit() {
        let read = || Op::Range(Range::of(KeyRange::One(b"a")));
        let many = success((0..5).map(|_| read()).collect());
        let too_many = Err(MvccError::TooManyOps { ops_max: OPS_MAX });
        assert_eq!(check_txn(&many, OPS_MAX), too_many);
        let within = |count| either((0..count).map(|_| read()).collect(), vec![]);
        assert_eq!(check_txn(&success(vec![within(3)]), OPS_MAX), Ok(()));
        assert_eq!(check_txn(&success(vec![within(4)]), OPS_MAX), too_many);
    }

    #[test]
    fn every_part_names_a_key() {
        let missing = Err(MvccError::KeyNotProvided);
        assert_eq!(put(b"").check(OPS_MAX), missing);
        assert_eq!(delete(b"", b"\0").check(OPS_MAX), missing);
        assert_eq!(Op::Range(Range::of(KeyRange::One(b""))).check(OPS_MAX), missing);
        let compare = Compare {
            range: KeyRange::One(b""),
            target: CompareTarget::Version(0),
            result: CompareResult::Equal,
        };
        let txn = Txn { compare: vec![compare], ..Txn::default() };
        assert_eq!(Op::Txn(txn).check(OPS_MAX), missing);
        assert_eq!(Op::Txn(success(vec![put(b"")])).check(OPS_MAX), missing);
    }

    #[test]
    fn what_is_kept_is_not_given_too() {
        let kept = Put { key: b"a", value: b"v", ignore_value: true, ..Put::default() };
        assert_eq!(kept.check(), Err(MvccError::ValueProvided));
        let kept = Put { key: b"a", lease: 1, ignore_lease: true, ..Put::default() };
        assert_eq!(kept.check(), Err(MvccError::LeaseProvided));
    }
}
