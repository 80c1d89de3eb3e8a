//! Makes the disk image: from Debian packages and two programs of ours to one sparse file.
//!
//! ```text
//! packages ─ tree ─┐
//! rootfs/ ─────────┼─ /usr ─ erofs ─ verity ─ root hash ─┐
//! corebox ─────────┘                                     ├─ UKI ─ ESP ─┐
//! corebox-init ─ initrd ─────────────────────────────────┘             ├─ GPT ─ corebox.img
//!                                     /usr and its hash tree, OEM, ROOT ─┘
//! ```
//!
//! No loop devices. The same packages and the same sources give the same bytes, but for ROOT's and
//! OEM's journals. What is in which partition, and why: `docs/formats/image.md`.
//!
//! **Not here:** building the programs (`xtask` does), update payloads, signing.

pub mod cpio;
pub mod esp;
pub mod files;
pub mod filesystems;
pub mod image;
pub mod initrd;
pub mod layout;
pub mod lock;
pub mod manifest;
pub mod program;
pub mod progress;
#[cfg(test)]
mod rootfs;
pub mod table;
pub mod tools;
pub mod tree;
pub mod uki;
pub mod usr;
pub mod verity;

/// The moment every file of the image carries where it must carry one: 2015-01-01, UTC.
pub const EPOCH_SECONDS: u64 = 1_420_070_400;
