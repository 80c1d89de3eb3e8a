//! `status`: three tables, and for a local cluster the way to it.

use std::collections::BTreeMap;

use comfy_table::Table;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use testbed::error::LabError;
use testbed::fleet::{FleetMachine, UnitState};
use testbed::lab;
use testbed::store::Member;
use testbed::view::Status;

use crate::up::{Is, Running};

/// Prints the members, the machines and the units of the lab that runs.
pub(crate) fn status() -> Result<(), LabError> {
    let running = Running::find()?;
    let status = running.view().status(&running.nodes)?;
    crate::print(&format!("lab {}\n{}\n", running.id, tables(&status)))?;
    match &running.kind {
        Is::Machines(_) => Ok(()),
        Is::Local(places) => crate::print(&format!(
            "\nTo ask it from a shell, `. {}`, which says\n\n{}",
            lab::environment().display(),
            places.environment()
        )),
    }
}

fn tables(status: &Status) -> String {
    let tables = [
        members(&status.members, &status.leader),
        machines(&status.machines),
        units(&status.states, &status.machines),
    ];
    tables.map(|table| table.to_string()).join("\n")
}

fn table(columns: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_BORDERS_ONLY).set_header(columns);
    table
}

fn members(members: &[Member], leader: &Member) -> Table {
    let mut table = table(&["MEMBER", "NAME", "PEERS", "LEADS"]);
    for member in members {
        let leads = if member.id == leader.id { "yes" } else { "" };
        table.add_row([&member.id, &member.name, &member.peer_urls.join(" "), leads]);
    }
    table
}

fn machines(machines: &BTreeMap<String, FleetMachine>) -> Table {
    let mut table = table(&["MACHINE", "IP", "METADATA"]);
    for machine in machines.values() {
        let metadata = machine.metadata.iter().flatten();
        let metadata: Vec<_> = metadata.map(|(key, value)| format!("{key}={value}")).collect();
        table.add_row([short(&machine.id), &machine.public_ip, &metadata.join(",")]);
    }
    table
}

fn units(states: &[UnitState], machines: &BTreeMap<String, FleetMachine>) -> Table {
    let mut table = table(&["UNIT", "MACHINE", "ACTIVE", "SUB"]);
    for state in states {
        let ip = machines.get(&state.machine).map_or("-", |machine| machine.public_ip.as_str());
        let machine = format!("{}/{ip}", short(&state.machine));
        table.add_row([&state.unit, &machine, &state.active, &state.sub]);
    }
    table
}

fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}
