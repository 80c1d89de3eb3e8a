//! A manager for tests at the other end of a socket pair: D-Bus outside, memory inside.

#![expect(
    clippy::disallowed_types,
    clippy::unused_self,
    clippy::used_underscore_binding,
    clippy::fn_params_excessive_bools,
    reason = "the interface is systemd's, and the macro's own code is not ours"
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use futures_util::StreamExt as _;
use zbus::connection::Builder;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, DBusError, Guid, OwnedObjectPath, Variant};

use crate::foundation::tasks::Tasks;
use crate::platform::systemd::dbus::{PROPERTIES, ROOT, UNIT};
use crate::platform::systemd::{
    Change, Lasting, MemorySystemd, Systemd as _, SystemdError, UnitName, UnitState, Verb,
};

/// The manager's end of a connection.
#[derive(Debug)]
pub(crate) struct Fake {
    tasks: Tasks,
    early: Arc<AtomicBool>,
}

/// What systemd answers when it refuses.
#[derive(Debug, DBusError)]
#[zbus(prefix = "org.freedesktop.systemd1")]
enum Refusal {
    #[zbus(error)]
    ZBus(zbus::Error),
    NoSuchUnit(String),
    UnitMasked(String),
    Other(String),
}

impl From<SystemdError> for Refusal {
    fn from(error: SystemdError) -> Self {
        let said = error.to_string();
        match error {
            SystemdError::NotFound { .. } | SystemdError::BadName { .. } => Self::NoSuchUnit(said),
            SystemdError::Masked { .. } => Self::UnitMasked(said),
            SystemdError::Job { .. }
            | SystemdError::Refused { .. }
            | SystemdError::Unreachable { .. } => Self::Other(said),
        }
    }
}

struct Manager {
    systemd: MemorySystemd,
    tasks: Tasks,
    jobs: AtomicU32,
    early: Arc<AtomicBool>,
}

type Links = Vec<(String, String, String)>;
type Listed =
    (String, String, String, String, String, String, OwnedObjectPath, u32, String, OwnedObjectPath);

fn parse(names: &[String]) -> Result<Vec<UnitName>, Refusal> {
    names.iter().map(|name| Ok(UnitName::parse(name)?)).collect()
}

fn lasting(runtime: bool) -> Lasting {
    if runtime { Lasting::Runtime } else { Lasting::Persistent }
}

fn listed((name, state): (String, UnitState)) -> Listed {
    let path = OwnedObjectPath::try_from(path(&name)).expect("an escaped name is a path");
    let no_job = OwnedObjectPath::try_from("/").expect("this is a path");
    let UnitState { load, active, sub } = state;
    (name, String::new(), load, active, sub, String::new(), path, 0, String::new(), no_job)
}

impl Manager {
    /// Starts a job, which ends by a signal. A refusal comes at once.
    async fn job(
        &self,
        verb: Verb,
        name: String,
        emitter: &SignalEmitter<'_>,
    ) -> Result<OwnedObjectPath, Refusal> {
        let number = self.jobs.fetch_add(1, Ordering::Relaxed) + 1;
        let path = OwnedObjectPath::try_from(format!("{ROOT}/job/{number}"))
            .map_err(|error| Refusal::Other(error.to_string()))?;
        let unit = UnitName::parse(&name)?;
        let systemd = self.systemd.clone();
        let mut run = Box::pin(async move { systemd.run(verb, &unit).await });
        let early = self.early.load(Ordering::Relaxed);
        // The first poll queues the job, or refuses it.
        let first =
            std::future::poll_fn(|context| std::task::Poll::Ready(run.as_mut().poll(context)));
        let ended = match first.await {
            std::task::Poll::Ready(Err(SystemdError::Job { result, .. })) => Some(result),
            std::task::Poll::Ready(ended) => Some(ended.map(|()| "done".to_owned())?),
            std::task::Poll::Pending if early => Some(result_of(run.as_mut().await)),
            std::task::Poll::Pending => None,
        };
        if let Some(result) = ended {
            Self::job_removed(emitter, number, &path, &name, &result).await?;
            return Ok(path);
        }
        let (emitter, job) = (emitter.to_owned(), path.clone());
        self.tasks.spawn("fake-job", |_stop| async move {
            let result = result_of(run.await);
            Self::job_removed(&emitter, number, &job, &name, &result).await.ok();
        });
        Ok(path)
    }
}

fn result_of(ended: Result<(), SystemdError>) -> String {
    match ended {
        Ok(()) => "done".to_owned(),
        Err(SystemdError::Job { result, .. }) => result,
        Err(other) => other.to_string(),
    }
}

#[zbus::interface(name = "org.freedesktop.systemd1.Manager")]
impl Manager {
    fn subscribe(&self) {}

    async fn start_unit(
        &self,
        name: String,
        _mode: String,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> Result<OwnedObjectPath, Refusal> {
        self.job(Verb::Start, name, &emitter).await
    }

    async fn stop_unit(
        &self,
        name: String,
        _mode: String,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> Result<OwnedObjectPath, Refusal> {
        self.job(Verb::Stop, name, &emitter).await
    }

    async fn restart_unit(
        &self,
        name: String,
        _mode: String,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> Result<OwnedObjectPath, Refusal> {
        self.job(Verb::Restart, name, &emitter).await
    }

    async fn try_restart_unit(
        &self,
        name: String,
        _mode: String,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> Result<OwnedObjectPath, Refusal> {
        self.job(Verb::TryRestart, name, &emitter).await
    }

    async fn link_unit_files(
        &self,
        files: Vec<String>,
        _runtime: bool,
        _force: bool,
    ) -> Result<Links, Refusal> {
        for file in files {
            self.systemd.link(file.as_ref()).await?;
        }
        Ok(Vec::new())
    }

    async fn disable_unit_files(
        &self,
        names: Vec<String>,
        runtime: bool,
    ) -> Result<Links, Refusal> {
        self.systemd.disable(&parse(&names)?, lasting(runtime)).await?;
        Ok(Vec::new())
    }

    async fn mask_unit_files(
        &self,
        names: Vec<String>,
        runtime: bool,
        _force: bool,
    ) -> Result<Links, Refusal> {
        self.systemd.mask(&parse(&names)?, lasting(runtime)).await?;
        Ok(Vec::new())
    }

    async fn unmask_unit_files(&self, names: Vec<String>, runtime: bool) -> Result<Links, Refusal> {
        self.systemd.unmask(&parse(&names)?, lasting(runtime)).await?;
        Ok(Vec::new())
    }

    async fn reset_failed_unit(&self, name: String) -> Result<(), Refusal> {
        let unit = UnitName::parse(&name)?;
        let known = self.systemd.list().await?.contains_key(&name);
        if !known {
            return Err(Refusal::NoSuchUnit(format!("Unit {name} not loaded.")));
        }
        Ok(self.systemd.reset_failed(&unit).await?)
    }

    async fn reload(&self) -> Result<(), Refusal> {
        Ok(self.systemd.daemon_reload().await?)
    }

    async fn list_units(&self) -> Result<Vec<Listed>, Refusal> {
        Ok(self.systemd.list().await?.into_iter().map(listed).collect())
    }

    async fn list_units_by_names(&self, names: Vec<String>) -> Result<Vec<Listed>, Refusal> {
        let states = self.systemd.states(&parse(&names)?).await?;
        Ok(states.into_iter().map(|(unit, state)| listed((unit.to_string(), state))).collect())
    }

    #[zbus(signal)]
    async fn job_removed(
        emitter: &SignalEmitter<'_>,
        id: u32,
        job: &OwnedObjectPath,
        unit: &str,
        result: &str,
    ) -> zbus::Result<()>;

    #[zbus(signal)]
    async fn reloading(emitter: &SignalEmitter<'_>, active: bool) -> zbus::Result<()>;
}

impl Fake {
    /// Connects a client to a fake whose units are those of `systemd`.
    pub(crate) async fn connect(
        systemd: &MemorySystemd,
        tasks: &Tasks,
    ) -> zbus::Result<(Self, Connection)> {
        let (here, there) = std::os::unix::net::UnixStream::pair()?;
        let tasks = tasks.child();
        let early = Arc::new(AtomicBool::new(false));
        let manager = Manager {
            systemd: systemd.clone(),
            tasks: tasks.clone(),
            jobs: AtomicU32::new(0),
            early: early.clone(),
        };
        let here =
            Builder::unix_stream(here).server(Guid::generate()).p2p().serve_at(ROOT, manager);
        let there = Builder::unix_stream(there).p2p();
        let (here, there) = tokio::try_join!(here.build(), there.build())?;
        let changes =
            systemd.changes().await.map_err(|error| zbus::Error::Failure(error.to_string()))?;
        tasks.spawn("fake-signals", |stop| async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = forward(&here, changes) => {}
            }
            here.close().await.ok();
        });
        Ok((Self { tasks, early }, there))
    }

    /// Makes later calls for a job be answered only after the job has ended.
    pub(crate) fn end_jobs_before_answering(&self) {
        self.early.store(true, Ordering::Relaxed);
    }

    /// Closes the connection.
    pub(crate) fn hang_up(self) {
        self.tasks.stop();
    }
}

/// Says on the bus what changes.
async fn forward(connection: &Connection, mut changes: crate::platform::systemd::Changes) {
    while let Some(change) = changes.next().await {
        let said = match change {
            Change::Unit(unit) => {
                let values = BTreeMap::from([("ActiveState", Variant::from("changed"))]);
                let body = (UNIT, values, Vec::<&str>::new());
                let (to, path) = (None::<&str>, path(&unit));
                connection.emit_signal(to, path, PROPERTIES, "PropertiesChanged", &body).await
            }
            Change::Overrun => match SignalEmitter::new(connection, ROOT) {
                Ok(emitter) => Manager::reloading(&emitter, false).await,
                Err(error) => Err(error),
            },
        };
        if said.is_err() {
            return;
        }
    }
}

/// Returns the path at which a unit stands.
fn path(unit: &str) -> String {
    let escaped = unit.bytes().map(|byte| {
        if byte.is_ascii_alphanumeric() {
            char::from(byte).to_string()
        } else {
            format!("_{byte:02x}")
        }
    });
    format!("{ROOT}/unit/{}", escaped.collect::<String>())
}
