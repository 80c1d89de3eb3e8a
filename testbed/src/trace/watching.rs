//! Watches as an apiserver has them: resumed behind what they were told, polled for bookmarks.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use corebox::wire::etcd::v3::etcdserverpb as pb;
use corebox::wire::etcd::v3::etcdserverpb::watch_request::RequestUnion;
use corebox::wire::etcd::v3::mvccpb;
use tokio::time::Instant;
use tonic::Status;

use crate::etcd::ANSWER;
use crate::etcd_v3::{WatchStream, end_of, revision};
use crate::trace::checker::WatchId;
use crate::trace::history::Event;
use crate::trace::listing::version;
use crate::trace::report::Request;
use crate::trace::shared::ApiServer;
use crate::trace::violation::Violation;

/// How often a stream is asked for its progress: as an apiserver does while a read waits for it.
const POLL: Duration = Duration::from_millis(100);
/// How long to rest before a stream that failed is opened again.
const REST: Duration = Duration::from_millis(50);
/// The id of an answer that is about all watches of a stream.
const ALL_WATCHES: i64 = -1;

/// Keeps watches on one stream for as long as it is let; it is opened anew after some time, also
/// where nothing is wrong with it.
pub(super) async fn keep(server: ApiServer, watches: Vec<WatchId>, anew_after: Duration) {
    while !server.is_over() {
        let (at, _, _) = server.member();
        let ended = Stream::follow(&server, &watches, Instant::now() + anew_after).await;
        if let Err(status) = note(&server, &watches, ended) {
            tracing::debug!(%status, "a stream of watches ended");
            server.leave(at);
            tokio::time::sleep(REST).await;
        }
    }
}

/// Takes note of how a stream ended.
fn note(server: &ApiServer, watches: &[WatchId], ended: Result<(), Status>) -> Result<(), Status> {
    let mut known = server.known();
    known.report.resumed += 1;
    if let Err(status) = &ended {
        let name = watches.first().map(|watch| known.checker.name(*watch).to_owned());
        known.ended(name.unwrap_or_default(), status);
    }
    ended
}

/// One stream while it lasts.
struct Stream<'a> {
    server: &'a ApiServer,
    wire: WatchStream,
    /// Watches that were asked for, and not answered yet.
    creating: VecDeque<WatchId>,
    /// Watches by the ids that the member gave them.
    created: BTreeMap<i64, WatchId>,
    /// Since when progress is asked for, while it was not told.
    polled: Option<Instant>,
}

impl<'a> Stream<'a> {
    /// Opens a stream and takes what it tells until `end`.
    async fn follow(
        server: &'a ApiServer,
        watches: &[WatchId],
        end: Instant,
    ) -> Result<(), Status> {
        let mut stream = Self::open(server, watches).await?;
        let mut poll = tokio::time::interval(POLL);
        poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(end) => return Ok(()),
                answer = stream.wire.next() => {
                    heard = Instant::now();
                    stream.take(answer?)?;
                }
                _ = poll.tick() => {
                    if heard.elapsed() > ANSWER {
                        return Err(Status::deadline_exceeded("the stream is silent"));
                    }
                    stream.polled.get_or_insert_with(Instant::now);
                    let ask = RequestUnion::ProgressRequest(pb::WatchProgressRequest {});
                    stream.wire.ask(ask).await;
                }
            }
        }
    }

    /// Asks for all watches, each behind what it was told.
    async fn open(server: &'a ApiServer, watches: &[WatchId]) -> Result<Self, Status> {
        let mut requests: VecDeque<_> =
            watches.iter().map(|watch| create(server, *watch)).collect();
        let Some(first) = requests.pop_front() else {
            return Err(Status::internal("a stream without watches"));
        };
        let (_, _, client) = server.member();
        let opened = tokio::time::timeout(ANSWER, client.stream_with_leader(first)).await;
        let late = |_| Status::deadline_exceeded("the stream was not opened");
        let wire = opened.map_err(late)??;
        for request in requests {
            wire.ask(request).await;
        }
        let (creating, created) = (watches.iter().copied().collect(), BTreeMap::new());
        Ok(Self { server, wire, creating, created, polled: None })
    }

    fn take(&mut self, answer: pb::WatchResponse) -> Result<(), Status> {
        if answer.canceled {
            return self.canceled(&answer);
        }
        if answer.created {
            let next = self.creating.pop_front();
            let watch = next.ok_or_else(|| Status::data_loss("a watch that nobody asked for"))?;
            self.created.insert(answer.watch_id, watch);
            return Ok(());
        }
        let revision = revision(answer.header.as_ref());
        if answer.events.is_empty() {
            self.bookmark(answer.watch_id, revision);
            return Ok(());
        }
        let watch = self.created.get(&answer.watch_id);
        let watch = *watch.ok_or_else(|| Status::data_loss("events of no watch"))?;
        let events: Vec<_> = answer.events.into_iter().map(event).collect();
        let mut known = self.server.known();
        known.report.events += events.len();
        let checked = known.checker.told(watch, events);
        known.judge(checked);
        Ok(())
    }

    fn bookmark(&mut self, id: i64, revision: i64) {
        let about: Vec<_> = match id {
            ALL_WATCHES => self.created.values().copied().collect(),
            id => self.created.get(&id).copied().into_iter().collect(),
        };
        let mut known = self.server.known();
        for watch in about {
            known.report.bookmarks += 1;
            let checked = known.checker.bookmark(watch, revision);
            known.judge(checked);
        }
        if let Some(since) = self.polled.take() {
            known.report.answered(Request::Progress, since.elapsed());
        }
    }

    fn canceled(&self, answer: &pb::WatchResponse) -> Result<(), Status> {
        let mut known = self.server.known();
        let watch = self.created.get(&answer.watch_id).or(self.creating.front());
        let watch = watch.map(|watch| known.checker.name(*watch).to_owned()).unwrap_or_default();
        let why = format!("{}, compacted {}", answer.cancel_reason, answer.compact_revision);
        known.judge(Err(Violation::Ended { watch, why: why.clone() }));
        Err(Status::aborted(why))
    }
}

/// Asks for a watch behind what it was told.
fn create(server: &ApiServer, watch: WatchId) -> RequestUnion {
    let known = server.known();
    let prefix = known.checker.watched(watch);
    RequestUnion::CreateRequest(pb::WatchCreateRequest {
        key: prefix.into(),
        range_end: end_of(prefix),
        start_revision: known.checker.position(watch) + 1,
        prev_kv: true,
        progress_notify: true,
        ..pb::WatchCreateRequest::default()
    })
}

fn event(event: mvccpb::Event) -> Event {
    let is_put = event.r#type() == mvccpb::event::EventType::Put;
    let kv = event.kv.unwrap_or_default();
    Event {
        key: String::from_utf8_lossy(&kv.key).into_owned(),
        revision: kv.mod_revision,
        now: is_put.then(|| version(&kv)),
        before: event.prev_kv.as_ref().map(version),
    }
}
