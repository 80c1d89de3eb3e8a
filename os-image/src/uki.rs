//! The unified kernel image: systemd's stub, to which the kernel, the initrd, the command line and
//! a description are added as sections.

use std::path::{Path, PathBuf};

use object::read::pe::PeFile64;
use object::{Object as _, ObjectSection as _};

use crate::files::{self, FileError};
use crate::tools::{self, ToolError};

/// Sections begin at multiples of this in memory.
const PAGE_BYTES: u64 = 4096;

/// The image could not be made.
#[derive(Debug, thiserror::Error)]
pub enum UkiError {
    /// A file.
    #[error("cannot collect the sections of the kernel image")]
    File(#[from] FileError),
    /// What should be the stub is none.
    #[error("systemd's stub is not a program of the firmware")]
    Stub(#[source] object::Error),
    /// The program failed.
    #[error("cannot add the sections to systemd's stub")]
    Tool(#[source] ToolError),
}

/// What goes into the image.
#[derive(Debug)]
pub struct Parts<'a> {
    /// systemd's stub.
    pub stub: &'a Path,
    /// What systemd-boot shows: an os-release without a version, so that the file's name decides
    /// which of two images is the newer.
    pub os_release: &'a str,
    /// The kernel command line.
    pub cmdline: &'a str,
    /// The initrd.
    pub initrd: &'a Path,
    /// The kernel.
    pub kernel: &'a Path,
}

/// Writes the image to `out`, with files of its own in `scratch`.
pub fn make(parts: &Parts<'_>, scratch: &Path, out: &Path) -> Result<(), UkiError> {
    let (os_release, cmdline) = (scratch.join("osrel"), scratch.join("cmdline"));
    files::write(&os_release, parts.os_release)?;
    files::write(&cmdline, parts.cmdline)?;
    // The kernel comes last: it may use the memory behind itself.
    let sections: Vec<(&str, PathBuf, u64)> = [
        (".osrel", os_release),
        (".cmdline", cmdline),
        (".initrd", parts.initrd.to_owned()),
        (".linux", parts.kernel.to_owned()),
    ]
    .into_iter()
    .map(|(name, path)| files::read(&path).map(|contents| (name, path, contents.len() as u64)))
    .collect::<Result<_, _>>()?;
    let mut address = end(&files::read(parts.stub)?).map_err(UkiError::Stub)?;
    let mut arguments = Vec::new();
    for (name, path, bytes) in &sections {
        address = address.next_multiple_of(PAGE_BYTES);
        arguments.push(format!("--add-section={name}={}", path.display()));
        arguments.push(format!("--change-section-vma={name}={address:#x}"));
        arguments.push(format!("--set-section-flags={name}=alloc,load,readonly,data"));
        address += bytes;
    }
    arguments.extend([parts.stub, out].map(|path| path.display().to_string()));
    tools::run("objcopy", arguments).map_err(UkiError::Tool)?;
    Ok(())
}

/// Returns the first address behind every section of a program.
fn end(program: &[u8]) -> Result<u64, object::Error> {
    let program = PeFile64::parse(program)?;
    let ends = program.sections().map(|section| section.address() + section.size());
    Ok(ends.max().unwrap_or_default())
}

/// Returns the sections of an image with the addresses where they begin and end.
pub fn sections(image: &[u8]) -> Result<Vec<(String, u64, u64)>, object::Error> {
    let image = PeFile64::parse(image)?;
    let spans = image.sections().map(|section| {
        let (from, to) = (section.address(), section.address() + section.size());
        Ok((section.name()?.to_owned(), from, to))
    });
    spans.collect()
}
