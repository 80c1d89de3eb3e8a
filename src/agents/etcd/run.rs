//! Runs a member: opens its ports, tells where it serves, and stops it well.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::agents::etcd::bootstrap::{self, BootstrapError};
use crate::agents::etcd::config::Config;
use crate::agents::etcd::data_dir::{DataDir, DataDirError};
use crate::consensus::log_writer::WriterKind;
use crate::consensus::member::StartError;
use crate::consensus::{Member, Options, Seams, Status};
use crate::foundation::limits::{QUOTA_BYTES_SUGGESTED_MAX, STOP_GRACE};
use crate::foundation::tasks::Tasks;
use crate::platform::net::{Address, Incoming, Net, first_address};
use crate::rpc::client::http::HttpClient;
use crate::rpc::client::url::{Origin, Url};
use crate::rpc::server::keys_v2::{self, Service};
use crate::rpc::server::listen::Places;
use crate::rpc::server::{listen, peer, v3};
use crate::store::Command;

/// How long to wait for others before saying that the service is up all the same: a member that
/// waits must not hold up the boot that brings the others.
const READY_AT_LATEST: Duration = Duration::from_secs(30);
/// How long one attempt to tell the cluster where this member serves may take.
const PUBLISH: Duration = Duration::from_secs(5);
/// How often to look whether all is well.
const LOOK: Duration = Duration::from_millis(100);

/// A member ended, and not because it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// There is no cluster to be in.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// A port cannot be opened.
    #[error("cannot listen at {url}{hint}")]
    Listen {
        /// The address.
        url: Url,
        /// What to do, if we know.
        hint: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The log or the state cannot be used.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The members that were named belong to another cluster.
    #[error(
        "the member at {url} belongs to cluster {cluster:x}, and this one to {own:x}: they were started with different members or another --initial-cluster-token; correct it, remove this member's data and start it again"
    )]
    Stranger {
        /// Where the other was found.
        url: String,
        /// Its cluster.
        cluster: u64,
        /// Ours.
        own: u64,
    },
    /// The member stopped by itself.
    #[error(
        "this member cannot go on: {why}; nothing that was acknowledged is lost, so mend the cause and start it again"
    )]
    Failed {
        /// Why.
        why: String,
    },
}

/// Tells the service manager how the service fares: `READY=1`, `STATUS=…`.
pub type Notify = Arc<dyn Fn(Report<'_>) + Send + Sync>;

/// What the service manager is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report<'a> {
    /// It serves.
    Ready,
    /// What it is doing.
    Status(&'a str),
}

/// The world, as far as the daemon touches it.
#[derive(Clone)]
pub struct World {
    /// The member's own seams.
    pub seams: Seams,
    /// The service manager.
    pub notify: Notify,
    /// Where the log's writer runs: in a thread, unless time is simulated, which would not wait for it.
    pub writer: WriterKind,
    /// How many connections of clients there may be at a time.
    pub connections_max: usize,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("seams", &self.seams).finish_non_exhaustive()
    }
}

/// Runs a member until `stop`; then leadership is handed over and answers under way are finished.
pub async fn run(config: Config, world: World, stop: CancellationToken) -> Result<(), RunError> {
    for (flag, why) in &config.ignored {
        tracing::warn!(flag, why, "a flag has no meaning here");
    }
    let net = world.seams.net.clone();
    let data = DataDir::open(world.seams.disk.clone(), &config.data_dir)?;
    let peers = bind(&*net, &config.listen_peer).await?;
    let clients = bind(&*net, &config.listen_client).await?;
    let watchers = bind(&*net, &config.listen_metrics).await?;
    let http = HttpClient::new(net);
    let waiting = |what: &str| {
        tracing::info!("{what}");
        (world.notify)(Report::Status(what));
    };
    let tasks = Tasks::default();
    let ready = ready_in_time(&world, &tasks);
    let finding = bootstrap::identify(&config, &data, &http, waiting);
    let identity = tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(()),
        found = finding => found?,
    };
    let mut options = Options::new(identity.member, identity.initial_cluster(), data.member());
    options.heartbeat_ms = config.heartbeat_ms;
    options.election_ms = config.election_ms;
    options.writer = world.writer;
    options.quota_bytes = config.quota_bytes;
    options.auto_compaction = config.auto_compaction;
    warn_of_quota(config.quota_bytes);
    let member = Member::start(options, world.seams.clone()).await?;
    tracing::info!(
        member = format_args!("{:x}", member.id()),
        cluster = format_args!("{:x}", member.cluster()),
        "member started"
    );
    for incoming in peers {
        peer::serve(incoming, &member, &tasks);
    }
    let servers = tasks.child();
    let service = Service {
        member: member.clone(),
        clock: world.seams.clock.clone(),
        deadline: config.request_deadline(),
        access: config.access.clone(),
        stop: servers.stopping(),
    };
    let places = Places::new(world.connections_max);
    for incoming in watchers {
        let router = keys_v2::metrics_router(service.clone());
        listen::serve_within(incoming, router, &places, &servers);
    }
    let grpc = Arc::new(v3::Service {
        member: member.clone(),
        random: world.seams.random.clone(),
        deadline: config.request_deadline(),
        election: Duration::from_millis(config.election_ms),
        stop: servers.stopping(),
        readers: Arc::default(),
    });
    grpc.readers.watch(&servers);
    for incoming in clients {
        let answers = v3::Beside::new(grpc.clone(), service.clone());
        listen::serve_both(incoming, answers, &places, &servers);
    }
    publish(&config, &member, &tasks, ready);
    let ended = watch_over(&member, &world, stop).await;
    // Answers under way are finished while the member can still give them.
    let drained = servers.drain(STOP_GRACE / 2).await;
    let stopped = member.stop(STOP_GRACE / 2).await;
    let rest = tasks.drain(STOP_GRACE / 5).await;
    for late in [drained, stopped, rest].into_iter().filter_map(Result::err) {
        tracing::warn!("{late}");
    }
    drop(data);
    ended
}

/// Says of a quota what an operator should know.
fn warn_of_quota(quota_bytes: Option<u64>) {
    match quota_bytes {
        None => tracing::warn!("there is no quota: the v3 keys may fill the memory"),
        Some(bytes) if bytes > QUOTA_BYTES_SUGGESTED_MAX => tracing::warn!(
            quota_bytes = bytes,
            suggested_max_bytes = QUOTA_BYTES_SUGGESTED_MAX,
            "the quota is larger than is suggested: a new member has to be sent all of it"
        ),
        Some(_) => {}
    }
}

async fn bind(net: &dyn Net, urls: &[Url]) -> Result<Vec<Box<dyn Incoming>>, RunError> {
    let mut bound = Vec::new();
    for url in urls {
        let failed = |source: io::Error| {
            let hint = if source.kind() == io::ErrorKind::AddrInUse {
                "; another program listens there, stop it or choose another port"
            } else if source.kind() == io::ErrorKind::AddrNotAvailable {
                "; this machine does not have that address"
            } else {
                ""
            };
            RunError::Listen { url: url.clone(), hint, source }
        };
        let address = address_of(net, url).await.map_err(failed)?;
        bound.push(net.bind(&address).await.map_err(failed)?);
    }
    Ok(bound)
}

async fn address_of(net: &dyn Net, url: &Url) -> io::Result<Address> {
    Ok(match &url.origin {
        Origin::Tcp { host, port } => Address::Tcp((first_address(net, host).await?, *port).into()),
        Origin::Unix(path) => Address::Unix(path.clone()),
    })
}

/// Says that the service is up after a while, whoever is missing. Cancelling the answer says so
/// at once.
fn ready_in_time(world: &World, tasks: &Tasks) -> CancellationToken {
    let ready = CancellationToken::new();
    let now = ready.clone();
    let notify = world.notify.clone();
    tasks.spawn("ready", |stop| async move {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = now.cancelled() => {}
            () = tokio::time::sleep(READY_AT_LATEST) => {
                tracing::info!("the service counts as up, and still waits for others");
            }
        }
        notify(Report::Ready);
    });
    ready
}

/// Tells the cluster where this member serves, as soon as there is a leader.
fn publish(config: &Config, member: &Member, tasks: &Tasks, ready: CancellationToken) {
    let command = Command::Publish {
        member: member.id(),
        name: config.name.clone(),
        client_urls: config.advertise_client.clone(),
    };
    let member = member.clone();
    tasks.spawn("publish", |stop| async move {
        loop {
            let proposed = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                proposed = member.propose(vec![command.clone()], PUBLISH) => proposed,
            };
            match proposed {
                Ok(_) => break,
                // Publishing twice is as good as once.
                Err(error) => tracing::debug!(%error, "not published yet"),
            }
            tokio::time::sleep(LOOK).await;
        }
        ready.cancel();
    });
}

/// Watches until `stop`, or until the member cannot go on.
async fn watch_over(
    member: &Member,
    world: &World,
    stop: CancellationToken,
) -> Result<(), RunError> {
    let mut look = tokio::time::interval(LOOK);
    let mut before: Option<Status> = None;
    let mut had_leader = false;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => {
                tracing::info!("stopping");
                return Ok(());
            }
            _ = look.tick() => {}
        }
        let status = member.status();
        if let Some(why) = status.failed {
            return Err(RunError::Failed { why });
        }
        had_leader |= status.leader.is_some();
        if !had_leader && let Some(stranger) = member.stranger() {
            let own = member.cluster();
            return Err(RunError::Stranger { url: stranger.url, cluster: stranger.cluster, own });
        }
        if before.as_ref().is_none_or(|before| before.leader != status.leader) {
            report(world, &status);
        }
        before = Some(status);
    }
}

fn report(world: &World, status: &Status) {
    let text = match status.leader {
        Some(_) if status.leads => "leads the cluster".to_owned(),
        Some(leader) => format!("follows {leader:x}"),
        None => "no leader: waiting for a majority of the members".to_owned(),
    };
    tracing::info!(term = status.term, "{text}");
    (world.notify)(Report::Status(&text));
}
