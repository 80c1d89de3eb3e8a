//! Who is measured, and their processes while they run.

use std::fs;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use corebox::wire::etcd::v3::etcdserverpb as pb;
use testbed::error::LabError;
use testbed::etcd::{Member, Site};
use testbed::etcd_v3::{self, Client};
use testbed::process::{Lifetime, Program, Running};
use testbed::wait;

use crate::bench::etcd::rows::Row;

/// How long a member may take to be healthy again with a million keys, on a loaded machine.
const START: Duration = Duration::from_mins(2);
/// How long a program may take to say its version, and a member to end.
const END: Duration = Duration::from_mins(1);
/// The kernel's unit of processor time in `/proc`: a hundredth of a second for every program.
const TICKS_PER_SECOND: f64 = 100.0;
/// How much of a log goes into an error, in lines.
const LINES: usize = 5;

/// Someone who is measured.
#[derive(Debug, Clone)]
pub(super) enum System {
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
pub(super) struct Servers {
    /// The members; none of the limit.
    members: Vec<Member>,
    limit: Option<Running>,
    /// Whom to ask: the leader.
    pub(super) address: SocketAddrV4,
    /// How long it took from the first start until all were healthy.
    pub(super) first_start: Duration,
    /// Last: processes end before their folder goes.
    site: Site,
}

impl Servers {
    /// Starts so many members without data, and waits until all are healthy.
    pub(super) fn start(system: &System, count: usize) -> Result<Self, LabError> {
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
        let used: Result<f64, _> = self.ids()?.into_iter().map(|id| proc(id, "stat", ticks)).sum();
        Ok(used? / TICKS_PER_SECOND)
    }

    /// Anonymous and shared memory of all of them, in MiB: what no file stands behind.
    pub(super) fn memory(&self) -> Result<f64, LabError> {
        self.status(|status| Some(kibibytes(status, "RssAnon:")? + kibibytes(status, "RssShmem:")?))
    }

    /// All memory of all of them, in MiB.
    pub(super) fn resident(&self) -> Result<f64, LabError> {
        self.status(|status| kibibytes(status, "VmRSS:"))
    }

    fn status(&self, read: impl Fn(&str) -> Option<f64>) -> Result<f64, LabError> {
        let all: Result<f64, _> = self.ids()?.into_iter().map(|id| proc(id, "status", &read)).sum();
        Ok(all? / 1024.0)
    }
}

/// Processor time of this process so far, in seconds.
pub(super) fn own_cpu() -> Result<f64, LabError> {
    Ok(proc(std::process::id(), "stat", ticks)? / TICKS_PER_SECOND)
}

/// The error for an answer that will not do.
pub(super) fn refused(whom: SocketAddrV4, status: &tonic::Status) -> LabError {
    LabError::Answer { whom: whom.to_string(), what: status.to_string() }
}

fn proc(id: u32, file: &str, read: impl Fn(&str) -> Option<f64>) -> Result<f64, LabError> {
    let path = Path::new("/proc").join(id.to_string()).join(file);
    let text = fs::read_to_string(&path).map_err(LabError::file("read", &path))?;
    read(&text).ok_or_else(|| LabError::Missing(format!("no figure in {}", path.display())))
}

/// Time in user mode and in the kernel: the 14th and 15th field, where the 2nd is a name in
/// brackets that may have anything in it.
fn ticks(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11);
    let (user, kernel) = (fields.next()?, fields.next()?);
    Some(user.parse::<f64>().ok()? + kernel.parse::<f64>().ok()?)
}

/// A figure of `/proc/PID/status`.
fn kibibytes(status: &str, key: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
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
    fn processor_time_is_found_behind_any_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 31 12 0 0 20 0 5 0 100 0 0";
        assert_eq!(ticks(stat), Some(43.0));
        assert_eq!(ticks("7 (a"), None);
    }

    #[test]
    fn memory_is_told_by_its_kind() {
        let status = "VmRSS:\t 9000 kB\nRssAnon:\t    2048 kB\nRssFile:\t 1 kB\n";
        assert_eq!(kibibytes(status, "RssAnon:"), Some(2048.0));
        assert_eq!(kibibytes(status, "VmRSS:"), Some(9000.0));
        assert_eq!(kibibytes(status, "RssShmem:"), None);
        assert_eq!(kibibytes("RssAnon: 1 MB\n", "RssAnon:"), None);
    }

    #[test]
    fn a_version_is_read() {
        assert_eq!(version("etcd Version: 3.4.23\nGit SHA: x\n").as_deref(), Some("3.4.23"));
    }
}
