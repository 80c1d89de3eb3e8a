//! Connections that are kept: whoever holds them costs a member little, and disturbs nobody.

use std::io;
use std::net::SocketAddrV4;
use std::time::Duration;

use bytes::Bytes;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::error::LabError;
use crate::faults::raw::{call, connect, field, framed, http2};

/// The first words of HTTP/2.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The frame with which a client of HTTP/2 begins: no settings.
const NO_SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
/// Between two bytes of one who is slow.
const DRIP: Duration = Duration::from_millis(500);
/// Of how many bytes what is sent slowly is.
const SLOW_BYTES: usize = 1 << 20;

/// Connections, for as long as this is kept.
#[derive(Debug)]
pub struct Held {
    open: Vec<TcpStream>,
    work: JoinSet<io::Result<()>>,
}

impl Held {
    /// How many there are that nobody has ended.
    pub fn count(&mut self) -> usize {
        while self.work.try_join_next().is_some() {}
        self.open.len() + self.work.len()
    }
}

/// Allows this process, and those that it starts, at least so many descriptors.
pub fn allow_descriptors(count: usize) -> Result<(), LabError> {
    let count = count as u64;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= count) {
        return Ok(());
    }
    // Root may raise the upper limit too.
    let maximum = limit.maximum.map(|maximum| maximum.max(count));
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).map_err(|errno| {
        let most = limit.maximum.unwrap_or(u64::MAX);
        LabError::Ask {
            whom: format!(
                "the kernel for {count} descriptors, where {most} are allowed: `ulimit -Hn {count}`"
            ),
            source: errno.into(),
        }
    })
}

/// Opens connections that say nothing, half a head, half of HTTP/2's first words, or all of them.
pub async fn idle(to: SocketAddrV4, count: usize) -> io::Result<Held> {
    let whole = [PREFACE, NO_SETTINGS].concat();
    let words: [&[u8]; 4] = [b"", b"GET /v2/keys/k HTT", &PREFACE[..4], &whole];
    let mut open = Vec::with_capacity(count);
    for word in words.iter().cycle().take(count) {
        let mut connection = connect(to).await?;
        connection.write_all(word).await?;
        open.push(connection);
    }
    Ok(Held { open, work: JoinSet::new() })
}

/// Opens connections that send byte after byte: a head, a form, HTTP/2's first words, a message of
/// gRPC.
pub fn slow(to: SocketAddrV4, count: usize) -> Held {
    let mut work = JoinSet::new();
    let head = b"GET /v2/keys/k HTTP/1.1\r\nX: ".to_vec();
    let form = format!(
        "PUT /v2/keys/k HTTP/1.1\r\nHost: member\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {SLOW_BYTES}\r\n\r\nvalue="
    );
    for number in 0..count {
        match number % 4 {
            0 => work.spawn(drip(to, head.clone(), b"")),
            1 => work.spawn(drip(to, form.clone().into_bytes(), b"")),
            2 => work.spawn(drip(to, PREFACE[..4].to_vec(), &PREFACE[4..])),
            _ => work.spawn(drip_message(to)),
        };
    }
    Held { open: Vec::new(), work }
}

/// Sends how something begins, and the rest of it byte after byte; the rest never ends.
async fn drip(to: SocketAddrV4, begin: Vec<u8>, rest: &'static [u8]) -> io::Result<()> {
    let mut connection = connect(to).await?;
    connection.write_all(&begin).await?;
    for byte in rest.iter().chain(std::iter::repeat_n(&b'x', SLOW_BYTES)) {
        tokio::time::sleep(DRIP).await;
        connection.write_all(&[*byte]).await?;
    }
    Ok(())
}

/// The same for a call of gRPC.
async fn drip_message(to: SocketAddrV4) -> io::Result<()> {
    let (requests, connection) = http2(to, 1 << 20).await?;
    let dripping = async {
        let (_answer, mut stream) = call(requests, "/etcdserverpb.KV/Put", &[]).await?;
        let length = u32::try_from(SLOW_BYTES).unwrap_or(u32::MAX);
        stream.send_data(framed(0, length, b""), false).map_err(io::Error::other)?;
        for _ in 0..SLOW_BYTES {
            tokio::time::sleep(DRIP).await;
            stream.send_data(Bytes::from_static(b"x"), false).map_err(io::Error::other)?;
        }
        Ok(())
    };
    tokio::select! {
        biased;
        ended = connection => ended.map_err(io::Error::other),
        done = dripping => done,
    }
}

/// Watches everything and never reads what is told: over gRPC without a window, over gRPC without
/// reading the connection at all, as JSON, and by the v2 API.
pub async fn never_reading(to: SocketAddrV4, count: usize) -> io::Result<Held> {
    let (mut open, mut work) = (Vec::new(), JoinSet::new());
    for number in 0..count {
        match number % 4 {
            0 => drop(work.spawn(watch(to, Reads::Frames))),
            1 => drop(work.spawn(watch(to, Reads::Nothing))),
            2 => {
                let body = "{\"create_request\":{\"key\":\"AA==\",\"range_end\":\"AA==\"}}";
                let request = format!(
                    "POST /v3/watch HTTP/1.1\r\nHost: member\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                open.push(said(to, &request).await?);
            }
            _ => {
                let path = "/v2/keys/?wait=true&recursive=true&stream=true";
                let request = format!("GET {path} HTTP/1.1\r\nHost: member\r\n\r\n");
                open.push(said(to, &request).await?);
            }
        }
    }
    Ok(Held { open, work })
}

async fn said(to: SocketAddrV4, request: &str) -> io::Result<TcpStream> {
    let mut connection = connect(to).await?;
    connection.write_all(request.as_bytes()).await?;
    Ok(connection)
}

/// What one reads who does not read what it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reads {
    /// What is about the connection, and no data: there is no window for it.
    Frames,
    /// Nothing, once it has asked.
    Nothing,
}

async fn watch(to: SocketAddrV4, reads: Reads) -> io::Result<()> {
    let everything = field(1, &[field(1, b"\0"), field(2, b"\0")].concat());
    let length = u32::try_from(everything.len()).unwrap_or(u32::MAX);
    let window = if reads == Reads::Frames { 0 } else { 1 << 24 };
    let (requests, mut connection) = http2(to, window).await?;
    let (answer, mut stream) = {
        let asked = call(requests, "/etcdserverpb.Watch/Watch", &[]);
        tokio::select! {
            biased;
            asked = asked => asked?,
            ended = &mut connection => return ended.map_err(io::Error::other),
        }
    };
    stream.send_data(framed(0, length, &everything), false).map_err(io::Error::other)?;
    // The head of the answer says that the request is there.
    let body = tokio::select! {
        biased;
        answer = answer => answer.map_err(io::Error::other)?.into_body(),
        ended = &mut connection => return ended.map_err(io::Error::other),
    };
    let ended = match reads {
        Reads::Frames => connection.await.map_err(io::Error::other),
        Reads::Nothing => std::future::pending().await,
    };
    drop((stream, body));
    ended
}
