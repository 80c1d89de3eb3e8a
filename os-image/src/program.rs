//! What a program must be to run where no library is: linked statically, and for a release stripped
//! and small.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use object::elf::{ET_DYN, FileHeader64, PT_INTERP};
use object::read::elf::{ElfFile64, FileHeader as _, ProgramHeader as _};
use object::{Endianness, Object as _, ReadCache};

/// A release has to fit into this, with room for the parts that are still to come.
pub const RELEASE_BYTES_MAX: u64 = 30 << 20;

/// A program cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It cannot be read.
    #[error("cannot read the program `{}`", path.display())]
    Read {
        /// Where it should be.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is none.
    #[error("`{}` is not a 64-bit ELF program", path.display())]
    NotElf {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: object::Error,
    },
    /// It needs the dynamic linker.
    #[error(
        "`{}` is linked dynamically, and the image has no libraries for it: build it with \
         `-C target-feature=+crt-static`",
        path.display()
    )]
    Dynamic {
        /// The file.
        path: PathBuf,
    },
    /// It is always loaded at one address.
    #[error("`{}` is not position independent: build it as a static PIE", path.display())]
    Fixed {
        /// The file.
        path: PathBuf,
    },
    /// It has symbols.
    #[error("`{}` is not stripped: build it with the profile `release`", path.display())]
    Symbols {
        /// The file.
        path: PathBuf,
    },
    /// It is too large.
    #[error("`{}` has {bytes} bytes, a release may have {RELEASE_BYTES_MAX}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
}

/// Refuses a program that is not a static PIE.
pub fn stands_alone(path: &Path) -> Result<(), ProgramError> {
    inspect(path).map(drop)
}

/// Refuses a program that should not be released.
pub fn is_release(path: &Path) -> Result<(), ProgramError> {
    let (bytes, symbols) = inspect(path)?;
    if symbols {
        return Err(ProgramError::Symbols { path: path.to_owned() });
    }
    if bytes > RELEASE_BYTES_MAX {
        return Err(ProgramError::TooLarge { path: path.to_owned(), bytes });
    }
    Ok(())
}

/// Returns its size in bytes, and whether it has symbols.
fn inspect(path: &Path) -> Result<(u64, bool), ProgramError> {
    let unreadable = |source| ProgramError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    let bytes = file.metadata().map_err(unreadable)?.len();
    let cache = ReadCache::new(file);
    let not_elf = |source| ProgramError::NotElf { path: path.to_owned(), source };
    let elf: ElfFile64<'_, Endianness, _> = ElfFile64::parse(&cache).map_err(not_elf)?;
    let header: &FileHeader64<Endianness> = elf.elf_header();
    let headers = header.program_headers(elf.endian(), &cache).map_err(not_elf)?;
    if headers.iter().any(|part| part.p_type(elf.endian()) == PT_INTERP) {
        return Err(ProgramError::Dynamic { path: path.to_owned() });
    }
    if header.e_type(elf.endian()) != ET_DYN {
        return Err(ProgramError::Fixed { path: path.to_owned() });
    }
    Ok((bytes, elf.symbols().next().is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_programs_stand_alone_and_a_test_is_no_release() {
        let own = std::env::current_exe().unwrap();
        stands_alone(&own).unwrap();
        assert!(matches!(is_release(&own), Err(ProgramError::Symbols { .. })));
    }

    #[test]
    fn a_program_that_needs_libraries_is_refused() {
        let refusal = stands_alone(Path::new("/bin/sh")).unwrap_err();
        assert!(matches!(refusal, ProgramError::Dynamic { .. }), "{refusal}");
    }

    #[test]
    fn what_is_no_program_is_refused() {
        let text = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        assert!(matches!(stands_alone(&text), Err(ProgramError::NotElf { .. })));
        let absent = Path::new("/nowhere/at/all");
        assert!(matches!(stands_alone(absent), Err(ProgramError::Read { .. })));
    }
}
