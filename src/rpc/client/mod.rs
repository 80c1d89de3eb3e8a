//! Clients: what one program says to another.
//!
//! ```text
//!   mirror ─▶ Keys (trait) ─┬─▶ keys_http ─▶ http ─▶ platform::net
//!                           └─▶ keys_memory: its twin, for tests and simulation
//!   v3: etcd's v3 API over gRPC ─▶ platform::net
//! ```
//!
//! **Not here:** what the answers mean to an agent, and TLS.

pub mod dial;
pub mod fleet;
pub mod http;
pub mod keys;
pub mod keys_contract;
pub mod keys_http;
pub mod keys_memory;
pub mod members_http;
pub mod mirror;
#[cfg(test)]
pub(crate) mod scripted;
pub mod url;
pub mod v3;
