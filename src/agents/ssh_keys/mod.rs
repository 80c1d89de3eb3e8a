//! Keeps a user's `authorized_keys` as the sum of named fragments.
//!
//! ```text
//!   ~/.ssh/authorized_keys.d/NAME ──▶ keys (pure) ──▶ ~/.ssh/authorized_keys
//! ```
//! [`keys`] knows what a key is, [`fragments`] what a change makes of the fragments, and
//! [`folder`] reads and writes.
//!
//! **Not here:** where keys come from; `coreos-cloudinit` brings those of the cloud.

pub mod folder;
pub mod fragments;
pub mod keys;
