//! Servers: HTTP over the network seam, and the store's two APIs on one port of it.
//!
//! ```text
//!  Incoming ─▶ listen ─┬─▶ v3, if it is gRPC ──────┬─▶ consensus::Member
//!                      └─▶ keys_v2 ─▶ params ──────┤
//!                             └─▶ members_v2, health ┘
//!           └▶ peer ─┬─▶ frames between members
//!                    └─▶ GET /members, /version
//! ```

pub mod access;
pub mod answer;
mod body;
mod deadlines;
mod debug;
mod first_word;
mod form;
pub mod health;
pub mod keys_v2;
pub mod listen;
pub mod members_v2;
mod metrics;
pub mod params;
pub mod peer;
mod stats_v2;
mod together;
pub mod v3;
