//! A cluster as one sees it from outside: what its nodes say of members, machines and units, and
//! waits for what they should say.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::Ipv4Addr;
use std::time::Duration;

use crate::error::{LabError, chain};
use crate::fleet::{self, FleetMachine, UnitState};
use crate::local::Places;
use crate::net::Net;
use crate::store::{Member, Store};
use crate::wait;

/// Where a cluster is looked at.
#[derive(Debug, Clone, Copy)]
pub enum View<'a> {
    /// Machines on a lab's network.
    Lab(&'a Net),
    /// Nodes of one process on this host.
    Local(&'a Places),
}

/// What a cluster says of itself.
#[derive(Debug, Clone)]
pub struct Status {
    /// The store's members.
    pub members: Vec<Member>,
    /// The one that leads.
    pub leader: Member,
    /// The machines that fleet knows, by id.
    pub machines: BTreeMap<String, FleetMachine>,
    /// What the machines say of the units.
    pub states: Vec<UnitState>,
}

impl<'a> View<'a> {
    /// The address of the node with this number.
    #[must_use]
    pub fn address(self, number: u8) -> Ipv4Addr {
        match self {
            Self::Lab(_) => Net::address(number),
            Self::Local(places) => places.address(number),
        }
    }

    /// The store, through the node with this number.
    #[must_use]
    pub fn store(self, number: u8) -> Store<'a> {
        match self {
            Self::Lab(net) => Store::at(net, Net::address(number)),
            Self::Local(places) => places.store(number),
        }
    }

    /// All there is to say, by the first of these nodes whose store has its quorum.
    pub fn status(self, numbers: &[u8]) -> Result<Status, LabError> {
        let healthy = |number: &u8| self.store(*number).healthy().unwrap_or(false);
        let through = numbers.iter().copied().find(healthy).ok_or_else(|| {
            let text = "no node serves the store; `cargo xtask logs node1` may say why";
            LabError::Missing(text.to_owned())
        })?;
        let store = self.store(through);
        Ok(Status {
            members: store.members()?,
            leader: store.leader()?,
            machines: fleet::machines(&store)?,
            states: fleet::states(&store)?,
        })
    }

    /// Which of these members leads the store, when all of them say the same.
    pub fn leader(self, members: &[u8]) -> Result<u8, String> {
        let says = |number: &u8| self.store(*number).leader().map_err(|error| chain(&error));
        let mut named = Vec::new();
        for number in members {
            let leader = says(number)?;
            let found = members.iter().find(|&&other| leader.is_at(self.address(other)));
            named.push(*found.ok_or_else(|| format!("node{number} names {}", leader.name))?);
        }
        named.dedup();
        match named[..] {
            [leader] => Ok(leader),
            _ => Err(format!("they do not agree who leads: {named:?}")),
        }
    }

    /// Waits until all of these members agree on one leader and have a quorum.
    pub fn store_ready(self, members: &[u8], limit: Duration) -> Result<u8, LabError> {
        let leader = wait::until("the store to be healthy", limit, || {
            for &number in members {
                let healthy = self.store(number).healthy().map_err(|error| chain(&error))?;
                if !healthy {
                    return Err(format!("node{number} has no quorum"));
                }
            }
            self.leader(members)
        })?;
        Ok(leader)
    }

    /// Waits until fleet knows exactly these machines, and returns their ids by number.
    pub fn fleet_ready(
        self,
        through: u8,
        numbers: &[u8],
        limit: Duration,
    ) -> Result<BTreeMap<u8, String>, LabError> {
        let wanted: BTreeMap<Ipv4Addr, u8> =
            numbers.iter().map(|&number| (self.address(number), number)).collect();
        let ids = wait::until("fleet to know its machines", limit, || {
            let machines = fleet::machines(&self.store(through)).map_err(|error| chain(&error))?;
            let by_address = |machine: &FleetMachine| {
                let address = machine.public_ip.parse().ok()?;
                Some((*wanted.get(&address)?, machine.id.clone()))
            };
            let found: BTreeMap<u8, String> = machines.values().filter_map(by_address).collect();
            let all = found.len() == wanted.len() && machines.len() == wanted.len();
            if all {
                Ok(found)
            } else {
                Err(listed("machines", machines.values().map(|m| &m.public_ip)))
            }
        })?;
        Ok(ids)
    }

    /// Waits until what the machines say of the units is as wanted.
    pub fn states_until<T>(
        self,
        through: u8,
        what: &str,
        limit: Duration,
        look: impl Fn(&[UnitState]) -> Option<T>,
    ) -> Result<T, LabError> {
        let found = wait::until(what, limit, || {
            let states = fleet::states(&self.store(through)).map_err(|error| chain(&error))?;
            look(&states).ok_or_else(|| {
                let short = |state: &UnitState| {
                    let machine = state.machine.get(..8).unwrap_or(&state.machine);
                    format!("{}:{machine}:{}", state.unit, state.sub)
                };
                listed("states", states.iter().map(short))
            })
        })?;
        Ok(found)
    }
}

fn listed(what: &str, items: impl Iterator<Item = impl Display>) -> String {
    let items: Vec<_> = items.map(|item| item.to_string()).collect();
    format!("{} {what}: {}", items.len(), items.join(", "))
}
