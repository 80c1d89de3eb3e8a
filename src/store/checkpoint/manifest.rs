//! The manifest: a header with a checksum, and all but the versions of the v3 keys.
//!
//! ```text
//! "CBXCKPT\n" │ format u32 │ crc32c of the body u32 │ length of the body u64 │ body, which is postcard
//! ```

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::platform::disk::Disk;
use crate::store::checkpoint::{CheckpointError, old};
use crate::store::keys_v3::Alarms;
use crate::store::machine::Machine;
use crate::store::mvcc::saved::Head;
use crate::store::mvcc::{PartError, SavedPart};

/// The version of the format that this program writes.
pub const FORMAT: u32 = 4;

const MAGIC: &[u8; 8] = b"CBXCKPT\n";
pub(super) const HEADER_BYTES: usize = 24;

/// What is in a manifest.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) position: Vec<u8>,
    pub(super) machine: Machine,
    pub(super) alarms: Alarms,
    pub(super) keys: Head,
    /// In the order of revisions.
    pub(super) parts: Vec<PartEntry>,
}

/// A part that belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartEntry {
    /// Its number, by which the file is named.
    pub number: u64,
    /// The length of the file, in bytes.
    pub length: u64,
    /// How many versions it has.
    pub count: u64,
    /// The checksum at its end, which is over the checksums of all blocks too.
    pub checksum: u32,
}

impl PartEntry {
    /// Returns the entry of a part.
    pub fn of(part: &SavedPart) -> Self {
        let (number, checksum) = (part.number(), part.checksum());
        Self { number, length: part.file().len() as u64, count: part.count() as u64, checksum }
    }

    /// Tells whether two parts have the same bytes, whatever their numbers.
    pub fn is_same(&self, other: &Self) -> bool {
        Self { number: 0, ..*self } == Self { number: 0, ..*other }
    }

    /// Maps the part at a path, which has to be this one; `manifest` is for the message.
    pub(super) fn open(
        &self,
        disk: &dyn Disk,
        path: &Path,
        manifest: &Path,
    ) -> Result<Arc<SavedPart>, CheckpointError> {
        let failed = |source| CheckpointError::Disk {
            what: "read a part of",
            path: path.to_owned(),
            source,
        };
        let wrong = |source| CheckpointError::Parts { path: manifest.to_owned(), source };
        let map = disk.map(path).map_err(failed)?;
        let part = SavedPart::open(self.number, map).map_err(wrong)?;
        if Self::of(&part) != *self {
            let what = "it is not the one that the manifest names";
            return Err(wrong(PartError::Damaged { number: self.number, what }));
        }
        Ok(Arc::new(part))
    }
}

impl Manifest {
    /// Encodes it with its header.
    pub(super) fn encode(&self) -> Vec<u8> {
        framed(FORMAT, &postcard::to_stdvec(self).expect("plain data always encodes"))
    }

    /// Decodes it; `path` is for the message.
    pub(super) fn decode(bytes: &[u8], path: &Path) -> Result<Self, CheckpointError> {
        let corrupt = || CheckpointError::Corrupt { path: path.to_owned() };
        let (found, body) = unframed(bytes, path)?;
        if found != FORMAT {
            return Err(CheckpointError::Format { path: path.to_owned(), found });
        }
        let (manifest, rest) = postcard::take_from_bytes(body).map_err(|_| corrupt())?;
        if rest.is_empty() { Ok(manifest) } else { Err(corrupt()) }
    }
}

/// Puts the header before a body.
pub(super) fn framed(format: u32, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES + body.len());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&format.to_le_bytes());
    out.extend_from_slice(&crc32c::crc32c(body).to_le_bytes());
    out.extend_from_slice(&(body.len() as u64).to_le_bytes());
    out.extend_from_slice(body);
    out
}

/// Checks the header, and returns the format and the body.
pub(super) fn unframed<'a>(
    bytes: &'a [u8],
    path: &Path,
) -> Result<(u32, &'a [u8]), CheckpointError> {
    let corrupt = || CheckpointError::Corrupt { path: path.to_owned() };
    let (header, body) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or_else(corrupt)?;
    let number = |at: usize| header[at..].first_chunk().map_or(0, |of| u32::from_le_bytes(*of));
    let length = header.last_chunk().map_or(0, |length| u64::from_le_bytes(*length));
    if !header.starts_with(MAGIC) {
        return Err(corrupt());
    }
    let found = number(8);
    if !(old::FORMAT_WITHOUT_ALARMS..=FORMAT).contains(&found) {
        return Err(CheckpointError::Format { path: path.to_owned(), found });
    }
    if body.len() as u64 != length || crc32c::crc32c(body) != number(12) {
        return Err(corrupt());
    }
    Ok((found, body))
}
