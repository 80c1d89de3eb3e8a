//! Making the bytes of a part.

use crate::store::mvcc::saved::Sizes;
use crate::store::mvcc::saved::part::{
    BLOCK_HEADER_BYTES, FORMAT, HEADER_BYTES, MAGIC, RECORD_HEADER_BYTES, TAIL_BYTES,
};
use crate::store::mvcc::version::Version;

/// How many bytes of a key are compared without looking at the key.
const KEY_HEAD_BYTES: usize = 8;

/// A part in the making.
#[derive(Debug)]
pub(super) struct Writer {
    sizes: Sizes,
    /// What is written of the file, in bytes.
    written: usize,
    block: Vec<u8>,
    versions: Vec<Version>,
    places: Vec<u32>,
    bytes: u64,
    /// The checksum over the checksums of the blocks.
    blocks: u32,
}

impl Writer {
    pub(super) fn new(sizes: Sizes) -> Self {
        let (block, versions, places) = (Vec::new(), Vec::new(), Vec::new());
        Self { sizes, written: 0, block, versions, places, bytes: 0, blocks: 0 }
    }

    /// Adds the next version, in the order of revisions.
    pub(super) fn push(&mut self, version: Version) {
        if self.block.is_empty() {
            self.block.resize(BLOCK_HEADER_BYTES, 0);
        }
        let begun = if self.written == 0 { HEADER_BYTES } else { self.written };
        self.places.push(number(begun + self.block.len()));
        let encoded = version.encoded();
        self.block.reserve(RECORD_HEADER_BYTES + encoded.len());
        self.block.extend_from_slice(&number(encoded.len()).to_le_bytes());
        self.block.extend_from_slice(&version.sub().to_le_bytes());
        self.block.extend_from_slice(encoded);
        self.bytes += version.bytes();
        self.versions.push(version);
    }

    pub(super) fn block_is_full(&self) -> bool {
        self.block.len() >= self.sizes.block_bytes
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes >= self.sizes.part_bytes || self.versions.len() >= self.sizes.part_versions
    }

    pub(super) fn is_empty(&self) -> bool {
        self.versions.is_empty()
    }

    /// Ends a block and returns the next bytes of the file; none if there is no block.
    pub(super) fn end_block(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        if self.block.is_empty() {
            return out;
        }
        let mut block = std::mem::take(&mut self.block);
        let body = &block[BLOCK_HEADER_BYTES..];
        let (length, crc) = (number(body.len()), crc32c::crc32c(body));
        self.blocks = crc32c::crc32c_append(self.blocks, &crc.to_le_bytes());
        block[..4].copy_from_slice(&length.to_le_bytes());
        block[4..BLOCK_HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
        if self.written == 0 {
            out.extend_from_slice(MAGIC);
            out.extend_from_slice(&FORMAT.to_le_bytes());
            out.resize(HEADER_BYTES, 0);
            out.extend_from_slice(&block);
        } else {
            out = block;
        }
        self.written += out.len();
        out
    }

    /// Returns the last bytes of the file, behind all blocks. `compact_revision` is the compaction whose
    /// leavings are not in it.
    pub(super) fn end(self, compact_revision: i64) -> Vec<u8> {
        let count = self.versions.len();
        let mut out = Vec::with_capacity(count * 2 * size_of::<u32>() + TAIL_BYTES);
        let order = in_order_of_keys(&self.versions);
        for place in self.places.into_iter().chain(order) {
            out.extend_from_slice(&place.to_le_bytes());
        }
        out.extend_from_slice(&(count as u64).to_le_bytes());
        out.extend_from_slice(&self.bytes.to_le_bytes());
        out.extend_from_slice(&(self.written as u64).to_le_bytes());
        out.extend_from_slice(&compact_revision.to_le_bytes());
        let last = self.versions.last().map_or(0, Version::main);
        out.extend_from_slice(&last.to_le_bytes());
        out.extend_from_slice(&self.blocks.to_le_bytes());
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }
}

/// A part is full long before 4 GiB, and a version is smaller than a request.
fn number(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a part is smaller than 4 GiB")
}

/// Returns the ordinals of versions in the order of keys, then of revisions.
fn in_order_of_keys(versions: &[Version]) -> impl Iterator<Item = u32> {
    let key = |at: u32| versions[at as usize].key();
    // What all keys begin with says nothing; most are told apart by what comes after it.
    let first = versions.first().map_or(&b""[..], Version::key);
    let common = versions.iter().fold(first.len(), |common, version| {
        let same = first.iter().zip(version.key()).take_while(|(one, other)| one == other);
        same.take(common).count()
    });
    let head = |version: &Version| {
        let mut head = [0; KEY_HEAD_BYTES];
        let rest = &version.key()[common..];
        let known = rest.len().min(KEY_HEAD_BYTES);
        head[..known].copy_from_slice(&rest[..known]);
        u64::from_be_bytes(head)
    };
    let mut order: Vec<(u64, u32)> = versions.iter().map(head).zip(0..).collect();
    order.sort_unstable_by(|(head, at), (other_head, other)| {
        let whole = || key(*at).cmp(key(*other)).then(at.cmp(other));
        head.cmp(other_head).then_with(whole)
    });
    order.into_iter().map(|(_, at)| at)
}
