//! The kernel's network tables, over rtnetlink.
//!
//! Each call opens a socket of its own and drives it until the answer is there: reads are rare,
//! and so nothing runs in between.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteType};
use rtnetlink::{Handle, RouteMessageBuilder};

use crate::platform::netlink::{Call, Link, LinkAddress, Netlink, is_global};

/// The tables of the network namespace that the calling thread is in.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rtnetlink;

impl Netlink for Rtnetlink {
    fn links(&self) -> Call<'_, Vec<Link>> {
        Box::pin(ask(async |handle: Handle| {
            let messages: Vec<_> = handle.link().get().execute().try_collect().await?;
            let mut links: Vec<_> = messages.into_iter().filter_map(link_of).collect();
            links.sort_by_key(|link| link.index);
            Ok(links)
        }))
    }

    fn addresses(&self) -> Call<'_, Vec<LinkAddress>> {
        Box::pin(ask(async |handle: Handle| {
            let messages: Vec<_> = handle.address().get().execute().try_collect().await?;
            Ok(messages.iter().filter_map(address_of).collect())
        }))
    }

    fn default_route(&self) -> Call<'_, Option<u32>> {
        Box::pin(ask(async |handle: Handle| {
            let four = RouteMessageBuilder::<Ipv4Addr>::new().build();
            let six = RouteMessageBuilder::<Ipv6Addr>::new().build();
            for family in [four, six] {
                let routes: Vec<_> = handle.route().get(family).execute().try_collect().await?;
                if let Some((_, link)) = routes.iter().filter_map(default_of).min() {
                    return Ok(Some(link));
                }
            }
            Ok(None)
        }))
    }
}

/// Opens a socket, asks, and drives the socket meanwhile.
async fn ask<T, F>(question: impl FnOnce(Handle) -> F) -> io::Result<T>
where
    F: Future<Output = Result<T, rtnetlink::Error>>,
{
    let (connection, handle, _) = rtnetlink::new_connection()?;
    tokio::select! {
        biased;
        answer = question(handle) => answer.map_err(|error| io_error(&error)),
        () = connection => Err(io::ErrorKind::ConnectionAborted.into()),
    }
}

fn io_error(error: &rtnetlink::Error) -> io::Error {
    if let rtnetlink::Error::NetlinkError(message) = error {
        return message.to_io();
    }
    io::Error::other(error.to_string())
}

/// Reads a link. The kernel names a kind for everything that software made.
fn link_of(message: LinkMessage) -> Option<Link> {
    let flags = message.header.flags;
    let made = message.attributes.iter().any(|attribute| {
        matches!(attribute, LinkAttribute::LinkInfo(info)
            if info.iter().any(|info| matches!(info, LinkInfo::Kind(_))))
    });
    let name = message.attributes.into_iter().find_map(|attribute| {
        if let LinkAttribute::IfName(name) = attribute { Some(name) } else { None }
    });
    Some(Link {
        index: message.header.index,
        name: name?,
        physical: !made && !flags.contains(LinkFlags::Loopback),
        up: flags.contains(LinkFlags::Up),
    })
}

/// Reads an address. On a point-to-point link `Address` is the other end's, `Local` ours.
fn address_of(message: &AddressMessage) -> Option<LinkAddress> {
    let local = message.attributes.iter().find_map(|attribute| {
        if let AddressAttribute::Local(ip) = attribute { Some(*ip) } else { None }
    });
    let address = message.attributes.iter().find_map(|attribute| {
        if let AddressAttribute::Address(ip) = attribute { Some(*ip) } else { None }
    });
    let ip = local.or(address)?;
    Some(LinkAddress { link: message.header.index, ip, global: is_global(ip) })
}

/// Returns the metric and the interface of a default route of the main table.
fn default_of(route: &RouteMessage) -> Option<(u32, u32)> {
    let header = &route.header;
    if header.destination_prefix_length != 0
        || header.table != RouteHeader::RT_TABLE_MAIN
        || header.kind != RouteType::Unicast
    {
        return None;
    }
    let metric = route.attributes.iter().find_map(|attribute| {
        if let RouteAttribute::Priority(metric) = attribute { Some(*metric) } else { None }
    });
    let link = route.attributes.iter().find_map(|attribute| {
        if let RouteAttribute::Oif(link) = attribute {
            Some(*link)
        } else if let RouteAttribute::MultiPath(hops) = attribute {
            hops.first().map(|hop| hop.interface_index)
        } else {
            None
        }
    });
    Some((metric.unwrap_or(0), link?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn keeps_the_contract() {
        crate::platform::netlink::contract(&Rtnetlink).await;
    }
}
