//! A range piece by piece, all of one moment: for a reader that takes it as fast as it can, and holds
//! one piece of it at a time.

use crate::store::mvcc::error::MvccError;
use crate::store::mvcc::key_range::KeyRange;
use crate::store::mvcc::range::Range;
use crate::store::mvcc::version::Version;
use crate::store::mvcc::view::View;

/// A range that is being read.
#[derive(Debug)]
pub struct Parts {
    view: View,
    /// What is still to be read.
    rest: KeyRange<Box<[u8]>>,
    at: i64,
    /// How many keys may still be answered with.
    left: usize,
    count: usize,
    more: bool,
}

/// A piece of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The keys with their values, in their order.
    pub kvs: Vec<Version>,
    /// Whether it is the last one.
    pub is_last: bool,
}

impl Range<'_> {
    /// Tells whether it is answered in the order of keys, without looking at all of it first.
    pub fn is_plain(&self) -> bool {
        self.is_in_order_of_keys() && !self.is_filtered()
    }
}

impl Parts {
    /// Begins to read a range that is plain.
    pub fn new(view: View, query: &Range<'_>) -> Result<Self, MvccError> {
        let at = view.readable(query.revision)?;
        let count = view.count(query.range, at);
        let (left, more) = match query.limit {
            _ if query.count_only => (0, false),
            0 => (usize::MAX, false),
            limit => (limit, count > limit),
        };
        Ok(Self { rest: query.range.to_owned(), view, at, left, count, more })
    }

    /// Reads on, for about `bytes_max` or one key that is larger.
    pub fn next_part(&mut self, bytes_max: u64) -> Part {
        let mut part = Part { kvs: Vec::new(), is_last: true };
        let mut bytes = 0;
        for version in self.view.seen(self.rest.as_slices(), self.at) {
            part.is_last = part.kvs.len() >= self.left;
            if part.is_last || (bytes >= bytes_max && !part.kvs.is_empty()) {
                break;
            }
            bytes += version.bytes();
            part.kvs.push(version.clone());
            part.is_last = true;
        }
        self.left -= part.kvs.len();
        if let Some(last) = part.kvs.last() {
            let from: Box<[u8]> = [last.key(), b"\0"].concat().into();
            self.rest = match std::mem::replace(&mut self.rest, KeyRange::From(from.clone())) {
                KeyRange::Span { to, .. } => KeyRange::Span { from, to },
                KeyRange::One(key) => KeyRange::Span { from, to: key },
                KeyRange::From(_) => KeyRange::From(from),
            };
        }
        part
    }

    /// Returns how many keys there are in the range, whatever the limit.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Tells whether the limit leaves some out.
    pub fn more(&self) -> bool {
        self.more
    }

    /// Returns the revision of the store as it is read.
    pub fn revision(&self) -> i64 {
        self.view.revision()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::mvcc::store::Store;
    use crate::store::mvcc::txn::{Op, Put};
    use proptest::prelude::*;

    fn store() -> Store {
        let mut store = Store::default();
        for number in 0..20_u8 {
            let value = vec![number; usize::from(number)];
            let put = Put { key: &[b'k', number], value: &value, ..Put::default() };
            store.op(&Op::Put(put)).unwrap();
        }
        store
    }

    proptest! {
        #[test]
        fn the_pieces_are_the_whole(
            from in 0_u8..22,
            to in 0_u8..22,
            open in any::<bool>(),
            limit in 0_usize..25,
            revision in 0_i64..21,
            bytes_max in 0_u64..200,
        ) {
            let view = store().view();
            let (key, end) = ([b'k', from], [b'k', to]);
            let range = if open { KeyRange::From(&key[..]) } else { KeyRange::from_wire(&key, &end) };
            let query = Range { revision, limit, ..Range::of(range) };
            let whole = view.range(&query).unwrap();
            let mut parts = Parts::new(view.clone(), &query).unwrap();
            let mut kvs = Vec::new();
            loop {
                let part = parts.next_part(bytes_max);
                prop_assert!(part.is_last || !part.kvs.is_empty());
                kvs.extend(part.kvs);
                if part.is_last {
                    break;
                }
            }
            prop_assert_eq!(kvs.iter().collect::<Vec<_>>(), whole.kvs);
            prop_assert_eq!((parts.count(), parts.more()), (whole.count, whole.more));
        }
    }

    #[test]
    fn what_is_written_or_compacted_meanwhile_is_not_seen() {
        let mut store = store();
        let query = Range { revision: 5, ..Range::of(KeyRange::ALL) };
        let mut parts = Parts::new(store.view(), &query).unwrap();
        let first = parts.next_part(0);
        assert_eq!((first.kvs.len(), first.is_last), (1, false));
        store.op(&Op::Put(Put { key: b"k\x02", value: b"new", ..Put::default() })).unwrap();
        store.compact(20).unwrap();
        while store.compact_step(100) {}
        let rest = parts.next_part(u64::MAX);
        assert_eq!((rest.kvs.len(), rest.is_last, parts.count()), (3, true, 4));
        assert!(Parts::new(store.view(), &query).is_err(), "it is compacted now");
    }

    #[test]
    fn one_key_and_a_count_are_one_piece() {
        let view = store().view();
        let one = Range::of(KeyRange::One(b"k\x07"));
        let part = Parts::new(view.clone(), &one).unwrap().next_part(0);
        assert_eq!((part.kvs.len(), part.is_last), (1, true));
        let counted = Range { count_only: true, ..Range::of(KeyRange::ALL) };
        let mut parts = Parts::new(view, &counted).unwrap();
        assert_eq!(parts.next_part(u64::MAX), Part { kvs: Vec::new(), is_last: true });
        assert_eq!((parts.count(), parts.more()), (20, false));
    }
}
