//! Requests that no store should do, each with the words in which it is refused.

use std::io;
use std::net::SocketAddrV4;

use bytes::Bytes;
use tonic::Code;

use crate::faults::raw::{field, framed, grpc, talk};

/// The longest message of gRPC that a member reads: 1.5 MiB, and half a MiB for what is around it.
const MESSAGE_BYTES_MAX: usize = 2 << 20;
/// The longest body of the v2 API.
const BODY_BYTES_MAX: usize = 1_572_864;
/// The longest head of a request of HTTP/1.
const HEAD_BYTES_MAX: usize = 72 << 10;

const PUT: &str = "/etcdserverpb.KV/Put";
const RANGE: &str = "/etcdserverpb.KV/Range";
const TXN: &str = "/etcdserverpb.KV/Txn";
const USER_ADD: &str = "/etcdserverpb.Auth/UserAdd";

/// What is wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// It is too long.
    Oversize,
    /// Its text is none.
    BadText,
    /// It is no message.
    Malformed,
    /// It has another length than it says.
    Lying,
}

/// A bad request.
#[derive(Debug, Clone)]
pub struct Bad {
    /// What is wrong with it.
    pub kind: Kind,
    /// Exactly what it is.
    pub what: &'static str,
    /// What is to be said of it.
    pub refusal: Refusal,
    wire: Wire,
}

/// What a member answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// A status of HTTP, and the body.
    Http(u16, String),
    /// A code of gRPC, and its message.
    Grpc(Code, String),
    /// The connection is closed without a word: who speaks to a member's port for members and is
    /// none, is told nothing.
    Closed,
}

#[derive(Debug, Clone)]
enum Wire {
    /// HTTP/1 at the port for clients.
    Http1(Vec<u8>),
    /// The same, with the connection's sending half closed behind it.
    Http1Ended(Vec<u8>),
    /// A call of gRPC.
    Grpc { path: &'static str, headers: Vec<(&'static str, String)>, body: Bytes },
    /// Anything at the port for members; the connection's sending half stays open.
    Peer(Vec<u8>),
}

impl Bad {
    /// Asks it of a member, and returns the answer.
    pub async fn ask(&self, client: SocketAddrV4, peer: SocketAddrV4) -> io::Result<Refusal> {
        match &self.wire {
            Wire::Http1(bytes) => parsed(&talk(client, bytes, false).await?),
            Wire::Http1Ended(bytes) => parsed(&talk(client, bytes, true).await?),
            Wire::Peer(bytes) => {
                let answer = talk(peer, bytes, false).await?;
                if answer.is_empty() { Ok(Refusal::Closed) } else { parsed(&answer) }
            }
            Wire::Grpc { path, headers, body } => {
                let (http, status) = grpc(client, path, headers, body.clone()).await?;
                Ok(match status {
                    Some(status) => Refusal::Grpc(status.code(), status.message().to_owned()),
                    None => Refusal::Http(http, String::new()),
                })
            }
        }
    }
}

/// Takes an answer of HTTP/1 apart.
fn parsed(answer: &[u8]) -> io::Result<Refusal> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let none = || io::Error::new(io::ErrorKind::InvalidData, format!("no answer: {text:?}"));
    Ok(Refusal::Http(status.ok_or_else(none)?, body.trim_end().to_owned()))
}

/// All of them.
#[must_use]
pub fn all() -> Vec<Bad> {
    [oversize(), bad_text(), malformed(), lying()].concat()
}

fn http1(
    kind: Kind,
    what: &'static str,
    bytes: impl Into<Vec<u8>>,
    (status, body): (u16, &str),
) -> Bad {
    let (refusal, wire) = (Refusal::Http(status, body.to_owned()), Wire::Http1(bytes.into()));
    Bad { kind, what, refusal, wire }
}

fn call(
    kind: Kind,
    what: &'static str,
    (path, body): (&'static str, Bytes),
    (code, text): (Code, &str),
) -> Bad {
    let refusal = Refusal::Grpc(code, text.to_owned());
    Bad { kind, what, refusal, wire: Wire::Grpc { path, headers: Vec::new(), body } }
}

fn peer(kind: Kind, what: &'static str, bytes: Vec<u8>) -> Bad {
    Bad { kind, what, refusal: Refusal::Closed, wire: Wire::Peer(bytes) }
}

/// A message behind a head that tells the truth about it.
fn message(message: &[u8]) -> Bytes {
    framed(0, u32::try_from(message.len()).unwrap_or(u32::MAX), message)
}

/// A request of HTTP/1 with a body, and the length that it says the body has.
fn request(line: &str, kind: &str, length: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "{line} HTTP/1.1\r\nHost: member\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

fn json(path: &str, body: &[u8]) -> Vec<u8> {
    let line = format!("POST /v3/{path}");
    request(&line, "application/json", &body.len().to_string(), body)
}

fn form(length: &str, body: &[u8]) -> Vec<u8> {
    request("PUT /v2/keys/bad", "application/x-www-form-urlencoded", length, body)
}

fn oversize() -> Vec<Bad> {
    let large = vec![b'x'; MESSAGE_BYTES_MAX];
    let put = message(&[field(1, b"k"), field(2, &large)].concat());
    let headers = vec![("x-long", "x".repeat(20 << 10))];
    // Exactly what is too much by one, so that nothing is left unread when it is refused.
    let body = [b"value=".to_vec(), vec![b'x'; BODY_BYTES_MAX - 5]].concat();
    let mut head = b"GET /v2/keys HTTP/1.1\r\nX: ".to_vec();
    head.resize(HEAD_BYTES_MAX, b'x');
    let too_long = "received message larger than max (2097160 vs. 2097152)";
    vec![
        call(Kind::Oversize, "a put", (PUT, put), (Code::ResourceExhausted, too_long)),
        Bad {
            kind: Kind::Oversize,
            what: "a head of HTTP/2",
            refusal: Refusal::Http(431, String::new()),
            wire: Wire::Grpc { path: PUT, headers, body: message(&[]) },
        },
        http1(Kind::Oversize, "a head of HTTP/1", head, (431, "")),
        http1(
            Kind::Oversize,
            "a form",
            form(&body.len().to_string(), &body),
            (
                400,
                "{\"errorCode\":210,\"message\":\"Invalid POST form\",\"cause\":\"http: request body too large; at most 1572864 bytes\",\"index\":0}",
            ),
        ),
        http1(
            Kind::Oversize,
            "an object of JSON",
            json("kv/put", &vec![b' '; 2 * MESSAGE_BYTES_MAX + 1]),
            (429, "{\"code\":8,\"message\":\"the body is longer than 4194304 bytes\"}"),
        ),
    ]
}

fn bad_text() -> Vec<Bad> {
    let name = message(&field(1, b"\xff\xfe"));
    vec![
        call(
            Kind::BadText,
            "a name",
            (USER_ADD, name),
            (Code::Internal, "failed to decode Protobuf message: AuthUserAddRequest.name: invalid string value: data is not UTF-8 encoded"),
        ),
        http1(
            Kind::BadText,
            "an object of JSON",
            json("kv/put", b"{\"key\":\"\xff\"}"),
            (400, "{\"code\":3,\"message\":\"the body is not JSON: invalid unicode code point at line 1 column 9\"}"),
        ),
        http1(
            Kind::BadText,
            "a path",
            b"GET /v2/keys/\xff HTTP/1.1\r\nHost: member\r\nConnection: close\r\n\r\n",
            (400, ""),
        ),
        http1(
            Kind::BadText,
            "a header",
            b"POST /v3/kv/range HTTP/1.1\r\nHost: member\r\nConnection: close\r\nContent-Length: 0\r\nGrpc-Metadata-Client-Api-Version: 3.\xff\r\n\r\n",
            (400, "{\"code\":3,\"message\":\"etcdserver: invalid client api version\"}"),
        ),
    ]
}

fn malformed() -> Vec<Bad> {
    let mut nested = Vec::new();
    for _ in 0..200 {
        // A transaction as the first operation of a transaction.
        nested = field(2, &field(4, &nested));
    }
    // The library reads a hundred messages deep.
    let path = "TxnRequest.success: RequestOp.request: ".repeat(50);
    let too_deep = format!(
        "failed to decode Protobuf message: {path}TxnRequest.success: recursion limit reached"
    );
    let calls = [
        (
            "a field of no kind",
            (RANGE, message(b"\x0f")),
            "failed to decode Protobuf message: invalid wire type value: 7",
        ),
        (
            "a field that is longer than its message",
            (RANGE, message(b"\x0a\x64key")),
            "failed to decode Protobuf message: RangeRequest.key: buffer underflow",
        ),
        ("transactions in transactions", (TXN, message(&nested)), &too_deep),
        (
            "a message compressed by nobody knows what",
            (RANGE, framed(1, 3, b"abc")),
            "protocol error: received message with compressed-flag but no grpc-encoding was specified",
        ),
        (
            "a flag of no meaning",
            (RANGE, framed(7, 0, b"")),
            "protocol error: received message with invalid compression flag: 7 (valid flags are 0 and 1), while sending request",
        ),
    ];
    let calls =
        calls.map(|(what, asked, text)| call(Kind::Malformed, what, asked, (Code::Internal, text)));
    let others = [
        http1(
            Kind::Malformed,
            "half an object",
            json("kv/put", b"{\"key\":"),
            (
                400,
                "{\"code\":3,\"message\":\"the body is not JSON: EOF while parsing a value at line 1 column 7\"}",
            ),
        ),
        http1(
            Kind::Malformed,
            "a key that is no base64",
            json("kv/put", b"{\"key\":\"?\"}"),
            (400, "{\"code\":3,\"message\":\"`key` is not in base64\"}"),
        ),
        http1(
            Kind::Malformed,
            "a greeting of TLS",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
            (400, ""),
        ),
    ];
    calls.into_iter().chain(others).collect()
}

fn lying() -> Vec<Bad> {
    let range = |frame| (RANGE, frame);
    let early = (Code::Internal, "Unexpected EOF decoding stream.");
    let broken = "{\"errorCode\":210,\"message\":\"Invalid POST form\",\"cause\":\"error reading a body from connection\",\"index\":0}";
    let length = |length: u32, rest: &[u8]| [b"CBX2", &length.to_le_bytes()[..], rest].concat();
    vec![
        call(
            Kind::Lying,
            "a message that is to have 4 GiB",
            range(framed(0, u32::MAX, b"abc")),
            (Code::ResourceExhausted, "received message larger than max (4294967295 vs. 2097152)"),
        ),
        call(
            Kind::Lying,
            "a message that ends early",
            range(framed(0, 2_000_000, b"abc")),
            early,
        ),
        call(
            Kind::Lying,
            "a message with more behind it",
            range([&message(&field(1, b"k"))[..], b"more"].concat().into()),
            early,
        ),
        Bad {
            kind: Kind::Lying,
            what: "a form that ends early",
            refusal: Refusal::Http(400, broken.to_owned()),
            wire: Wire::Http1Ended(form("1000", b"value=1")),
        },
        http1(
            Kind::Lying,
            "a form of all lengths",
            form(&u64::MAX.to_string(), b"value=1"),
            (431, ""),
        ),
        http1(Kind::Lying, "a form of less than nothing", form("-1", b"value=1"), (400, "")),
        http1(
            Kind::Lying,
            "a form of two lengths",
            form("7\r\nContent-Length: 8", b"value=1"),
            (400, ""),
        ),
        http1(
            Kind::Lying,
            "a chunk of all lengths",
            b"PUT /v2/keys/bad HTTP/1.1\r\nHost: member\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nvalue=1",
            (400, broken),
        ),
        peer(Kind::Lying, "a greeting of 4 GiB", length(u32::MAX, b"")),
        peer(Kind::Lying, "a greeting of half a GiB", length(500 << 20, &[0; 1 << 20])),
    ]
}
