//! A cluster inside one process, as `cargo xtask up --local` starts it.

use std::time::Duration;

use testbed::local::{Nodes, serve};
use testbed::{examples, fleet, inputs};

/// For each step on a loaded machine; all together take a few seconds otherwise.
const LIMIT: Duration = Duration::from_secs(20);

/// Three nodes that serve the store and are known to fleet.
fn three() -> Nodes {
    // Shown where a test fails.
    serve::log();
    let nodes = Nodes::owned(3).unwrap();
    nodes.ready(LIMIT).unwrap();
    nodes
}

/// Gives a unit's file to fleet.
fn submit(nodes: &Nodes, (name, text): (&str, &str)) {
    let path = nodes.places().dir().join(name);
    std::fs::write(&path, text).unwrap();
    nodes.places().fleetctl(1).arg("submit").arg(path).run(LIMIT).unwrap();
}

/// Waits until a unit runs on one machine that is not `away`, and returns which.
fn runs_but_not_on(nodes: &Nodes, unit: &str, through: u8, away: Option<&str>) -> String {
    let look = |states: &[fleet::UnitState]| match fleet::runs_on(states, unit)[..] {
        [host] if Some(host) != away => Some(host.to_owned()),
        _ => None,
    };
    nodes.view().states_until(through, "the unit to run", LIMIT, look).unwrap()
}

#[test]
fn three_nodes_in_one_process_run_the_example_units() {
    let nodes = three();
    for file in examples::FILES {
        submit(&nodes, file);
    }
    let start = nodes.places().fleetctl(2).arg("start").args(examples::names(3));
    let said = start.run(LIMIT).unwrap();
    assert!(said.contains("launched"), "{said}");
    examples::run_everywhere(nodes.view(), 3, 3, LIMIT).unwrap();
    let status = nodes.view().status(&[1, 2, 3]).unwrap();
    assert_eq!((status.members.len(), status.machines.len()), (3, 3));
    assert!(status.members.contains(&status.leader));
    let mut hosts: Vec<_> = examples::instances(3)
        .iter()
        .flat_map(|unit| fleet::runs_on(&status.states, unit))
        .map(str::to_owned)
        .collect();
    hosts.sort_unstable();
    hosts.dedup();
    assert_eq!(hosts.len(), 3, "instances that conflict share no machine: {hosts:?}");
}

#[test]
fn when_one_of_three_nodes_is_halted_its_unit_goes_to_another() {
    let mut nodes = three();
    submit(&nodes, inputs::PLAIN);
    let unit = "plain@1.service";
    nodes.places().fleetctl(1).args(["start", unit]).run(LIMIT).unwrap();
    let machines = nodes.view().fleet_ready(1, &[1, 2, 3], LIMIT).unwrap();
    let host = runs_but_not_on(&nodes, unit, 1, None);
    let gone = *machines.iter().find(|(_, id)| **id == host).unwrap().0;
    let rest: Vec<u8> = [1, 2, 3].into_iter().filter(|number| *number != gone).collect();
    nodes.halt(gone).unwrap();
    nodes.view().store(gone).healthy().expect_err("nothing of the node may run");
    assert_ne!(runs_but_not_on(&nodes, unit, rest[0], Some(&host)), host);
    nodes.view().store_ready(&rest, LIMIT).unwrap();
    nodes.power_on(gone).unwrap();
    nodes.ready(LIMIT).unwrap();
}
