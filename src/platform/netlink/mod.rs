//! The kernel's network tables, as far as we read them.
//!
//! **Not here yet:** making links, routes and rules; that comes with the overlay network.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;

/// A call across the seam.
pub type Call<'a, T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send + 'a>>;

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number for it.
    pub index: u32,
    /// Its name, such as `eth0`.
    pub name: String,
    /// Whether it is a device of its own (a card) rather than one that software made; false for
    /// `lo`, bridges, veth, tunnels.
    pub physical: bool,
    /// Whether it is up.
    pub up: bool,
}

/// An address of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkAddress {
    /// The number of its interface.
    pub link: u32,
    /// The address.
    pub ip: IpAddr,
    /// Whether it reaches beyond the link: not loopback, not link-local.
    pub global: bool,
}

/// The kernel's network tables.
pub trait Netlink: fmt::Debug + Send + Sync {
    /// Returns all interfaces, by number.
    fn links(&self) -> Call<'_, Vec<Link>>;

    /// Returns all addresses, in the kernel's order.
    fn addresses(&self) -> Call<'_, Vec<LinkAddress>>;

    /// Returns the number of the interface of the default route with the lowest metric, IPv4
    /// before IPv6, if there is one.
    fn default_route(&self) -> Call<'_, Option<u32>>;
}
