//! A checkpoint that is there: its manifest, and its parts, mapped.

use std::path::Path;
use std::sync::Arc;

use crate::platform::disk::{Disk, Map};
use crate::store::checkpoint::manifest::{Manifest, PartEntry};
use crate::store::checkpoint::{Checkpoint, CheckpointError, part_path};
use crate::store::keys_v3::KeysV3;
use crate::store::mvcc::{PartError, Saved, SavedPart};

/// How many bytes of a checkpoint that is sent say how long its manifest is.
const LENGTH_BYTES: usize = 8;

/// A checkpoint that is on disk, or was received.
#[derive(Debug, Clone)]
pub struct Stored {
    pub(super) manifest: Arc<[u8]>,
    pub(super) saved: Saved,
}

impl Stored {
    /// Maps the parts that a manifest names.
    pub(super) fn open(
        disk: &dyn Disk,
        folder: &Path,
        path: &Path,
        bytes: Vec<u8>,
    ) -> Result<Self, CheckpointError> {
        let manifest = Manifest::decode(&bytes, path)?;
        let map = |entry: &PartEntry| {
            let part = part_path(folder, entry.number);
            let failed = |source| CheckpointError::Disk {
                what: "read a part of",
                path: part.clone(),
                source,
            };
            named(entry, disk.map(&part).map_err(failed)?, path)
        };
        let parts = manifest.parts.iter().map(map).collect::<Result<_, _>>()?;
        let saved = Saved { parts, revision: manifest.keys.revision };
        Ok(Self { manifest: bytes.into(), saved })
    }

    /// Returns the parts and what they have.
    pub fn saved(&self) -> &Saved {
        &self.saved
    }

    /// Makes the machine of it; `path` is for the message.
    pub fn load(&self, path: &Path) -> Result<Checkpoint, CheckpointError> {
        let Manifest { position, mut machine, alarms, keys, .. } =
            Manifest::decode(&self.manifest, path)?;
        let loaded = KeysV3::load(alarms, &keys, self.saved.parts.clone());
        let wrong = |source| CheckpointError::Parts { path: path.to_owned(), source };
        machine.keys_v3 = loaded.map_err(wrong)?;
        Ok(Checkpoint { position, machine })
    }

    /// Returns it in one piece, to be sent.
    pub fn to_bytes(&self) -> Vec<u8> {
        let files = self.saved.parts.iter().map(|part| part.file());
        let all = files.clone().map(<[u8]>::len).sum::<usize>();
        let mut out = Vec::with_capacity(LENGTH_BYTES + self.manifest.len() + all);
        out.extend_from_slice(&(self.manifest.len() as u64).to_le_bytes());
        out.extend_from_slice(&self.manifest);
        files.for_each(|file| out.extend_from_slice(file));
        out
    }

    /// Takes what [`Stored::to_bytes`] made; `path` is for the message.
    pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<Self, CheckpointError> {
        let corrupt = || CheckpointError::Corrupt { path: path.to_owned() };
        let (length, rest) = bytes.split_first_chunk::<LENGTH_BYTES>().ok_or_else(corrupt)?;
        let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| corrupt())?;
        let (manifest, mut rest) = rest.split_at_checked(length).ok_or_else(corrupt)?;
        let named_parts = Manifest::decode(manifest, path)?;
        let mut parts = Vec::new();
        for entry in &named_parts.parts {
            let length = usize::try_from(entry.length).map_err(|_| corrupt())?;
            let (file, after) = rest.split_at_checked(length).ok_or_else(corrupt)?;
            rest = after;
            parts.push(named(entry, Map::copied(file.to_vec()), path)?);
        }
        if !rest.is_empty() {
            return Err(corrupt());
        }
        let saved = Saved { parts, revision: named_parts.keys.revision };
        Ok(Self { manifest: manifest.into(), saved })
    }
}

/// Takes a part, which has to be the one that is named.
fn named(entry: &PartEntry, map: Map, path: &Path) -> Result<Arc<SavedPart>, CheckpointError> {
    let wrong = |source| CheckpointError::Parts { path: path.to_owned(), source };
    let length = map.len() as u64;
    let part = SavedPart::open(entry.number, map).map_err(wrong)?;
    if (length, part.count() as u64, part.checksum()) != (entry.length, entry.count, entry.checksum)
    {
        let what = "it is not the one that the manifest names";
        return Err(wrong(PartError::Damaged { number: entry.number, what }));
    }
    Ok(Arc::new(part))
}
