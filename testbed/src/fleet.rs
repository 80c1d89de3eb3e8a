//! What fleet does on a lab's cluster, as its registry tells.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::error::LabError;
use crate::store::Store;

/// Where fleet keeps its state.
pub const PREFIX: &str = "/_coreos.com/fleet";

/// A machine that fleet knows.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct FleetMachine {
    /// Its machine id.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its address.
    #[serde(rename = "PublicIP")]
    pub public_ip: String,
    /// What its operator says of it.
    #[serde(default)]
    pub metadata: Option<BTreeMap<String, String>>,
}

/// What one machine says of one unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitState {
    /// The unit.
    pub unit: String,
    /// The machine's id.
    pub machine: String,
    /// systemd's word: `active`, `inactive`, `failed`.
    pub active: String,
    /// systemd's second word: `running`, `dead`.
    pub sub: String,
}

/// A unit that fleet was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Its name.
    pub name: String,
    /// What it should be: `inactive`, `loaded`, `launched`.
    pub wanted: String,
    /// The machine that it was given to.
    pub target: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StateValue {
    active_state: String,
    sub_state: String,
}

/// The machines that are present, by id.
pub fn machines(store: &Store<'_>) -> Result<BTreeMap<String, FleetMachine>, LabError> {
    let keys = store.below(&format!("{PREFIX}/machines"))?;
    let present = keys.iter().filter(|(key, _)| key.ends_with("/object"));
    Ok(present
        .filter_map(|(_, value)| serde_json::from_str(value).ok())
        .map(|machine: FleetMachine| (machine.id.clone(), machine))
        .collect())
}

/// What every machine says of every unit.
pub fn states(store: &Store<'_>) -> Result<Vec<UnitState>, LabError> {
    let folder = format!("{PREFIX}/states/");
    let keys = store.below(folder.trim_end_matches('/'))?;
    Ok(keys.iter().filter_map(|(key, value)| state(key.strip_prefix(&folder)?, value)).collect())
}

/// The units that fleet was given, by name.
pub fn units(store: &Store<'_>) -> Result<BTreeMap<String, Unit>, LabError> {
    let folder = format!("{PREFIX}/job/");
    let keys = store.below(folder.trim_end_matches('/'))?;
    let mut found = BTreeMap::<String, Unit>::new();
    for (key, value) in &keys {
        let Some((name, what)) = key.strip_prefix(&folder).and_then(|rest| rest.split_once('/'))
        else {
            continue;
        };
        let unit = found.entry(name.to_owned()).or_insert_with(|| Unit {
            name: name.to_owned(),
            wanted: String::new(),
            target: None,
        });
        match what {
            "target-state" => unit.wanted.clone_from(value),
            "target" => unit.target = Some(value.clone()),
            _ => {}
        }
    }
    Ok(found)
}

/// The machines on which a unit runs.
#[must_use]
pub fn runs_on<'a>(states: &'a [UnitState], unit: &str) -> Vec<&'a str> {
    let running = states.iter().filter(|state| state.unit == unit && state.active == "active");
    running.map(|state| state.machine.as_str()).collect()
}

fn state(path: &str, value: &str) -> Option<UnitState> {
    let (unit, machine) = path.split_once('/')?;
    let value: StateValue = serde_json::from_str(value).ok()?;
    Some(UnitState {
        unit: unit.to_owned(),
        machine: machine.to_owned(),
        active: value.active_state,
        sub: value.sub_state,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_read_from_its_key_and_value() {
        let value = r#"{"loadState":"loaded","activeState":"active","subState":"running",
            "machineState":{"ID":"m1"},"unitHash":"00"}"#;
        let states = [state("a@1.service/m1", value).unwrap()];
        assert_eq!(states[0].sub, "running");
        assert_eq!(runs_on(&states, "a@1.service"), ["m1"]);
        assert!(runs_on(&states, "b.service").is_empty());
    }

    #[test]
    fn a_machine_may_have_no_metadata() {
        let machine: FleetMachine =
            serde_json::from_str(r#"{"ID":"m1","PublicIP":"10.99.0.11","Metadata":null}"#).unwrap();
        assert_eq!(machine.metadata, None);
    }
}
