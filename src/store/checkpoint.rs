//! The whole machine on disk, in one file, so that the log before it can go.
//!
//! `checkpoint/<index>.ckpt`: `"CBXCKPT\n" │ format u32 │ crc u32 │ length u64 │ body`. A new one is
//! written under another name, synced, renamed, and its name synced; only then are older ones
//! removed. The calls block.
//!
//! **Not here yet:** increments, and reading without decoding all of it.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::platform::disk::{self, Disk};
use crate::store::keys_v3::KeysV3;
use crate::store::machine::Machine;
use crate::store::mvcc::RestoreError;

/// The version of the format that this program writes.
pub const FORMAT: u32 = 3;
/// The version before it, which is read too: there were no alarms.
const FORMAT_WITHOUT_ALARMS: u32 = 2;

const MAGIC: &[u8; 8] = b"CBXCKPT\n";
const HEADER_BYTES: usize = 24;

/// A checkpoint could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A file operation failed.
    #[error("cannot {what} the checkpoint `{}`", path.display())]
    Disk {
        /// What was tried.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The file is not whole.
    #[error(
        "the checkpoint `{}` is damaged; remove this member's data and add it to the cluster again, or restore a copy",
        path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
    },
    /// The v3 keys in it cannot be used.
    #[error(
        "the v3 keys in the checkpoint `{}` cannot be read; remove this member's data and add it to the cluster again, or restore a copy",
        path.display()
    )]
    Keys {
        /// The file.
        path: PathBuf,
        /// What is wrong with them.
        source: RestoreError,
    },
    /// The file was written by a program that knows another format.
    #[error(
        "`{}` has format version {found}, and this program reads only {FORMAT_WITHOUT_ALARMS} and {FORMAT}; start the version of corebox that wrote it",
        path.display()
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// The version it has.
        found: u32,
    },
}

/// A machine and where it stands in the log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// What the layer above needs to know of the log at this point, in its own encoding.
    pub position: Vec<u8>,
    /// The machine.
    pub machine: Machine,
}

impl Checkpoint {
    /// Encodes the checkpoint with its header and checksum.
    ///
    /// # Panics
    ///
    /// Never: plain data always encodes.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = postcard::to_stdvec(self).expect("plain data always encodes");
        self.machine.keys_v3.encode(&mut body);
        let mut out = Vec::with_capacity(HEADER_BYTES + body.len());
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
        out.extend_from_slice(&(body.len() as u64).to_le_bytes());
        out.extend_from_slice(&body);
        out
    }

    /// Decodes a checkpoint; `path` is for the message.
    pub fn decode(bytes: &[u8], path: &Path) -> Result<Self, CheckpointError> {
        let corrupt = || CheckpointError::Corrupt { path: path.to_owned() };
        let field = |at: usize, length: usize| bytes.get(at..at + length).ok_or_else(corrupt);
        if field(0, 8)? != MAGIC {
            return Err(corrupt());
        }
        let number = |at| -> Result<u32, CheckpointError> {
            Ok(u32::from_le_bytes(field(at, 4)?.try_into().map_err(|_| corrupt())?))
        };
        let found = number(8)?;
        if ![FORMAT_WITHOUT_ALARMS, FORMAT].contains(&found) {
            return Err(CheckpointError::Format { path: path.to_owned(), found });
        }
        let length = u64::from_le_bytes(field(16, 8)?.try_into().map_err(|_| corrupt())?);
        let length = usize::try_from(length).map_err(|_| corrupt())?;
        let body = bytes.get(HEADER_BYTES..).filter(|body| body.len() == length);
        let body = body.ok_or_else(corrupt)?;
        if crc32c::crc32c(body) != number(12)? {
            return Err(corrupt());
        }
        let (mut checkpoint, keys): (Self, _) =
            postcard::take_from_bytes(body).map_err(|_| corrupt())?;
        let wrong = |source| CheckpointError::Keys { path: path.to_owned(), source };
        let restored = match found {
            FORMAT_WITHOUT_ALARMS => KeysV3::restore_without_alarms(keys),
            _ => KeysV3::restore(keys),
        };
        checkpoint.machine.keys_v3 = restored.map_err(wrong)?;
        Ok(checkpoint)
    }
}

/// Writes a checkpoint's bytes beside the others; nothing is promised yet.
pub fn prepare(disk: &dyn Disk, folder: &Path, bytes: &[u8]) -> Result<PathBuf, CheckpointError> {
    let path = folder.join("next.tmp");
    let failed = |source| CheckpointError::Disk { what: "write", path: path.clone(), source };
    disk.create_folder(folder).map_err(failed)?;
    let file = disk.open(&path).map_err(failed)?;
    file.set_len(0).map_err(failed)?;
    file.write_at(0, bytes).map_err(failed)?;
    Ok(path)
}

/// Makes what [`prepare`] wrote the newest checkpoint, and removes older ones.
pub fn commit(disk: &dyn Disk, folder: &Path, index: u64) -> Result<(), CheckpointError> {
    let temporary = folder.join("next.tmp");
    let path = folder.join(format!("{index:016x}.ckpt"));
    let failed = |source| CheckpointError::Disk { what: "save", path: path.clone(), source };
    let work = || {
        disk.open(&temporary)?.sync()?;
        disk.rename(&temporary, &path)?;
        disk.sync_folder(folder)?;
        for old in saved(disk, folder)?.into_iter().filter(|old| *old < path) {
            disk.remove(&old)?;
        }
        Ok(())
    };
    work().map_err(failed)
}

/// Reads the newest checkpoint, if there is one, and tells which file it is. What was read stays:
/// whoever saved it may have ended before its name was safe, and the log may be shortened since.
pub fn newest(
    disk: &dyn Disk,
    folder: &Path,
) -> Result<Option<(PathBuf, Vec<u8>)>, CheckpointError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| CheckpointError::Disk { what: "read", path, source }
    };
    disk.create_folder(folder).map_err(failed(folder))?;
    disk.sync_folder(folder).map_err(failed(folder))?;
    let Some(path) = saved(disk, folder).map_err(failed(folder))?.pop() else { return Ok(None) };
    let bytes = disk::read(disk, &path).map_err(failed(&path))?;
    Ok(Some((path, bytes)))
}

/// Returns the checkpoints in the folder, oldest first.
fn saved(disk: &dyn Disk, folder: &Path) -> io::Result<Vec<PathBuf>> {
    let names = disk.list(folder)?.into_iter();
    Ok(names.filter(|path| path.extension().is_some_and(|ending| ending == "ckpt")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::foundation::random::Random;
    use crate::platform::disk::{DiskError, MemoryDisk};
    use crate::store::keys_v3::Change;
    use crate::store::{Batch, Command};

    fn checkpoint(position: u8) -> Checkpoint {
        Checkpoint { position: vec![position], machine: Machine::default() }
    }

    #[test]
    fn a_crash_at_any_moment_leaves_the_old_or_the_new_checkpoint_whole() {
        let folder = Path::new("/member/checkpoint");
        for seed in 0..200 {
            let disk = MemoryDisk::new(Random::seeded(seed), 0);
            prepare(&disk, folder, &checkpoint(1).encode()).unwrap();
            commit(&disk, folder, 1).unwrap();
            prepare(&disk, folder, &checkpoint(2).encode()).unwrap();
            let committed = seed % 2 == 0;
            if committed {
                commit(&disk, folder, 2).unwrap();
            }
            disk.crash();
            let (path, bytes) = newest(&disk, folder).unwrap().expect("there is always one");
            let found = Checkpoint::decode(&bytes, &path).unwrap();
            let index = if committed { 2 } else { 1 };
            assert_eq!(found, checkpoint(index), "seed {seed}");
            assert_eq!(path, folder.join(format!("{index:016x}.ckpt")), "seed {seed}");
        }
    }

    #[test]
    fn what_was_read_is_there_after_a_crash_however_saving_it_ended() {
        let folder = Path::new("/member/checkpoint");
        for (seed, operations) in (0..8).flat_map(|seed| (0..6).map(move |count| (seed, count))) {
            let disk = MemoryDisk::new(Random::seeded(seed), 0);
            prepare(&disk, folder, &checkpoint(1).encode()).unwrap();
            commit(&disk, folder, 1).unwrap();
            prepare(&disk, folder, &checkpoint(2).encode()).unwrap();
            disk.fail_after(operations, DiskError::Broken);
            let saved = commit(&disk, folder, 2).is_ok();
            disk.heal();
            let read = newest(&disk, folder).unwrap();
            disk.crash();
            let left = newest(&disk, folder).unwrap();
            assert_eq!(left, read, "seed {seed}, {operations} operations, saved: {saved}");
        }
    }

    #[test]
    fn all_keys_are_in_it() {
        let mut checkpoint = checkpoint(1);
        let grant = Command::V3(Change::LeaseGrant { id: 7, ttl: 10 });
        let publish = Command::Publish { member: 1, name: "a".into(), client_urls: Vec::new() };
        checkpoint.machine.apply(&Batch { commands: [publish, grant].into(), ..Batch::default() });
        let found = Checkpoint::decode(&checkpoint.encode(), Path::new("x.ckpt")).unwrap();
        assert_eq!(found, checkpoint);
        assert_eq!(found.machine.keys_v3.view().lease(7).map(|lease| lease.ttl), Some(10));
    }

    #[test]
    fn one_from_before_there_were_alarms_is_read() {
        let mut checkpoint = checkpoint(1);
        let grant = Command::V3(Change::LeaseGrant { id: 7, ttl: 10 });
        checkpoint.machine.apply(&Batch { commands: [grant].into(), ..Batch::default() });
        let mut bytes = checkpoint.encode();
        // No alarms are one zero before the chunks.
        let start = HEADER_BYTES + postcard::to_stdvec(&checkpoint).unwrap().len();
        assert_eq!(bytes.remove(start), 0);
        let body = &bytes[HEADER_BYTES..];
        let (crc, length) = (crc32c::crc32c(body), body.len() as u64);
        bytes[8..12].copy_from_slice(&FORMAT_WITHOUT_ALARMS.to_le_bytes());
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes[16..24].copy_from_slice(&length.to_le_bytes());
        assert_eq!(Checkpoint::decode(&bytes, Path::new("x.ckpt")).unwrap(), checkpoint);
    }

    #[test]
    fn a_flipped_bit_is_found() {
        let mut bytes = checkpoint(1).encode();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        let refused = Checkpoint::decode(&bytes, Path::new("x.ckpt")).unwrap_err();
        assert!(matches!(refused, CheckpointError::Corrupt { .. }));
        bytes[8] = 9;
        let refused = Checkpoint::decode(&bytes, Path::new("x.ckpt")).unwrap_err();
        assert!(matches!(refused, CheckpointError::Format { found: 9, .. }));
    }
}
