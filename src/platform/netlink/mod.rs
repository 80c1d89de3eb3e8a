//! The kernel's network tables, as far as we read them.
//!
//! ```text
//!   agents ──▶ Netlink ──┬─▶ Rtnetlink: the kernel's own tables
//!                        └─▶ MemoryNetlink: tables that a test fills
//! ```
//!
//! **Not here yet:** making links, routes and rules; that comes with the overlay network.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;

pub mod memory;
pub mod rtnetlink;

pub use memory::MemoryNetlink;
pub use rtnetlink::Rtnetlink;

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

/// Tells whether an address reaches beyond the link that has it.
pub fn is_global(ip: IpAddr) -> bool {
    let near = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !(near || ip.is_loopback() || ip.is_unspecified() || ip.is_multicast())
}

/// Everything that any implementation must do, without changing anything.
#[cfg(test)]
pub(crate) async fn contract(netlink: &dyn Netlink) {
    let links = netlink.links().await.unwrap();
    assert!(links.is_sorted_by(|a, b| a.index < b.index), "{links:?}");
    let lo = links.iter().find(|link| link.name == "lo").expect("every namespace has a `lo`");
    assert!(!lo.physical);
    let known = |index: u32| links.iter().any(|link| link.index == index);
    for address in netlink.addresses().await.unwrap() {
        assert!(known(address.link), "{address:?}");
        assert!(!(address.ip.is_loopback() && address.global), "{address:?}");
    }
    let default = netlink.default_route().await.unwrap();
    assert!(default.is_none_or(known), "{default:?} of {links:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_the_link_or_of_the_machine_alone_is_not_global() {
        for near in ["127.0.0.1", "169.254.1.1", "::1", "fe80::1", "0.0.0.0", "ff02::1"] {
            assert!(!is_global(near.parse().unwrap()), "{near}");
        }
        for far in ["10.0.0.1", "172.17.8.101", "fd00::1", "2001:db8::1"] {
            assert!(is_global(far.parse().unwrap()), "{far}");
        }
    }
}
