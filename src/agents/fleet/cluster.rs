//! The cluster as the registry describes it, kept up to date change by change.
//!
//! Pure: fed with what the store's mirror tells and with our own writes, which may be ahead of
//! the mirror. Unit files are parsed once, when their text or their job arrives.
//!
//! **Not here:** what should follow from it; `schedule` and `plan` decide.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::rpc::client::mirror::{Change, Snapshot};
use crate::wire::fleet::registry::{
    JobObject, JobState, Key, LeaseObject, MachineObject, Registry, StateObject, UnitObject,
};
use crate::wire::fleet::{Requirements, UnitFile, UnitHash, UnitName};

/// A unit whose text is known.
#[derive(Debug, PartialEq, Eq)]
pub struct Unit {
    /// Its name.
    pub name: UnitName,
    /// Which text it has.
    pub hash: UnitHash,
    /// The text, read.
    pub file: Arc<UnitFile>,
    /// What it asks for.
    pub requirements: Requirements,
}

impl Unit {
    /// Reads what a unit asks for.
    pub fn new(name: UnitName, file: Arc<UnitFile>) -> Self {
        let requirements = Requirements::read(&name, &file);
        Self { hash: file.hash(), requirements, name, file }
    }
}

/// What the registry says of one unit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Job {
    /// Which text it has; `None` while only other keys of it are there.
    pub hash: Option<UnitHash>,
    /// The unit, once its text is known.
    pub unit: Option<Arc<Unit>>,
    /// The machine that shall run it.
    pub target: Option<String>,
    /// What it shall be.
    pub target_state: JobState,
    /// The machine that says it launched it.
    pub heartbeat: Option<String>,
}

impl Job {
    /// Tells whether it runs on every machine that fits.
    pub fn is_global(&self) -> bool {
        self.unit.as_ref().is_some_and(|unit| unit.requirements.global)
    }
}

/// Which readers a change matters to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Matters {
    /// To nobody.
    Not,
    /// To those who ask about states.
    ToReaders,
    /// To those who decide.
    ToDeciders,
}

/// The cluster as the registry describes it.
#[derive(Debug, Default)]
pub struct Cluster {
    registry: Registry,
    jobs: BTreeMap<String, Job>,
    files: BTreeMap<UnitHash, Arc<UnitFile>>,
    /// Jobs whose text has not arrived.
    waiting: BTreeSet<String>,
    objects: BTreeMap<String, MachineObject>,
    metadata: BTreeMap<String, BTreeMap<String, String>>,
    /// Objects with their metadata laid over.
    machines: BTreeMap<String, MachineObject>,
    states: BTreeMap<String, BTreeMap<String, StateObject>>,
    legacy: BTreeMap<String, StateObject>,
    leader: Option<LeaseObject>,
    engine_version: u64,
    /// The index of what we wrote ourselves and the mirror has yet to tell.
    ahead: BTreeMap<String, u64>,
}

impl Cluster {
    /// Makes an empty cluster.
    pub fn new(registry: Registry) -> Self {
        Self { registry, ..Self::default() }
    }

    /// Takes in what the mirror tells; says whom it matters to.
    pub fn apply(&mut self, change: &Change) -> Matters {
        match change {
            Change::Listed(snapshot) => {
                self.relist(snapshot);
                Matters::ToDeciders
            }
            Change::Changed { index, path, value, .. } => {
                if self.ahead.get(path).is_some_and(|ours| ours > index) {
                    return Matters::Not;
                }
                self.ahead.remove(path);
                self.put(path, value.as_deref())
            }
            Change::Lost { .. } => Matters::Not,
        }
    }

    /// Takes in a write of our own, which the store took at `index`.
    pub fn note(&mut self, path: &str, value: Option<&str>, index: u64) -> Matters {
        self.ahead.insert(path.to_owned(), index);
        self.put(path, value)
    }

    /// Takes in that we destroyed a unit.
    pub fn note_destroyed(&mut self, unit: &str, index: u64) -> Matters {
        let owned = || unit.to_owned();
        for key in [
            Key::JobObject(owned()),
            Key::JobTarget(owned()),
            Key::JobTargetState(owned()),
            Key::JobHeartbeat(owned()),
        ] {
            let path = self.registry.path(&key);
            self.note(&path, None, index);
        }
        Matters::ToDeciders
    }

    fn relist(&mut self, snapshot: &Snapshot) {
        *self = Self::new(self.registry.clone());
        for (path, entry) in &snapshot.entries {
            self.put(path, Some(&entry.value));
        }
    }

    fn put(&mut self, path: &str, value: Option<&str>) -> Matters {
        let Some(key) = self.registry.key(path) else { return Matters::Not };
        match key {
            Key::JobObject(unit) => self.put_object(unit, value),
            Key::JobTarget(unit) => {
                self.edit(unit, |job| job.target = value.map(str::to_owned));
            }
            Key::JobTargetState(unit) => {
                let state = value.and_then(JobState::parse).unwrap_or_default();
                self.edit(unit, |job| job.target_state = state);
            }
            Key::JobHeartbeat(unit) => {
                self.edit(unit, |job| job.heartbeat = value.map(str::to_owned));
                return Matters::ToReaders;
            }
            Key::Unit(hash) => return self.put_file(hash, value),
            Key::LegacyState(unit) => {
                replace(&mut self.legacy, unit, value.and_then(parsed));
                return Matters::ToReaders;
            }
            Key::State { unit, machine } => return self.put_state(&unit, machine, value),
            Key::Machine(id) => {
                replace(&mut self.objects, id.clone(), value.and_then(parsed));
                return self.merge(&id);
            }
            Key::Metadata { machine, key } => {
                let own = self.metadata.entry(machine.clone()).or_default();
                replace(own, key, value.map(str::to_owned));
                return self.merge(&machine);
            }
            Key::EngineLeader => return self.put_leader(value),
            Key::EngineVersion => {
                self.engine_version = value.and_then(|it| it.trim().parse().ok()).unwrap_or(0);
            }
        }
        Matters::ToDeciders
    }

    fn edit(&mut self, unit: String, how: impl FnOnce(&mut Job)) {
        let mut job = self.jobs.remove(&unit).unwrap_or_default();
        how(&mut job);
        if job != Job::default() {
            self.jobs.insert(unit, job);
        }
    }

    fn put_object(&mut self, name: String, value: Option<&str>) {
        let hash = value.and_then(parsed::<JobObject>).map(|object| object.unit_hash);
        let unit = hash.and_then(|hash| self.unit(&name, hash));
        if hash.is_some() && unit.is_none() {
            self.waiting.insert(name.clone());
        } else {
            self.waiting.remove(&name);
        }
        self.edit(name, |job| (job.hash, job.unit) = (hash, unit));
    }

    fn unit(&self, name: &str, hash: UnitHash) -> Option<Arc<Unit>> {
        let file = self.files.get(&hash)?;
        let name = UnitName::parse(name).ok()?;
        let requirements = Requirements::read(&name, file);
        Some(Arc::new(Unit { name, hash, file: file.clone(), requirements }))
    }

    fn put_file(&mut self, hash: UnitHash, value: Option<&str>) -> Matters {
        // Texts are immutable: one that goes is of no unit any more, or will come back the same.
        let Some(object) = value.and_then(parsed::<UnitObject>) else { return Matters::Not };
        let Ok(file) = UnitFile::parse(&object.raw) else {
            tracing::warn!(%hash, "a unit's text in the registry cannot be read; it is left alone");
            return Matters::Not;
        };
        self.files.insert(hash, Arc::new(file));
        let of_this = |name: &&String| self.jobs.get(*name).is_some_and(|it| it.hash == Some(hash));
        let arrived: Vec<String> = self.waiting.iter().filter(of_this).cloned().collect();
        for name in &arrived {
            self.waiting.remove(name);
            let unit = self.unit(name, hash);
            self.edit(name.clone(), |job| job.unit = unit);
        }
        if arrived.is_empty() { Matters::Not } else { Matters::ToDeciders }
    }

    fn put_state(&mut self, unit: &str, machine: String, value: Option<&str>) -> Matters {
        let runs = |state: Option<&StateObject>| state.is_some_and(is_running);
        let state = value.and_then(parsed);
        let after = runs(state.as_ref());
        let of_unit = self.states.entry(unit.to_owned()).or_default();
        let before = runs(of_unit.get(&machine));
        replace(of_unit, machine, state);
        if of_unit.is_empty() {
            self.states.remove(unit);
        }
        // A unit that has ended somewhere may be started elsewhere.
        if before && !after { Matters::ToDeciders } else { Matters::ToReaders }
    }

    fn put_leader(&mut self, value: Option<&str>) -> Matters {
        let leader = value.map(LeaseObject::parse);
        if leader == self.leader {
            return Matters::Not;
        }
        self.leader = leader;
        Matters::ToDeciders
    }

    fn merge(&mut self, id: &str) -> Matters {
        let none = BTreeMap::new();
        let dynamic = self.metadata.get(id).unwrap_or(&none);
        let merged = self.objects.get(id).cloned().map(|object| object.with_metadata(dynamic));
        if self.machines.get(id) == merged.as_ref() {
            return Matters::Not;
        }
        replace(&mut self.machines, id.to_owned(), merged);
        Matters::ToDeciders
    }

    /// Returns the units that exist, by name.
    pub fn jobs(&self) -> impl Iterator<Item = (&str, &Job)> {
        self.jobs.iter().filter(|(_, job)| job.hash.is_some()).map(|(name, job)| (&**name, job))
    }

    /// Returns a unit, if it exists.
    pub fn job(&self, name: &str) -> Option<&Job> {
        self.jobs.get(name).filter(|job| job.hash.is_some())
    }

    /// Returns the machines that are present, by id, with all their metadata.
    pub fn machines(&self) -> &BTreeMap<String, MachineObject> {
        &self.machines
    }

    /// Returns the metadata that the registry has for a machine, whether it is present or not.
    pub fn dynamic_metadata(&self, id: &str) -> Option<&BTreeMap<String, String>> {
        self.metadata.get(id)
    }

    /// Returns the states of a unit by machine; a legacy one where there is no other.
    pub fn states_of(&self, unit: &str) -> BTreeMap<&str, &StateObject> {
        let legacy = self.legacy.get(unit).map(|state| (state.machine_state.id.as_str(), state));
        let current = self.states.get(unit).into_iter().flatten();
        legacy.into_iter().chain(current.map(|(id, state)| (id.as_str(), state))).collect()
    }

    /// Returns one state.
    pub fn state(&self, unit: &str, machine: &str) -> Option<&StateObject> {
        let legacy = || self.legacy.get(unit).filter(|state| state.machine_state.id == machine);
        self.states.get(unit).and_then(|states| states.get(machine)).or_else(legacy)
    }

    /// Returns the legacy state of a unit, whoever wrote it.
    pub fn legacy_state(&self, unit: &str) -> Option<&StateObject> {
        self.legacy.get(unit)
    }

    /// Returns the units that have a state.
    pub fn units_with_states(&self) -> BTreeSet<&str> {
        self.states.keys().chain(self.legacy.keys()).map(String::as_str).collect()
    }

    /// Tells whether a machine says that a unit runs there, or is about to.
    pub fn runs_on(&self, unit: &str, machine: &str) -> bool {
        let state = self.states.get(unit).and_then(|states| states.get(machine));
        state.is_some_and(is_running)
    }

    /// Returns the present machines on which a unit runs.
    pub fn running_on<'a>(&'a self, unit: &'a str) -> impl Iterator<Item = &'a str> {
        let machines = self.states.get(unit).into_iter().flat_map(BTreeMap::keys);
        machines
            .filter(|id| self.machines.contains_key(*id) && self.runs_on(unit, id))
            .map(String::as_str)
    }

    /// Returns what a unit is, as far as the registry knows; nothing for a global one.
    pub fn current_state(&self, name: &str, job: &Job) -> Option<JobState> {
        if job.is_global() {
            return None;
        }
        let Some(target) = &job.target else { return Some(JobState::Inactive) };
        Some(match self.state(name, target) {
            None => JobState::Inactive,
            Some(_) if job.heartbeat.as_ref() == Some(target) => JobState::Launched,
            Some(_) => JobState::Loaded,
        })
    }

    /// Returns who decides.
    pub fn leader(&self) -> Option<&LeaseObject> {
        self.leader.as_ref()
    }

    /// Returns the highest version of the engine's schema seen.
    pub fn engine_version(&self) -> u64 {
        self.engine_version
    }

    /// Returns the file of that hash, if it is there.
    pub fn file(&self, hash: UnitHash) -> Option<&Arc<UnitFile>> {
        self.files.get(&hash)
    }
}

fn is_running(state: &StateObject) -> bool {
    !matches!(state.active_state.as_str(), "inactive" | "failed" | "")
}

fn parsed<T: serde::de::DeserializeOwned>(value: &str) -> Option<T> {
    serde_json::from_str(value).ok()
}

fn replace<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    };
}

/// Builds clusters for tests, in the registry's own words.
#[cfg(test)]
pub(crate) mod build {
    use super::*;

    /// Adds a machine with metadata such as `region=eu`.
    pub(crate) fn machine(cluster: &mut Cluster, id: &str, metadata: &[(&str, &str)]) {
        let metadata = metadata.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let object = MachineObject { id: id.into(), metadata, ..MachineObject::default() };
        put(cluster, &Key::Machine(id.into()), Some(&serde_json::to_string(&object).unwrap()));
    }

    /// Adds a unit with these lines in `[X-Fleet]` that shall be launched.
    pub(crate) fn unit(cluster: &mut Cluster, name: &str, fleet: &str) -> UnitHash {
        let text = format!("[Service]\nExecStart=/bin/true\n[X-Fleet]\n{fleet}\n");
        let file = UnitFile::parse(&text).unwrap();
        let raw = serde_json::to_string(&UnitObject { raw: file.canonical() }).unwrap();
        put(cluster, &Key::Unit(file.hash()), Some(&raw));
        let object = JobObject { name: name.into(), unit_hash: file.hash() };
        let object = serde_json::to_string(&object).unwrap();
        put(cluster, &Key::JobObject(name.into()), Some(&object));
        target_state(cluster, name, JobState::Launched);
        file.hash()
    }

    /// Says what a unit shall be.
    pub(crate) fn target_state(cluster: &mut Cluster, name: &str, state: JobState) {
        put(cluster, &Key::JobTargetState(name.into()), Some(state.as_str()));
    }

    /// Says where a unit shall run.
    pub(crate) fn target(cluster: &mut Cluster, name: &str, machine: Option<&str>) {
        put(cluster, &Key::JobTarget(name.into()), machine);
    }

    /// Says what a unit does on a machine.
    pub(crate) fn state(cluster: &mut Cluster, unit: &str, machine: &str, active: Option<&str>) {
        let state = active.map(|active| StateObject {
            active_state: active.into(),
            machine_state: MachineObject { id: machine.into(), ..MachineObject::default() },
            ..StateObject::default()
        });
        let key = Key::State { unit: unit.into(), machine: machine.into() };
        put(cluster, &key, state.map(|it| serde_json::to_string(&it).unwrap()).as_deref());
    }

    /// Writes any key.
    pub(crate) fn put(cluster: &mut Cluster, key: &Key, value: Option<&str>) {
        let path = cluster.registry.path(key);
        cluster.put(&path, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::etcd::keys_v2::Action;

    fn changed(path: &str, value: Option<&str>, index: u64) -> Change {
        let action = Action::Set;
        Change::Changed { index, path: path.into(), value: value.map(str::to_owned), action }
    }

    #[test]
    fn the_order_in_which_a_unit_and_its_text_arrive_does_not_matter() {
        let file = UnitFile::parse("[X-Fleet]\nGlobal=true\n").unwrap();
        let raw = serde_json::to_string(&UnitObject { raw: file.canonical() }).unwrap();
        let object = JobObject { name: "a.service".into(), unit_hash: file.hash() };
        let object = serde_json::to_string(&object).unwrap();
        let keys = [(Key::Unit(file.hash()), raw), (Key::JobObject("a.service".into()), object)];
        for order in [[0, 1], [1, 0]] {
            let mut cluster = Cluster::default();
            for at in order {
                build::put(&mut cluster, &keys[at].0, Some(&keys[at].1));
            }
            assert!(cluster.job("a.service").unwrap().is_global());
        }
    }

    #[test]
    fn what_we_wrote_is_not_undone_by_older_news() {
        let mut cluster = Cluster::default();
        build::unit(&mut cluster, "a.service", "");
        let path = Registry::default().path(&Key::JobTarget("a.service".into()));
        cluster.note(&path, Some("m2"), 10);
        cluster.apply(&changed(&path, Some("m1"), 8));
        assert_eq!(cluster.job("a.service").unwrap().target.as_deref(), Some("m2"));
        cluster.apply(&changed(&path, None, 11));
        assert_eq!(cluster.job("a.service").unwrap().target, None);
    }

    #[test]
    fn the_current_state_follows_the_target_its_state_and_its_heartbeat() {
        let mut cluster = Cluster::default();
        build::unit(&mut cluster, "a.service", "");
        let current = |cluster: &Cluster| {
            cluster.current_state("a.service", cluster.job("a.service").unwrap()).unwrap()
        };
        assert_eq!(current(&cluster), JobState::Inactive);
        build::target(&mut cluster, "a.service", Some("m1"));
        assert_eq!(current(&cluster), JobState::Inactive);
        build::state(&mut cluster, "a.service", "m1", Some("inactive"));
        assert_eq!(current(&cluster), JobState::Loaded);
        build::put(&mut cluster, &Key::JobHeartbeat("a.service".into()), Some("m2"));
        assert_eq!(current(&cluster), JobState::Loaded);
        build::put(&mut cluster, &Key::JobHeartbeat("a.service".into()), Some("m1"));
        assert_eq!(current(&cluster), JobState::Launched);
    }

    #[test]
    fn a_renewed_lease_or_presence_wakes_nobody() {
        let registry = Registry::default();
        let mut cluster = Cluster::default();
        build::machine(&mut cluster, "m1", &[]);
        let leader = registry.path(&Key::EngineLeader);
        let lease = r#"{"MachineID":"m1","Version":1}"#;
        assert_eq!(cluster.apply(&changed(&leader, Some(lease), 1)), Matters::ToDeciders);
        assert_eq!(cluster.apply(&changed(&leader, Some(lease), 2)), Matters::Not);
        let object = MachineObject { id: "m1".into(), ..MachineObject::default() };
        let object = serde_json::to_string(&object).unwrap();
        let presence = registry.path(&Key::Machine("m1".into()));
        assert_eq!(cluster.apply(&changed(&presence, Some(&object), 3)), Matters::Not);
        assert_eq!(cluster.apply(&changed(&presence, None, 4)), Matters::ToDeciders);
    }

    #[test]
    fn a_unit_that_was_destroyed_is_gone_at_once() {
        let mut cluster = Cluster::default();
        build::unit(&mut cluster, "a.service", "");
        cluster.note_destroyed("a.service", 9);
        assert!(cluster.job("a.service").is_none());
        assert_eq!(cluster.jobs().count(), 0);
    }
}
