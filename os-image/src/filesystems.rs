//! The file systems that hold files: `/usr` (erofs), ROOT and OEM (ext4).

use std::path::Path;

use crate::files::{self, FileError};
use crate::layout::fixed_uuid;
use crate::tools::{self, ToolError};

/// A file system could not be made.
#[derive(Debug, thiserror::Error)]
pub enum FilesystemError {
    /// Its file.
    #[error("cannot make room for a file system")]
    File(#[from] FileError),
    /// The program that makes it.
    #[error("cannot make a file system")]
    Tool(#[from] ToolError),
}

/// Writes `folder` as a read-only file system: plain, since an update reuses plain blocks.
pub fn erofs(folder: &Path, out: &Path) -> Result<(), FilesystemError> {
    files::remove(out)?;
    let uuid = format!("-U{}", fixed_uuid("usr"));
    let paths = [out, folder].map(|path| path.display().to_string());
    tools::run("mkfs.erofs", ["--quiet", "-T0", &uuid, &paths[0], &paths[1]])?;
    Ok(())
}

/// Writes an empty ext4 of `bytes`, with the parameters of a large one: ROOT grows.
pub fn ext4(label: &str, bytes: u64, out: &Path) -> Result<(), FilesystemError> {
    drop(files::sparse(out, bytes)?);
    let uuid = fixed_uuid(&format!("{label} file system")).to_string();
    let extended = format!("hash_seed={uuid},lazy_itable_init=1,nodiscard");
    let path = out.display().to_string();
    let size = ["-b", "4096", "-T", "default", "-m", "1", "-J", "size=16"];
    let identity = ["-L", label, "-U", &uuid, "-E", &extended];
    let arguments = ["-q", "-F", "-t", "ext4"].into_iter().chain(size).chain(identity);
    tools::run("mke2fs", arguments.chain([path.as_str()]))?;
    Ok(())
}
