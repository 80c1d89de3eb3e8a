//! Layer 1: the seams to the world.
//!
//! ```text
//!   agents ──▶ trait (words of the domain) ──┬─▶ the real thing, named after what it stands on
//!                                            └─▶ memory: its twin, for tests and simulation
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
