//! Watching keys: many watches on one stream, and one task for each stream.
//!
//! The task makes answers, a burst at a time, only when those before are on their way, so a client
//! that reads slowly holds up nobody and fills no memory.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::consensus::state_machine::Progress;
use crate::foundation::limits::WATCH_ANSWERS_MAX;
use crate::rpc::server::v3::watcher::{Step, Watches};
use crate::rpc::server::v3::{Answers, Service, errors, requires_leader};
use crate::store::mvcc::View;
use crate::wire::etcd::v3::etcdserverpb as pb;
use crate::wire::etcd::v3::etcdserverpb::watch_request::RequestUnion;
use crate::wire::etcd::v3::etcdserverpb::watch_server::Watch;

/// How often an idle watch that asked for it is told how far it has come: as etcd.
const TELL_IDLE: Duration = Duration::from_mins(10);
/// What is added to it at most, so that not all streams speak at once, in milliseconds.
const TELL_IDLE_JITTER_MS: u64 = 60_000;
/// Most answers that wait to be sent: so many go in one write to the connection.
const ANSWERS_AHEAD: usize = 128;
/// About how many bytes of them. One that is longer waits until it is alone.
const BYTES_AHEAD: u32 = 1 << 20;
/// Turns of watches that are taken together, so that what goes around them is done once: with a
/// thousand watches of one key it costs more than their turns do.
const BURST_TURNS: usize = 32;
/// About how many bytes of answers they may make: no more turns are taken then.
const BURST_BYTES: u32 = 256 << 10;

#[tonic::async_trait]
impl Watch for Service {
    type WatchStream = Answers<pb::WatchResponse>;

    async fn watch(
        &self,
        request: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let required = requires_leader(request.metadata().as_ref());
        let (answers, made) = mpsc::channel::<Made>(ANSWERS_AHEAD);
        let stream = Stream {
            service: self.clone(),
            requests: request.into_inner(),
            watches: Watches::default(),
            outbox: VecDeque::new(),
            bytes: Arc::new(Semaphore::new(BYTES_AHEAD as usize)),
            progress_wanted: false,
        };
        self.tasks.spawn("watch", |stop| stream.run(answers, required, stop));
        let made = futures_util::stream::unfold(made, |mut made| async move {
            let (answer, _bytes) = made.recv().await?;
            Some((answer, made))
        });
        Ok(Response::new(Box::pin(made)))
    }
}

/// An answer, and the bytes that are free for another once it is on its way.
type Made = (Result<pb::WatchResponse, Status>, Option<OwnedSemaphorePermit>);

type Sender = mpsc::Sender<Made>;

/// One stream.
struct Stream {
    service: Service,
    requests: Streaming<pb::WatchRequest>,
    watches: Watches,
    /// Made, and not sent, with their bytes: a burst, as nothing else is made before they are.
    outbox: VecDeque<(pb::WatchResponse, u32)>,
    /// What answers that wait to be sent may take.
    bytes: Arc<Semaphore>,
    /// The client wants to be told once all its watches have been told all.
    progress_wanted: bool,
}

impl Stream {
    async fn run(mut self, answers: Sender, required: bool, stop: CancellationToken) {
        let mut progress = self.service.member.progress();
        let mut lost = Box::pin(self.service.clone().leader_lost(required));
        let jitter = self.service.random.below(TELL_IDLE_JITTER_MS);
        let every = TELL_IDLE + Duration::from_millis(jitter);
        let mut idle = tokio::time::interval_at(Instant::now() + every, every);
        // Whether the client may still ask something.
        let mut asks = true;
        loop {
            let view = self.service.view();
            let more = self.advance(&view);
            let revision = view.revision();
            let waits = self.outbox.is_empty() && !more;
            let length = self.outbox.front().map_or(0, |(_, length)| *length);
            tokio::select! {
                biased;
                () = stop.cancelled() => return end(&answers, errors::stopped()),
                () = &mut lost => return end(&answers, errors::no_leader()),
                () = answers.closed() => return,
                asked = self.requests.message(), if asks && self.outbox.len() < WATCH_ANSWERS_MAX => {
                    match asked {
                        Ok(Some(asked)) => self.handle(asked),
                        // It has asked all it wants, and listens.
                        Ok(None) => asks = false,
                        Err(status) => return end(&answers, status),
                    }
                }
                room = room(&answers, &self.bytes, length), if !self.outbox.is_empty() => {
                    let Some(room) = room else { return };
                    self.send(room, &answers);
                }
                _ = idle.tick() => {
                    let told = self.watches.tell_idle(revision);
                    self.say(told);
                }
                there = beyond(&mut progress, revision), if waits => {
                    if !there {
                        return;
                    }
                }
                () = tokio::task::yield_now(), if more => {}
            }
        }
    }

    /// Makes the next answers if none waits to be sent; tells whether there is more to do before
    /// something can be sent.
    fn advance(&mut self, view: &View) -> bool {
        if !self.outbox.is_empty() {
            return false;
        }
        let mut bytes = 0;
        for _ in 0..BURST_TURNS {
            match self.watches.step(view) {
                Step::Quiet => {}
                Step::Tell(answers) => bytes = self.say(answers).saturating_add(bytes),
                Step::Idle => {
                    let wanted = self.progress_wanted && !self.watches.is_empty();
                    let told = self.watches.progress(view.revision()).filter(|_| wanted);
                    self.progress_wanted &= told.is_none() && !self.watches.is_empty();
                    self.say(told);
                    return false;
                }
            }
            if bytes >= BURST_BYTES {
                break;
            }
        }
        self.outbox.is_empty()
    }

    /// Sends the first answer, for which there is room, and those behind it for which there is too.
    fn send(&mut self, room: Room<'_>, answers: &Sender) {
        let mut room = Some(room);
        while let Some((place, bytes)) = room.take() {
            let Some((answer, _)) = self.outbox.pop_front() else { return };
            place.send((Ok(answer), Some(bytes)));
            let Some((_, length)) = self.outbox.front() else { return };
            let bytes = self.bytes.clone().try_acquire_many_owned(taken(*length)).ok();
            room = answers.try_reserve().ok().zip(bytes);
        }
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

    /// Has answers wait to be sent, and returns their bytes.
    fn say(&mut self, answers: impl IntoIterator<Item = pb::WatchResponse>) -> u32 {
        let mut bytes: u32 = 0;
        for mut answer in answers {
            let revision = answer.header.as_ref().map_or(0, |header| header.revision);
            answer.header = self.service.header(revision);
            let length = u32::try_from(answer.encoded_len()).unwrap_or(u32::MAX);
            bytes = bytes.saturating_add(length);
            self.outbox.push_back((answer, length));
        }
        bytes
    }
}

/// A place for an answer, and the bytes that it takes.
type Room<'a> = (mpsc::Permit<'a, Made>, OwnedSemaphorePermit);

/// How much of the bytes ahead an answer of `length` takes.
fn taken(length: u32) -> u32 {
    length.min(BYTES_AHEAD)
}

/// Waits for room for an answer of `length` bytes. None when nobody takes answers any more.
async fn room<'a>(answers: &'a Sender, bytes: &Arc<Semaphore>, length: u32) -> Option<Room<'a>> {
    let bytes = bytes.clone().acquire_many_owned(taken(length)).await.ok()?;
    Some((answers.reserve().await.ok()?, bytes))
}

fn end(answers: &Sender, why: Status) {
    // A client that reads too slowly to be told why finds the stream closed.
    answers.try_send((Err(why), None)).ok();
}

/// Waits until the keys have a later revision; false if the member has stopped.
async fn beyond(progress: &mut watch::Receiver<Progress>, revision: i64) -> bool {
    progress.wait_for(|progress| progress.revision > revision).await.is_ok()
}
