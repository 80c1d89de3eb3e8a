//! Which machine runs which unit: the engine's decisions, and why not elsewhere.
//!
//! Pure and deterministic: units by name, those that others want to be with first; the machine
//! with the fewest units, of equals the one with the lowest id.
//!
//! ```text
//!   scheduled:   unwanted? machine gone? no longer fits? ──▶ taken off
//!   unscheduled: wanted? ends elsewhere? ──▶ the least loaded machine that fits
//! ```
//! A unit that still runs on a present machine is placed nowhere else until it has ended there.
//!
//! **Not here:** global units, which machines take by themselves; resources.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::agents::fleet::cluster::{Cluster, Job, Unit};
use crate::wire::fleet::registry::{JobState, MachineObject};

/// Why a machine cannot run a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The unit wants a certain machine.
    OtherMachine {
        /// Its id.
        wanted: String,
    },
    /// The machine lacks metadata.
    Metadata {
        /// The key.
        key: String,
        /// The values that would do.
        wanted: Vec<String>,
        /// What the machine has.
        found: Option<String>,
    },
    /// A unit that it must be with is not here.
    Peer {
        /// That unit.
        unit: String,
    },
    /// A unit that it may not be with is here.
    Conflict {
        /// That unit.
        unit: String,
    },
    /// A unit that drives it away is here.
    ReplacedBy {
        /// That unit.
        unit: String,
    },
    /// It and a scheduled unit drive each other away.
    ReplaceEachOther {
        /// That unit.
        unit: String,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherMachine { wanted } => {
                write!(f, "the unit asks for machine {wanted} (MachineID)")
            }
            Self::Metadata { key, wanted, found: Some(found) } => {
                let wanted = wanted.join(" or ");
                write!(f, "metadata `{key}` is `{found}`, the unit asks for `{wanted}`")
            }
            Self::Metadata { key, wanted, found: None } => {
                write!(
                    f,
                    "metadata `{key}` is missing, the unit asks for `{}`",
                    wanted.join(" or ")
                )
            }
            Self::Peer { unit } => write!(f, "peer `{unit}` is not scheduled here (MachineOf)"),
            Self::Conflict { unit } => write!(f, "conflicts with `{unit}`, which is here"),
            Self::ReplacedBy { unit } => write!(f, "`{unit}`, which is here, replaces it"),
            Self::ReplaceEachOther { unit } => {
                write!(f, "it and `{unit}`, which is scheduled, replace each other")
            }
        }
    }
}

/// Why a unit is taken off its machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Left {
    /// It shall be inactive.
    Unwanted,
    /// Its machine is not present.
    MachineGone,
    /// It runs on every machine now.
    Global,
    /// The machine no longer fits.
    Unfit(Reason),
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unwanted => f.write_str("target state inactive"),
            Self::MachineGone => f.write_str("its machine is gone"),
            Self::Global => f.write_str("it is global now"),
            Self::Unfit(reason) => reason.fmt(f),
        }
    }
}

/// One step of the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Take a unit off its machine.
    Unschedule {
        /// The unit.
        unit: String,
        /// The machine.
        machine: String,
        /// Why.
        why: Left,
    },
    /// Give a unit to a machine.
    Schedule {
        /// The unit.
        unit: String,
        /// The machine.
        machine: String,
    },
}

/// Whether a machine that is not present may be taken for dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// It is dead: its units move.
    IsGone,
    /// The store was away a moment ago, and with it everybody's presence: wait for them.
    MayReturn,
}

/// Decides what to change so that every unit that shall run is on a machine that fits.
pub fn decide(cluster: &Cluster, missing: Missing) -> Vec<Decision> {
    let mut world = World::of(cluster);
    let mut decisions = world.clear(cluster, missing);
    let free: BTreeSet<&str> = decisions
        .iter()
        .map(|decision| match decision {
            Decision::Unschedule { unit, .. } | Decision::Schedule { unit, .. } => unit.as_str(),
        })
        .collect();
    let pending: Vec<&Unit> = cluster
        .jobs()
        .filter(|(name, job)| job.target.is_none() || free.contains(name))
        .filter_map(|(name, job)| wants_a_place(cluster, name, job))
        .collect();
    let placed = world.fill(pending);
    decisions.extend(placed);
    decisions
}

/// Returns the unit if it shall be somewhere, and runs nowhere now.
fn wants_a_place<'a>(cluster: &'a Cluster, name: &'a str, job: &'a Job) -> Option<&'a Unit> {
    let unit = job.unit.as_deref()?;
    let wanted = job.target_state != JobState::Inactive;
    let placeable = !unit.requirements.global && !unit.name.is_template();
    (wanted && placeable && cluster.running_on(name).next().is_none()).then_some(unit)
}

/// Tells for every machine whether it could run a unit, and if not why; by machine id.
pub fn placement<'a>(
    cluster: &'a Cluster,
    unit: &'a Unit,
) -> Vec<(&'a MachineObject, Result<usize, Reason>)> {
    let mut world = World::of(cluster);
    let home = cluster.job(unit.name.as_str()).and_then(|job| job.target.as_deref());
    if let Some(home) = home {
        world.take(unit.name.as_str(), home);
    }
    world
        .spots
        .values()
        .map(|spot| (spot.machine, world.fits(unit, spot).map(|()| spot.units.len())))
        .collect()
}

/// A machine and what is on it.
#[derive(Debug)]
struct Spot<'a> {
    machine: &'a MachineObject,
    units: BTreeSet<&'a str>,
    /// Those of the units that have a say in who else is here.
    picky: BTreeMap<&'a str, &'a Unit>,
}

/// All machines, and who is where; moves along with the decisions.
#[derive(Debug)]
struct World<'a> {
    spots: BTreeMap<&'a str, Spot<'a>>,
    /// Machines by their load.
    by_load: BTreeSet<(usize, &'a str)>,
    /// Scheduled units that drive others away.
    replacing: BTreeMap<&'a str, &'a Unit>,
}

impl<'a> World<'a> {
    fn of(cluster: &'a Cluster) -> Self {
        let spot = |machine| Spot { machine, units: BTreeSet::new(), picky: BTreeMap::new() };
        let machines = cluster.machines().iter();
        let spots: BTreeMap<_, _> = machines.map(|(id, it)| (id.as_str(), spot(it))).collect();
        let by_load = spots.keys().map(|id| (0, *id)).collect();
        let mut world = Self { spots, by_load, replacing: BTreeMap::new() };
        for (name, job) in cluster.jobs() {
            let unit = job.unit.as_deref();
            match unit {
                Some(unit) if unit.requirements.global => world.put_global(unit, job.target_state),
                _ => {
                    if let Some(target) = &job.target {
                        world.put(name, unit, target);
                    }
                }
            }
        }
        world
    }

    fn put_global(&mut self, unit: &'a Unit, state: JobState) {
        if state == JobState::Inactive {
            return;
        }
        let fits =
            |spot: &Spot<'_>| unit.requirements.metadata_missing(&spot.machine.metadata).is_none();
        let ids: Vec<&str> =
            self.spots.iter().filter(|(_, spot)| fits(spot)).map(|(id, _)| *id).collect();
        for id in ids {
            self.put(unit.name.as_str(), Some(unit), id);
        }
    }

    fn put(&mut self, name: &'a str, unit: Option<&'a Unit>, machine: &str) {
        let Some((id, mut spot)) = self.spots.remove_entry(machine) else { return };
        self.by_load.remove(&(spot.units.len(), id));
        spot.units.insert(name);
        if let Some(unit) = unit {
            if !unit.requirements.conflicts.is_empty() || !unit.requirements.replaces.is_empty() {
                spot.picky.insert(name, unit);
            }
            if !unit.requirements.replaces.is_empty() {
                self.replacing.insert(name, unit);
            }
        }
        self.by_load.insert((spot.units.len(), id));
        self.spots.insert(id, spot);
    }

    fn take(&mut self, name: &str, machine: &str) {
        let Some((id, mut spot)) = self.spots.remove_entry(machine) else { return };
        self.by_load.remove(&(spot.units.len(), id));
        spot.units.remove(name);
        spot.picky.remove(name);
        self.replacing.remove(name);
        self.by_load.insert((spot.units.len(), id));
        self.spots.insert(id, spot);
    }

    /// Takes units off their machines until all that are left may stay.
    fn clear(&mut self, cluster: &'a Cluster, missing: Missing) -> Vec<Decision> {
        let mut decisions = Vec::new();
        let mut scheduled: Vec<(&str, &Job, &str)> = cluster
            .jobs()
            .filter_map(|(name, job)| Some((name, job, job.target.as_deref()?)))
            .collect();
        loop {
            let before = scheduled.len();
            scheduled.retain(|(name, job, machine)| {
                let Some(why) = self.must_leave(job, machine, missing) else { return true };
                self.take(name, machine);
                let (unit, machine) = ((*name).to_owned(), (*machine).to_owned());
                decisions.push(Decision::Unschedule { unit, machine, why });
                false
            });
            if scheduled.len() == before {
                return decisions;
            }
            // Only those that must be with another can have lost their reason to stay.
            scheduled.retain(|(_, job, _)| {
                job.unit.as_ref().is_some_and(|unit| !unit.requirements.peers.is_empty())
            });
        }
    }

    fn must_leave(&self, job: &Job, machine: &str, missing: Missing) -> Option<Left> {
        if job.target_state == JobState::Inactive {
            return Some(Left::Unwanted);
        }
        let Some(spot) = self.spots.get(machine) else {
            return (missing == Missing::IsGone).then_some(Left::MachineGone);
        };
        let unit = job.unit.as_deref()?;
        if unit.requirements.global {
            return Some(Left::Global);
        }
        self.fits(unit, spot).err().map(Left::Unfit)
    }

    /// Tells whether a machine could run a unit; the unit itself does not count.
    fn fits(&self, unit: &Unit, spot: &Spot<'_>) -> Result<(), Reason> {
        let (name, wishes) = (unit.name.as_str(), &unit.requirements);
        if !wishes.accepts_id(&spot.machine.id) {
            let wanted = wishes.machine_id.clone().unwrap_or_default();
            return Err(Reason::OtherMachine { wanted });
        }
        if let Some(key) = wishes.metadata_missing(&spot.machine.metadata) {
            return Err(Reason::Metadata {
                key: key.to_owned(),
                wanted: wishes.metadata[key].iter().cloned().collect(),
                found: spot.machine.metadata.get(key).cloned(),
            });
        }
        let missing = wishes.peers.iter().find(|peer| !spot.units.contains(peer.as_str()));
        if let Some(peer) = missing {
            return Err(Reason::Peer { unit: peer.clone() });
        }
        if let Some(other) = Self::conflict(unit, spot) {
            return Err(Reason::Conflict { unit: other.to_owned() });
        }
        let mut others = spot.picky.iter().filter(|(other, _)| **other != name);
        if let Some((other, _)) = others.find(|(_, it)| it.requirements.replaces(name)) {
            return Err(Reason::ReplacedBy { unit: (*other).to_owned() });
        }
        let mut replacing = self.replacing.iter().filter(|(other, _)| **other != name);
        let each_other = |(other, it): &(&&str, &&Unit)| {
            it.requirements.replaces(name) && wishes.replaces(other)
        };
        match replacing.find(each_other) {
            Some((other, _)) => Err(Reason::ReplaceEachOther { unit: (*other).to_owned() }),
            None => Ok(()),
        }
    }

    /// Returns a unit on the machine that may not be there together with `unit`.
    fn conflict<'s>(unit: &Unit, spot: &'s Spot<'_>) -> Option<&'s str> {
        let (name, wishes) = (unit.name.as_str(), &unit.requirements);
        let theirs = spot
            .picky
            .iter()
            .find(|(other, it)| **other != name && it.requirements.conflicts_with(name))
            .map(|(other, _)| *other);
        let own = || spot.units.iter().copied().find(|it| *it != name && wishes.conflicts_with(it));
        theirs.or_else(|| if wishes.conflicts.is_empty() { None } else { own() })
    }

    /// Places as many units as fit, those that wait for no other first.
    fn fill(&mut self, pending: Vec<&'a Unit>) -> Vec<Decision> {
        let mut decisions = Vec::new();
        let (mut alone, mut with_peers): (Vec<&Unit>, Vec<&Unit>) =
            pending.into_iter().partition(|unit| unit.requirements.peers.is_empty());
        let mut place = |world: &mut Self, unit: &'a Unit| {
            let Some(machine) = world.choose(unit) else { return false };
            world.put(unit.name.as_str(), Some(unit), machine);
            let (unit, machine) = (unit.name.to_string(), machine.to_owned());
            decisions.push(Decision::Schedule { unit, machine });
            true
        };
        alone.retain(|unit| !place(self, unit));
        loop {
            let before = with_peers.len();
            with_peers.retain(|unit| !place(self, unit));
            if with_peers.len() == before {
                return decisions;
            }
        }
    }

    /// Chooses the machine for a unit: where it drives another away, else the least loaded.
    fn choose(&self, unit: &Unit) -> Option<&'a str> {
        let wishes = &unit.requirements;
        let fits = |id: &str| self.spots.get(id).is_some_and(|spot| self.fits(unit, spot).is_ok());
        let drives_away = |id: &str| {
            self.spots.get(id).is_some_and(|spot| spot.units.iter().any(|it| wishes.replaces(it)))
        };
        let machines = || self.by_load.iter().map(|(_, id)| *id);
        if !wishes.replaces.is_empty()
            && let Some(id) = machines().find(|id| drives_away(id) && fits(id))
        {
            return Some(id);
        }
        machines().find(|id| fits(id))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::agents::fleet::cluster::build;

    fn cluster(machines: &[&str], units: &[(&str, &str)]) -> Cluster {
        let mut cluster = Cluster::default();
        for id in machines {
            build::machine(&mut cluster, id, &[("region", if *id == "m1" { "eu" } else { "us" })]);
        }
        for (name, fleet) in units {
            build::unit(&mut cluster, name, fleet);
        }
        cluster
    }

    fn carry_out(cluster: &mut Cluster, decisions: &[Decision]) {
        for decision in decisions {
            match decision {
                Decision::Unschedule { unit, .. } => build::target(cluster, unit, None),
                Decision::Schedule { unit, machine } => build::target(cluster, unit, Some(machine)),
            }
        }
    }

    /// Decides until there is nothing left, and says where everything is.
    fn settle(cluster: &mut Cluster) -> BTreeMap<String, String> {
        for _ in 0..8 {
            let decisions = decide(cluster, Missing::IsGone);
            if decisions.is_empty() {
                break;
            }
            carry_out(cluster, &decisions);
        }
        assert_eq!(decide(cluster, Missing::IsGone), [], "it must settle");
        let at = |(name, job): (&str, &Job)| Some((name.to_owned(), job.target.clone()?));
        cluster.jobs().filter_map(at).collect()
    }

    fn places(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(unit, id)| ((*unit).to_owned(), (*id).to_owned())).collect()
    }

    #[test]
    fn units_spread_over_the_least_loaded_machines_by_name() {
        let mut cluster =
            cluster(&["m2", "m1"], &[("c.service", ""), ("a.service", ""), ("b.service", "")]);
        let want = [("a.service", "m1"), ("b.service", "m2"), ("c.service", "m1")];
        assert_eq!(settle(&mut cluster), places(&want));
    }

    #[test]
    fn units_that_exclude_each_other_get_a_machine_each_and_the_rest_waits() {
        let one = "Conflicts=e@*.service";
        let units: Vec<_> = ["e@1.service", "e@2.service", "e@3.service", "e@4.service"]
            .map(|name| (name, one))
            .into();
        let mut cluster = cluster(&["m1", "m2", "m3"], &units);
        let want = [("e@1.service", "m1"), ("e@2.service", "m2"), ("e@3.service", "m3")];
        assert_eq!(settle(&mut cluster), places(&want));
        let four = cluster.job("e@4.service").unwrap().unit.clone().unwrap();
        let verdicts = placement(&cluster, &four);
        let (machine, verdict) = &verdicts[1];
        assert_eq!(machine.id, "m2");
        let reason = verdict.as_ref().unwrap_err().to_string();
        assert_eq!(reason, "conflicts with `e@2.service`, which is here");
    }

    #[test]
    fn only_the_unit_of_a_machine_that_is_gone_moves() {
        let one = "Conflicts=e@*.service";
        let units = [("e@1.service", one), ("e@2.service", one), ("e@3.service", one)];
        let mut cluster = cluster(&["m1", "m2", "m3", "m4"], &units);
        settle(&mut cluster);
        build::put(&mut cluster, &crate::wire::fleet::Key::Machine("m2".into()), None);
        assert_eq!(decide(&cluster, Missing::MayReturn), [], "the store was away a moment ago");
        let decisions = decide(&cluster, Missing::IsGone);
        assert_eq!(
            decisions,
            [
                Decision::Unschedule {
                    unit: "e@2.service".into(),
                    machine: "m2".into(),
                    why: Left::MachineGone
                },
                Decision::Schedule { unit: "e@2.service".into(), machine: "m4".into() },
            ]
        );
    }

    #[test]
    fn one_way_conflicts_hold_in_both_directions() {
        let mut cluster =
            cluster(&["m1"], &[("a.service", ""), ("b.service", "Conflicts=a.service")]);
        assert_eq!(settle(&mut cluster), places(&[("a.service", "m1")]));
        let mut cluster =
            self::cluster(&["m1"], &[("a.service", "Conflicts=b*"), ("b.service", "")]);
        assert_eq!(settle(&mut cluster), places(&[("a.service", "m1")]));
    }

    #[test]
    fn a_unit_goes_where_its_peer_is_and_moves_along() {
        let units = [("a-ping.service", "MachineOf=b-pong.service"), ("b-pong.service", "")];
        let mut cluster = cluster(&["m1", "m2"], &units);
        let want = [("a-ping.service", "m1"), ("b-pong.service", "m1")];
        assert_eq!(settle(&mut cluster), places(&want));
        build::put(&mut cluster, &crate::wire::fleet::Key::Machine("m1".into()), None);
        let want = [("a-ping.service", "m2"), ("b-pong.service", "m2")];
        assert_eq!(settle(&mut cluster), places(&want));
    }

    #[test]
    fn metadata_and_machine_ids_are_obeyed_and_followed() {
        let units = [("a.service", "MachineMetadata=region=us"), ("b.service", "MachineID=m2")];
        let mut cluster = cluster(&["m1", "m2"], &units);
        let want = [("a.service", "m2"), ("b.service", "m2")];
        assert_eq!(settle(&mut cluster), places(&want));
        build::machine(&mut cluster, "m2", &[("region", "asia")]);
        assert_eq!(settle(&mut cluster), places(&[("b.service", "m2")]));
        let unit = cluster.job("a.service").unwrap().unit.clone().unwrap();
        let reasons: Vec<_> = placement(&cluster, &unit)
            .into_iter()
            .map(|(_, verdict)| verdict.unwrap_err().to_string())
            .collect();
        assert_eq!(reasons[0], "metadata `region` is `eu`, the unit asks for `us`");
        assert_eq!(reasons[1], "metadata `region` is `asia`, the unit asks for `us`");
    }

    #[test]
    fn what_shall_be_inactive_is_taken_off() {
        let mut cluster = cluster(&["m1"], &[("a.service", "")]);
        settle(&mut cluster);
        build::target_state(&mut cluster, "a.service", JobState::Inactive);
        assert_eq!(settle(&mut cluster), places(&[]));
    }

    #[test]
    fn global_units_count_and_conflict_but_are_not_placed() {
        let units = [
            ("g.service", "Global=true\nMachineMetadata=region=eu\nConflicts=a.service"),
            ("a.service", ""),
            ("b.service", ""),
        ];
        let mut cluster = cluster(&["m1", "m2"], &units);
        let want = [("a.service", "m2"), ("b.service", "m1")];
        assert_eq!(settle(&mut cluster), places(&want));
    }

    #[test]
    fn a_unit_that_replaces_another_drives_it_to_another_machine() {
        let mut cluster = cluster(&["m1", "m2"], &[("replace.0.service", "")]);
        settle(&mut cluster);
        build::unit(&mut cluster, "kick0.service", "Replaces=replace.0.service");
        let want = [("kick0.service", "m1"), ("replace.0.service", "m2")];
        assert_eq!(settle(&mut cluster), places(&want));
    }

    #[test]
    fn of_two_that_replace_each_other_only_one_is_placed() {
        let units = [("a.service", "Replaces=b.service"), ("b.service", "Replaces=a.service")];
        let mut cluster = cluster(&["m1", "m2"], &units);
        assert_eq!(settle(&mut cluster), places(&[("a.service", "m1")]));
    }

    #[test]
    fn a_unit_is_placed_nowhere_while_it_still_runs_elsewhere() {
        let mut cluster = cluster(&["m1", "m2"], &[("a.service", "")]);
        build::state(&mut cluster, "a.service", "m1", Some("deactivating"));
        assert_eq!(decide(&cluster, Missing::IsGone), []);
        build::state(&mut cluster, "a.service", "m1", None);
        assert_eq!(decide(&cluster, Missing::IsGone).len(), 1);
        build::state(&mut cluster, "a.service", "gone", Some("active"));
        assert_eq!(decide(&cluster, Missing::IsGone).len(), 1, "what a dead machine said is past");
    }

    #[test]
    fn templates_and_units_without_a_text_are_left_alone() {
        let mut cluster = cluster(&["m1"], &[("a@.service", "")]);
        build::put(
            &mut cluster,
            &crate::wire::fleet::Key::JobObject("b.service".into()),
            Some(&format!(r#"{{"Name":"b.service","UnitHash":[{}]}}"#, ["9"; 20].join(","))),
        );
        build::target_state(&mut cluster, "b.service", JobState::Launched);
        assert_eq!(decide(&cluster, Missing::IsGone), []);
    }

    fn wishes() -> impl Strategy<Value = String> {
        prop_oneof![
            Just(String::new()),
            "[a-d]".prop_map(|letter| format!("Conflicts={letter}*")),
            "[a-d]".prop_map(|letter| format!("MachineOf={letter}1.service")),
            Just("MachineMetadata=region=eu".to_owned()),
            Just("Global=true".to_owned()),
            "m[1-4]".prop_map(|id| format!("MachineID={id}")),
        ]
    }

    proptest! {
        #[test]
        fn decisions_settle_and_leave_everyone_where_they_fit(
            units in prop::collection::btree_map("[a-d][1-3]\\.service", wishes(), 0..10),
            machines in 0usize..4,
        ) {
            let units: Vec<_> = units.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            let ids = &["m1", "m2", "m3", "m4"][..machines];
            let mut cluster = cluster(ids, &units);
            let places = settle(&mut cluster);
            let mut again = self::cluster(ids, &units);
            prop_assert_eq!(&settle(&mut again), &places, "the same input, the same places");
            let world = World::of(&cluster);
            for (name, machine) in &places {
                let unit = cluster.job(name).unwrap().unit.clone().unwrap();
                prop_assert_eq!(world.fits(&unit, &world.spots[machine.as_str()]), Ok(()));
            }
        }
    }
}
