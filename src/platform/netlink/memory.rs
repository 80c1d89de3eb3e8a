//! A kernel's network tables in memory.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::platform::netlink::{Call, Link, LinkAddress, Netlink, is_global};

#[derive(Debug)]
struct Tables {
    links: Vec<Link>,
    addresses: Vec<LinkAddress>,
    default_route: Option<u32>,
}

/// Tables in memory. Clones are the same ones.
#[derive(Debug, Clone)]
pub struct MemoryNetlink {
    tables: Arc<Mutex<Tables>>,
}

impl Default for MemoryNetlink {
    /// Makes the tables of a machine that has only `lo`.
    fn default() -> Self {
        let lo = Link { index: 1, name: "lo".to_owned(), physical: false, up: true };
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let addresses = vec![LinkAddress { link: 1, ip, global: false }];
        let tables = Tables { links: vec![lo], addresses, default_route: None };
        Self { tables: Arc::new(Mutex::new(tables)) }
    }
}

impl MemoryNetlink {
    /// Adds a card that is up, and returns its number.
    pub fn add_card(&self, name: &str) -> u32 {
        self.add(name, true)
    }

    /// Adds a link that software made and that is up, and returns its number.
    pub fn add_virtual(&self, name: &str) -> u32 {
        self.add(name, false)
    }

    /// Gives a link an address.
    pub fn add_address(&self, link: u32, ip: IpAddr) {
        self.tables().addresses.push(LinkAddress { link, ip, global: is_global(ip) });
    }

    /// Sets the interface of the default route.
    pub fn set_default_route(&self, link: Option<u32>) {
        self.tables().default_route = link;
    }

    fn add(&self, name: &str, physical: bool) -> u32 {
        let mut tables = self.tables();
        let index = tables.links.last().map_or(1, |link| link.index + 1);
        tables.links.push(Link { index, name: name.to_owned(), physical, up: true });
        index
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Netlink for MemoryNetlink {
    fn links(&self) -> Call<'_, Vec<Link>> {
        Box::pin(async { Ok(self.tables().links.clone()) })
    }

    fn addresses(&self) -> Call<'_, Vec<LinkAddress>> {
        Box::pin(async { Ok(self.tables().addresses.clone()) })
    }

    fn default_route(&self) -> Call<'_, Option<u32>> {
        Box::pin(async { Ok(self.tables().default_route) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn keeps_the_contract() {
        let netlink = MemoryNetlink::default();
        let eth0 = netlink.add_card("eth0");
        netlink.add_address(eth0, "10.1.0.2".parse().unwrap());
        netlink.add_address(eth0, "fe80::1".parse().unwrap());
        netlink.set_default_route(Some(eth0));
        crate::platform::netlink::contract(&netlink).await;
    }
}
