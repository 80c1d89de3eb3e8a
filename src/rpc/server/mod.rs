//! Servers: HTTP over the network seam, and the store's two APIs on one port of it.
//!
//! ```text
//!  Incoming ─▶ listen ─┬─▶ v3, if it is gRPC ──────┬─▶ consensus::Member
//!                      └─▶ keys_v2, health ────────┘
//!           └▶ peer ─┬─▶ frames between members
//!                    └─▶ GET /members, /version
//! ```

mod first_word;
pub mod health;
pub mod keys_v2;
pub mod listen;
pub mod params;
pub mod peer;
pub mod v3;
