//! Reading a GUID partition table, and finding a slot in it. Pure: bytes in, partitions out.
//!
//! The kernel has parsed the same table already, but does not say which UUID a partition has.

use flate2::Crc;

use crate::roothash::{RootHash, Uuid};

/// The type of the ROOT partition: 4f68bce3-e8cd-4db1-96e7-fbcaf984b709 (root, x86-64).
const ROOT_TYPE: Uuid = Uuid([
    0x4f, 0x68, 0xbc, 0xe3, 0xe8, 0xcd, 0x4d, 0xb1, 0x96, 0xe7, 0xfb, 0xca, 0xf9, 0x84, 0xb7, 0x09,
]);

/// The identity that every disk has as it comes from the build.
const NEW_DISK: Uuid = Uuid([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);

/// Bytes of a table's header that its checksum covers, at least.
const HEADER_BYTES_MIN: usize = 92;

/// Most bytes of entries that we read: 1024 of 128, eight times what anybody makes.
const ENTRIES_BYTES_MAX: usize = 128 * 1024;

/// Where a header says its entries are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// First sector of the entries.
    pub(crate) entries_sector: u64,
    /// Bytes of all entries.
    pub(crate) entries_bytes: usize,
    /// Sector of the other copy of this header.
    pub(crate) other_sector: u64,
    entry_bytes: usize,
    entries_crc: u32,
}

/// One partition that is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Partition {
    /// Its number, from 1.
    pub(crate) number: u32,
    kind: Uuid,
    /// Its own UUID.
    pub(crate) uuid: Uuid,
    first_sector: u64,
    last_sector: u64,
}

/// The numbers of the partitions that one boot needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    /// The file system of `/usr`.
    pub(crate) usr: u32,
    /// Its hash tree.
    pub(crate) verity: u32,
    /// Everything else.
    pub(crate) root: u32,
}

/// Reads a header; none if the sector holds none or its checksum is wrong.
pub(crate) fn header(sector: &[u8]) -> Option<Header> {
    let bytes = usize::try_from(u32_at(sector, 12)?).ok()?;
    if !sector.starts_with(b"EFI PART") || bytes < HEADER_BYTES_MIN || bytes > sector.len() {
        return None;
    }
    if header_crc(&sector[..bytes]) != u32_at(sector, 16)? {
        return None;
    }
    let count = usize::try_from(u32_at(sector, 80)?).ok()?;
    let entry_bytes = usize::try_from(u32_at(sector, 84)?).ok()?;
    let entries_bytes = count.checked_mul(entry_bytes)?;
    let plausible = entry_bytes >= 128 && entries_bytes <= ENTRIES_BYTES_MAX;
    plausible.then_some(Header {
        entries_sector: u64_at(sector, 72)?,
        entries_bytes,
        other_sector: u64_at(sector, 32)?,
        entry_bytes,
        entries_crc: u32_at(sector, 88)?,
    })
}

/// Reads the entries that a header announced; none if their checksum is wrong.
pub(crate) fn partitions(header: &Header, entries: &[u8]) -> Option<Vec<Partition>> {
    let entries = entries.get(..header.entries_bytes)?;
    if crc(entries) != header.entries_crc {
        return None;
    }
    let used = (1u32..)
        .zip(entries.chunks_exact(header.entry_bytes))
        .filter_map(|(number, entry)| {
            Some(Partition {
                number,
                kind: uuid_at(entry, 0)?,
                uuid: uuid_at(entry, 16)?,
                first_sector: u64_at(entry, 32)?,
                last_sector: u64_at(entry, 40)?,
            })
        })
        .filter(|partition| partition.kind != Uuid([0; 16]));
    Some(used.collect())
}

/// Finds the partitions of the system with this root hash; none if one is missing.
pub(crate) fn slot(partitions: &[Partition], hash: &RootHash) -> Option<Slot> {
    let with = |wanted: &dyn Fn(&Partition) -> bool| {
        partitions.iter().find(|partition| wanted(partition)).map(|partition| partition.number)
    };
    Some(Slot {
        usr: with(&|partition| partition.uuid == hash.usr_uuid())?,
        verity: with(&|partition| partition.uuid == hash.verity_uuid())?,
        root: with(&|partition| partition.kind == ROOT_TYPE)?,
    })
}

/// Returns how many sectors of a disk follow a partition until the next one, or the disk's end.
pub(crate) fn sectors_behind(partitions: &[Partition], number: u32, disk_sectors: u64) -> u64 {
    let it = partitions.iter().find(|partition| partition.number == number);
    let Some(last) = it.map(|partition| partition.last_sector) else { return 0 };
    let starts = partitions.iter().map(|partition| partition.first_sector);
    let next = starts.filter(|first| *first > last).min().unwrap_or(disk_sectors);
    next.saturating_sub(last.saturating_add(1))
}

/// Gives a new disk's header an identity of its own; none if it has one, or is no header.
pub(crate) fn with_identity(sector: &[u8], identity: Uuid) -> Option<Vec<u8>> {
    header(sector)?;
    if uuid_at(sector, 56)? != NEW_DISK {
        return None;
    }
    let bytes = usize::try_from(u32_at(sector, 12)?).ok()?;
    let mut named = sector.to_vec();
    named[56..72].copy_from_slice(&stored(identity));
    let sum = header_crc(&named[..bytes]);
    named[16..20].copy_from_slice(&sum.to_le_bytes());
    Some(named)
}

/// Sums a header, whose own field for the sum counts as zero.
fn header_crc(header: &[u8]) -> u32 {
    let mut summed = header.to_vec();
    summed[16..20].fill(0);
    crc(&summed)
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn uuid_at(bytes: &[u8], at: usize) -> Option<Uuid> {
    let uuid: [u8; 16] = bytes.get(at..at + 16)?.try_into().ok()?;
    Some(Uuid(stored(Uuid(uuid))))
}

/// Turns a UUID into what a table stores, or back: its first three fields are little-endian.
fn stored(Uuid(mut uuid): Uuid) -> [u8; 16] {
    uuid[..4].reverse();
    uuid[4..6].reverse();
    uuid[6..8].reverse();
    uuid
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roothash;

    fn hash() -> RootHash {
        let digits = roothash::hex(&std::array::from_fn::<u8, 32, _>(|at| at.to_le_bytes()[0]));
        roothash::from_cmdline(&format!("usrhash={digits}")).unwrap()
    }

    /// A table with a hole at number 2, as bytes of its header and of its entries.
    fn table() -> (Vec<u8>, Vec<u8>) {
        let mut entries = vec![0; 128 * 128];
        let rows = [(1, [7; 16], hash().usr_uuid()), (3, [8; 16], hash().verity_uuid())];
        for (number, kind, uuid) in rows.into_iter().chain([(4, ROOT_TYPE.0, Uuid([9; 16]))]) {
            let at = (number - 1) * 128;
            entries[at..at + 16].copy_from_slice(&stored(Uuid(kind)));
            entries[at + 16..at + 32].copy_from_slice(&stored(uuid));
            let first = 1000 * u64::try_from(number).unwrap();
            entries[at + 32..at + 40].copy_from_slice(&first.to_le_bytes());
            entries[at + 40..at + 48].copy_from_slice(&(first + 99).to_le_bytes());
        }
        let mut header = vec![0; 512];
        header[..8].copy_from_slice(b"EFI PART");
        header[12..16].copy_from_slice(&92u32.to_le_bytes());
        header[56..72].copy_from_slice(&stored(NEW_DISK));
        header[72..80].copy_from_slice(&2u64.to_le_bytes());
        header[80..84].copy_from_slice(&128u32.to_le_bytes());
        header[84..88].copy_from_slice(&128u32.to_le_bytes());
        header[88..92].copy_from_slice(&crc(&entries).to_le_bytes());
        let sum = crc(&header[..92]);
        header[16..20].copy_from_slice(&sum.to_le_bytes());
        (header, entries)
    }

    #[test]
    fn a_slot_is_found_by_the_uuids_that_the_hash_gives() {
        let (sector, entries) = table();
        let header = header(&sector).unwrap();
        assert_eq!((header.entries_sector, header.entries_bytes), (2, 128 * 128));
        let partitions = partitions(&header, &entries).unwrap();
        assert_eq!(partitions.len(), 3);
        assert_eq!(slot(&partitions, &hash()), Some(Slot { usr: 1, verity: 3, root: 4 }));
        assert_eq!(slot(&partitions[1..], &hash()), None);
    }

    #[test]
    fn what_is_behind_a_partition_ends_at_the_next_or_with_the_disk() {
        let (sector, entries) = table();
        let partitions = partitions(&header(&sector).unwrap(), &entries).unwrap();
        assert_eq!(sectors_behind(&partitions, 1, 5000), 1900);
        assert_eq!(sectors_behind(&partitions, 4, 5000), 900);
        assert_eq!(sectors_behind(&partitions, 4, 4100), 0);
        assert_eq!(sectors_behind(&partitions, 4, 10), 0);
        assert_eq!(sectors_behind(&partitions, 2, 5000), 0);
    }

    #[test]
    fn one_wrong_bit_anywhere_makes_a_table_unreadable() {
        let (sector, entries) = table();
        for at in 0..92 {
            let mut broken = sector.clone();
            broken[at] ^= 1;
            assert_eq!(header(&broken), None, "byte {at}");
        }
        let good = header(&sector).unwrap();
        let mut broken = entries.clone();
        broken[5] ^= 1;
        assert_eq!(partitions(&good, &broken), None);
        assert_eq!(partitions(&good, &entries[..100]), None);
    }

    #[test]
    fn a_new_disk_gets_an_identity_once() {
        let (sector, _) = table();
        let named = with_identity(&sector, Uuid([5; 16])).unwrap();
        assert_eq!(uuid_at(&named, 56), Some(Uuid([5; 16])));
        assert_eq!(header(&named), header(&sector));
        assert_eq!(with_identity(&named, Uuid([6; 16])), None);
        assert_eq!(with_identity(&vec![0; 512], Uuid([6; 16])), None);
    }

    #[test]
    fn a_short_or_empty_sector_is_no_header() {
        for length in [0, 8, 91, 512] {
            assert_eq!(header(&vec![0; length]), None);
        }
    }
}
