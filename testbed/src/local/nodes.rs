//! The nodes of a local cluster together.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::error::LabError;
use crate::lab::{self, Ground};
use crate::local::control::Order;
use crate::local::node::Node;
use crate::local::places::{self, Places};
use crate::view::View;

/// Nodes that run in this process.
#[derive(Debug)]
pub struct Nodes {
    places: Places,
    on: BTreeMap<u8, Node>,
    /// Whether files and sockets go with them.
    owned: bool,
}

impl Nodes {
    /// Turns on all nodes of a cluster whose files somebody else takes away.
    pub fn start(places: Places) -> Result<Self, LabError> {
        let mut nodes = Self { places, on: BTreeMap::new(), owned: false };
        for number in nodes.places.numbers() {
            nodes.on.insert(number, Node::start(&nodes.places, number)?);
        }
        Ok(nodes)
    }

    /// Turns on a cluster of `size` nodes of which nothing stays when this is dropped.
    pub fn owned(size: u8) -> Result<Self, LabError> {
        let mut nodes = Self::start(Places::find(&Ground::claim()?, size)?)?;
        nodes.owned = true;
        Ok(nodes)
    }

    /// Where they are.
    #[must_use]
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// What they say, asked from outside.
    #[must_use]
    pub fn view(&self) -> View<'_> {
        View::Local(&self.places)
    }

    /// Does what somebody asks for.
    pub fn obey(&mut self, order: Order) -> Result<(), LabError> {
        match order {
            Order::Halt(number) => self.halt(number),
            Order::Start(number) => self.power_on(number),
        }
    }

    /// Takes a node's power away. Nothing of it runs when this returns.
    pub fn halt(&mut self, number: u8) -> Result<(), LabError> {
        match self.on.remove(&self.known(number)?) {
            Some(_) => Ok(()),
            None => Err(LabError::Missing(format!("node{number} has no power already"))),
        }
    }

    /// Gives a node its power back.
    pub fn power_on(&mut self, number: u8) -> Result<(), LabError> {
        if self.on.get(&self.known(number)?).is_some_and(Node::runs) {
            return Err(LabError::Missing(format!("node{number} has power already")));
        }
        self.on.insert(number, Node::start(&self.places, number)?);
        Ok(())
    }

    /// Waits until all of them serve the store and are known to fleet.
    pub fn ready(&self, limit: Duration) -> Result<(), LabError> {
        let numbers: Vec<u8> = self.places.numbers().collect();
        self.view().store_ready(&numbers, limit)?;
        self.view().fleet_ready(1, &numbers, limit).map(drop)
    }

    fn known(&self, number: u8) -> Result<u8, LabError> {
        let known = self.places.numbers().any(|known| known == number);
        let names: Vec<_> = self.places.numbers().map(places::name).collect();
        let missing =
            || LabError::Missing(format!("no node{number}; there are {}", names.join(", ")));
        known.then_some(number).ok_or_else(missing)
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        self.on.clear();
        if self.owned {
            lab::take_down(self.places.id());
        }
    }
}
