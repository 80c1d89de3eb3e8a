//! Whether ROOT is smaller than it could be: free space behind its partition, or a file system that
//! does not fill it.
//!
//! To look costs one read here, and two programs once systemd runs.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Less is not worth growing for: a table's second copy and what partitions are aligned to.
const WORTH_BYTES: u64 = 8 << 20;

/// Where an ext4 file system describes itself, and how long we read.
const SUPERBLOCK_AT: u64 = 1024;
const SUPERBLOCK_BYTES: usize = 1024;

const MAGIC: u16 = 0xef53;
/// The feature that gives a count of blocks its upper half.
const WIDE: u32 = 0x80;
/// ext4 has blocks of 1 KiB to 64 KiB.
const BLOCK_SHIFT_MAX: u32 = 6;

/// Tells whether growing ROOT gains anything. What cannot be read is left as it is.
pub(crate) fn can_grow(root: &Path, free_behind: u64) -> io::Result<bool> {
    let mut device = File::open(root)?;
    let partition = device.seek(SeekFrom::End(0))?;
    let mut superblock = [0; SUPERBLOCK_BYTES];
    device.read_exact_at(&mut superblock, SUPERBLOCK_AT)?;
    let unused = file_system(&superblock).map_or(0, |bytes| partition.saturating_sub(bytes));
    Ok(free_behind.saturating_add(unused) >= WORTH_BYTES)
}

/// Reads how many bytes a file system has; none if it is not ext4.
fn file_system(superblock: &[u8; SUPERBLOCK_BYTES]) -> Option<u64> {
    let number = |at: usize| u32::from_le_bytes(std::array::from_fn(|byte| superblock[at + byte]));
    let shift = number(24);
    if u16::from_le_bytes([superblock[56], superblock[57]]) != MAGIC || shift > BLOCK_SHIFT_MAX {
        return None;
    }
    let upper = if number(96) & WIDE == 0 { 0 } else { number(336) };
    let blocks = u64::from(upper) << 32 | u64::from(number(4));
    blocks.checked_mul(1024 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ext4 of so many blocks of 4 KiB.
    fn superblock(blocks: u64, wide: bool) -> [u8; SUPERBLOCK_BYTES] {
        let mut bytes = [0; SUPERBLOCK_BYTES];
        let blocks = blocks.to_le_bytes();
        bytes[4..8].copy_from_slice(&blocks[..4]);
        bytes[336..340].copy_from_slice(&blocks[4..]);
        bytes[24] = 2;
        bytes[56..58].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[96] = if wide { 0x80 } else { 0 };
        bytes
    }

    #[test]
    fn a_file_system_says_how_large_it_is() {
        assert_eq!(file_system(&superblock(262_144, true)), Some(1 << 30));
        assert_eq!(file_system(&superblock(1 << 33, true)), Some(1 << 45));
        assert_eq!(file_system(&superblock(1 << 33, false)), Some(0));
        assert_eq!(file_system(&[0; SUPERBLOCK_BYTES]), None);
    }

    #[test]
    fn root_grows_into_its_partition_and_into_what_is_behind_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("root");
        let made = |partition: u64, blocks: u64| {
            let file = File::create(&path).unwrap();
            file.set_len(partition).unwrap();
            file.write_all_at(&superblock(blocks, true), SUPERBLOCK_AT).unwrap();
        };
        made(64 << 20, (64 << 20) / 4096);
        assert!(!can_grow(&path, 0).unwrap());
        assert!(!can_grow(&path, WORTH_BYTES - 1).unwrap());
        assert!(can_grow(&path, WORTH_BYTES).unwrap());
        made(128 << 20, (64 << 20) / 4096);
        assert!(can_grow(&path, 0).unwrap());
        assert!(can_grow(&folder.path().join("absent"), 0).is_err());
    }
}
