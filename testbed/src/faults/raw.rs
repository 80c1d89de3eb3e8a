//! Bytes on a connection, and what comes back: what no client library would send.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddrV4;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Status;

/// How long an answer may take: longer than a member waits for the rest of a frame.
const ANSWER: Duration = Duration::from_secs(20);
/// The longest answer that is looked at.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// HTTP/2's own window.
const WINDOW_BYTES: u32 = (1 << 16) - 1;

/// A connection of HTTP/2 before it is used.
type Begun = (SendRequest<Bytes>, Connection<TcpStream, Bytes>);

/// Connects within the time that an answer may take.
pub(super) async fn connect(to: SocketAddrV4) -> io::Result<TcpStream> {
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    tokio::time::timeout(ANSWER, TcpStream::connect(to)).await.map_err(late)?
}

/// Sends bytes and reads until the other end closes; `ends` says that no more is coming.
pub(super) async fn talk(to: SocketAddrV4, bytes: &[u8], ends: bool) -> io::Result<Vec<u8>> {
    let both = async {
        let (read, mut write) = TcpStream::connect(to).await?.into_split();
        let mut heard = Vec::new();
        let sending = async {
            // Who refuses may close before all is sent.
            let sent = write.write_all(bytes).await;
            if ends && sent.is_ok() {
                write.shutdown().await.ok();
            }
            write
        };
        let mut read = read.take(ANSWER_BYTES_MAX);
        let (_write, read) = tokio::join!(sending, read.read_to_end(&mut heard));
        match read {
            // What was said before the connection was reset counts.
            Err(error) if heard.is_empty() && error.kind() != io::ErrorKind::ConnectionReset => {
                Err(error)
            }
            _ => Ok(heard),
        }
    };
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    tokio::time::timeout(ANSWER, both).await.map_err(late)?
}

/// Connects with a window of so many bytes for each answer, and for all of them if that is more than
/// what HTTP/2 has at least.
pub(super) async fn http2(to: SocketAddrV4, window_bytes: u32) -> io::Result<Begun> {
    let io = connect(to).await?;
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(window_bytes).enable_push(false);
    builder.initial_connection_window_size(window_bytes.max(WINDOW_BYTES));
    builder.handshake(io).await.map_err(io::Error::other)
}

/// Begins a call of gRPC.
pub(super) async fn call(
    requests: SendRequest<Bytes>,
    path: &str,
    headers: &[(&'static str, String)],
) -> io::Result<(h2::client::ResponseFuture, SendStream<Bytes>)> {
    let mut requests = requests.ready().await.map_err(io::Error::other)?;
    let mut request = Request::post(format!("http://member{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let request = request.body(()).map_err(io::Error::other)?;
    requests.send_request(request, false).map_err(io::Error::other)
}

/// Sends a call's body as it is, and returns the status of HTTP and that of gRPC, if there is one.
pub(super) async fn grpc(
    to: SocketAddrV4,
    path: &str,
    headers: &[(&'static str, String)],
    body: Bytes,
) -> io::Result<(u16, Option<Status>)> {
    let asked = async {
        let (requests, connection) = http2(to, WINDOW_BYTES).await?;
        let answered = async {
            let (answer, mut stream) = call(requests, path, headers).await?;
            // Who refuses may reset the stream before all is sent.
            stream.send_data(body, true).ok();
            let answer = answer.await.map_err(io::Error::other)?;
            let status = answer.status().as_u16();
            let (head, body) = answer.into_parts();
            Ok((status, Status::from_header_map(&head.headers).or(trailers(body).await)))
        };
        tokio::select! {
            biased;
            answered = answered => answered,
            ended = connection => match ended {
                Ok(()) => Err(io::ErrorKind::ConnectionAborted.into()),
                Err(error) => Err(io::Error::other(error)),
            },
        }
    };
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    tokio::time::timeout(ANSWER, asked).await.map_err(late)?
}

/// Reads an answer to its end, and what the last headers say.
async fn trailers(mut body: RecvStream) -> Option<Status> {
    while let Some(Ok(data)) = body.data().await {
        body.flow_control().release_capacity(data.len()).ok();
    }
    let trailers: HeaderMap = poll_fn(|context| body.poll_trailers(context)).await.ok()??;
    Status::from_header_map(&trailers)
}

/// A field of a message: its number, and bytes.
pub(super) fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        field.push(0x80 | low_bits(length));
        length >>= 7;
    }
    field.push(low_bits(length));
    field.extend_from_slice(bytes);
    field
}

fn low_bits(length: usize) -> u8 {
    u8::try_from(length & 0x7f).unwrap_or_default()
}

/// A message behind the head that gRPC has for it; the head says `flag` and `length`.
pub(super) fn framed(flag: u8, length: u32, message: &[u8]) -> Bytes {
    let mut frame = vec![flag];
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(message);
    frame.into()
}
