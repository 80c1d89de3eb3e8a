//! What a unit asks of the machine it runs on: its `[X-Fleet]` section.
//!
//! Different metadata keys are AND-ed, several values of one key are OR-ed. Conflicts hold in
//! both directions, whoever declares them.
//!
//! **Not here:** whether a machine has it all; the engine knows about machines.

use std::collections::{BTreeMap, BTreeSet};

use crate::wire::fleet::glob;
use crate::wire::fleet::names::UnitName;
use crate::wire::fleet::unit_file::{FLEET_SECTION, UnitFile};

/// Keys that fleet knows, the deprecated ones last.
pub const KEYS: [&str; 11] = [
    "MachineID",
    "MachineOf",
    "MachineMetadata",
    "Conflicts",
    "Global",
    "Replaces",
    "X-ConditionMachineID",
    "X-ConditionMachineBootID",
    "X-ConditionMachineOf",
    "X-ConditionMachineMetadata",
    "X-Conflicts",
];

/// Words that mean yes, in any case.
const TRUE: [&str; 5] = ["true", "yes", "1", "on", "t"];

/// How many characters of a machine's id its short form has.
pub const SHORT_ID_CHARS: usize = 8;

/// What a unit asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requirements {
    /// The machine it must run on, by its full or its short id.
    pub machine_id: Option<String>,
    /// Units on whose machine it must run.
    pub peers: BTreeSet<String>,
    /// Metadata that its machine must have: for each key, one of the values.
    pub metadata: BTreeMap<String, BTreeSet<String>>,
    /// Globs of units that may not be on its machine.
    pub conflicts: BTreeSet<String>,
    /// Globs of units that it drives away from its machine.
    pub replaces: BTreeSet<String>,
    /// Whether it runs on every machine that has the metadata.
    pub global: bool,
}

/// Wishes that can never come true together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Contradiction {
    /// It must be with a unit that it may not be with.
    #[error("unresolvable requirements: peer \"{peer}\" matches conflict \"{glob}\"")]
    PeerConflicts {
        /// The unit in `MachineOf`.
        peer: String,
        /// The glob in `Conflicts`.
        glob: String,
    },
    /// It must be with a unit that it drives away.
    #[error("unresolvable requirements: peer \"{peer}\" matches replace \"{glob}\"")]
    PeerReplaced {
        /// The unit in `MachineOf`.
        peer: String,
        /// The glob in `Replaces`.
        glob: String,
    },
    /// Two options that exclude each other.
    #[error("{0} cannot be used with {1}")]
    Together(&'static str, &'static str),
}

impl Requirements {
    /// Reads the `[X-Fleet]` section of `file`, which is the unit `name`.
    pub fn read(name: &UnitName, file: &UnitFile) -> Self {
        let values = |keys: &[&str]| -> Vec<String> {
            keys.iter()
                .flat_map(|key| file.values(FLEET_SECTION, key))
                .flat_map(split_quoted)
                .map(|value| name.expand(&value))
                .collect()
        };
        let words = |keys: &[&str]| -> BTreeSet<String> {
            let blank = |value: &String| -> Vec<String> {
                value.split_whitespace().map(str::to_owned).collect()
            };
            values(keys).iter().flat_map(blank).collect()
        };
        let ids = values(&["MachineID", "X-ConditionMachineID", "X-ConditionMachineBootID"]);
        let global = values(&["Global"]);
        Self {
            machine_id: ids.into_iter().find(|id| !id.is_empty()),
            peers: words(&["MachineOf", "X-ConditionMachineOf"]),
            metadata: metadata(&values(&["MachineMetadata", "X-ConditionMachineMetadata"])),
            conflicts: words(&["Conflicts", "X-Conflicts"]),
            replaces: words(&["Replaces"]),
            global: global
                .last()
                .is_some_and(|value| TRUE.contains(&value.to_ascii_lowercase().as_str())),
        }
    }

    /// Refuses wishes that can never come true together.
    pub fn check(&self) -> Result<(), Contradiction> {
        for peer in &self.peers {
            if let Some(glob) = self.conflicts.iter().find(|glob| glob::matches(glob, peer)) {
                return Err(Contradiction::PeerConflicts {
                    peer: peer.clone(),
                    glob: glob.clone(),
                });
            }
            if let Some(glob) = self.replaces.iter().find(|glob| glob::matches(glob, peer)) {
                return Err(Contradiction::PeerReplaced { peer: peer.clone(), glob: glob.clone() });
            }
        }
        let id = ("MachineID", self.machine_id.is_some());
        let peers = ("Peers", !self.peers.is_empty());
        let conflicts = ("Conflicts", !self.conflicts.is_empty());
        let replaces = ("Replaces", !self.replaces.is_empty());
        let global = ("Global", self.global);
        let excluded = [
            (id, peers),
            (id, conflicts),
            (id, global),
            (id, replaces),
            (global, peers),
            (global, replaces),
            (conflicts, replaces),
        ];
        match excluded.iter().find(|(one, other)| one.1 && other.1) {
            Some((one, other)) => Err(Contradiction::Together(one.0, other.0)),
            None => Ok(()),
        }
    }

    /// Tells whether a machine's id is the one asked for, if one is.
    pub fn accepts_id(&self, id: &str) -> bool {
        let Some(wanted) = &self.machine_id else { return true };
        wanted == id || id.get(..SHORT_ID_CHARS).is_some_and(|short| short == wanted)
    }

    /// Returns the first key whose value on a machine is none of those asked for.
    pub fn metadata_missing<'a>(&'a self, machine: &BTreeMap<String, String>) -> Option<&'a str> {
        let has = |key: &str, values: &BTreeSet<String>| {
            machine.get(key).is_some_and(|value| values.contains(value))
        };
        self.metadata.iter().find(|(key, values)| !has(key, values)).map(|(key, _)| key.as_str())
    }

    /// Tells whether this unit's own globs forbid `other` on its machine.
    pub fn conflicts_with(&self, other: &str) -> bool {
        self.conflicts.iter().any(|glob| glob::matches(glob, other))
    }

    /// Tells whether this unit drives `other` away from its machine.
    pub fn replaces(&self, other: &str) -> bool {
        self.replaces.iter().any(|glob| glob::matches(glob, other))
    }
}

/// Returns the keys of the `[X-Fleet]` section that fleet does not know.
pub fn unknown_keys(file: &UnitFile) -> Vec<&str> {
    file.options()
        .iter()
        .filter(|option| option.section == FLEET_SECTION && !KEYS.contains(&option.name.as_str()))
        .map(|option| option.name.as_str())
        .collect()
}

/// Splits `"a" "b"` into its strings; a value that is not quoted at both ends is one string.
fn split_quoted(value: &str) -> Vec<String> {
    let quoted = value.len() >= 2 && value.starts_with('"') && value.ends_with('"');
    if !quoted {
        return vec![value.to_owned()];
    }
    value.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Collects `key=value` entries; those that are not exactly that are ignored.
fn metadata(entries: &[String]) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for entry in entries {
        let Some((key, value)) = entry.split_once('=') else { continue };
        if !key.is_empty() && !value.is_empty() && !value.contains('=') {
            found.entry(key.to_owned()).or_default().insert(value.to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, fleet: &str) -> Requirements {
        let file = UnitFile::parse(&format!("[X-Fleet]\n{fleet}\n")).unwrap();
        Requirements::read(&UnitName::parse(name).unwrap(), &file)
    }

    fn metadata_of(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn keys_are_anded_and_values_of_one_key_are_ored() {
        let unit = read(
            "a.service",
            "MachineMetadata=region=eu\nMachineMetadata=\"region=us\" \"disk=ssd\"\n\
             X-ConditionMachineMetadata=old=1\nMachineMetadata=junk\nMachineMetadata=a=b=c",
        );
        let missing = |pairs: &[_]| unit.metadata_missing(&metadata_of(pairs));
        assert_eq!(missing(&[("region", "us"), ("disk", "ssd"), ("old", "1")]), None);
        assert_eq!(missing(&[("region", "eu"), ("old", "1")]), Some("disk"));
        assert_eq!(missing(&[("region", "asia"), ("disk", "ssd"), ("old", "1")]), Some("region"));
    }

    #[test]
    fn conflicts_may_be_separated_repeated_and_quoted() {
        let unit = read(
            "a@1.service",
            "Conflicts=a@*.service b.service\nConflicts=\"c.service\" \"d.service\"\nX-Conflicts=%p-e.service",
        );
        for other in ["a@2.service", "b.service", "c.service", "d.service", "a-e.service"] {
            assert!(unit.conflicts_with(other), "{other}");
        }
        assert!(!unit.conflicts_with("f.service"));
    }

    #[test]
    fn specifiers_are_expanded_in_wishes() {
        let unit = read("web@eu.service", "MachineOf=db@%i.service\nMachineMetadata=region=%i");
        assert!(unit.peers.contains("db@eu.service"));
        assert_eq!(unit.metadata_missing(&metadata_of(&[("region", "eu")])), None);
    }

    #[test]
    fn a_machine_is_named_by_its_full_or_short_id() {
        let unit = read("a.service", "X-ConditionMachineBootID=old\nMachineID=01234567");
        assert!(unit.accepts_id("0123456789abcdef0123456789abcdef"));
        assert!(!unit.accepts_id("1123456789abcdef0123456789abcdef"));
        assert!(read("a.service", "").accepts_id("whatever"));
    }

    #[test]
    fn the_last_word_on_global_counts() {
        for word in ["true", "YES", "1", "On", "t"] {
            assert!(read("a.service", &format!("Global=no\nGlobal={word}")).global, "{word}");
        }
        assert!(!read("a.service", "Global=true\nGlobal=false").global);
    }

    #[test]
    fn contradictions_are_named() {
        let refused = |fleet: &str| read("a.service", fleet).check().map_err(|e| e.to_string());
        for (fleet, message) in [
            (
                "MachineOf=b.service\nConflicts=b*",
                "unresolvable requirements: peer \"b.service\" matches conflict \"b*\"",
            ),
            (
                "MachineOf=b.service\nReplaces=b*",
                "unresolvable requirements: peer \"b.service\" matches replace \"b*\"",
            ),
            ("MachineID=1\nGlobal=true", "MachineID cannot be used with Global"),
            ("MachineID=1\nMachineOf=b.service", "MachineID cannot be used with Peers"),
            ("MachineID=1\nConflicts=b", "MachineID cannot be used with Conflicts"),
            ("MachineID=1\nReplaces=b", "MachineID cannot be used with Replaces"),
            ("Global=1\nMachineOf=b.service", "Global cannot be used with Peers"),
            ("Global=1\nReplaces=b", "Global cannot be used with Replaces"),
            ("Conflicts=c\nReplaces=b", "Conflicts cannot be used with Replaces"),
        ] {
            assert_eq!(refused(fleet), Err(message.to_owned()));
        }
        for fleet in [
            "",
            "Global=true\nConflicts=b",
            "Global=true\nMachineMetadata=a=b",
            "MachineMetadata=a=b\nMachineOf=b.service\nConflicts=c",
        ] {
            assert_eq!(refused(fleet), Ok(()));
        }
    }

    #[test]
    fn unknown_keys_are_told() {
        let file = UnitFile::parse("[X-Fleet]\nGlobal=1\nGlobl=1\n[Unit]\nX=1\n").unwrap();
        assert_eq!(unknown_keys(&file), ["Globl"]);
    }
}
