//! A member of the store as a daemon.
//!
//! ```text
//!  config ─▶ data_dir ─▶ bootstrap (static, or discovery) ─▶ run: Member, peer port, client port
//! ```
//! **Not here yet:** proxies, TLS, joining a cluster that runs.

pub mod bootstrap;
pub mod config;
pub mod config_file;
pub mod data_dir;
pub mod discovery;
pub mod flags;
pub mod run;
