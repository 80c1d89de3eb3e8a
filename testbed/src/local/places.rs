//! Where the nodes of a local cluster are: an address, a folder and a socket each.
//!
//! Each node has an address of its own, as a machine would, so that what it says of itself can be
//! told apart: `127.A.B.(10+N)`, where `A.B` is the cluster's.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::LabError;
use crate::lab::Ground;
use crate::process::Program;
use crate::store::{CLIENTS, Store};

/// Where members speak to each other, where that is free.
const PEERS: u16 = 2380;
/// How many networks are tried: other clusters of this kind have some.
const NETWORKS: u8 = 16;

/// Where a local cluster is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    id: String,
    dir: PathBuf,
    sockets: PathBuf,
    nodes: u8,
    network: [u8; 2],
    client_port: u16,
    peer_port: u16,
}

impl Places {
    /// Finds room for nodes 1 to `nodes`: the store's usual ports, else any.
    pub fn find(ground: &Ground, nodes: u8) -> Result<Self, LabError> {
        let [.., high, low] = std::process::id().to_be_bytes();
        let on = |network, client_port, peer_port| Self {
            id: ground.id.clone(),
            dir: ground.dir.clone(),
            sockets: ground.sockets.clone(),
            nodes,
            network,
            client_port,
            peer_port,
        };
        let networks = (0..NETWORKS).map(|more| [128 | high, low.wrapping_add(more)]);
        for network in networks {
            let usual = on(network, CLIENTS, PEERS);
            if usual.are_free() {
                return Ok(usual);
            }
            // Somebody may have these ports on all addresses.
            let others = usual.free_ports().map(|[clients, peers]| on(network, clients, peers));
            if let Some(others) = others.ok().filter(Self::are_free) {
                return Ok(others);
            }
        }
        Err(LabError::Missing(format!(
            "no free ports on {NETWORKS} networks of 127.0.0.0/8: is loopback up, and are there \
             clusters that `cargo xtask down` could take away?"
        )))
    }

    fn are_free(&self) -> bool {
        let bind = |number| {
            let listen = |at: SocketAddrV4| TcpListener::bind(at);
            Ok([listen(self.clients(number))?, listen(self.peers(number))?])
        };
        self.numbers().map(bind).collect::<io::Result<Vec<_>>>().is_ok()
    }

    fn free_ports(&self) -> io::Result<[u16; 2]> {
        let any = || TcpListener::bind((self.address(1), 0));
        // Both are held until both are there, so that they differ.
        let (one, other) = (any()?, any()?);
        Ok([one.local_addr()?.port(), other.local_addr()?.port()])
    }

    /// The cluster's name.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The numbers of its nodes.
    pub fn numbers(&self) -> impl Iterator<Item = u8> + use<> {
        1..=self.nodes
    }

    /// A node's address.
    #[must_use]
    pub const fn address(&self, number: u8) -> Ipv4Addr {
        let [a, b] = self.network;
        Ipv4Addr::new(127, a, b, 10 + number)
    }

    /// Where a node's store serves clients.
    #[must_use]
    pub const fn clients(&self, number: u8) -> SocketAddrV4 {
        SocketAddrV4::new(self.address(number), self.client_port)
    }

    /// Where a node's store serves other members.
    #[must_use]
    pub const fn peers(&self, number: u8) -> SocketAddrV4 {
        SocketAddrV4::new(self.address(number), self.peer_port)
    }

    /// Where a node's fleet listens.
    #[must_use]
    pub fn fleet_socket(&self, number: u8) -> PathBuf {
        self.sockets.join(format!("{}.sock", name(number)))
    }

    /// Where the cluster's process takes orders.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.sockets.join("control.sock")
    }

    /// A node's folder.
    #[must_use]
    pub fn folder(&self, number: u8) -> PathBuf {
        self.dir.join(name(number))
    }

    /// What the cluster's process says.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.dir.join("local.log")
    }

    /// Where the applets are linked by their names.
    #[must_use]
    pub fn applets(&self) -> PathBuf {
        self.dir.join("bin")
    }

    /// The store, through one node.
    #[must_use]
    pub const fn store(&self, number: u8) -> Store<'static> {
        Store::on_this_host(self.clients(number))
    }

    /// All places where the store serves clients, as clients want to be told.
    #[must_use]
    pub fn endpoints(&self) -> String {
        let urls = self.numbers().map(|number| format!("http://{}", self.clients(number)));
        urls.collect::<Vec<_>>().join(",")
    }

    /// The members that the store begins with.
    #[must_use]
    pub fn members(&self) -> String {
        let listed =
            self.numbers().map(|number| format!("{}=http://{}", name(number), self.peers(number)));
        listed.collect::<Vec<_>>().join(",")
    }

    /// `fleetctl`, asking one node.
    #[must_use]
    pub fn fleetctl(&self, number: u8) -> Program {
        let endpoint = format!("unix://{}", self.fleet_socket(number).display());
        Program::new(crate::binary()).args(["fleetctl", "--endpoint", &endpoint])
    }

    /// What to tell a shell so that `etcdctl` and `fleetctl`, ours or others', find the cluster.
    #[must_use]
    pub fn environment(&self) -> String {
        format!(
            "export ETCDCTL_ENDPOINTS={}\n\
             export ETCDCTL_API=2\n\
             export FLEETCTL_ENDPOINT=unix://{}\n\
             export PATH={}:$PATH\n",
            self.endpoints(),
            self.fleet_socket(1).display(),
            self.applets().display(),
        )
    }
}

/// A node's name.
#[must_use]
pub fn name(number: u8) -> String {
    format!("node{number}")
}

/// A node's machine id: its number, all over, so that the short form tells it too.
#[must_use]
pub fn machine_id(number: u8) -> String {
    format!("{number:02x}").repeat(16)
}

/// A node's metadata in fleet: the example units look for the first.
#[must_use]
pub fn metadata(number: u8) -> String {
    format!("role=store,number={number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ground() -> Ground {
        let dir = PathBuf::from("/d");
        Ground { id: "cb1".to_owned(), sockets: dir.clone(), dir }
    }

    #[test]
    fn two_clusters_do_not_meet() {
        let one = Places::find(&ground(), 2).unwrap();
        let held = TcpListener::bind(one.clients(2)).unwrap();
        let other = Places::find(&ground(), 2).unwrap();
        assert_ne!(other.clients(2), one.clients(2));
        drop(held);
    }

    #[test]
    fn what_is_written_down_is_read_back() {
        let places = Places::find(&ground(), 3).unwrap();
        let text = serde_json::to_string(&places).unwrap();
        assert_eq!(serde_json::from_str::<Places>(&text).unwrap(), places);
        assert_eq!(places.endpoints().split(',').count(), 3);
        assert_eq!(machine_id(16).len(), 32);
    }
}
