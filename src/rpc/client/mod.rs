//! Clients: what one program says to another.

pub mod keys;
