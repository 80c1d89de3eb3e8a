//! Where each partition lies on the disk: `layout.yaml`, read and laid out. Pure.

use serde::Deserialize;
use uuid::Uuid;

/// Bytes of a sector of the image.
pub const SECTOR_BYTES: u64 = 512;

/// Partitions begin at multiples of this, and as much is left free at both ends of the disk.
pub const ALIGNMENT_BYTES: u64 = 1 << 20;

const PLAN: &str = include_str!("../layout.yaml");

/// Names that we give to what has no name of its own: ESP, OEM and ROOT.
const NAMESPACE: Uuid = Uuid::from_u128(0x6b0f_2c1e_6d5a_4f0e_9a4c_0c02_eb0c_0001);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Planned {
    label: String,
    mebibytes: u64,
    kind: Uuid,
}

/// One partition, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its label.
    pub label: String,
    /// Its type.
    pub kind: Uuid,
    /// Where it begins.
    pub offset: u64,
    /// How long it is.
    pub bytes: u64,
}

/// The whole disk.
#[derive(Debug)]
pub struct Layout {
    /// Its partitions, in order.
    pub places: Vec<Place>,
    /// Its length.
    pub bytes: u64,
}

/// The plan does not hold together.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// It is not a list of partitions.
    #[error("layout.yaml is not a list of partitions")]
    Syntax(#[source] serde_yaml::Error),
    /// A partition that the build fills is not in it.
    #[error("layout.yaml has no partition `{0}`")]
    Absent(&'static str),
}

/// Lays out the disk that `layout.yaml` plans.
pub fn plan() -> Result<Layout, LayoutError> {
    lay_out(PLAN)
}

fn lay_out(plan: &str) -> Result<Layout, LayoutError> {
    let planned: Vec<Planned> = serde_yaml::from_str(plan).map_err(LayoutError::Syntax)?;
    let mut offset = ALIGNMENT_BYTES;
    let mut places = Vec::new();
    for Planned { label, mebibytes, kind } in planned {
        let bytes = mebibytes << 20;
        places.push(Place { label, kind, offset, bytes });
        offset += bytes;
    }
    Ok(Layout { places, bytes: offset + ALIGNMENT_BYTES })
}

impl Layout {
    /// Returns the partition with this label.
    pub fn place(&self, label: &'static str) -> Result<&Place, LayoutError> {
        self.places.iter().find(|place| place.label == label).ok_or(LayoutError::Absent(label))
    }
}

/// Returns the UUID of something that always has the same.
pub fn fixed_uuid(name: &str) -> Uuid {
    Uuid::new_v5(&NAMESPACE, name.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_follow_each_other_and_root_is_last_so_that_it_can_grow() {
        let layout = plan().unwrap();
        let mut end = ALIGNMENT_BYTES;
        for place in &layout.places {
            assert_eq!(place.offset, end, "{}", place.label);
            assert_eq!(place.bytes % ALIGNMENT_BYTES, 0);
            end += place.bytes;
        }
        assert_eq!(layout.bytes, end + ALIGNMENT_BYTES);
        assert_eq!(layout.places.last().unwrap().label, "ROOT");
    }

    #[test]
    fn both_slots_are_alike() {
        let layout = plan().unwrap();
        for (a, b) in [("USR-A", "USR-B"), ("USR-A-VERITY", "USR-B-VERITY")] {
            let (a, b) = (layout.place(a).unwrap(), layout.place(b).unwrap());
            assert_eq!((a.kind, a.bytes), (b.kind, b.bytes));
        }
    }

    #[test]
    fn types_are_those_that_firmware_and_systemd_look_for() {
        let layout = plan().unwrap();
        let check = |label, kind: &gpt::partition_types::Type| {
            assert_eq!(layout.place(label).unwrap().kind, kind.guid, "{label}");
        };
        check("EFI-SYSTEM", &gpt::partition_types::EFI);
        check("OEM", &gpt::partition_types::LINUX_FS);
        check("ROOT", &gpt::partition_types::LINUX_ROOT_X64);
    }

    #[test]
    fn a_word_that_we_do_not_know_is_refused() {
        assert!(matches!(lay_out("- { label: X, megabytes: 3 }"), Err(LayoutError::Syntax(_))));
    }
}
