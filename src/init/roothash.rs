//! The root hash of `/usr`, and the partition UUIDs that follow from it.

use std::fmt::{self, Write as _};

/// The word on the kernel command line.
const WORD: &str = "usrhash=";

/// The root of the hash tree over `/usr`: SHA-256.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct RootHash([u8; 32]);

/// A UUID in the order in which it is written down.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Uuid(pub(crate) [u8; 16]);

/// The command line names no usable root hash.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadRootHash {
    #[error("there is no `usrhash=`")]
    Missing,
    #[error("`usrhash={0}` is not 64 hexadecimal digits")]
    Malformed(String),
}

/// Returns the root hash that the kernel command line names; the last one counts.
pub(crate) fn from_cmdline(cmdline: &str) -> Result<RootHash, BadRootHash> {
    let digits = cmdline
        .split_ascii_whitespace()
        .filter_map(|word| word.strip_prefix(WORD))
        .next_back()
        .ok_or(BadRootHash::Missing)?;
    parse(digits).ok_or_else(|| BadRootHash::Malformed(digits.to_owned()))
}

fn parse(digits: &str) -> Option<RootHash> {
    if digits.len() != 64 || !digits.is_ascii() {
        return None;
    }
    let mut hash = [0; 32];
    for (at, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(RootHash(hash))
}

impl RootHash {
    /// Returns the UUID of the partition that holds `/usr`: the first half of the hash.
    pub(crate) fn usr_uuid(&self) -> Uuid {
        Uuid(std::array::from_fn(|at| self.0[at]))
    }

    /// Returns the UUID of the partition that holds the hash tree: the second half.
    pub(crate) fn verity_uuid(&self) -> Uuid {
        Uuid(std::array::from_fn(|at| self.0[16 + at]))
    }
}

impl fmt::Display for RootHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for RootHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

/// Writes bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut digits = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _ = write!(digits, "{byte:02x}");
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

    #[test]
    fn the_two_halves_of_the_hash_are_the_partitions_uuids() {
        let hash = from_cmdline(&format!("panic=1 usrhash={HASH} quiet\n")).unwrap();
        assert_eq!(format!("{:?}", hash.usr_uuid()), HASH[..32]);
        assert_eq!(format!("{:?}", hash.verity_uuid()), HASH[32..]);
        assert_eq!(hash.to_string(), HASH);
    }

    #[test]
    fn the_last_word_counts_as_everywhere_on_the_command_line() {
        let cmdline = format!("usrhash={} usrhash={HASH}", "f".repeat(64));
        assert_eq!(from_cmdline(&cmdline).unwrap().to_string(), HASH);
    }

    #[test]
    fn a_missing_or_crippled_hash_is_refused() {
        assert_eq!(from_cmdline("panic=1 xusrhash=1"), Err(BadRootHash::Missing));
        for crippled in ["", "12", &HASH[1..], &HASH.replace('a', "+"), &"ü".repeat(32)] {
            let refused = from_cmdline(&format!("usrhash={crippled}"));
            assert_eq!(refused, Err(BadRootHash::Malformed(crippled.to_owned())));
        }
    }
}
