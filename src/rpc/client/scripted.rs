//! A server for tests that says what it was told to say, well or badly.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::foundation::tasks::Tasks;
use crate::platform::net::{Address, Io, MemoryNet, Net as _};
use crate::rpc::client::url::Origin;

/// How to treat one request.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// These bytes.
    Raw(String),
    /// These bytes, then the end of the connection.
    RawLast(String),
    /// The end of the connection.
    Cut,
    /// Silence.
    Hang,
}

impl Reply {
    /// Answers 200 with a body.
    pub(crate) fn ok(body: &str) -> Self {
        Self::status(200, "", body)
    }

    /// Answers 200 with a body and closes.
    pub(crate) fn last(body: &str) -> Self {
        let Self::Raw(text) = Self::ok(body) else { unreachable!("`ok` is raw") };
        Self::RawLast(text)
    }

    /// Answers `status` with more header lines and a body.
    pub(crate) fn status(status: u16, headers: &str, body: &str) -> Self {
        let length = body.len();
        Self::Raw(format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n{headers}\r\n{body}"))
    }
}

/// Where the tests' server listens.
pub(crate) fn origin() -> Origin {
    Origin::Tcp { host: "10.0.0.1".into(), port: 2379 }
}

/// A server whose replies are given in advance, one for each request; then it hangs.
#[derive(Debug, Clone)]
pub(crate) struct Scripted {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    replies: std::vec::IntoIter<Reply>,
    requests: Vec<String>,
    connections: usize,
}

impl Scripted {
    /// Listens at `origin` on `net`.
    pub(crate) async fn start(
        net: &MemoryNet,
        origin: &Origin,
        tasks: &Tasks,
        replies: Vec<Reply>,
    ) -> Self {
        let Origin::Tcp { host, port } = origin else { panic!("a TCP origin") };
        let address = Address::Tcp((host.parse::<std::net::IpAddr>().unwrap(), *port).into());
        let mut incoming = net.bind(&address).await.unwrap();
        let state = State { replies: replies.into_iter(), requests: Vec::new(), connections: 0 };
        let server = Self { state: Arc::new(Mutex::new(state)) };
        let (here, of_each) = (server.clone(), tasks.clone());
        tasks.spawn("scripted", |_stop| async move {
            while let Ok((io, _)) = incoming.accept().await {
                here.state.lock().unwrap().connections += 1;
                let here = here.clone();
                of_each.spawn("scripted connection", |_stop| async move { here.serve(io).await });
            }
        });
        server
    }

    async fn serve(self, mut io: Box<dyn Io>) {
        while let Some(request) = read_request(&mut io).await {
            let reply = {
                let mut state = self.state.lock().unwrap();
                state.requests.push(request);
                state.replies.next()
            };
            match reply {
                Some(Reply::Raw(text)) => io.write_all(text.as_bytes()).await.unwrap(),
                Some(Reply::RawLast(text)) => {
                    io.write_all(text.as_bytes()).await.unwrap();
                    return;
                }
                Some(Reply::Cut) => return,
                Some(Reply::Hang) | None => std::future::pending().await,
            }
        }
    }

    /// Returns every request so far, head and body.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.state.lock().unwrap().requests.clone()
    }

    /// Returns how many connections were made.
    pub(crate) fn connections(&self) -> usize {
        self.state.lock().unwrap().connections
    }
}

async fn read_request(io: &mut Box<dyn Io>) -> Option<String> {
    let mut text = String::new();
    loop {
        if let Some((head, body)) = text.split_once("\r\n\r\n")
            && body.len() >= content_length(head)
        {
            return Some(text);
        }
        let mut piece = [0; 4096];
        let read = io.read(&mut piece).await.ok().filter(|read| *read > 0)?;
        text.push_str(std::str::from_utf8(&piece[..read]).unwrap());
    }
}

fn content_length(head: &str) -> usize {
    let value = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length").then(|| value.parse().unwrap())
    });
    value.unwrap_or_default()
}
