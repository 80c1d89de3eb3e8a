//! A service manager in memory: a graph of units whose jobs take time and fail when told.
//!
//! Time is tokio's, so that it pauses. A unit is known once it was added, linked, or found in the
//! folders that [`Systemd::unit_folder`] names: by a reload, or by a job where it was not known.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{broadcast, oneshot};

use crate::foundation::tasks::Tasks;
use crate::platform::systemd::{
    CHANGES_MAX, Call, Change, Changes, Lasting, Systemd, SystemdError, Transient, UnitName,
    UnitState, Verb, stream_of,
};

/// How a job ended, in systemd's words.
type JobResult = &'static str;

/// One unit. It comes from a file that was linked (`file` alone), from one that a reload found
/// (`file` and `content`), or from a test (`content` alone); else the next reload forgets it.
#[derive(Debug, Clone, Default)]
struct Unit {
    state: UnitState,
    file: Option<PathBuf>,
    content: Option<String>,
    masked: BTreeSet<Lasting>,
    enabled: BTreeSet<Lasting>,
    fails: bool,
}

/// What a job does in the end; a restart is a start here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Start,
    Stop,
    Reload,
}

type Sender = oneshot::Sender<JobResult>;
type Ended = oneshot::Receiver<JobResult>;

#[derive(Debug)]
struct Job {
    number: u64,
    work: Work,
    waiting: Vec<Sender>,
}

#[derive(Debug, Default)]
struct Graph {
    units: BTreeMap<UnitName, Unit>,
    jobs: BTreeMap<UnitName, Job>,
    job_number: u64,
    job_time: Duration,
    log: Vec<String>,
}

/// A service manager in memory. Clones are the same one.
#[derive(Debug, Clone)]
pub struct MemorySystemd {
    graph: Arc<Mutex<Graph>>,
    changes: broadcast::Sender<Change>,
    tasks: Tasks,
    root: PathBuf,
}

fn state(load: &str, active: &str, sub: &str) -> UnitState {
    UnitState { load: load.to_owned(), active: active.to_owned(), sub: sub.to_owned() }
}

impl Unit {
    /// Makes a unit that has been read and never started.
    fn read() -> Self {
        Self { state: state("loaded", "inactive", "dead"), ..Self::default() }
    }

    fn is(&self, active: &str) -> bool {
        self.state.active == active
    }

    fn set(&mut self, active: &str, sub: &str) {
        active.clone_into(&mut self.state.active);
        sub.clone_into(&mut self.state.sub);
    }

    /// Tells whether the unit's file is gone: one found in `folders`, or a link that was removed.
    fn gone(&self, folders: &[PathBuf]) -> bool {
        let Some(file) = &self.file else { return self.content.is_none() };
        let scanned = folders.iter().any(|folder| file.parent() == Some(folder));
        scanned && !file.exists()
    }

    fn set_load(&mut self) {
        let load = if self.masked.is_empty() { "loaded" } else { "masked" };
        load.clone_into(&mut self.state.load);
    }
}

impl MemorySystemd {
    /// Makes a service manager that knows no unit; its jobs run as `tasks`.
    pub fn new(tasks: &Tasks) -> Self {
        Self::below(tasks, Path::new("/"))
    }

    /// Makes one whose unit folders are below `root`, where a reload looks for files.
    pub fn below(tasks: &Tasks, root: &Path) -> Self {
        let (changes, _) = broadcast::channel(CHANGES_MAX);
        Self { graph: Arc::default(), changes, tasks: tasks.clone(), root: root.to_owned() }
    }

    /// Makes a unit known, with what its file says.
    pub fn add(&self, unit: &UnitName, content: &str) {
        let mut graph = self.graph();
        let known = graph.units.entry(unit.clone()).or_insert_with(Unit::read);
        known.content = Some(content.to_owned());
    }

    /// Makes every later start of a unit fail, or work again.
    pub fn fail_on_start(&self, unit: &UnitName, fails: bool) {
        self.graph().units.entry(unit.clone()).or_default().fails = fails;
    }

    /// Makes jobs take this long from now on.
    pub fn job_time(&self, time: Duration) {
        self.graph().job_time = time;
    }

    /// Puts a unit into a state by no job, as when its process dies.
    pub fn set_state(&self, unit: &UnitName, active: &str, sub: &str) {
        self.change(unit, |known| known.set(active, sub));
    }

    /// Returns the calls that were made, in order, such as `start web.service`.
    pub fn log(&self) -> Vec<String> {
        self.graph().log.clone()
    }

    /// Returns what a unit's file said when it was last read; files that were linked are read
    /// from the disk of this machine.
    pub fn content(&self, unit: &UnitName) -> Option<String> {
        let graph = self.graph();
        let known = graph.units.get(unit)?;
        let read = || std::fs::read_to_string(known.file.as_ref()?).ok();
        known.content.clone().or_else(read)
    }

    /// Tells whether a unit is enabled, and how.
    pub fn enabled(&self, unit: &UnitName) -> Vec<Lasting> {
        let graph = self.graph();
        graph
            .units
            .get(unit)
            .map(|known| known.enabled.iter().copied().collect())
            .unwrap_or_default()
    }

    fn graph(&self) -> MutexGuard<'_, Graph> {
        self.graph.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, words: String) {
        self.graph().log.push(words);
    }

    fn say(&self, unit: &UnitName) {
        // Nobody listening is fine.
        self.changes.send(Change::Unit(unit.to_string())).ok();
    }

    fn change(&self, unit: &UnitName, how: impl FnOnce(&mut Unit)) {
        if let Some(known) = self.graph().units.get_mut(unit) {
            how(known);
        }
        self.say(unit);
    }

    /// Queues a job; what is returned tells how it ended.
    fn queue(&self, verb: Verb, unit: &UnitName) -> Result<Ended, SystemdError> {
        let (sender, ended) = oneshot::channel();
        let mut graph = self.graph();
        if let Some(number) = graph.queue(verb, unit, sender)? {
            self.work(unit.clone(), number, graph.job_time);
            drop(graph);
            self.say(unit);
        }
        Ok(ended)
    }

    fn work(&self, unit: UnitName, number: u64, time: Duration) {
        let systemd = self.clone();
        self.tasks.spawn("unit-job", move |stop| async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = tokio::time::sleep(time) => systemd.end(&unit, number),
            }
        });
    }

    fn end(&self, unit: &UnitName, number: u64) {
        let ended = self.graph().end(unit, number);
        if let Some((job, result)) = ended {
            self.say(unit);
            finish(job, result);
        }
    }

    /// Calls `how` for each of the units, which all must be known.
    fn each(
        &self,
        words: &str,
        lasting: Lasting,
        units: &[UnitName],
        how: impl Fn(&mut Unit),
    ) -> Result<(), SystemdError> {
        let lasting = format!("{lasting:?}").to_lowercase();
        for unit in units {
            self.note(format!("{words} {lasting} {unit}"));
            let mut graph = self.graph();
            let known = graph.units.get_mut(unit);
            how(known.ok_or_else(|| SystemdError::NotFound { unit: unit.clone() })?);
        }
        Ok(())
    }

    /// Reads the file of a unit that is not in memory.
    fn look_for(&self, unit: &UnitName) {
        let read = |known: &Unit| !known.state.load.is_empty();
        if self.graph().units.get(unit).is_some_and(read) {
            return;
        }
        let lasting = [Lasting::Persistent, Lasting::Runtime];
        let mut files =
            lasting.map(|lasting| self.unit_folder(lasting).join(unit.as_str())).into_iter();
        if let Some(file) = files.find(|file| file.is_file()) {
            let mut graph = self.graph();
            let known = graph.units.entry(unit.clone()).or_default();
            known.state = Unit::read().state;
            known.content = std::fs::read_to_string(&file).ok();
            known.file = Some(file);
            known.set_load();
        }
    }

    fn reload(&self) {
        let mut found = BTreeMap::new();
        // What is in `/etc` wins over what is in `/run`.
        for lasting in [Lasting::Runtime, Lasting::Persistent] {
            found.extend(files(&self.unit_folder(lasting)));
        }
        let mut graph = self.graph();
        for (unit, file) in found {
            let known = graph.units.entry(unit).or_insert_with(Unit::read);
            known.content = std::fs::read_to_string(&file).ok();
            known.file = Some(file);
            known.set_load();
        }
        let folders =
            [Lasting::Runtime, Lasting::Persistent].map(|lasting| self.unit_folder(lasting));
        graph.units.retain(|_, known| {
            if !known.is("inactive") || !known.masked.is_empty() || !known.gone(&folders) {
                return true;
            }
            // What it is to do when it comes back is not forgotten with its file.
            *known = Unit { fails: known.fails, ..Unit::default() };
            known.fails
        });
    }
}

impl Graph {
    /// Returns the number of the job to run, or nothing where there is nothing new to do.
    fn queue(
        &mut self,
        verb: Verb,
        unit: &UnitName,
        sender: Sender,
    ) -> Result<Option<u64>, SystemdError> {
        let known = self.units.get_mut(unit).filter(|known| !known.state.load.is_empty());
        let Some(known) = known else {
            return Err(SystemdError::NotFound { unit: unit.clone() });
        };
        if !known.masked.is_empty() && verb != Verb::Stop {
            return Err(SystemdError::Masked { unit: unit.clone() });
        }
        let work = match plan(verb, known) {
            Planned::Work(work) => work,
            Planned::Ended(result) => {
                sender.send(result).ok();
                return Ok(None);
            }
        };
        if let Some(job) = self.jobs.get_mut(unit).filter(|job| job.work == work) {
            job.waiting.push(sender);
            return Ok(None);
        }
        match work {
            Work::Start => known.set("activating", "start"),
            Work::Stop => known.set("deactivating", "stop-sigterm"),
            Work::Reload => known.set("reloading", "reload"),
        }
        self.job_number += 1;
        let job = Job { number: self.job_number, work, waiting: vec![sender] };
        if let Some(replaced) = self.jobs.insert(unit.clone(), job) {
            finish(replaced, "canceled");
        }
        Ok(Some(self.job_number))
    }

    /// Ends a job, unless another has replaced it.
    fn end(&mut self, unit: &UnitName, number: u64) -> Option<(Job, JobResult)> {
        self.jobs.get(unit).filter(|job| job.number == number)?;
        let job = self.jobs.remove(unit)?;
        let known = self.units.get_mut(unit)?;
        match job.work {
            Work::Stop => known.set("inactive", "dead"),
            Work::Start if known.fails => {
                known.set("failed", "failed");
                return Some((job, "failed"));
            }
            Work::Start | Work::Reload => known.set("active", "running"),
        }
        Some((job, "done"))
    }
}

/// What a verb comes to, given what the unit is doing.
enum Planned {
    Work(Work),
    /// Nothing: it ends at once.
    Ended(JobResult),
}

fn plan(verb: Verb, unit: &Unit) -> Planned {
    let runs = unit.is("active") || unit.is("activating") || unit.is("reloading");
    let stopped = unit.is("inactive") || unit.is("failed");
    match verb {
        Verb::Start if unit.is("active") => Planned::Ended("done"),
        Verb::Stop if stopped => Planned::Ended("done"),
        Verb::Reload | Verb::ReloadOrRestart | Verb::ReloadOrTryRestart if runs => {
            Planned::Work(Work::Reload)
        }
        Verb::TryRestart if runs => Planned::Work(Work::Start),
        Verb::Start | Verb::Restart | Verb::ReloadOrRestart => Planned::Work(Work::Start),
        Verb::Stop => Planned::Work(Work::Stop),
        Verb::Reload => Planned::Ended("invalid"),
        Verb::TryRestart | Verb::ReloadOrTryRestart => Planned::Ended("done"),
    }
}

/// Tells all who wait for a job how it ended; those who left are fine.
fn finish(job: Job, result: JobResult) {
    for waiting in job.waiting {
        waiting.send(result).ok();
    }
}

/// Returns the unit files in a folder; none where it cannot be read.
fn files(folder: &Path) -> BTreeMap<UnitName, PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path()).filter(|path| path.is_file());
    paths.filter_map(|path| Some((base_name(&path).ok()?, path))).collect()
}

fn base_name(path: &Path) -> Result<UnitName, SystemdError> {
    UnitName::parse(&path.file_name().unwrap_or_default().to_string_lossy())
}

/// Waits for a job.
async fn ended(unit: &UnitName, job: Ended) -> Result<(), SystemdError> {
    match job.await {
        Ok("done") => Ok(()),
        // The tasks were stopped: nobody will end this job any more.
        Err(_) => std::future::pending().await,
        Ok(result) => Err(SystemdError::Job { unit: unit.clone(), result: result.to_owned() }),
    }
}

impl Systemd for MemorySystemd {
    fn run<'a>(&'a self, verb: Verb, unit: &'a UnitName) -> Call<'a, ()> {
        Box::pin(async move {
            self.note(format!("{verb} {unit}"));
            self.look_for(unit);
            ended(unit, self.queue(verb, unit)?).await
        })
    }

    fn run_transient<'a>(&'a self, transient: &'a Transient) -> Call<'a, ()> {
        Box::pin(async move {
            let unit = &transient.unit;
            let command = transient.command.join(" ");
            self.note(format!("run {unit} {command}"));
            self.add(unit, &format!("[Service]\nExecStart={command}\n"));
            ended(unit, self.queue(Verb::Start, unit)?).await
        })
    }

    fn link<'a>(&'a self, path: &'a Path) -> Call<'a, ()> {
        Box::pin(async move {
            self.note(format!("link {}", path.display()));
            let unit = base_name(path)?;
            let mut graph = self.graph();
            let known = graph.units.entry(unit).or_insert_with(Unit::read);
            if known.state.load.is_empty() {
                known.state = Unit::read().state;
            }
            known.file = Some(path.to_owned());
            known.content = None;
            Ok(())
        })
    }

    fn enable<'a>(&'a self, units: &'a [UnitName], lasting: Lasting) -> Call<'a, ()> {
        let enable = move |unit: &mut Unit| {
            unit.enabled.insert(lasting);
        };
        Box::pin(async move { self.each("enable", lasting, units, enable) })
    }

    fn disable<'a>(&'a self, units: &'a [UnitName], lasting: Lasting) -> Call<'a, ()> {
        Box::pin(async move {
            self.each("disable", lasting, units, |unit| {
                unit.enabled.remove(&lasting);
                if unit.content.is_none() {
                    unit.file = None;
                }
            })
        })
    }

    fn mask<'a>(&'a self, units: &'a [UnitName], lasting: Lasting) -> Call<'a, ()> {
        Box::pin(async move {
            for unit in units {
                // What does not exist can be masked too.
                self.graph().units.entry(unit.clone()).or_insert_with(Unit::read);
            }
            self.each("mask", lasting, units, |unit| {
                unit.masked.insert(lasting);
                unit.set_load();
                if lasting == Lasting::Runtime && unit.content.is_none() {
                    // The link stood where the mask stands now.
                    unit.file = None;
                }
            })
        })
    }

    fn unmask<'a>(&'a self, units: &'a [UnitName], lasting: Lasting) -> Call<'a, ()> {
        Box::pin(async move {
            match self.each("unmask", lasting, units, |unit| {
                unit.masked.remove(&lasting);
                unit.set_load();
            }) {
                Err(SystemdError::NotFound { .. }) => Ok(()),
                unmasked => unmasked,
            }
        })
    }

    fn reset_failed<'a>(&'a self, unit: &'a UnitName) -> Call<'a, ()> {
        Box::pin(async move {
            self.note(format!("reset-failed {unit}"));
            if self.graph().units.get(unit).is_some_and(|known| known.is("failed")) {
                self.change(unit, |known| known.set("inactive", "dead"));
            }
            Ok(())
        })
    }

    fn daemon_reload(&self) -> Call<'_, ()> {
        Box::pin(async move {
            self.note("daemon-reload".to_owned());
            self.reload();
            self.changes.send(Change::Overrun).ok();
            Ok(())
        })
    }

    fn states<'a>(&'a self, units: &'a [UnitName]) -> Call<'a, BTreeMap<UnitName, UnitState>> {
        Box::pin(async move {
            let graph = self.graph();
            let of = |unit: &UnitName| {
                let has_state = |known: &&Unit| !known.state.load.is_empty() && !unit.is_template();
                let known = graph.units.get(unit).filter(has_state);
                known.map_or_else(UnitState::not_found, |known| known.state.clone())
            };
            Ok(units.iter().map(|unit| (unit.clone(), of(unit))).collect())
        })
    }

    fn list(&self) -> Call<'_, BTreeMap<String, UnitState>> {
        Box::pin(async move {
            let graph = self.graph();
            let known = graph.units.iter().filter(|(_, known)| !known.state.load.is_empty());
            Ok(known.map(|(unit, known)| (unit.to_string(), known.state.clone())).collect())
        })
    }

    fn changes(&self) -> Call<'_, Changes> {
        Box::pin(async move { Ok(stream_of(self.changes.subscribe())) })
    }

    fn unit_folder(&self, lasting: Lasting) -> PathBuf {
        self.root.join(match lasting {
            Lasting::Runtime => "run/systemd/system",
            Lasting::Persistent => "etc/systemd/system",
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;
    use crate::platform::systemd::{BAD, contract};

    fn name(name: &str) -> UnitName {
        UnitName::parse(name).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn keeps_the_contract() {
        let folder = tempfile::tempdir().unwrap();
        let tasks = Tasks::default();
        let systemd = MemorySystemd::new(&tasks);
        systemd.job_time(Duration::from_millis(20));
        systemd.fail_on_start(&name(BAD), true);
        contract(&systemd, folder.path()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_cancels_a_start_that_is_under_way() {
        let systemd = MemorySystemd::new(&Tasks::default());
        systemd.job_time(Duration::from_secs(5));
        let unit = name("a.service");
        systemd.add(&unit, "");
        let (started, stopped) =
            tokio::join!(systemd.run(Verb::Start, &unit), systemd.run(Verb::Stop, &unit));
        let canceled = started.unwrap_err();
        assert!(matches!(canceled, SystemdError::Job { ref result, .. } if result == "canceled"));
        stopped.unwrap();
        let states = systemd.states(std::slice::from_ref(&unit)).await.unwrap();
        assert_eq!(states[&unit].active, "inactive");
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_goes_on_when_nobody_waits_for_it_any_more() {
        let systemd = MemorySystemd::new(&Tasks::default());
        systemd.job_time(Duration::from_secs(5));
        let unit = name("a.service");
        systemd.add(&unit, "");
        let start = systemd.run(Verb::Start, &unit);
        let waited = tokio::time::timeout(Duration::from_secs(1), start).await;
        waited.expect_err("the job takes longer");
        tokio::time::sleep(Duration::from_secs(5)).await;
        let states = systemd.states(std::slice::from_ref(&unit)).await.unwrap();
        assert_eq!(states[&unit].active, "active");
        assert_eq!(systemd.log(), ["start a.service"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reload_finds_files_and_forgets_those_that_went() {
        let root = tempfile::tempdir().unwrap();
        let systemd = MemorySystemd::below(&Tasks::default(), root.path());
        let folder = systemd.unit_folder(Lasting::Runtime);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("a.service"), "[Service]\n").unwrap();
        systemd.daemon_reload().await.unwrap();
        assert_eq!(systemd.content(&name("a.service")).as_deref(), Some("[Service]\n"));
        std::fs::remove_file(folder.join("a.service")).unwrap();
        systemd.daemon_reload().await.unwrap();
        assert!(systemd.list().await.unwrap().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_unit_that_dies_is_a_change() {
        let systemd = MemorySystemd::new(&Tasks::default());
        let unit = name("a.service");
        systemd.add(&unit, "");
        systemd.run(Verb::Start, &unit).await.unwrap();
        let mut changes = systemd.changes().await.unwrap();
        systemd.set_state(&unit, "failed", "failed");
        assert_eq!(changes.next().await, Some(Change::Unit("a.service".to_owned())));
    }

    #[tokio::test(start_paused = true)]
    async fn who_reads_changes_too_slowly_is_told_to_read_all() {
        let systemd = MemorySystemd::new(&Tasks::default());
        let unit = name("a.service");
        systemd.add(&unit, "");
        let mut changes = systemd.changes().await.unwrap();
        for _ in 0..=CHANGES_MAX {
            systemd.set_state(&unit, "active", "running");
        }
        assert_eq!(changes.next().await, Some(Change::Overrun));
        assert_eq!(changes.next().await, Some(Change::Unit("a.service".to_owned())));
    }
}
