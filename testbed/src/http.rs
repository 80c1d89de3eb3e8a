//! Just enough of an HTTP client to ask a node: one request, one connection, a deadline.

use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::error::LabError;
use crate::net::Net;

/// The longest answer that is read: the whole registry of a test cluster is below 1 MiB.
const LONGEST: u64 = 64 << 20;

/// What a server said.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The header lines as they came.
    pub head: String,
    /// The body.
    pub body: String,
    /// Who was asked what, for messages.
    pub whom: String,
}

impl Answer {
    /// The value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The body as JSON, where the answer is a success.
    pub fn json(&self) -> Result<Value, LabError> {
        let good = (200..300).contains(&self.status);
        let parsed = good.then(|| serde_json::from_str(&self.body).ok()).flatten();
        parsed.ok_or_else(|| self.unexpected())
    }

    /// The error for an answer that will not do.
    #[must_use]
    pub fn unexpected(&self) -> LabError {
        let body: String = self.body.chars().take(300).collect();
        LabError::Answer { whom: self.whom.clone(), what: format!("{} {body:?}", self.status) }
    }
}

/// Asks a server inside the lab's network.
pub fn ask(
    net: &Net,
    server: SocketAddrV4,
    request: &Request<'_>,
    limit: Duration,
) -> Result<Answer, LabError> {
    let whom = format!("http://{server}{} ({})", request.path, request.method);
    let failed = |source| LabError::Ask { whom: whom.clone(), source };
    let stream = net.connect(server, limit).map_err(failed)?;
    stream.set_read_timeout(Some(limit)).map_err(failed)?;
    stream.set_write_timeout(Some(limit)).map_err(failed)?;
    converse(stream, request, &whom)
}

/// `GET` of a path inside the lab's network.
pub fn get(
    net: &Net,
    server: SocketAddrV4,
    path: &str,
    limit: Duration,
) -> Result<Answer, LabError> {
    ask(net, server, &Request { method: "GET", path, body: None }, limit)
}

/// Asks a server on an address of this host.
pub fn ask_local(
    server: SocketAddrV4,
    request: &Request<'_>,
    limit: Duration,
) -> Result<Answer, LabError> {
    let whom = format!("http://{server}{} ({})", request.path, request.method);
    let failed = |source| LabError::Ask { whom: whom.clone(), source };
    let stream = dial(server, limit).map_err(failed)?;
    converse(stream, request, &whom)
}

/// Opens an answer on this host that does not end, and returns its lines behind the head.
pub fn follow_local(
    server: SocketAddrV4,
    path: &str,
    limit: Duration,
) -> Result<impl Iterator<Item = io::Result<String>>, LabError> {
    let whom = format!("http://{server}{path} (GET)");
    let failed = |source| LabError::Ask { whom: whom.clone(), source };
    let mut stream = dial(server, limit).map_err(failed)?;
    let request = Request { method: "GET", path, body: None };
    stream.write_all(request.text().as_bytes()).map_err(failed)?;
    let mut lines = BufReader::new(stream).lines();
    while let Some(line) = lines.next().transpose().map_err(failed)? {
        if line.is_empty() {
            return Ok(lines);
        }
    }
    Err(failed(io::ErrorKind::UnexpectedEof.into()))
}

/// An answer on this host that may come late, or go on: its parts are there when they are looked for.
#[derive(Debug)]
pub struct Slow {
    stream: TcpStream,
    bytes: Vec<u8>,
    whom: String,
}

impl Slow {
    /// Asks, and waits until the head of the answer has come.
    pub fn ask(
        server: SocketAddrV4,
        request: &Request<'_>,
        limit: Duration,
    ) -> Result<Self, LabError> {
        let whom = format!("http://{server}{} ({})", request.path, request.method);
        let failed = |source| LabError::Ask { whom: whom.clone(), source };
        let mut stream = dial(server, limit).map_err(failed)?;
        stream.write_all(request.text().as_bytes()).map_err(failed)?;
        let (mut bytes, mut part) = (Vec::new(), [0; 4096]);
        while !bytes.windows(4).any(|end| end == b"\r\n\r\n") {
            match stream.read(&mut part).map_err(failed)? {
                0 => return Err(failed(io::ErrorKind::UnexpectedEof.into())),
                length => bytes.extend_from_slice(&part[..length]),
            }
        }
        stream.set_nonblocking(true).map_err(failed)?;
        Ok(Self { stream, bytes, whom })
    }

    /// What has come so far.
    pub fn so_far(&mut self) -> Result<Answer, LabError> {
        let failed = |source| LabError::Ask { whom: self.whom.clone(), source };
        match self.stream.read_to_end(&mut self.bytes) {
            // What came before there was no more is kept.
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(failed(error)),
            _ => parsed(&self.bytes, &self.whom).map_err(failed),
        }
    }
}

fn dial(server: SocketAddrV4, limit: Duration) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&server.into(), limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    Ok(stream)
}

/// Asks a server on a unix socket.
pub fn ask_socket(
    socket: &Path,
    request: &Request<'_>,
    limit: Duration,
) -> Result<Answer, LabError> {
    let whom = format!("{}:{} ({})", socket.display(), request.path, request.method);
    let failed = |source| LabError::Ask { whom: whom.clone(), source };
    let stream = UnixStream::connect(socket).map_err(failed)?;
    stream.set_read_timeout(Some(limit)).map_err(failed)?;
    stream.set_write_timeout(Some(limit)).map_err(failed)?;
    converse(stream, request, &whom)
}

/// What to ask.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The method, in capitals.
    pub method: &'a str,
    /// Path and query.
    pub path: &'a str,
    /// A body with its content type.
    pub body: Option<(&'a str, &'a str)>,
}

impl Request<'_> {
    /// What goes over the wire. HTTP 1.0: the server neither keeps the connection nor answers in
    /// chunks.
    fn text(&self) -> String {
        let Self { method, path, body } = self;
        let content = body.map_or(String::new(), |(kind, body)| {
            format!("Content-Type: {kind}\r\nContent-Length: {}\r\n", body.len())
        });
        let body = body.map_or("", |(_, body)| body);
        format!("{method} {path} HTTP/1.0\r\nHost: lab\r\n{content}\r\n{body}")
    }
}

fn converse(
    mut stream: impl Read + Write,
    request: &Request<'_>,
    whom: &str,
) -> Result<Answer, LabError> {
    let failed = |source| LabError::Ask { whom: whom.to_owned(), source };
    stream.write_all(request.text().as_bytes()).map_err(failed)?;
    let mut bytes = Vec::new();
    stream.take(LONGEST).read_to_end(&mut bytes).map_err(failed)?;
    parsed(&bytes, whom).map_err(failed)
}

fn parsed(bytes: &[u8], whom: &str) -> io::Result<Answer> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status =
        status.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no HTTP answer"))?;
    Ok(Answer { status, head: head.to_owned(), body: body.to_owned(), whom: whom.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_apart() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"HTTP/1.0 201 Created\r\nX-Etcd-Index: 7\r\n\r\n{\"a\":1}").unwrap();
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        let request = Request { method: "GET", path: "/", body: None };
        let answer = converse(ours, &request, "it").unwrap();
        assert_eq!(answer.status, 201);
        assert_eq!(answer.header("x-etcd-index"), Some("7"));
        assert_eq!(answer.json().unwrap()["a"], 1);
    }
}
