//! The init system, as far as we speak to it.
//!
//! A call that makes a job returns when systemd has *finished* the job, not when it has queued
//! it, and is an error when the job did not end in `done`. Nothing here gives up by itself:
//! callers bring their own deadline.
//!
//! **Not here:** what a unit file means; `wire::fleet` and `agents` know that.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use futures_util::Stream;

/// A future that the seam returns, boxed so that the seam can be a trait object.
pub type Call<'a, T> = Pin<Box<dyn Future<Output = Result<T, SystemdError>> + Send + 'a>>;

/// Changes of units, in the order in which they happened. Ends when the bus is gone.
pub type Changes = Pin<Box<dyn Stream<Item = Change> + Send>>;

/// The name of a unit, such as `sshd.service`. Always has a suffix that systemd knows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnitName(String);

/// Suffixes that systemd gives a meaning to.
const SUFFIXES: [&str; 11] = [
    "service",
    "socket",
    "target",
    "timer",
    "path",
    "mount",
    "automount",
    "swap",
    "slice",
    "scope",
    "device",
];

/// Longest name that systemd accepts, in bytes (`UNIT_NAME_MAX`).
pub const UNIT_NAME_BYTES_MAX: usize = 256;

impl UnitName {
    /// Parses a unit name: `[A-Za-z0-9:_.\@-]+` and a known suffix.
    pub fn parse(name: &str) -> Result<Self, SystemdError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
        let known = name.rsplit_once('.').is_some_and(|(prefix, suffix)| {
            !prefix.is_empty() && SUFFIXES.contains(&suffix) && name.chars().all(allowed)
        });
        if known && name.len() < UNIT_NAME_BYTES_MAX {
            Ok(Self(name.to_owned()))
        } else {
            Err(SystemdError::BadName { name: name.to_owned() })
        }
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a job is to do with a unit. The job mode is always `replace`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Start it; fine if it runs.
    Start,
    /// Stop it; fine if it does not run.
    Stop,
    /// Stop and start it, or just start it.
    Restart,
    /// Ask it to read its configuration again; an error if it cannot.
    Reload,
    /// Restart it if it runs.
    TryRestart,
    /// Reload it if it can, else restart it; start it if it does not run.
    ReloadOrRestart,
    /// Reload or restart it if it runs.
    ReloadOrTryRestart,
}

/// How long a change of what is enabled or masked lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lasting {
    /// Until the machine reboots: links below `/run`.
    Runtime,
    /// For good: links below `/etc`.
    Persistent,
}

/// What systemd says of a unit, in its own words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnitState {
    /// `loaded`, `not-found`, `masked`, `error`, …
    pub load: String,
    /// `active`, `inactive`, `failed`, `activating`, …
    pub active: String,
    /// `running`, `dead`, `exited`, …
    pub sub: String,
}

/// A unit whose state has, or may have, changed: read it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// This unit changed.
    Unit(String),
    /// Some were missed: read all again.
    Overrun,
}

/// A command that runs as a unit of its own, once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transient {
    /// The unit's name.
    pub unit: UnitName,
    /// What `systemctl status` shows.
    pub description: String,
    /// The program's path and its arguments.
    pub command: Vec<String>,
}

/// The init system refused, or could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    /// The name is none.
    #[error("`{name}` is not a unit name such as `web.service`")]
    BadName {
        /// What was given.
        name: String,
    },
    /// There is no such unit.
    #[error("unit `{unit}` does not exist")]
    NotFound {
        /// The unit asked for.
        unit: UnitName,
    },
    /// The unit is masked.
    #[error("unit `{unit}` is masked")]
    Masked {
        /// The unit asked for.
        unit: UnitName,
    },
    /// The job ended, and not well.
    #[error("the job for unit `{unit}` ended as `{result}`; `systemctl status {unit}` says why")]
    Job {
        /// The unit.
        unit: UnitName,
        /// systemd's word: `failed`, `timeout`, `canceled`, `dependency`, `skipped`, …
        result: String,
    },
    /// systemd said no, in its own words.
    #[error("systemd refused {what}: {message}")]
    Refused {
        /// What was asked.
        what: String,
        /// Its answer.
        message: String,
    },
    /// The bus is not there, or broke.
    #[error("cannot reach systemd over D-Bus for {what}")]
    Unreachable {
        /// What was asked.
        what: String,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Drives the units of this machine.
pub trait Systemd: fmt::Debug + Send + Sync {
    /// Runs one job and waits for its end. Dropping the future does not cancel the job.
    fn run<'a>(&'a self, verb: Verb, unit: &'a UnitName) -> Call<'a, ()>;

    /// Runs a command as a transient service and waits until it was started.
    fn run_transient<'a>(&'a self, transient: &'a Transient) -> Call<'a, ()>;

    /// Makes the unit file at `path` known under its base name, by a link in the runtime area.
    fn link<'a>(&'a self, path: &'a Path) -> Call<'a, ()>;

    /// Enables units by what their `[Install]` says, replacing links that stand in the way.
    fn enable<'a>(&'a self, units: &'a [UnitName], lasting: Lasting) -> Call<'a, ()>;

    /// Removes the links that `enable` and `link` made.
    fn disable<'a>(&'a self, units: &'a [UnitName], lasting: Lasting) -> Call<'a, ()>;

    /// Links units to nothing, so that they cannot start.
    fn mask<'a>(&'a self, units: &'a [UnitName], lasting: Lasting) -> Call<'a, ()>;

    /// Undoes `mask`.
    fn unmask<'a>(&'a self, units: &'a [UnitName], lasting: Lasting) -> Call<'a, ()>;

    /// Forgets that a unit has failed; fine if it has not, or does not exist.
    fn reset_failed<'a>(&'a self, unit: &'a UnitName) -> Call<'a, ()>;

    /// Reads all unit files again.
    fn daemon_reload(&self) -> Call<'_, ()>;

    /// Returns the states of units by name. One that does not exist is `not-found`.
    fn states<'a>(&'a self, units: &'a [UnitName]) -> Call<'a, BTreeMap<UnitName, UnitState>>;

    /// Returns the states of all units in memory, by name.
    fn list(&self) -> Call<'_, BTreeMap<String, UnitState>>;

    /// Starts to report changes. What happens after the call returned is reported.
    fn changes(&self) -> Call<'_, Changes>;

    /// Returns where a unit file that we write belongs.
    fn unit_folder(&self, lasting: Lasting) -> PathBuf {
        PathBuf::from(match lasting {
            Lasting::Runtime => "/run/systemd/system",
            Lasting::Persistent => "/etc/systemd/system",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_name_has_a_suffix_that_systemd_knows() {
        assert_eq!(UnitName::parse("a@1.service").unwrap().as_str(), "a@1.service");
        for bad in ["", "a", ".service", "a.conf", "a b.service", "a/b.service"] {
            assert!(UnitName::parse(bad).is_err(), "{bad}");
        }
    }
}
