//! What fleet keeps in the store: paths below one prefix, and the values at them.
//!
//! ```text
//!   job/<unit>/object        name and hash          unit/<hash>            the unit's text
//!   job/<unit>/target        a machine's id         state/<unit>           legacy: one state
//!   job/<unit>/target-state  what it shall be       states/<unit>/<id>     one state a machine
//!   job/<unit>/job-state     launched heartbeat     machines/<id>/object   presence
//!   lease/engine-leader      who decides            machines/<id>/metadata/<key>
//!   engine/version           highest seen
//! ```
//! Paths and values are compatible with fleet 1.0.0: both may work on one cluster.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use crate::wire::fleet::unit_file::UnitHash;

/// Where fleet's keys are unless the configuration says otherwise.
pub const PREFIX: &str = "/_coreos.com/fleet/";

/// The version of the engine's schema that this program speaks.
pub const ENGINE_VERSION: u64 = 1;

/// What a unit shall be, or is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Known, on no machine.
    #[default]
    Inactive,
    /// On a machine, not started by fleet.
    Loaded,
    /// On a machine and started.
    Launched,
}

impl JobState {
    /// Returns the word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::Loaded => "loaded",
            Self::Launched => "launched",
        }
    }

    /// Returns what a word means, if anything.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Inactive, Self::Loaded, Self::Launched].into_iter().find(|it| it.as_str() == word)
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A key of the registry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// `job/<unit>/object`: a [`JobObject`].
    JobObject(String),
    /// `job/<unit>/target`: the machine that shall run it.
    JobTarget(String),
    /// `job/<unit>/target-state`: a [`JobState`].
    JobTargetState(String),
    /// `job/<unit>/job-state`: the machine that launched it, as long as it says so.
    JobHeartbeat(String),
    /// `unit/<hash>`: a [`UnitObject`].
    Unit(UnitHash),
    /// `state/<unit>`: a [`StateObject`], whoever wrote last.
    LegacyState(String),
    /// `states/<unit>/<machine>`: a [`StateObject`].
    State {
        /// The unit.
        unit: String,
        /// The machine's id.
        machine: String,
    },
    /// `machines/<id>/object`: a [`MachineObject`].
    Machine(String),
    /// `machines/<id>/metadata/<key>`: a plain value that hides the machine's own.
    Metadata {
        /// The machine's id.
        machine: String,
        /// The metadata's key.
        key: String,
    },
    /// `lease/engine-leader`: a [`LeaseObject`].
    EngineLeader,
    /// `engine/version`: a number.
    EngineVersion,
}

/// The paths of the registry, below one prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registry {
    /// With a `/` at the front and none at the end; empty if the registry is the whole store.
    prefix: String,
}

impl Default for Registry {
    fn default() -> Self {
        Self::below(PREFIX)
    }
}

impl Registry {
    /// Makes the paths below `prefix`, with or without slashes around it.
    pub fn below(prefix: &str) -> Self {
        let trimmed = prefix.trim_matches('/');
        let prefix = if trimmed.is_empty() { String::new() } else { format!("/{trimmed}") };
        Self { prefix }
    }

    /// Returns the path that all keys are below, without a slash at the end.
    pub fn root(&self) -> &str {
        if self.prefix.is_empty() { "/" } else { &self.prefix }
    }

    /// Returns a key's path.
    pub fn path(&self, key: &Key) -> String {
        let prefix = &self.prefix;
        match key {
            Key::JobObject(unit) => format!("{prefix}/job/{unit}/object"),
            Key::JobTarget(unit) => format!("{prefix}/job/{unit}/target"),
            Key::JobTargetState(unit) => format!("{prefix}/job/{unit}/target-state"),
            Key::JobHeartbeat(unit) => format!("{prefix}/job/{unit}/job-state"),
            Key::Unit(hash) => format!("{prefix}/unit/{hash}"),
            Key::LegacyState(unit) => format!("{prefix}/state/{unit}"),
            Key::State { unit, machine } => format!("{prefix}/states/{unit}/{machine}"),
            Key::Machine(id) => format!("{prefix}/machines/{id}/object"),
            Key::Metadata { machine, key } => format!("{prefix}/machines/{machine}/metadata/{key}"),
            Key::EngineLeader => format!("{prefix}/lease/engine-leader"),
            Key::EngineVersion => format!("{prefix}/engine/version"),
        }
    }

    /// Returns the folder of everything about a job; destroying the unit removes it.
    pub fn job(&self, unit: &str) -> String {
        format!("{}/job/{unit}", self.prefix)
    }

    /// Returns the folder of a unit's states.
    pub fn states(&self, unit: &str) -> String {
        format!("{}/states/{unit}", self.prefix)
    }

    /// Returns which key is at `path`, if it is one of the registry's.
    pub fn key(&self, path: &str) -> Option<Key> {
        let mut parts = path.strip_prefix(&self.prefix)?.strip_prefix('/')?.split('/');
        let mut next = || parts.next().unwrap_or_default();
        let parts = [next(), next(), next(), next(), next()];
        let owned = str::to_owned;
        Some(match parts {
            ["job", unit, "object", "", ""] => Key::JobObject(owned(unit)),
            ["job", unit, "target", "", ""] => Key::JobTarget(owned(unit)),
            ["job", unit, "target-state", "", ""] => Key::JobTargetState(owned(unit)),
            ["job", unit, "job-state", "", ""] => Key::JobHeartbeat(owned(unit)),
            ["unit", hash, "", "", ""] => Key::Unit(hash.parse().ok()?),
            ["state", unit, "", "", ""] if !unit.is_empty() => Key::LegacyState(owned(unit)),
            ["states", unit, machine, "", ""] if !machine.is_empty() => {
                Key::State { unit: owned(unit), machine: owned(machine) }
            }
            ["machines", id, "object", "", ""] => Key::Machine(owned(id)),
            ["machines", id, "metadata", key, ""] if !key.is_empty() => {
                Key::Metadata { machine: owned(id), key: owned(key) }
            }
            ["lease", "engine-leader", "", "", ""] => Key::EngineLeader,
            ["engine", "version", "", "", ""] => Key::EngineVersion,
            _ => return None,
        })
    }
}

/// The value at `job/<unit>/object`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct JobObject {
    /// The unit.
    pub name: String,
    /// Which text it has, as twenty numbers.
    pub unit_hash: UnitHash,
}

/// The value at `unit/<hash>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct UnitObject {
    /// The canonical text.
    pub raw: String,
}

/// The value at `machines/<id>/object`, and within a state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct MachineObject {
    /// The machine's id, 32 hexadecimal digits.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its public address.
    #[serde(rename = "PublicIP")]
    pub public_ip: String,
    /// What its configuration says about it.
    #[serde(deserialize_with = "null_is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// What its daemon can do: `GRPC`, `DISABLE_ENGINE`.
    #[serde(deserialize_with = "null_is_empty")]
    pub capabilities: BTreeMap<String, bool>,
    /// Its daemon's version.
    pub version: String,
}

impl MachineObject {
    /// Lays dynamic metadata over the machine's own; an empty value hides a key.
    #[must_use]
    pub fn with_metadata(mut self, dynamic: &BTreeMap<String, String>) -> Self {
        for (key, value) in dynamic {
            if value.is_empty() {
                self.metadata.remove(key);
            } else {
                self.metadata.insert(key.clone(), value.clone());
            }
        }
        self
    }
}

/// The value at `state/<unit>` and `states/<unit>/<machine>`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StateObject {
    /// systemd's load state.
    pub load_state: String,
    /// systemd's active state.
    pub active_state: String,
    /// systemd's sub state.
    pub sub_state: String,
    /// The machine; only its id matters.
    #[serde(deserialize_with = "null_is_none")]
    pub machine_state: MachineObject,
    /// Which text the unit has there, 40 hexadecimal digits.
    pub unit_hash: String,
}

/// The value at `lease/engine-leader`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseObject {
    /// Who decides.
    #[serde(rename = "MachineID")]
    pub machine_id: String,
    /// The version of the engine's schema that it speaks.
    #[serde(rename = "Version", default)]
    pub version: u64,
}

impl LeaseObject {
    /// Reads a lease; a plain string is a machine's id, and its engine of version 0.
    pub fn parse(value: &str) -> Self {
        serde_json::from_str(value)
            .unwrap_or_else(|_| Self { machine_id: value.to_owned(), version: 0 })
    }
}

/// Go writes an empty map as `null`.
fn null_is_empty<'de, D, V>(input: D) -> Result<BTreeMap<String, V>, D::Error>
where
    D: Deserializer<'de>,
    V: Deserialize<'de>,
{
    Ok(Option::deserialize(input)?.unwrap_or_default())
}

/// Go writes a missing machine as `null`.
fn null_is_none<'de, D: Deserializer<'de>>(input: D) -> Result<MachineObject, D::Error> {
    Ok(Option::deserialize(input)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn json(value: &impl Serialize) -> String {
        serde_json::to_string(value).unwrap()
    }

    #[test]
    fn values_are_written_as_fleet_writes_them() {
        let hash = UnitHash([7; 20]);
        let job = JobObject { name: "a.service".into(), unit_hash: hash };
        let sevens = ["7"; 20].join(",");
        assert_eq!(json(&job), format!(r#"{{"Name":"a.service","UnitHash":[{sevens}]}}"#));
        assert_eq!(json(&UnitObject { raw: "[A]\n".into() }), r#"{"Raw":"[A]\n"}"#);
        let lease = LeaseObject { machine_id: "m1".into(), version: 1 };
        assert_eq!(json(&lease), r#"{"MachineID":"m1","Version":1}"#);
        let machine = MachineObject { id: "m1".into(), ..MachineObject::default() };
        let written = r#"{"ID":"m1","PublicIP":"","Metadata":{},"Capabilities":{},"Version":""}"#;
        assert_eq!(json(&machine), written);
        let state = StateObject { machine_state: machine, ..StateObject::default() };
        let empty = r#""loadState":"","activeState":"","subState":"""#;
        assert_eq!(json(&state), format!(r#"{{{empty},"machineState":{written},"unitHash":""}}"#));
    }

    #[test]
    fn what_go_leaves_out_or_writes_as_null_is_read() {
        let machine: MachineObject =
            serde_json::from_str(r#"{"ID":"m1","Metadata":null,"Capabilities":null}"#).unwrap();
        assert_eq!(machine.id, "m1");
        let state: StateObject = serde_json::from_str(r#"{"machineState":null}"#).unwrap();
        assert_eq!(state, StateObject::default());
    }

    #[test]
    fn a_plain_lease_is_one_of_an_old_engine() {
        assert_eq!(LeaseObject::parse("m1"), LeaseObject { machine_id: "m1".into(), version: 0 });
    }

    #[test]
    fn dynamic_metadata_wins_and_an_empty_value_hides() {
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        let own = map(&[("a", "1"), ("b", "2")]);
        let machine = MachineObject { metadata: own, ..MachineObject::default() };
        let merged = machine.with_metadata(&map(&[("a", ""), ("b", "3"), ("c", "4")]));
        assert_eq!(merged.metadata, map(&[("b", "3"), ("c", "4")]));
    }

    #[test]
    fn the_prefix_may_be_written_in_any_way() {
        for prefix in ["/_coreos.com/fleet/", "_coreos.com/fleet", "/_coreos.com/fleet"] {
            let path = Registry::below(prefix).path(&Key::EngineLeader);
            assert_eq!(path, "/_coreos.com/fleet/lease/engine-leader");
        }
        assert_eq!(Registry::below("/").path(&Key::EngineVersion), "/engine/version");
        assert_eq!(Registry::below("/").root(), "/");
    }

    #[test]
    fn what_is_not_fleets_is_no_key() {
        let registry = Registry::default();
        for path in [
            "/other/job/a/object",
            "/_coreos.com/fleet/job/a/object/more",
            "/_coreos.com/fleet/job/a",
            "/_coreos.com/fleet/unit/xyz",
            "/_coreos.com/fleet",
        ] {
            assert_eq!(registry.key(path), None, "{path}");
        }
    }

    fn keys() -> impl Strategy<Value = Key> {
        let name = "[a-z@.]{1,12}";
        prop_oneof![
            name.prop_map(Key::JobObject),
            name.prop_map(Key::JobTarget),
            name.prop_map(Key::JobTargetState),
            name.prop_map(Key::JobHeartbeat),
            any::<[u8; 20]>().prop_map(|hash| Key::Unit(UnitHash(hash))),
            name.prop_map(Key::LegacyState),
            (name, name).prop_map(|(unit, machine)| Key::State { unit, machine }),
            name.prop_map(Key::Machine),
            (name, name).prop_map(|(machine, key)| Key::Metadata { machine, key }),
            Just(Key::EngineLeader),
            Just(Key::EngineVersion),
        ]
    }

    proptest! {
        #[test]
        fn a_path_leads_back_to_its_key(key in keys(), prefix in "(/[a-z]{1,5}){0,3}") {
            let registry = Registry::below(&prefix);
            prop_assert_eq!(registry.key(&registry.path(&key)), Some(key));
        }
    }
}
