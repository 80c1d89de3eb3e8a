//! Calls of gRPC with as little of a client as there can be: HTTP/2 by its library, and nothing
//! around it, so that the server is what is measured. It has the windows and the frames that stock
//! clients have.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::SocketAddrV4;
use std::sync::Arc;

use bytes::{Buf, BufMut as _, Bytes, BytesMut};
use corebox::foundation::tasks::Tasks;
use h2::RecvStream;
use h2::client::SendRequest;
use http::{HeaderValue, Request, Uri, header};
use prost::Message;
use tokio::net::TcpStream;
use tokio::sync::OnceCell;

/// Bytes that an answer may be ahead of who reads it, here and as the store has it.
pub(super) const WINDOW_BYTES: u32 = 1 << 20;
/// The same for all answers of a connection.
pub(super) const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// What stands before a message: whether it is compressed, and its length.
const HEAD_BYTES: usize = 5;

/// A connection, made when it is used first. Clones are the same one.
#[derive(Debug, Clone)]
pub(super) struct Line {
    address: SocketAddrV4,
    tasks: Tasks,
    requests: Arc<OnceCell<SendRequest<Bytes>>>,
}

impl Line {
    /// A connection to an address.
    pub(super) fn new(address: SocketAddrV4) -> Self {
        Self { address, tasks: Tasks::default(), requests: Arc::default() }
    }

    /// Calls a method and returns the message that it answers with.
    pub(super) async fn call(&self, path: &Uri, message: &impl Message) -> Result<Pieces, String> {
        let requests = self.requests.get_or_try_init(|| self.connect()).await?;
        let mut requests = requests.clone().ready().await.map_err(said)?;
        let mut request =
            Request::post(path.clone()).body(()).map_err(|error| error.to_string())?;
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        let (answer, mut sending) = requests.send_request(request, false).map_err(said)?;
        sending.send_data(framed(message), true).map_err(said)?;
        let answer = answer.await.map_err(said)?;
        let mut body = answer.into_body();
        let message = read(&mut body).await?;
        let trailers = body.trailers().await.map_err(said)?.unwrap_or_default();
        match trailers.get("grpc-status").map(HeaderValue::as_bytes) {
            Some(b"0") => Ok(message),
            _ => Err(format!("refused: {trailers:?}")),
        }
    }

    async fn connect(&self) -> Result<SendRequest<Bytes>, String> {
        let io = TcpStream::connect(self.address).await.map_err(|error| error.to_string())?;
        io.set_nodelay(true).map_err(|error| error.to_string())?;
        let mut builder = h2::client::Builder::new();
        builder
            .enable_push(false)
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        let (requests, connection) = builder.handshake(io).await.map_err(said)?;
        // Ends with the last clone of the line.
        self.tasks.spawn_short(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection of a load ended");
            }
        });
        Ok(requests)
    }
}

/// The address of a method at a server.
pub(super) fn method(address: SocketAddrV4, path: &str) -> Uri {
    format!("http://{address}{path}").parse().expect("an address and a path are a URI")
}

fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut framed = BytesMut::with_capacity(HEAD_BYTES + length);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(length).expect("a request is short"));
    message.encode(&mut framed).expect("there is room for it");
    framed.freeze()
}

/// Reads the one message of an answer.
async fn read(body: &mut RecvStream) -> Result<Pieces, String> {
    let mut pieces = Pieces::default();
    while let Some(data) = poll_fn(|context| body.poll_data(context)).await {
        let data = data.map_err(said)?;
        body.flow_control().release_capacity(data.len()).map_err(said)?;
        pieces.add(data);
    }
    if pieces.remaining() < HEAD_BYTES {
        return Err("no message".to_owned());
    }
    let (_compressed, length) = (pieces.get_u8(), pieces.get_u32());
    let whole = u32::try_from(pieces.remaining()) == Ok(length);
    if whole { Ok(pieces) } else { Err(format!("not {length} bytes, but {}", pieces.remaining())) }
}

/// Bytes in the pieces in which they came.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    pieces: VecDeque<Bytes>,
    left: usize,
}

impl Pieces {
    fn add(&mut self, piece: Bytes) {
        self.left += piece.len();
        if !piece.is_empty() {
            self.pieces.push_back(piece);
        }
    }
}

impl Buf for Pieces {
    fn remaining(&self) -> usize {
        self.left
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| piece)
    }

    fn advance(&mut self, mut count: usize) {
        self.left -= count;
        while let Some(front) = self.pieces.front_mut().filter(|_| count > 0) {
            let taken = front.len().min(count);
            front.advance(taken);
            count -= taken;
            if front.is_empty() {
                self.pieces.pop_front();
            }
        }
    }

    /// Copies only what is in several pieces.
    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        if let Some(front) = self.pieces.front_mut()
            && front.len() > length
        {
            self.left -= length;
            return front.split_to(length);
        }
        let mut bytes = BytesMut::with_capacity(length);
        bytes.put(self.take(length));
        bytes.freeze()
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` gives")]
fn said(error: h2::Error) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_in_pieces_is_read_as_one() {
        let mut pieces = Pieces::default();
        for piece in [&b"abc"[..], b"", b"de", b"fghij"] {
            pieces.add(Bytes::from_static(piece));
        }
        assert_eq!(pieces.copy_to_bytes(2), "ab");
        assert_eq!(pieces.copy_to_bytes(4), "cdef");
        pieces.advance(1);
        assert_eq!((pieces.remaining(), pieces.chunk()), (3, &b"hij"[..]));
        assert_eq!(pieces.copy_to_bytes(3), "hij");
        assert!(!pieces.has_remaining());
    }
}
