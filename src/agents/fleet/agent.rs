//! Makes this machine's systemd match what the registry wants of it.
//!
//! ```text
//!   view ─▶ desired ─┐
//!                    ├─▶ plan ─▶ load: at once · stop, start, unload: as jobs of their own
//!   what is here ────┘                                  │
//!        ▲──────────────────────────────────────────────┘ when they end
//! ```
//! What is here is remembered; after a restart of the daemon it is read from the unit folder, so
//! that what runs goes on. A unit that failed stays failed: systemd's own `Restart=` decides
//! about that, not we. Nothing is done while the store is away.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::agents::fleet::cluster::{Cluster, Unit};
use crate::agents::fleet::plan::{self, Here, Task, Wishes};
use crate::agents::fleet::unit_folder::UnitFolder;
use crate::agents::fleet::view::View;
use crate::foundation::durable_file::WriteError;
use crate::foundation::exit::chain;
use crate::foundation::tasks::Tasks;
use crate::platform::systemd::{self, Lasting, Systemd, SystemdError, Verb};
use crate::wire::fleet::UnitName;
use crate::wire::fleet::registry::MachineObject;

/// How often everything is looked at even if nothing seems to have happened.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long a unit is left alone after something about it failed.
const REST: Duration = Duration::from_secs(1);
/// Ends of jobs that wait for the agent.
const ENDED_MAX: usize = 1_024;
/// How often a purge tries again.
const PURGE_EVERY: Duration = Duration::from_secs(1);
/// How long a purge goes on: systemd's own limit for stopping a service is 90 s.
const PURGE_MAX: Duration = Duration::from_secs(75);

/// What is on this machine, by unit.
pub type Managed = Arc<BTreeMap<String, Here>>;

/// Something about a unit failed.
#[derive(Debug, thiserror::Error)]
pub enum UnitError {
    /// Its file could not be written.
    #[error("cannot keep the file of `{unit}`")]
    Write {
        /// The unit.
        unit: String,
        /// Why not.
        source: WriteError,
    },
    /// Its file could not be removed.
    #[error("cannot remove the file of `{unit}`")]
    Remove {
        /// The unit.
        unit: String,
        /// Why not.
        source: std::io::Error,
    },
    /// systemd would not.
    #[error("cannot {what} `{unit}`")]
    Systemd {
        /// What was tried.
        what: &'static str,
        /// The unit.
        unit: String,
        /// Why not.
        source: SystemdError,
    },
}

/// What a job was to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Unload,
    Stop,
    Start,
}

#[derive(Debug)]
struct Ended {
    unit: String,
    work: Work,
    result: Result<(), UnitError>,
}

/// What the agent stands on.
#[derive(Debug, Clone)]
pub struct Ground {
    /// This machine, as configured.
    pub me: MachineObject,
    /// The cluster.
    pub view: Arc<View>,
    /// The service manager.
    pub systemd: Arc<dyn Systemd>,
    /// Where unit files are kept.
    pub folder: UnitFolder,
}

/// The agent.
#[derive(Debug)]
pub struct Agent {
    ground: Ground,
    tasks: Tasks,
    managed: watch::Sender<Managed>,
    here: BTreeMap<String, Here>,
    adopted: bool,
    /// Units with a job whose end must be awaited.
    busy: BTreeSet<String>,
    /// Units that are left alone until then.
    resting: BTreeMap<String, Instant>,
    reload_due: bool,
    ended: (mpsc::Sender<Ended>, mpsc::Receiver<Ended>),
}

impl Agent {
    /// Makes an agent whose jobs are of `tasks` and which tells `managed` what is here.
    pub fn new(ground: Ground, managed: watch::Sender<Managed>, tasks: &Tasks) -> Self {
        Self {
            ground,
            tasks: tasks.clone(),
            managed,
            here: BTreeMap::new(),
            adopted: false,
            busy: BTreeSet::new(),
            resting: BTreeMap::new(),
            reload_due: false,
            ended: mpsc::channel(ENDED_MAX),
        }
    }

    /// Works until told to stop, and returns itself for what comes after.
    pub async fn run(mut self, stop: CancellationToken) -> Self {
        let mut decisions = self.ground.view.decisions();
        let mut health = self.ground.view.health();
        let mut every = tokio::time::interval(LOOK_EVERY);
        loop {
            let now = Instant::now();
            self.resting.retain(|_, until| *until > now);
            let rested = self.resting.values().min().copied();
            tokio::select! {
                biased;
                () = stop.cancelled() => return self,
                Some(ended) = self.ended.1.recv() => self.finish(ended),
                Ok(()) = decisions.changed() => {}
                Ok(()) = health.changed() => {}
                () = until(rested) => {}
                _ = every.tick() => {}
            }
            while let Ok(ended) = self.ended.1.try_recv() {
                self.finish(ended);
            }
            if health.borrow().live() {
                self.reconcile().await;
            }
        }
    }

    /// Stops and unloads everything, again and again until all is gone or time is up; returns
    /// the units that went.
    pub async fn purge(&mut self) -> Vec<String> {
        if !self.adopted {
            self.adopt().await;
        }
        let units: Vec<String> = self.here.keys().cloned().collect();
        let end = Instant::now() + PURGE_MAX;
        loop {
            let unload = self.here.keys().map(|unit| unload(&self.ground, unit));
            let results = futures_util::future::join_all(unload).await;
            let names: Vec<String> = self.here.keys().cloned().collect();
            for (unit, result) in names.into_iter().zip(results) {
                self.finish(Ended { unit, work: Work::Unload, result });
            }
            self.reload_if_due().await;
            if self.here.is_empty() || Instant::now() > end {
                break;
            }
            tokio::time::sleep(PURGE_EVERY).await;
        }
        units.into_iter().filter(|unit| !self.here.contains_key(unit)).collect()
    }

    async fn reconcile(&mut self) {
        if !self.adopted {
            self.adopt().await;
        }
        if !self.adopted {
            return;
        }
        let wishes = self.ground.view.read(|cluster| {
            let me = registered(cluster, &self.ground.me);
            plan::desired(cluster, &me)
        });
        for task in plan::plan(&wishes, &self.here) {
            self.carry_out(task, &wishes).await;
        }
        self.reload_if_due().await;
        self.tell();
    }

    async fn carry_out(&mut self, task: Task, wishes: &Wishes) {
        match task {
            Task::Unload(unit) => self.start_work(unit, Work::Unload),
            Task::Load(unit) => self.load(&unit).await,
            Task::Reload => self.reload_if_due().await,
            Task::Stop(unit) => self.start_work(unit, Work::Stop),
            Task::Start(unit) => {
                let wanted = wishes.units.get(&unit).map(|wanted| wanted.unit.hash);
                if self.here.get(&unit).map(|here| here.hash) == wanted {
                    self.start_work(unit, Work::Start);
                }
            }
        }
    }

    fn idle(&self, unit: &str) -> bool {
        !self.busy.contains(unit) && !self.resting.contains_key(unit)
    }

    async fn load(&mut self, unit: &Arc<Unit>) {
        let name = unit.name.to_string();
        if !self.idle(&name) || self.here.contains_key(&name) {
            return;
        }
        match load(&self.ground, unit).await {
            Ok(loaded) => {
                tracing::info!(unit = %name, hash = %unit.hash.short(), "unit loaded");
                self.here.insert(name, Here { hash: unit.hash, launched: false });
                self.reload_due |= loaded == Loaded::Stale;
            }
            Err(error) => {
                tracing::error!(unit = %name, why = %chain(&error), "unit not loaded");
                self.resting.insert(name, Instant::now() + LOOK_EVERY);
            }
        }
    }

    fn start_work(&mut self, unit: String, work: Work) {
        if !self.idle(&unit) {
            return;
        }
        let Some(here) = self.here.get_mut(&unit) else { return };
        here.launched = work == Work::Start;
        if work != Work::Start {
            // A start may take for ever, and a stop cuts it short; what stops must have ended.
            self.busy.insert(unit.clone());
        }
        let (ground, ended) = (self.ground.clone(), self.ended.0.clone());
        self.tasks.spawn("unit-job", |stop| async move {
            let doing = async {
                match work {
                    Work::Unload => unload(&ground, &unit).await,
                    Work::Stop => job(&ground, Verb::Stop, "stop", &unit).await,
                    Work::Start => job(&ground, Verb::Start, "start", &unit).await,
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                result = doing => drop(ended.send(Ended { unit: unit.clone(), work, result }).await),
            }
        });
    }

    fn finish(&mut self, ended: Ended) {
        let Ended { unit, work, result } = ended;
        if work != Work::Start {
            self.busy.remove(&unit);
        }
        match (work, result) {
            (Work::Unload, Ok(())) => {
                tracing::info!(%unit, "unit unloaded");
                self.here.remove(&unit);
                self.reload_due = true;
            }
            (Work::Start | Work::Stop, Ok(())) => tracing::debug!(%unit, ?work, "job done"),
            (
                Work::Start,
                Err(UnitError::Systemd { source: SystemdError::Job { result, .. }, .. }),
            ) => {
                tracing::info!(%unit, %result, "unit did not start; systemd decides about another try");
            }
            (_, Err(error)) => {
                tracing::warn!(%unit, why = %chain(&error), "this will be tried again");
                if let Some(here) = self.here.get_mut(&unit) {
                    here.launched = work == Work::Stop;
                }
                self.resting.insert(unit, Instant::now() + REST);
            }
        }
    }

    async fn reload_if_due(&mut self) {
        if !self.reload_due {
            return;
        }
        match self.ground.systemd.daemon_reload().await {
            Ok(()) => self.reload_due = false,
            Err(error) => tracing::warn!(why = %chain(&error), "systemd did not reload"),
        }
    }

    /// Takes over what an earlier daemon left, without a stop of anything.
    async fn adopt(&mut self) {
        let found = match self.ground.folder.list() {
            Ok(found) => found,
            Err(error) => {
                tracing::error!(why = %chain(&error), "the unit folder cannot be read");
                return;
            }
        };
        let names: Vec<_> = found.iter().filter_map(|(name, _)| of_systemd(name).ok()).collect();
        let states = match self.ground.systemd.states(&names).await {
            Ok(states) => states,
            Err(error) => {
                tracing::warn!(why = %chain(&error), "units of an earlier run cannot be seen yet");
                return;
            }
        };
        for (name, file) in found {
            let state = of_systemd(&name).ok().and_then(|name| states.get(&name));
            let heartbeat = |cluster: &Cluster| {
                let job = cluster.job(name.as_str());
                job.is_some_and(|job| job.heartbeat.as_deref() == Some(&self.ground.me.id))
            };
            let runs = state.is_some_and(|state| {
                matches!(state.active.as_str(), "active" | "activating" | "reloading")
            });
            let known = state.is_some_and(|state| state.load != "not-found");
            if !known && self.ground.systemd.link(&self.ground.folder.file(&name)).await.is_ok() {
                self.reload_due = true;
            }
            let launched = runs || (known && self.ground.view.read(heartbeat));
            tracing::info!(unit = %name, launched, "unit of an earlier run adopted");
            self.here.insert(name.to_string(), Here { hash: file.hash(), launched });
        }
        self.adopted = true;
    }

    fn tell(&self) {
        self.managed.send_if_modified(|managed| {
            let changed = **managed != self.here;
            if changed {
                *managed = Arc::new(self.here.clone());
            }
            changed
        });
    }
}

/// Waits until `moment`, or for ever if there is none.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Returns this machine as the registry has it, so that dynamic metadata counts.
fn registered(cluster: &Cluster, me: &MachineObject) -> MachineObject {
    cluster.machines().get(&me.id).cloned().unwrap_or_else(|| {
        let none = BTreeMap::new();
        me.clone().with_metadata(cluster.dynamic_metadata(&me.id).unwrap_or(&none))
    })
}

fn of_systemd(unit: &UnitName) -> Result<systemd::UnitName, SystemdError> {
    systemd::UnitName::parse(unit.as_str())
}

fn failed(what: &'static str, unit: &str) -> impl FnOnce(SystemdError) -> UnitError {
    move |source| UnitError::Systemd { what, unit: unit.to_owned(), source }
}

/// Whether systemd sees a unit file that was just linked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loaded {
    /// It reads it at the first start.
    Fresh,
    /// It has another one in memory, or its `[Install]` changes others, until it reloads.
    Stale,
}

/// Writes a unit file and links it. A reload costs systemd seconds where there are many units or
/// the machine is slow, and a failover waits for it, so it is left out where it changes nothing.
async fn load(ground: &Ground, unit: &Unit) -> Result<Loaded, UnitError> {
    let name = unit.name.to_string();
    let known = of_systemd(&unit.name).map_err(failed("load", &name))?;
    let states = ground.systemd.states(std::slice::from_ref(&known)).await;
    let states = states.map_err(failed("look for", &name))?;
    let in_memory = states.get(&known).is_some_and(|state| state.load != "not-found");
    ground
        .folder
        .write(&unit.name, &unit.file)
        .map_err(|source| UnitError::Write { unit: name.clone(), source })?;
    let file = ground.folder.file(&unit.name);
    ground.systemd.link(&file).await.map_err(failed("link", &name))?;
    let installs = unit.file.has_section("Install");
    if installs {
        let enabled = ground.systemd.enable(&[known], Lasting::Runtime).await;
        if let Err(source) = enabled {
            ground
                .folder
                .remove(&unit.name)
                .map_err(|source| UnitError::Remove { unit: name.clone(), source })?;
            return Err(failed("enable", &name)(source));
        }
    }
    Ok(if in_memory || installs { Loaded::Stale } else { Loaded::Fresh })
}

async fn job(ground: &Ground, verb: Verb, what: &'static str, unit: &str) -> Result<(), UnitError> {
    let known = systemd::UnitName::parse(unit).map_err(failed(what, unit))?;
    ground.systemd.run(verb, &known).await.map_err(failed(what, unit))
}

/// Stops a unit, and if that worked forgets it.
async fn unload(ground: &Ground, unit: &str) -> Result<(), UnitError> {
    let known = systemd::UnitName::parse(unit).map_err(failed("unload", unit))?;
    match ground.systemd.run(Verb::Stop, &known).await {
        Ok(()) | Err(SystemdError::NotFound { .. }) => {}
        Err(source) => return Err(failed("stop", unit)(source)),
    }
    let disabled = ground.systemd.disable(std::slice::from_ref(&known), Lasting::Runtime).await;
    if let Err(error) = disabled {
        tracing::debug!(%unit, why = %chain(&error), "not disabled");
    }
    ground.systemd.reset_failed(&known).await.map_err(failed("reset", unit))?;
    let Ok(name) = UnitName::parse(unit) else { return Ok(()) };
    ground
        .folder
        .remove(&name)
        .map_err(|source| UnitError::Remove { unit: unit.to_owned(), source })
}
