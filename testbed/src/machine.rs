//! What a virtual machine and a container node have in common.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::LabError;
use crate::ssh::Ssh;

/// A node of the lab, whatever it runs in.
pub trait Machine: fmt::Debug + Send {
    /// Its name, `node1` and so on.
    fn name(&self) -> &str;

    /// Its number, which decides its addresses.
    fn number(&self) -> u8;

    /// Turns it on.
    fn power_on(&mut self) -> Result<(), LabError>;

    /// Takes its power away.
    fn kill(&mut self);

    /// Asks it to shut down, and waits until it has.
    fn shut_down(&mut self, limit: Duration) -> Result<(), LabError>;

    /// Says whether it has power.
    fn is_on(&mut self) -> bool;

    /// Lets go of it, running, for a lab that outlives this process.
    fn detach(self: Box<Self>);

    /// The way in.
    fn ssh(&self) -> &Ssh;

    /// Where its console's output goes.
    fn console(&self) -> PathBuf;

    /// Where its journal can be read from this host when nobody answers, if anywhere.
    fn journal(&self) -> Option<PathBuf> {
        None
    }

    /// Its address.
    fn address(&self) -> Ipv4Addr {
        crate::net::Net::address(self.number())
    }

    /// One of its ports.
    fn port(&self, port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(self.address(), port)
    }
}

/// Keeps what a machine said in `dir`: its console and, when it can be had, its journal.
pub fn collect(machine: &mut dyn Machine, dir: &Path) {
    let dir = dir.join(machine.name());
    // This runs while something else has already failed: that must stay the message.
    std::fs::create_dir_all(&dir).ok();
    std::fs::copy(machine.console(), dir.join("console.log")).ok();
    let journal = if machine.is_on() { live_journal(machine) } else { None };
    let journal = journal.or_else(|| machine.journal().and_then(|path| journal_in(&path)));
    if let Some(text) = journal {
        std::fs::write(dir.join("journal.log"), text).ok();
    }
}

fn live_journal(machine: &dyn Machine) -> Option<String> {
    let limit = Duration::from_mins(1);
    machine.ssh().run_within("sudo -n journalctl -b --no-pager -o short-precise", limit).ok()
}

fn journal_in(path: &Path) -> Option<String> {
    let limit = Duration::from_mins(1);
    crate::process::Program::line("journalctl --no-pager -o short-precise -D")
        .arg(path)
        .run(limit)
        .ok()
}
