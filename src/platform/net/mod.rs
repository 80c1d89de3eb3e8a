//! The network, as far as we speak to it: byte streams, and names that become addresses.
//!
//! One deadline rule: nothing here gives up by itself, so every caller brings its own deadline.
//! The simulator never delivers what a partition swallowed.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};

pub mod memory;
pub mod tokio_net;

pub use memory::MemoryNet;
pub use tokio_net::TokioNet;

/// A call across the seam.
pub type Call<'a, T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send + 'a>>;

/// A connection, whoever carries it.
pub trait Io: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Io for T {}

/// Where to listen or to connect to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Address {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A unix socket's path.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => write!(f, "{addr}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(addr: SocketAddr) -> Self {
        Self::Tcp(addr)
    }
}

/// A connection that came in, and from where; unix sockets have no address to tell.
pub type Accepted = (Box<dyn Io>, Option<SocketAddr>);

/// Connections coming in.
pub trait Incoming: Send {
    /// Waits for the next connection. Cancel safe: no connection is lost.
    fn accept(&mut self) -> Call<'_, Accepted>;

    /// Returns where this listens; the port is the real one where port 0 was asked for.
    fn local(&self) -> Address;
}

/// The network.
pub trait Net: fmt::Debug + Send + Sync {
    /// Listens at `address`. A unix socket's stale file is replaced.
    fn bind<'a>(&'a self, address: &'a Address) -> Call<'a, Box<dyn Incoming>>;

    /// Connects to `address`. Waits for as long as it takes.
    fn connect<'a>(&'a self, address: &'a Address) -> Call<'a, Box<dyn Io>>;

    /// Resolves a host name; an address in text form is its own answer.
    fn resolve<'a>(&'a self, host: &'a str) -> Call<'a, Vec<IpAddr>>;

    /// Takes the sockets that the service manager opened for us (`sd_listen_fds(3)`), once.
    fn inherited(&self) -> io::Result<Vec<Box<dyn Incoming>>>;
}

/// Resolves a host and takes the first address, IPv4 before IPv6.
pub async fn first_address(net: &dyn Net, host: &str) -> io::Result<IpAddr> {
    let mut found = net.resolve(host).await?;
    found.sort_by_key(IpAddr::is_ipv6);
    found
        .into_iter()
        .next()
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("`{host}` has no address")))
}

/// Everything that any network must do. `local` must be an address that can be bound.
#[cfg(test)]
pub(crate) async fn contract(net: &dyn Net, local: Address) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let mut incoming = net.bind(&local).await.unwrap();
    let address = incoming.local();
    let (client, server) = tokio::join!(net.connect(&address), incoming.accept());
    let (mut client, (mut server, _)) = (client.unwrap(), server.unwrap());
    client.write_all(b"ping").await.unwrap();
    client.shutdown().await.unwrap();
    let mut heard = Vec::new();
    server.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"ping", "what was said before a half-close arrives");
    server.write_all(b"pong").await.unwrap();
    drop(server);
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"pong", "a half-closed connection still carries the answer");

    let taken = net.bind(&address).await.map(drop).unwrap_err();
    assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    drop(incoming);
    let refused = net.connect(&address).await.map(drop).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "{refused}");
    assert_eq!(net.resolve("127.0.0.1").await.unwrap(), [IpAddr::from([127, 0, 0, 1])]);
}
