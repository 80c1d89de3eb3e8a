//! etcd's v3 API for its clients: gRPC over the network seam, at the first endpoint that answers.
//!
//! ```text
//!   read, write ─▶ the connection at hand, else the first endpoint that takes one ─▶ Services
//!        └─ a read that nobody could serve goes to the next endpoint; a write never does
//! ```
//! A write may have been done by whoever did not answer, so that a second one could do it twice:
//! it goes to another endpoint only where the first took no connection.
//!
//! **Not here:** TLS, users' tokens, a choice by load.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream;
use http::Uri;
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use prost::Message;
use tokio::sync::mpsc;
use tonic::body::Body;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Response, Status, Streaming};
use tower_service::Service;

use crate::foundation::exit::chain;
use crate::foundation::limits::{GRPC_OVERHEAD_BYTES_MAX, REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX};
use crate::foundation::tasks::Tasks;
use crate::platform::net::Net;
use crate::rpc::client::dial;
use crate::rpc::client::url::{Origin, Url};
use crate::rpc::streams::Streams;
use crate::wire::etcd::v3::etcdserverpb as pb;
use crate::wire::etcd::v3::etcdserverpb::cluster_client::ClusterClient;
use crate::wire::etcd::v3::etcdserverpb::kv_client::KvClient;
use crate::wire::etcd::v3::etcdserverpb::lease_client::LeaseClient;
use crate::wire::etcd::v3::etcdserverpb::maintenance_client::MaintenanceClient;
use crate::wire::etcd::v3::etcdserverpb::watch_client::WatchClient;

/// A stream: where requests go to, and where answers come from.
pub type Stream<Q, A> = (mpsc::Sender<Q>, Streaming<A>);

/// Requests on a stream that wait to be sent: whoever asks more waits.
const REQUESTS_AHEAD: usize = 64;

/// Whom to ask, and with how much patience.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Who is asked, in this order.
    pub endpoints: Vec<Url>,
    /// How long one endpoint may take to accept a connection.
    pub dial: Duration,
    /// How long a request may take, whoever answers it.
    pub command: Duration,
    /// How long a connection may be silent before it is asked whether it lives.
    pub silence: Duration,
    /// How long it may take to say so.
    pub sign_of_life: Duration,
    /// Longest request, in bytes.
    pub request_bytes_max: usize,
    /// Longest answer, in bytes.
    pub response_bytes_max: usize,
}

impl Settings {
    /// Asks these, with the patience of etcd's own command line.
    pub fn of(endpoints: Vec<Url>) -> Self {
        Self {
            endpoints,
            dial: Duration::from_secs(2),
            command: Duration::from_secs(5),
            silence: Duration::from_secs(2),
            sign_of_life: Duration::from_secs(6),
            request_bytes_max: REQUEST_BYTES_MAX + GRPC_OVERHEAD_BYTES_MAX,
            response_bytes_max: RESPONSE_BYTES_MAX,
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No endpoint takes a connection.
    #[error("{}", reasons.join("; "))]
    Unreachable {
        /// What went wrong at each, in order.
        reasons: Vec<String>,
    },
    /// The deadline has passed; a write may have been done.
    #[error("context deadline exceeded")]
    Late,
    /// The store, or whoever carries its words, says no.
    #[error("{}", said(status))]
    Refused {
        /// In its words.
        status: Status,
    },
}

/// Shows a refusal as clients of etcd do: its own texts bare, others with their code.
fn said(status: &Status) -> String {
    let (code, text) = (status.code(), status.message());
    if is_the_stores(text) {
        return text.to_owned();
    }
    // The language in which clients match it spells one of them differently.
    let code = if code == Code::Cancelled { "Canceled".to_owned() } else { format!("{code:?}") };
    format!("rpc error: code = {code} desc = {text}")
}

fn is_the_stores(text: &str) -> bool {
    text.starts_with("etcdserver: ") || text.starts_with("corebox: ")
}

/// Tells whether a stream ended because its connection or its server did: the next may go on.
pub fn is_broken(status: &Status) -> bool {
    let lost = matches!(
        status.code(),
        Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled
    );
    lost && (status.code() == Code::Unavailable || !is_the_stores(status.message()))
}

/// A client of a store. Clones share their connection.
#[derive(Debug, Clone)]
pub struct Client {
    net: Arc<dyn Net>,
    tasks: Tasks,
    settings: Settings,
    state: Arc<Mutex<State>>,
}

/// What a client has learned.
#[derive(Debug, Default)]
struct State {
    /// The connection at hand.
    services: Option<Services>,
    /// The endpoint that is asked first.
    first: usize,
}

impl Client {
    /// Makes a client whose connections are tasks of `tasks`.
    pub fn new(net: Arc<dyn Net>, tasks: Tasks, settings: Settings) -> Self {
        Self { net, tasks, settings, state: Arc::default() }
    }

    /// Returns a client of this endpoint alone.
    #[must_use]
    pub fn only(&self, endpoint: &Url) -> Self {
        let settings = Settings { endpoints: vec![endpoint.clone()], ..self.settings.clone() };
        Self { settings, state: Arc::default(), ..self.clone() }
    }

    /// Asks what changes nothing, of one endpoint after the other until one can serve it.
    pub async fn read<T, W>(&self, call: impl Fn(Services) -> W) -> Result<T, ClientError>
    where
        W: Future<Output = Result<Response<T>, Status>>,
    {
        let reads = self.read_somewhere(call);
        tokio::time::timeout(self.settings.command, reads).await.unwrap_or(Err(ClientError::Late))
    }

    async fn read_somewhere<T, W>(&self, call: impl Fn(Services) -> W) -> Result<T, ClientError>
    where
        W: Future<Output = Result<Response<T>, Status>>,
    {
        let mut refused = None;
        let mut reasons = Vec::new();
        for endpoint in &self.in_turn() {
            let services = match self.services_at(endpoint).await {
                Ok(services) => services,
                Err(reason) => {
                    reasons.push(reason);
                    continue;
                }
            };
            match call(services).await {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) if status.code() == Code::Unavailable => {
                    self.forget();
                    refused = Some(status);
                }
                Err(status) => return Err(ClientError::Refused { status }),
            }
        }
        Err(refused
            .map_or(ClientError::Unreachable { reasons }, |status| ClientError::Refused { status }))
    }

    /// Asks for what may change something, of the first endpoint that takes a connection.
    pub async fn write<T, W>(&self, call: impl FnOnce(Services) -> W) -> Result<T, ClientError>
    where
        W: Future<Output = Result<Response<T>, Status>>,
    {
        let asked = async {
            let answer = call(self.services().await?).await;
            answer.map(Response::into_inner).map_err(|status| ClientError::Refused { status })
        };
        tokio::time::timeout(self.settings.command, asked).await.unwrap_or(Err(ClientError::Late))
    }

    /// Refuses a request that is longer than what this client sends, in the words that are known.
    pub fn fits(&self, request: &impl Message) -> Result<(), ClientError> {
        let (bytes, max) = (request.encoded_len(), self.settings.request_bytes_max);
        if bytes <= max {
            return Ok(());
        }
        let text = format!("trying to send message larger than max ({bytes} vs. {max})");
        Err(ClientError::Refused { status: Status::resource_exhausted(text) })
    }

    /// Opens a stream of watches that begins with these requests.
    pub async fn watch(
        &self,
        first: Vec<pb::WatchRequest>,
    ) -> Result<Stream<pb::WatchRequest, pb::WatchResponse>, ClientError> {
        // Some servers answer with nothing at all before they have read a request.
        let (requests, asked) = stream_of(first);
        let mut asked = Request::new(asked);
        // A member that has lost the others would say nothing, and another may go on.
        asked.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        let answers = self.write(|mut services| async move { services.watch.watch(asked).await });
        Ok((requests, answers.await?))
    }

    /// Opens a stream on which leases are kept alive, and asks for this one.
    pub async fn keep_alive(
        &self,
        first: pb::LeaseKeepAliveRequest,
    ) -> Result<Stream<pb::LeaseKeepAliveRequest, pb::LeaseKeepAliveResponse>, ClientError> {
        let (requests, asked) = stream_of(vec![first]);
        let answers =
            self.write(|mut services| async move { services.lease.lease_keep_alive(asked).await });
        Ok((requests, answers.await?))
    }

    /// Gives the connection at hand up, so that the next request begins with the next endpoint.
    pub fn forget(&self) {
        let mut state = self.state();
        if let Some(services) = state.services.take() {
            let at = self.settings.endpoints.iter().position(|endpoint| *endpoint == services.at);
            state.first = at.map_or(0, |at| at + 1);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the endpoints in the order in which they are asked now.
    fn in_turn(&self) -> Vec<Url> {
        let mut endpoints = self.settings.endpoints.clone();
        if !endpoints.is_empty() {
            let first = self.state().first % endpoints.len();
            endpoints.rotate_left(first);
        }
        endpoints
    }

    /// Returns the services of the first endpoint that takes a connection.
    async fn services(&self) -> Result<Services, ClientError> {
        let mut reasons = Vec::new();
        let at_hand = self.state().services.clone().filter(Services::are_reachable);
        if let Some(services) = at_hand {
            return Ok(services);
        }
        for endpoint in &self.in_turn() {
            match self.services_at(endpoint).await {
                Ok(services) => return Ok(services),
                Err(reason) => reasons.push(reason),
            }
        }
        Err(ClientError::Unreachable { reasons })
    }

    async fn services_at(&self, endpoint: &Url) -> Result<Services, String> {
        let at_hand = self.state().services.clone();
        let usable = |services: &Services| services.at == *endpoint && services.are_reachable();
        if let Some(services) = at_hand.filter(usable) {
            return Ok(services);
        }
        let dialed = tokio::time::timeout(self.settings.dial, self.dial(endpoint)).await;
        let late = |_| Err(format!("it took no connection within {:?}", self.settings.dial));
        let services = dialed.unwrap_or_else(late);
        let services = services.map_err(|why| format!("cannot connect to {endpoint}: {why}"))?;
        self.state().services = Some(services.clone());
        Ok(services)
    }

    async fn dial(&self, endpoint: &Url) -> Result<Services, String> {
        let io = dial::reach(self.net.as_ref(), &endpoint.origin).await;
        let io = io.map_err(|error| chain(&error))?;
        let mut builder = http2::Builder::new(Streams(self.tasks.clone()));
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(self.settings.silence)
            .keep_alive_timeout(self.settings.sign_of_life);
        let (requests, connection) =
            builder.handshake(TokioIo::new(io)).await.map_err(|error| chain(&error))?;
        self.tasks.spawn("connection", |stop| async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                // Whoever waits for an answer is told why none comes.
                _ = connection => {}
            }
        });
        Ok(Services::new(endpoint, requests, &self.settings))
    }
}

/// Makes a stream of requests that begins with `first`, and goes on with what is sent.
fn stream_of<T>(first: Vec<T>) -> (mpsc::Sender<T>, impl futures_util::Stream<Item = T>) {
    let (sender, receiver) = mpsc::channel(REQUESTS_AHEAD.max(first.len()));
    for request in first {
        // There is room for all of them, and the receiver is here.
        drop(sender.try_send(request));
    }
    let next = |mut receiver: mpsc::Receiver<T>| async move {
        receiver.recv().await.map(|request| (request, receiver))
    };
    (sender, stream::unfold(receiver, next))
}

/// The services of one member, over one connection.
#[derive(Debug, Clone)]
pub struct Services {
    /// Whose they are.
    pub at: Url,
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
    channel: Channel,
}

impl Services {
    fn new(at: &Url, requests: SendRequest<Body>, settings: &Settings) -> Self {
        let channel = Channel { requests };
        let origin = origin(&at.origin);
        let one = || (channel.clone(), origin.clone());
        let (request, response) = (settings.request_bytes_max, settings.response_bytes_max);
        let kv = KvClient::with_origin(one().0, one().1);
        let watch = WatchClient::with_origin(one().0, one().1);
        Self {
            at: at.clone(),
            kv: kv.max_encoding_message_size(request).max_decoding_message_size(response),
            lease: LeaseClient::with_origin(one().0, one().1).max_decoding_message_size(response),
            watch: watch.max_decoding_message_size(response),
            cluster: ClusterClient::with_origin(one().0, one().1),
            maintenance: MaintenanceClient::with_origin(one().0, one().1),
            channel,
        }
    }

    fn are_reachable(&self) -> bool {
        !self.channel.requests.is_closed()
    }
}

/// What HTTP/2 calls whom it speaks to.
fn origin(origin: &Origin) -> Uri {
    let text = format!("http://{}", origin.host_header());
    text.parse().unwrap_or_else(|_| Uri::from_static("http://localhost"))
}

/// A connection, as generated clients use one.
#[derive(Debug, Clone)]
pub struct Channel {
    requests: SendRequest<Body>,
}

impl Service<http::Request<Body>> for Channel {
    type Response = http::Response<Incoming>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Status>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.requests.poll_ready(cx).map_err(|error| broken(&error))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let answer = self.requests.send_request(request);
        Box::pin(async move { answer.await.map_err(|error| broken(&error)) })
    }
}

fn broken(error: &hyper::Error) -> Status {
    Status::unavailable(format!("connection error: desc = \"{}\"", chain(error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::net::{Address, Io, MemoryNet};

    const NOBODY: &str = "http://10.0.0.9:2379";
    const SILENT: &str = "http://10.0.0.1:2379";

    fn client(net: &MemoryNet, endpoints: &[&str]) -> Client {
        let endpoints = endpoints.iter().map(|text| text.parse().unwrap()).collect();
        Client::new(Arc::new(net.clone()), Tasks::default(), Settings::of(endpoints))
    }

    async fn got(client: &Client) -> ClientError {
        let get = |mut services: Services| async move {
            services.kv.range(pb::RangeRequest::default()).await
        };
        client.read(get).await.unwrap_err()
    }

    #[tokio::test(start_paused = true)]
    async fn where_nobody_listens_each_endpoint_is_named() {
        let error = got(&client(&MemoryNet::default(), &[NOBODY, SILENT])).await;
        assert_eq!(
            error.to_string(),
            "cannot connect to http://10.0.0.9:2379: connection refused; \
             cannot connect to http://10.0.0.1:2379: connection refused",
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_says_nothing_is_given_up_when_the_deadline_has_passed() {
        let net = MemoryNet::default();
        let mut incoming = net.bind(&Address::Tcp(([10, 0, 0, 1], 2379).into())).await.unwrap();
        let held: Arc<Mutex<Vec<Box<dyn Io>>>> = Arc::default();
        let kept = Arc::clone(&held);
        let tasks = Tasks::default();
        tasks.spawn("silence", |_stop| async move {
            while let Ok((io, _)) = incoming.accept().await {
                kept.lock().unwrap().push(io);
            }
        });
        let start = tokio::time::Instant::now();
        let client = client(&net, &[NOBODY, SILENT]);
        assert!(matches!(got(&client).await, ClientError::Late | ClientError::Refused { .. }));
        assert!(start.elapsed() <= Duration::from_secs(5), "{:?}", start.elapsed());
        assert_eq!(held.lock().unwrap().len(), 1, "the second endpoint was asked");
    }

    #[test]
    fn a_request_that_is_too_long_is_not_sent() {
        let client = client(&MemoryNet::default(), &[SILENT]);
        let put = |bytes: usize| pb::PutRequest { value: vec![0; bytes], ..Default::default() };
        assert!(client.fits(&put(2_097_000)).is_ok());
        assert_eq!(
            client.fits(&put(2_097_152)).unwrap_err().to_string(),
            "rpc error: code = ResourceExhausted desc = \
             trying to send message larger than max (2097157 vs. 2097152)",
        );
    }

    #[test]
    fn the_stores_words_are_bare_and_others_have_their_code() {
        let check = |status: Status, expected: &str| assert_eq!(said(&status), expected);
        check(Status::not_found("etcdserver: member not found"), "etcdserver: member not found");
        check(Status::unimplemented("no"), "rpc error: code = Unimplemented desc = no");
        check(Status::cancelled("gone"), "rpc error: code = Canceled desc = gone");
    }

    #[test]
    fn a_stream_is_taken_up_again_unless_the_store_ended_it() {
        for (status, broken) in [
            (Status::unavailable("etcdserver: no leader"), true),
            (Status::unknown("the connection was reset"), true),
            (Status::permission_denied("etcdserver: permission denied"), false),
            (Status::cancelled("etcdserver: watch canceled"), false),
        ] {
            assert_eq!(is_broken(&status), broken, "{status:?}");
        }
    }
}
