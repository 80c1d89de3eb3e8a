//! The store's v3 API: etcd's services over gRPC.
//!
//! ```text
//!  gRPC ─▶ calls ─────────▶ kv, lease, watch, cluster, maintenance ─▶ consensus::Member
//!  JSON ─▶ gateway ─▶ calls        └─ refused ─▶ errors: etcd's texts and codes
//! ```
//! Source: the specification B.1 to B.5 and B.10. Writes go through the log from whichever member
//! is asked; a read waits for a round of the leader, unless it is serializable.
//!
//! **Not here yet:** users and roles, elections and locks, changing members, snapshots. Who asks
//! for them is told so.

pub mod alarm;
mod calls;
pub mod cluster;
pub mod errors;
mod frames;
mod gateway;
pub mod kv;
pub mod lease;
pub mod listed;
pub mod maintenance;
mod objects;
mod unserved;
pub mod watch;
mod watcher;
mod whole;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::response::Response;
use futures_util::Stream;
use http::{HeaderMap, Request, header};
use tokio_util::sync::CancellationToken;
use tonic::codegen::StdError;

use crate::consensus::Member;
use crate::foundation::limits::{GRPC_OVERHEAD_BYTES_MAX, REQUEST_BYTES_MAX};
use crate::foundation::random::Random;
use crate::rpc::server::keys_v2;
use crate::rpc::server::v3::calls::{Answered, Calls};
use crate::rpc::server::v3::listed::Readers;
use crate::wire::etcd::v3::etcdserverpb as pb;

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
    /// The long answers that are being sent; somebody has to watch them.
    pub readers: Arc<Readers>,
}

/// A stream of answers.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, tonic::Status>> + Send>>;

/// What a client port answers: gRPC, its JSON and the keys of v2 here, since a router in between costs
/// as much as a read does; and all else by a router. Clones are the same.
#[derive(Debug, Clone)]
pub struct Beside {
    grpc: Calls,
    keys: Arc<keys_v2::Service>,
    rest: Router,
}

impl Beside {
    /// Puts the services beside what else is served.
    pub fn new(service: Arc<Service>, rest: keys_v2::Service) -> Self {
        let keys = Arc::new(rest.clone());
        Self { grpc: Calls::new(service), keys, rest: keys_v2::router(rest) }
    }
}

impl<B> tower_service::Service<Request<B>> for Beside
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Answered;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Answered {
        if is_grpc(&request) {
            return self.grpc.call(request);
        }
        if keys_v2::is_about_keys(&request) {
            if let Some(answer) = self.keys.answer_at_once(&request) {
                return Box::pin(std::future::ready(Ok(answer)));
            }
            let keys = self.keys.clone();
            let request = request.map(Body::new);
            return Box::pin(async move { Ok(keys.answer(request).await) });
        }
        let request = request.map(Body::new);
        if gateway::serves(request.uri().path()) {
            let grpc = self.grpc.clone();
            return Box::pin(async move { Ok(gateway::answer(grpc, request).await) });
        }
        let mut rest = self.rest.clone();
        Box::pin(async move { rest.call(request).await })
    }
}

fn is_grpc<B>(request: &Request<B>) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

impl Service {
    /// Makes the header of an answer at a revision of the store.
    #[expect(clippy::unnecessary_wraps, reason = "what messages have it in")]
    fn header(&self, revision: i64) -> Option<pb::ResponseHeader> {
        Some(pb::ResponseHeader {
            cluster_id: self.member.cluster(),
            member_id: self.member.id(),
            revision,
            raft_term: self.member.term(),
        })
    }

    /// Makes the header of an answer that is about the store as it is now.
    fn header_now(&self) -> Option<pb::ResponseHeader> {
        self.header(self.member.read(|machine| machine.keys_v3.now().revision()))
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
fn requires_leader(headers: &HeaderMap) -> bool {
    headers.get(REQUIRE_LEADER).is_some_and(|value| value == "true")
}
