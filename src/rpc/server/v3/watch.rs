//! Watching keys: many watches on one stream, and what makes its answers.
//!
//! ```text
//!  requests ─▶ Stream ─▶ watcher: turns ─▶ frames ─▶ the connection takes them
//!                ▲ what was applied
//! ```
//! Answers are made when the connection takes them, a burst at a time and as the bytes that it sends:
//! a client that reads slowly holds up nobody and fills no memory, and nothing waits in between.

use std::convert::Infallible;
use std::pin::Pin;
use std::time::Duration;

use axum::body::Bytes;
use futures_util::stream;
use http::{HeaderMap, Request, Response};
use http_body::{Body as HttpBody, Frame};
use http_body_util::StreamBody;
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tonic::body::Body;
use tonic::codegen::{BoxFuture, StdError};
use tonic::server::{Grpc, StreamingService};
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;

use crate::consensus::state_machine::Progress;
use crate::rpc::server::v3::frames::{BURST_BYTES, Frames};
use crate::rpc::server::v3::watcher::Watches;
use crate::rpc::server::v3::{MESSAGE_BYTES_MAX, Service, errors, requires_leader};
use crate::store::mvcc::View;
use crate::wire::etcd::v3::etcdserverpb as pb;
use crate::wire::etcd::v3::etcdserverpb::watch_request::RequestUnion;

/// How often an idle watch that asked for it is told how far it has come: as etcd.
const TELL_IDLE: Duration = Duration::from_mins(10);
/// What is added to it at most, so that not all streams speak at once, in milliseconds.
const TELL_IDLE_JITTER_MS: u64 = 60_000;

impl Service {
    /// Answers a call of the method `Watch`. What the library would do with each answer is not done:
    /// its head and its bytes are there already.
    pub(super) async fn watch<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<StdError> + Send + 'static,
    {
        let required = requires_leader(request.headers());
        let mut asked = None;
        let codec = ProstCodec::<pb::WatchResponse, pb::WatchRequest>::default();
        let mut grpc =
            Grpc::new(codec).apply_max_message_size_config(Some(MESSAGE_BYTES_MAX), None);
        let response = grpc.streaming(Requests(&mut asked), request).await;
        let Some(requests) = asked else { return response };
        let frames = stream::unfold(Some(Stream::new(self, requests, required)), Stream::next);
        response.map(|_nothing| Body::new(StreamBody::new(frames)))
    }
}

/// The method, as the library calls it: it keeps the requests, and answers nothing.
struct Requests<'a>(&'a mut Option<Streaming<pb::WatchRequest>>);

impl StreamingService<pb::WatchRequest> for Requests<'_> {
    type Response = pb::WatchResponse;
    type ResponseStream = stream::Empty<Result<pb::WatchResponse, Status>>;
    type Future = BoxFuture<tonic::Response<Self::ResponseStream>, Status>;

    fn call(&mut self, requests: tonic::Request<Streaming<pb::WatchRequest>>) -> Self::Future {
        *self.0 = Some(requests.into_inner());
        Box::pin(std::future::ready(Ok(tonic::Response::new(stream::empty()))))
    }
}

/// One stream.
struct Stream {
    service: Service,
    requests: Streaming<pb::WatchRequest>,
    /// Whether the client may still ask something.
    asks: bool,
    watches: Watches,
    /// Made, and not taken: a burst, as nothing else is made before they are.
    frames: Frames,
    /// The client wants to be told once all its watches have been told all.
    progress_wanted: bool,
    /// How far the member has applied.
    progress: watch::Receiver<Progress>,
    /// Ends when a leader is required and was missed for too long.
    lost: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// When idle watches are told next.
    idle: Interval,
}

/// What the connection takes: bytes of answers, or how the stream has ended.
type Taken = Result<Frame<Bytes>, Infallible>;

impl Stream {
    fn new(service: &Service, requests: Streaming<pb::WatchRequest>, required: bool) -> Self {
        let jitter = service.random.below(TELL_IDLE_JITTER_MS);
        let every = TELL_IDLE + Duration::from_millis(jitter);
        let mut idle = tokio::time::interval_at(Instant::now() + every, every);
        // Who took nothing for an hour need not be told six times how far it has come.
        idle.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            service: service.clone(),
            requests,
            asks: true,
            watches: Watches::default(),
            frames: Frames::default(),
            progress_wanted: false,
            progress: service.member.progress(),
            lost: Box::pin(service.clone().leader_lost(required)),
            idle,
        }
    }

    /// Waits for what comes next, and returns it with the stream, if that goes on.
    async fn next(stream: Option<Self>) -> Option<(Taken, Option<Self>)> {
        let mut stream = stream?;
        let (frame, goes_on) = match stream.answers().await {
            Ok(answers) => (Frame::data(answers), Some(stream)),
            Err(status) => (Frame::trailers(trailers(&status)), None),
        };
        Some((Ok(frame), goes_on))
    }

    /// Waits for answers; an error is how the stream ends.
    async fn answers(&mut self) -> Result<Bytes, Status> {
        loop {
            // Not held while there is nothing to do: what is replaced meanwhile can be freed.
            let (revision, done) = {
                let view = self.service.view();
                (view.revision(), self.advance(&view))
            };
            let made = self.frames.len();
            let waits = done && made == 0;
            tokio::select! {
                biased;
                () = self.service.stop.cancelled() => return Err(errors::stopped()),
                () = &mut self.lost => return Err(errors::no_leader()),
                asked = self.requests.message(), if self.asks && made < BURST_BYTES => {
                    match asked? {
                        Some(asked) => self.handle(asked),
                        // It has asked all it wants, and listens.
                        None => self.asks = false,
                    }
                }
                () = std::future::ready(()), if made > 0 => return Ok(self.frames.take()),
                _ = self.idle.tick() => {
                    let told = self.watches.tell_idle(revision);
                    self.say(told);
                }
                there = beyond(&mut self.progress, revision), if waits => {
                    if !there {
                        return Err(Status::ok(""));
                    }
                }
                () = tokio::task::yield_now(), if !waits => {}
            }
        }
    }

    /// Makes the next answers if none waits to be taken; tells whether the watches have all there is.
    fn advance(&mut self, view: &View) -> bool {
        if self.frames.len() > 0 {
            return true;
        }
        let Some(who) = self.service.header(view.revision()) else { return true };
        let done = self.watches.burst(view, who, &mut self.frames);
        if done && self.progress_wanted {
            let told = self.watches.progress(view.revision()).filter(|_| !self.watches.is_empty());
            self.progress_wanted = told.is_none() && !self.watches.is_empty();
            self.say(told);
        }
        done
    }

    fn handle(&mut self, asked: pb::WatchRequest) {
        let revision = self.service.view().revision();
        match asked.request_union {
            Some(RequestUnion::CreateRequest(asked)) => {
                let answer = self.watches.create(&asked, revision);
                self.say([answer]);
            }
            Some(RequestUnion::CancelRequest(asked)) => {
                let answer = self.watches.cancel(asked.watch_id, revision);
                self.say(answer);
            }
            Some(RequestUnion::ProgressRequest(_)) => self.progress_wanted = true,
            None => {}
        }
    }

    /// Has answers wait to be taken.
    fn say(&mut self, answers: impl IntoIterator<Item = pb::WatchResponse>) {
        for mut answer in answers {
            let revision = answer.header.as_ref().map_or(0, |header| header.revision);
            answer.header = self.service.header(revision);
            self.frames.answer(&answer);
        }
    }
}

/// Says how a stream has ended.
fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    // What cannot be said in a header is left out.
    status.add_header(&mut trailers).ok();
    trailers
}

/// Waits until the keys have a later revision; false if the member has stopped.
async fn beyond(progress: &mut watch::Receiver<Progress>, revision: i64) -> bool {
    progress.wait_for(|progress| progress.revision > revision).await.is_ok()
}
