//! Answers to `Range` that are long: encoded while they are sent, from a view of the store.
//!
//! ```text
//!  head 12 kv 12 kv … │ 12 kv … │ … │ 12 kv more count │ grpc-status: 0
//!  └─ a piece ────────┘ made when HTTP/2 asks for it: one ahead of what there is room for
//! ```
//! A piece stays in the processor's cache until the kernel has it; an answer of megabytes in one
//! piece does not.
//!
//! The view does not change, whatever is written or compacted meanwhile. It keeps what it has in memory,
//! so who reads slowly may not have it for long: [`Readers`] encodes what is left after ten seconds,
//! and then it is the bytes of the answer that are kept, and no more than those. Where that comes to too
//! much for all together, an answer ends early, and says so.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame};
use tokio::time::Instant;
use tonic::Status;

use crate::foundation::limits::SLOW_ANSWERS_BYTES_MAX;
use crate::foundation::tasks::Tasks;
use crate::store::mvcc::Listing;

/// About how long a piece is, and how much of an answer waits between HTTP/2 and the kernel.
pub(in crate::rpc::server) const PIECE_BYTES: usize = 64 << 10;
/// How long an answer may keep a view of the store, and up to a quarter longer.
const VIEW_HELD: Duration = Duration::from_secs(10);
/// How much of a slow reader's answer is encoded before others have their turn.
const STEP_BYTES: usize = 1 << 20;

/// The body of an answer. Clones are the same one.
#[derive(Debug, Clone)]
pub(super) struct Listed {
    /// The first piece, which mostly is all.
    first: Bytes,
    rest: Option<Arc<Mutex<Rest>>>,
    said_well: bool,
}

/// What is still to be sent.
#[derive(Debug)]
struct Rest {
    /// What is encoded already and comes first.
    ready: Vec<u8>,
    listing: Option<Listing>,
    /// What comes after the keys.
    tail: Vec<u8>,
    /// Why it ends early, if it does.
    failed: Option<Status>,
}

impl Rest {
    /// Returns how many bytes are still to be encoded.
    fn left(&self) -> usize {
        self.listing.as_ref().map_or(0, |listing| listing.bytes_left() + self.tail.len())
    }

    /// Encodes on, until there are about so many bytes or all, into memory for `room` of them.
    fn encode(&mut self, bytes_max: usize, room: usize) {
        let left = self.left();
        let Some(listing) = &mut self.listing else { return };
        self.ready.reserve_exact(left.min(room.saturating_sub(self.ready.len())));
        listing.next_piece(bytes_max, &mut self.ready);
        if listing.bytes_left() == 0 {
            self.listing = None;
            self.ready.append(&mut self.tail);
        }
    }

    /// Takes the next piece; it is empty where there is none.
    fn take(&mut self) -> Bytes {
        if self.ready.is_empty() {
            self.encode(PIECE_BYTES, PIECE_BYTES);
        }
        if self.ready.is_empty() && self.listing.is_some() {
            self.fail(Status::internal("there are fewer keys than were counted; this is a bug"));
        }
        std::mem::take(&mut self.ready).into()
    }

    /// Ends it after what is encoded.
    fn fail(&mut self, why: Status) {
        self.listing = None;
        self.failed = Some(why);
    }
}

fn locked(rest: &Mutex<Rest>) -> MutexGuard<'_, Rest> {
    rest.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Listed {
    /// Makes a body of bytes.
    pub(super) fn whole(bytes: Vec<u8>) -> Self {
        Self { first: bytes.into(), rest: None, said_well: false }
    }

    /// Makes a body of what is encoded before the keys, the keys, and what comes after them.
    pub(super) fn new(head: Vec<u8>, listing: Listing, tail: Vec<u8>) -> Self {
        let mut rest = Rest { ready: head, listing: Some(listing), tail, failed: None };
        rest.encode(PIECE_BYTES, PIECE_BYTES);
        let first = std::mem::take(&mut rest.ready).into();
        let rest = rest.listing.is_some().then(|| Arc::new(Mutex::new(rest)));
        Self { first, rest, said_well: false }
    }
}

impl Body for Listed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut piece = std::mem::take(&mut self.first);
        if piece.is_empty()
            && let Some(rest) = &self.rest
        {
            piece = locked(rest).take();
        }
        if !piece.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if std::mem::replace(&mut self.said_well, true) {
            return Poll::Ready(None);
        }
        let failed = self.rest.as_ref().and_then(|rest| locked(rest).failed.take());
        let mut trailers = HeaderMap::with_capacity(2);
        match failed {
            Some(why) => why.add_header(&mut trailers)?,
            None => drop(trailers.insert(Status::GRPC_STATUS, HeaderValue::from_static("0"))),
        }
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.said_well
    }
}

/// The answers that are being sent.
#[derive(Debug, Default)]
pub struct Readers {
    /// Those that have a view, the oldest first.
    viewing: Mutex<VecDeque<(Instant, Weak<Mutex<Rest>>)>>,
}

impl Readers {
    /// Sees to it that no answer keeps its view for long, until the tasks stop.
    pub fn watch(self: &Arc<Self>, tasks: &Tasks) {
        let readers = Arc::clone(self);
        tasks.spawn("slow readers", |stop| async move {
            let mut every = tokio::time::interval(VIEW_HELD / 4);
            let mut slow = Slow::default();
            let work = async {
                loop {
                    every.tick().await;
                    while let Some(rest) = readers.next_slow() {
                        slow.take(&rest).await;
                    }
                }
            };
            stop.run_until_cancelled(work).await;
        });
    }

    /// Adds an answer, if it has a view. Those in front of it that were sent are forgotten.
    pub(super) fn add(&self, body: &Listed) {
        let Some(rest) = &body.rest else { return };
        let mut viewing = self.viewing();
        while viewing.front().is_some_and(|(_, rest)| rest.strong_count() == 0) {
            viewing.pop_front();
        }
        viewing.push_back((Instant::now(), Arc::downgrade(rest)));
    }

    fn viewing(&self) -> MutexGuard<'_, VecDeque<(Instant, Weak<Mutex<Rest>>)>> {
        self.viewing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the oldest, if it has had its view for long enough.
    fn next_slow(&self) -> Option<Weak<Mutex<Rest>>> {
        let mut viewing = self.viewing();
        let oldest = viewing.pop_front_if(|(since, _)| since.elapsed() >= VIEW_HELD)?;
        Some(oldest.1)
    }
}

/// The answers that were encoded for slow readers, and how long each is.
#[derive(Debug, Default)]
struct Slow {
    kept: Vec<(Weak<Mutex<Rest>>, usize)>,
}

impl Slow {
    /// Encodes what is left of an answer, in steps between which others have their turn; ends it where
    /// too much is kept already.
    async fn take(&mut self, answer: &Weak<Mutex<Rest>>) {
        let Some(rest) = answer.upgrade() else { return };
        self.kept.retain(|(kept, _)| kept.strong_count() > 0);
        let left = locked(&rest).left();
        let kept: usize = self.kept.iter().map(|(_, bytes)| bytes).sum();
        if kept > 0 && kept + left > SLOW_ANSWERS_BYTES_MAX {
            let why = "this answer is read too slowly; ask for a part of it, with a limit";
            return locked(&rest).fail(Status::resource_exhausted(why));
        }
        self.kept.push((answer.clone(), left));
        while Arc::strong_count(&rest) > 1 && locked(&rest).left() > 0 {
            {
                let mut rest = locked(&rest);
                let step = rest.ready.len() + STEP_BYTES;
                rest.encode(step, usize::MAX);
            }
            tokio::task::yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::store::mvcc::{KeyRange, Op, Put, Range, Store};

    const KEYS: u16 = 1000;

    fn store() -> Store {
        let mut store = Store::default();
        for number in 0..KEYS {
            let (key, value) = (number.to_be_bytes(), [7; 300]);
            store.op(&Op::Put(Put { key: &key, value: &value, ..Put::default() })).unwrap();
        }
        store
    }

    fn body(store: &Store) -> Listed {
        let listing = Listing::new(store.view(), &Range::of(KeyRange::ALL)).unwrap();
        Listed::new(b"head".to_vec(), listing, b"tail".to_vec())
    }

    fn expected(store: &Store) -> Vec<u8> {
        let mut expected = b"head".to_vec();
        let view = store.view();
        view.range(&Range::of(KeyRange::ALL)).unwrap().encode_kvs(&mut expected);
        expected.extend_from_slice(b"tail");
        expected
    }

    /// What is left of a body: the lengths of its pieces and all of them, and what is said last.
    async fn read(mut body: Listed) -> (Vec<usize>, Vec<u8>, HeaderMap) {
        let (mut lengths, mut all) = (Vec::new(), Vec::new());
        loop {
            assert!(!body.is_end_stream());
            match body.frame().await.unwrap().unwrap().into_data() {
                Ok(data) => {
                    lengths.push(data.len());
                    all.extend_from_slice(&data);
                }
                Err(last) => {
                    assert!(body.is_end_stream() && body.frame().await.is_none());
                    return (lengths, all, last.into_trailers().unwrap());
                }
            }
        }
    }

    #[tokio::test]
    async fn an_answer_comes_in_pieces_and_ends_well() {
        let store = store();
        let (lengths, all, trailers) = read(body(&store)).await;
        assert_eq!(all, expected(&store));
        assert_eq!(lengths.len(), all.len().div_ceil(PIECE_BYTES));
        assert!(lengths.iter().all(|length| *length <= PIECE_BYTES + 4), "{lengths:?}");
        assert_eq!(trailers["grpc-status"], "0");
        let (lengths, all, _) = read(Listed::whole(b"all".to_vec())).await;
        assert_eq!((&lengths[..], &all[..]), (&[3][..], &b"all"[..]));
    }

    #[tokio::test(start_paused = true)]
    async fn who_reads_slowly_has_the_answer_and_not_the_view() {
        let (store, readers, tasks) = (store(), Arc::new(Readers::default()), Tasks::default());
        readers.watch(&tasks);
        let mut slow = body(&store);
        readers.add(&slow);
        let first = slow.frame().await.unwrap().unwrap().into_data().unwrap();
        tokio::time::sleep(VIEW_HELD / 2).await;
        let quick = body(&store);
        readers.add(&quick);
        tokio::time::sleep(VIEW_HELD * 3 / 4).await;
        let has_view = |body: &Listed| locked(body.rest.as_ref().unwrap()).listing.is_some();
        assert!(!has_view(&slow), "it has the view for ever");
        assert!(has_view(&quick), "it had the view for a moment");
        let (lengths, rest, _) = read(slow).await;
        assert_eq!(lengths.len(), 1);
        assert_eq!([&first[..], &rest].concat(), expected(&store));
        drop(quick);
        readers.add(&body(&store));
        assert_eq!(readers.viewing().len(), 1, "those that are sent are forgotten");
    }

    #[tokio::test]
    async fn answers_that_are_read_slowly_have_a_limit_together_and_end_with_a_word() {
        let store = store();
        let bodies: Vec<_> = (0..3).map(|_| body(&store)).collect();
        let rest_of = |body: &Listed| Arc::downgrade(body.rest.as_ref().unwrap());
        let mut slow = Slow { kept: Vec::new() };
        slow.take(&rest_of(&bodies[0])).await;
        slow.kept[0].1 = SLOW_ANSWERS_BYTES_MAX - locked(bodies[1].rest.as_ref().unwrap()).left();
        slow.take(&rest_of(&bodies[1])).await;
        slow.take(&rest_of(&bodies[2])).await;
        let mut ends = Vec::new();
        for body in bodies {
            let (_, all, trailers) = read(body).await;
            ends.push((all == expected(&store), trailers["grpc-status"].clone()));
        }
        assert_eq!(ends[..2], [(true, "0".parse().unwrap()), (true, "0".parse().unwrap())]);
        assert_eq!(ends[2], (false, "8".parse().unwrap()));
        let first = body(&store);
        slow.take(&rest_of(&first)).await;
        assert_eq!(slow.kept.len(), 1, "what was sent is no longer kept");
        assert!(locked(first.rest.as_ref().unwrap()).left() == 0);
    }
}
