//! `up --local`: a process of its own for the nodes, the example units, and the way to it.

use std::fs;
use std::time::Duration;

use testbed::error::{LabError, chain};
use testbed::lab::{self, Ground};
use testbed::local::{Order, Places, control, serve};
use testbed::process::{Lifetime, Program, Running as Process};
use testbed::progress::{Steps, say};
use testbed::view::View;
use testbed::{examples, wait};

use crate::show;
use crate::up::{self, Is, Record, Running};

/// How long each step may take on a loaded computer; usually it is a second or two.
const SOON: Duration = Duration::from_mins(1);

/// Starts a cluster in one process, starts the example units, shows it and leaves it running.
pub(crate) fn up(size: u8) -> Result<(), LabError> {
    up::none_runs()?;
    let steps = Steps::default();
    let places = Places::find(&Ground::claim()?, size)?;
    Record { nodes: places.numbers().collect(), local: Some(places.clone()) }.keep(places.dir())?;
    let mut process = start(&places)?;
    if let Err(error) = raise(&places, &mut process, &steps, size) {
        process.kill();
        let kept = places.dir().join("failures");
        let copied =
            fs::create_dir_all(&kept).and_then(|()| fs::copy(places.log(), kept.join("local.log")));
        match copied {
            Ok(_) => say(&format!("what the nodes said is kept in {}", kept.display())),
            Err(why) => say(&format!("what the nodes said could not be kept: {why}")),
        }
        lab::take_down(places.id());
        return Err(error);
    }
    show::status()?;
    say("it stays up: `cargo xtask status`, `logs node1`, `down node1`, `up node1`; \
         `down` takes it away");
    Ok(())
}

fn start(places: &Places) -> Result<Process, LabError> {
    let itself = std::env::current_exe()
        .map_err(|source| LabError::Start { command: "this program again".to_owned(), source })?;
    let process = Program::new(itself).args(["local-serve", places.id()]);
    process.start(Lifetime::Detached, &places.log())
}

fn raise(places: &Places, process: &mut Process, steps: &Steps, size: u8) -> Result<(), LabError> {
    let view = View::Local(places);
    let numbers: Vec<u8> = places.numbers().collect();
    steps.step("nodes form a store", || {
        wait::until("the nodes to start", SOON, || {
            process.check().map_err(|error| chain(&error))?;
            let taking = places.control_socket().exists();
            if taking { Ok(()) } else { Err("no socket to control them yet".to_owned()) }
        })?;
        view.store_ready(&numbers, SOON)
    })?;
    steps.step("nodes join fleet", || view.fleet_ready(1, &numbers, SOON))?;
    steps.step("example units given to fleet", || submit(places, size))?;
    steps.step("example units run", || examples::run_everywhere(view, 1, size, SOON))?;
    environment(places)
}

fn submit(places: &Places, size: u8) -> Result<(), LabError> {
    for (name, text) in examples::FILES {
        let path = places.dir().join(name);
        fs::write(&path, text).map_err(LabError::file("write", &path))?;
        places.fleetctl(1).arg("submit").arg(&path).run(SOON)?;
    }
    places.fleetctl(1).args(["start", "--no-block"]).args(examples::names(size)).run(SOON).map(drop)
}

/// Links the applets, and writes down for shells how to find the cluster.
fn environment(places: &Places) -> Result<(), LabError> {
    Program::new(testbed::binary()).arg("--install").arg(places.applets()).run(SOON)?;
    let path = lab::environment();
    fs::write(&path, places.environment()).map_err(LabError::file("write", &path))
}

/// What the hidden verb does: it is the cluster until it is killed.
pub(crate) fn serve_here(id: &str) -> Result<(), LabError> {
    let damaged = || LabError::Missing(format!("lab {id} does not say where its nodes are"));
    serve::serve(Record::of(id)?.local.ok_or_else(damaged)?)
}

/// Takes the power of one node away.
pub(crate) fn halt(node: &str) -> Result<(), LabError> {
    tell(node, Order::Halt)?;
    say(&format!("{node}: its plug is pulled; `cargo xtask up {node}` puts it back"));
    Ok(())
}

/// Gives it back.
pub(crate) fn power_on(node: &str) -> Result<(), LabError> {
    tell(node, Order::Start)?;
    say(&format!("{node}: it has power again"));
    Ok(())
}

fn tell(node: &str, order: impl FnOnce(u8) -> Order) -> Result<(), LabError> {
    let running = Running::find()?;
    let number = running.number(node)?;
    match &running.kind {
        Is::Local(places) => control::give(&places.control_socket(), order(number)),
        Is::Machines(_) => Err(LabError::Missing(format!(
            "only a local cluster's nodes have a plug to pull; \
             `cargo xtask ssh node{number} sudo systemctl poweroff --force --force` is near it"
        ))),
    }
}
