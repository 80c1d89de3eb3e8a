//! One node: a store member and a fleet daemon, as the product runs them, in a thread of their own.
//!
//! The thread's runtime is the node's power: when it is dropped every task ends where it is, every
//! connection breaks, and nothing is told to anybody. What was written to files stays, save what a
//! machine keeps in `/run`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use corebox::agents::etcd;
use corebox::agents::fleet;
use corebox::consensus::Seams;
use corebox::consensus::log_writer::WriterKind;
use corebox::foundation::clock::SystemClock;
use corebox::foundation::limits::CONNECTIONS_MAX;
use corebox::foundation::random::Random;
use corebox::foundation::tasks::Tasks;
use corebox::platform::disk::Files;
use corebox::platform::net::{Address, Net, TokioNet};
use corebox::platform::systemd::MemorySystemd;
use corebox::rpc::client::http::HttpClient;
use corebox::rpc::client::keys::Keys;
use corebox::rpc::client::keys_http::KeysClient;
use tokio::sync::{mpsc, oneshot};

use crate::error::{LabError, chain};
use crate::local::places::{self, Places};

/// How long a simulated job takes: long enough for a watcher to see a unit start.
const JOB: Duration = Duration::from_millis(100);
/// How long the cluster believes in a silent node. Shorter than on machines, since somebody waits to
/// see a unit move; long enough for the others' next sign of life if the store has to elect first.
const BELIEVED: &str = "6s";
/// How often the store's leader shows that it lives, and how long the others do without, in
/// milliseconds: half of what is usual, since loopback is quick.
const HEARTBEAT_MS: &str = "50";
const ELECTION_MS: &str = "500";

/// A node ended by itself.
#[derive(Debug, thiserror::Error)]
enum NodeError {
    #[error(transparent)]
    Store(#[from] etcd::run::RunError),
    #[error("cannot listen at {}", path.display())]
    Listen { path: PathBuf, source: io::Error },
    #[error("cannot clear {}", path.display())]
    Clear { path: PathBuf, source: io::Error },
}

/// A node that has power until this is dropped.
#[derive(Debug)]
pub struct Node {
    plug: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Node {
    /// Turns a node on. It has power when this returns; it is not ready.
    pub fn start(places: &Places, number: u8) -> Result<Self, LabError> {
        let (plug, pulled) = oneshot::channel();
        let name = places::name(number);
        let places = places.clone();
        let started =
            std::thread::Builder::new().name(name).spawn(move || live(&places, number, pulled));
        let thread = started.map_err(|source| LabError::Start {
            command: format!("the thread of node{number}"),
            source,
        })?;
        Ok(Self { plug: Some(plug), thread: Some(thread) })
    }

    /// Says whether it runs.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.plug.take());
        if let Some(thread) = self.thread.take() {
            // A panic was told where it happened.
            thread.join().ok();
        }
    }
}

/// A node's life: until its plug is pulled, or it ends by itself.
fn live(places: &Places, number: u8, pulled: oneshot::Receiver<()>) {
    let name = places::name(number);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().thread_name(&name).build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!(%error, "no runtime"),
    };
    runtime.block_on(async {
        tokio::select! {
            biased;
            _ = pulled => tracing::warn!("the plug was pulled"),
            ended = Box::pin(run(places, number)) => match ended {
                Ok(()) => tracing::error!("the node ended by itself"),
                Err(error) => tracing::error!("the node ended: {}", chain(&error)),
            },
        }
    });
    // No task is waited for.
    runtime.shutdown_background();
}

async fn run(places: &Places, number: u8) -> Result<(), NodeError> {
    let net: Arc<dyn Net> = Arc::new(TokioNet::default());
    let volatile = places.folder(number).join("run");
    clear(&volatile).map_err(|source| NodeError::Clear { path: volatile.clone(), source })?;
    let tasks = Tasks::default();
    let seams = Seams {
        net: net.clone(),
        disk: Arc::new(Files),
        clock: Arc::new(SystemClock),
        random: Arc::new(Random::from_system()),
    };
    let world = etcd::run::World {
        seams,
        notify: Arc::new(|_| ()),
        writer: WriterKind::Thread,
        connections_max: CONNECTIONS_MAX,
    };
    let store = etcd::run::run(store_config(places, number), world, tasks.stopping());
    let fleet = fleet(places, number, net, &tasks);
    tokio::select! {
        biased;
        ended = Box::pin(store) => Ok(ended?),
        ended = Box::pin(fleet) => ended,
    }
}

/// Forgets what a machine forgets without power.
fn clear(volatile: &Path) -> io::Result<()> {
    match fs::remove_dir_all(volatile) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => fs::create_dir_all(volatile),
    }
}

fn store_config(places: &Places, number: u8) -> etcd::config::Config {
    let (clients, peers) = (places.clients(number), places.peers(number));
    let flags = BTreeMap::from([
        ("name", places::name(number)),
        ("data-dir", places.folder(number).join("etcd").display().to_string()),
        ("listen-client-urls", format!("http://{clients}")),
        ("advertise-client-urls", format!("http://{clients}")),
        ("listen-peer-urls", format!("http://{peers}")),
        ("initial-advertise-peer-urls", format!("http://{peers}")),
        ("initial-cluster", places.members()),
        ("heartbeat-interval", HEARTBEAT_MS.to_owned()),
        ("election-timeout", ELECTION_MS.to_owned()),
        ("initial-cluster-token", places.id().to_owned()),
    ]);
    let config = etcd::config::Config::read(|flag| flags.get(flag).cloned());
    config.expect("flags made from addresses are valid")
}

async fn fleet(
    places: &Places,
    number: u8,
    net: Arc<dyn Net>,
    tasks: &Tasks,
) -> Result<(), NodeError> {
    let path = places.fleet_socket(number);
    let incoming = net.bind(&Address::Unix(path.clone())).await;
    let incoming = incoming.map_err(|source| NodeError::Listen { path, source })?;
    let systemd = MemorySystemd::below(tasks, &places.folder(number));
    systemd.job_time(JOB);
    let world = fleet::run::World {
        keys: Box::new(move |config| keys(&net, config)),
        systemd: Arc::new(systemd),
        machine_id: places::machine_id(number),
        address: places.address(number).to_string(),
    };
    // Nobody orders anything: its plug is all that a node has.
    let (_orders, taken) = mpsc::channel(1);
    let config = fleet_config(places, number);
    fleet::run::run(config, world, vec![incoming], taken, tasks.clone()).await;
    Ok(())
}

fn fleet_config(places: &Places, number: u8) -> fleet::config::Config {
    let units = places.folder(number).join("run/fleet/units");
    let text = format!(
        "etcd_servers=http://{}\nmetadata={}\nagent_ttl={BELIEVED}\nunits_directory={}\n",
        places.clients(number),
        places::metadata(number),
        units.display(),
    );
    let read = fleet::config::read(Some(("local", &text)), &BTreeMap::new());
    read.expect("settings made from addresses are valid").0
}

fn keys(net: &Arc<dyn Net>, config: &fleet::config::Config) -> Arc<dyn Keys> {
    let endpoints = config.etcd_servers.iter().filter_map(|server| server.parse().ok()).collect();
    let http = HttpClient::new(net.clone());
    Arc::new(KeysClient::new(http, endpoints).with_deadline(config.request_timeout))
}
