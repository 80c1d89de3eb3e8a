//! Reading keys: at any revision, sorted, filtered, limited, counted.

use std::cmp::Reverse;

use crate::store::mvcc::error::MvccError;
use crate::store::mvcc::key_range::KeyRange;
use crate::store::mvcc::version::Version;
use crate::store::mvcc::view::View;
use crate::store::mvcc::wire;

/// In which order a range is answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SortOrder {
    /// By key, or upwards if the target is another.
    #[default]
    None,
    /// Upwards.
    Ascend,
    /// Downwards.
    Descend,
}

/// By what a range is sorted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SortTarget {
    /// The key.
    #[default]
    Key,
    /// The number of puts since its creation.
    Version,
    /// The revision of its creation.
    Create,
    /// The revision of its last put.
    Mod,
    /// The value.
    Value,
}

/// What is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range<'a> {
    /// The keys.
    pub range: KeyRange<&'a [u8]>,
    /// The revision; the newest if it is not above 0.
    pub revision: i64,
    /// Most keys to answer with; 0 for all.
    pub limit: usize,
    /// In which order.
    pub order: SortOrder,
    /// Sorted by what.
    pub target: SortTarget,
    /// Whether the values are not wanted.
    pub keys_only: bool,
    /// Whether only the count is wanted.
    pub count_only: bool,
    /// Only keys last put at this revision or later; 0 for any.
    pub min_mod_revision: i64,
    /// Only keys last put at this revision or before; 0 for any.
    pub max_mod_revision: i64,
    /// Only keys created at this revision or later; 0 for any.
    pub min_create_revision: i64,
    /// Only keys created at this revision or before; 0 for any.
    pub max_create_revision: i64,
}

impl<'a> Range<'a> {
    /// Asks for all that is newest in a range.
    pub fn of(range: KeyRange<&'a [u8]>) -> Self {
        Self {
            range,
            revision: 0,
            limit: 0,
            order: SortOrder::default(),
            target: SortTarget::default(),
            keys_only: false,
            count_only: false,
            min_mod_revision: 0,
            max_mod_revision: 0,
            min_create_revision: 0,
            max_create_revision: 0,
        }
    }

    /// Checks what can be checked without a store.
    pub fn check(&self) -> Result<(), MvccError> {
        if self.range.start().is_empty() { Err(MvccError::KeyNotProvided) } else { Ok(()) }
    }

    pub(super) fn is_filtered(&self) -> bool {
        self.min_mod_revision != 0
            || self.max_mod_revision != 0
            || self.min_create_revision != 0
            || self.max_create_revision != 0
    }

    pub(super) fn is_in_order_of_keys(&self) -> bool {
        self.target == SortTarget::Key && self.order != SortOrder::Descend
    }

    fn lets_through(&self, version: &Version) -> bool {
        let within =
            |revision, min, max| (min == 0 || revision >= min) && (max == 0 || revision <= max);
        let fields = version.fields();
        within(fields.mod_revision, self.min_mod_revision, self.max_mod_revision)
            && within(fields.create_revision, self.min_create_revision, self.max_create_revision)
    }
}

/// What was read. `V` is a [`Version`] or a reference to one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeResult<V> {
    /// The keys with their values.
    pub kvs: Vec<V>,
    /// How many keys there are in the range, whatever the limit and the filters.
    pub count: usize,
    /// Whether the limit has left some out.
    pub more: bool,
    /// Whether the values are not wanted.
    pub keys_only: bool,
}

impl RangeResult<&Version> {
    /// Keeps what was read beyond the view.
    pub fn into_owned(self) -> RangeResult<Version> {
        let kvs = self.kvs.into_iter().cloned().collect();
        RangeResult { kvs, count: self.count, more: self.more, keys_only: self.keys_only }
    }
}

/// Field 2 of a `RangeResponse`, with its wire type.
const KVS: u8 = 2 << 3 | 2;

impl<V: std::borrow::Borrow<Version>> RangeResult<V> {
    /// Returns how many bytes [`RangeResult::encode_kvs`] appends at most, but for the bytes of
    /// keys without their values, which are few.
    pub fn encoded_kvs_len(&self) -> usize {
        if self.keys_only {
            return 0;
        }
        self.kvs.iter().map(|version| field_bytes(version.borrow())).sum()
    }

    /// Appends the keys as a `RangeResponse` has them, ready for the fields after them.
    pub fn encode_kvs(&self, out: &mut Vec<u8>) {
        for version in &self.kvs {
            let version = version.borrow();
            if self.keys_only {
                let (head, tail) = version.encoded_without_value();
                wire::put_field(out, KVS, &[head, tail]);
            } else {
                put_kv(version, out);
            }
        }
    }
}

/// Appends a key with its value as a `RangeResponse` has it.
pub(super) fn put_kv(version: &Version, out: &mut Vec<u8>) {
    let encoded = version.encoded();
    out.push(KVS);
    wire::put_varint(out, encoded.len() as u64);
    out.extend_from_slice(encoded);
}

/// Returns how many bytes [`put_kv`] appends.
pub(super) fn field_bytes(version: &Version) -> usize {
    let length = version.encoded().len();
    1 + wire::varint_bytes(length as u64) + length
}

impl View {
    /// Reads a range.
    pub fn range<'v>(&'v self, query: &Range<'v>) -> Result<RangeResult<&'v Version>, MvccError> {
        let at = self.readable(query.revision)?;
        let Range { limit, keys_only, .. } = *query;
        if query.count_only {
            let count = self.count(query.range, at);
            return Ok(RangeResult { kvs: Vec::new(), count, more: false, keys_only });
        }
        let seen = self.seen(query.range, at);
        if query.is_in_order_of_keys() && !query.is_filtered() {
            // One more than is wanted tells whether there are more.
            let wanted = if limit == 0 { usize::MAX } else { limit.saturating_add(1) };
            let mut kvs: Vec<&Version> = seen.take(wanted).collect();
            let more = limit > 0 && kvs.len() > limit;
            let count = if more { self.count(query.range, at) } else { kvs.len() };
            if more {
                kvs.pop();
            }
            return Ok(RangeResult { kvs, count, more, keys_only });
        }
        let mut kvs: Vec<&Version> = seen.collect();
        let count = kvs.len();
        if query.is_filtered() {
            kvs.retain(|version| query.lets_through(version));
        }
        sort(&mut kvs, query.target, query.order);
        let more = limit > 0 && kvs.len() > limit;
        if more {
            kvs.truncate(limit);
        }
        Ok(RangeResult { kvs, count, more, keys_only })
    }
}

/// Sorts what is in the order of keys; equals stay in that order.
fn sort(kvs: &mut [&Version], target: SortTarget, order: SortOrder) {
    let number = |version: &&Version| {
        let fields = version.fields();
        match target {
            SortTarget::Version => fields.version,
            SortTarget::Create => fields.create_revision,
            SortTarget::Mod | SortTarget::Key | SortTarget::Value => fields.mod_revision,
        }
    };
    let down = order == SortOrder::Descend;
    match target {
        SortTarget::Key if down => kvs.reverse(),
        SortTarget::Key => {}
        SortTarget::Value if down => kvs.sort_by_key(|version| Reverse(version.fields().value)),
        SortTarget::Value => kvs.sort_by_key(|version| version.fields().value),
        SortTarget::Version | SortTarget::Create | SortTarget::Mod if down => {
            kvs.sort_by_cached_key(|version| Reverse(number(version)));
        }
        SortTarget::Version | SortTarget::Create | SortTarget::Mod => {
            kvs.sort_by_cached_key(number);
        }
    }
}
