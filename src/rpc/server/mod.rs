//! Servers: HTTP over the network seam, and the store's v2 API on it.
//!
//! ```text
//!  Incoming ─▶ listen ─▶ keys_v2 ─▶ params ─▶ consensus::Member
//!           └▶ peer ─┬─▶ frames between members
//!                    └─▶ GET /members, /version
//! ```
//! **Not here yet:** v3.

pub mod keys_v2;
pub mod listen;
pub mod params;
pub mod peer;
