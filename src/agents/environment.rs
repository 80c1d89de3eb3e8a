//! Tells the rest of the machine its own addresses: `COREOS_PRIVATE_IPV4` and its like in
//! `/etc/environment`, before anything that a cloud-config may start.
//!
//! [`choose`] decides, [`run`] looks, waits and writes.
//!
//! **Not here:** what a cloud says about addresses; `coreos-cloudinit` writes that over ours.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::info;

use crate::foundation::durable_file::{self, Attributes, WriteError};
use crate::foundation::tasks;
use crate::platform::netlink::{Link, LinkAddress, Netlink};
use crate::wire::env_file::{self, EnvFileError};

/// Where the maker of an image or its cloud says which interface is which.
pub const OEM_FILE: &str = "/usr/share/oem/network.conf";

/// How long to wait between two looks at the kernel's tables.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The machine could not be told its addresses.
#[derive(Debug, thiserror::Error)]
pub enum EnvironmentError {
    /// A file is there but cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The OEM file makes no sense.
    #[error(
        "line {line} of `{OEM_FILE}` is neither `private-interface=NAME` nor \
         `public-interface=NAME`: `{text}`"
    )]
    Oem {
        /// The line's number, from 1.
        line: usize,
        /// What it says.
        text: String,
    },
    /// The kernel did not say.
    #[error("cannot read the network interfaces")]
    Network(#[source] io::Error),
    /// There was nothing to write.
    #[error("{0}")]
    NoAddress(NoAddress),
    /// The file's text cannot be made.
    #[error("cannot change `{}`", path.display())]
    Merge {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: EnvFileError,
    },
    /// The file cannot be written.
    #[error("the addresses cannot be kept")]
    Write(#[source] WriteError),
}

/// No address came, and where it was looked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.sentence())]
pub struct NoAddress {
    /// The interface that ought to have had one, where one was picked.
    pub picked: Option<String>,
    /// All interfaces there are, save `lo`.
    pub seen: Vec<String>,
    /// How long it was waited for.
    pub waited: Duration,
}

impl NoAddress {
    fn sentence(&self) -> String {
        let waited = self.waited;
        let mut text = match &self.picked {
            Some(name) => format!("interface `{name}` got no address within {waited:?}"),
            None => format!("no interface could be picked within {waited:?}"),
        };
        let seen = self.seen.join("`, `");
        // Writing to a string cannot fail.
        let _ = match seen.as_str() {
            "" => write!(text, "; there is none but `lo`: give this machine a network card"),
            seen => write!(text, "; looked at `{seen}`; name the right one in `{OEM_FILE}`"),
        };
        text
    }
}

/// The interfaces that the OEM file names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Named {
    /// The one that other nodes of the cluster reach.
    pub private: Option<String>,
    /// The one that the world reaches.
    pub public: Option<String>,
}

impl Named {
    /// Parses the OEM file: `private-interface=` and `public-interface=` lines, `#` comments.
    pub fn parse(text: &str) -> Result<Self, EnvironmentError> {
        let mut named = Self::default();
        for (number, line) in text.lines().map(str::trim).enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let interface = |key| {
                let rest = line.strip_prefix(key)?.trim_start().strip_prefix('=')?;
                let name = rest.trim();
                let fits = (1..=15).contains(&name.len()) && !name.contains([' ', '/', '`']);
                fits.then(|| name.to_owned())
            };
            if let Some(name) = interface("private-interface") {
                named.private = Some(name);
            } else if let Some(name) = interface("public-interface") {
                named.public = Some(name);
            } else {
                let text = line.chars().take(80).collect();
                return Err(EnvironmentError::Oem { line: number + 1, text });
            }
        }
        Ok(named)
    }
}

/// The kernel's tables at one moment.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// All interfaces.
    pub links: Vec<Link>,
    /// All addresses.
    pub addresses: Vec<LinkAddress>,
    /// The interface of the default route.
    pub default_route: Option<u32>,
}

/// The addresses of one interface that reach beyond the link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses {
    /// The first of IPv4.
    pub ipv4: Option<Ipv4Addr>,
    /// The first of IPv6.
    pub ipv6: Option<Ipv6Addr>,
}

impl Addresses {
    fn is_empty(&self) -> bool {
        self.ipv4.is_none() && self.ipv6.is_none()
    }
}

/// What the machine is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chosen {
    /// What other nodes of the cluster reach.
    pub private: Addresses,
    /// What the world reaches; the same where nobody said otherwise.
    pub public: Addresses,
}

impl Chosen {
    /// Tells whether nothing better can come.
    fn is_complete(&self) -> bool {
        self.private.ipv4.is_some() && self.public.ipv4.is_some()
    }

    /// Tells whether there is something to write.
    fn is_enough(&self) -> bool {
        !self.private.is_empty() && !self.public.is_empty()
    }

    /// Returns the variables by name.
    pub fn variables(&self) -> BTreeMap<String, String> {
        let of = |name: &str, ip: Option<IpAddr>| Some((format!("COREOS_{name}"), ip?.to_string()));
        [
            of("PRIVATE_IPV4", self.private.ipv4.map(IpAddr::V4)),
            of("PRIVATE_IPV6", self.private.ipv6.map(IpAddr::V6)),
            of("PUBLIC_IPV4", self.public.ipv4.map(IpAddr::V4)),
            of("PUBLIC_IPV6", self.public.ipv6.map(IpAddr::V6)),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// Picks the interfaces, and their first addresses that reach beyond the link.
///
/// The one that is named, else that of the default route, else the only physical one.
pub fn choose(named: &Named, view: &View) -> Chosen {
    let private = pick(named.private.as_deref(), view);
    // Where only the private one is named and there is no other to go by, it is both.
    let public = pick(named.public.as_deref(), view).or(private.filter(|_| named.public.is_none()));
    let of = |link: Option<&Link>| link.map(|link| addresses_of(link, view)).unwrap_or_default();
    Chosen { private: of(private), public: of(public) }
}

fn pick<'a>(named: Option<&str>, view: &'a View) -> Option<&'a Link> {
    if let Some(name) = named {
        return view.links.iter().find(|link| link.name == name);
    }
    if let Some(index) = view.default_route {
        return view.links.iter().find(|link| link.index == index);
    }
    let mut physical = view.links.iter().filter(|link| link.physical);
    physical.next().filter(|_| physical.next().is_none())
}

fn addresses_of(link: &Link, view: &View) -> Addresses {
    let ips = || view.addresses.iter().filter(|a| a.link == link.index && a.global).map(|a| a.ip);
    Addresses {
        ipv4: ips().find_map(|ip| if let IpAddr::V4(ip) = ip { Some(ip) } else { None }),
        ipv6: ips().find_map(|ip| if let IpAddr::V6(ip) = ip { Some(ip) } else { None }),
    }
}

/// What to do, and where.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The OEM file, which need not be there.
    pub oem: PathBuf,
    /// The file to keep the variables in.
    pub environment: PathBuf,
    /// How long to wait for an address.
    pub wait: Duration,
}

/// Waits for the machine's addresses and writes them down. Returns what is written there.
///
/// Where only IPv6 came it is taken once the wait is over, for IPv4 may be late.
pub async fn run(netlink: &dyn Netlink, settings: &Settings) -> Result<Chosen, EnvironmentError> {
    let named = Named::parse(
        &read(&settings.oem)?
            .map_or_else(String::new, |text| String::from_utf8_lossy(&text).into_owned()),
    )?;
    let chosen = wait(netlink, &named, settings.wait).await?;
    let (path, variables) = (settings.environment.clone(), chosen.variables());
    tasks::blocking(move || keep(&path, &variables)).await?;
    Ok(chosen)
}

async fn wait(
    netlink: &dyn Netlink,
    named: &Named,
    wait: Duration,
) -> Result<Chosen, EnvironmentError> {
    let deadline = tokio::time::Instant::now() + wait;
    loop {
        let view = look(netlink).await.map_err(EnvironmentError::Network)?;
        let chosen = choose(named, &view);
        let over = tokio::time::Instant::now() >= deadline;
        if chosen.is_complete() || (over && chosen.is_enough()) {
            return Ok(chosen);
        }
        if over {
            return Err(EnvironmentError::NoAddress(no_address(named, &view, &chosen, wait)));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn look(netlink: &dyn Netlink) -> io::Result<View> {
    Ok(View {
        links: netlink.links().await?,
        addresses: netlink.addresses().await?,
        default_route: netlink.default_route().await?,
    })
}

fn no_address(named: &Named, view: &View, chosen: &Chosen, waited: Duration) -> NoAddress {
    let missing = if chosen.private.is_empty() { &named.private } else { &named.public };
    let picked = pick(missing.as_deref(), view).map(|link| link.name.clone());
    let seen = view.links.iter().map(|link| link.name.clone()).filter(|name| name != "lo");
    NoAddress { picked: picked.or_else(|| missing.clone()), seen: seen.collect(), waited }
}

/// Writes the variables down; a file that has them already is not touched.
fn keep(path: &Path, variables: &BTreeMap<String, String>) -> Result<(), EnvironmentError> {
    let existing = read(path)?.unwrap_or_default();
    let merged = env_file::merge(&existing, variables)
        .map_err(|source| EnvironmentError::Merge { path: path.to_owned(), source })?;
    let Some(text) = merged else {
        info!(path = %path.display(), "addresses are as before");
        return Ok(());
    };
    durable_file::replace(path, &text, Attributes::default()).map_err(EnvironmentError::Write)?;
    info!(path = %path.display(), ?variables, "addresses written");
    Ok(())
}

/// Reads a file that need not be there.
fn read(path: &Path) -> Result<Option<Vec<u8>>, EnvironmentError> {
    match std::fs::read(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(EnvironmentError::Read { path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;
    use crate::foundation::tasks::Tasks;
    use crate::platform::netlink::MemoryNetlink;

    fn named(private: &str, public: &str) -> Named {
        let of = |name: &str| (!name.is_empty()).then(|| name.to_owned());
        Named { private: of(private), public: of(public) }
    }

    /// Makes a machine with two cards and a bridge, each with an address.
    fn machine() -> MemoryNetlink {
        let netlink = MemoryNetlink::default();
        let (eth0, eth1) = (netlink.add_card("eth0"), netlink.add_card("eth1"));
        let bridge = netlink.add_virtual("docker0");
        netlink.add_address(eth0, "fe80::5".parse().unwrap());
        netlink.add_address(eth0, "10.0.2.15".parse().unwrap());
        netlink.add_address(eth0, "2001:db8::15".parse().unwrap());
        netlink.add_address(eth1, "172.17.8.101".parse().unwrap());
        netlink.add_address(bridge, "172.18.0.1".parse().unwrap());
        netlink
    }

    async fn chosen(netlink: &MemoryNetlink, named: &Named) -> Vec<String> {
        let chosen = choose(named, &look(netlink).await.unwrap());
        chosen.variables().into_iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    fn settings(root: &Path) -> Settings {
        Settings {
            oem: root.join("network.conf"),
            environment: root.join("etc/environment"),
            wait: Duration::from_secs(30),
        }
    }

    #[tokio::test]
    async fn a_named_interface_wins_and_the_other_is_that_of_the_default_route() {
        let netlink = machine();
        netlink.set_default_route(Some(2));
        assert_eq!(
            chosen(&netlink, &named("eth1", "")).await,
            [
                "COREOS_PRIVATE_IPV4=172.17.8.101",
                "COREOS_PUBLIC_IPV4=10.0.2.15",
                "COREOS_PUBLIC_IPV6=2001:db8::15",
            ]
        );
    }

    #[tokio::test]
    async fn without_names_the_default_route_decides_for_both() {
        let netlink = machine();
        netlink.set_default_route(Some(3));
        assert_eq!(
            chosen(&netlink, &Named::default()).await,
            ["COREOS_PRIVATE_IPV4=172.17.8.101", "COREOS_PUBLIC_IPV4=172.17.8.101"]
        );
    }

    #[tokio::test]
    async fn without_a_route_the_only_card_is_taken_and_of_two_cards_none() {
        let netlink = machine();
        assert!(chosen(&netlink, &Named::default()).await.is_empty());
        let netlink = MemoryNetlink::default();
        let (eth0, bridge) = (netlink.add_card("eth0"), netlink.add_virtual("br0"));
        netlink.add_address(bridge, "10.9.9.9".parse().unwrap());
        netlink.add_address(eth0, "10.0.0.2".parse().unwrap());
        assert_eq!(
            chosen(&netlink, &Named::default()).await,
            ["COREOS_PRIVATE_IPV4=10.0.0.2", "COREOS_PUBLIC_IPV4=10.0.0.2"]
        );
    }

    #[test]
    fn the_oem_file_names_interfaces_and_a_line_it_does_not_know_is_refused() {
        let text = "# Vagrant\n\nprivate-interface=eth1\r\n public-interface = eth0 \n";
        assert_eq!(Named::parse(text).unwrap(), named("eth1", "eth0"));
        let refused = Named::parse("private-interface=eth1\nprivate=eth0\n").unwrap_err();
        assert!(refused.to_string().starts_with("line 2 of "), "{refused}");
        Named::parse("private-interface=\n").unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_comes_late_is_waited_for_and_written_once() {
        let root = tempfile::tempdir().unwrap();
        let settings = settings(root.path());
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::fs::write(&settings.environment, "# mine\nPATH=/bin\n").unwrap();
        let netlink = MemoryNetlink::default();
        let eth0 = netlink.add_card("eth0");
        let tasks = Tasks::default();
        let dhcp = netlink.clone();
        tasks.spawn("dhcp", move |_stop| async move {
            tokio::time::sleep(Duration::from_secs(7)).await;
            dhcp.add_address(eth0, "10.0.0.2".parse().unwrap());
        });
        let before = tokio::time::Instant::now();
        run(&netlink, &settings).await.unwrap();
        assert!(before.elapsed() < Duration::from_secs(8), "{:?}", before.elapsed());
        let text = std::fs::read_to_string(&settings.environment).unwrap();
        let addresses = "COREOS_PRIVATE_IPV4=10.0.0.2\nCOREOS_PUBLIC_IPV4=10.0.0.2\n";
        assert_eq!(text, format!("# mine\nPATH=/bin\n{addresses}"));
        let inode = || std::fs::metadata(&settings.environment).unwrap().ino();
        let written = inode();
        run(&netlink, &settings).await.unwrap();
        assert_eq!(inode(), written, "nothing changed, so nothing was written");
    }

    #[tokio::test(start_paused = true)]
    async fn a_machine_that_has_only_ipv6_gets_that_when_the_wait_is_over() {
        let root = tempfile::tempdir().unwrap();
        let netlink = MemoryNetlink::default();
        let eth0 = netlink.add_card("eth0");
        netlink.add_address(eth0, "2001:db8::2".parse().unwrap());
        let chosen = run(&netlink, &settings(root.path())).await.unwrap();
        assert_eq!(chosen.private.ipv6, Some("2001:db8::2".parse().unwrap()));
        assert_eq!(chosen.private.ipv4, None);
    }

    #[tokio::test(start_paused = true)]
    async fn no_address_is_one_sentence_that_names_the_interfaces() {
        let root = tempfile::tempdir().unwrap();
        let netlink = MemoryNetlink::default();
        netlink.add_card("eth0");
        netlink.add_card("eth1");
        let none = run(&netlink, &settings(root.path())).await.unwrap_err();
        assert_eq!(
            none.to_string(),
            "no interface could be picked within 30s; looked at `eth0`, `eth1`; name the right \
             one in `/usr/share/oem/network.conf`"
        );
        std::fs::write(root.path().join("network.conf"), "private-interface=eth7\n").unwrap();
        let none = run(&netlink, &settings(root.path())).await.unwrap_err();
        assert!(none.to_string().starts_with("interface `eth7` got no address"), "{none}");
        assert!(!root.path().join("etc").exists(), "nothing was written");
    }
}
