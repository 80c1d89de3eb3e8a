//! HTTP/1.1 over the network seam: one call at a time on a connection, idle ones kept.
//!
//! ```text
//!   call ─▶ idle connection of that origin, else a new one ─▶ request, answer ─▶ idle again
//! ```
//! Nothing runs in the background: a connection moves only while somebody waits for its answer,
//! so that a client has no tasks to stop and a simulation tells the same story twice.
//!
//! A call that did not end well takes its connection with it. A request that an idle connection
//! no longer took is sent on a new one; one that may have arrived is sent again only if it reads.
//!
//! **Not here:** TLS, redirects, proxies, a choice between several endpoints.

use std::collections::BTreeMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use crate::foundation::limits::{CONNECT_DEADLINE, RESPONSE_BYTES_MAX};
use crate::platform::net::{Io, Net};
use crate::rpc::client::dial;
use crate::rpc::client::url::Origin;

/// Idle connections kept for one origin: an agent has a few calls at a time beside its watches.
const IDLE_CONNECTIONS_MAX: usize = 4;
/// How long a connection may idle: shorter than the minutes after which routers forget it.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// What to ask.
#[derive(Debug, Clone)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The path and the query, `/` first, already encoded.
    pub target: String,
    /// Headers beside `Host` and `Content-Length`.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: Bytes,
    /// How long all of it may take; [`HttpClient::open`] counts to the answer's head only.
    pub deadline: Option<Duration>,
}

impl Request {
    /// Makes a request without a body and without a deadline.
    pub fn new(method: Method, target: impl Into<String>) -> Self {
        let target = target.into();
        Self { method, target, headers: Vec::new(), body: Bytes::new(), deadline: None }
    }

    /// Asks for `target`.
    pub fn get(target: impl Into<String>) -> Self {
        Self::new(Method::GET, target)
    }

    /// Gives up after `deadline`.
    #[must_use]
    pub fn within(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Sends `body` as `content_type`.
    #[must_use]
    pub fn with_body(self, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let mut with =
            self.with(http::header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        with.body = body.into();
        with
    }

    /// Adds a header.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    fn to_hyper(&self, origin: &Origin) -> Result<http::Request<Full<Bytes>>, http::Error> {
        let builder = http::Request::builder()
            .method(self.method.clone())
            .uri(&self.target)
            .header(http::header::HOST, origin.host_header());
        let builder = self
            .headers
            .iter()
            .fold(builder, |builder, (name, value)| builder.header(name.clone(), value.clone()));
        builder.body(Full::new(self.body.clone()))
    }
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, at most [`RESPONSE_BYTES_MAX`].
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Nothing was sent.
    #[error("cannot connect to {origin}")]
    Connect {
        /// Where to.
        origin: Origin,
        /// Why.
        source: io::Error,
    },
    /// The request is none that HTTP can carry; nothing was sent.
    #[error("cannot ask {origin}")]
    Malformed {
        /// Whom.
        origin: Origin,
        /// Why.
        source: http::Error,
    },
    /// It was sent, perhaps in part; whether it was done is unknown.
    #[error("no answer from {origin}")]
    NoAnswer {
        /// From where.
        origin: Origin,
        /// Why.
        source: io::Error,
    },
}

impl HttpError {
    /// Tells whether the server cannot have seen the request.
    pub const fn nothing_was_done(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::Malformed { .. })
    }
}

/// A client of any number of servers. Clones share their idle connections.
#[derive(Debug, Clone)]
pub struct HttpClient {
    net: Arc<dyn Net>,
    idle: Arc<Mutex<BTreeMap<Origin, Vec<Idle>>>>,
}

impl HttpClient {
    /// Makes a client on `net`.
    pub fn new(net: Arc<dyn Net>) -> Self {
        Self { net, idle: Arc::default() }
    }

    /// Asks, and reads the whole answer.
    pub async fn call(&self, origin: &Origin, request: Request) -> Result<Response, HttpError> {
        let until = request.deadline.map(|deadline| Instant::now() + deadline);
        let mut streaming = self.open(origin, request).await?;
        let body = within(until, streaming.read_all(RESPONSE_BYTES_MAX)).await;
        let body = body.and_then(|read| read).map_err(|source| streaming.no_answer(source))?;
        Ok(Response { status: streaming.status, headers: streaming.headers, body })
    }

    /// Asks, and returns as soon as the answer's head is there.
    pub async fn open(&self, origin: &Origin, request: Request) -> Result<Streaming, HttpError> {
        let until = request.deadline.map(|deadline| Instant::now() + deadline);
        let mut tries = 0;
        loop {
            let idle = if tries == 0 { self.take_idle(origin).await } else { None };
            let reused = idle.is_some();
            let connection = match idle {
                Some(connection) => connection,
                None => self.connect(origin, until).await?,
            };
            tries += 1;
            match self.send(connection, origin, &request, until).await {
                Err(Unsent::Rejected | Unsent::Broken(_)) if reused && request.method.is_safe() => {
                }
                Err(Unsent::Rejected) if reused => {}
                Err(Unsent::Rejected) => {
                    let source = io::ErrorKind::ConnectionReset.into();
                    return Err(HttpError::Connect { origin: origin.clone(), source });
                }
                Err(Unsent::Broken(source) | Unsent::Late(source)) => {
                    return Err(HttpError::NoAnswer { origin: origin.clone(), source });
                }
                Err(Unsent::Malformed(source)) => {
                    return Err(HttpError::Malformed { origin: origin.clone(), source });
                }
                Ok(streaming) => return Ok(streaming),
            }
        }
    }

    async fn send(
        &self,
        mut connection: Connection,
        origin: &Origin,
        request: &Request,
        until: Option<Instant>,
    ) -> Result<Streaming, Unsent> {
        let request = request.to_hyper(origin).map_err(Unsent::Malformed)?;
        let answer = connection.sender.try_send_request(request);
        let answer = within(until, drive(&mut connection.driver, answer)).await;
        match answer.map_err(Unsent::Late)? {
            Ok(answer) => {
                let (head, body) = answer.into_parts();
                Ok(Streaming {
                    status: head.status,
                    headers: head.headers,
                    body,
                    origin: origin.clone(),
                    connection: Some(connection),
                    home: self.clone(),
                })
            }
            Err(mut failed) => Err(match failed.take_message() {
                Some(_untouched) => Unsent::Rejected,
                None => Unsent::Broken(io::Error::other(failed.into_error())),
            }),
        }
    }

    async fn connect(
        &self,
        origin: &Origin,
        until: Option<Instant>,
    ) -> Result<Connection, HttpError> {
        let latest = Instant::now() + CONNECT_DEADLINE;
        let until = until.map_or(latest, |until| until.min(latest));
        let connected = within(Some(until), self.reach(origin)).await;
        connected
            .and_then(|connected| connected)
            .map_err(|source| HttpError::Connect { origin: origin.clone(), source })
    }

    async fn reach(&self, origin: &Origin) -> io::Result<Connection> {
        let io = dial::reach(self.net.as_ref(), origin).await?;
        let (sender, driver) =
            http1::handshake(TokioIo::new(io)).await.map_err(io::Error::other)?;
        let mut connection = Connection { sender, driver: Some(Box::pin(driver)) };
        let Connection { sender, driver } = &mut connection;
        drive(driver, sender.ready()).await.map_err(io::Error::other)?;
        Ok(connection)
    }

    /// Takes an idle connection that still seems to be one.
    async fn take_idle(&self, origin: &Origin) -> Option<Connection> {
        let now = Instant::now();
        loop {
            let Idle { mut connection, since } = self.idle().get_mut(origin)?.pop()?;
            if now.duration_since(since) < IDLE_MAX && connection.is_usable().await {
                return Some(connection);
            }
        }
    }

    fn put_idle(&self, origin: Origin, connection: Connection) {
        let mut idle = self.idle();
        let of_origin = idle.entry(origin).or_default();
        of_origin.push(Idle { connection, since: Instant::now() });
        if of_origin.len() > IDLE_CONNECTIONS_MAX {
            of_origin.remove(0);
        }
    }

    fn idle(&self) -> MutexGuard<'_, BTreeMap<Origin, Vec<Idle>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer whose body is still to come.
pub struct Streaming {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    body: Incoming,
    origin: Origin,
    /// Missing once the body has ended or broken.
    connection: Option<Connection>,
    home: HttpClient,
}

impl fmt::Debug for Streaming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streaming").field("status", &self.status).finish_non_exhaustive()
    }
}

impl Streaming {
    /// Waits for the next piece of the body; `None` is its end. Cancel safe.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, HttpError> {
        self.read().await.map_err(|source| self.no_answer(source))
    }

    /// Waits for the rest of the body, which must not be longer than `bytes_max`.
    pub async fn rest(&mut self, bytes_max: usize) -> Result<Bytes, HttpError> {
        self.read_all(bytes_max).await.map_err(|source| self.no_answer(source))
    }

    fn no_answer(&self, source: io::Error) -> HttpError {
        HttpError::NoAnswer { origin: self.origin.clone(), source }
    }

    async fn read_all(&mut self, bytes_max: usize) -> io::Result<Bytes> {
        let mut all = BytesMut::new();
        while let Some(chunk) = self.read().await? {
            if all.len() + chunk.len() > bytes_max {
                self.connection = None;
                let why = format!("the answer is longer than {bytes_max} bytes");
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
            }
            all.extend_from_slice(&chunk);
        }
        Ok(all.freeze())
    }

    async fn read(&mut self) -> io::Result<Option<Bytes>> {
        while let Some(connection) = &mut self.connection {
            match drive(&mut connection.driver, self.body.frame()).await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Some(Err(error)) => {
                    self.connection = None;
                    return Err(io::Error::other(error));
                }
                None => self.finish().await,
            }
        }
        Ok(None)
    }

    async fn finish(&mut self) {
        if let Some(mut connection) = self.connection.take()
            && connection.is_usable().await
        {
            self.home.put_idle(self.origin.clone(), connection);
        }
    }
}

/// How a request fared that got no answer.
enum Unsent {
    /// The connection did not take it.
    Rejected,
    /// The connection broke after it had taken it.
    Broken(io::Error),
    /// The deadline passed.
    Late(io::Error),
    /// It was no request.
    Malformed(http::Error),
}

type Driver = Pin<Box<http1::Connection<TokioIo<Box<dyn Io>>, Full<Bytes>>>>;

/// A connection, and what moves it: missing once it has ended.
struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    driver: Option<Driver>,
}

impl Connection {
    /// Looks once, without waiting, whether another request could go out.
    async fn is_usable(&mut self) -> bool {
        drive(&mut self.driver, std::future::ready(())).await;
        self.driver.is_some() && self.sender.is_ready()
    }
}

struct Idle {
    connection: Connection,
    since: Instant,
}

impl fmt::Debug for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Idle").field("since", &self.since).finish_non_exhaustive()
    }
}

/// Waits for `work` while the connection moves.
async fn drive<T>(driver: &mut Option<Driver>, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(|context| {
        if let Some(moving) = driver
            && moving.as_mut().poll(context).is_ready()
        {
            // How it ended is told to whoever waits for an answer.
            *driver = None;
        }
        work.as_mut().poll(context)
    })
    .await
}

async fn within<T>(until: Option<Instant>, work: impl Future<Output = T>) -> io::Result<T> {
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the deadline passed");
    match until {
        Some(until) => tokio::time::timeout_at(until, work).await.map_err(late),
        None => Ok(work.await),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::foundation::tasks::Tasks;
    use crate::platform::net::MemoryNet;
    use crate::rpc::client::scripted::{Reply, Scripted, origin};

    const SECOND: Duration = Duration::from_secs(1);

    async fn server(replies: Vec<Reply>) -> (HttpClient, Scripted, Tasks) {
        let (net, tasks) = (MemoryNet::default(), Tasks::default());
        let server = Scripted::start(&net, &origin(), &tasks, replies).await;
        (HttpClient::new(Arc::new(net)), server, tasks)
    }

    #[tokio::test(start_paused = true)]
    async fn calls_one_after_another_share_a_connection() {
        let (client, server, _tasks) = server(vec![Reply::ok("a"), Reply::ok("b")]).await;
        for expected in ["a", "b"] {
            let request = Request::get("/x").within(SECOND);
            let response = client.call(&origin(), request).await.unwrap();
            assert_eq!((response.status.as_u16(), &response.body[..]), (200, expected.as_bytes()));
        }
        assert_eq!(server.connections(), 1);
        assert!(server.requests()[0].starts_with("GET /x HTTP/1.1\r\nhost: 10.0.0.1:2379\r\n"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_is_asked_again_where_an_idle_connection_turns_out_dead() {
        let replies = vec![Reply::ok("a"), Reply::Cut, Reply::ok("b")];
        let (client, server, _tasks) = server(replies).await;
        client.call(&origin(), Request::get("/").within(SECOND)).await.unwrap();
        let second = client.call(&origin(), Request::get("/").within(SECOND)).await.unwrap();
        assert_eq!((&second.body[..], server.connections()), (&b"b"[..], 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_may_have_arrived_is_not_sent_again() {
        let replies = vec![Reply::ok("a"), Reply::Cut, Reply::ok("b")];
        let (client, server, _tasks) = server(replies).await;
        client.call(&origin(), Request::get("/").within(SECOND)).await.unwrap();
        let put = Request::new(Method::PUT, "/").with_body("text/plain", "x").within(SECOND);
        let failed = client.call(&origin(), put).await.unwrap_err();
        assert!(matches!(failed, HttpError::NoAnswer { .. }), "{failed:?}");
        assert_eq!(server.requests().len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_goes_out_on_a_new_connection_where_the_idle_one_was_closed() {
        let (client, server, _tasks) = server(vec![Reply::last("a"), Reply::ok("b")]).await;
        client.call(&origin(), Request::get("/").within(SECOND)).await.unwrap();
        let put = Request::new(Method::PUT, "/").with_body("text/plain", "x").within(SECOND);
        let second = client.call(&origin(), put).await.unwrap();
        assert_eq!((&second.body[..], server.connections()), (&b"b"[..], 2));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_never_comes_ends_at_the_deadline_and_its_connection_is_gone() {
        let (client, server, _tasks) = server(vec![Reply::Hang, Reply::ok("b")]).await;
        let started = Instant::now();
        let failed = client.call(&origin(), Request::get("/").within(SECOND)).await.unwrap_err();
        assert_eq!(started.elapsed(), SECOND);
        assert!(!failed.nothing_was_done());
        client.call(&origin(), Request::get("/").within(SECOND)).await.unwrap();
        assert_eq!(server.connections(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn where_nobody_listens_nothing_was_done() {
        let client = HttpClient::new(Arc::new(MemoryNet::default()));
        let failed = client.call(&origin(), Request::get("/").within(SECOND)).await.unwrap_err();
        assert!(failed.nothing_was_done());
        assert_eq!(
            crate::foundation::exit::chain(&failed),
            "cannot connect to http://10.0.0.1:2379: connection refused",
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_streamed_body_arrives_piece_by_piece() {
        let start = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let reply = Reply::Raw(format!("{start}3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"));
        let (client, _server, _tasks) = server(vec![reply]).await;
        let mut streaming = client.open(&origin(), Request::get("/")).await.unwrap();
        let mut heard = Vec::new();
        while let Some(chunk) = streaming.chunk().await.unwrap() {
            heard.push(chunk);
        }
        assert_eq!(heard.concat(), b"onetwo");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_too_long_is_refused() {
        let (client, _server, _tasks) = server(vec![Reply::ok("0123456789")]).await;
        let mut streaming = client.open(&origin(), Request::get("/")).await.unwrap();
        let failed = streaming.rest(9).await.unwrap_err();
        assert_eq!(
            crate::foundation::exit::chain(&failed),
            "no answer from http://10.0.0.1:2379: the answer is longer than 9 bytes",
        );
    }
}
