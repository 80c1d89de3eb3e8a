//! What this machine does next, given what the registry wants of it and what is here.
//!
//! Pure. Removals first, so that a port freed can be taken; everything else in the order unload,
//! load, reload, stop, start.
//!
//! **Not here:** retries: a step that fails is planned again by the next round. Whether a reload
//! changes anything: `agent` leaves it out where it does not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::agents::fleet::cluster::{Cluster, Unit};
use crate::wire::fleet::UnitHash;
use crate::wire::fleet::registry::{JobState, MachineObject};

/// A unit that shall be on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The unit.
    pub unit: Arc<Unit>,
    /// Whether it shall run.
    pub launched: bool,
}

/// What the registry wants of this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Units that shall be here, by name.
    pub units: BTreeMap<String, Wanted>,
    /// Units that shall be here but whose text is not known: they are left as they are.
    pub unknown: BTreeSet<String>,
}

/// A unit that is on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Here {
    /// Which text it was loaded with.
    pub hash: UnitHash,
    /// Whether it was started.
    pub launched: bool,
}

/// A step. The order of the variants is the order of work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// Stop a unit and take its file away.
    Unload(String),
    /// Write a unit's file and make it known.
    Load(Arc<Unit>),
    /// Let systemd read its files again.
    Reload,
    /// Stop a unit and keep it.
    Stop(String),
    /// Start a unit.
    Start(String),
}

/// Returns what shall be on the machine `me`: units scheduled to it and global units that fit,
/// by name, without those that conflict with one accepted before.
pub fn desired(cluster: &Cluster, me: &MachineObject) -> Wishes {
    let mut wishes = Wishes::default();
    for (name, job) in cluster.jobs() {
        let targeted = job.target.as_deref() == Some(me.id.as_str());
        let Some(unit) = &job.unit else {
            if targeted {
                wishes.unknown.insert(name.to_owned());
            }
            continue;
        };
        let asked = &unit.requirements;
        let ours = if asked.global {
            !unit.name.is_template() && asked.metadata_missing(&me.metadata).is_none()
        } else {
            targeted
        };
        let launched = match job.target_state {
            JobState::Inactive => continue,
            JobState::Loaded => false,
            JobState::Launched => true,
        };
        if ours && !conflicts(&wishes, unit) {
            wishes.units.insert(name.to_owned(), Wanted { unit: unit.clone(), launched });
        }
    }
    wishes
}

fn conflicts(accepted: &Wishes, unit: &Unit) -> bool {
    let name = unit.name.as_str();
    accepted.units.iter().any(|(other, wanted)| {
        wanted.unit.requirements.conflicts_with(name) || unit.requirements.conflicts_with(other)
    })
}

/// Plans the steps from what is here to what shall be.
pub fn plan(wishes: &Wishes, here: &BTreeMap<String, Here>) -> Vec<Task> {
    let mut steps = [const { Vec::new() }; 4];
    let [unload, load, stop, start] = &mut steps;
    for name in here.keys() {
        if !wishes.units.contains_key(name) && !wishes.unknown.contains(name) {
            unload.push(Task::Unload(name.clone()));
        }
    }
    for (name, wanted) in &wishes.units {
        let found = here.get(name);
        let same = found.is_some_and(|found| found.hash == wanted.unit.hash);
        if !same {
            if found.is_some() {
                unload.push(Task::Unload(name.clone()));
            }
            load.push(Task::Load(wanted.unit.clone()));
        }
        let runs = same && found.is_some_and(|found| found.launched);
        match (wanted.launched, runs) {
            (true, false) => start.push(Task::Start(name.clone())),
            (false, true) => stop.push(Task::Stop(name.clone())),
            _ => {}
        }
    }
    if !unload.is_empty() || !load.is_empty() {
        load.push(Task::Reload);
    }
    steps.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::agents::fleet::cluster::build;
    use crate::wire::fleet::{UnitFile, UnitName, UnitOption};

    fn unit(name: &str, text: &str) -> Arc<Unit> {
        let options = vec![UnitOption::new("Service", "ExecStart", text)];
        let file = Arc::new(UnitFile::from_options(options).unwrap());
        Arc::new(Unit::new(UnitName::parse(name).unwrap(), file))
    }

    fn wishes(units: &[(&str, &str, bool)]) -> Wishes {
        let one = |(name, text, launched): &(&str, &str, bool)| {
            ((*name).to_owned(), Wanted { unit: unit(name, text), launched: *launched })
        };
        Wishes { units: units.iter().map(one).collect(), unknown: BTreeSet::new() }
    }

    fn here(units: &[(&str, &str, bool)]) -> BTreeMap<String, Here> {
        let one = |(name, text, launched): &(&str, &str, bool)| {
            ((*name).to_owned(), Here { hash: unit(name, text).hash, launched: *launched })
        };
        units.iter().map(one).collect()
    }

    fn words(tasks: &[Task]) -> Vec<String> {
        tasks
            .iter()
            .map(|task| match task {
                Task::Unload(name) => format!("unload {name}"),
                Task::Load(unit) => format!("load {}", unit.name),
                Task::Reload => "reload".to_owned(),
                Task::Stop(name) => format!("stop {name}"),
                Task::Start(name) => format!("start {name}"),
            })
            .collect()
    }

    #[test]
    fn the_table_of_tasks_holds() {
        let a = "a.service";
        let check = |want: &[(&str, &str, bool)], have: &[(&str, &str, bool)], tasks: &[&str]| {
            assert_eq!(words(&plan(&wishes(want), &here(have))), tasks, "{want:?} {have:?}");
        };
        check(&[], &[(a, "1", true)], &["unload a.service", "reload"]);
        check(&[(a, "1", true)], &[], &["load a.service", "reload", "start a.service"]);
        check(&[(a, "1", false)], &[], &["load a.service", "reload"]);
        check(&[(a, "1", true)], &[(a, "1", false)], &["start a.service"]);
        check(&[(a, "1", false)], &[(a, "1", true)], &["stop a.service"]);
        check(&[(a, "1", true)], &[(a, "1", true)], &[]);
        check(&[(a, "1", false)], &[(a, "1", false)], &[]);
        check(
            &[(a, "2", true)],
            &[(a, "1", true)],
            &["unload a.service", "load a.service", "reload", "start a.service"],
        );
    }

    #[test]
    fn tasks_are_sorted_by_their_kind() {
        let want = [("a.service", "1", true), ("b.service", "2", true), ("c.service", "1", false)];
        let have = [("b.service", "1", true), ("c.service", "1", true), ("d.service", "1", true)];
        let tasks = words(&plan(&wishes(&want), &here(&have)));
        let kinds = [
            "unload d.service",
            "unload b.service",
            "load a.service",
            "load b.service",
            "reload",
            "stop c.service",
            "start a.service",
            "start b.service",
        ];
        assert_eq!(tasks, kinds);
    }

    #[test]
    fn a_unit_whose_text_is_unknown_is_left_alone() {
        let mut wishes = wishes(&[]);
        wishes.unknown.insert("a.service".to_owned());
        assert_eq!(plan(&wishes, &here(&[("a.service", "1", true)])), []);
    }

    #[test]
    fn a_machine_takes_what_is_scheduled_to_it_and_globals_that_fit() {
        let mut cluster = Cluster::default();
        build::machine(&mut cluster, "m1", &[("role", "store")]);
        build::unit(&mut cluster, "a.service", "");
        build::target(&mut cluster, "a.service", Some("m1"));
        build::unit(&mut cluster, "b.service", "");
        build::target(&mut cluster, "b.service", Some("m2"));
        build::unit(&mut cluster, "g.service", "Global=true\nMachineMetadata=role=store");
        build::unit(&mut cluster, "h.service", "Global=true\nMachineMetadata=role=other");
        build::unit(&mut cluster, "i.service", "Global=true\nConflicts=g.service");
        build::unit(&mut cluster, "j.service", "Global=true");
        build::target_state(&mut cluster, "j.service", JobState::Inactive);
        let wishes = desired(&cluster, &cluster.machines()["m1"]);
        let names: Vec<_> = wishes.units.keys().map(String::as_str).collect();
        assert_eq!(names, ["a.service", "g.service"]);
    }

    fn apply(here: &mut BTreeMap<String, Here>, task: Task) {
        match task {
            Task::Unload(name) => drop(here.remove(&name).expect("only what is here is unloaded")),
            Task::Load(unit) => {
                let new = Here { hash: unit.hash, launched: false };
                assert_eq!(here.insert(unit.name.to_string(), new), None, "loaded once");
            }
            Task::Reload => {}
            Task::Stop(name) => here.get_mut(&name).unwrap().launched = false,
            Task::Start(name) => here.get_mut(&name).unwrap().launched = true,
        }
    }

    fn units() -> impl Strategy<Value = Vec<(String, String, bool)>> {
        prop::collection::vec(("[a-d]\\.service", "[12]", any::<bool>()), 0..6)
    }

    proptest! {
        #[test]
        fn carrying_out_a_plan_leaves_nothing_to_plan(want in units(), have in units()) {
            let borrow = |units: &[(String, String, bool)]| -> Vec<(String, String, bool)> { units.to_vec() };
            let want: Vec<_> = borrow(&want);
            let want: Vec<_> = want.iter().map(|(a, b, c)| (a.as_str(), b.as_str(), *c)).collect();
            let have: Vec<_> = have.iter().map(|(a, b, c)| (a.as_str(), b.as_str(), *c)).collect();
            let (wishes, mut here) = (wishes(&want), here(&have));
            for task in plan(&wishes, &here) {
                apply(&mut here, task);
            }
            prop_assert_eq!(plan(&wishes, &here), vec![]);
        }
    }
}
