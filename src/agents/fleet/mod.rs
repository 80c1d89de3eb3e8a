//! fleetd: systemd units scheduled over a cluster.
//!
//! ```text
//!              store (v2 keys)
//!       mirror │          ▲ registry: our writes
//!              ▼          │
//!             view ───────┼─────────────┬──────────────┐
//!              │          │             │              │
//!           engine     presence       agent ──▶ publisher      server ◀── fleetctl
//!     lease, schedule  "I am here"  plan ─▶ systemd  states     answers
//! ```
//! Every machine runs all of it; one engine holds the lease and decides. While the store is away
//! nothing is decided, nothing is stopped, and the API answers 503.
//!
//! **Not here:** the formats, which are `wire::fleet`; resources, rebalancing, fencing.

pub mod agent;
pub mod answers;
pub mod cluster;
pub mod config;
pub mod engine;
pub mod lease;
pub mod plan;
pub mod presence;
pub mod publisher;
pub mod registry;
pub mod run;
pub mod schedule;
pub mod server;
pub mod unit_folder;
pub mod view;

#[cfg(test)]
mod tests;
