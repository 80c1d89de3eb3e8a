//! The columns of the three listings: what they are called and what a cell says.

use std::collections::BTreeMap;

use crate::cli::fleetctl::table::aligned;
use crate::wire::fleet::api::{Machine, Unit, UnitState};
use crate::wire::fleet::requirements::SHORT_ID_CHARS;
use crate::wire::fleet::{Requirements, UnitFile, UnitName};

/// What a cell says where there is nothing to say.
const NOTHING: &str = "-";
/// How many digits of a hash its short form has.
const SHORT_HASH_DIGITS: usize = 7;

/// How much of an id or a hash is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ids {
    /// Its first digits.
    Short,
    /// All of it.
    Full,
}

/// Whether the columns' names are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Legend {
    /// In the first line.
    Shown,
    /// Not at all.
    Hidden,
}

/// What every cell may look at.
#[derive(Debug)]
pub(super) struct Surroundings {
    pub(super) machines: BTreeMap<String, Machine>,
    pub(super) ids: Ids,
}

/// A column of a listing of `T`.
#[derive(Debug)]
pub(super) struct Column<T: 'static> {
    name: &'static str,
    cell: fn(&T, &Surroundings) -> String,
}

/// The columns that were asked for.
pub(super) type Picked<T> = Vec<&'static Column<T>>;

/// `list-machines`.
pub(super) const MACHINES: &[Column<Machine>] = &[
    Column { name: "machine", cell: |machine, around| short_id(&machine.id, around.ids) },
    Column { name: "ip", cell: |machine, _| or_nothing(&machine.primary_ip) },
    Column { name: "metadata", cell: |machine, _| metadata(machine) },
];
/// What `list-machines` shows unless told otherwise.
pub(super) const MACHINES_DEFAULT: &str = "machine,ip,metadata";

/// `list-units`.
pub(super) const UNITS: &[Column<UnitState>] = &[
    Column { name: "unit", cell: |state, _| state.name.clone() },
    Column { name: "load", cell: |state, _| or_nothing(&state.systemd_load_state) },
    Column { name: "active", cell: |state, _| or_nothing(&state.systemd_active_state) },
    Column { name: "sub", cell: |state, _| or_nothing(&state.systemd_sub_state) },
    Column { name: "machine", cell: machine_of_state },
    Column { name: "hash", cell: |state, around| or_nothing(short_hash(&state.hash, around.ids)) },
];
/// What `list-units` shows unless told otherwise.
pub(super) const UNITS_DEFAULT: &str = "unit,machine,active,sub";

/// `list-unit-files`.
pub(super) const UNIT_FILES: &[Column<Unit>] = &[
    Column { name: "unit", cell: |unit, _| unit.name.clone() },
    Column { name: "hash", cell: hash_of_unit },
    Column { name: "desc", cell: |unit, _| or_nothing(file(unit).description()) },
    Column {
        name: "dstate",
        cell: |unit, _| or_nothing(unit.desired_state.map_or("", |state| state.as_str())),
    },
    Column { name: "state", cell: |unit, _| current_state(unit) },
    Column { name: "target", cell: target },
    Column { name: "tmachine", cell: target },
    Column { name: "global", cell: |unit, _| is_global(unit).to_string() },
];
/// What `list-unit-files` shows unless told otherwise.
pub(super) const UNIT_FILES_DEFAULT: &str = "unit,hash,dstate,state,target";

/// Finds the columns that `fields` names, separated by commas.
pub(super) fn pick<T>(columns: &'static [Column<T>], fields: &str) -> Result<Picked<T>, String> {
    if fields.is_empty() {
        return Err("Must define output format".to_owned());
    }
    let find = |field: &str| {
        let column = columns.iter().find(|column| column.name == field);
        column.ok_or_else(|| format!("Invalid key in output format: {field:?}"))
    };
    fields.split(',').map(find).collect()
}

/// Writes a listing.
pub(super) fn listed<T>(
    columns: &Picked<T>,
    rows: &[T],
    around: &Surroundings,
    legend: Legend,
) -> String {
    let header = columns.iter().map(|column| column.name.to_uppercase()).collect();
    let cells = rows.iter().map(|row| columns.iter().map(|it| (it.cell)(row, around)).collect());
    let all: Vec<Vec<String>> =
        std::iter::once(header).filter(|_| legend == Legend::Shown).chain(cells).collect();
    aligned(&all)
}

/// Returns a machine as messages and listings name it: `01234567.../10.0.0.1`.
pub(super) fn full_legend(id: &str, ip: &str, ids: Ids) -> String {
    let id = short_id(id, ids);
    if ip.is_empty() { id } else { format!("{id}/{ip}") }
}

/// Tells whether a unit runs on every machine that it may run on.
pub(super) fn is_global(unit: &Unit) -> bool {
    let Ok(name) = UnitName::parse(&unit.name) else { return false };
    Requirements::read(&name, &file(unit)).global
}

/// Returns a unit's file; what cannot be written as one has no options.
pub(super) fn file(unit: &Unit) -> UnitFile {
    UnitFile::from_options(unit.options.clone()).unwrap_or_default()
}

fn machine_of_state(state: &UnitState, around: &Surroundings) -> String {
    let ip = around.machines.get(&state.machine_id).map_or("", |it| it.primary_ip.as_str());
    match state.machine_id.as_str() {
        "" => NOTHING.to_owned(),
        id => full_legend(id, ip, around.ids),
    }
}

fn target(unit: &Unit, around: &Surroundings) -> String {
    if is_global(unit) {
        return "global".to_owned();
    }
    let machine = around.machines.get(&unit.machine_id);
    machine.map_or_else(
        || NOTHING.to_owned(),
        |machine| full_legend(&machine.id, &machine.primary_ip, around.ids),
    )
}

fn current_state(unit: &Unit) -> String {
    let state = unit.current_state.filter(|_| !is_global(unit));
    or_nothing(state.map_or("", |state| state.as_str()))
}

fn hash_of_unit(unit: &Unit, around: &Surroundings) -> String {
    short_hash(&file(unit).hash().to_string(), around.ids).to_owned()
}

fn short_hash(hash: &str, ids: Ids) -> &str {
    match ids {
        Ids::Full => hash,
        Ids::Short => hash.get(..SHORT_HASH_DIGITS).unwrap_or(hash),
    }
}

fn short_id(id: &str, ids: Ids) -> String {
    match ids {
        Ids::Full => id.to_owned(),
        Ids::Short => format!("{}...", id.get(..SHORT_ID_CHARS).unwrap_or(id)),
    }
}

fn metadata(machine: &Machine) -> String {
    let pairs: Vec<String> =
        machine.metadata.iter().map(|(key, value)| format!("{key}={value}")).collect();
    or_nothing(&pairs.join(","))
}

fn or_nothing(text: &str) -> String {
    if text.is_empty() { NOTHING.to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::fleet::{JobState, UnitOption};

    const ID: &str = "0123456789abcdef0123456789abcdef";

    fn around(ids: Ids) -> Surroundings {
        let metadata = [("zone", "b"), ("disk", "ssd")];
        let machine = Machine {
            id: ID.into(),
            primary_ip: "10.0.0.1".into(),
            metadata: metadata.map(|(key, value)| (key.into(), value.into())).into(),
        };
        Surroundings { machines: [(ID.to_owned(), machine)].into(), ids }
    }

    fn unit(global: &str) -> Unit {
        Unit {
            name: "a.service".into(),
            options: vec![
                UnitOption::new("Unit", "Description", "An A"),
                UnitOption::new("X-Fleet", "Global", global),
            ],
            desired_state: Some(JobState::Launched),
            current_state: Some(JobState::Loaded),
            machine_id: ID.into(),
        }
    }

    fn cells<T>(columns: &'static [Column<T>], row: &T, ids: Ids) -> Vec<String> {
        columns.iter().map(|column| (column.cell)(row, &around(ids))).collect()
    }

    #[test]
    fn a_machine_is_shown_short_or_in_full() {
        let machine = around(Ids::Full).machines.remove(ID).unwrap();
        assert_eq!(
            cells(MACHINES, &machine, Ids::Short),
            ["01234567...", "10.0.0.1", "disk=ssd,zone=b"]
        );
        let bare = Machine { id: ID.into(), ..Machine::default() };
        assert_eq!(cells(MACHINES, &bare, Ids::Full), [ID, "-", "-"]);
    }

    #[test]
    fn a_state_names_its_machine_as_far_as_it_is_known() {
        let hash = "1c6fb6f3684bafb0c173d8b8b957ceff031180c1";
        let state = UnitState {
            name: "a.service".into(),
            hash: hash.into(),
            machine_id: ID.into(),
            systemd_load_state: "loaded".into(),
            systemd_active_state: "active".into(),
            systemd_sub_state: "running".into(),
        };
        assert_eq!(
            cells(UNITS, &state, Ids::Short),
            ["a.service", "loaded", "active", "running", "01234567.../10.0.0.1", "1c6fb6f"]
        );
        assert_eq!(cells(UNITS, &state, Ids::Full)[4..], [format!("{ID}/10.0.0.1"), hash.into()]);
        let elsewhere = UnitState { machine_id: "ffffffffff".into(), ..UnitState::default() };
        assert_eq!(cells(UNITS, &elsewhere, Ids::Short)[1..], ["-", "-", "-", "ffffffff...", "-"]);
    }

    #[test]
    fn a_global_unit_has_no_state_and_no_machine_of_its_own() {
        let shown = cells(UNIT_FILES, &unit("false"), Ids::Short);
        assert_eq!(shown[2..5], ["An A", "launched", "loaded"]);
        assert_eq!(shown[5..], ["01234567.../10.0.0.1", "01234567.../10.0.0.1", "false"]);
        let shown = cells(UNIT_FILES, &unit("true"), Ids::Short);
        assert_eq!(shown[3..], ["launched", "-", "global", "global", "true"]);
        let lost = Unit { machine_id: "gone".into(), options: vec![], ..unit("") };
        assert_eq!(cells(UNIT_FILES, &lost, Ids::Short)[1..3], ["da39a3e", "-"]);
        assert_eq!(cells(UNIT_FILES, &lost, Ids::Short)[5], "-");
    }

    #[test]
    fn the_defaults_are_columns_and_others_are_refused() {
        assert!(pick(MACHINES, MACHINES_DEFAULT).is_ok());
        assert!(pick(UNITS, UNITS_DEFAULT).is_ok());
        assert!(pick(UNIT_FILES, UNIT_FILES_DEFAULT).is_ok());
        let refused = |fields| pick(UNITS, fields).unwrap_err();
        assert_eq!(refused("unit,foo"), "Invalid key in output format: \"foo\"");
        assert_eq!(refused(""), "Must define output format");
    }

    #[test]
    fn a_listing_has_a_legend_unless_told_otherwise() {
        let machines: Vec<Machine> = around(Ids::Short).machines.into_values().collect();
        let columns = pick(MACHINES, "machine,metadata").unwrap();
        let written = |legend| listed(&columns, &machines, &around(Ids::Short), legend);
        assert_eq!(written(Legend::Shown), "MACHINE\t\tMETADATA\n01234567...\tdisk=ssd,zone=b\n");
        assert_eq!(written(Legend::Hidden), "01234567...\tdisk=ssd,zone=b\n");
    }
}
