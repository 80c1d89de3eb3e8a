//! The formats of the store's client APIs.

pub mod keys_v2;
pub mod v3;
