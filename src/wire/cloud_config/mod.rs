//! What a machine is told at boot, in the words of 2015.
//!
//! ```text
//!   bytes ─▶ user_data (gunzip, substitute, kind) ─┬─▶ config ─▶ outputs: the texts of the files
//!                                                  └─▶ validate: findings with line numbers
//!              both read one tree (yaml) by one table (schema)
//! ```
//! Hyphens and underscores in keys are the same. What is not in the schema is ignored when a
//! config is applied, and found by `validate`.
//!
//! **Not here:** where user-data comes from and what is done with it (`agents::provision`), and
//! multipart user-data.

pub mod config;
pub mod content;
pub mod metadata;
pub mod outputs;
pub mod patterns;
pub mod schema;
pub mod substitute;
pub mod user_data;
pub mod validate;
pub mod yaml;
