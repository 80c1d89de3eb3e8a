//! Makes a machine what its user-data says, at every boot.
//!
//! ```text
//!   sources ──▶ user-data, metadata ──▶ plan: steps in their order ──▶ apply: host, systemd, disk
//!   (file, url, config drive, kernel command line; the first that is there wins)
//! ```
//! [`run::run`] is the whole of it. User-data that cannot be read is not applied in part: the
//! machine gets its name and its keys, so that somebody can log in and look. What uses an address
//! that nobody knows is left out by name.
//!
//! **Not here:** the sources of single clouds, the conversion of their network data, multipart
//! user-data.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::foundation::random::Random;
use crate::platform::host::Host;
use crate::platform::systemd::Systemd;
use crate::wire::cloud_config::config::clean;

pub mod apply;
pub mod fetch;
pub mod plan;
pub mod run;
#[cfg(test)]
mod scenarios;
pub mod sources;
mod units;
mod unknown;
mod users;

/// The folder that stands for `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root(PathBuf);

impl Root {
    /// Makes `folder` stand for `/`.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self(folder.into())
    }

    /// Returns where `path` is; it never leaves the root by its own `..`.
    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let clean = clean(&path.as_ref().to_string_lossy());
        self.0.join(clean.strip_prefix("/").unwrap_or(&clean))
    }
}

/// The machine, as far as provisioning touches it.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Its name, users and programs.
    pub host: Arc<dyn Host>,
    /// Its units.
    pub systemd: Arc<dyn Systemd>,
    /// What it can ask over the network.
    pub fetch: Arc<dyn fetch::Fetch>,
    /// Its files.
    pub root: Root,
    /// Chance, for names that are there once.
    pub random: Arc<Random>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_below_the_root() {
        let root = Root::new("/tmp/x");
        assert_eq!(root.at("/etc/motd"), Path::new("/tmp/x/etc/motd"));
        assert_eq!(root.at("etc/../../../motd"), Path::new("/tmp/x/motd"));
        assert_eq!(Root::new("/").at("/etc/motd"), Path::new("/etc/motd"));
    }
}
