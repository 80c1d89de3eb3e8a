//! Which disk, and which of its partitions: the ones whose UUIDs follow from the root hash.
//!
//! Where several disks carry the same system (a copy is attached), it is the one that the firmware
//! booted from, as systemd-boot wrote it down; the first in order where nothing was written down.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::mount::{MountFlags, mount};

use crate::Refusal;
use crate::gpt::{self, Partition};
use crate::read;
use crate::rest;
use crate::roothash::{RootHash, Uuid};

const BLOCK_DEVICES: &str = "/sys/class/block";
const EFI_VARIABLES: &str = "/sys/firmware/efi/efivars";
const BOOT_PARTITION: &str = "LoaderDevicePartUUID-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";

/// What the kernel counts a disk's size in, whatever its sectors are.
const SIZE_UNIT: u64 = 512;

/// How often we look for the disk, and how long we wait between: 10 s in all, enough for a slow
/// controller, little beside three tries of a slot that is not there.
const LOOKS_MAX: u32 = 1_000;
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// The device nodes that one boot needs.
#[derive(Debug)]
pub(crate) struct Slot {
    /// The disk they are on.
    pub(crate) disk: String,
    /// The file system of `/usr`.
    pub(crate) usr: PathBuf,
    /// Its hash tree.
    pub(crate) verity: PathBuf,
    /// Everything else.
    pub(crate) root: PathBuf,
    /// Bytes of the disk behind ROOT that nothing has.
    pub(crate) free_behind_root: u64,
}

struct Disk {
    name: String,
    partitions: Vec<Partition>,
    slot: gpt::Slot,
}

/// Finds the partitions of the system with this root hash, waiting for a disk that is slow to come.
pub(crate) fn find(hash: &RootHash) -> Result<Slot, Refusal> {
    for _ in 0..LOOKS_MAX {
        let disks = disks_with(hash)?;
        if let Some(slot) = choose(disks).and_then(|disk| nodes(&disk)) {
            return Ok(slot);
        }
        rest(BETWEEN_LOOKS);
    }
    Err(Refusal::NoDisk { hash: hash.to_string() })
}

fn disks_with(hash: &RootHash) -> Result<Vec<Disk>, Refusal> {
    let disks = names(Path::new(BLOCK_DEVICES))?
        .into_iter()
        .filter(|name| !Path::new(BLOCK_DEVICES).join(name).join("partition").exists())
        .filter_map(|name| {
            let partitions = table(&name)?;
            let slot = gpt::slot(&partitions, hash)?;
            Some(Disk { name, partitions, slot })
        });
    Ok(disks.collect())
}

fn names(folder: &Path) -> Result<Vec<String>, Refusal> {
    let unreadable = |source| Refusal::Read { path: folder.into(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        names.extend(entry.map_err(unreadable)?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

/// Reads a disk's table: the first copy, or the one at its end where the first is damaged.
fn table(disk: &str) -> Option<Vec<Partition>> {
    let device = File::open(Path::new("/dev").join(disk)).ok()?;
    let sector_bytes = number(disk, "queue/logical_block_size")?;
    let sectors = number(disk, "size")? * SIZE_UNIT / sector_bytes;
    [1, sectors.checked_sub(1)?].into_iter().find_map(|at| {
        let header = gpt::header(&sector(&device, at, sector_bytes)?)?;
        let from = header.entries_sector.checked_mul(sector_bytes)?;
        gpt::partitions(&header, &bytes(&device, from, header.entries_bytes).ok()?)
    })
}

/// Gives a disk that comes fresh from the build an identity of its own, in both copies of its
/// table. Says whether it did.
pub(crate) fn give_identity(disk: &str) -> io::Result<bool> {
    let mut random = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    // Version 4, the variant of RFC 9562.
    random[6] = random[6] & 0x0f | 0x40;
    random[8] = random[8] & 0x3f | 0x80;
    let device = File::options().read(true).write(true).open(Path::new("/dev").join(disk))?;
    let sector_bytes = number(disk, "queue/logical_block_size").unwrap_or(SIZE_UNIT);
    let first = sector(&device, 1, sector_bytes).unwrap_or_default();
    let Some(named) = gpt::with_identity(&first, Uuid(random)) else { return Ok(false) };
    if let Some(other) = gpt::header(&first).map(|header| header.other_sector)
        && let Some(copy) = sector(&device, other, sector_bytes)
        && let Some(named) = gpt::with_identity(&copy, Uuid(random))
    {
        device.write_all_at(&named, other * sector_bytes)?;
    }
    device.write_all_at(&named, sector_bytes)?;
    device.sync_all()?;
    Ok(true)
}

fn number(disk: &str, file: &str) -> Option<u64> {
    read(&format!("{BLOCK_DEVICES}/{disk}/{file}")).ok()?.trim().parse().ok()
}

fn sector(device: &File, at: u64, sector_bytes: u64) -> Option<Vec<u8>> {
    bytes(device, at.checked_mul(sector_bytes)?, usize::try_from(sector_bytes).ok()?).ok()
}

fn bytes(device: &File, from: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    device.read_exact_at(&mut bytes, from)?;
    Ok(bytes)
}

fn choose(mut disks: Vec<Disk>) -> Option<Disk> {
    if disks.len() > 1
        && let Some(booted) = boot_partition()
    {
        let has = |disk: &Disk| disk.partitions.iter().any(|partition| partition.uuid == booted);
        disks.sort_by_key(|disk| !has(disk));
    }
    disks.into_iter().next()
}

/// Returns the UUID of the partition that systemd-boot was started from.
fn boot_partition() -> Option<Uuid> {
    mount("efivarfs", EFI_VARIABLES, "efivarfs", MountFlags::RDONLY, None).ok()?;
    let value = fs::read(Path::new(EFI_VARIABLES).join(BOOT_PARTITION)).ok();
    rustix::mount::unmount(EFI_VARIABLES, rustix::mount::UnmountFlags::empty()).ok();
    uuid_of_variable(&value?)
}

/// Reads a UUID from an EFI variable: four bytes of attributes, then UTF-16 text.
fn uuid_of_variable(value: &[u8]) -> Option<Uuid> {
    let text = value.get(4..)?.chunks_exact(2).map(|unit| char::from(unit[0]));
    let digits: Vec<u8> = text
        .filter_map(|digit| digit.to_digit(16))
        .map(|digit| u8::try_from(digit).unwrap_or(0))
        .collect();
    let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    Some(Uuid(bytes.try_into().ok()?))
}

fn free_behind(disk: &Disk, partition: u32) -> Option<u64> {
    let sector_bytes = number(&disk.name, "queue/logical_block_size")?;
    let sectors = number(&disk.name, "size")? * SIZE_UNIT / sector_bytes;
    Some(gpt::sectors_behind(&disk.partitions, partition, sectors) * sector_bytes)
}

/// Turns partition numbers into device nodes; none while the kernel has not announced them all.
fn nodes(disk: &Disk) -> Option<Slot> {
    let folder = Path::new(BLOCK_DEVICES).join(&disk.name);
    let numbered: Vec<(String, String)> = names(&folder)
        .ok()?
        .into_iter()
        .filter_map(|name| {
            Some((fs::read_to_string(folder.join(&name).join("partition")).ok()?, name))
        })
        .collect();
    let node = |wanted: u32| {
        let wanted = wanted.to_string();
        let (_, name) = numbered.iter().find(|(number, _)| number.trim() == wanted)?;
        Some(Path::new("/dev").join(name)).filter(|node| node.exists())
    };
    Some(Slot {
        disk: disk.name.clone(),
        usr: node(disk.slot.usr)?,
        verity: node(disk.slot.verity)?,
        root: node(disk.slot.root)?,
        free_behind_root: free_behind(disk, disk.slot.root).unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loader_writes_its_partition_in_capitals_and_sixteen_bits() {
        let mut value = vec![6, 0, 0, 0];
        for unit in "00112233-4455-6677-8899-AABBCCDDEEFF\0".encode_utf16() {
            value.extend(unit.to_le_bytes());
        }
        let uuid = uuid_of_variable(&value).unwrap();
        assert_eq!(format!("{uuid:?}"), "00112233445566778899aabbccddeeff");
        assert_eq!(uuid_of_variable(&value[..20]), None);
        assert_eq!(uuid_of_variable(&[]), None);
    }
}
