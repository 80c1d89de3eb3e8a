//! The network and clock seams on the simulator.
//!
//! A simulated stream never sends a lost segment again: after a partition it stays silent for
//! good. Whoever uses it needs a deadline on every call and a new connection after one.

use std::io;
use std::net::{IpAddr, SocketAddr};

use corebox::foundation::clock::{Clock, Timestamp};
use corebox::platform::net::{Accepted, Address, Call, Incoming, Io, Net};
use turmoil::net::{TcpListener, TcpStream};

/// The simulator's network, as the host sees it that uses it.
#[derive(Debug, Clone, Copy)]
pub struct TurmoilNet;

struct Listener(TcpListener);

impl Incoming for Listener {
    fn accept(&mut self) -> Call<'_, Accepted> {
        Box::pin(async move {
            let (io, from) = self.0.accept().await?;
            Ok((Box::new(io) as Box<dyn Io>, Some(from)))
        })
    }

    fn local(&self) -> Address {
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        Address::Tcp(self.0.local_addr().unwrap_or(unknown))
    }
}

fn tcp(address: &Address) -> io::Result<SocketAddr> {
    match address {
        Address::Tcp(addr) => Ok(*addr),
        Address::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
    }
}

impl Net for TurmoilNet {
    fn bind<'a>(&'a self, address: &'a Address) -> Call<'a, Box<dyn Incoming>> {
        Box::pin(async move {
            let listener = TcpListener::bind(tcp(address)?).await?;
            Ok(Box::new(Listener(listener)) as Box<dyn Incoming>)
        })
    }

    fn connect<'a>(&'a self, address: &'a Address) -> Call<'a, Box<dyn Io>> {
        Box::pin(
            async move { Ok(Box::new(TcpStream::connect(tcp(address)?).await?) as Box<dyn Io>) },
        )
    }

    fn resolve<'a>(&'a self, host: &'a str) -> Call<'a, Vec<IpAddr>> {
        Box::pin(async move {
            let parsed = host.parse().map(|ip| vec![ip]);
            parsed.map_err(|_| io::Error::new(io::ErrorKind::NotFound, "no names here"))
        })
    }

    fn inherited(&self) -> io::Result<Vec<Box<dyn Incoming>>> {
        Ok(Vec::new())
    }
}

/// A host's wall clock: the simulation's time, off by something of its own.
#[derive(Debug)]
pub struct SimClock {
    /// Where the clock stood when the simulation began.
    pub start: Timestamp,
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        self.start.plus(turmoil::sim_elapsed().unwrap_or_default())
    }
}
