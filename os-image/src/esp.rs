//! The EFI system partition: systemd-boot and the kernel image.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use crate::files::{self, FileError};
use crate::tools::{self, ToolError};

const FOLDERS: &[&str] = &["EFI", "EFI/BOOT", "EFI/Linux", "EFI/systemd", "loader"];

/// Nobody waits at a menu, and nobody edits the command line: the root hash is on it.
const LOADER_CONF: &str = "timeout 0\nconsole-mode keep\neditor no\n";

/// The volume's number: the letters of `CBOX`.
const VOLUME: &str = "43424f58";

/// The partition could not be made.
#[derive(Debug, thiserror::Error)]
pub enum EspError {
    /// A file.
    #[error("cannot collect the EFI system partition")]
    File(#[from] FileError),
    /// A program.
    #[error("cannot fill the EFI system partition")]
    Tool(#[from] ToolError),
}

/// What goes onto the partition.
#[derive(Debug)]
pub struct Contents<'a> {
    /// systemd-boot.
    pub loader: &'a Path,
    /// The kernel image.
    pub uki: &'a Path,
    /// The name it gets under `EFI/Linux`.
    pub uki_name: &'a str,
}

/// Writes a partition of `bytes` to `out`, with files of its own in `scratch`.
pub fn make(
    contents: &Contents<'_>,
    bytes: u64,
    scratch: &Path,
    out: &Path,
) -> Result<(), EspError> {
    drop(files::sparse(out, bytes)?);
    let image = out.display().to_string();
    tools::run("mkfs.vfat", ["-F32", "--invariant", "-i", VOLUME, "-n", "EFI-SYSTEM", &image])?;
    for folder in FOLDERS {
        tools::run("mmd", ["-i", &image, &format!("::/{folder}")])?;
    }
    let configuration = scratch.join("loader.conf");
    files::write(&configuration, LOADER_CONF)?;
    let name = format!("EFI/Linux/{}", contents.uki_name);
    let copies = [
        (contents.loader, "EFI/BOOT/BOOTX64.EFI"),
        (contents.loader, "EFI/systemd/systemd-bootx64.efi"),
        (&configuration, "loader/loader.conf"),
        (contents.uki, &name),
    ];
    for (from, to) in copies {
        let aged = scratch.join("aged");
        files::place(from, &aged, 0o644)?;
        age(&aged)?;
        tools::run(
            "mcopy",
            ["-m", "-i", &image, &aged.display().to_string(), &format!("::/{to}")],
        )?;
    }
    Ok(())
}

/// Gives a file the time that all files of the image have.
fn age(path: &Path) -> Result<(), FileError> {
    let time = UNIX_EPOCH + Duration::from_secs(crate::EPOCH_SECONDS);
    File::options()
        .write(true)
        .open(path)
        .and_then(|file| file.set_modified(time))
        .map_err(files::failed("set time of", path))
}
