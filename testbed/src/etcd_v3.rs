//! A client of the v3 API, made from the product's own definitions: what tests ask a member with.

use std::future::Future;
use std::net::SocketAddrV4;

use corebox::wire::etcd::v3::etcdserverpb as pb;
use corebox::wire::etcd::v3::etcdserverpb::cluster_client::ClusterClient;
use corebox::wire::etcd::v3::etcdserverpb::kv_client::KvClient;
use corebox::wire::etcd::v3::etcdserverpb::lease_client::LeaseClient;
use corebox::wire::etcd::v3::etcdserverpb::maintenance_client::MaintenanceClient;
use corebox::wire::etcd::v3::etcdserverpb::watch_client::WatchClient;
use corebox::wire::etcd::v3::etcdserverpb::watch_request::RequestUnion;
use futures_util::stream;
use tokio::sync::mpsc;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

use crate::error::LabError;
use crate::etcd::ANSWER;

/// The services of one member.
#[derive(Debug, Clone)]
pub struct Client {
    /// Reading and writing keys.
    pub kv: KvClient<Channel>,
    /// Leases.
    pub lease: LeaseClient<Channel>,
    /// Watches.
    pub watch: WatchClient<Channel>,
    /// The members.
    pub cluster: ClusterClient<Channel>,
    /// How the member fares.
    pub maintenance: MaintenanceClient<Channel>,
}

/// Requests that may wait on a stream of ours.
const REQUESTS_AHEAD: usize = 64;

impl Client {
    /// Makes a client that connects when it is used, again if need be. Within [`run`].
    ///
    /// # Panics
    ///
    /// Never: every address makes a URL.
    pub fn new(member: SocketAddrV4) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{member}"));
        let channel = endpoint.expect("an address is a URL").connect_lazy();
        Self {
            kv: KvClient::new(channel.clone()),
            lease: LeaseClient::new(channel.clone()),
            watch: WatchClient::new(channel.clone()),
            cluster: ClusterClient::new(channel.clone()),
            maintenance: MaintenanceClient::new(channel),
        }
    }

    /// Puts a key and returns the revision.
    pub async fn put(&self, key: &str, value: &str) -> Result<i64, Status> {
        self.put_with(pb::PutRequest { key: key.into(), value: value.into(), ..put() }).await
    }

    /// Puts a key as told and returns the revision.
    pub async fn put_with(&self, request: pb::PutRequest) -> Result<i64, Status> {
        let answer = self.kv.clone().put(request).await?.into_inner();
        Ok(revision(answer.header.as_ref()))
    }

    /// Reads one key, through the majority; an empty text if it is not there.
    pub async fn get(&self, key: &str) -> Result<String, Status> {
        let request = pb::RangeRequest { key: key.into(), ..pb::RangeRequest::default() };
        let answer = self.kv.clone().range(request).await?.into_inner();
        let value = answer.kvs.into_iter().next().map(|kv| kv.value).unwrap_or_default();
        Ok(String::from_utf8_lossy(&value).into_owned())
    }

    /// Opens a stream of watches.
    pub async fn stream(&self) -> Result<WatchStream, Status> {
        self.stream_from(None, &[]).await
    }

    /// Opens a stream of watches with its first request: etcd itself says nothing before that.
    pub async fn stream_with(&self, first: RequestUnion) -> Result<WatchStream, Status> {
        self.stream_from(Some(first), &[]).await
    }

    /// The same for a client that is to be told when its member has no leader any more.
    pub async fn stream_with_leader(&self, first: RequestUnion) -> Result<WatchStream, Status> {
        self.stream_from(Some(first), &[("hasleader", "true")]).await
    }

    async fn stream_from(
        &self,
        first: Option<RequestUnion>,
        headers: &[(&'static str, &'static str)],
    ) -> Result<WatchStream, Status> {
        let (requests, asked) = mpsc::channel(REQUESTS_AHEAD);
        if let Some(first) = first {
            // There is room, and the other end is here.
            requests.send(pb::WatchRequest { request_union: Some(first) }).await.ok();
        }
        let asked = stream::unfold(asked, |mut asked: mpsc::Receiver<_>| async move {
            asked.recv().await.map(|request| (request, asked))
        });
        let mut asked = tonic::Request::new(asked);
        for (name, value) in headers {
            asked.metadata_mut().insert(*name, MetadataValue::from_static(value));
        }
        let answers = self.watch.clone().watch(asked).await?.into_inner();
        Ok(WatchStream { requests, answers })
    }

    /// Watches as told, on a stream of its own.
    pub async fn watch(&self, request: pb::WatchCreateRequest) -> Result<WatchStream, Status> {
        let mut stream = self.stream_with(RequestUnion::CreateRequest(request)).await?;
        let created = stream.next().await?;
        if created.created && !created.canceled {
            Ok(stream)
        } else {
            Err(Status::aborted(created.cancel_reason))
        }
    }
}

/// A stream of watches.
#[derive(Debug)]
pub struct WatchStream {
    requests: mpsc::Sender<pb::WatchRequest>,
    answers: Streaming<pb::WatchResponse>,
}

impl WatchStream {
    /// Asks something.
    pub async fn ask(&self, request: RequestUnion) {
        // Where the stream has ended, the next answer says so.
        self.requests.send(pb::WatchRequest { request_union: Some(request) }).await.ok();
    }

    /// Waits for the next answer.
    pub async fn next(&mut self) -> Result<pb::WatchResponse, Status> {
        let next = tokio::time::timeout(ANSWER, self.answers.message()).await;
        let late = |_| Status::deadline_exceeded("no answer on the watch stream");
        next.map_err(late)??.ok_or_else(|| Status::aborted("the watch stream has ended"))
    }

    /// Waits for `count` events: what happened, the key, the revision.
    pub async fn events(&mut self, count: usize) -> Result<Vec<(bool, String, i64)>, Status> {
        let mut events = Vec::new();
        while events.len() < count {
            for event in self.next().await?.events {
                let put = event.r#type == 0;
                let kv = event.kv.unwrap_or_default();
                let key = String::from_utf8_lossy(&kv.key).into_owned();
                events.push((put, key, kv.mod_revision));
            }
        }
        Ok(events)
    }
}

/// The revision in a header.
pub fn revision(header: Option<&pb::ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}

/// A put of nothing.
#[must_use]
pub fn put() -> pb::PutRequest {
    pb::PutRequest::default()
}

/// The end of the range of all keys that begin with `prefix`, which does not end with 0xff.
#[must_use]
pub fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

/// Runs what a test does with clients.
pub fn run<T>(work: impl Future<Output = T>) -> Result<T, LabError> {
    let failed = |source| LabError::Ask { whom: "tokio for a runtime".to_owned(), source };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(failed)?.block_on(work))
}
