//! A lab: a network, a key, a folder, and an end.
//!
//! Everything that a lab has carries its id, and what it keeps is in `target/lab/<id>`: a lab that
//! was killed is taken away by the next one that starts, and by `cargo xtask down`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

use crate::error::LabError;
use crate::net::{self, Net};
use crate::process::Lifetime;
use crate::ssh::{Key, Ssh};
use crate::wait;

/// How every lab's id begins.
const PREFIX: &str = "cb";
/// The file that says who owns a lab.
const OWNER: &str = "owner.json";
/// How long a killed process may take to be gone.
const GONE: Duration = Duration::from_secs(10);

/// Who has to be there for a lab to live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
enum Owner {
    /// A process: its id, and when it started, since ids come again.
    Process { pid: u32, started: u64 },
    /// A process that is the cluster, and ends with it.
    Server { pid: u32, started: u64 },
    /// Nobody: it stays until it is taken down.
    Nobody,
}

impl Owner {
    fn lives(&self) -> bool {
        match self {
            Self::Nobody => true,
            Self::Process { pid, started: at } | Self::Server { pid, started: at } => {
                started(&pid.to_string()) == *at && *at != 0
            }
        }
    }

    /// Nobody waits for it: it stays until it is taken down.
    fn left(&self) -> bool {
        match self {
            Self::Nobody | Self::Server { .. } => true,
            Self::Process { .. } => false,
        }
    }
}

/// A name and folders that only one lab has.
#[derive(Debug, Clone)]
pub struct Ground {
    /// The lab's name everywhere.
    pub id: String,
    /// Its folder.
    pub dir: PathBuf,
    /// A folder with a short path, since a socket's may have 107 bytes.
    pub sockets: PathBuf,
}

impl Ground {
    /// Makes the folders of a new lab, which is this process's, after taking away the labs whose
    /// owner is gone.
    pub fn claim() -> Result<Self, LabError> {
        sweep();
        let id = fresh_id();
        let dir = root().join(&id);
        fs::create_dir_all(&dir).map_err(LabError::file("make", &dir))?;
        own(&dir, &Owner::Process { pid: std::process::id(), started: started("self") })?;
        let sockets = sockets(&id);
        fs::create_dir_all(&sockets).map_err(LabError::file("make", &sockets))?;
        Ok(Self { id, dir, sockets })
    }
}

/// Says that a lab lives in this process from now on, until somebody takes it down.
pub fn serve_from_here(id: &str) -> Result<(), LabError> {
    own(&root().join(id), &Owner::Server { pid: std::process::id(), started: started("self") })
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
        let Ground { id, dir, sockets } = Ground::claim()?;
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
    end_server(id);
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

/// Ends the process that is the cluster, where there is one, and waits until it is gone.
fn end_server(id: &str) {
    let Some(owner @ Owner::Server { pid, .. }) = owner(id) else { return };
    let known = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Some(known) = known.filter(|_| owner.lives()) {
        rustix::process::kill_process(known, Signal::KILL).ok();
        let gone = || if owner.lives() { Err("it is still there") } else { Ok(()) };
        wait::until("the cluster's process to be gone", GONE, gone).ok();
    }
    fs::remove_file(environment()).ok();
}

/// Where a shell finds what leads it to the cluster of one process that was left running.
#[must_use]
pub fn environment() -> PathBuf {
    root().join("env")
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
        let id = entry.file_name().to_string_lossy().into_owned();
        if let Some(owner) = owner(&id) {
            found.push((id, owner.lives()));
        }
    }
    found.sort();
    found
}

/// The labs that were left running until somebody takes them down.
#[must_use]
pub fn left_running() -> Vec<String> {
    let left = |id: &String| owner(id).is_some_and(|owner| owner.left());
    labs().into_iter().filter(|(id, lives)| *lives && left(id)).map(|(id, _)| id).collect()
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

/// Who owns a lab; nothing where there is no such lab, and a damaged note counts as a dead owner.
fn owner(id: &str) -> Option<Owner> {
    let text = fs::read_to_string(root().join(id).join(OWNER)).ok()?;
    Some(serde_json::from_str(&text).unwrap_or(Owner::Process { pid: 0, started: 0 }))
}

fn own(dir: &Path, owner: &Owner) -> Result<(), LabError> {
    let (path, new) = (dir.join(OWNER), dir.join("owner.new"));
    let text = serde_json::to_string(owner).expect("an owner has only numbers");
    // At once: whoever reads half of it would take the lab for a leftover.
    fs::write(&new, text)
        .and_then(|()| fs::rename(&new, &path))
        .map_err(LabError::file("write", &path))
}

/// When a process started, in ticks since the host did; 0 when there is no such process, or one
/// that has ended and that nobody waited for.
fn started(pid: &str) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let words: Vec<_> = after_name.split_whitespace().collect();
    match words[..] {
        [] | ["Z" | "X", ..] => 0,
        _ => words.get(19).and_then(|ticks| ticks.parse().ok()).unwrap_or(0),
    }
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
    fn a_process_that_ended_is_no_owner() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        let owner = Owner::Server { pid, started: started(&pid.to_string()) };
        // Nobody has waited for it: the kernel still shows it.
        wait::until("the program to end", GONE, || {
            if owner.lives() { Err("it still lives") } else { Ok(()) }
        })
        .unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn an_id_fits_into_the_name_of_a_namespace() {
        assert!(fresh_id().len() <= 14, "{}", fresh_id());
    }
}
