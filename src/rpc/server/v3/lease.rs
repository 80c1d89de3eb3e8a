//! Leases. The member that leads counts their time, so it is asked wherever a client asks.

use std::pin::Pin;
use std::time::Duration;

use tonic::{Request, Response, Status, Streaming};

use crate::consensus::LeaseAsk;
use crate::rpc::server::v3::{Answers, Service, errors, requires_leader};
use crate::store::keys_v3::{Answer, Change};
use crate::store::mvcc::lease::granted_ttl;
use crate::wire::etcd::v3::etcdserverpb as pb;
use crate::wire::etcd::v3::etcdserverpb::lease_server::Lease;

/// What stands for the time of a lease that is not there.
const GONE: i64 = -1;

#[tonic::async_trait]
impl Lease for Service {
    async fn lease_grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Result<Response<pb::LeaseGrantResponse>, Status> {
        let asked = request.into_inner();
        let ttl = granted_ttl(asked.ttl, shortest_ttl(self.election));
        let ttl = ttl.map_err(|error| errors::of_store(&error.into()))?;
        let (id, revision) = match asked.id {
            0 => self.grant_new(ttl).await?,
            id => (id, self.grant(id, ttl).await?),
        };
        let header = self.header(revision);
        Ok(Response::new(pb::LeaseGrantResponse { header, id, ttl, error: String::new() }))
    }

    async fn lease_revoke(
        &self,
        request: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        let id = request.into_inner().id;
        let revision = self.done(Change::LeaseRevoke { id }).await?;
        Ok(Response::new(pb::LeaseRevokeResponse { header: self.header(revision) }))
    }

    type LeaseKeepAliveStream = Answers<pb::LeaseKeepAliveResponse>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let lost = self.clone().leader_lost(requires_leader(request.metadata().as_ref()));
        let lost: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(lost);
        let alive = Alive { service: self.clone(), requests: request.into_inner(), lost };
        let answers = futures_util::stream::try_unfold(alive, Alive::next);
        Ok(Response::new(Box::pin(answers)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::LeaseTimeToLiveResponse>, Status> {
        let asked = request.into_inner();
        self.confirmed().await?;
        let view = self.view();
        let lease = view.lease(asked.id);
        let left = match lease {
            Some(_) => self.ask(LeaseAsk::Left(asked.id)).await?,
            None => None,
        };
        let mut answer = pb::LeaseTimeToLiveResponse {
            header: self.header(view.revision()),
            id: asked.id,
            ttl: left.unwrap_or(GONE),
            ..pb::LeaseTimeToLiveResponse::default()
        };
        if let (Some(lease), Some(_)) = (lease, left) {
            answer.granted_ttl = lease.ttl;
            if asked.keys {
                answer.keys = view.lease_keys(asked.id).map(<[u8]>::to_vec).collect();
            }
        }
        Ok(Response::new(answer))
    }

    async fn lease_leases(
        &self,
        _request: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Response<pb::LeaseLeasesResponse>, Status> {
        self.confirmed().await?;
        let view = self.view();
        let leases = view.leases().map(|lease| pb::LeaseStatus { id: lease.id }).collect();
        let header = self.header(view.revision());
        Ok(Response::new(pb::LeaseLeasesResponse { header, leases }))
    }
}

/// A stream on which a client keeps its leases alive.
struct Alive {
    service: Service,
    requests: Streaming<pb::LeaseKeepAliveRequest>,
    lost: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// What comes next on a stream, and the stream.
type Next = Result<Option<(pb::LeaseKeepAliveResponse, Alive)>, Status>;

impl Alive {
    fn next(mut self) -> Pin<Box<dyn Future<Output = Next> + Send>> {
        Box::pin(async move {
            let asked = tokio::select! {
                biased;
                () = self.service.stop.cancelled() => return Err(errors::stopped()),
                () = &mut self.lost => return Err(errors::no_leader()),
                asked = self.requests.message() => asked?,
            };
            let Some(asked) = asked else { return Ok(None) };
            let answer = self.service.keep_alive(asked.id).await?;
            Ok(Some((answer, self)))
        })
    }
}

impl Service {
    /// Grants a lease whose id nobody has yet.
    async fn grant_new(&self, ttl: i64) -> Result<(i64, i64), Status> {
        loop {
            // A positive number, which fits the hexadecimal digits that tools print.
            let id = (self.random.next_u64() >> 1).cast_signed().max(1);
            if self.view().lease(id).is_none() {
                return Ok((id, self.grant(id, ttl).await?));
            }
        }
    }

    async fn grant(&self, id: i64, ttl: i64) -> Result<i64, Status> {
        self.done(Change::LeaseGrant { id, ttl }).await
    }

    async fn done(&self, change: Change) -> Result<i64, Status> {
        match self.change(change).await? {
            Answer::Done { revision } => Ok(revision),
            Answer::Op(_) | Answer::Alarms(_) => Err(errors::no_answer()),
        }
    }

    async fn keep_alive(&self, id: i64) -> Result<pb::LeaseKeepAliveResponse, Status> {
        let ttl = self.ask(LeaseAsk::Renew(id)).await?.unwrap_or(0);
        Ok(pb::LeaseKeepAliveResponse { header: self.header_now(), id, ttl })
    }

    async fn ask(&self, ask: LeaseAsk) -> Result<Option<i64>, Status> {
        self.member.lease(ask, self.deadline).await.map_err(|_| errors::timed_out())
    }
}

/// Returns the seconds that a lease lives at least: one and a half election timeouts, so that it
/// outlives a change of the leader.
fn shortest_ttl(election: Duration) -> i64 {
    let millis = election.as_millis() * 3 / 2;
    i64::try_from(millis.div_ceil(1_000)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_outlives_an_election() {
        assert_eq!(shortest_ttl(Duration::from_secs(1)), 2);
        assert_eq!(shortest_ttl(Duration::from_millis(100)), 1);
        assert_eq!(shortest_ttl(Duration::from_secs(5)), 8);
    }
}
