//! Layer 6: the daemons.

pub mod fleet;
