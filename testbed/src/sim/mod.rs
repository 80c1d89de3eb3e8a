//! The store's cluster in one process, on a simulated network, disk and clock, from one seed.
//!
//! ```text
//!   world ─┬─▶ members: the product's own `Member` and v2 server, over net and a disk that crashes
//!          ├─▶ clients: the product's own `KeysClient`; every call goes into the record
//!          ├─▶ faults: partitions, delays, crashes, slow disks, moved leaders
//!          └─▶ checks: after every step, and of the whole history at the end
//! ```
//! The same seed tells the same story, to the letter. What it took is in
//! `docs/adr/0004-simulation.md`.

pub mod checks;
pub mod client;
pub mod invariants;
pub mod net;
pub mod record;
pub mod world;

pub use world::{Outcome, Setup, run};
