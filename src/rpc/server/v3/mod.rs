//! The store's v3 API: etcd's services over gRPC.
//!
//! ```text
//!  gRPC ─▶ check_headers ──▶ kv, lease, watch, cluster, maintenance ─▶ consensus::Member
//!  JSON ─▶ gateway ─▶ the same    └─ refused ─▶ errors: etcd's texts and codes
//! ```
//! Source: the specification B.1 to B.5 and B.10. Writes go through the log from whichever member
//! is asked; a read waits for a round of the leader, unless it is serializable.
//!
//! **Not here yet:** users and roles, elections and locks, changing members, snapshots. Who asks for them is told so.

pub mod alarm;
pub mod cluster;
pub mod errors;
mod gateway;
pub mod kv;
pub mod lease;
pub mod maintenance;
mod objects;
mod unserved;
pub mod watch;
mod watcher;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use futures_util::Stream;
use http::{HeaderValue, Request, header};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tower_service::Service as _;

use crate::consensus::Member;
use crate::foundation::limits::{GRPC_OVERHEAD_BYTES_MAX, REQUEST_BYTES_MAX};
use crate::foundation::random::Random;
use crate::foundation::tasks::Tasks;
use crate::wire::etcd::v3::etcdserverpb as pb;
use crate::wire::etcd::v3::etcdserverpb::auth_server::AuthServer;
use crate::wire::etcd::v3::etcdserverpb::cluster_server::ClusterServer;
use crate::wire::etcd::v3::etcdserverpb::kv_server::KvServer;
use crate::wire::etcd::v3::etcdserverpb::lease_server::LeaseServer;
use crate::wire::etcd::v3::etcdserverpb::maintenance_server::MaintenanceServer;
use crate::wire::etcd::v3::etcdserverpb::watch_server::WatchServer;
use crate::wire::etcd::v3::v3electionpb::election_server::ElectionServer;
use crate::wire::etcd::v3::v3lockpb::lock_server::LockServer;

/// Longest message that is read, in bytes.
const MESSAGE_BYTES_MAX: usize = REQUEST_BYTES_MAX + GRPC_OVERHEAD_BYTES_MAX;

/// The header with which a client asks not to be served by a member without a leader.
const REQUIRE_LEADER: &str = "hasleader";

/// The header in which a client says which version of the API it speaks.
const CLIENT_VERSION: &str = "client-api-version";

/// What the services work with. Clones are the same services.
#[derive(Debug, Clone)]
pub struct Service {
    /// The member that serves.
    pub member: Member,
    /// For the ids of leases.
    pub random: Arc<Random>,
    /// How long a write or a linearizable read may take.
    pub deadline: Duration,
    /// The election timeout: leases live at least one and a half of it.
    pub election: Duration,
    /// Ends streams when the server stops.
    pub stop: CancellationToken,
    /// Who owns the tasks of streams.
    pub tasks: Tasks,
}

/// A stream of answers.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, tonic::Status>> + Send>>;

/// Returns a router that has gRPC answered here, and its JSON, and all else by `rest`.
pub fn beside(service: &Service, rest: Router) -> Router {
    let grpc = router(service);
    Router::new().fallback(move |request: Request<Body>| {
        let (mut grpc, mut rest) = (grpc.clone(), rest.clone());
        async move {
            let Ok(answer) = if is_grpc(&request) {
                grpc.call(request).await
            } else if gateway::serves(request.uri().path()) {
                Ok(gateway::answer(grpc, request).await)
            } else {
                rest.call(request).await
            };
            answer
        }
    })
}

fn is_grpc(request: &Request<Body>) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// Returns the router for gRPC.
fn router(service: &Service) -> Router {
    let one = || service.clone();
    Routes::new(KvServer::new(one()).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(LeaseServer::new(one()).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(WatchServer::new(one()).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(ClusterServer::new(one()).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(MaintenanceServer::new(one()).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(AuthServer::new(one()).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(ElectionServer::new(one()).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(LockServer::new(one()).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .prepare()
        .into_axum_router()
        .layer(middleware::map_response(|answer: Response| {
            std::future::ready(errors::too_large(answer))
        }))
        .layer(middleware::from_fn_with_state(one(), check_headers))
}

async fn check_headers(
    State(service): State<Service>,
    request: Request<Body>,
    next: Next,
) -> Response {
    let version = request.headers().get(CLIENT_VERSION).map(HeaderValue::as_bytes);
    if version.is_some_and(|version| std::str::from_utf8(version).is_err()) {
        return errors::bad_client_version().into_http::<Body>().into_response();
    }
    let required = request.headers().get(REQUIRE_LEADER).is_some_and(|value| value == "true");
    if required && !service.member.is_led() {
        return errors::no_leader().into_http::<Body>().into_response();
    }
    next.run(request).await
}

impl Service {
    /// Makes the header of an answer at a revision of the store.
    #[expect(clippy::unnecessary_wraps, reason = "what messages have it in")]
    fn header(&self, revision: i64) -> Option<pb::ResponseHeader> {
        Some(pb::ResponseHeader {
            cluster_id: self.member.cluster(),
            member_id: self.member.id(),
            revision,
            raft_term: self.member.status().term,
        })
    }

    /// Makes the header of an answer that is about the store as it is now.
    fn header_now(&self) -> Option<pb::ResponseHeader> {
        self.header(self.view().revision())
    }

    fn view(&self) -> crate::store::mvcc::View {
        self.member.read(|machine| machine.keys_v3.view())
    }

    /// Waits until a local read is not stale.
    async fn confirmed(&self) -> Result<(), tonic::Status> {
        self.member.barrier(self.deadline).await.map_err(|_| errors::timed_out())
    }

    /// Waits until there was no leader for so long that a client which requires one is to go
    /// elsewhere. Never, if it does not require one.
    async fn leader_lost(self, required: bool) {
        if !required {
            return std::future::pending().await;
        }
        let mut missed = 0;
        while missed < ELECTIONS_WITHOUT_LEADER {
            tokio::time::sleep(self.election).await;
            missed = if self.member.is_led() { 0 } else { missed + 1 };
        }
    }
}

/// Election timeouts without a leader after which streams that require one end: as etcd.
const ELECTIONS_WITHOUT_LEADER: u32 = 3;

/// Tells whether a client requires a leader.
fn requires_leader(metadata: &tonic::metadata::MetadataMap) -> bool {
    metadata.get(REQUIRE_LEADER).is_some_and(|value| value == "true")
}
