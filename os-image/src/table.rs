//! Writing the GUID partition table.

use std::collections::BTreeMap;
use std::fs::File;

use gpt::disk::LogicalBlockSize;
use gpt::mbr::ProtectiveMBR;
use gpt::partition::Partition;
use gpt::partition_types::{OperatingSystem, Type};
use uuid::Uuid;

use crate::layout::{Layout, SECTOR_BYTES, fixed_uuid};

/// The disk's own identity as it comes from the build: the first boot, which knows this number,
/// gives it another.
const NEW_DISK: Uuid = Uuid::from_u128(1);

/// The table could not be written.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The first sector.
    #[error("cannot write the protective MBR")]
    Protective(#[source] gpt::mbr::MBRError),
    /// The table itself.
    #[error("cannot write the partition table")]
    Table(#[source] gpt::GptError),
}

/// Writes the table of `layout`. A partition in `uuids` gets that UUID, any other its fixed one.
pub fn write(
    disk: &mut File,
    layout: &Layout,
    uuids: &BTreeMap<&str, Uuid>,
) -> Result<(), TableError> {
    let sectors = u32::try_from(layout.bytes / SECTOR_BYTES - 1).unwrap_or(u32::MAX);
    let mbr = ProtectiveMBR::with_lb_size(sectors);
    mbr.overwrite_lba0(disk).map_err(TableError::Protective)?;
    let config = gpt::GptConfig::new().writable(true).logical_block_size(LogicalBlockSize::Lb512);
    let mut table = config.create_from_device(disk, Some(NEW_DISK)).map_err(TableError::Table)?;
    let rows = (1u32..).zip(&layout.places).map(|(number, place)| {
        let row = Partition {
            part_type_guid: Type { guid: place.kind, os: OperatingSystem::None },
            part_guid: uuids
                .get(place.label.as_str())
                .copied()
                .unwrap_or_else(|| fixed_uuid(&place.label)),
            first_lba: place.offset / SECTOR_BYTES,
            last_lba: (place.offset + place.bytes) / SECTOR_BYTES - 1,
            flags: 0,
            name: place.label.clone(),
        };
        (number, row)
    });
    table.update_partitions(rows.collect()).map_err(TableError::Table)?;
    table.write_inplace().map_err(TableError::Table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{files, layout};

    #[test]
    fn what_was_written_is_read_back_at_both_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        let layout = layout::plan().unwrap();
        let mut disk = files::sparse(&path, layout.bytes).unwrap();
        let own = Uuid::from_u128(7);
        write(&mut disk, &layout, &BTreeMap::from([("USR-A", own)])).unwrap();
        let table = gpt::GptConfig::new().open(&path).unwrap();
        assert_eq!(table.backup_header().unwrap().disk_guid, NEW_DISK);
        let labels: Vec<&str> = table.partitions().values().map(|row| row.name.as_str()).collect();
        assert_eq!(
            labels,
            ["EFI-SYSTEM", "USR-A", "USR-A-VERITY", "USR-B", "USR-B-VERITY", "OEM", "ROOT"]
        );
        assert_eq!(table.partitions()[&2].part_guid, own);
        assert_eq!(table.partitions()[&7].part_guid, fixed_uuid("ROOT"));
    }
}
