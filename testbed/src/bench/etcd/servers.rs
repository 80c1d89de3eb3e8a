//! Who is measured, and their processes while they run.

use std::fs;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use corebox::wire::etcd::v3::etcdserverpb as pb;
use testbed::error::LabError;
use testbed::etcd::{Member, Site};
use testbed::etcd_v3::{self, Client};
use testbed::proc;
use testbed::process::{Lifetime, Program, Running};
use testbed::wait;

use crate::bench::etcd::rows::Row;

/// How long a member may take to be healthy again with a million keys, on a loaded machine.
const START: Duration = Duration::from_mins(2);
/// How long a program may take to say its version, and a member to end.
const END: Duration = Duration::from_mins(1);
/// How much of a log goes into an error, in lines.
const LINES: usize = 5;

/// Someone who is measured.
#[derive(Debug, Clone)]
pub(in crate::bench) enum System {
    /// The program under test.
    Ours,
    /// One of etcd's own.
    Peer {
        /// Its version.
        version: String,
        /// The program.
        program: PathBuf,
    },
    /// Our way of serving gRPC with nothing behind it.
    Limit,
}

impl System {
    /// Its name in tables.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Ours => "ours".to_owned(),
            Self::Peer { version, .. } => format!("etcd {version}"),
            Self::Limit => "limit".to_owned(),
        }
    }

    /// Says whether it takes part in a row.
    pub(super) fn does(&self, row: &Row) -> bool {
        !matches!(self, Self::Limit) || row.of_limit.is_some()
    }
}

/// Ours, the peers that `cargo xtask bench` has unpacked, and the limit.
pub(super) fn systems() -> Result<Vec<System>, LabError> {
    let Some(folder) = std::env::var_os("COREBOX_PEERS") else {
        return Err(LabError::Missing("run this through `cargo xtask bench etcd`".to_owned()));
    };
    let mut systems = vec![System::Ours];
    for peer in ["debian", "pypi"] {
        let program = Path::new(&folder).join(peer).join("etcd");
        let said = Program::new(&program).arg("--version").run(END)?;
        let version = version(&said).ok_or_else(|| LabError::Answer {
            whom: format!("`{} --version`", program.display()),
            what: said.clone(),
        })?;
        systems.push(System::Peer { version, program });
    }
    systems.push(System::Limit);
    Ok(systems)
}

/// The version in what `etcd --version` says.
fn version(said: &str) -> Option<String> {
    let line = said.lines().find_map(|line| line.strip_prefix("etcd Version: "));
    line.map(|version| version.trim().to_owned())
}

/// Processes of one system, with a folder of their own; both end with this value.
#[derive(Debug)]
pub(in crate::bench) struct Servers {
    /// The members; none of the limit.
    pub(in crate::bench) members: Vec<Member>,
    limit: Option<Running>,
    /// Whom to ask: the leader.
    pub(in crate::bench) address: SocketAddrV4,
    /// How long it took from the first start until all were healthy.
    pub(super) first_start: Duration,
    /// Last: processes end before their folder goes.
    site: Site,
}

impl Servers {
    /// Starts so many members without data, and waits until all are healthy.
    pub(in crate::bench) fn start(system: &System, count: usize) -> Result<Self, LabError> {
        let base = testbed::lab::root().with_file_name("bench");
        let site = Site::new(&base.to_string_lossy(), &system.name().replace(' ', "-"))?;
        if matches!(system, System::Limit) {
            return Self::limit(site);
        }
        let names: Vec<_> = ["one", "two", "three"].into_iter().take(count).collect();
        let members = site.cluster(&names)?.into_iter().map(|member| match system {
            System::Peer { program, .. } => member.by(program).flag("enable-v2", "true"),
            System::Ours | System::Limit => member,
        });
        let members: Vec<_> = members.collect();
        let address = members[0].client;
        let first_start = Duration::ZERO;
        let mut servers = Self { members, limit: None, address, first_start, site };
        servers.first_start = servers.start_again()?;
        if count > 1 {
            servers.address = servers.leader()?;
        }
        Ok(servers)
    }

    fn limit(site: Site) -> Result<Self, LabError> {
        let address = site.ports(1)?[0];
        let own = std::env::current_exe().map_err(LabError::file("find", Path::new("testbed")))?;
        let program = Program::new(own).args(["limit", &address.to_string()]);
        let running = program.start(Lifetime::Owned, &site.dir.join("limit.log"))?;
        let (members, limit, first_start) = (Vec::new(), Some(running), Duration::ZERO);
        let servers = Self { members, limit, address, first_start, site };
        let dial = || std::net::TcpStream::connect(address);
        wait::until("the limit to serve", START, || dial().map(drop))?;
        Ok(servers)
    }

    /// Starts the members, and returns how long it took until all of them were healthy.
    pub(super) fn start_again(&mut self) -> Result<Duration, LabError> {
        let start = Instant::now();
        for member in &mut self.members {
            member.start()?;
        }
        for member in &mut self.members {
            let what = format!("{} to be healthy", member.name);
            let healthy = wait::until_exactly(&what, START, || member.is_healthy());
            healthy.map_err(|error| {
                let log = last_lines(&self.site.dir.join(format!("{}.log", member.name)));
                LabError::Missing(format!("{error}; its log: {log}"))
            })?;
        }
        Ok(start.elapsed())
    }

    /// Has the members end by themselves.
    pub(super) fn stop(&mut self) -> Result<(), LabError> {
        for member in &mut self.members {
            member.terminate()?;
            member.ended(END)?;
        }
        Ok(())
    }

    /// Where the member is that leads.
    fn leader(&self) -> Result<SocketAddrV4, LabError> {
        for member in &self.members {
            let asked = async {
                let client = Client::new(member.client);
                client.maintenance.clone().status(pb::StatusRequest::default()).await
            };
            let status = etcd_v3::run(asked)?.map_err(|status| refused(member.client, &status))?;
            let status = status.into_inner();
            if status.header.is_some_and(|header| header.member_id == status.leader) {
                return Ok(member.client);
            }
        }
        Err(LabError::Missing("no member leads".to_owned()))
    }

    fn ids(&self) -> Result<Vec<u32>, LabError> {
        let members = self.members.iter().map(Member::id);
        members.chain(self.limit.iter().map(|running| Ok(running.id()))).collect()
    }

    /// Processor time of all of them so far, in seconds.
    pub(super) fn cpu(&self) -> Result<f64, LabError> {
        self.ids()?.into_iter().map(proc::cpu).sum()
    }

    /// Anonymous and shared memory of all of them, in MiB: what no file stands behind.
    pub(in crate::bench) fn memory(&self) -> Result<f64, LabError> {
        self.ids()?.into_iter().map(proc::memory).sum()
    }

    /// All memory of all of them, in MiB.
    pub(super) fn resident(&self) -> Result<f64, LabError> {
        self.ids()?.into_iter().map(proc::resident).sum()
    }
}

/// Processor time of this process so far, in seconds.
pub(super) fn own_cpu() -> Result<f64, LabError> {
    proc::cpu(std::process::id())
}

/// The error for an answer that will not do.
pub(super) fn refused(whom: SocketAddrV4, status: &tonic::Status) -> LabError {
    LabError::Answer { whom: whom.to_string(), what: status.to_string() }
}

fn last_lines(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().rev().take(LINES).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read() {
        assert_eq!(version("etcd Version: 3.4.23\nGit SHA: x\n").as_deref(), Some("3.4.23"));
    }
}
