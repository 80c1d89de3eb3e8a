//! A checkpoint that is there: its manifest, and its parts, mapped.

use std::path::Path;
use std::sync::Arc;

use crate::platform::disk::Disk;
use crate::store::checkpoint::manifest::Manifest;
use crate::store::checkpoint::{Checkpoint, CheckpointError, part_path};
use crate::store::keys_v3::KeysV3;
use crate::store::mvcc::Saved;

/// A checkpoint that is on disk, or whose parts were received.
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
        let entries = manifest.parts.iter();
        let parts = entries.map(|entry| entry.open(disk, &part_path(folder, entry.number), path));
        let saved =
            Saved { parts: parts.collect::<Result<_, _>>()?, revision: manifest.keys.revision };
        Ok(Self { manifest: bytes.into(), saved })
    }

    /// Returns the bytes of the manifest.
    pub fn manifest(&self) -> &[u8] {
        &self.manifest
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
}
