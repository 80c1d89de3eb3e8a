//! Messages of gRPC in one piece: the library makes room for a message as soon as its head says how
//! long it is, so what is not there yet is kept from it. Memory grows with what arrives, not with
//! what was announced.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Bytes;
use bytes::BytesMut;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;
use tonic::codegen::StdError;

use crate::rpc::server::v3::MESSAGE_BYTES_MAX;

/// What stands before a message: whether it is compressed, and its length.
pub(super) const HEAD_BYTES: usize = 5;
/// How long a message may take from its first byte to its last: the longest, on a line of 35 kB/s.
const DEADLINE: Duration = Duration::from_mins(1);

/// A request's body of which only whole messages are read.
#[derive(Debug)]
pub(super) struct Whole<B> {
    body: B,
    /// The beginning of a message, from its head on.
    begun: BytesMut,
    /// When the rest of it has to be there.
    late: Option<Pin<Box<Sleep>>>,
    /// What the body ends with, where something has to be told before it.
    end: Option<Frame<Bytes>>,
}

impl<B> Whole<B> {
    /// Reads whole messages of a body.
    pub(super) fn new(body: B) -> Self {
        Self { body, begun: BytesMut::new(), late: None, end: None }
    }

    /// Takes what came; returns the messages that are there now.
    fn take(&mut self, data: Bytes) -> Option<Bytes> {
        // As it nearly always is: nothing is copied.
        if self.begun.is_empty() && whole(&data) == data.len() {
            return Some(data);
        }
        self.begun.extend_from_slice(&data);
        let ready = self.begun.split_to(whole(&self.begun)).freeze();
        if self.begun.is_empty() {
            self.late = None;
        } else if self.late.is_none() || !ready.is_empty() {
            self.late = Some(Box::pin(tokio::time::sleep(DEADLINE)));
        }
        (!ready.is_empty()).then_some(ready)
    }
}

/// How many bytes from the beginning on are whole messages. One that is too long is as good as
/// whole, and so is what follows it: it is refused at its head.
fn whole(data: &[u8]) -> usize {
    let mut at = 0;
    while let Some(&[_, a, b, c, d]) = data.get(at..at + HEAD_BYTES) {
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if length > MESSAGE_BYTES_MAX {
            return data.len();
        }
        if at + HEAD_BYTES + length > data.len() {
            break;
        }
        at += HEAD_BYTES + length;
    }
    at
}

impl<B> Body for Whole<B>
where
    B: Body<Data = Bytes, Error: Into<StdError>> + Unpin,
{
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        if let Some(end) = self.end.take() {
            return Poll::Ready(Some(Ok(end)));
        }
        loop {
            let Poll::Ready(next) = Pin::new(&mut self.body).poll_frame(context) else {
                if let Some(late) = &mut self.late {
                    ready!(late.as_mut().poll(context));
                    let text = format!("a message did not come within {} s", DEADLINE.as_secs());
                    return Poll::Ready(Some(Err(text.into())));
                }
                return Poll::Pending;
            };
            let rest = match next {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => match self.take(data) {
                        Some(ready) => return Poll::Ready(Some(Ok(Frame::data(ready)))),
                        None => continue,
                    },
                    Err(trailers) => Some(trailers),
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None => None,
            };
            self.late = None;
            if self.begun.is_empty() {
                return Poll::Ready(rest.map(Ok));
            }
            // Whoever reads says that it ends too early.
            self.end = rest;
            let begun = std::mem::take(&mut self.begun).freeze();
            return Poll::Ready(Some(Ok(Frame::data(begun))));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.begun.is_empty() && self.end.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream::{self, StreamExt as _};
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;

    fn message(length: usize) -> Vec<u8> {
        let head = u32::try_from(length).unwrap().to_be_bytes();
        [&[0], &head[..], &vec![7; length]].concat()
    }

    /// What is read of a body that comes in parts and then ends, or does not.
    async fn read(parts: &[&[u8]], ends: bool) -> Vec<Result<usize, String>> {
        let parts: Vec<_> = parts.iter().map(|part| Bytes::copy_from_slice(part)).collect();
        let parts = stream::iter(parts).map(|part| Ok::<_, Infallible>(Frame::data(part)));
        let body = if ends { parts.boxed() } else { parts.chain(stream::pending()).boxed() };
        let mut whole = Whole::new(StreamBody::new(body));
        let mut lengths = Vec::new();
        while let Some(frame) = whole.frame().await {
            let data = frame.map(|frame| frame.into_data().unwrap().len());
            let over = data.is_err();
            lengths.push(data.map_err(|error| error.to_string()));
            if over {
                break;
            }
        }
        lengths
    }

    #[tokio::test(start_paused = true)]
    async fn messages_are_passed_on_when_they_are_whole() {
        let two = [message(10), message(0)].concat();
        assert_eq!(read(&[&two, &message(3)], true).await, [Ok(20), Ok(8)]);
        let long = message(100);
        let parts = [&long[..2], &long[2..60], &long[60..]];
        assert_eq!(read(&parts, true).await, [Ok(105)]);
        let after = [&message(10)[..], &long[..30]].concat();
        assert_eq!(read(&[&after, &long[30..]], true).await, [Ok(15), Ok(105)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_never_comes_is_waited_for_so_long() {
        let begun = tokio::time::Instant::now();
        let late = Err("a message did not come within 60 s".to_owned());
        assert_eq!(read(&[&message(1000)[..500]], false).await, [late]);
        assert_eq!(begun.elapsed(), DEADLINE);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_said_all_may_be_silent() {
        let all = message(5);
        let parts = [&all[..]];
        tokio::time::timeout(DEADLINE * 10, read(&parts, false)).await.unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn what_ends_early_or_is_too_long_is_passed_on_to_be_refused() {
        assert_eq!(read(&[&message(1000)[..500]], true).await, [Ok(500)]);
        assert_eq!(read(&[&[0, 0xff, 0xff, 0xff, 0xff, 1]], true).await, [Ok(6)]);
    }
}
