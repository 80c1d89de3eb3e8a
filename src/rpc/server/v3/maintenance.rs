//! How a member fares, and what an operator does with it.

use tonic::{Code, Request, Response, Status};

use crate::consensus::MoveError;
use crate::foundation::tasks;
use crate::rpc::server::keys_v2::{CLUSTER_VERSION, SERVER_VERSION};
use crate::rpc::server::v3::{Answers, Service, alarm, errors};
use crate::store::keys_v3::cost::LEASE_BYTES;
use crate::store::keys_v3::{Change, Raised};
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
        let no_leader = (!self.member.is_led()).then(|| "etcdserver: no leader".to_owned());
        let alarms = self.alarms().into_iter().map(alarm::shown);
        let leases = view.leases_count() as u64 * LEASE_BYTES;
        Ok(Response::new(pb::StatusResponse {
            header: self.header(view.revision()),
            version: SERVER_VERSION.to_owned(),
            db_size: size(usage.total_bytes + leases),
            db_size_in_use: size(usage.live_bytes + leases),
            db_size_quota: self.member.space().quota_bytes.map_or(0, size),
            leader: status.leader.unwrap_or(0),
            raft_index: status.committed,
            raft_term: status.term,
            raft_applied_index: status.applied,
            // As a member of 3.6 says that keeps what one of 3.5 reads.
            storage_version: CLUSTER_VERSION.to_owned(),
            downgrade_info: Some(pb::DowngradeInfo::default()),
            errors: no_leader.into_iter().chain(alarms).collect(),
            ..pb::StatusResponse::default()
        }))
    }

    async fn alarm(
        &self,
        request: Request<pb::AlarmRequest>,
    ) -> Result<Response<pb::AlarmResponse>, Status> {
        let asked = request.into_inner();
        let raised =
            alarm::read(asked.alarm)?.map(|alarm| Raised { alarm, member: asked.member_id });
        let action = AlarmAction::try_from(asked.action);
        let action = action.map_err(|_| {
            errors::said(Code::InvalidArgument, "there is no such action on an alarm")
        })?;
        let found = match (action, raised) {
            (AlarmAction::Get, _) => {
                self.confirmed().await?;
                let wanted =
                    |raised: &Raised| asked.alarm == 0 || asked.alarm == alarm::wire(raised.alarm);
                self.alarms().into_iter().filter(wanted).collect()
            }
            (AlarmAction::Activate, Some(raised)) => {
                self.alarmed(Change::RaiseAlarm(raised)).await?
            }
            (AlarmAction::Deactivate, Some(raised)) => {
                self.alarmed(Change::ClearAlarm(raised)).await?
            }
            // As etcd: none is raised or taken back.
            (AlarmAction::Activate | AlarmAction::Deactivate, None) => Vec::new(),
        };
        let alarms = found.into_iter().map(alarm::member).collect();
        Ok(Response::new(pb::AlarmResponse { header: self.header_now(), alarms }))
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
        let append = |hash, chunk: Vec<u8>| crc32c::crc32c_append(hash, &chunk);
        let hash = tasks::blocking(move || Checkpoint::new(view).fold(0, append)).await;
        Ok(Response::new(pb::HashResponse { header, hash }))
    }

    async fn hash_kv(
        &self,
        request: Request<pb::HashKvRequest>,
    ) -> Result<Response<pb::HashKvResponse>, Status> {
        let (view, asked) = (self.view(), request.into_inner());
        let header = self.header(view.revision());
        // All keys are looked at.
        let hashed = tasks::blocking(move || view.hash_keys(asked.revision)).await;
        let hashed = hashed.map_err(|error| errors::of_store(&error.into()))?;
        Ok(Response::new(pb::HashKvResponse {
            header,
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
