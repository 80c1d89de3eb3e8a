//! A view as a list of chunks, each of which can be checked by itself. [`super::Restore`] reads it.
//!
//! ```text
//! chunk     kind u8 │ length of the body u32 │ crc32c of kind, length and body u32 │ body
//!
//! 1 head    "CBXMVCC\n" │ format u32 │ revision i64 │ compacted revision i64
//! 2 leases  each: id i64 │ ttl i64 │ remaining i64                           ids going up
//! 3 keys    each: ordinal varint │ length varint │ KeyValue           keys, then revisions going up
//! 4 end     how many leases u64 │ how many versions u64
//! ```
//! Numbers are little-endian. One head, leases, keys, one end, in this order; a chunk is cut
//! anywhere between two elements. A version that a compaction has dropped is not written, whether
//! its memory is free yet or not: members at one revision write the same bytes.

use crate::store::mvcc::revision::Revision;
use crate::store::mvcc::version::Version;
use crate::store::mvcc::view::View;
use crate::store::mvcc::wire;

/// The version of the format that is written, and the only one that is read.
pub const FORMAT: u32 = 1;

pub(super) const MAGIC: &[u8; 8] = b"CBXMVCC\n";

/// How many bytes come before the body of a chunk.
pub const CHUNK_HEADER_BYTES: usize = 9;

/// When a chunk is full: enough that its header does not matter, little enough to be held.
const CHUNK_BYTES: usize = 64 << 10;

/// What a chunk holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Head = 1,
    Leases = 2,
    Keys = 3,
    End = 4,
}

impl Kind {
    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        [Self::Head, Self::Leases, Self::Keys, Self::End]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// The chunks of a view, made one by one: it may be walked beside the writer.
#[derive(Debug)]
pub struct Checkpoint {
    view: View,
    next: Next,
    leases: u64,
    versions: u64,
}

/// Where the next chunk begins.
#[derive(Debug)]
enum Next {
    Head,
    Leases { after: Option<i64> },
    Keys { after: Option<(Box<[u8]>, Revision)> },
    End,
    Nothing,
}

impl Checkpoint {
    /// Begins the checkpoint of a view.
    pub fn new(view: View) -> Self {
        Self { view, next: Next::Head, leases: 0, versions: 0 }
    }

    fn head(&self) -> Vec<u8> {
        let mut body = MAGIC.to_vec();
        body.extend_from_slice(&FORMAT.to_le_bytes());
        body.extend_from_slice(&self.view.revision.to_le_bytes());
        body.extend_from_slice(&self.view.compact_revision.to_le_bytes());
        body
    }

    /// Writes leases until a chunk is full and returns the last one written.
    fn leases(&mut self, after: Option<i64>, body: &mut Vec<u8>) -> Option<i64> {
        let mut last = None;
        for lease in self.view.leases.after(after) {
            for number in [lease.id, lease.ttl, lease.remaining] {
                body.extend_from_slice(&number.to_le_bytes());
            }
            self.leases += 1;
            last = Some(lease.id);
            if body.len() >= CHUNK_BYTES {
                break;
            }
        }
        last
    }

    /// Writes versions until a chunk is full and returns the last one written.
    fn keys(
        &mut self,
        after: Option<&(Box<[u8]>, Revision)>,
        body: &mut Vec<u8>,
    ) -> Option<(Box<[u8]>, Revision)> {
        let from = after.map_or(&b""[..], |(key, _)| key);
        let compacted = self.view.compact_revision;
        let mut last: Option<&Version> = None;
        'full: for record in self.view.keys.iter_from(from) {
            let dropped = record.dropped_by(compacted);
            for version in record.versions_from(dropped.versions) {
                let written = |(key, done): &(Box<[u8]>, Revision)| {
                    **key == *version.key() && version.revision() <= *done
                };
                if after.is_some_and(written) {
                    continue;
                }
                if body.len() >= CHUNK_BYTES {
                    break 'full;
                }
                wire::put_varint(body, u64::from(version.revision().sub));
                wire::put_varint(body, version.encoded().len() as u64);
                body.extend_from_slice(version.encoded());
                self.versions += 1;
                last = Some(version);
            }
        }
        last.map(|version| (version.key().into(), version.revision()))
    }
}

impl Iterator for Checkpoint {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let mut body = Vec::new();
            match std::mem::replace(&mut self.next, Next::Nothing) {
                Next::Head => {
                    self.next = Next::Leases { after: None };
                    return Some(chunk(Kind::Head, &self.head()));
                }
                Next::Leases { after } => {
                    let Some(last) = self.leases(after, &mut body) else {
                        self.next = Next::Keys { after: None };
                        continue;
                    };
                    self.next = Next::Leases { after: Some(last) };
                    return Some(chunk(Kind::Leases, &body));
                }
                Next::Keys { after } => {
                    let Some(last) = self.keys(after.as_ref(), &mut body) else {
                        self.next = Next::End;
                        continue;
                    };
                    self.next = Next::Keys { after: Some(last) };
                    return Some(chunk(Kind::Keys, &body));
                }
                Next::End => {
                    body.extend_from_slice(&self.leases.to_le_bytes());
                    body.extend_from_slice(&self.versions.to_le_bytes());
                    return Some(chunk(Kind::End, &body));
                }
                Next::Nothing => return None,
            }
        }
    }
}

fn chunk(kind: Kind, body: &[u8]) -> Vec<u8> {
    let mut chunk = Vec::with_capacity(CHUNK_HEADER_BYTES + body.len());
    chunk.push(kind as u8);
    let length = u32::try_from(body.len()).expect("a chunk is full long before 4 GiB");
    chunk.extend_from_slice(&length.to_le_bytes());
    let crc = checksum(&chunk, body);
    chunk.extend_from_slice(&crc.to_le_bytes());
    chunk.extend_from_slice(body);
    chunk
}

/// Returns the checksum over kind and length, and the body.
pub(super) fn checksum(kind_and_length: &[u8], body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(kind_and_length), body)
}
