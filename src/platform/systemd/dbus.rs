//! The service manager of this machine, over the system bus.
//!
//! One connection, made at the first call and made again when it broke. One task reads all of
//! its signals, so that no queue of the library ever fills up and stops the answers too; it tells
//! those who wait for a job and those who watch changes.
//!
//! systemd's private socket cannot be used: what it sends is no message to the library.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt as _;
use serde::de::DeserializeOwned;
use tokio::sync::{broadcast, oneshot};
use zbus::{Connection, MatchRule, MessageStream, OwnedObjectPath, Variant, message};

use crate::foundation::limits;
use crate::foundation::tasks::Tasks;
use crate::platform::systemd::{
    CHANGES_MAX, Call, Change, Changes, Lasting, Systemd, SystemdError, Transient, UnitName,
    UnitState, Verb, stream_of,
};

pub(crate) const SERVICE: &str = "org.freedesktop.systemd1";
pub(crate) const ROOT: &str = "/org/freedesktop/systemd1";
pub(crate) const MANAGER: &str = "org.freedesktop.systemd1.Manager";
pub(crate) const UNIT: &str = "org.freedesktop.systemd1.Unit";
pub(crate) const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// What stands in the way of a job goes: `systemctl`'s own default.
const MODE: &str = "replace";

/// Names remembered of idle units that we asked for; more than a node has units.
const ASKED_MAX: usize = 16_384;

/// What a manager says of one unit: name, description, load, active and sub state, whom it
/// follows, its path, and its job's number, type and path.
type Listed =
    (String, String, String, String, String, String, OwnedObjectPath, u32, String, OwnedObjectPath);

/// Makes a connection.
pub type Dial =
    Box<dyn Fn() -> Pin<Box<dyn Future<Output = zbus::Result<Connection>> + Send>> + Send + Sync>;

/// The service manager at the other end of a bus.
pub struct DbusSystemd {
    dial: Dial,
    tasks: Tasks,
    bus: tokio::sync::Mutex<Option<Bus>>,
}

impl fmt::Debug for DbusSystemd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DbusSystemd").finish_non_exhaustive()
    }
}

/// One connection, for as long as it lasts.
#[derive(Debug, Clone)]
struct Bus {
    connection: Connection,
    shared: Arc<Mutex<Shared>>,
}

/// What the task that reads signals shares with the calls.
#[derive(Debug, Default)]
struct Shared {
    /// Who waits for which job.
    waiting: BTreeMap<String, Vec<oneshot::Sender<String>>>,
    /// Calls whose job we do not know yet, and the jobs that ended meanwhile.
    calling: usize,
    ended: BTreeMap<String, String>,
    /// Idle units that we asked for. Asking makes systemd read and drop them, and report both:
    /// news to nobody, and an endless loop for who asks again at every change.
    asked: BTreeSet<String>,
    /// Gone when the connection is.
    changes: Option<broadcast::Sender<Change>>,
}

fn guard(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl DbusSystemd {
    /// Speaks to the manager of this machine; nothing happens before the first call.
    pub fn system(tasks: &Tasks) -> Self {
        Self::dialing(tasks, Box::new(|| Box::pin(Connection::system())))
    }

    /// Speaks to whatever `dial` connects to.
    pub fn dialing(tasks: &Tasks, dial: Dial) -> Self {
        Self { dial, tasks: tasks.clone(), bus: tokio::sync::Mutex::default() }
    }

    async fn bus(&self) -> zbus::Result<Bus> {
        let mut bus = self.bus.lock().await;
        if let Some(bus) = bus.as_ref().filter(|bus| bus.is_alive()) {
            return Ok(bus.clone());
        }
        let dialed = tokio::time::timeout(limits::CONNECT_DEADLINE, self.connect()).await;
        let dialed = dialed.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
        Ok(bus.insert(dialed).clone())
    }

    async fn connect(&self) -> zbus::Result<Bus> {
        let connection = (self.dial)().await?;
        let rule = MatchRule::builder()
            .msg_type(message::Type::Signal)
            .sender(SERVICE)
            .path_namespace(ROOT)
            .build()?;
        let signals = MessageStream::for_match_rule(rule, &connection, None).await?;
        let (changes, _) = broadcast::channel(CHANGES_MAX);
        let shared = Shared { changes: Some(changes), ..Shared::default() };
        let bus = Bus { connection, shared: Arc::new(Mutex::new(shared)) };
        let shared = bus.shared.clone();
        self.tasks.spawn("systemd-signals", |stop| async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = listen(signals, &shared) => {}
            }
            guard(&shared).hang_up();
        });
        match bus.manager("Subscribe", &()).await {
            Err(error) if !named(&error, "AlreadySubscribed") => Err(error),
            Err(_) | Ok(_) => Ok(bus),
        }
    }

    /// Calls the manager. `units` are those that the answer may be about.
    async fn call<B, A>(
        &self,
        method: &'static str,
        body: &B,
        units: &[UnitName],
    ) -> Result<A, SystemdError>
    where
        B: serde::Serialize + zbus::DynamicType + Sync,
        A: DeserializeOwned + zbus::Type,
    {
        let refused = |error| refusal(method, units, error);
        let bus = self.bus().await.map_err(refused)?;
        let answer = bus.manager(method, body).await.map_err(refused)?;
        answer.body().deserialize().map_err(refused)
    }

    /// Calls a method that answers with a job, and waits for that job.
    async fn job<B>(
        &self,
        method: &'static str,
        body: &B,
        unit: &UnitName,
    ) -> Result<(), SystemdError>
    where
        B: serde::Serialize + zbus::DynamicType + Sync,
    {
        let refused = |error| refusal(method, std::slice::from_ref(unit), error);
        let bus = self.bus().await.map_err(refused)?;
        let calling = Calling::new(&bus.shared);
        let answer = bus.manager(method, body).await.map_err(refused)?;
        let path: OwnedObjectPath = answer.body().deserialize().map_err(refused)?;
        let ended = calling.wait_for(path.as_str()).await;
        match ended.as_deref() {
            Some("done") => Ok(()),
            Some(result) => {
                Err(SystemdError::Job { unit: unit.clone(), result: result.to_owned() })
            }
            None => Err(SystemdError::Unreachable {
                what: format!("{method} of `{unit}`"),
                source: "the bus went away before the job ended".into(),
            }),
        }
    }
}

impl Bus {
    fn is_alive(&self) -> bool {
        !self.connection.is_closed() && guard(&self.shared).changes.is_some()
    }

    async fn manager<B>(&self, method: &str, body: &B) -> zbus::Result<zbus::Message>
    where
        B: serde::Serialize + zbus::DynamicType + Sync,
    {
        self.connection.call_method(Some(SERVICE), ROOT, Some(MANAGER), method, body).await
    }
}

/// A call whose job is not known yet: jobs that end meanwhile are kept for it.
struct Calling<'a>(&'a Mutex<Shared>);

impl<'a> Calling<'a> {
    fn new(shared: &'a Mutex<Shared>) -> Self {
        guard(shared).calling += 1;
        Self(shared)
    }

    /// Returns how the job ended; nothing where the connection ended first.
    async fn wait_for(self, job: &str) -> Option<String> {
        let (sender, ended) = oneshot::channel();
        {
            let mut shared = guard(self.0);
            if let Some(result) = shared.ended.get(job) {
                return Some(result.clone());
            }
            // Who hung up already would never be told.
            shared.changes.as_ref()?;
            shared.waiting.entry(job.to_owned()).or_default().push(sender);
        }
        drop(self);
        ended.await.ok()
    }
}

impl Drop for Calling<'_> {
    fn drop(&mut self) {
        let mut shared = guard(self.0);
        shared.calling -= 1;
        if shared.calling == 0 {
            shared.ended.clear();
        }
    }
}

impl Shared {
    fn say(&self, change: Change) {
        if let Some(changes) = &self.changes {
            // Nobody listening is fine.
            changes.send(change).ok();
        }
    }

    fn job_ended(&mut self, job: String, unit: String, result: String) {
        for waiting in self.waiting.remove(&job).into_iter().flatten() {
            waiting.send(result.clone()).ok();
        }
        if self.calling > 0 {
            self.ended.insert(job, result);
        }
        self.changed(unit);
    }

    fn changed(&mut self, unit: String) {
        self.asked.remove(&unit);
        self.say(Change::Unit(unit));
    }

    /// Takes note that systemd has read or dropped a unit.
    fn came_or_went(&self, unit: String) {
        if !self.asked.contains(&unit) {
            self.say(Change::Unit(unit));
        }
    }

    fn hang_up(&mut self) {
        self.waiting.clear();
        self.changes = None;
    }
}

async fn listen(mut signals: MessageStream, shared: &Mutex<Shared>) {
    while let Some(Ok(signal)) = signals.next().await {
        if take(&signal, shared).is_err() {
            // It is none that we know, or not from systemd as we know it: look at everything.
            guard(shared).say(Change::Overrun);
        }
    }
}

fn take(signal: &zbus::Message, shared: &Mutex<Shared>) -> zbus::Result<()> {
    let header = signal.header();
    let (Some(path), Some(interface), Some(member)) =
        (header.path(), header.interface(), header.member())
    else {
        return Ok(());
    };
    let body = signal.body();
    match (interface.as_str(), member.as_str()) {
        (PROPERTIES, "PropertiesChanged") => {
            let (of, _, _): (&str, BTreeMap<&str, Variant<'_>>, Vec<&str>) = body.deserialize()?;
            if of == UNIT {
                guard(shared).changed(unit_at(path.as_str()));
            }
        }
        (MANAGER, "JobRemoved") => {
            let (_, job, unit, result): (u32, OwnedObjectPath, String, String) =
                body.deserialize()?;
            guard(shared).job_ended(job.as_str().to_owned(), unit, result);
        }
        (MANAGER, "UnitNew" | "UnitRemoved") => {
            let (unit, _): (String, OwnedObjectPath) = body.deserialize()?;
            guard(shared).came_or_went(unit);
        }
        (MANAGER, "Reloading") => {
            let begins: bool = body.deserialize()?;
            if !begins {
                guard(shared).say(Change::Overrun);
            }
        }
        _ => {}
    }
    Ok(())
}

/// Returns the name of the unit at a path, in which all but letters and digits is written as an
/// underscore and two hexadecimal digits.
fn unit_at(path: &str) -> String {
    let mut rest = path.rsplit('/').next().unwrap_or_default().as_bytes();
    let mut name = Vec::with_capacity(rest.len());
    while let Some((&byte, tail)) = rest.split_first() {
        let digits = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let (byte, tail) = match escaped.filter(|_| byte == b'_') {
            Some(escaped) => (escaped, &tail[2..]),
            None => (byte, tail),
        };
        name.push(byte);
        rest = tail;
    }
    String::from_utf8_lossy(&name).into_owned()
}

/// Tells whether an error is systemd's of that name.
fn named(error: &zbus::Error, name: &str) -> bool {
    let zbus::Error::MethodError(found, _, _) = error else { return false };
    found.strip_prefix(SERVICE).and_then(|rest| rest.strip_prefix('.')) == Some(name)
}

/// Turns the library's error into ours. `units` are those that the call was about.
fn refusal(method: &str, units: &[UnitName], error: zbus::Error) -> SystemdError {
    let said = if let zbus::Error::MethodError(_, Some(said), _) = &error {
        said.clone()
    } else {
        error.to_string()
    };
    let about = units.iter().find(|unit| said.contains(unit.as_str())).or(units.first());
    let what = match units {
        [] => method.to_owned(),
        units => {
            let names: Vec<_> = units.iter().map(UnitName::as_str).collect();
            format!("{method} of `{}`", names.join("`, `"))
        }
    };
    match (&error, about) {
        (_, Some(unit)) if named(&error, "NoSuchUnit") => {
            SystemdError::NotFound { unit: unit.clone() }
        }
        (_, Some(unit)) if named(&error, "UnitMasked") => {
            SystemdError::Masked { unit: unit.clone() }
        }
        (zbus::Error::FDO(fdo), Some(unit)) if is_no_file(fdo) => {
            SystemdError::NotFound { unit: unit.clone() }
        }
        (zbus::Error::MethodError(..), _) => SystemdError::Refused { what, message: said },
        (zbus::Error::FDO(fdo), _) if is_answer(fdo) => {
            SystemdError::Refused { what, message: said }
        }
        _ => SystemdError::Unreachable { what, source: Box::new(error) },
    }
}

fn is_no_file(error: &zbus::fdo::Error) -> bool {
    matches!(error, zbus::fdo::Error::FileNotFound(_))
}

/// Tells whether an error is an answer of systemd rather than of the bus between us.
fn is_answer(error: &zbus::fdo::Error) -> bool {
    use zbus::fdo::Error as E;
    !matches!(
        error,
        E::ZBus(_)
            | E::ServiceUnknown(_)
            | E::NameHasNoOwner(_)
            | E::NoReply(_)
            | E::IOError(_)
            | E::Disconnected(_)
            | E::Timeout(_)
            | E::TimedOut(_)
    )
}

fn names(units: &[UnitName]) -> Vec<&str> {
    units.iter().map(UnitName::as_str).collect()
}

fn state_of(listed: Listed) -> (String, UnitState) {
    let (name, _, load, active, sub, ..) = listed;
    (name, UnitState { load, active, sub })
}

/// Links that a call made or removed: what was done, its path and where it points.
type Links = Vec<(String, String, String)>;

const RUNTIME: bool = true;
const FORCE: bool = true;

fn is_runtime(lasting: Lasting) -> bool {
    lasting == Lasting::Runtime
}

impl Systemd for DbusSystemd {
    fn run<'a>(&'a self, verb: Verb, unit: &'a UnitName) -> Call<'a, ()> {
        let method = match verb {
            Verb::Start => "StartUnit",
            Verb::Stop => "StopUnit",
            Verb::Restart => "RestartUnit",
            Verb::Reload => "ReloadUnit",
            Verb::TryRestart => "TryRestartUnit",
            Verb::ReloadOrRestart => "ReloadOrRestartUnit",
            Verb::ReloadOrTryRestart => "ReloadOrTryRestartUnit",
        };
        Box::pin(async move { self.job(method, &(unit.as_str(), MODE), unit).await })
    }

    fn run_transient<'a>(&'a self, transient: &'a Transient) -> Call<'a, ()> {
        let unit = &transient.unit;
        let path = transient.command.first().map_or("", String::as_str);
        // An `exec` service has started when its program has, and is dropped when it ended.
        let properties = vec![
            ("Description", Variant::from(transient.description.as_str())),
            ("Type", Variant::from("exec")),
            ("CollectMode", Variant::from("inactive-or-failed")),
            ("ExecStart", Variant::from(vec![(path, transient.command.clone(), false)])),
        ];
        let auxiliary: Vec<(&str, Vec<(&str, Variant<'_>)>)> = Vec::new();
        let body = (unit.as_str(), MODE, properties, auxiliary);
        Box::pin(async move { self.job("StartTransientUnit", &body, unit).await })
    }

    fn link<'a>(&'a self, path: &'a Path) -> Call<'a, ()> {
        Box::pin(async move {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let unit = UnitName::parse(&name)?;
            let files = vec![path.to_string_lossy().into_owned()];
            let body = (files, RUNTIME, FORCE);
            self.call::<_, Links>("LinkUnitFiles", &body, &[unit]).await.map(drop)
        })
    }

    fn enable<'a>(&'a self, units: &'a [UnitName], lasting: Lasting) -> Call<'a, ()> {
        Box::pin(async move {
            let body = (names(units), is_runtime(lasting), FORCE);
            self.call::<_, (bool, Links)>("EnableUnitFiles", &body, units).await.map(drop)
        })
    }

    fn disable<'a>(&'a self, units: &'a [UnitName], lasting: Lasting) -> Call<'a, ()> {
        Box::pin(async move {
            let body = (names(units), is_runtime(lasting));
            self.call::<_, Links>("DisableUnitFiles", &body, units).await.map(drop)
        })
    }

    fn mask<'a>(&'a self, units: &'a [UnitName], lasting: Lasting) -> Call<'a, ()> {
        Box::pin(async move {
            let body = (names(units), is_runtime(lasting), FORCE);
            self.call::<_, Links>("MaskUnitFiles", &body, units).await.map(drop)
        })
    }

    fn unmask<'a>(&'a self, units: &'a [UnitName], lasting: Lasting) -> Call<'a, ()> {
        Box::pin(async move {
            let body = (names(units), is_runtime(lasting));
            self.call::<_, Links>("UnmaskUnitFiles", &body, units).await.map(drop)
        })
    }

    fn reset_failed<'a>(&'a self, unit: &'a UnitName) -> Call<'a, ()> {
        Box::pin(async move {
            let body = unit.as_str();
            match self.call("ResetFailedUnit", &body, std::slice::from_ref(unit)).await {
                Err(SystemdError::NotFound { .. }) => Ok(()),
                answer => answer,
            }
        })
    }

    fn daemon_reload(&self) -> Call<'_, ()> {
        Box::pin(async move { self.call("Reload", &(), &[]).await })
    }

    fn states<'a>(&'a self, units: &'a [UnitName]) -> Call<'a, BTreeMap<UnitName, UnitState>> {
        Box::pin(async move {
            if let Ok(bus) = self.bus().await {
                guard(&bus.shared).asking(units);
            }
            let body = names(units);
            let listed: Vec<Listed> = self.call("ListUnitsByNames", &body, units).await?;
            let mut found: BTreeMap<String, UnitState> = listed.into_iter().map(state_of).collect();
            if let Ok(bus) = self.bus().await {
                guard(&bus.shared).asked.retain(|name| found.get(name).is_none_or(is_idle));
            }
            let mut of =
                |unit: &UnitName| found.remove(unit.as_str()).unwrap_or_else(UnitState::not_found);
            Ok(units.iter().map(|unit| (unit.clone(), of(unit))).collect())
        })
    }

    fn list(&self) -> Call<'_, BTreeMap<String, UnitState>> {
        Box::pin(async move {
            let listed: Vec<Listed> = self.call("ListUnits", &(), &[]).await?;
            Ok(listed.into_iter().map(state_of).collect())
        })
    }

    fn changes(&self) -> Call<'_, Changes> {
        Box::pin(async move {
            let what = "changes of units";
            let unreachable = |source| SystemdError::Unreachable { what: what.to_owned(), source };
            let bus = self.bus().await.map_err(|error| unreachable(error.into()))?;
            let changes = guard(&bus.shared).changes.as_ref().map(broadcast::Sender::subscribe);
            Ok(stream_of(changes.ok_or_else(|| unreachable("the bus went away".into()))?))
        })
    }
}

impl Shared {
    fn asking(&mut self, units: &[UnitName]) {
        if self.asked.len() + units.len() > ASKED_MAX {
            self.asked.clear();
        }
        self.asked.extend(units.iter().map(ToString::to_string));
    }
}

fn is_idle(state: &UnitState) -> bool {
    state.active == "inactive"
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::platform::systemd::fake::Fake;
    use crate::platform::systemd::{BAD, GOOD, MemorySystemd, contract};

    fn name(name: &str) -> UnitName {
        UnitName::parse(name).unwrap()
    }

    /// Makes a client whose connections all lead to fakes of the same manager.
    fn client(systemd: &MemorySystemd, tasks: &Tasks) -> (DbusSystemd, Arc<Mutex<Vec<Fake>>>) {
        let fakes = Arc::new(Mutex::new(Vec::new()));
        let (kept, tasks, systemd) = (fakes.clone(), tasks.clone(), systemd.clone());
        let dial: Dial = {
            let tasks = tasks.clone();
            Box::new(move || {
                let (kept, tasks, systemd) = (kept.clone(), tasks.clone(), systemd.clone());
                Box::pin(async move {
                    let (fake, client) = Fake::connect(&systemd, &tasks).await?;
                    kept.lock().unwrap().push(fake);
                    Ok(client)
                })
            })
        };
        (DbusSystemd::dialing(&tasks, dial), fakes)
    }

    #[tokio::test]
    async fn keeps_the_contract() {
        let folder = tempfile::tempdir().unwrap();
        let tasks = Tasks::default();
        let memory = MemorySystemd::new(&tasks);
        memory.job_time(Duration::from_millis(2));
        memory.fail_on_start(&name(BAD), true);
        let (systemd, _fakes) = client(&memory, &tasks);
        contract(&systemd, folder.path()).await;
    }

    #[tokio::test]
    async fn a_job_that_ends_before_its_call_is_answered_is_not_missed() {
        let tasks = Tasks::default();
        let memory = MemorySystemd::new(&tasks);
        let (systemd, fakes) = client(&memory, &tasks);
        memory.add(&name(GOOD), "");
        systemd.states(&[]).await.unwrap();
        fakes.lock().unwrap()[0].end_jobs_before_answering();
        let unit = name(GOOD);
        let start = systemd.run(Verb::Start, &unit);
        tokio::time::timeout(Duration::from_secs(10), start).await.expect("no hang").unwrap();
    }

    #[tokio::test]
    async fn a_bus_that_went_away_ends_the_changes_and_is_found_again() {
        let tasks = Tasks::default();
        let memory = MemorySystemd::new(&tasks);
        let (systemd, fakes) = client(&memory, &tasks);
        memory.add(&name(GOOD), "");
        memory.job_time(Duration::from_mins(10));
        let mut changes = systemd.changes().await.unwrap();
        let unit = name(GOOD);
        let start = systemd.run(Verb::Start, &unit);
        let hang_up = async {
            assert_eq!(changes.next().await, Some(Change::Unit(GOOD.to_owned())));
            fakes.lock().unwrap().remove(0).hang_up();
        };
        let (cut, ()) = tokio::join!(start, hang_up);
        let cut = cut.unwrap_err();
        assert!(matches!(cut, SystemdError::Unreachable { .. }), "{cut}");
        assert_eq!(changes.next().await, None);
        assert_eq!(systemd.list().await.unwrap()[GOOD].active, "activating");
        assert_eq!(fakes.lock().unwrap().len(), 1, "it has dialed again");
    }

    #[tokio::test]
    async fn a_bus_that_is_not_there_is_an_error_that_says_so_and_the_next_call_tries_again() {
        let tries = Arc::new(AtomicUsize::new(0));
        let dial: Dial = {
            let tries = tries.clone();
            Box::new(move || {
                tries.fetch_add(1, Ordering::Relaxed);
                Box::pin(async { Err(zbus::Error::from(std::io::Error::other("no such socket"))) })
            })
        };
        let systemd = DbusSystemd::dialing(&Tasks::default(), dial);
        let refused = systemd.daemon_reload().await.unwrap_err();
        assert_eq!(refused.to_string(), "cannot reach systemd over D-Bus for Reload");
        systemd.daemon_reload().await.unwrap_err();
        assert_eq!(tries.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_path_is_turned_back_into_the_unit_it_stands_for() {
        let path = "/org/freedesktop/systemd1/unit/web_2dapp_401_2eservice";
        assert_eq!(unit_at(path), "web-app@1.service");
        assert_eq!(unit_at("/unit/a_"), "a_");
    }

    #[test]
    fn what_our_own_asking_made_systemd_read_is_no_change() {
        let (changes, mut seen) = broadcast::channel(8);
        let mut shared = Shared { changes: Some(changes), ..Shared::default() };
        shared.asking(&[name("a.service")]);
        shared.came_or_went("a.service".to_owned());
        seen.try_recv().unwrap_err();
        shared.changed("a.service".to_owned());
        shared.came_or_went("a.service".to_owned());
        assert_eq!(seen.try_recv().unwrap(), Change::Unit("a.service".to_owned()));
        assert_eq!(seen.try_recv().unwrap(), Change::Unit("a.service".to_owned()));
    }
}
