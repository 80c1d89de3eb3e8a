//! The peer port: frames between members, and the few words of HTTP that old proxies know there.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use http::StatusCode;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio_util::sync::CancellationToken;

use crate::consensus::Member;
use crate::consensus::network::MAGIC;
use crate::foundation::tasks::Tasks;
use crate::platform::net::{Incoming, Io};
use crate::rpc::server::keys_v2::{json_answer, member_list, version};
use crate::rpc::server::listen;

/// How long a caller may take to say which of the two it speaks.
const FIRST_WORD: Duration = Duration::from_secs(10);

/// Serves both on `incoming` until the tasks stop.
pub fn serve(incoming: Box<dyn Incoming>, member: &Member, tasks: &Tasks) {
    let member = member.clone();
    let router = router(member.clone());
    listen::accept(incoming, tasks, move |(io, _from), stop| {
        let (member, router) = (member.clone(), router.clone());
        async move { sort(io, &member, router, stop).await }
    });
}

fn router(member: Member) -> Router {
    let version = || async { json_answer(StatusCode::OK, &version()) };
    let members = move || {
        let list = serde_json::to_string(&member_list(&member)).unwrap_or_default();
        let mut answer = json_answer(StatusCode::OK, &list);
        let cluster = format!("{:x}", member.cluster()).try_into();
        if let Ok(cluster) = cluster {
            answer.headers_mut().insert("x-etcd-cluster-id", cluster);
        }
        async { answer }
    };
    Router::new().route("/version", get(version)).route("/members", get(members))
}

/// Finds out what the caller speaks, and answers it.
async fn sort(mut io: Box<dyn Io>, member: &Member, router: Router, stop: CancellationToken) {
    let mut first = [0; 4];
    let read = tokio::time::timeout(FIRST_WORD, io.read_exact(&mut first));
    let read = tokio::select! {
        biased;
        () = stop.cancelled() => return,
        read = read => read,
    };
    match read {
        Ok(Ok(_)) if &first == MAGIC => member.serve_peer(io),
        Ok(Ok(_)) => {
            let io = Unread { first, taken: 0, io };
            listen::connection(Box::new(io), router, stop).await;
        }
        _ => {}
    }
}

/// A connection whose first bytes were read already.
struct Unread {
    first: [u8; 4],
    taken: usize,
    io: Box<dyn Io>,
}

impl AsyncRead for Unread {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let left = &self.first[self.taken..];
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
