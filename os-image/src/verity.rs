//! The hash tree over `/usr`, its root hash, and the UUIDs that follow from it.

use std::path::Path;

use uuid::Uuid;

use crate::layout::fixed_uuid;
use crate::tools::{self, ToolError};

/// One salt for all images: leaves of two trees can then be compared block by block, which is how
/// an update knows what it need not fetch.
const SALT: &str = "436f7265426f782773207665726974792073616c742c20616c77617973207468";

/// The root of the hash tree: 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootHash(String);

/// The hash tree could not be made.
#[derive(Debug, thiserror::Error)]
pub enum VerityError {
    /// The program failed.
    #[error("cannot hash /usr")]
    Tool(#[source] ToolError),
    /// It ended well but named no root hash.
    #[error("veritysetup named no root hash")]
    NoHash,
}

/// Writes the hash tree of `data` to `tree` and returns its root.
pub fn format(data: &Path, tree: &Path) -> Result<RootHash, VerityError> {
    let (salt, uuid) = (format!("--salt={SALT}"), format!("--uuid={}", fixed_uuid("verity")));
    let options = ["format", "--hash=sha256", "--data-block-size=4096", "--hash-block-size=4096"];
    let files = [data.to_string_lossy().into_owned(), tree.to_string_lossy().into_owned()];
    let arguments = options.map(str::to_owned).into_iter().chain([salt, uuid]).chain(files);
    let said = tools::run("veritysetup", arguments).map_err(VerityError::Tool)?;
    root_hash(&said).ok_or(VerityError::NoHash)
}

fn root_hash(said: &str) -> Option<RootHash> {
    let hash = said.lines().find_map(|line| line.strip_prefix("Root hash:"))?.trim();
    let whole = hash.len() == 64 && hash.bytes().all(|digit| digit.is_ascii_hexdigit());
    whole.then(|| RootHash(hash.to_ascii_lowercase()))
}

impl RootHash {
    /// Returns the hash as the kernel command line and the manifest write it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the UUID of the partition that holds `/usr`: the first half of the hash.
    pub fn usr_uuid(&self) -> Uuid {
        half(&self.0[..32])
    }

    /// Returns the UUID of the partition that holds the hash tree: the second half.
    pub fn verity_uuid(&self) -> Uuid {
        half(&self.0[32..])
    }
}

fn half(digits: &str) -> Uuid {
    Uuid::try_parse(digits).expect("32 hexadecimal digits are a UUID")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_hash_is_read_and_its_halves_are_uuids() {
        let digits = "0123456789abcdef0123456789abcdeffedcba9876543210fedcba9876543210";
        let said = format!("UUID: \t1\nSalt: \t2\nRoot hash:      \t{digits}\n");
        let hash = root_hash(&said).unwrap();
        assert_eq!(hash.usr_uuid().to_string(), "01234567-89ab-cdef-0123-456789abcdef");
        assert_eq!(hash.verity_uuid().to_string(), "fedcba98-7654-3210-fedc-ba9876543210");
        assert_eq!(root_hash("Root hash: 12\n"), None);
    }
}
