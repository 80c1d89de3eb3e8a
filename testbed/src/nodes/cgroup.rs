//! A piece of the host's process tree for each container node, so that all of a node can be killed
//! at once and its systemd has a tree of its own to rule.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::LabError;
use crate::wait;

/// How long killed processes may take to be gone.
const GONE: Duration = Duration::from_secs(20);

/// The process tree of one node.
#[derive(Debug)]
pub(super) struct Cgroup {
    folders: Vec<PathBuf>,
}

impl Cgroup {
    /// Makes it. Where the host still has both versions of control groups, in both.
    pub(super) fn make(lab: &str, node: &str) -> Result<Self, LabError> {
        let folders: Vec<_> = roots().iter().map(|root| root.join(lab).join(node)).collect();
        if folders.is_empty() {
            let text =
                "no version 2 control groups below /sys/fs/cgroup: container nodes need them";
            return Err(LabError::Missing(text.to_owned()));
        }
        for folder in &folders {
            fs::create_dir_all(folder).map_err(LabError::file("make", folder))?;
        }
        Ok(Self { folders })
    }

    /// A shell command that moves the shell itself into it.
    pub(super) fn enter(&self) -> String {
        let moves = self
            .folders
            .iter()
            .map(|folder| format!("echo $$ > {}/cgroup.procs", folder.display()));
        moves.collect::<Vec<_>>().join(" && ")
    }

    /// Kills everything in it, and waits until it is gone.
    pub(super) fn kill(&self) {
        let Some(unified) = self.folders.first() else { return };
        // Not there any more: then nothing is in it.
        fs::write(unified.join("cgroup.kill"), "1").ok();
        wait::until("a killed node to be gone", GONE, || {
            let events = fs::read_to_string(unified.join("cgroup.events")).unwrap_or_default();
            if events.contains("populated 1") { Err(events) } else { Ok(()) }
        })
        .ok();
    }

    /// Takes it away.
    pub(super) fn remove(&self) {
        self.folders.iter().for_each(|folder| remove_tree(folder));
    }
}

/// Takes away what all nodes of a lab have, running or not.
pub(crate) fn remove_all(lab: &str) {
    for root in roots() {
        let folder = root.join(lab);
        if folder.exists() {
            fs::write(folder.join("cgroup.kill"), "1").ok();
            wait::until("the lab's nodes to be gone", GONE, || {
                remove_tree(&folder);
                if folder.exists() { Err("still populated") } else { Ok(()) }
            })
            .ok();
        }
    }
}

/// The version 2 tree first, then those of version 1 that systemd uses.
fn roots() -> Vec<PathBuf> {
    let base = Path::new("/sys/fs/cgroup");
    if base.join("cgroup.controllers").exists() {
        return vec![base.to_owned()];
    }
    let unified = base.join("unified");
    if !unified.join("cgroup.controllers").exists() && !unified.join("cgroup.procs").exists() {
        return Vec::new();
    }
    let old = ["systemd", "memory"].map(|name| base.join(name));
    std::iter::once(unified).chain(old.into_iter().filter(|path| path.exists())).collect()
}

/// Control groups are removed from the leaves up, by `rmdir` alone.
fn remove_tree(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    fs::remove_dir(folder).ok();
}
