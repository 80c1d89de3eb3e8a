//! The init system, as far as we speak to it.
//!
//! A call that makes a job returns when systemd has *finished* the job, not when it has queued
//! it, and is an error when the job did not end in `done`. Nothing here gives up by itself:
//! callers bring their own deadline.
//!
//! ```text
//!   agents ──▶ Systemd ──┬─▶ DbusSystemd: the manager of this machine, over the system bus
//!                        └─▶ MemorySystemd: a graph of units whose jobs take tokio's time
//! ```
//!
//! **Not here:** what a unit file means; `wire::fleet` and `agents` know that. Nothing reloads
//! by itself either: after `link`, `enable`, `mask` and their like comes a `daemon_reload`. Only a
//! unit that is not in memory is read, with its drop-ins, when a job asks for it.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use futures_util::Stream;
use tokio::sync::broadcast;

pub mod dbus;
#[cfg(test)]
mod fake;
pub mod memory;

pub use dbus::DbusSystemd;
pub use memory::MemorySystemd;

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

    /// Tells whether this is a template, such as `web@.service`, which has no state of its own.
    pub fn is_template(&self) -> bool {
        self.0.contains("@.")
    }
}

impl fmt::Display for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Changes that wait for a slow reader before it is told to read all again.
const CHANGES_MAX: usize = 4_096;

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

impl fmt::Display for Verb {
    /// Writes the verb as `systemctl` has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Reload => "reload",
            Self::TryRestart => "try-restart",
            Self::ReloadOrRestart => "reload-or-restart",
            Self::ReloadOrTryRestart => "reload-or-try-restart",
        })
    }
}

/// How long a change of what is enabled or masked lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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

impl UnitState {
    /// Makes the state of a unit that does not exist.
    pub fn not_found() -> Self {
        let [load, active, sub] = ["not-found", "inactive", "dead"].map(str::to_owned);
        Self { load, active, sub }
    }
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
    /// Runs one job and waits for its end. Dropping the future does not cancel the job; an
    /// opposite job does, which ends this one as `canceled`.
    fn run<'a>(&'a self, verb: Verb, unit: &'a UnitName) -> Call<'a, ()>;

    /// Runs a command as a transient service and waits until it was started.
    fn run_transient<'a>(&'a self, transient: &'a Transient) -> Call<'a, ()>;

    /// Makes the unit file at `path` known under its base name, by a link in the runtime area.
    fn link<'a>(&'a self, path: &'a Path) -> Call<'a, ()>;

    /// Enables units by what their `[Install]` says, replacing links that stand in the way.
    fn enable<'a>(&'a self, units: &'a [UnitName], lasting: Lasting) -> Call<'a, ()>;

    /// Removes the links that `enable` and `link` made.
    fn disable<'a>(&'a self, units: &'a [UnitName], lasting: Lasting) -> Call<'a, ()>;

    /// Links units to nothing, so that they cannot start. A link that `link` made is replaced, so
    /// that after a runtime mask and its end such a unit is gone.
    fn mask<'a>(&'a self, units: &'a [UnitName], lasting: Lasting) -> Call<'a, ()>;

    /// Undoes `mask`.
    fn unmask<'a>(&'a self, units: &'a [UnitName], lasting: Lasting) -> Call<'a, ()>;

    /// Forgets that a unit has failed; fine if it has not, or does not exist.
    fn reset_failed<'a>(&'a self, unit: &'a UnitName) -> Call<'a, ()>;

    /// Reads all unit files again.
    fn daemon_reload(&self) -> Call<'_, ()>;

    /// Returns the states of units by name. One that does not exist is `not-found`, and so is a
    /// template.
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

/// Turns a channel's end into a stream in which what was missed is an overrun.
fn stream_of(changes: broadcast::Receiver<Change>) -> Changes {
    Box::pin(futures_util::stream::unfold(changes, |mut changes| async move {
        let change = match changes.recv().await {
            Ok(change) => change,
            Err(broadcast::error::RecvError::Lagged(_)) => Change::Overrun,
            Err(broadcast::error::RecvError::Closed) => return None,
        };
        Some((change, changes))
    }))
}

/// The unit of the contract that always starts.
#[cfg(any(test, feature = "contracts"))]
pub const GOOD: &str = "corebox-contract-good.service";

/// The unit of the contract that never starts: an implementation in memory must be told so.
#[cfg(any(test, feature = "contracts"))]
pub const BAD: &str = "corebox-contract-bad.service";

/// Everything that any implementation must do; `folder` is one whose files systemd can read.
///
/// # Panics
///
/// Where the implementation breaks the contract.
#[cfg(any(test, feature = "contracts"))]
pub async fn contract(systemd: &dyn Systemd, folder: &Path) {
    let [good, bad, missing] = [GOOD, BAD, "corebox-contract-missing.service"]
        .map(|name| UnitName::parse(name).expect("these are names"));
    for (unit, run) in [(&good, "/bin/sleep 600"), (&bad, "/bin/false")] {
        let path = folder.join(unit.as_str());
        let text = format!("[Service]\nType=exec\nExecStart={run}\n");
        let text = if unit == &bad { text.replace("exec", "oneshot") } else { text };
        std::fs::write(&path, text).expect("the folder is writable");
        systemd.link(&path).await.expect("a unit file can be linked");
    }
    systemd.daemon_reload().await.expect("unit files can be read again");
    contract_of_jobs(systemd, &good, &bad, &missing).await;
    contract_of_changes(systemd, &good).await;
    contract_of_links(systemd, &good, &bad).await;
}

#[cfg(any(test, feature = "contracts"))]
async fn active(systemd: &dyn Systemd, unit: &UnitName) -> String {
    let states = systemd.states(std::slice::from_ref(unit)).await.expect("states can be read");
    states[unit].active.clone()
}

#[cfg(any(test, feature = "contracts"))]
async fn contract_of_jobs(
    systemd: &dyn Systemd,
    good: &UnitName,
    bad: &UnitName,
    missing: &UnitName,
) {
    assert_eq!(active(systemd, good).await, "inactive");
    systemd.run(Verb::Start, good).await.expect("a good unit starts");
    assert_eq!(active(systemd, good).await, "active", "a call returns when the job is done");
    systemd.run(Verb::Start, good).await.expect("starting twice is fine");
    systemd.run(Verb::Restart, good).await.expect("a good unit restarts");
    assert!(systemd.list().await.expect("units can be listed").contains_key(GOOD));
    systemd.run(Verb::Stop, good).await.expect("a good unit stops");
    assert_eq!(active(systemd, good).await, "inactive");
    systemd.run(Verb::TryRestart, good).await.expect("nothing to restart is fine");
    assert_eq!(active(systemd, good).await, "inactive");

    let failed = systemd.run(Verb::Start, bad).await.expect_err("a bad unit does not start");
    assert!(matches!(&failed, SystemdError::Job { result, .. } if result == "failed"), "{failed}");
    assert_eq!(active(systemd, bad).await, "failed");
    systemd.reset_failed(bad).await.expect("a failure can be forgotten");
    assert_eq!(active(systemd, bad).await, "inactive");
    systemd.reset_failed(missing).await.expect("nothing to forget is fine");

    let none = systemd.run(Verb::Start, missing).await.expect_err("it does not exist");
    assert!(matches!(none, SystemdError::NotFound { .. }), "{none}");
    let template = UnitName::parse("corebox-contract@.service").expect("this is a name");
    let asked = [missing.clone(), template.clone()];
    let states = systemd.states(&asked).await.expect("they are not found");
    assert_eq!(states[missing], UnitState::not_found());
    assert_eq!(states[&template], UnitState::not_found());
}

#[cfg(any(test, feature = "contracts"))]
async fn contract_of_changes(systemd: &dyn Systemd, good: &UnitName) {
    use futures_util::StreamExt as _;
    let mut changes = systemd.changes().await.expect("changes can be watched");
    let started = systemd.run(Verb::Start, good);
    started.await.expect("a good unit starts");
    let seen = async {
        while let Some(change) = changes.next().await {
            let about = matches!(&change, Change::Unit(unit) if unit == GOOD);
            if about && active(systemd, good).await == "active" {
                return;
            }
        }
        panic!("the changes ended before the start was reported");
    };
    let deadline = std::time::Duration::from_secs(10);
    tokio::time::timeout(deadline, seen).await.expect("a start is a change");
    systemd.run(Verb::Stop, good).await.expect("a good unit stops");
}

#[cfg(any(test, feature = "contracts"))]
async fn contract_of_links(systemd: &dyn Systemd, good: &UnitName, bad: &UnitName) {
    let units = std::slice::from_ref(good);
    systemd.mask(units, Lasting::Runtime).await.expect("a unit can be masked");
    systemd.daemon_reload().await.expect("unit files can be read again");
    let masked = systemd.run(Verb::Start, good).await.expect_err("it is masked");
    assert!(matches!(masked, SystemdError::Masked { .. }), "{masked}");
    systemd.unmask(units, Lasting::Runtime).await.expect("a unit can be unmasked");
    systemd.unmask(units, Lasting::Runtime).await.expect("unmasking twice is fine");
    systemd
        .disable(std::slice::from_ref(bad), Lasting::Runtime)
        .await
        .expect("links can be removed");
    systemd.daemon_reload().await.expect("unit files can be read again");
    let gone = systemd.run(Verb::Start, bad).await.expect_err("its link is gone");
    assert!(matches!(gone, SystemdError::NotFound { .. }), "{gone}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_name_has_a_suffix_that_systemd_knows() {
        let instance = UnitName::parse("a@1.service").unwrap();
        assert_eq!((instance.as_str(), instance.is_template()), ("a@1.service", false));
        assert!(UnitName::parse("a@.service").unwrap().is_template());
        for bad in ["", "a", ".service", "a.conf", "a b.service", "a/b.service"] {
            assert!(UnitName::parse(bad).is_err(), "{bad}");
        }
    }
}
