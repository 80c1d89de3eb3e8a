//! What a store on a plain server of gRPC could be at most: the messages of `put` and `range`, and
//! nothing behind them.

use std::net::SocketAddrV4;

use corebox::wire::etcd::v3::etcdserverpb as pb;
use corebox::wire::etcd::v3::etcdserverpb::kv_server::{Kv, KvServer};
use corebox::wire::etcd::v3::mvccpb::KeyValue;
use futures_util::stream::Empty;
use testbed::error::LabError;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::bench::etcd::rows::VALUE_BYTES;
use crate::bench::etcd::unary::{CONNECTION_WINDOW_BYTES, WINDOW_BYTES};

/// Serves at an address until the process is ended.
pub(crate) fn serve(address: SocketAddrV4) -> Result<(), LabError> {
    let failed =
        |source| LabError::Ask { whom: format!("{address} for a port or a runtime"), source };
    let runtime = tokio::runtime::Runtime::new().map_err(failed)?;
    let served = Server::builder()
        .tcp_nodelay(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .add_service(KvServer::new(Nothing))
        .serve(address.into());
    runtime.block_on(served).map_err(|error| failed(std::io::Error::other(error)))
}

/// A store that keeps nothing and answers at once.
struct Nothing;

/// As large as a store's.
#[expect(clippy::unnecessary_wraps, reason = "what messages have it in")]
fn header() -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader {
        cluster_id: u64::MAX,
        member_id: u64::MAX,
        revision: 1_000_000,
        raft_term: 2,
    })
}

#[tonic::async_trait]
impl Kv for Nothing {
    async fn range(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<pb::RangeResponse>, Status> {
        let kv = KeyValue {
            key: request.into_inner().key,
            create_revision: 1_000_000,
            mod_revision: 1_000_000,
            version: 1,
            value: vec![b'x'; VALUE_BYTES],
            lease: 0,
        };
        let answer = pb::RangeResponse { header: header(), kvs: vec![kv], more: false, count: 1 };
        Ok(Response::new(answer))
    }

    type RangeStreamStream = Empty<Result<pb::RangeStreamResponse, Status>>;

    async fn range_stream(
        &self,
        _request: Request<pb::RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        Err(nothing())
    }

    async fn put(
        &self,
        _request: Request<pb::PutRequest>,
    ) -> Result<Response<pb::PutResponse>, Status> {
        Ok(Response::new(pb::PutResponse { header: header(), prev_kv: None }))
    }

    async fn delete_range(
        &self,
        _request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        Err(nothing())
    }

    async fn txn(
        &self,
        _request: Request<pb::TxnRequest>,
    ) -> Result<Response<pb::TxnResponse>, Status> {
        Err(nothing())
    }

    async fn compact(
        &self,
        _request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        Err(nothing())
    }
}

fn nothing() -> Status {
    Status::unimplemented("only puts and gets are compared with the limit")
}
