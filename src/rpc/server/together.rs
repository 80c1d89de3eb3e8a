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
//! What one request computes holds up the others of its connection, as long as a piece of a large
//! range is written: hashing all keys, which takes longer, has a thread of its own.

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
/// What is longer is a piece of something long.
const LARGE_BYTES: usize = 8 << 10;
/// Room that an idle connection keeps.
const KEPT_BYTES: usize = 1 << 10;
/// How often a connection goes on by itself before other tasks have their turn.
const TURNS_MAX: usize = 16;

/// What is asked on a connection, a future each. Clones are the same list.
#[derive(Clone, Default)]
pub(super) struct Asked {
    new: Arc<Mutex<Vec<Work>>>,
}

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Asked {
    fn added(&self) -> MutexGuard<'_, Vec<Work>> {
        self.new.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Asked {
    fn execute(&self, work: F) {
        self.added().push(Box::pin(work));
    }
}

/// Sees a connection through: `served` with the futures that it gives to `asked`, and `behind`
/// with the bytes that it writes. Dropping the future ends all of them.
pub(super) async fn served<S>(mut served: Pin<&mut S>, asked: &Asked, behind: &Behind) -> S::Output
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
            // What woke this task so far is seen to by what follows.
            wakes.clear();
            ended = served.as_mut().poll(context);
            running.extend(asked.added().drain(..));
            while let Poll::Ready(Some(())) = Pin::new(&mut running).poll_next(context) {}
            if ended.is_ready() || !wakes.is_woken() {
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
    }

    fn clear(&self) {
        self.woken.store(false, Ordering::SeqCst);
    }

    /// Tells whether there was a wake since all were cleared.
    fn is_woken(&self) -> bool {
        self.woken.load(Ordering::SeqCst)
    }

    /// A wake from now on schedules the task, and so does one that was not cleared.
    fn end(&self) {
        self.runs.store(false, Ordering::SeqCst);
        if self.is_woken() {
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
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.bytes.advance(count);
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
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.bytes.advance(count.min(waited));
            if count > waited {
                return Poll::Ready(Ok(count - waited));
            }
        }
        if data.len() > LARGE_BYTES {
            // More will come, and what waits is not to be moved each time that there is no room.
            self.bytes.reserve(BEHIND_BYTES - self.bytes.len());
        }
        self.bytes.extend_from_slice(data);
        Poll::Ready(Ok(data.len()))
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const SOON: Duration = Duration::from_mins(1);

    fn pair() -> (Behind, Box<dyn Io>) {
        let (one, other) = tokio::io::duplex(1 << 10);
        (Behind::new(Box::new(one)), Box::new(other))
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_wakes_itself_often_is_not_forgotten() {
        for often in [1, TURNS_MAX, 3 * TURNS_MAX + 1] {
            let (behind, _other) = pair();
            let mut left = often;
            let work = future::poll_fn(|context| {
                context.waker().wake_by_ref();
                left -= 1;
                if left == 0 { Poll::Ready(()) } else { Poll::Pending }
            });
            let (work, asked) = (std::pin::pin!(work), Asked::default());
            tokio::time::timeout(SOON, served(work, &asked, &behind)).await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_asked_runs_and_what_it_writes_is_sent_while_the_connection_waits() {
        let (behind, mut other) = pair();
        let asked = Asked::default();
        let mut writes = behind.clone();
        asked.execute(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            writes.write_all(&[7; 5 << 10]).await.unwrap();
        });
        let forever = std::pin::pin!(future::pending::<()>());
        let mut heard = [0; 5 << 10];
        tokio::select! {
            biased;
            () = served(forever, &asked, &behind) => panic!("it never ends"),
            read = tokio::time::timeout(SOON, other.read_exact(&mut heard)) => read.unwrap().unwrap(),
        };
        assert_eq!(heard, [7; 5 << 10]);
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_arrive_in_order_however_many_are_written_at_once() {
        let (mut behind, mut other) = pair();
        let pieces = [10, BEHIND_BYTES - 10, 1, 3 * BEHIND_BYTES, 77, 0, BEHIND_BYTES + 1];
        let all: Vec<u8> = (0..pieces.iter().sum()).map(|at: usize| at.to_le_bytes()[0]).collect();
        let mut rest = &all[..];
        let writing = async {
            for length in pieces {
                let (piece, left) = rest.split_at(length);
                behind.write_all(piece).await.unwrap();
                rest = left;
            }
            behind.shutdown().await.unwrap();
        };
        let mut heard = Vec::new();
        let (read, ()) = tokio::join!(other.read_to_end(&mut heard), writing);
        assert_eq!(read.unwrap(), all.len());
        assert_eq!(heard, all);
    }
}
