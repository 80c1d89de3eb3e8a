//! Which service answers a call of gRPC: by the first part of its path.
//!
//! Written out, since a router in between costs as much as a read of a key does.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::response::Response;
use http::{HeaderValue, Request};
use http_body::Body as HttpBody;
use tonic::codec::{Codec, EncodeBuf, Encoder};
use tonic::codegen::{BoxFuture, StdError};
use tonic::server::{Grpc, UnaryService};
use tonic::{Code, Status};
use tonic_prost::ProstDecoder;
use tower_service::Service as _;

use crate::rpc::server::v3::listed::Listed;
use crate::rpc::server::v3::whole::Whole;
use crate::rpc::server::v3::{CLIENT_VERSION, MESSAGE_BYTES_MAX, Service, errors, requires_leader};
use crate::wire::etcd::v3::etcdserverpb as pb;
use crate::wire::etcd::v3::etcdserverpb::auth_server::AuthServer;
use crate::wire::etcd::v3::etcdserverpb::cluster_server::ClusterServer;
use crate::wire::etcd::v3::etcdserverpb::kv_server::KvServer;
use crate::wire::etcd::v3::etcdserverpb::lease_server::LeaseServer;
use crate::wire::etcd::v3::etcdserverpb::maintenance_server::MaintenanceServer;
use crate::wire::etcd::v3::v3electionpb::election_server::ElectionServer;
use crate::wire::etcd::v3::v3lockpb::lock_server::LockServer;

/// The method whose answers are long, and are sent as the store keeps them.
const RANGE: &str = "/etcdserverpb.KV/Range";
/// The method whose answers are many, and are sent as they are made.
const WATCH: &str = "/etcdserverpb.Watch/Watch";

/// All services. Clones are the same ones.
#[derive(Debug, Clone)]
pub(super) struct Calls {
    service: Arc<Service>,
}

/// What comes of a call; it never fails, since a failure is an answer too.
pub(super) type Answered = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

impl Calls {
    pub(super) fn new(service: Arc<Service>) -> Self {
        Self { service }
    }

    /// Answers a call.
    pub(super) fn call<B>(&self, request: Request<B>) -> Answered
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<StdError> + Send + 'static,
    {
        let version = request.headers().get(CLIENT_VERSION).map(HeaderValue::as_bytes);
        if version.is_some_and(|version| std::str::from_utf8(version).is_err()) {
            return Box::pin(std::future::ready(Ok(errors::bad_client_version().into_http())));
        }
        if requires_leader(request.headers()) && !self.service.member.is_led() {
            return Box::pin(std::future::ready(Ok(errors::no_leader().into_http())));
        }
        let answered = self.route(request.map(Whole::new));
        Box::pin(async move {
            let Ok(answer) = answered.await;
            Ok(errors::too_large(answer.map(Body::new)))
        })
    }

    /// Hands a call to its service.
    fn route<B>(
        &self,
        request: Request<B>,
    ) -> BoxFuture<http::Response<tonic::body::Body>, Infallible>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<StdError> + Send + 'static,
    {
        macro_rules! by {
            ($server:ident) => {
                $server::from_arc(self.service.clone())
                    .max_decoding_message_size(MESSAGE_BYTES_MAX)
                    .call(request)
            };
        }
        let path = request.uri().path();
        if path == RANGE {
            let method = Range(self.service.clone());
            return Box::pin(async move {
                let mut grpc =
                    Grpc::new(Asked).apply_max_message_size_config(Some(MESSAGE_BYTES_MAX), None);
                let mut answer = grpc.unary(method, request).await;
                Ok(match answer.extensions_mut().remove::<Listed>() {
                    Some(listed) => answer.map(|_nothing| tonic::body::Body::new(listed)),
                    None => answer,
                })
            });
        }
        if path == WATCH {
            let service = self.service.clone();
            return Box::pin(async move { Ok(service.watch(request).await) });
        }
        match path.rsplit_once('/').map(|(service, _)| service) {
            Some("/etcdserverpb.KV") => by!(KvServer),
            Some("/etcdserverpb.Lease") => by!(LeaseServer),
            Some("/etcdserverpb.Cluster") => by!(ClusterServer),
            Some("/etcdserverpb.Maintenance") => by!(MaintenanceServer),
            Some("/etcdserverpb.Auth") => by!(AuthServer),
            Some("/v3electionpb.Election") => by!(ElectionServer),
            Some("/v3lockpb.Lock") => by!(LockServer),
            Some(_) | None => {
                let text = format!("no service has the method {path}");
                let answer = Status::new(Code::Unimplemented, text).into_http();
                Box::pin(std::future::ready(Ok(answer)))
            }
        }
    }
}

/// The method `Range`. Its answers may be megabytes, which the library would copy once more: it is
/// given nothing to encode, and the answer beside it.
struct Range(Arc<Service>);

impl UnaryService<pb::RangeRequest> for Range {
    type Response = ();
    type Future = BoxFuture<tonic::Response<()>, Status>;

    fn call(&mut self, request: tonic::Request<pb::RangeRequest>) -> Self::Future {
        let service = self.0.clone();
        Box::pin(async move {
            let listed = service.read_range(&request.into_inner()).await?;
            let mut answer = tonic::Response::new(());
            answer.extensions_mut().insert(listed);
            Ok(answer)
        })
    }
}

/// Reads requests of `Range`, and writes nothing.
struct Asked;

impl Codec for Asked {
    type Encode = ();
    type Decode = pb::RangeRequest;
    type Encoder = Self;
    type Decoder = ProstDecoder<pb::RangeRequest>;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::default()
    }
}

impl Encoder for Asked {
    type Item = ();
    type Error = Status;

    fn encode(&mut self, (): (), _to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        Ok(())
    }
}
