//! What this daemon writes into the registry. What it took is in the view at once, so that who
//! asks this daemon next sees it.

use std::sync::Arc;
use std::time::Duration;

use crate::agents::fleet::lease::{Found, whole_seconds};
use crate::agents::fleet::view::View;
use crate::rpc::client::keys::{Answer, Delete, Expect, Keys, KeysFailure, Read, Write};
use crate::wire::etcd::keys_v2::Code;
use crate::wire::fleet::api::MetadataChange;
use crate::wire::fleet::registry::{
    JobObject, JobState, Key, LeaseObject, MachineObject, Registry, StateObject, UnitObject,
};
use crate::wire::fleet::{UnitFile, UnitName};

/// What a write came to.
pub type Written = Result<(), KeysFailure>;

/// The registry, for writing.
#[derive(Debug, Clone)]
pub struct Store {
    keys: Arc<dyn Keys>,
    paths: Registry,
    view: Arc<View>,
}

impl Store {
    /// Makes a writer whose writes show in `view`.
    pub fn new(keys: Arc<dyn Keys>, paths: Registry, view: Arc<View>) -> Self {
        Self { keys, paths, view }
    }

    /// Stores a unit's text and that the unit has it, whether the unit was there or not.
    pub async fn save_unit(&self, name: &UnitName, file: &UnitFile) -> Written {
        let key = Key::Unit(file.hash());
        let raw = to_json(&UnitObject { raw: file.canonical() });
        let saved = self.put(&key, Write::set(raw.clone()).if_found(Expect::Absent)).await;
        match saved {
            Ok(answer) => self.note(&key, Some(&raw), &answer),
            Err(failure) if failure.is(Code::NodeExist) => {}
            Err(failure) => return Err(failure),
        }
        let object = JobObject { name: name.to_string(), unit_hash: file.hash() };
        self.set(&Key::JobObject(name.to_string()), to_json(&object)).await
    }

    /// Says what a unit shall be.
    pub async fn set_target_state(&self, unit: &str, state: JobState) -> Written {
        self.set(&Key::JobTargetState(unit.to_owned()), state.to_string()).await
    }

    /// Removes a unit; `false` if there is none.
    pub async fn destroy(&self, unit: &str) -> Result<bool, KeysFailure> {
        let delete = Delete { recursive: true, dir: true, expect: Expect::Anything };
        match self.keys.delete(&self.paths.job(unit), delete).await {
            Ok(answer) => {
                self.view.change(|cluster| cluster.note_destroyed(unit, answer.index));
                Ok(true)
            }
            Err(failure) if failure.is(Code::KeyNotFound) => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// Gives a unit to a machine, if it has none.
    pub async fn schedule(&self, unit: &str, machine: &str) -> Written {
        let key = Key::JobTarget(unit.to_owned());
        let answer = self.put(&key, Write::set(machine).if_found(Expect::Absent)).await?;
        self.note(&key, Some(machine), &answer);
        Ok(())
    }

    /// Takes a unit off a machine, if it is there; fine if it has none.
    pub async fn unschedule(&self, unit: &str, machine: &str) -> Written {
        let key = Key::JobTarget(unit.to_owned());
        match self.delete(&key, Expect::Value(machine.to_owned())).await {
            Ok(Some(answer)) => self.note(&key, None, &answer),
            Ok(None) => {}
            Err(failure) => return Err(failure),
        }
        Ok(())
    }

    /// Says that `machine` launched a unit.
    pub async fn heartbeat(&self, unit: &str, machine: &str, ttl: Duration) -> Written {
        let write = Write::set(machine).for_time(whole_seconds(ttl));
        self.put(&Key::JobHeartbeat(unit.to_owned()), write).await.map(drop)
    }

    /// Takes that back, unless another machine has said it since.
    pub async fn clear_heartbeat(&self, unit: &str, machine: &str) -> Written {
        let key = Key::JobHeartbeat(unit.to_owned());
        match self.delete(&key, Expect::Value(machine.to_owned())).await {
            Err(failure) if !failure.is(Code::TestFailed) => Err(failure),
            _ => Ok(()),
        }
    }

    /// Publishes what a unit does on a machine.
    pub async fn save_state(&self, unit: &str, state: &StateObject, ttl: Duration) -> Written {
        let write = Write::set(to_json(state)).for_time(whole_seconds(ttl));
        let machine = state.machine_state.id.clone();
        self.put(&Key::State { unit: unit.to_owned(), machine }, write.clone()).await?;
        self.put(&Key::LegacyState(unit.to_owned()), write).await.map(drop)
    }

    /// Removes what was published; the legacy state only if it is this machine's.
    pub async fn remove_state(&self, unit: &str, machine: &str) -> Written {
        let key = Key::State { unit: unit.to_owned(), machine: machine.to_owned() };
        self.delete(&key, Expect::Anything).await?;
        let legacy = self.view.read(|cluster| cluster.legacy_state(unit).cloned());
        if legacy.is_some_and(|state| state.machine_state.id == machine) {
            self.delete(&Key::LegacyState(unit.to_owned()), Expect::Anything).await?;
        }
        Ok(())
    }

    /// Registers a machine's presence.
    pub async fn beat(&self, machine: &MachineObject, ttl: Duration, expect: Expect) -> Written {
        let write = Write::set(to_json(machine)).for_time(whole_seconds(ttl)).if_found(expect);
        self.put(&Key::Machine(machine.id.clone()), write).await.map(drop)
    }

    /// Reads a machine's presence, with the index of its last beat.
    pub async fn presence(&self, id: &str) -> Result<Option<(MachineObject, u64)>, KeysFailure> {
        let found = self.get(&Key::Machine(id.to_owned())).await?;
        Ok(found.and_then(|(value, index, _)| Some((serde_json::from_str(&value).ok()?, index))))
    }

    /// Removes a machine's presence.
    pub async fn leave(&self, id: &str) -> Written {
        self.delete(&Key::Machine(id.to_owned()), Expect::Anything).await.map(drop)
    }

    /// Changes a machine's dynamic metadata. An empty value hides the machine's own.
    pub async fn set_metadata(&self, change: &MetadataChange) -> Written {
        let key = Key::Metadata { machine: change.machine.clone(), key: change.key.clone() };
        self.set(&key, change.value.clone().unwrap_or_default()).await
    }

    /// Reads the engine's lease.
    pub async fn lease(&self) -> Result<Option<Found>, KeysFailure> {
        let found = self.get(&Key::EngineLeader).await?;
        Ok(found.map(|(value, index, left)| Found {
            lease: LeaseObject::parse(&value),
            index,
            left,
        }))
    }

    /// Writes the engine's lease and returns its index.
    pub async fn take_lease(
        &self,
        lease: &LeaseObject,
        ttl: Duration,
        expect: Expect,
    ) -> Result<u64, KeysFailure> {
        let write = Write::set(to_json(lease)).for_time(ttl).if_found(expect);
        let answer = self.put(&Key::EngineLeader, write).await?;
        Ok(index_of(&answer))
    }

    /// Gives the engine's lease back.
    pub async fn drop_lease(&self, index: u64) -> Written {
        self.delete(&Key::EngineLeader, Expect::Index(index)).await.map(drop)
    }

    /// Raises the version of the engine's schema, if it still is `from`.
    pub async fn raise_engine_version(&self, from: u64, to: u64) -> Written {
        let found = self.get(&Key::EngineVersion).await?;
        let expect = match found {
            Some((value, _, _)) if value.trim().parse::<u64>().unwrap_or(0) > from => return Ok(()),
            Some((_, index, _)) => Expect::Index(index),
            None => Expect::Absent,
        };
        let write = Write::set(to.to_string()).if_found(expect);
        let answer = self.put(&Key::EngineVersion, write).await?;
        self.note(&Key::EngineVersion, Some(&to.to_string()), &answer);
        Ok(())
    }

    async fn set(&self, key: &Key, value: String) -> Written {
        let answer = self.put(key, Write::set(value.clone())).await?;
        self.note(key, Some(&value), &answer);
        Ok(())
    }

    fn note(&self, key: &Key, value: Option<&str>, answer: &Answer) {
        let path = self.paths.path(key);
        self.view.change(|cluster| cluster.note(&path, value, index_of(answer)));
    }

    async fn put(&self, key: &Key, write: Write) -> Result<Answer, KeysFailure> {
        self.keys.put(&self.paths.path(key), write).await
    }

    /// Deletes a key; `None` if there is none.
    async fn delete(&self, key: &Key, expect: Expect) -> Result<Option<Answer>, KeysFailure> {
        let delete = Delete { recursive: false, dir: false, expect };
        match self.keys.delete(&self.paths.path(key), delete).await {
            Ok(answer) => Ok(Some(answer)),
            Err(failure) if failure.is(Code::KeyNotFound) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Reads a key as every acknowledged write left it: value, index and time left.
    async fn get(&self, key: &Key) -> Result<Option<(String, u64, Duration)>, KeysFailure> {
        let read = Read { quorum: true, ..Read::default() };
        let answer = match self.keys.get(&self.paths.path(key), read).await {
            Ok(answer) => answer,
            Err(failure) if failure.is(Code::KeyNotFound) => return Ok(None),
            Err(failure) => return Err(failure),
        };
        let node = answer.event.node.unwrap_or_default();
        let left = Duration::from_secs(u64::try_from(node.ttl).unwrap_or(0));
        Ok(node.value.map(|value| (value, node.modified_index, left)))
    }
}

/// The index of the write itself; the store's own where it does not say.
fn index_of(answer: &Answer) -> u64 {
    answer.event.node.as_ref().map_or(answer.index, |node| node.modified_index)
}

fn to_json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("values of the registry have string keys only")
}
