//! Services whose methods are there and say that what they do is not: a client sees one clear
//! sentence instead of a method that is unknown.

use tonic::{Code, Request, Response, Status};

use crate::rpc::server::v3::{Answers, Service, errors};
use crate::wire::etcd::v3::etcdserverpb as pb;
use crate::wire::etcd::v3::etcdserverpb::auth_server::Auth;
use crate::wire::etcd::v3::v3electionpb as election;
use crate::wire::etcd::v3::v3electionpb::election_server::Election;
use crate::wire::etcd::v3::v3lockpb as lock;
use crate::wire::etcd::v3::v3lockpb::lock_server::Lock;

const USERS: &str = "having users and roles";
const ELECTIONS: &str = "an election held by the server";
const LOCKS: &str = "a lock kept by the server";

#[tonic::async_trait]
impl Auth for Service {
    async fn auth_status(
        &self,
        _request: Request<pb::AuthStatusRequest>,
    ) -> Result<Response<pb::AuthStatusResponse>, Status> {
        let header = self.header_now();
        Ok(Response::new(pb::AuthStatusResponse { header, enabled: false, auth_revision: 1 }))
    }

    async fn authenticate(
        &self,
        _request: Request<pb::AuthenticateRequest>,
    ) -> Result<Response<pb::AuthenticateResponse>, Status> {
        Err(errors::refused(Code::FailedPrecondition, "authentication is not enabled"))
    }

    async fn auth_enable(
        &self,
        _request: Request<pb::AuthEnableRequest>,
    ) -> Result<Response<pb::AuthEnableResponse>, Status> {
        Err(errors::not_yet(USERS))
    }

    async fn auth_disable(
        &self,
        _request: Request<pb::AuthDisableRequest>,
    ) -> Result<Response<pb::AuthDisableResponse>, Status> {
        Err(errors::not_yet(USERS))
    }

    async fn user_add(
        &self,
        _request: Request<pb::AuthUserAddRequest>,
    ) -> Result<Response<pb::AuthUserAddResponse>, Status> {
        Err(errors::not_yet(USERS))
    }

    async fn user_get(
        &self,
        _request: Request<pb::AuthUserGetRequest>,
    ) -> Result<Response<pb::AuthUserGetResponse>, Status> {
        Err(errors::not_yet(USERS))
    }

    async fn user_list(
        &self,
        _request: Request<pb::AuthUserListRequest>,
    ) -> Result<Response<pb::AuthUserListResponse>, Status> {
        Err(errors::not_yet(USERS))
    }

    async fn user_delete(
        &self,
        _request: Request<pb::AuthUserDeleteRequest>,
    ) -> Result<Response<pb::AuthUserDeleteResponse>, Status> {
        Err(errors::not_yet(USERS))
    }

    async fn user_change_password(
        &self,
        _request: Request<pb::AuthUserChangePasswordRequest>,
    ) -> Result<Response<pb::AuthUserChangePasswordResponse>, Status> {
        Err(errors::not_yet(USERS))
    }

    async fn user_grant_role(
        &self,
        _request: Request<pb::AuthUserGrantRoleRequest>,
    ) -> Result<Response<pb::AuthUserGrantRoleResponse>, Status> {
        Err(errors::not_yet(USERS))
    }

    async fn user_revoke_role(
        &self,
        _request: Request<pb::AuthUserRevokeRoleRequest>,
    ) -> Result<Response<pb::AuthUserRevokeRoleResponse>, Status> {
        Err(errors::not_yet(USERS))
    }

    async fn role_add(
        &self,
        _request: Request<pb::AuthRoleAddRequest>,
    ) -> Result<Response<pb::AuthRoleAddResponse>, Status> {
        Err(errors::not_yet(USERS))
    }

    async fn role_get(
        &self,
        _request: Request<pb::AuthRoleGetRequest>,
    ) -> Result<Response<pb::AuthRoleGetResponse>, Status> {
        Err(errors::not_yet(USERS))
    }

    async fn role_list(
        &self,
        _request: Request<pb::AuthRoleListRequest>,
    ) -> Result<Response<pb::AuthRoleListResponse>, Status> {
        Err(errors::not_yet(USERS))
    }

    async fn role_delete(
        &self,
        _request: Request<pb::AuthRoleDeleteRequest>,
    ) -> Result<Response<pb::AuthRoleDeleteResponse>, Status> {
        Err(errors::not_yet(USERS))
    }

    async fn role_grant_permission(
        &self,
        _request: Request<pb::AuthRoleGrantPermissionRequest>,
    ) -> Result<Response<pb::AuthRoleGrantPermissionResponse>, Status> {
        Err(errors::not_yet(USERS))
    }

    async fn role_revoke_permission(
        &self,
        _request: Request<pb::AuthRoleRevokePermissionRequest>,
    ) -> Result<Response<pb::AuthRoleRevokePermissionResponse>, Status> {
        Err(errors::not_yet(USERS))
    }
}

#[tonic::async_trait]
impl Election for Service {
    async fn campaign(
        &self,
        _request: Request<election::CampaignRequest>,
    ) -> Result<Response<election::CampaignResponse>, Status> {
        Err(errors::not_yet(ELECTIONS))
    }

    async fn proclaim(
        &self,
        _request: Request<election::ProclaimRequest>,
    ) -> Result<Response<election::ProclaimResponse>, Status> {
        Err(errors::not_yet(ELECTIONS))
    }

    async fn leader(
        &self,
        _request: Request<election::LeaderRequest>,
    ) -> Result<Response<election::LeaderResponse>, Status> {
        Err(errors::not_yet(ELECTIONS))
    }

    async fn resign(
        &self,
        _request: Request<election::ResignRequest>,
    ) -> Result<Response<election::ResignResponse>, Status> {
        Err(errors::not_yet(ELECTIONS))
    }

    type ObserveStream = Answers<election::LeaderResponse>;

    async fn observe(
        &self,
        _request: Request<election::LeaderRequest>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        Err(errors::not_yet(ELECTIONS))
    }
}

#[tonic::async_trait]
impl Lock for Service {
    async fn lock(
        &self,
        _request: Request<lock::LockRequest>,
    ) -> Result<Response<lock::LockResponse>, Status> {
        Err(errors::not_yet(LOCKS))
    }

    async fn unlock(
        &self,
        _request: Request<lock::UnlockRequest>,
    ) -> Result<Response<lock::UnlockResponse>, Status> {
        Err(errors::not_yet(LOCKS))
    }
}
