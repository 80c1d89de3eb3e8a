//! Layer 6: the daemons.
