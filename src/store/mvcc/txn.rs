//! Operations on keys, alone or as a transaction: compares, then one of two lists of operations.
//!
//! All compares, also those of transactions within, are decided on the store as it was before; reads
//! see what was written before them. All writes are one revision.

use crate::store::mvcc::error::MvccError;
use crate::store::mvcc::key_range::KeyRange;
use crate::store::mvcc::range::{Range, RangeResult};
use crate::store::mvcc::store::Store;
use crate::store::mvcc::version::{KeyValue, Version};
use crate::store::mvcc::view::{NEWEST, View};

/// Puts a key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Put<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
    /// The lease it lives with; 0 for none.
    pub lease: i64,
    /// Whether what was there is wanted.
    pub prev_kv: bool,
    /// Whether the value stays as it is.
    pub ignore_value: bool,
    /// Whether the lease stays as it is.
    pub ignore_lease: bool,
}

/// Deletes keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeleteRange<'a> {
    /// The keys.
    pub range: KeyRange<&'a [u8]>,
    /// Whether what was there is wanted.
    pub prev_kv: bool,
}

/// An operation on keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op<'a> {
    /// Reads.
    Range(Range<'a>),
    /// Puts.
    Put(Put<'a>),
    /// Deletes.
    DeleteRange(DeleteRange<'a>),
    /// Several, under conditions.
    Txn(Txn<'a>),
}

/// How two things must compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompareResult {
    /// The key's is equal.
    Equal,
    /// The key's is greater.
    Greater,
    /// The key's is less.
    Less,
    /// The key's is another.
    NotEqual,
}

/// What of a key is compared with what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompareTarget<'a> {
    /// The number of puts since its creation.
    Version(i64),
    /// The revision of its creation.
    Create(i64),
    /// The revision of its last put.
    Mod(i64),
    /// Its value.
    Value(&'a [u8]),
    /// Its lease.
    Lease(i64),
}

/// A condition on every key of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compare<'a> {
    /// The keys.
    pub range: KeyRange<&'a [u8]>,
    /// With what.
    pub target: CompareTarget<'a>,
    /// How.
    pub result: CompareResult,
}

/// Conditions, and what to do if all hold or if not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Txn<'a> {
    /// The conditions.
    pub compare: Vec<Compare<'a>>,
    /// What to do if they hold.
    pub success: Vec<Op<'a>>,
    /// What to do otherwise.
    pub failure: Vec<Op<'a>>,
}

/// What an operation did. The revision is that of the store as the operation left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpOutcome {
    /// It read.
    Range {
        /// The store's revision, whichever was read.
        revision: i64,
        /// What was there.
        result: RangeResult<Version>,
    },
    /// It put.
    Put {
        /// The revision.
        revision: i64,
        /// What was there before, if that was wanted.
        prev: Option<Version>,
    },
    /// It deleted.
    DeleteRange {
        /// The revision.
        revision: i64,
        /// How many keys.
        deleted: usize,
        /// What was there before, if that was wanted.
        prev: Vec<Version>,
    },
    /// It was a transaction.
    Txn(TxnOutcome),
}

/// What a transaction did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxnOutcome {
    /// The store's revision after it.
    pub revision: i64,
    /// Whether the conditions held.
    pub succeeded: bool,
    /// What each operation did.
    pub responses: Vec<OpOutcome>,
}

impl<'a> Txn<'a> {
    /// Tells whether it can only read, whichever way it goes.
    pub fn is_read_only(&self) -> bool {
        self.success.iter().chain(&self.failure).all(|op| match op {
            Op::Range(_) => true,
            Op::Put(_) | Op::DeleteRange(_) => false,
            Op::Txn(txn) => txn.is_read_only(),
        })
    }

    fn branch(&self, succeeded: bool) -> &[Op<'a>] {
        if succeeded { &self.success } else { &self.failure }
    }

    /// Looks at each operation that will be carried out, also of the transactions within.
    fn each_chosen(
        &self,
        path: &mut std::slice::Iter<'_, bool>,
        look: &mut impl FnMut(&Op<'a>) -> Result<(), MvccError>,
    ) -> Result<(), MvccError> {
        let succeeded = path.next().is_some_and(|way| *way);
        self.branch(succeeded).iter().try_for_each(|op| match op {
            Op::Txn(txn) => txn.each_chosen(path, look),
            Op::Range(_) | Op::Put(_) | Op::DeleteRange(_) => look(op),
        })
    }
}

/// Which way a transaction and those within it go, in the order in which they are met.
type Path = Vec<bool>;

impl Store {
    /// Carries out a transaction that [`super::check_txn`] has accepted.
    pub fn txn(&mut self, txn: &Txn<'_>) -> Result<TxnOutcome, MvccError> {
        let mut path = Path::new();
        self.state.decide(txn, &mut path);
        self.check_chosen(txn, &path)?;
        let outcome = self.run(txn, &mut path.iter());
        self.commit();
        Ok(outcome)
    }

    /// Checks the operations that will be carried out. As in etcd, what is wrong with a put is told
    /// before what is wrong with a read.
    fn check_chosen(&self, txn: &Txn<'_>, path: &Path) -> Result<(), MvccError> {
        txn.each_chosen(&mut path.iter(), &mut |op| match op {
            Op::Put(put) => self.check_put(put),
            Op::Range(_) | Op::DeleteRange(_) | Op::Txn(_) => Ok(()),
        })?;
        txn.each_chosen(&mut path.iter(), &mut |op| match op {
            Op::Range(range) => self.state.readable(range.revision).map(drop),
            Op::Put(_) | Op::DeleteRange(_) | Op::Txn(_) => Ok(()),
        })
    }

    fn run(&mut self, txn: &Txn<'_>, path: &mut std::slice::Iter<'_, bool>) -> TxnOutcome {
        let succeeded = path.next().is_some_and(|way| *way);
        let mut responses = Vec::with_capacity(txn.branch(succeeded).len());
        for op in txn.branch(succeeded) {
            responses.push(match op {
                Op::Put(put) => self.put(put),
                Op::DeleteRange(delete) => self.delete_range(delete),
                Op::Range(range) => {
                    let result = self.state.range(range).expect("its revision was checked");
                    let revision = self.revision_within();
                    OpOutcome::Range { revision, result: result.into_owned() }
                }
                Op::Txn(txn) => OpOutcome::Txn(self.run(txn, path)),
            });
        }
        TxnOutcome { revision: self.revision_within(), succeeded, responses }
    }
}

impl View {
    /// Carries out a transaction that only reads; `None` if it could write.
    pub fn read_txn(&self, txn: &Txn<'_>) -> Option<Result<TxnOutcome, MvccError>> {
        txn.is_read_only().then(|| Store::from_view(self.clone()).txn(txn))
    }

    fn decide(&self, txn: &Txn<'_>, path: &mut Path) {
        let succeeded = txn.compare.iter().all(|compare| self.holds(compare));
        path.push(succeeded);
        for op in txn.branch(succeeded) {
            if let Op::Txn(txn) = op {
                self.decide(txn, path);
            }
        }
    }

    /// Tells whether a condition holds. Where there is no key, one of zeros is compared; but a value
    /// that is not there is never as it should be.
    fn holds(&self, compare: &Compare<'_>) -> bool {
        let mut versions = self.seen(compare.range, NEWEST).peekable();
        if versions.peek().is_none() {
            return !matches!(compare.target, CompareTarget::Value(_))
                && compare.holds_for(&KeyValue::default());
        }
        versions.all(|version| compare.holds_for(&version.fields()))
    }
}

impl Compare<'_> {
    fn holds_for(&self, fields: &KeyValue<'_>) -> bool {
        let order = match self.target {
            CompareTarget::Version(wanted) => fields.version.cmp(&wanted),
            CompareTarget::Create(wanted) => fields.create_revision.cmp(&wanted),
            CompareTarget::Mod(wanted) => fields.mod_revision.cmp(&wanted),
            CompareTarget::Value(wanted) => fields.value.cmp(wanted),
            CompareTarget::Lease(wanted) => fields.lease.cmp(&wanted),
        };
        match self.result {
            CompareResult::Equal => order.is_eq(),
            CompareResult::Greater => order.is_gt(),
            CompareResult::Less => order.is_lt(),
            CompareResult::NotEqual => order.is_ne(),
        }
    }
}
