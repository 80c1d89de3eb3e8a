//! The v2 API over HTTP/1.1, with a connection for each client that is kept: as little of a client
//! as there can be, so that the server is what is measured.

use std::io;
use std::net::SocketAddrV4;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::bench::etcd::load::Client;
use crate::bench::etcd::rows::VALUE_BYTES;

/// Keys that are put and read.
pub(super) const KEYS: u64 = 1000;
/// The longest head and body of an answer about one key, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// A client with its connection, and what it does.
#[derive(Debug)]
pub(super) struct Http {
    stream: TcpStream,
    received: BytesMut,
    address: SocketAddrV4,
    puts: bool,
    form: String,
}

/// Connects clients that put keys, or get those that were put.
pub(super) async fn clients(
    address: SocketAddrV4,
    puts: bool,
    count: usize,
) -> io::Result<Vec<Http>> {
    let form = format!("value={}", "x".repeat(VALUE_BYTES));
    let mut clients = Vec::new();
    for _ in 0..count {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (received, form) = (BytesMut::new(), form.clone());
        clients.push(Http { stream, received, address, puts, form });
    }
    Ok(clients)
}

impl Http {
    fn request(&self, number: u64) -> String {
        let (address, key) = (self.address, number % KEYS);
        if self.puts {
            let kind = "application/x-www-form-urlencoded";
            let (length, form) = (self.form.len(), &self.form);
            format!(
                "PUT /v2/keys/bench/{key} HTTP/1.1\r\nHost: {address}\r\nContent-Type: {kind}\r\n\
                 Content-Length: {length}\r\n\r\n{form}"
            )
        } else {
            format!("GET /v2/keys/bench/{key} HTTP/1.1\r\nHost: {address}\r\n\r\n")
        }
    }

    async fn answer(&mut self) -> Result<Head, String> {
        loop {
            if let Some(head) = Head::parse(&self.received)?
                && self.received.len() >= head.length + head.body
            {
                self.received.advance(head.length + head.body);
                return Ok(head);
            }
            let read = self.stream.read_buf(&mut self.received).await;
            if read.map_err(|error| error.to_string())? == 0 {
                return Err("the connection ended".to_owned());
            }
            if self.received.len() > ANSWER_BYTES_MAX {
                return Err("an answer that is too long".to_owned());
            }
        }
    }
}

impl Client for Http {
    async fn once(&mut self, number: u64) -> Result<(), String> {
        let request = self.request(number);
        let sent = self.stream.write_all(request.as_bytes()).await;
        sent.map_err(|error| error.to_string())?;
        let head = self.answer().await?;
        let good = matches!(head.status, 200 | 201) && head.body > VALUE_BYTES;
        if good { Ok(()) } else { Err(format!("status {}, {} bytes", head.status, head.body)) }
    }
}

/// What the head of an answer says.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    /// Bytes of the head.
    length: usize,
    /// Bytes of the body.
    body: usize,
}

impl Head {
    /// Reads it; nothing where it is not all there yet.
    fn parse(received: &[u8]) -> Result<Option<Self>, String> {
        let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") else {
            return Ok(None);
        };
        let head = String::from_utf8_lossy(&received[..end]);
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        let body = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("Content-Length").then(|| value.trim().parse().ok())?
        });
        match (status, body) {
            (Some(status), Some(body)) => Ok(Some(Self { status, length: end + 4, body })),
            _ => Err(format!("not an answer of a known length: {head}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_once_all_of_it_is_there() {
        let answer = b"HTTP/1.1 201 Created\r\ncontent-length: 5\r\nX: y\r\n\r\nhello";
        assert_eq!(Head::parse(&answer[..40]), Ok(None));
        let head = Head { status: 201, length: answer.len() - 5, body: 5 };
        assert_eq!(Head::parse(answer), Ok(Some(head)));
        assert!(Head::parse(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
