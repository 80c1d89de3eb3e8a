//! Serves HTTP/1.1 and HTTP/2 on whatever the network seam listens on.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::response::Response;
use futures_util::stream::FuturesUnordered;
use futures_util::{StreamExt as _, future};
use http::Request;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower_service::Service as Callable;

use crate::foundation::limits::{
    CONNECTIONS_MAX, DESCRIPTORS_KEPT, HEAD_BYTES_MAX, HTTP2_STREAMS_MAX,
};
use crate::foundation::tasks::Tasks;
use crate::platform::net::{Accepted, Incoming, Io};
use crate::rpc::server::deadlines::Deadlines;
use crate::rpc::server::first_word;
use crate::rpc::server::together::{self, Asked, Behind};
use crate::rpc::server::v3::listed::PIECE_BYTES;

/// How long a client may take to send a request's head, and may idle between two: who sends it byte
/// by byte has no more time.
const HEAD_DEADLINE: Duration = Duration::from_mins(1);
/// The first word of HTTP/2.
const HTTP2: &[u8; 4] = b"PRI ";
/// How many bytes a client of HTTP/2 always says first, with the first word.
const HTTP2_BYTES: usize = 24;
/// Bytes that a stream's sender may be ahead of its receiver.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// Bytes that all streams of a connection may be ahead together.
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// How long a connection of streams may be silent before it is asked whether it lives.
const SILENCE: Duration = Duration::from_mins(5);
/// How long it may take to say so.
const SIGN_OF_LIFE: Duration = Duration::from_secs(20);
/// How long answers under way may take once the server stops: less than the daemon's own grace.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// How long to wait after a failed accept: the process is out of descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often to say that there is no room for more connections.
const SAY_FULL_EVERY: Duration = Duration::from_mins(1);

/// How many connections are served at a time by all listeners that share this. Clones are the same.
#[derive(Debug, Clone)]
pub struct Places(Arc<Semaphore>);

impl Places {
    /// Makes room for so many.
    pub fn new(count: usize) -> Self {
        Self(Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS))))
    }
}

impl Default for Places {
    fn default() -> Self {
        Self::new(CONNECTIONS_MAX)
    }
}

/// How many connections of clients a process may serve that may have so many descriptors: what the
/// log and the other members need stays free, since without them it could not go on.
pub fn connections_within(descriptors: Option<u64>) -> usize {
    let Some(descriptors) = descriptors else { return CONNECTIONS_MAX };
    let left = descriptors.saturating_sub(DESCRIPTORS_KEPT).max(descriptors / 2);
    usize::try_from(left).unwrap_or(CONNECTIONS_MAX).min(CONNECTIONS_MAX)
}

/// Serves `router` on `incoming` until the tasks stop; then connections finish what they answer.
pub fn serve(incoming: Box<dyn Incoming>, router: Router, tasks: &Tasks) {
    serve_within(incoming, router, &Places::default(), tasks);
}

/// The same, with as many connections at a time as there is room for.
pub fn serve_within(incoming: Box<dyn Incoming>, router: Router, places: &Places, tasks: &Tasks) {
    accept(incoming, places, tasks, move |(io, _from), stop| {
        let router = router.clone();
        async move { connection(io, router, stop).await }
    });
}

/// What answers requests; clones are the same. It never fails: a failure is an answer too.
pub trait Answers:
    Callable<
        Request<hyper::body::Incoming>,
        Response = Response,
        Error = Infallible,
        Future: Send + 'static,
    > + Clone
    + Send
    + Sync
    + 'static
{
}

impl<A> Answers for A where
    A: Callable<
            Request<hyper::body::Incoming>,
            Response = Response,
            Error = Infallible,
            Future: Send + 'static,
        > + Clone
        + Send
        + Sync
        + 'static
{
}

/// Has `answers` answer as [`serve`] does, also to clients that speak HTTP/2 from their first word
/// on, as those of gRPC do.
pub fn serve_both(
    incoming: Box<dyn Incoming>,
    answers: impl Answers,
    places: &Places,
    tasks: &Tasks,
) {
    accept(incoming, places, tasks, move |(io, _from), stop| {
        let router = answers.clone();
        async move {
            match first_word::read(io, HEAD_DEADLINE, &stop).await {
                Some((word, io)) if &word == HTTP2 => {
                    if let Some(io) = all_of_http2(word, io, &stop).await {
                        // Boxed, as the other is: who says nothing takes no room for either.
                        Box::pin(connection_of_streams(io, router, stop)).await;
                    }
                }
                Some((word, io)) => {
                    Box::pin(connection(first_word::unread(word, io), router, stop)).await;
                }
                None => {}
            }
        }
    });
}

/// Waits for the rest of what HTTP/2 begins with: the library would wait forever.
async fn all_of_http2(
    word: [u8; HTTP2.len()],
    io: Box<dyn Io>,
    stop: &CancellationToken,
) -> Option<Box<dyn Io>> {
    const REST: usize = HTTP2_BYTES - HTTP2.len();
    let (rest, io) = first_word::read::<REST>(io, HEAD_DEADLINE, stop).await?;
    let mut all = [0; HTTP2_BYTES];
    all[..HTTP2.len()].copy_from_slice(&word);
    all[HTTP2.len()..].copy_from_slice(&rest);
    Some(first_word::unread(all, io))
}

/// Accepts connections while there are places, and gives each to `each`, in a task of its own.
pub fn accept<F, W>(mut incoming: Box<dyn Incoming>, places: &Places, tasks: &Tasks, each: F)
where
    F: Fn(Accepted, CancellationToken) -> W + Send + Sync + 'static,
    W: Future<Output = ()> + Send + 'static,
{
    let connections = tasks.clone();
    let places = places.0.clone();
    tasks.spawn("listener", |stop| async move {
        let mut said_full: Option<Instant> = None;
        loop {
            let recently = said_full.is_some_and(|said| said.elapsed() < SAY_FULL_EVERY);
            if places.available_permits() == 0 && !recently {
                said_full = Some(Instant::now());
                tracing::warn!(
                    address = %incoming.local(),
                    "there are as many connections as there may be: more wait until others end"
                );
            }
            let next = async {
                let place = places.clone().acquire_owned().await;
                (place, incoming.accept().await)
            };
            let (place, accepted) = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                next = next => next,
            };
            match accepted {
                Ok(accepted) => {
                    // Not part of the task, which would hold it twice.
                    let work = Box::pin(each(accepted, stop.clone()));
                    connections.spawn("connection", |_stop| async move {
                        work.await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, address = %incoming.local(), "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    });
}

/// Serves one connection until it ends, or `stop` and the answer under way is sent.
pub async fn connection(io: Box<dyn Io>, router: impl Answers, stop: CancellationToken) {
    let mut builder = http1::Builder::new();
    // Scripts look for `X-Etcd-Index`, spelled like that.
    builder
        .title_case_headers(true)
        .timer(Deadlines::default())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(HEAD_BYTES_MAX);
    let served = builder.serve_connection(TokioIo::new(io), TowerToHyperService::new(router));
    until_done(Box::pin(served), http1::Connection::graceful_shutdown, stop).await;
}

/// Serves one connection of HTTP/2 until it ends, or `stop` and the answers under way are sent.
async fn connection_of_streams(io: Box<dyn Io>, router: impl Answers, stop: CancellationToken) {
    let (asked, behind) = (Asked::default(), Behind::new(io));
    let mut builder = http2::Builder::new(asked.clone());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(HTTP2_STREAMS_MAX)
        .max_send_buf_size(PIECE_BYTES)
        .keep_alive_interval(SILENCE)
        .keep_alive_timeout(SIGN_OF_LIFE);
    let io = TokioIo::new(behind.clone());
    let served = builder.serve_connection(io, TowerToHyperService::new(router));
    let served = until_done(Box::pin(served), http2::Connection::graceful_shutdown, stop);
    together::served(std::pin::pin!(served), &asked, &behind).await;
}

/// Waits until a connection ends; on `stop` it is told to, after the answers under way.
async fn until_done<C>(
    mut served: Pin<Box<C>>,
    shut_down: impl FnOnce(Pin<&mut C>),
    stop: CancellationToken,
) where
    C: Future<Output = hyper::Result<()>>,
{
    let mut ended = unless_stopped(served.as_mut(), &stop).await;
    if ended.is_none() {
        shut_down(served.as_mut());
        // Who takes no answers is not waited for.
        ended = tokio::time::timeout(LAST_ANSWERS, served.as_mut()).await.ok();
    }
    if let Some(Err(error)) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}

/// Waits for `work`; `None` on `stop`. All connections have one `stop`, and a look at it takes two
/// locks: in a set of its own it is looked at only when it wakes.
async fn unless_stopped<W>(mut work: Pin<&mut W>, stop: &CancellationToken) -> Option<W::Output>
where
    W: Future,
{
    let mut stopped = FuturesUnordered::from_iter([stop.cancelled()]);
    future::poll_fn(|context| {
        if stopped.poll_next_unpin(context).is_ready() {
            return Poll::Ready(None);
        }
        work.as_mut().poll(context).map(Some)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::net::{Address, MemoryNet, Net as _};
    use crate::rpc::client::http::{HttpClient, Request as Asked};
    use crate::rpc::client::url::Url;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// Serves `ok` to whoever asks, and returns a connection to it.
    async fn connected(tasks: &Tasks) -> Box<dyn Io> {
        let net = MemoryNet::default();
        let address = Address::Tcp(([127, 0, 0, 1], 80).into());
        let incoming = net.bind(&address).await.unwrap();
        let router = Router::new().route("/", get(|| async { "ok" }));
        serve_both(incoming, router, &Places::new(1), tasks);
        net.connect(&address).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_a_head_byte_by_byte_is_not_waited_for() {
        let tasks = Tasks::default();
        let mut io = connected(&tasks).await;
        let begun = Instant::now();
        io.write_all(b"GET / HTTP/1.1\r\nX: ").await.unwrap();
        let slow = async {
            while io.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
        };
        tokio::time::timeout(HEAD_DEADLINE * 2, slow).await.unwrap();
        assert!(begun.elapsed() >= HEAD_DEADLINE, "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_is_not_waited_for() {
        let tasks = Tasks::default();
        let mut io = connected(&tasks).await;
        let read = tokio::time::timeout(HEAD_DEADLINE * 2, io.read_to_end(&mut Vec::new())).await;
        assert_eq!(read.unwrap().unwrap(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_go_on_with_http2_is_not_waited_for() {
        for begun in [&b"PRI "[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r"] {
            let tasks = Tasks::default();
            let mut io = connected(&tasks).await;
            io.write_all(begun).await.unwrap();
            let mut heard = Vec::new();
            let read = tokio::time::timeout(HEAD_DEADLINE * 2, io.read_to_end(&mut heard)).await;
            assert_eq!(read.unwrap().unwrap(), 0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_finds_no_place_is_served_when_another_ends() {
        let net = MemoryNet::default();
        let address = Address::Tcp(([127, 0, 0, 1], 80).into());
        let incoming = net.bind(&address).await.unwrap();
        let tasks = Tasks::default();
        let router = Router::new().route("/", get(|| async { "ok" }));
        serve_both(incoming, router, &Places::new(1), &tasks);
        let first = net.connect(&address).await.unwrap();
        let mut second = net.connect(&address).await.unwrap();
        second.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        let soon = Duration::from_secs(30);
        tokio::time::timeout(soon, second.read_to_end(&mut answer)).await.unwrap_err();
        drop(first);
        tokio::time::timeout(soon, second.read_to_end(&mut answer)).await.unwrap().unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
    }

    #[test]
    fn connections_leave_descriptors_to_the_log() {
        assert_eq!(connections_within(None), CONNECTIONS_MAX);
        assert_eq!(connections_within(Some(40_000)), CONNECTIONS_MAX);
        assert_eq!(connections_within(Some(1024)), 768);
        assert_eq!(connections_within(Some(64)), 32);
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_is_too_long_is_refused() {
        let tasks = Tasks::default();
        let mut io = connected(&tasks).await;
        let long = "x".repeat(8 * HEAD_BYTES_MAX);
        let head = format!("GET / HTTP/1.1\r\nX: {long}\r\n\r\n");
        // The server may close before it has read all.
        io.write_all(head.as_bytes()).await.ok();
        let mut answer = Vec::new();
        io.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_is_stopped_is_not_waited_for_whenever_that_is() {
        for late in [Duration::ZERO, Duration::from_secs(1)] {
            let stop = CancellationToken::new();
            let turns = std::cell::Cell::new(0);
            if late.is_zero() {
                stop.cancel();
            }
            let busy = std::pin::pin!(async {
                loop {
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    turns.set(turns.get() + 1);
                }
            });
            let stopping = async {
                tokio::time::sleep(late).await;
                stop.cancel();
            };
            let (ended, ()) = tokio::join!(unless_stopped(busy, &stop), stopping);
            assert_eq!((ended, turns.get()), (None::<()>, late.as_millis() / 300));
        }
        let stop = CancellationToken::new();
        let done = std::pin::pin!(async { 7 });
        assert_eq!(unless_stopped(done, &stop).await, Some(7));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_under_way_is_finished_when_the_server_stops() {
        let net = MemoryNet::default();
        let address = Address::Tcp(([127, 0, 0, 1], 80).into());
        let incoming = net.bind(&address).await.unwrap();
        let slow = || async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            "done"
        };
        let tasks = Tasks::default();
        serve(incoming, Router::new().route("/", get(slow)), &tasks);
        let client = HttpClient::new(Arc::new(net));
        let origin = "http://127.0.0.1:80".parse::<Url>().unwrap().origin;
        let asked = async {
            let call = client.call(&origin, Asked::get("/"));
            let stop = async {
                tokio::time::sleep(Duration::from_millis(500)).await;
                tasks.stop();
            };
            tokio::join!(call, stop).0
        };
        assert_eq!(asked.await.unwrap().body, "done");
        tasks.clone().drain(Duration::from_secs(5)).await.unwrap();
    }
}
