//! The whole machine on disk, so that the log before it can go.
//!
//! ```text
//! checkpoint/<index>.ckpt    the manifest: all but the versions of the v3 keys, and the list of parts
//! checkpoint/<number>.part   versions of the v3 keys, mapped as long as something refers to them
//!
//! Checkpoint ── Saving ─▶ parts that are new, then the manifest; then what it does not name is removed
//!     ▲                                                                      │
//!     └───────────────────────────── open ◀── Stored ◀───────────────────────┘
//! ```
//! A file is written under another name, synced, renamed, and its name synced, before anything relies
//! on it. So at any moment there is a manifest whose parts are all there. The calls block.
//!
//! Files: `manifest` is its format, `saving` writes, `receiving` takes one from another member, `old` reads what earlier versions wrote in one
//! file. The format of parts is [`crate::store::mvcc::saved`]'s.

mod manifest;
mod old;
mod receiving;
mod saving;
mod stored;

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::platform::disk::{self, Disk};
pub use crate::store::checkpoint::manifest::{FORMAT, PartEntry};
pub use crate::store::checkpoint::receiving::Receiving;
pub use crate::store::checkpoint::saving::{Saving, Step};
pub use crate::store::checkpoint::stored::Stored;
use crate::store::machine::Machine;
use crate::store::mvcc::{PartError, RestoreError};

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
    /// Its parts cannot be used.
    #[error("the parts that the checkpoint `{}` names cannot be read", path.display())]
    Parts {
        /// The manifest.
        path: PathBuf,
        /// What is wrong with them.
        source: PartError,
    },
    /// The file was written by a program that knows another format.
    #[error(
        "`{}` has format version {found}, and this program reads only {} to {FORMAT}; start the version of corebox that wrote it",
        path.display(), old::FORMAT_WITHOUT_ALARMS
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

/// Returns where the checkpoint at a log index is.
pub fn path_of(folder: &Path, index: u64) -> PathBuf {
    folder.join(format!("{index:016x}.ckpt"))
}

/// Reads the newest checkpoint, if there is one. What was read stays: whoever saved it may have ended
/// before its name was safe, and the log may be shortened since. One of an earlier format is written
/// anew first.
pub fn open(
    disk: &dyn Disk,
    folder: &Path,
) -> Result<Option<(Checkpoint, Stored)>, CheckpointError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| CheckpointError::Disk { what: "read", path, source }
    };
    disk.create_folder(folder).map_err(failed(folder))?;
    disk.sync_folder(folder).map_err(failed(folder))?;
    let begun = ending_with(disk, folder, INCOMING).map_err(failed(folder))?;
    begun.iter().try_for_each(|part| disk.remove(part).map_err(failed(part)))?;
    let Some(path) = ending_with(disk, folder, MANIFEST).map_err(failed(folder))?.pop() else {
        return Ok(None);
    };
    let mut bytes = disk::read(disk, &path).map_err(failed(&path))?;
    let (format, body) = manifest::unframed(&bytes, &path)?;
    if format != FORMAT {
        let checkpoint = old::decode(format, body, &path)?;
        let mut saving = Saving::new(folder, path.clone(), checkpoint);
        while saving.step(disk, &[])? == Step::More {}
        bytes = disk::read(disk, &path).map_err(failed(&path))?;
    }
    let stored = Stored::open(disk, folder, &path, bytes)?;
    Ok(Some((stored.load(&path)?, stored)))
}

/// How the name of a manifest ends.
const MANIFEST: &str = "ckpt";
/// How the name of a part ends.
const PART: &str = "part";
/// How the name of a file ends that is being written.
const TEMPORARY: &str = "tmp";
/// How the name of a part ends that is being received.
const INCOMING: &str = "incoming";

fn part_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:016x}.{PART}"))
}

fn incoming_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:016x}.{INCOMING}"))
}

/// Returns a number that no part has, nor one that is being received.
fn free_number(disk: &dyn Disk, folder: &Path) -> io::Result<u64> {
    let of_file = |path: &PathBuf| u64::from_str_radix(path.file_stem()?.to_str()?, 16).ok();
    let mut files = ending_with(disk, folder, PART)?;
    files.extend(ending_with(disk, folder, INCOMING)?);
    Ok(files.iter().filter_map(of_file).max().unwrap_or(0) + 1)
}

/// Returns the files in the folder whose names end so, in their order.
fn ending_with(disk: &dyn Disk, folder: &Path, ending: &str) -> io::Result<Vec<PathBuf>> {
    let names = disk.list(folder)?.into_iter();
    Ok(names.filter(|path| path.extension().is_some_and(|found| found == ending)).collect())
}

#[cfg(test)]
mod tests;
