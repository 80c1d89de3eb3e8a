//! Layer 6: the daemons.

pub mod environment;
pub mod ssh_keys;
