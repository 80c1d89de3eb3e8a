//! `up`: from an image to a cluster that serves.

use std::fs;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use testbed::cluster::{Cluster, Kind};
use testbed::error::LabError;
use testbed::lab::{self, Lab};
use testbed::process::Lifetime;
use testbed::progress::{Steps, say};
use testbed::{fleet, inputs};

use crate::show;

/// Three emulated machines at once on a loaded computer.
const BOOT: Duration = Duration::from_secs(400);
/// From `fleetctl start` to a running unit everywhere.
const UNITS: Duration = Duration::from_mins(2);
/// The file that says what a running lab consists of.
const RECORD: &str = "cluster.json";

/// What a lab that was left running consists of.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The numbers of its nodes.
    pub(crate) nodes: Vec<u8>,
}

impl Record {
    /// The number of a node that somebody named.
    pub(crate) fn number(&self, name: &str) -> Result<u8, LabError> {
        let number = name.strip_prefix("node").unwrap_or(name).parse();
        number.ok().filter(|number| self.nodes.contains(number)).ok_or_else(|| {
            let names: Vec<_> = self.nodes.iter().map(|number| format!("node{number}")).collect();
            LabError::Missing(format!("no node `{name}`; there are {}", names.join(", ")))
        })
    }
}

/// The lab that `up` left running.
pub(crate) fn running() -> Result<(Lab, Record), LabError> {
    let Some(id) = lab::left_running().into_iter().next() else {
        return Err(LabError::Missing("no lab is running; `cargo xtask up` starts one".to_owned()));
    };
    let path = lab::root().join(&id).join(RECORD);
    let text = fs::read_to_string(&path).map_err(LabError::file("read", &path))?;
    let record = serde_json::from_str(&text).map_err(|error| {
        LabError::Missing(format!("{} is damaged ({error}); `cargo xtask down`", path.display()))
    })?;
    Ok((Lab::existing(&id)?, record))
}

/// Boots a cluster, starts the example units, shows it and leaves it running.
pub(crate) fn up(size: u8, containers: bool) -> Result<(), LabError> {
    if let Some(id) = lab::left_running().first() {
        let text = format!("lab {id} is running already; `cargo xtask down` takes it away");
        return Err(LabError::Missing(text));
    }
    let kind = if containers { Kind::Containers } else { Kind::Vms };
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
    let path = cluster.lab().dir().join(RECORD);
    let record = Record { nodes: (1..=size).collect() };
    let text = serde_json::to_string(&record).expect("a record has only numbers");
    fs::write(&path, text).map_err(LabError::file("write", &path))?;
    cluster.leave()?;
    show::status()?;
    say("it stays up: `cargo xtask status`, `ssh node1`, `logs node1`; `down` takes it away");
    Ok(())
}

fn raise(cluster: &Cluster, steps: &Steps, size: u8) -> Result<(), LabError> {
    let numbers: Vec<u8> = (1..=size).collect();
    steps.step("machines boot and form a store", || cluster.store_ready(&numbers, BOOT))?;
    let ids = steps.step("machines join fleet", || cluster.fleet_ready(1, &numbers, BOOT))?;
    steps.step("ssh answers", || {
        cluster.machines().iter().try_for_each(|machine| machine.ssh().ready(BOOT))
    })?;
    let instances: Vec<String> =
        (1..=size.min(3)).map(|number| format!("example@{number}.service")).collect();
    steps.step("example units given to fleet", || submit(cluster, &instances))?;
    steps.step("example units run", || {
        cluster.states_until(1, "the example units to run", UNITS, |states| {
            let once = |unit: &String| fleet::runs_on(states, unit).len() == 1;
            let global = fleet::runs_on(states, inputs::EXAMPLE_GLOBAL.0).len() == ids.len();
            (global && instances.iter().all(once)).then_some(())
        })
    })
}

fn submit(cluster: &Cluster, instances: &[String]) -> Result<(), LabError> {
    let ssh = cluster.machine(1).ssh();
    for (name, text) in [inputs::EXAMPLE, inputs::EXAMPLE_GLOBAL] {
        ssh.put(&format!("/tmp/{name}"), text.as_bytes())?;
        ssh.run(&format!("fleetctl submit /tmp/{name}"))?;
    }
    let names = instances.join(" ");
    ssh.run(&format!("fleetctl start --no-block {names} {}", inputs::EXAMPLE_GLOBAL.0)).map(drop)
}
