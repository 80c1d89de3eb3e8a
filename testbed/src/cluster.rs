//! A cluster in a lab: its machines, and what they have become together.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::discovery::Discovery;
use crate::error::LabError;
use crate::fleet::UnitState;
use crate::http::{self, Answer, Request};
use crate::inputs;
use crate::lab::Lab;
use crate::machine::{self, Machine};
use crate::net::Net;
use crate::nodes::Node;
use crate::process::Lifetime;
use crate::store::Store;
use crate::view::View;
use crate::vm::{Spec, Vm};

/// How long the fleet API of a node may take to answer.
const ANSWER: Duration = Duration::from_secs(30);

/// What a cluster's nodes run in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Virtual machines.
    Vms,
    /// Container nodes.
    Containers,
}

/// A lab with machines in it. Dropped during a panic, it first keeps what they said.
#[derive(Debug)]
pub struct Cluster {
    /// Declared first: machines end before their lab does.
    machines: Vec<Box<dyn Machine>>,
    discovery: Option<Discovery>,
    kind: Kind,
    lab: Lab,
}

impl Cluster {
    /// A lab without machines.
    pub fn empty(kind: Kind, lifetime: Lifetime) -> Result<Self, LabError> {
        let lab = Lab::start(lifetime)?;
        Ok(Self { machines: Vec::new(), discovery: None, kind, lab })
    }

    /// A lab with `size` nodes that found a store through our discovery service. They have power
    /// when this returns; they are not ready.
    pub fn found(kind: Kind, size: u8, lifetime: Lifetime) -> Result<Self, LabError> {
        let mut cluster = Self::empty(kind, lifetime)?;
        let url = cluster.discovery_url(usize::from(size))?;
        let user_data = inputs::cluster(&url);
        for number in 1..=size {
            let processors = if size == 1 { 2 } else { 1 };
            cluster.add_with(number, &user_data, processors)?;
        }
        Ok(cluster)
    }

    /// The URL of a new cluster of our discovery service.
    pub fn discovery_url(&mut self, size: usize) -> Result<String, LabError> {
        let mut discovery = match self.discovery.take() {
            Some(running) => running,
            None => Discovery::start(&self.lab)?,
        };
        let url = discovery.new_cluster(self.lab.net(), size);
        self.discovery = Some(discovery);
        url
    }

    /// Adds a machine and turns it on.
    pub fn add(&mut self, number: u8, user_data: &str) -> Result<(), LabError> {
        self.add_with(number, user_data, 1)
    }

    /// Adds the only machine and turns it on: it has the whole host for itself.
    pub fn add_alone(&mut self, number: u8, user_data: &str) -> Result<(), LabError> {
        self.add_with(number, user_data, 2)
    }

    fn add_with(&mut self, number: u8, data: &str, processors: u8) -> Result<(), LabError> {
        let spec = Spec { processors, ..Spec::new(number, data) };
        let machine: Box<dyn Machine> = match self.kind {
            Kind::Vms => Box::new(Vm::create(&self.lab, spec)?),
            Kind::Containers => Box::new(Node::create(&self.lab, number, data)?),
        };
        self.plug_in(machine)
    }

    /// Turns on a machine that was made elsewhere, and takes it in.
    pub fn plug_in(&mut self, mut machine: Box<dyn Machine>) -> Result<(), LabError> {
        machine.power_on()?;
        self.machines.push(machine);
        Ok(())
    }

    /// Takes a machine out, so that nobody waits for it.
    pub fn forget(&mut self, number: u8) {
        self.machines.retain(|machine| machine.number() != number);
    }

    /// The lab that it lives in.
    #[must_use]
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// Its network.
    #[must_use]
    pub fn net(&self) -> &Net {
        self.lab.net()
    }

    /// Its machines.
    #[must_use]
    pub fn machines(&self) -> &[Box<dyn Machine>] {
        &self.machines
    }

    /// The machine with this number.
    ///
    /// # Panics
    ///
    /// Where there is none.
    #[must_use]
    pub fn machine(&self, number: u8) -> &dyn Machine {
        let found = self.machines.iter().find(|machine| machine.number() == number);
        found.expect("a machine of this cluster").as_ref()
    }

    /// The same, to press its buttons.
    ///
    /// # Panics
    ///
    /// Where there is none.
    pub fn machine_mut(&mut self, number: u8) -> &mut dyn Machine {
        let found = self.machines.iter_mut().find(|machine| machine.number() == number);
        found.expect("a machine of this cluster").as_mut()
    }

    /// What its nodes say, asked from outside.
    #[must_use]
    pub fn view(&self) -> View<'_> {
        View::Lab(self.net())
    }

    /// The store, through the node with this number.
    #[must_use]
    pub fn store(&self, number: u8) -> Store<'_> {
        self.view().store(number)
    }

    /// See [`View::leader`].
    pub fn leader(&self, members: &[u8]) -> Result<u8, String> {
        self.view().leader(members)
    }

    /// See [`View::store_ready`].
    pub fn store_ready(&self, members: &[u8], limit: Duration) -> Result<u8, LabError> {
        self.view().store_ready(members, limit)
    }

    /// See [`View::fleet_ready`].
    pub fn fleet_ready(
        &self,
        through: u8,
        numbers: &[u8],
        limit: Duration,
    ) -> Result<BTreeMap<u8, String>, LabError> {
        self.view().fleet_ready(through, numbers, limit)
    }

    /// See [`View::states_until`].
    pub fn states_until<T>(
        &self,
        through: u8,
        what: &str,
        limit: Duration,
        look: impl Fn(&[UnitState]) -> Option<T>,
    ) -> Result<T, LabError> {
        self.view().states_until(through, what, limit, look)
    }

    /// Asks the fleet API of a node, over ssh.
    pub fn fleet_api(&self, number: u8, path: &str) -> Result<Answer, LabError> {
        let here = self.lab.sockets().join(format!("fleet-{number}"));
        self.machine(number).ssh().forward_socket("/run/fleet.sock", &here)?;
        http::ask_socket(&here, &Request { method: "GET", path, body: None }, ANSWER)
    }

    /// Lets everything run on after this process.
    pub fn leave(mut self) -> Result<(), LabError> {
        self.lab.leave()?;
        self.machines.drain(..).for_each(Machine::detach);
        Ok(())
    }

    /// Keeps what all machines said, and returns where.
    pub fn keep_logs(&mut self) -> std::path::PathBuf {
        let failures = self.lab.failures();
        self.machines.iter_mut().for_each(|one| machine::collect(one.as_mut(), &failures));
        for log in ["discovery.log", "dnsmasq.log"] {
            std::fs::copy(self.lab.dir().join(log), failures.join(log)).ok();
        }
        failures
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let kept = self.keep_logs();
            crate::progress::say(&format!("what the machines said is kept in {}", kept.display()));
        }
    }
}
