//! What an image is made of, for those who boot it and those who update to it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::files::{self, FileError};

/// `manifest.json`.
#[derive(Debug, Serialize)]
pub struct Manifest {
    /// Version of the system.
    pub version: String,
    /// `lab` or `production`.
    pub flavour: String,
    /// Root of the hash tree over `/usr`.
    pub root_hash: String,
    /// The kernel command line inside the kernel image.
    pub cmdline: String,
    /// The files beside this one.
    pub files: BTreeMap<String, Product>,
    /// Debian's packages in it, with their versions.
    pub packages: BTreeMap<String, String>,
}

/// One file of the build.
#[derive(Debug, Serialize)]
pub struct Product {
    /// Its length.
    pub bytes: u64,
    /// What it takes on disk: holes take nothing.
    pub stored_bytes: u64,
    /// Its SHA-256; not for the disk, which is mostly holes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// Whether a file's hash is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hashed {
    /// It is.
    Yes,
    /// It is not.
    No,
}

/// Describes a file.
pub fn describe(path: &Path, hashed: Hashed) -> Result<Product, FileError> {
    let mut file = File::open(path).map_err(files::failed("read", path))?;
    let about = file.metadata().map_err(files::failed("read", path))?;
    let sha256 = match hashed {
        Hashed::No => None,
        Hashed::Yes => {
            let mut sum = Sha256::new();
            io::copy(&mut file, &mut sum).map_err(files::failed("read", path))?;
            Some(
                sum.finalize()
                    .iter()
                    .fold(String::new(), |text, byte| text + &format!("{byte:02x}")),
            )
        }
    };
    Ok(Product { bytes: about.len(), stored_bytes: about.blocks() * 512, sha256 })
}
