//! A part: versions in the order of revisions, checked block by block, and their order of keys.
//!
//! ```text
//! "CBXPART\n" │ format u32 │ 0 u32
//! blocks      length u32 │ crc32c u32 │ records: length u32 │ ordinal u32 │ KeyValue
//! places      of each record, in bytes from the beginning: u32
//! order       which record comes next in the order of keys, then revisions: u32
//! tail        records u64 │ bytes they count for u64 │ where places begin u64 │
//!             compacted revision i64 │ last revision i64 │ crc32c of the blocks' checksums u32 │
//!             crc32c of places, order, tail u32
//! ```
//! Numbers are little-endian. Nothing in a file is believed before its checksum was right.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::platform::disk::Map;
use crate::store::mvcc::revision::Revision;
use crate::store::mvcc::version::{KeyValue, Version, bytes_of, checked, key_of};

/// The version of the format that is written, and the only one that is read.
pub const FORMAT: u32 = 1;

pub(super) const MAGIC: &[u8; 8] = b"CBXPART\n";
pub(super) const HEADER_BYTES: usize = 16;
pub(super) const BLOCK_HEADER_BYTES: usize = 8;
pub(super) const RECORD_HEADER_BYTES: usize = 8;
pub(super) const TAIL_BYTES: usize = 48;
pub(super) const PLACE_BYTES: usize = 4;

/// Parts that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PartError {
    /// One is not as it was written.
    #[error(
        "part {number:016x} is damaged: {what}; remove this member's data and add it to the cluster again, or restore a copy"
    )]
    Damaged {
        /// Its number.
        number: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// Another version of this program wrote one.
    #[error(
        "part {number:016x} has format version {found}, and this program reads only {FORMAT}; start the version of corebox that wrote it"
    )]
    Format {
        /// Its number.
        number: u64,
        /// The version it has.
        found: u32,
    },
    /// They do not belong together, or not to their manifest.
    #[error(
        "they do not make a store: {what}; remove this member's data and add it to the cluster again, or restore a copy"
    )]
    Content {
        /// What is wrong.
        what: &'static str,
    },
}

/// A part that is mapped.
#[derive(Debug)]
pub struct SavedPart {
    number: u64,
    map: Map,
    count: usize,
    bytes: u64,
    places: usize,
    compact_revision: i64,
    last: i64,
    /// The checksum over the checksums of its blocks.
    blocks: u32,
    checksum: u32,
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn length_of(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u64::from_le_bytes(array(bytes, at)?)).ok()
}

impl SavedPart {
    /// Takes the bytes of a part. Its end is checked, its blocks are not.
    pub fn open(number: u64, map: Map) -> Result<Self, PartError> {
        let damaged = |what| PartError::Damaged { number, what };
        if array(&map, 0).as_ref() != Some(MAGIC) {
            return Err(damaged("it does not begin as a part does"));
        }
        let found = array(&map, MAGIC.len()).map_or(0, u32::from_le_bytes);
        if found != FORMAT {
            return Err(PartError::Format { number, found });
        }
        let cut = || damaged("it is shorter than it was");
        let tail = map.len().checked_sub(TAIL_BYTES).filter(|tail| *tail >= HEADER_BYTES);
        let tail = tail.ok_or_else(cut)?;
        let count = length_of(&map, tail).ok_or_else(cut)?;
        let bytes = array(&map, tail + 8).map(u64::from_le_bytes).ok_or_else(cut)?;
        let places = length_of(&map, tail + 16).ok_or_else(cut)?;
        let compact_revision = array(&map, tail + 24).map(i64::from_le_bytes).ok_or_else(cut)?;
        let last = array(&map, tail + 32).map(i64::from_le_bytes).ok_or_else(cut)?;
        let blocks = array(&map, tail + 40).map(u32::from_le_bytes).ok_or_else(cut)?;
        let checksum = array(&map, tail + 44).map(u32::from_le_bytes).ok_or_else(cut)?;
        let tables = count.checked_mul(2 * PLACE_BYTES).and_then(|all| places.checked_add(all));
        if tables != Some(tail) || places < HEADER_BYTES {
            return Err(damaged("its end does not say where its tables are"));
        }
        if crc32c::crc32c(&map[places..tail + 44]) != checksum {
            return Err(damaged("its tables fail their checksum"));
        }
        Ok(Self { number, map, count, bytes, places, compact_revision, last, blocks, checksum })
    }

    /// Returns its number, by which its file is named.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Returns the whole file.
    pub fn file(&self) -> &[u8] {
        &self.map
    }

    /// Returns how many versions it has.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Returns how many bytes its versions count for.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the checksum of its end, and with it of all of it: its manifest has it too.
    pub fn checksum(&self) -> u32 {
        self.checksum
    }

    /// Returns the compaction whose leavings are not in it.
    pub(super) fn compact_revision(&self) -> i64 {
        self.compact_revision
    }

    /// Returns the revision of its last version.
    pub(crate) fn last(&self) -> i64 {
        self.last
    }

    /// Returns a record by its place: its ordinal within its revision, and its `KeyValue`.
    pub(crate) fn record(&self, place: u32) -> (u32, &[u8]) {
        let (head, rest) = self.map[place as usize..].split_at(RECORD_HEADER_BYTES);
        let length = head.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        let sub = head.last_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        (sub, &rest[..length as usize])
    }

    /// Returns the key of a record.
    pub(super) fn key(&self, place: u32) -> &[u8] {
        key_of(self.record(place).1)
    }

    /// Returns the place of a record in the order of revisions.
    pub(super) fn place(&self, at: usize) -> u32 {
        self.table(self.places + at * PLACE_BYTES)
    }

    /// Returns which record is at a place in the order of keys.
    pub(super) fn in_order_of_keys(&self, at: usize) -> usize {
        self.table(self.places + (self.count + at) * PLACE_BYTES) as usize
    }

    fn table(&self, at: usize) -> u32 {
        self.map[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }

    /// Returns a version in the order of revisions.
    pub(super) fn version(self: &Arc<Self>, at: usize) -> Version {
        Version::saved(self, self.place(at))
    }

    /// Returns where a revision is in the order of revisions.
    pub(super) fn find(self: &Arc<Self>, revision: Revision) -> Option<usize> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = usize::midpoint(low, high);
            match self.version(middle).revision().cmp(&revision) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return Some(middle),
                Ordering::Greater => high = middle,
            }
        }
        None
    }

    /// Checks all blocks, and hands out each version in the order of revisions: its place in the file
    /// and what it says.
    pub(super) fn check(
        &self,
        mut each: impl FnMut(usize, u32, u32, KeyValue<'_>),
    ) -> Result<(), PartError> {
        let damaged = |what| PartError::Damaged { number: self.number, what };
        let cut = || damaged("a block is cut off");
        let (mut at, mut place, mut bytes, mut last, mut blocks) = (0, HEADER_BYTES, 0, 0, 0);
        while place < self.places {
            let length = array(&self.map, place).map(u32::from_le_bytes).ok_or_else(cut)?;
            let crc = array(&self.map, place + 4).map(u32::from_le_bytes).ok_or_else(cut)?;
            place += BLOCK_HEADER_BYTES;
            let end = place.checked_add(length as usize).filter(|end| *end <= self.places);
            let end = end.ok_or_else(cut)?;
            if crc32c::crc32c(&self.map[place..end]) != crc {
                return Err(damaged("a block fails its checksum"));
            }
            blocks = crc32c::crc32c_append(blocks, &crc.to_le_bytes());
            while place < end {
                let length = array(&self.map, place).map(u32::from_le_bytes).ok_or_else(cut)?;
                let next = (place + RECORD_HEADER_BYTES).checked_add(length as usize);
                let next = next.filter(|next| *next <= end).ok_or_else(cut)?;
                if at >= self.count || self.place(at) as usize != place {
                    return Err(damaged("its table of places is wrong"));
                }
                let (sub, encoded) = self.record(self.place(at));
                let fields = checked(encoded).ok_or_else(|| damaged("a version is no KeyValue"))?;
                bytes += bytes_of(encoded);
                last = fields.mod_revision;
                each(at, self.place(at), sub, fields);
                at += 1;
                place = next;
            }
        }
        if (at, bytes, last, blocks) != (self.count, self.bytes, self.last, self.blocks) || at == 0
        {
            return Err(damaged("it does not have what its end says"));
        }
        if (0..self.count).any(|at| self.in_order_of_keys(at) >= self.count) {
            return Err(damaged("its order of keys is wrong"));
        }
        Ok(())
    }
}
