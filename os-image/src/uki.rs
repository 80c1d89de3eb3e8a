//! The unified kernel image: systemd's stub, to which the kernel, the initrd, the command line and
//! a description are added as sections.

use std::path::{Path, PathBuf};

use object::read::pe::PeFile64;
use object::{Object as _, ObjectSection as _};

use crate::files::{self, FileError};
use crate::tools::{self, ToolError};

/// Sections begin at multiples of this in memory.
const PAGE_BYTES: u64 = 4096;

/// Where a program of the firmware says where its header is, and where in that two fields are.
const HEAD_AT: usize = 0x3c;
const TIME_IN_HEAD: usize = 8;
const CHECKSUM_IN_HEAD: usize = 88;

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
    let mut image = files::read(out)?;
    without_time(&mut image);
    files::write(out, image)?;
    Ok(())
}

/// Clears the moment at which objcopy ran, and the checksum over it, which no firmware reads.
fn without_time(image: &mut [u8]) {
    let head = image.get(HEAD_AT..HEAD_AT + 4).and_then(|bytes| bytes.try_into().ok());
    let head = head.map(u32::from_le_bytes).and_then(|at| usize::try_from(at).ok());
    for field in [TIME_IN_HEAD, CHECKSUM_IN_HEAD] {
        let bytes = head.and_then(|at| image.get_mut(at + field..at + field + 4));
        bytes.unwrap_or_default().fill(0);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_time_and_the_checksum_are_cleared() {
        let mut image = vec![0xff; 0x100];
        image[HEAD_AT..HEAD_AT + 4].copy_from_slice(&0x80u32.to_le_bytes());
        without_time(&mut image);
        let cleared: Vec<usize> = (0x40..0x100).filter(|at| image[*at] == 0).collect();
        assert_eq!(cleared, [0x88, 0x89, 0x8a, 0x8b, 0xd8, 0xd9, 0xda, 0xdb]);
        without_time(&mut [1, 2, 3]);
    }
}
