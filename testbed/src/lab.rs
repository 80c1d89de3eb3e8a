//! A lab: a network, a key, a folder, and an end.
//!
//! Everything that a lab has carries its id, and what it keeps is in `target/lab/<id>`: a lab that
//! was killed is taken away by the next one that starts, and by `cargo xtask down`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::error::LabError;
use crate::net::{self, Net};
use crate::process::Lifetime;
use crate::ssh::{Key, Ssh};

/// How every lab's id begins.
const PREFIX: &str = "cb";
/// The file that says who owns a lab.
const OWNER: &str = "owner.json";

/// Who has to be there for a lab to live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
enum Owner {
    /// A process: its id, and when it started, since ids come again.
    Process { pid: u32, started: u64 },
    /// Nobody: it stays until it is taken down.
    Nobody,
}

/// A lab that this process works with.
#[derive(Debug)]
pub struct Lab {
    dir: PathBuf,
    sockets: PathBuf,
    net: Net,
    key: Key,
    lifetime: Lifetime,
}

/// What the machines of a lab have to know of it.
#[derive(Debug, Clone)]
pub struct Shared {
    namespace: String,
    lifetime: Lifetime,
}

impl Shared {
    /// The network namespace that they are plugged into.
    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// How long they live.
    pub(crate) fn lifetime(&self) -> Lifetime {
        self.lifetime
    }
}

impl Lab {
    /// Starts a lab, after taking away those whose owner is gone.
    pub fn start(lifetime: Lifetime) -> Result<Self, LabError> {
        sweep();
        let id = fresh_id();
        let dir = root().join(&id);
        fs::create_dir_all(&dir).map_err(LabError::file("make", &dir))?;
        own(&dir, &Owner::Process { pid: std::process::id(), started: started("self") })?;
        let sockets = sockets(&id);
        fs::create_dir_all(&sockets).map_err(LabError::file("make", &sockets))?;
        let net = Net::start(&id, &dir, lifetime)?;
        let key = Key::make(&dir)?;
        Ok(Self { dir, sockets, net, key, lifetime })
    }

    /// Takes hold of a lab that somebody started and left running.
    pub fn existing(id: &str) -> Result<Self, LabError> {
        let dir = root().join(id);
        let key = Key::make(&dir)?;
        let net = Net::existing(id);
        Ok(Self { dir, sockets: sockets(id), net, key, lifetime: Lifetime::Detached })
    }

    /// From now on it lives without this process.
    pub fn leave(&self) -> Result<(), LabError> {
        own(&self.dir, &Owner::Nobody)
    }

    /// Its name everywhere.
    #[must_use]
    pub fn id(&self) -> &str {
        self.net.namespace()
    }

    /// Its network.
    #[must_use]
    pub fn net(&self) -> &Net {
        &self.net
    }

    /// Its key.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// How long what it starts lives.
    #[must_use]
    pub fn lifetime(&self) -> Lifetime {
        self.lifetime
    }

    /// Where its files are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A folder with a short path, since a socket's may have 107 bytes.
    #[must_use]
    pub fn sockets(&self) -> &Path {
        &self.sockets
    }

    /// Where the logs of a failure stay.
    #[must_use]
    pub fn failures(&self) -> PathBuf {
        self.dir.join("failures")
    }

    /// Makes a folder of its own for something.
    pub fn folder(&self, name: &str) -> Result<PathBuf, LabError> {
        let folder = self.dir.join(name);
        fs::create_dir_all(&folder).map_err(LabError::file("make", &folder))?;
        Ok(folder)
    }

    /// The way into the node with this number.
    #[must_use]
    pub fn ssh(&self, number: u8) -> Ssh {
        Ssh::new(self.id(), Net::address(number), &self.key, &self.sockets)
    }

    pub(crate) fn shared(&self) -> Shared {
        Shared { namespace: self.id().to_owned(), lifetime: self.lifetime }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.lifetime == Lifetime::Owned {
            let id = self.id().to_owned();
            take_down(&id);
        }
    }
}

/// Takes a lab away: its processes, namespaces and files, save what it kept of a failure.
pub fn take_down(id: &str) {
    net::remove(id);
    crate::nodes::cgroup::remove_all(id);
    fs::remove_dir_all(sockets(id)).ok();
    let dir = root().join(id);
    // Each step does what it can: a file that stays is seen in `target/lab`.
    for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_name() == "failures" {
            continue;
        }
        let removed =
            if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.ok();
    }
    // Fails where failures are kept, which is meant.
    fs::remove_dir(&dir).ok();
}

/// Takes away every lab whose owner is gone, and returns their ids.
#[must_use = "the ids of what was removed"]
pub fn sweep_leftovers() -> Vec<String> {
    let gone: Vec<_> = labs().into_iter().filter(|(_, alive)| !alive).map(|(id, _)| id).collect();
    for id in &gone {
        take_down(id);
    }
    gone
}

fn sweep() {
    drop(sweep_leftovers());
}

/// The labs of this checkout that are there, each with whether its owner lives.
#[must_use]
pub fn labs() -> Vec<(String, bool)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root()).into_iter().flatten().flatten() {
        let Ok(text) = fs::read_to_string(entry.path().join(OWNER)) else { continue };
        let alive = match serde_json::from_str(&text) {
            Ok(Owner::Nobody) => true,
            Ok(Owner::Process { pid, started: at }) => started(&pid.to_string()) == at && at != 0,
            Err(_) => false,
        };
        found.push((entry.file_name().to_string_lossy().into_owned(), alive));
    }
    found.sort();
    found
}

/// The labs that were left running until somebody takes them down.
#[must_use]
pub fn left_running() -> Vec<String> {
    let nobodys = |id: &String| {
        let text = fs::read_to_string(root().join(id).join(OWNER)).unwrap_or_default();
        serde_json::from_str(&text).is_ok_and(|owner: Owner| owner == Owner::Nobody)
    };
    labs().into_iter().map(|(id, _)| id).filter(nobodys).collect()
}

/// Where labs keep their state: `target/lab` of this checkout.
#[must_use]
pub fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/lab");
    fs::create_dir_all(&own).and_then(|()| own.canonicalize()).unwrap_or(own)
}

fn sockets(id: &str) -> PathBuf {
    Path::new("/tmp").join(format!("corebox-{id}"))
}

fn own(dir: &Path, owner: &Owner) -> Result<(), LabError> {
    let path = dir.join(OWNER);
    let text = serde_json::to_string(owner).expect("an owner has only numbers");
    fs::write(&path, text).map_err(LabError::file("write", &path))
}

/// When a process started, in ticks since the host did; 0 when there is no such process.
fn started(pid: &str) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    after_name.split_whitespace().nth(19).and_then(|ticks| ticks.parse().ok()).unwrap_or(0)
}

fn fresh_id() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.subsec_nanos());
    format!("{PREFIX}{:x}{:03x}", std::process::id(), now & 0xfff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_id_and_its_start() {
        assert_ne!(started("self"), 0);
        assert_eq!(started("self"), started(&std::process::id().to_string()));
        assert_eq!(started("no-such-process"), 0);
    }

    #[test]
    fn an_id_fits_into_the_name_of_a_namespace() {
        assert!(fresh_id().len() <= 14, "{}", fresh_id());
    }
}
