//! `up`: from an image to a cluster that serves.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use testbed::cluster::{Cluster, Kind};
use testbed::error::LabError;
use testbed::examples;
use testbed::lab::{self, Lab};
use testbed::local::Places;
use testbed::process::Lifetime;
use testbed::progress::{Steps, say};
use testbed::view::View;

use crate::show;

/// Three emulated machines at once on a loaded computer.
const BOOT: Duration = Duration::from_secs(400);
/// From `fleetctl start` to a running unit everywhere.
const UNITS: Duration = Duration::from_mins(2);
/// The file that says what a running lab consists of.
const RECORD: &str = "cluster.json";

/// What a lab that was left running consists of, as it is written down.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The numbers of its nodes.
    pub(crate) nodes: Vec<u8>,
    /// Where they are, if they are one process.
    #[serde(default)]
    pub(crate) local: Option<Places>,
}

impl Record {
    /// Writes it down.
    pub(crate) fn keep(&self, dir: &Path) -> Result<(), LabError> {
        let path = dir.join(RECORD);
        let text = serde_json::to_string(self).expect("a record has only numbers and paths");
        fs::write(&path, text).map_err(LabError::file("write", &path))
    }

    /// Reads that of a lab.
    pub(crate) fn of(id: &str) -> Result<Self, LabError> {
        let path = lab::root().join(id).join(RECORD);
        let text = fs::read_to_string(&path).map_err(LabError::file("read", &path))?;
        serde_json::from_str(&text).map_err(|error| {
            let path = path.display();
            LabError::Missing(format!("{path} is damaged ({error}); `cargo xtask down`"))
        })
    }
}

/// A lab that runs, and what it consists of.
#[derive(Debug)]
pub(crate) struct Running {
    /// The lab's name.
    pub(crate) id: String,
    /// The numbers of its nodes.
    pub(crate) nodes: Vec<u8>,
    /// What they are.
    pub(crate) kind: Is,
}

/// What the nodes of a running lab are.
#[derive(Debug)]
pub(crate) enum Is {
    /// Machines on a network of their own.
    Machines(Lab),
    /// One process.
    Local(Places),
}

impl Running {
    /// Finds the lab that `up` left running.
    pub(crate) fn find() -> Result<Self, LabError> {
        let Some(id) = lab::left_running().into_iter().next() else {
            let text = "no lab is running; `cargo xtask up` starts one";
            return Err(LabError::Missing(text.to_owned()));
        };
        let Record { nodes, local } = Record::of(&id)?;
        let kind = match local {
            Some(places) => Is::Local(places),
            None => Is::Machines(Lab::existing(&id)?),
        };
        Ok(Self { id, nodes, kind })
    }

    /// What it says of itself.
    pub(crate) fn view(&self) -> View<'_> {
        match &self.kind {
            Is::Machines(lab) => View::Lab(lab.net()),
            Is::Local(places) => View::Local(places),
        }
    }

    /// The number of a node that somebody named.
    pub(crate) fn number(&self, name: &str) -> Result<u8, LabError> {
        let number = name.strip_prefix("node").unwrap_or(name).parse();
        number.ok().filter(|number| self.nodes.contains(number)).ok_or_else(|| {
            let names: Vec<_> = self.nodes.iter().map(|number| format!("node{number}")).collect();
            LabError::Missing(format!("no node `{name}`; there are {}", names.join(", ")))
        })
    }
}

/// Refuses a second lab beside one that runs.
pub(crate) fn none_runs() -> Result<(), LabError> {
    lab::left_running().first().map_or(Ok(()), |id| {
        let text = format!("lab {id} is running already; `cargo xtask down` takes it away");
        Err(LabError::Missing(text))
    })
}

/// Boots a cluster, starts the example units, shows it and leaves it running.
pub(crate) fn machines(size: u8, kind: Kind) -> Result<(), LabError> {
    none_runs()?;
    let steps = Steps::default();
    let mut cluster = steps.step("network, discovery, machines turned on", || {
        Cluster::found(kind, size, Lifetime::Detached)
    })?;
    let done = raise(&cluster, &steps, size);
    if let Err(error) = done {
        let kept = cluster.keep_logs();
        say(&format!("what the machines said is kept in {}", kept.display()));
        lab::take_down(cluster.lab().id());
        return Err(error);
    }
    Record { nodes: (1..=size).collect(), local: None }.keep(cluster.lab().dir())?;
    cluster.leave()?;
    show::status()?;
    say("it stays up: `cargo xtask status`, `ssh node1`, `logs node1`; `down` takes it away");
    Ok(())
}

fn raise(cluster: &Cluster, steps: &Steps, size: u8) -> Result<(), LabError> {
    let numbers: Vec<u8> = (1..=size).collect();
    steps.step("machines boot and form a store", || cluster.store_ready(&numbers, BOOT))?;
    steps.step("machines join fleet", || cluster.fleet_ready(1, &numbers, BOOT))?;
    steps.step("ssh answers", || {
        cluster.machines().iter().try_for_each(|machine| machine.ssh().ready(BOOT))
    })?;
    steps.step("example units given to fleet", || submit(cluster, size))?;
    steps.step("example units run", || examples::run_everywhere(cluster.view(), 1, size, UNITS))
}

fn submit(cluster: &Cluster, size: u8) -> Result<(), LabError> {
    let ssh = cluster.machine(1).ssh();
    for (name, text) in examples::FILES {
        ssh.put(&format!("/tmp/{name}"), text.as_bytes())?;
        ssh.run(&format!("fleetctl submit /tmp/{name}"))?;
    }
    ssh.run(&format!("fleetctl start --no-block {}", examples::names(size).join(" "))).map(drop)
}
