//! One task for a connection of HTTP/2 and all that is asked on it, so that what is ready is sent
//! together.
//!
//! ```text
//!            ┌─ connection: frames in, frames out ─▶ Behind: bytes wait here …
//!  one task ─┤
//!            └─ streams: a future for each request      … until the task has nothing else to do
//! ```
//! A task for each request costs more than reading a key does, and each would wake the connection
//! for its own answer: one system call each. Here the answers that a poll finds ready are one call.
//!
//! **Not here:** work that takes long. Whoever has some gives it to a task of its own, since it
//! would hold up the other requests of its connection.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use futures_util::stream::FuturesUnordered;
use futures_util::task::{ArcWake, AtomicWaker, waker_ref};
use futures_util::{Stream as _, future};
use hyper::rt::Executor;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::platform::net::Io;

/// Most bytes that wait: more are given to the kernel at once, together with those that waited.
const BEHIND_BYTES: usize = 64 << 10;
/// Room that an idle connection keeps.
const KEPT_BYTES: usize = 1 << 10;
/// How often a connection goes on by itself before other tasks have their turn.
const TURNS_MAX: usize = 16;

/// What is asked on a connection, a future each. Clones are the same list.
#[derive(Clone, Default)]
pub(super) struct Streams {
    asked: Arc<Mutex<Vec<Work>>>,
}

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Streams {
    fn asked(&self) -> MutexGuard<'_, Vec<Work>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, work: F) {
        self.asked().push(Box::pin(work));
    }
}

/// Sees a connection through: `served` with the futures that it gives to `streams`, and `behind`
/// with the bytes that it writes. Dropping the future ends all of them.
pub(super) async fn served<S>(
    mut served: Pin<&mut S>,
    streams: &Streams,
    behind: &Behind,
) -> S::Output
where
    S: Future,
{
    let mut running = FuturesUnordered::new();
    let wakes = Arc::new(Wakes::default());
    future::poll_fn(|outside| {
        wakes.begin(outside);
        let own = waker_ref(&wakes);
        let context = &mut Context::from_waker(&own);
        let mut ended = Poll::Pending;
        for _ in 0..TURNS_MAX {
            ended = served.as_mut().poll(context);
            running.extend(streams.asked().drain(..));
            while let Poll::Ready(Some(())) = Pin::new(&mut running).poll_next(context) {}
            if ended.is_ready() || !wakes.take() {
                break;
            }
        }
        // An error is found again by the connection's next read or write. One that takes no more
        // for now has this task woken when it does; one that has ended waits for no slow reader.
        drop(behind.lock().poll_empty(context));
        wakes.end();
        ended
    })
    .await
}

/// Wakes of a task by itself: what it finds while it runs needs no scheduler, and no other thread.
#[derive(Default)]
struct Wakes {
    task: AtomicWaker,
    /// The task runs, and looks at `woken` before it waits.
    runs: AtomicBool,
    woken: AtomicBool,
}

impl Wakes {
    fn begin(&self, context: &Context<'_>) {
        self.task.register(context.waker());
        self.runs.store(true, Ordering::SeqCst);
        self.woken.store(false, Ordering::SeqCst);
    }

    /// Tells whether there was a wake since the last call.
    fn take(&self) -> bool {
        self.woken.swap(false, Ordering::SeqCst)
    }

    /// A wake from now on schedules the task, and so does one that was not taken.
    fn end(&self) {
        self.runs.store(false, Ordering::SeqCst);
        if self.take() {
            self.task.wake();
        }
    }
}

impl ArcWake for Wakes {
    fn wake_by_ref(wakes: &Arc<Self>) {
        wakes.woken.store(true, Ordering::SeqCst);
        if !wakes.runs.load(Ordering::SeqCst) {
            wakes.task.wake();
        }
    }
}

/// A connection whose written bytes wait until [`served`] has nothing else to do, or until they are
/// many. Clones are the same connection.
#[derive(Clone)]
pub(super) struct Behind(Arc<Mutex<Waiting>>);

struct Waiting {
    io: Box<dyn Io>,
    bytes: BytesMut,
}

impl Behind {
    /// Puts nothing behind yet.
    pub(super) fn new(io: Box<dyn Io>) -> Self {
        Self(Arc::new(Mutex::new(Waiting { io, bytes: BytesMut::new() })))
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Gives what waits to the kernel.
    fn poll_empty(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.bytes.is_empty() {
            let count = ready!(Pin::new(&mut self.io).poll_write(context, &self.bytes))?;
            self.advance(count)?;
        }
        if self.bytes.capacity() > KEPT_BYTES {
            self.bytes = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }

    /// Takes bytes: they wait if there is room for them, else what waits and they go together.
    fn poll_take(&mut self, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        while self.bytes.len() + data.len() > BEHIND_BYTES {
            let waited = self.bytes.len();
            let both = [IoSlice::new(&self.bytes), IoSlice::new(data)];
            let count = ready!(Pin::new(&mut self.io).poll_write_vectored(context, &both))?;
            self.advance(count.min(waited))?;
            if count > waited {
                return Poll::Ready(Ok(count - waited));
            }
        }
        self.bytes.extend_from_slice(data);
        Poll::Ready(Ok(data.len()))
    }

    fn advance(&mut self, count: usize) -> io::Result<()> {
        if count == 0 && !self.bytes.is_empty() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.bytes.advance(count);
        Ok(())
    }
}

impl AsyncRead for Behind {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.lock().io).poll_read(context, buf)
    }
}

impl AsyncWrite for Behind {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.lock().poll_take(context, data)
    }

    /// Does nothing: [`served`] sees to it that all is sent.
    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut waiting = self.lock();
        ready!(waiting.poll_empty(context))?;
        Pin::new(&mut waiting.io).poll_shutdown(context)
    }
}
