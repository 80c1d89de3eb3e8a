//! From an origin to a connection: names are resolved, and each address is tried.

use std::io;
use std::net::{IpAddr, SocketAddr};

use crate::platform::net::{Address, Io, Net};
use crate::rpc::client::url::Origin;

/// Connects to the first address of `origin` that takes a connection, IPv4 before IPv6. Waits for
/// as long as it takes.
pub async fn reach(net: &dyn Net, origin: &Origin) -> io::Result<Box<dyn Io>> {
    let (host, port) = match origin {
        Origin::Unix(path) => return net.connect(&Address::Unix(path.clone())).await,
        Origin::Tcp { host, port } => (host, *port),
    };
    let mut found = net.resolve(host).await?;
    found.sort_by_key(IpAddr::is_ipv6);
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("`{host}` has no address"));
    for ip in found {
        match net.connect(&Address::Tcp(SocketAddr::new(ip, port))).await {
            Ok(io) => return Ok(io),
            Err(error) => last = error,
        }
    }
    Err(last)
}
