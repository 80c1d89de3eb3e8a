//! The lab's network: one namespace with a bridge, a port for each node, leases by hardware
//! address, and no way out.
//!
//! ```text
//!   namespace <lab>                                    namespace <lab>-n4
//!   ┌──────────────────────────────────────────┐      ┌───────────────┐
//!   │ bridge lab0 10.99.0.1  dnsmasq discovery │      │ host0 (DHCP)  │ container node
//!   │   │tap1      │tap2        │veth4 ────────┼──────┼───┘           │
//!   └───┼──────────┼───────────────────────────┘      └───────────────┘
//!      VM 1       VM 2
//! ```
//!
//! Everything belongs to the namespace, so that deleting it deletes everything. No interface leads
//! out of it: a guest that asks for an address elsewhere is told at once that there is no route.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::thread::LinkNameSpaceType;

use crate::error::LabError;
use crate::process::{Lifetime, Program, Running};

/// A step that only the host's kernel has to do.
const QUICK: Duration = Duration::from_secs(20);
/// How many nodes have a lease waiting for them.
const LEASES: u8 = 64;
/// The bridge's name inside the namespace.
const BRIDGE: &str = "lab0";

/// The network of one lab.
#[derive(Debug)]
pub struct Net {
    id: String,
    lifetime: Lifetime,
    leases: Option<Running>,
}

impl Net {
    /// Makes the network of a lab. Its files go to `dir`.
    pub fn start(id: &str, dir: &Path, lifetime: Lifetime) -> Result<Self, LabError> {
        ip(&format!("netns add {id}"))?;
        // From here on dropping it cleans up.
        let mut net = Self { id: id.to_owned(), lifetime, leases: None };
        net.ip("link set lo up")?;
        net.ip(&format!("link add {BRIDGE} type bridge forward_delay 0"))?;
        net.ip(&format!("addr add {}/24 dev {BRIDGE}", Self::host()))?;
        net.ip(&format!("link set {BRIDGE} up"))?;
        // Refuse at once what would otherwise vanish: guests then do not wait for an answer.
        net.ip("route add unreachable default")?;
        net.enter(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1"))
            .map_err(LabError::file("write", Path::new("/proc/sys/net/ipv4/ip_forward")))?;
        net.leases = Some(net.serve_leases(dir, lifetime)?);
        Ok(net)
    }

    /// The network of a lab that somebody else started.
    #[must_use]
    pub fn existing(id: &str) -> Self {
        Self { id: id.to_owned(), lifetime: Lifetime::Detached, leases: None }
    }

    /// Fails when the leases are no longer served.
    pub fn check(&mut self) -> Result<(), LabError> {
        self.leases.as_mut().map_or(Ok(()), Running::check)
    }

    /// The name of its namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.id
    }

    /// The address of the lab itself, where nodes find its services.
    #[must_use]
    pub const fn host() -> Ipv4Addr {
        Ipv4Addr::new(10, 99, 0, 1)
    }

    /// The address that the node with this number is given.
    #[must_use]
    pub const fn address(number: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 99, 0, 10 + number)
    }

    /// The hardware address of the node with this number.
    #[must_use]
    pub fn hardware(number: u8) -> String {
        format!("52:54:00:cb:00:{number:02x}")
    }

    /// Makes the port of a virtual machine and returns its name.
    pub fn tap(&self, number: u8) -> Result<String, LabError> {
        let name = format!("tap{number}");
        if self.ip(&format!("link show {name}")).is_err() {
            self.ip(&format!("tuntap add {name} mode tap"))?;
            self.ip(&format!("link set {name} master {BRIDGE} up"))?;
        }
        Ok(name)
    }

    /// Makes a namespace for a container node, plugged into the bridge, and returns its name.
    pub fn plug(&self, number: u8) -> Result<String, LabError> {
        let node = self.node_namespace(number);
        self.unplug(number);
        ip(&format!("netns add {node}"))?;
        let hardware = Self::hardware(number);
        ip(&format!(
            "-n {node} link add host0 address {hardware} type veth peer name veth{number} netns {}",
            self.id,
        ))?;
        self.ip(&format!("link set veth{number} master {BRIDGE} up"))?;
        ip(&format!("-n {node} link set lo up"))?;
        Ok(node)
    }

    /// Takes a container node's namespace away, if it is there.
    pub fn unplug(&self, number: u8) {
        remove_namespace(&self.node_namespace(number));
    }

    fn node_namespace(&self, number: u8) -> String {
        format!("{}-n{number}", self.id)
    }

    /// Runs something inside the namespace: sockets opened there stay there.
    pub fn enter<T: Send>(&self, inside: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        enter(&self.id, inside)
    }

    /// Connects to a server on this network.
    pub fn connect(&self, server: SocketAddrV4, limit: Duration) -> io::Result<TcpStream> {
        self.enter(|| TcpStream::connect_timeout(&SocketAddr::V4(server), limit))
    }

    /// Runs `ip` inside the namespace.
    pub fn ip(&self, line: &str) -> Result<String, LabError> {
        ip(&format!("-n {} {line}", self.id))
    }

    fn serve_leases(&self, dir: &Path, lifetime: Lifetime) -> Result<Running, LabError> {
        let leases = (1..=LEASES).map(|number| {
            format!(
                "--dhcp-host={},{},node{number},infinite",
                Self::hardware(number),
                Self::address(number)
            )
        });
        let mut dnsmasq = Program::line(
            "dnsmasq --keep-in-foreground --conf-file=/dev/null --user=root --no-resolv \
             --no-hosts --pid-file= --domain=lab --local=/lab/ --dhcp-authoritative \
             --dhcp-range=10.99.0.0,static --no-ping --log-facility=-",
        )
        .arg(format!("--interface={BRIDGE}"))
        .arg(format!("--dhcp-leasefile={}", dir.join("leases").display()))
        .args(leases)
        .inside(&self.id)
        .start(lifetime, &dir.join("dnsmasq.log"))?;
        self.wait_for_leases(&mut dnsmasq)?;
        Ok(dnsmasq)
    }

    /// Waits until dnsmasq listens: it then holds the port for name service too.
    fn wait_for_leases(&self, dnsmasq: &mut Running) -> Result<(), LabError> {
        let names = SocketAddrV4::new(Self::host(), 53);
        let up = crate::wait::until("dnsmasq to listen", QUICK, || {
            dnsmasq.check().map_err(|error| error.to_string())?;
            self.connect(names, QUICK).map_err(|error| error.to_string())
        });
        up.map(drop).map_err(LabError::from)
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        if self.lifetime == Lifetime::Owned {
            remove(&self.id);
        }
    }
}

/// Removes everything that a lab with this id has in the kernel: processes first, then namespaces.
pub fn remove(id: &str) {
    let nodes = format!("{id}-n");
    for name in namespaces() {
        if name == id || name.starts_with(&nodes) {
            remove_namespace(&name);
        }
    }
}

/// The named network namespaces of this host.
#[must_use]
pub fn namespaces() -> Vec<String> {
    let Ok(entries) = fs::read_dir("/run/netns") else { return Vec::new() };
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn remove_namespace(name: &str) {
    if !Path::new("/run/netns").join(name).exists() {
        return;
    }
    // What still runs inside would keep its interfaces alive. An error means that nothing does.
    let inside = ip(&format!("netns pids {name}")).unwrap_or_default();
    for process in inside.lines().filter_map(|line| line.trim().parse().ok()) {
        if let Some(process) = rustix::process::Pid::from_raw(process) {
            rustix::process::kill_process(process, rustix::process::Signal::KILL).ok();
        }
    }
    ip(&format!("netns del {name}")).ok();
}

fn ip(line: &str) -> Result<String, LabError> {
    Program::line(&format!("ip {line}")).run(QUICK)
}

/// Runs something inside a named network namespace, on a thread of its own.
pub fn enter<T: Send>(
    namespace: &str,
    inside: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    let path: PathBuf = Path::new("/run/netns").join(namespace);
    std::thread::scope(|scope| {
        let work = scope.spawn(|| {
            let file = File::open(&path)?;
            rustix::thread::move_into_link_name_space(
                file.as_fd(),
                Some(LinkNameSpaceType::Network),
            )?;
            inside()
        });
        work.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
