//! Layer 1: the seams to the world.
//!
//! ```text
//!   agents ──▶ trait (words of the domain) ──┬─▶ the real thing, named after what it stands on
//!                                            └─▶ memory: its twin, for tests and simulation
//!
//!   systemd   DbusSystemd, over the system bus     MemorySystemd: jobs that take time and fail
//!   host      Linux, by system calls and files     MemoryHost: what it was told, what it ran
//!   netlink   Rtnetlink, read-only so far          MemoryNetlink: tables that a test fills
//!   disk      Files                                MemoryDisk: loses what was not synced
//!   net       TokioNet, names by hickory           MemoryNet: pipes in this process
//! ```
//! Each seam is a folder: `mod.rs` has the trait, its types and the one contract that every
//! implementation must pass. Time and chance are in [`crate::foundation`].
//!
//! **Not here:** decisions. A seam does one thing when told and says how it ended.

pub mod disk;
pub mod host;
pub mod net;
pub mod netlink;
pub mod systemd;
