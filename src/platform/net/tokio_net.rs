//! The network of this machine, through tokio; names through hickory, since a static binary has
//! no NSS.

#![expect(clippy::disallowed_types, reason = "this is the seam")]

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, FromRawFd as _, OwnedFd};
use std::path::Path;

use hickory_resolver::TokioResolver;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};
use tokio::sync::OnceCell;

use crate::platform::net::{Accepted, Address, Call, Incoming, Io, Net};

/// Where static names are kept, read before any server is asked.
const HOSTS: &str = "/etc/hosts";
/// Connections that wait to be accepted: the kernel's own limit, where nobody set another.
const QUEUE_MAX: u32 = 4096;
/// The first descriptor that the service manager hands over (`SD_LISTEN_FDS_START`).
const FIRST_INHERITED: i32 = 3;

/// Sockets of this machine.
#[derive(Debug, Default)]
pub struct TokioNet {
    resolver: OnceCell<TokioResolver>,
    /// How many sockets the service manager handed over: `LISTEN_FDS`, if `LISTEN_PID` is ours.
    inherited: std::sync::atomic::AtomicI32,
}

impl TokioNet {
    /// Makes a network that also has `count` sockets from the service manager, as the command
    /// line's shell found them in the environment.
    pub fn with_inherited(count: i32) -> Self {
        Self { resolver: OnceCell::new(), inherited: count.into() }
    }

    async fn ask(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let build = || async {
            let builder = TokioResolver::builder_tokio().map_err(io::Error::other)?;
            builder.build().map_err(io::Error::other)
        };
        let resolver = self.resolver.get_or_try_init(build).await?;
        let found = resolver.lookup_ip(host).await.map_err(io::Error::other)?;
        Ok(found.iter().collect())
    }
}

impl Incoming for TcpListener {
    fn accept(&mut self) -> Call<'_, Accepted> {
        Box::pin(async move {
            let (io, from) = Self::accept(self).await?;
            io.set_nodelay(true)?;
            Ok((Box::new(io) as Box<dyn Io>, Some(from)))
        })
    }

    fn local(&self) -> Address {
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        Address::Tcp(self.local_addr().unwrap_or(unknown))
    }
}

impl Incoming for UnixListener {
    fn accept(&mut self) -> Call<'_, Accepted> {
        Box::pin(async move {
            let (io, _) = Self::accept(self).await?;
            Ok((Box::new(io) as Box<dyn Io>, None))
        })
    }

    fn local(&self) -> Address {
        let addr = self.local_addr().ok();
        let path = addr.as_ref().and_then(|addr| addr.as_pathname()).unwrap_or(Path::new(""));
        Address::Unix(path.to_owned())
    }
}

impl Net for TokioNet {
    fn bind<'a>(&'a self, address: &'a Address) -> Call<'a, Box<dyn Incoming>> {
        Box::pin(async move {
            Ok(match address {
                Address::Tcp(addr) => Box::new(bind_tcp(*addr)?) as Box<dyn Incoming>,
                Address::Unix(path) => Box::new(bind_unix(path).await?),
            })
        })
    }

    fn connect<'a>(&'a self, address: &'a Address) -> Call<'a, Box<dyn Io>> {
        Box::pin(async move {
            Ok(match address {
                Address::Tcp(addr) => {
                    let io = TcpStream::connect(addr).await?;
                    io.set_nodelay(true)?;
                    Box::new(io) as Box<dyn Io>
                }
                Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
            })
        })
    }

    fn resolve<'a>(&'a self, host: &'a str) -> Call<'a, Vec<IpAddr>> {
        Box::pin(async move {
            if let Ok(ip) = host.trim_start_matches('[').trim_end_matches(']').parse() {
                return Ok(vec![ip]);
            }
            let hosts = tokio::fs::read_to_string(HOSTS).await.unwrap_or_default();
            let known = in_hosts(&hosts, host);
            if known.is_empty() { self.ask(host).await } else { Ok(known) }
        })
    }

    fn inherited(&self) -> io::Result<Vec<Box<dyn Incoming>>> {
        let count = self.inherited.swap(0, std::sync::atomic::Ordering::Relaxed);
        (FIRST_INHERITED..FIRST_INHERITED + count).map(adopt).collect()
    }
}

/// Binds a TCP address. The library's own way has a queue of 128, which is short for a thousand
/// clients whose member has just gone: the kernel would drop what does not fit, and they would try
/// again a second later.
fn bind_tcp(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(QUEUE_MAX)
}

/// Binds a unix socket. A file that nobody listens on any more is taken away first.
async fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if UnixStream::connect(path).await.is_ok() {
                return Err(error);
            }
            tokio::fs::remove_file(path).await?;
            UnixListener::bind(path)
        }
        bound => bound,
    }
}

/// Takes over one descriptor of the service manager, a TCP or a unix listener.
#[expect(unsafe_code, reason = "a number becomes an owned descriptor")]
fn adopt(number: i32) -> io::Result<Box<dyn Incoming>> {
    // SAFETY: `sd_listen_fds(3)` gives these descriptors to this process alone, and `inherited`
    // hands out each number once.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&fd, true)?;
    let family = rustix::net::getsockname(fd.as_fd())?.address_family();
    if family == rustix::net::AddressFamily::UNIX {
        Ok(Box::new(UnixListener::from_std(fd.into())?))
    } else {
        Ok(Box::new(TcpListener::from_std(fd.into())?))
    }
}

/// Finds a name in the text of `/etc/hosts`; `localhost` is always known.
fn in_hosts(text: &str, host: &str) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split('#').next()?.split_whitespace();
            let ip = words.next()?.parse().ok()?;
            words.any(|word| word.eq_ignore_ascii_case(host)).then_some(ip)
        })
        .collect();
    if found.is_empty() && host == "localhost" {
        found.push(IpAddr::from([127, 0, 0, 1]));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tcp_keeps_the_contract() {
        let local = Address::Tcp(([127, 0, 0, 1], 0).into());
        crate::platform::net::contract(&TokioNet::default(), local).await;
    }

    #[tokio::test]
    async fn many_may_wait_to_be_accepted() {
        let net = TokioNet::default();
        let incoming = net.bind(&Address::Tcp(([127, 0, 0, 1], 0).into())).await.unwrap();
        let address = incoming.local();
        let mut waiting = Vec::new();
        for _ in 0..500 {
            let connected = net.connect(&address);
            let limit = std::time::Duration::from_secs(10);
            waiting.push(tokio::time::timeout(limit, connected).await.unwrap().unwrap());
        }
        assert_eq!(waiting.len(), 500);
    }

    #[tokio::test]
    async fn unix_sockets_keep_the_contract() {
        let folder = tempfile::tempdir().unwrap();
        let local = Address::Unix(folder.path().join("socket"));
        crate::platform::net::contract(&TokioNet::default(), local).await;
    }

    #[test]
    fn the_hosts_file_is_read_as_everyone_reads_it() {
        let text = "127.0.0.1 localhost # me\n10.0.0.2 core2 core2.lab\n";
        assert_eq!(in_hosts(text, "CORE2.lab"), [IpAddr::from([10, 0, 0, 2])]);
        assert_eq!(in_hosts(text, "core3"), [] as [IpAddr; 0]);
        assert_eq!(in_hosts("", "localhost"), [IpAddr::from([127, 0, 0, 1])]);
    }
}
