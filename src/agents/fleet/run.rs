//! The daemon's life: set up, reconfigured, taken down.
//!
//! ```text
//!   run ─▶ Parts::start ─▶ work … ─┬─ Reload: halt, start with the new configuration
//!            ▲                     ├─ Stop: halt, purge, leave the cluster
//!            └─────────────────────┘
//! ```
//! The listening sockets stay through all of it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use crate::agents::fleet::agent::{Agent, Ground, Managed};
use crate::agents::fleet::answers::Answers;
use crate::agents::fleet::config::Config;
use crate::agents::fleet::engine::Engine;
use crate::agents::fleet::presence::Presence;
use crate::agents::fleet::publisher::Publisher;
use crate::agents::fleet::registry::Store;
use crate::agents::fleet::server;
use crate::agents::fleet::unit_folder::UnitFolder;
use crate::agents::fleet::view::{View, feed};
use crate::foundation::limits::STOP_GRACE;
use crate::foundation::tasks::Tasks;
use crate::platform::net::Incoming;
use crate::platform::systemd::Systemd;
use crate::rpc::client::keys::Keys;
use crate::rpc::client::mirror;
use crate::rpc::server::listen;
use crate::wire::fleet::Registry;
use crate::wire::fleet::registry::MachineObject;

/// The version of fleet whose formats and protocols these are.
pub const FLEET_VERSION: &str = "1.0.0";

/// How long taking our traces out of the registry may take.
const LEAVE_DEADLINE: Duration = Duration::from_secs(5);

/// What the daemon is told from outside.
#[derive(Debug)]
pub enum Order {
    /// Unload everything, leave the cluster, end.
    Stop,
    /// Go on with another configuration.
    Reload(Box<Config>),
    /// Tell what is known, as JSON.
    Dump(oneshot::Sender<String>),
}

/// Makes a client of the store that a configuration names.
pub type Dial = Box<dyn Fn(&Config) -> Arc<dyn Keys> + Send + Sync>;

/// What the daemon stands on.
pub struct World {
    /// How the store is reached.
    pub keys: Dial,
    /// The service manager.
    pub systemd: Arc<dyn Systemd>,
    /// This machine's id.
    pub machine_id: String,
    /// The address to tell where the configuration names none.
    pub address: String,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("machine_id", &self.machine_id).finish_non_exhaustive()
    }
}

/// Runs the daemon until it is told to stop.
pub async fn run(
    mut config: Config,
    world: World,
    incoming: Vec<Box<dyn Incoming>>,
    mut orders: mpsc::Receiver<Order>,
    tasks: Tasks,
) {
    let slot = watch::Sender::new(None);
    let router = server::router(slot.subscribe());
    for incoming in incoming {
        tracing::info!(at = %incoming.local(), "serving");
        listen::serve(incoming, router.clone(), &tasks);
    }
    loop {
        let parts = Parts::start(&config, &world, &tasks);
        slot.send_replace(Some(parts.answers.clone()));
        let next = work(&parts, &mut orders).await;
        slot.send_replace(None);
        let Some(new) = next else {
            parts.leave().await;
            break;
        };
        tracing::info!("Reloading configuration");
        parts.halt().await;
        config = *new;
    }
    if let Err(error) = tasks.drain(STOP_GRACE).await {
        tracing::warn!(why = %error, "ended with work under way");
    }
}

/// Follows orders until one ends this configuration; returns the next one, if there is one.
async fn work(parts: &Parts, orders: &mut mpsc::Receiver<Order>) -> Option<Box<Config>> {
    loop {
        match orders.recv().await {
            None | Some(Order::Stop) => return None,
            Some(Order::Reload(config)) => return Some(config),
            Some(Order::Dump(reader)) => drop(reader.send(parts.dump())),
        }
    }
}

/// The daemon's parts, at work.
#[derive(Debug)]
pub struct Parts {
    me: MachineObject,
    view: Arc<View>,
    store: Store,
    answers: Arc<Answers>,
    managed: watch::Receiver<Managed>,
    agent: oneshot::Receiver<Agent>,
    tasks: Tasks,
}

impl Parts {
    /// Sets all parts to work.
    pub fn start(config: &Config, world: &World, tasks: &Tasks) -> Self {
        let tasks = tasks.child();
        let keys = (world.keys)(config);
        let paths = Registry::below(&config.key_prefix);
        let view = Arc::new(View::new(paths.clone()));
        let changes = mirror::follow(keys.clone(), paths.root(), &tasks);
        let store = Store::new(keys, paths, view.clone());
        let me = machine(config, world);
        let fed = view.clone();
        tasks.spawn("feed", |stop| async move { feed(&fed, changes, stop).await });
        let presence = Presence::new(me.clone(), store.clone(), view.clone(), config.agent_ttl);
        tasks.spawn("presence", |stop| presence.run(stop));
        if !config.disable_engine {
            let interval = config.engine_reconcile_interval;
            let engine = Engine::new(&me.id, store.clone(), view.clone(), interval);
            tasks.spawn("engine", |stop| engine.run(stop));
        }
        let (managed, agent) = start_agent(config, world, (&me, &view, &store), &tasks);
        let answers = Arc::new(Answers::new(view.clone(), store.clone(), config.token_limit));
        let unreached = (view.clone(), config.etcd_servers.join(", "));
        tasks.spawn("first-contact", |stop| async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = first_contact(&unreached.0, &unreached.1) => {}
            }
        });
        Self { me, view, store, answers, managed, agent, tasks }
    }

    /// Returns what answers the API.
    pub fn answers(&self) -> &Arc<Answers> {
        &self.answers
    }

    /// Stops all parts as a crash would: nothing is unloaded, nothing told.
    pub async fn halt(self) {
        if let Err(error) = self.tasks.drain(STOP_GRACE).await {
            tracing::warn!(why = %error, "some parts did not stop");
        }
    }

    /// Stops all parts, unloads every unit and leaves the cluster.
    pub async fn leave(self) {
        let Self { me, view, store, agent, tasks, .. } = self;
        // Where another machine has our id, what the registry says of it is not ours to remove.
        let live = view.health().borrow().live();
        if let Err(error) = tasks.drain(STOP_GRACE).await {
            tracing::warn!(why = %error, "some parts did not stop");
        }
        let Ok(mut agent) = agent.await else { return };
        let units = agent.purge().await;
        if !live {
            tracing::warn!(
                "not part of the cluster now: what it says of this machine expires by itself"
            );
            return;
        }
        let leaving = async {
            let gone = units.iter().map(|unit| async {
                let heartbeat = store.clear_heartbeat(unit, &me.id).await;
                heartbeat.and(store.remove_state(unit, &me.id).await)
            });
            let removed = futures_util::future::join_all(gone).await;
            removed.into_iter().chain([store.leave(&me.id).await]).find_map(Result::err)
        };
        match tokio::time::timeout(LEAVE_DEADLINE, leaving).await {
            Ok(None) => tracing::info!(units = units.len(), "left the cluster"),
            Ok(Some(failure)) => tracing::warn!(why = %failure, "left with traces that expire"),
            Err(_) => tracing::warn!("the store did not answer in time; our traces expire"),
        }
    }

    /// Returns what is known, as JSON.
    pub fn dump(&self) -> String {
        let health = *self.view.health().borrow();
        let units: serde_json::Map<String, serde_json::Value> = self
            .managed
            .borrow()
            .iter()
            .map(|(unit, here)| {
                let state = if here.launched { "launched" } else { "loaded" };
                (unit.clone(), serde_json::json!({"hash": here.hash.to_string(), "state": state}))
            })
            .collect();
        self.view.read(|cluster| {
            serde_json::json!({
                "machine": self.me,
                "store": {"listed": health.listed, "present": health.present},
                "agent": {"units": units},
                "engine": {
                    "leader": cluster.leader(),
                    "version": cluster.engine_version(),
                    "machines": cluster.machines().len(),
                    "units": cluster.jobs().count(),
                },
            })
            .to_string()
        })
    }
}

fn machine(config: &Config, world: &World) -> MachineObject {
    let mut capabilities = std::collections::BTreeMap::from([("GRPC".to_owned(), false)]);
    if config.disable_engine {
        capabilities.insert("DISABLE_ENGINE".to_owned(), true);
    }
    MachineObject {
        id: world.machine_id.clone(),
        public_ip: config.public_ip.clone().unwrap_or_else(|| world.address.clone()),
        metadata: config.metadata.clone(),
        capabilities,
        version: FLEET_VERSION.to_owned(),
    }
}

fn start_agent(
    config: &Config,
    world: &World,
    (me, view, store): (&MachineObject, &Arc<View>, &Store),
    tasks: &Tasks,
) -> (watch::Receiver<Managed>, oneshot::Receiver<Agent>) {
    let managed = watch::Sender::new(Managed::default());
    let told = managed.subscribe();
    let publisher = Publisher::new(
        &me.id,
        (store.clone(), view.clone()),
        world.systemd.clone(),
        config.agent_ttl,
        managed.subscribe(),
    );
    tasks.spawn("publisher", |stop| publisher.run(stop));
    let ground = Ground {
        me: me.clone(),
        view: view.clone(),
        systemd: world.systemd.clone(),
        folder: UnitFolder::at(&config.units_directory),
    };
    let agent = Agent::new(ground, managed, tasks);
    let (back, returned) = oneshot::channel();
    tasks.spawn("agent", |stop| async move { drop(back.send(agent.run(stop).await)) });
    (told, returned)
}

/// Says once where the store is looked for, if it does not answer soon.
async fn first_contact(view: &View, servers: &str) {
    let mut health = view.health();
    if tokio::time::timeout(STOP_GRACE, health.wait_for(|health| health.listed)).await.is_err() {
        tracing::warn!(
            "no store answers at {servers}: start one there, or name another in `etcd_servers`; \
             until then units keep running and the API answers 503"
        );
    }
}
