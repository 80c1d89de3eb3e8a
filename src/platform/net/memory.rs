//! A network of pipes inside this process.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

use crate::platform::net::{Accepted, Address, Call, Incoming, Io, Net};

/// Bytes that fit into one direction of a pipe before its writer waits.
const PIPE_BYTES: usize = 64 << 10;
/// Connections that wait to be accepted before a connect waits.
const BACKLOG: usize = 128;

type Listeners = BTreeMap<Address, mpsc::Sender<Box<dyn Io>>>;

/// Pipes by address. Clones are the same network.
#[derive(Debug, Clone, Default)]
pub struct MemoryNet {
    listeners: Arc<Mutex<ListenersDebug>>,
}

#[derive(Default)]
struct ListenersDebug(Listeners);

impl std::fmt::Debug for ListenersDebug {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl MemoryNet {
    fn listeners(&self) -> MutexGuard<'_, ListenersDebug> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Pipes {
    address: Address,
    queue: mpsc::Receiver<Box<dyn Io>>,
}

impl Incoming for Pipes {
    fn accept(&mut self) -> Call<'_, Accepted> {
        Box::pin(async move {
            let io = self.queue.recv().await;
            io.map(|io| (io, None)).ok_or_else(|| io::ErrorKind::NotConnected.into())
        })
    }

    fn local(&self) -> Address {
        self.address.clone()
    }
}

impl Net for MemoryNet {
    fn bind<'a>(&'a self, address: &'a Address) -> Call<'a, Box<dyn Incoming>> {
        Box::pin(async move {
            let (sender, queue) = mpsc::channel(BACKLOG);
            let mut listeners = self.listeners();
            if listeners.0.get(address).is_some_and(|listener| !listener.is_closed()) {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            listeners.0.insert(address.clone(), sender);
            Ok(Box::new(Pipes { address: address.clone(), queue }) as Box<dyn Incoming>)
        })
    }

    fn connect<'a>(&'a self, address: &'a Address) -> Call<'a, Box<dyn Io>> {
        Box::pin(async move {
            let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
            let listener = self.listeners().0.get(address).cloned().ok_or_else(refused)?;
            let (here, there) = tokio::io::duplex(PIPE_BYTES);
            listener.send(Box::new(there)).await.map_err(|_| refused())?;
            Ok(Box::new(here) as Box<dyn Io>)
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn keeps_the_contract() {
        let net = MemoryNet::default();
        let local = Address::Tcp(([10, 0, 0, 1], 80).into());
        crate::platform::net::contract(&net, local).await;
    }
}
