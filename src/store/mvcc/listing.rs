//! A range as its answer has it, encoded while it is sent: for a reader that is to know beforehand
//! how long it becomes, and holds one piece of it at a time.
//!
//! ```text
//!  new: how many keys, how many bytes      next_piece: 12 kv 12 kv … │ 12 kv 12 kv … │ 12 kv
//!  └─────────────── both read the same view, which does not change ────────────────┘
//! ```

use crate::store::mvcc::error::MvccError;
use crate::store::mvcc::range::{Range, field_bytes, put_kv};
use crate::store::mvcc::tree::Live;
use crate::store::mvcc::version::Version;
use crate::store::mvcc::view::{NEWEST, View};

/// A range that is being encoded.
#[derive(Debug)]
pub struct Listing {
    view: View,
    at: i64,
    /// The first key that may be next.
    from: Box<[u8]>,
    keys_left: usize,
    bytes_left: usize,
    count: usize,
    more: bool,
}

impl Range<'_> {
    /// Tells whether a [`Listing`] can be made of it: of keys in their order, with their values.
    pub fn is_listed(&self) -> bool {
        self.is_plain() && !self.keys_only && !self.count_only
    }
}

impl Listing {
    /// Begins to encode a range that is listed: counts its keys and bytes, of all that is newest in
    /// the time of two look-ups.
    pub fn new(view: View, query: &Range<'_>) -> Result<Self, MvccError> {
        let at = view.readable(query.revision)?;
        let from = query.range.start().into();
        if at == NEWEST && query.limit == 0 {
            let Live { count, bytes } = view.newest(query.range);
            return Ok(Self {
                view,
                at,
                from,
                keys_left: count,
                bytes_left: bytes,
                count,
                more: false,
            });
        }
        let keys_max = if query.limit == 0 { usize::MAX } else { query.limit };
        let mut seen = view.seen(query.range, at);
        let (mut keys, mut bytes) = (0, 0);
        for version in seen.by_ref().take(keys_max) {
            keys += 1;
            bytes += field_bytes(version);
        }
        // One more than is wanted tells whether there are more.
        let more = seen.next().is_some();
        drop(seen);
        let count = if more { view.count(query.range, at) } else { keys };
        Ok(Self { view, at, from, keys_left: keys, bytes_left: bytes, count, more })
    }

    /// Returns how many bytes are still to be encoded.
    pub fn bytes_left(&self) -> usize {
        self.bytes_left
    }

    /// Returns how many keys there are in the range, whatever the limit.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Tells whether the limit leaves some out.
    pub fn more(&self) -> bool {
        self.more
    }

    /// Appends what comes next, so that `out` has at most `bytes_max` bytes, but one key at least.
    /// Ready for the fields after it, once no bytes are left.
    pub fn next_piece(&mut self, bytes_max: usize, out: &mut Vec<u8>) {
        let Self { view, at, from, .. } = self;
        let mut last: Option<&Version> = None;
        // Every key from there on was in the range when they were counted, so none is looked at.
        let seen = view.keys.iter_from(from).filter_map(|record| record.live_at(*at));
        for version in seen.take(self.keys_left) {
            let bytes = field_bytes(version);
            if out.len() + bytes > bytes_max && last.is_some() {
                break;
            }
            put_kv(version, out);
            self.keys_left -= 1;
            self.bytes_left -= bytes;
            last = Some(version);
        }
        if let Some(last) = last {
            self.from = [last.key(), b"\0"].concat().into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::mvcc::key_range::KeyRange;
    use crate::store::mvcc::store::Store;
    use crate::store::mvcc::txn::{DeleteRange, Op, Put};
    use proptest::prelude::*;

    /// Twenty keys of growing values, of which every seventh is deleted again.
    fn store() -> Store {
        let mut store = Store::default();
        for number in 0..20_u8 {
            let value = vec![number; usize::from(number) * 9];
            let put = Put { key: &[b'k', number], value: &value, ..Put::default() };
            store.op(&Op::Put(put)).unwrap();
        }
        for number in [3, 10, 17] {
            let range = KeyRange::One(&[b'k', number][..]);
            store.op(&Op::DeleteRange(DeleteRange { range, prev_kv: false })).unwrap();
        }
        store
    }

    /// All that is encoded, and how long the pieces are.
    fn encoded(mut listing: Listing, bytes_max: usize) -> (Vec<u8>, Vec<usize>) {
        let (mut all, mut lengths) = (Vec::new(), Vec::new());
        while listing.bytes_left() > 0 {
            let (mut piece, left) = (Vec::new(), listing.bytes_left());
            listing.next_piece(bytes_max, &mut piece);
            assert_eq!(left, listing.bytes_left() + piece.len());
            lengths.push(piece.len());
            all.extend(piece);
        }
        (all, lengths)
    }

    proptest! {
        #[test]
        fn the_pieces_are_what_the_range_is_encoded_as(
            from in 0_u8..22,
            to in 0_u8..22,
            open in any::<bool>(),
            limit in 0_usize..25,
            revision in 0_i64..24,
            bytes_max in 0_usize..500,
        ) {
            let view = store().view();
            let (key, end) = ([b'k', from], [b'k', to]);
            let range = if open { KeyRange::From(&key[..]) } else { KeyRange::from_wire(&key, &end) };
            let query = Range { revision, limit, ..Range::of(range) };
            let whole = view.range(&query).unwrap();
            let mut expected = Vec::new();
            whole.encode_kvs(&mut expected);
            let listing = Listing::new(view.clone(), &query).unwrap();
            prop_assert_eq!((listing.count(), listing.more()), (whole.count, whole.more));
            prop_assert_eq!(listing.bytes_left(), expected.len());
            let (all, lengths) = encoded(listing, bytes_max);
            prop_assert_eq!(all, expected);
            let longest = whole.kvs.iter().map(|version| field_bytes(version)).max().unwrap_or(0);
            prop_assert!(lengths.iter().all(|length| (1..=bytes_max.max(longest)).contains(length)));
        }
    }

    #[test]
    fn what_is_written_or_compacted_meanwhile_is_not_seen() {
        let mut store = store();
        let query = Range { revision: 5, ..Range::of(KeyRange::ALL) };
        let mut listing = Listing::new(store.view(), &query).unwrap();
        let mut expected = Vec::new();
        store.view().range(&query).unwrap().encode_kvs(&mut expected);
        let mut all = Vec::new();
        listing.next_piece(1, &mut all);
        for key in [&b"k\x00a"[..], b"k\x01", b"k\x02"] {
            store.op(&Op::Put(Put { key, value: b"new", ..Put::default() })).unwrap();
        }
        store.compact(24).unwrap();
        while store.compact_step(100) {}
        listing.next_piece(usize::MAX, &mut all);
        assert_eq!((all, listing.bytes_left()), (expected, 0));
        assert!(Listing::new(store.view(), &query).is_err(), "it is compacted now");
    }

    #[test]
    fn only_keys_in_their_order_with_their_values_are_listed() {
        let plain = Range::of(KeyRange::ALL);
        assert!(plain.is_listed() && Range { limit: 3, revision: 9, ..plain }.is_listed());
        for other in [
            Range { keys_only: true, ..plain },
            Range { count_only: true, ..plain },
            Range { min_mod_revision: 2, ..plain },
            Range { order: crate::store::mvcc::SortOrder::Descend, ..plain },
        ] {
            assert!(!other.is_listed(), "{other:?}");
        }
    }
}
