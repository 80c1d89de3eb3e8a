//! A discovery service: gives out URLs at which new clusters find their members.
//!
//! `/new?size=N` makes a token; `/TOKEN…` is the key `/_etcd/registry/TOKEN…` of a store of one
//! member inside this process. Source: the specification A.10.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::{Request, StatusCode, Uri};
use tokio_util::sync::CancellationToken;

use crate::consensus::identity::{Cluster, ClusterError, MEMBERS_MAX};
use crate::consensus::member::StartError;
use crate::consensus::{Member, Options, Seams};
use crate::foundation::limits::STOP_GRACE;
use crate::foundation::random::Random;
use crate::foundation::tasks::Tasks;
use crate::platform::net::Address;
use crate::rpc::server::access::Access;
use crate::rpc::server::answer::text;
use crate::rpc::server::keys_v2::{self, Service};
use crate::rpc::server::listen;
use crate::store::{Command, Expect, Outcome, Put};

/// How long a write or a quorum read may take.
const DEADLINE: Duration = Duration::from_secs(7);
/// Members of a cluster whose creator did not say how many.
const SIZE: usize = 3;
/// Bytes of randomness in a token.
const TOKEN_BYTES: usize = 16;

/// How the service is to run.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen.
    pub listen: Address,
    /// What the URLs that are given out begin with, such as `http://10.0.0.1:8087`.
    pub public_url: String,
    /// Where the store inside keeps its data.
    pub data_dir: PathBuf,
}

/// The service ended, and not because it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryServiceError {
    /// The port cannot be opened.
    #[error("cannot listen at {address}; is another program there?")]
    Listen {
        /// The address.
        address: Address,
        /// Why not.
        source: std::io::Error,
    },
    /// The data directory cannot be used.
    #[error("cannot use `{}`; is another process using it?", path.display())]
    DataDir {
        /// The folder.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The store inside cannot be made.
    #[error("cannot make the store inside")]
    Cluster {
        /// Why not.
        source: ClusterError,
    },
    /// The store inside cannot start.
    #[error(transparent)]
    Start(#[from] StartError),
}

#[derive(Debug, Clone)]
struct Registry {
    member: Member,
    keys: Router,
    public_url: String,
    random: Arc<Random>,
}

/// Runs the service until `stop`; `serving` is told the address once it is open.
pub async fn run(
    config: Config,
    seams: Seams,
    serving: impl FnOnce(&Address),
    stop: CancellationToken,
) -> Result<(), DiscoveryServiceError> {
    let data_dir =
        |source| DiscoveryServiceError::DataDir { path: config.data_dir.clone(), source };
    seams.disk.create_folder(&config.data_dir).map_err(data_dir)?;
    let _lock = seams.disk.lock(&config.data_dir.join("lock")).map_err(data_dir)?;
    let address = config.listen.clone();
    let incoming = seams.net.bind(&config.listen).await;
    let incoming = incoming.map_err(|source| DiscoveryServiceError::Listen { address, source })?;
    // One member never speaks to another, so its peer URL is only a name.
    let cluster = Cluster::parse("discovery=http://localhost:1", "discovery");
    let cluster = cluster.map_err(|source| DiscoveryServiceError::Cluster { source })?;
    let id = cluster.named("discovery").unwrap_or_default();
    let member = Member::start(Options::new(id, cluster, config.data_dir), seams.clone()).await?;
    let tasks = Tasks::default();
    let service = Service {
        member: member.clone(),
        clock: seams.clock,
        deadline: DEADLINE,
        access: Access::default(),
        stop: tasks.stopping(),
    };
    let registry = Registry {
        member: member.clone(),
        keys: keys_v2::router(service),
        public_url: config.public_url.trim_end_matches('/').to_owned(),
        random: seams.random,
    };
    serving(&incoming.local());
    listen::serve(incoming, Router::new().fallback(handle).with_state(registry), &tasks);
    stop.cancelled().await;
    let drained = tasks.drain(STOP_GRACE / 2).await;
    let stopped = member.stop(STOP_GRACE / 2).await;
    for late in [drained, stopped].into_iter().filter_map(Result::err) {
        tracing::warn!("{late}");
    }
    Ok(())
}

async fn handle(State(registry): State<Registry>, request: Request<Body>) -> Response {
    match request.uri().path() {
        "/" => text(StatusCode::OK, "Get a URL for a new cluster: /new?size=3\n"),
        "/robots.txt" => text(StatusCode::OK, "User-agent: *\nDisallow: /\n"),
        "/new" => registry.create(request.uri().query().unwrap_or_default()).await,
        "/health" => registry.pass(request, "/health").await,
        path if is_token(path) => {
            let path = format!("/v2/keys/_etcd/registry{path}");
            registry.pass(request, &path).await
        }
        _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}

/// Tells whether a path begins with a token: only those are keys of the registry.
fn is_token(path: &str) -> bool {
    let token = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    token.len() == 2 * TOKEN_BYTES && token.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Reads the size from a query; a bad one is told as the client wrote it.
fn size(query: &str) -> Result<usize, String> {
    let given = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "size");
    let Some((_, given)) = given else { return Ok(SIZE) };
    let parsed = given.parse().ok().filter(|size| (1..=MEMBERS_MAX).contains(size));
    parsed.ok_or_else(|| given.into_owned())
}

impl Registry {
    async fn create(&self, query: &str) -> Response {
        let size = match size(query) {
            Ok(size) => size,
            Err(given) => {
                let said = format!("`size={given}` is not a number from 1 to {MEMBERS_MAX}\n");
                return text(StatusCode::BAD_REQUEST, &said);
            }
        };
        let token = self.random.hex(TOKEN_BYTES);
        let put = Command::Put(Put {
            path: format!("/_etcd/registry/{token}/_config/size"),
            value: size.to_string(),
            dir: false,
            ttl: None,
            expect: Expect::Absent,
            refresh: false,
        });
        let outcomes = self.member.propose(vec![put], DEADLINE).await.unwrap_or_default();
        if let Some(Outcome::Event(_)) = outcomes.first() {
            text(StatusCode::OK, &format!("{}/{token}", self.public_url))
        } else {
            text(StatusCode::BAD_REQUEST, "Unable to generate token\n")
        }
    }

    /// Hands a request to the store under another path.
    async fn pass(&self, mut request: Request<Body>, path: &str) -> Response {
        let query = request.uri().query().map_or_else(String::new, |query| format!("?{query}"));
        let Ok(uri) = format!("{path}{query}").parse::<Uri>() else {
            return text(StatusCode::BAD_REQUEST, "this path cannot be a key\n");
        };
        *request.uri_mut() = uri;
        let mut keys = self.keys.clone();
        match tower_service::Service::call(&mut keys, request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tokens_are_keys_of_the_registry() {
        assert!(is_token("/0123456789abcdef0123456789abcdef"));
        assert!(is_token("/0123456789abcdef0123456789abcdef/_config/size"));
        assert!(!is_token("/v2/keys"));
        assert!(!is_token("/0123"));
    }

    #[test]
    fn a_size_is_that_of_a_cluster() {
        assert_eq!(size(""), Ok(3));
        assert_eq!(size("size=5"), Ok(5));
        for bad in ["0", "10", "x", "-1", ""] {
            assert_eq!(size(&format!("size={bad}")), Err(bad.to_owned()));
        }
    }
}
