//! Who the members are.

use tonic::{Request, Response, Status};

use crate::rpc::server::v3::{Service, errors};
use crate::wire::etcd::v3::etcdserverpb as pb;
use crate::wire::etcd::v3::etcdserverpb::cluster_server::Cluster;

const CHANGES: &str = "changing the members";

#[tonic::async_trait]
impl Cluster for Service {
    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        if request.into_inner().linearizable {
            self.confirmed().await?;
        }
        let published = self.member.read(|machine| machine.published.clone());
        let member = |(id, peer): (u64, crate::consensus::Peer)| {
            let said = published.get(&id).cloned().unwrap_or_default();
            pb::Member {
                id,
                name: said.name,
                peer_ur_ls: peer.peer_urls,
                client_ur_ls: said.client_urls,
                is_learner: false,
            }
        };
        let members = self.member.members().into_iter().map(member).collect();
        // As etcd: the list is not about a revision of the keys.
        Ok(Response::new(pb::MemberListResponse { header: self.header(0), members }))
    }

    async fn member_add(
        &self,
        _request: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        Err(errors::not_yet(CHANGES))
    }

    async fn member_remove(
        &self,
        _request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        Err(errors::not_yet(CHANGES))
    }

    async fn member_update(
        &self,
        _request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        Err(errors::not_yet(CHANGES))
    }

    async fn member_promote(
        &self,
        _request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        Err(errors::not_yet(CHANGES))
    }
}
