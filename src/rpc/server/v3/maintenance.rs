//! How a member fares, and what an operator does with it.

use tonic::{Code, Request, Response, Status};

use crate::consensus::MoveError;
use crate::rpc::server::keys_v2::SERVER_VERSION;
use crate::rpc::server::v3::{Answers, Service, errors};
use crate::store::mvcc::Checkpoint;
use crate::wire::etcd::v3::etcdserverpb as pb;
use crate::wire::etcd::v3::etcdserverpb::alarm_request::AlarmAction;
use crate::wire::etcd::v3::etcdserverpb::maintenance_server::Maintenance;

#[tonic::async_trait]
impl Maintenance for Service {
    async fn status(
        &self,
        _request: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        let status = self.member.status();
        let view = self.view();
        let usage = view.usage();
        let size = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let mut errors = Vec::new();
        if !self.member.is_led() {
            errors.push("etcdserver: no leader".to_owned());
        }
        Ok(Response::new(pb::StatusResponse {
            header: self.header(view.revision()),
            version: SERVER_VERSION.to_owned(),
            db_size: size(usage.total_bytes),
            db_size_in_use: size(usage.live_bytes),
            leader: status.leader.unwrap_or(0),
            raft_index: status.committed,
            raft_term: status.term,
            raft_applied_index: status.applied,
            errors,
            ..pb::StatusResponse::default()
        }))
    }

    /// Lists the alarms. None can be raised yet, so there is none, and taking one back is done.
    async fn alarm(
        &self,
        request: Request<pb::AlarmRequest>,
    ) -> Result<Response<pb::AlarmResponse>, Status> {
        match AlarmAction::try_from(request.into_inner().action) {
            Ok(AlarmAction::Get | AlarmAction::Deactivate) => {}
            Ok(AlarmAction::Activate) | Err(_) => return Err(errors::not_yet("raising an alarm")),
        }
        let header = self.header_now();
        Ok(Response::new(pb::AlarmResponse { header, alarms: Vec::new() }))
    }

    /// Does nothing: memory is given back as history is compacted, and checkpoints have no holes.
    async fn defragment(
        &self,
        _request: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, Status> {
        Ok(Response::new(pb::DefragmentResponse { header: self.header_now() }))
    }

    async fn hash(
        &self,
        _request: Request<pb::HashRequest>,
    ) -> Result<Response<pb::HashResponse>, Status> {
        let view = self.view();
        let header = self.header(view.revision());
        let hash = Checkpoint::new(view).fold(0, |hash, chunk| crc32c::crc32c_append(hash, &chunk));
        Ok(Response::new(pb::HashResponse { header, hash }))
    }

    async fn hash_kv(
        &self,
        request: Request<pb::HashKvRequest>,
    ) -> Result<Response<pb::HashKvResponse>, Status> {
        let view = self.view();
        let hashed = view.hash_keys(request.into_inner().revision);
        let hashed = hashed.map_err(|error| errors::of_store(&error.into()))?;
        Ok(Response::new(pb::HashKvResponse {
            header: self.header(view.revision()),
            hash: hashed.hash,
            compact_revision: hashed.compact_revision,
            hash_revision: hashed.hash_revision,
        }))
    }

    type SnapshotStream = Answers<pb::SnapshotResponse>;

    async fn snapshot(
        &self,
        _request: Request<pb::SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        Err(errors::not_yet("a snapshot in the format of etcd"))
    }

    async fn move_leader(
        &self,
        request: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        let moved = self.member.move_leader(request.into_inner().target_id, self.deadline).await;
        moved.map_err(|error| match error {
            MoveError::NotLeader => errors::refused(Code::FailedPrecondition, "not leader"),
            MoveError::NoVoter => {
                errors::refused(Code::FailedPrecondition, "bad leader transferee")
            }
            MoveError::Late => errors::timed_out(),
            MoveError::Library { why } => Status::unknown(why),
        })?;
        Ok(Response::new(pb::MoveLeaderResponse { header: self.header_now() }))
    }

    async fn downgrade(
        &self,
        _request: Request<pb::DowngradeRequest>,
    ) -> Result<Response<pb::DowngradeResponse>, Status> {
        Err(errors::not_yet("a downgrade of a running cluster"))
    }
}
