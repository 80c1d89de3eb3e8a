//! `status`: three tables.

use std::collections::BTreeMap;

use comfy_table::Table;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use testbed::error::LabError;
use testbed::fleet::{self, FleetMachine, UnitState};
use testbed::lab::Lab;
use testbed::net::Net;
use testbed::store::{Member, Store};

use crate::up::{Record, running};

/// Prints the members, the machines and the units of the lab that runs.
pub(crate) fn status() -> Result<(), LabError> {
    let (lab, record) = running()?;
    let through = answering(&lab, &record)?;
    let store = Store::at(lab.net(), Net::address(through));
    let leads: Vec<u8> = record
        .nodes
        .iter()
        .copied()
        .filter(|&node| at(&lab, node).leads().unwrap_or(false))
        .collect();
    let machines = fleet::machines(&store)?;
    let tables = [
        members(&store.members()?, &leads),
        fleet_machines(&machines),
        units(&fleet::states(&store)?, &machines),
    ];
    let tables: Vec<String> = tables.iter().map(ToString::to_string).collect();
    crate::print(&format!("lab {}\n{}\n", lab.id(), tables.join("\n")))
}

fn at(lab: &Lab, node: u8) -> Store<'_> {
    Store::at(lab.net(), Net::address(node))
}

/// A node whose store has its quorum.
fn answering(lab: &Lab, record: &Record) -> Result<u8, LabError> {
    let healthy = |node: &u8| at(lab, *node).healthy().unwrap_or(false);
    record.nodes.iter().copied().find(healthy).ok_or_else(|| {
        LabError::Missing(
            "no node serves the store; `cargo xtask logs node1` may say why".to_owned(),
        )
    })
}

fn table(columns: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_BORDERS_ONLY).set_header(columns);
    table
}

fn members(members: &[Member], leads: &[u8]) -> Table {
    let mut table = table(&["MEMBER", "NAME", "PEERS", "LEADS"]);
    for member in members {
        let leads = leads.iter().any(|&node| {
            let host = format!("//{}:", Net::address(node));
            member.peer_urls.iter().chain(&member.client_urls).any(|url| url.contains(&host))
        });
        let leads = if leads { "yes" } else { "" };
        table.add_row([&member.id, &member.name, &member.peer_urls.join(" "), leads]);
    }
    table
}

fn fleet_machines(machines: &BTreeMap<String, FleetMachine>) -> Table {
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
