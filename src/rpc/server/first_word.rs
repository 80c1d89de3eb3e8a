//! The first bytes of a connection, which say what the caller speaks.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio_util::sync::CancellationToken;

use crate::platform::net::Io;

/// How many bytes tell all that is spoken here apart.
const BYTES: usize = 4;

/// Waits for the first word; `None` if it does not come in time, or at all.
pub(super) async fn read(
    mut io: Box<dyn Io>,
    deadline: Duration,
    stop: &CancellationToken,
) -> Option<([u8; BYTES], Box<dyn Io>)> {
    let mut word = [0; BYTES];
    let read = tokio::time::timeout(deadline, io.read_exact(&mut word));
    tokio::select! {
        biased;
        () = stop.cancelled() => None,
        read = read => matches!(read, Ok(Ok(_))).then_some((word, io)),
    }
}

/// Makes a connection on which the first word is still to be read.
pub(super) fn unread(word: [u8; BYTES], io: Box<dyn Io>) -> Box<dyn Io> {
    Box::new(Unread { word, taken: 0, io })
}

struct Unread {
    word: [u8; BYTES],
    taken: usize,
    io: Box<dyn Io>,
}

impl AsyncRead for Unread {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let left = &self.word[self.taken..];
        if left.is_empty() {
            return Pin::new(&mut self.io).poll_read(context, buf);
        }
        let count = left.len().min(buf.remaining());
        buf.put_slice(&left[..count]);
        self.taken += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Unread {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
