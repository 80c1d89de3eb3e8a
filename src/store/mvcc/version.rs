//! One version of a key: an etcd `KeyValue`, encoded once when it is written.
//!
//! ```text
//! one allocation:  sub u32 │ 0a key │ 10 create │ 18 mod │ 20 version │ 2a value │ 30 lease
//! a tombstone:     sub u32 │ 0a key │ 18 mod
//! ```
//! After `sub` it is protobuf, field by field in their order and without those that are zero, as
//! every etcd writes it. Answers and events copy it; nothing is encoded twice.
//!
//! A version that a checkpoint has is not in memory of ours any more: it is a place in a part that is
//! mapped ([`crate::store::mvcc::saved`]), and says the same.

use std::sync::Arc;

use triomphe::ThinArc;

use crate::store::mvcc::revision::Revision;
use crate::store::mvcc::saved::SavedPart;
use crate::store::mvcc::wire;

const SUB_BYTES: usize = 4;

const KEY: u8 = 0x0a;
const CREATE_REVISION: u8 = 0x10;
const MOD_REVISION: u8 = 0x18;
const VERSION: u8 = 0x20;
const VALUE: u8 = 0x2a;
const LEASE: u8 = 0x30;

/// What a `KeyValue` says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeyValue<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The revision of the put that created the key; 0 for a tombstone.
    pub create_revision: i64,
    /// The revision of this write.
    pub mod_revision: i64,
    /// How many puts there were since the creation; 0 for a tombstone.
    pub version: i64,
    /// The value.
    pub value: &'a [u8],
    /// The lease the key is attached to; 0 for none.
    pub lease: i64,
}

/// A version of a key, shared by everything that refers to it.
#[derive(Debug, Clone)]
pub struct Version(Held);

/// Where the bytes are. There are two for each version, of its key and of its event: so it is small.
#[derive(Debug, Clone)]
enum Held {
    Memory(ThinArc<(), u8>),
    /// The place of a record in a part.
    Saved(Arc<SavedPart>, u32),
}

/// Equal are those that say the same, wherever they are.
impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.sub() == other.sub() && self.encoded() == other.encoded()
    }
}

impl Eq for Version {}

impl Version {
    /// Encodes a version; `scratch` is emptied and used.
    pub(crate) fn new(fields: &KeyValue<'_>, sub: u32, scratch: &mut Vec<u8>) -> Self {
        scratch.clear();
        scratch.extend_from_slice(&sub.to_le_bytes());
        encode(fields, scratch);
        Self(Held::Memory(ThinArc::from_header_and_slice((), scratch)))
    }

    /// Takes back what [`Version::encoded`] gave; `None` if it is not exactly what would be
    /// written.
    pub(crate) fn from_encoded(encoded: &[u8], sub: u32, scratch: &mut Vec<u8>) -> Option<Self> {
        let fields = decode(encoded).filter(is_whole)?;
        let version = Self::new(&fields, sub, scratch);
        (version.encoded() == encoded).then_some(version)
    }

    /// Takes the record at a place in a part, which has been checked.
    pub(crate) fn saved(part: &Arc<SavedPart>, place: u32) -> Self {
        Self(Held::Saved(Arc::clone(part), place))
    }

    /// Returns the part that it is in.
    pub(crate) fn part(&self) -> Option<&Arc<SavedPart>> {
        match &self.0 {
            Held::Memory(_) => None,
            Held::Saved(part, _) => Some(part),
        }
    }

    /// Returns which change of its revision it was.
    pub(crate) fn sub(&self) -> u32 {
        match &self.0 {
            Held::Memory(bytes) => {
                bytes.slice.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
            }
            Held::Saved(part, place) => part.record(*place).0,
        }
    }

    /// Returns the protobuf `KeyValue`; of a tombstone the key and the revision.
    pub fn encoded(&self) -> &[u8] {
        match &self.0 {
            Held::Memory(bytes) => &bytes.slice[SUB_BYTES..],
            Held::Saved(part, place) => part.record(*place).1,
        }
    }

    /// Returns the key.
    pub fn key(&self) -> &[u8] {
        self.key_and_rest().0
    }

    /// Tells whether this write deleted the key.
    pub fn is_tombstone(&self) -> bool {
        self.key_and_rest().1.first() == Some(&MOD_REVISION)
    }

    /// Returns the revision of this write.
    pub fn main(&self) -> i64 {
        let mut rest = self.key_and_rest().1;
        if rest.first() == Some(&CREATE_REVISION) {
            rest = &rest[1..];
            wire::take_varint(&mut rest);
        }
        rest = &rest[1..];
        wire::take_varint(&mut rest).map_or(0, u64::cast_signed)
    }

    /// Returns the revision of this write with its ordinal.
    pub fn revision(&self) -> Revision {
        Revision { main: self.main(), sub: self.sub() }
    }

    /// Returns all that the version says.
    ///
    /// # Panics
    /// Never: a version is made only from what decodes.
    pub fn fields(&self) -> KeyValue<'_> {
        decode(self.encoded()).expect("a version holds what was encoded")
    }

    /// Returns how many bytes it counts for, wherever it is.
    pub fn bytes(&self) -> u64 {
        bytes_of(self.encoded())
    }

    /// Returns the protobuf of key and value without the key's neighbours: what etcd's hash has
    /// of a tombstone.
    pub(crate) fn encoded_key(&self) -> &[u8] {
        let encoded = self.encoded();
        &encoded[..encoded.len() - self.key_and_rest().1.len()]
    }

    /// Returns the `KeyValue` without its value, in two parts to be written one after the other.
    pub fn encoded_without_value(&self) -> (&[u8], &[u8]) {
        let encoded = self.encoded();
        let value = self.fields().value;
        if value.is_empty() {
            return (encoded, &[]);
        }
        let field = 1 + wire::varint_bytes(value.len() as u64) + value.len();
        let lease = self.fields().lease;
        let tail = if lease == 0 { 0 } else { 1 + wire::varint_bytes(lease.cast_unsigned()) };
        let end = encoded.len() - tail;
        (&encoded[..end - field], &encoded[end..])
    }

    fn key_and_rest(&self) -> (&[u8], &[u8]) {
        key_and_rest(self.encoded())
    }
}

/// Returns the key of an encoded version.
pub(crate) fn key_of(encoded: &[u8]) -> &[u8] {
    key_and_rest(encoded).0
}

fn key_and_rest(encoded: &[u8]) -> (&[u8], &[u8]) {
    let mut rest = &encoded[1..];
    let len = wire::take_varint(&mut rest).unwrap_or(0);
    rest.split_at(usize::try_from(len).unwrap_or(0))
}

/// Returns how many bytes a version counts for.
pub(crate) fn bytes_of(encoded: &[u8]) -> u64 {
    (SUB_BYTES + encoded.len()) as u64
}

/// Reads what a version says, and tells whether it can be one.
pub(crate) fn checked(encoded: &[u8]) -> Option<KeyValue<'_>> {
    decode(encoded).filter(|fields| encoded.first() == Some(&KEY) && is_whole(fields))
}

/// Tells whether it is a put or a tombstone.
fn is_whole(fields: &KeyValue<'_>) -> bool {
    let tombstone =
        KeyValue { key: fields.key, mod_revision: fields.mod_revision, ..KeyValue::default() };
    let put = fields.create_revision > 0 && fields.version > 0;
    fields.mod_revision > 0 && (put || *fields == tombstone)
}

fn encode(fields: &KeyValue<'_>, out: &mut Vec<u8>) {
    out.reserve(fields.key.len() + fields.value.len() + 48);
    out.push(KEY);
    wire::put_varint(out, fields.key.len() as u64);
    out.extend_from_slice(fields.key);
    for (tag, number) in [
        (CREATE_REVISION, fields.create_revision),
        (MOD_REVISION, fields.mod_revision),
        (VERSION, fields.version),
    ] {
        put_number(out, tag, number);
    }
    if !fields.value.is_empty() {
        out.push(VALUE);
        wire::put_varint(out, fields.value.len() as u64);
        out.extend_from_slice(fields.value);
    }
    put_number(out, LEASE, fields.lease);
}

fn put_number(out: &mut Vec<u8>, tag: u8, number: i64) {
    if number != 0 {
        out.push(tag);
        wire::put_varint(out, number.cast_unsigned());
    }
}

fn decode(mut rest: &[u8]) -> Option<KeyValue<'_>> {
    let mut fields = KeyValue::default();
    let mut before = 0;
    while let Some((&tag, after)) = rest.split_first() {
        // In their order: so each is there once, and the key is the first.
        if tag <= before {
            return None;
        }
        before = tag;
        rest = after;
        let number = wire::take_varint(&mut rest)?;
        match tag {
            KEY | VALUE => {
                let (bytes, after) = rest.split_at_checked(usize::try_from(number).ok()?)?;
                rest = after;
                if tag == KEY {
                    fields.key = bytes;
                } else {
                    fields.value = bytes;
                }
            }
            CREATE_REVISION => fields.create_revision = number.cast_signed(),
            MOD_REVISION => fields.mod_revision = number.cast_signed(),
            VERSION => fields.version = number.cast_signed(),
            LEASE => fields.lease = number.cast_signed(),
            _ => return None,
        }
    }
    Some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_version_is_the_bytes_that_etcd_writes() {
        let fields = KeyValue {
            key: b"k",
            create_revision: 2,
            mod_revision: 300,
            version: 4,
            value: b"vv",
            lease: 7,
        };
        let version = Version::new(&fields, 5, &mut Vec::new());
        assert_eq!(
            version.encoded(),
            [0x0a, 1, b'k', 0x10, 2, 0x18, 0xac, 2, 0x20, 4, 0x2a, 2, b'v', b'v', 0x30, 7]
        );
        assert_eq!(version.revision(), Revision { main: 300, sub: 5 });
        let (head, tail) = version.encoded_without_value();
        assert_eq!(
            [head, tail].concat(),
            [0x0a, 1, b'k', 0x10, 2, 0x18, 0xac, 2, 0x20, 4, 0x30, 7]
        );
    }

    #[test]
    fn what_a_key_and_an_event_have_of_a_version_takes_little() {
        assert_eq!(size_of::<Version>(), 16);
    }

    #[test]
    fn a_tombstone_has_a_key_and_a_revision_only() {
        let fields = KeyValue { key: b"k", mod_revision: 9, ..KeyValue::default() };
        let version = Version::new(&fields, 0, &mut Vec::new());
        assert!(version.is_tombstone());
        assert_eq!(version.encoded(), [0x0a, 1, b'k', 0x18, 9]);
        assert_eq!(version.encoded_key(), [0x0a, 1, b'k']);
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(
            key in proptest::collection::vec(any::<u8>(), 1..300),
            value in proptest::collection::vec(any::<u8>(), 0..300),
            (create, main, version) in (1..i64::MAX, 1..i64::MAX, 1..i64::MAX),
            lease in any::<i64>(),
            sub in any::<u32>(),
        ) {
            let fields = KeyValue {
                key: &key, create_revision: create, mod_revision: main, version, value: &value, lease,
            };
            let made = Version::new(&fields, sub, &mut Vec::new());
            prop_assert_eq!(made.fields(), fields);
            prop_assert_eq!(made.key(), &key[..]);
            prop_assert_eq!(made.revision(), Revision { main, sub });
            prop_assert!(!made.is_tombstone());
            let read = Version::from_encoded(made.encoded(), sub, &mut Vec::new());
            prop_assert_eq!(read.as_ref(), Some(&made));
            let (head, tail) = made.encoded_without_value();
            let bare = KeyValue { value: b"", ..fields };
            let bare_version = Version::new(&bare, sub, &mut Vec::new());
            let joined = [head, tail].concat();
            prop_assert_eq!(&joined[..], bare_version.encoded());
        }

        #[test]
        fn other_bytes_are_refused_or_are_the_same_bytes(
            bytes in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            if let Some(version) = Version::from_encoded(&bytes, 0, &mut Vec::new()) {
                prop_assert_eq!(version.encoded(), &bytes[..]);
            }
        }
    }
}
