//! The first bytes of a connection, which say what the caller speaks.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio_util::sync::CancellationToken;

use crate::platform::net::Io;

/// Waits for the first `N` bytes; `None` if they do not come in time, or at all.
pub(super) async fn read<const N: usize>(
    mut io: Box<dyn Io>,
    deadline: Duration,
    stop: &CancellationToken,
) -> Option<([u8; N], Box<dyn Io>)> {
    let mut word = [0; N];
    let read = tokio::time::timeout(deadline, io.read_exact(&mut word));
    tokio::select! {
        biased;
        () = stop.cancelled() => None,
        read = read => matches!(read, Ok(Ok(_))).then_some((word, io)),
    }
}

/// Makes a connection on which the first word is still to be read.
pub(super) fn unread<const N: usize>(word: [u8; N], io: Box<dyn Io>) -> Box<dyn Io> {
    Box::new(Unread { word, taken: 0, io })
}

struct Unread<const N: usize> {
    word: [u8; N],
    taken: usize,
    io: Box<dyn Io>,
}

impl<const N: usize> AsyncRead for Unread<N> {
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

impl<const N: usize> AsyncWrite for Unread<N> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
