//! Members of a store as processes on loopback.
//!
//! Each test process has an address of its own there, made from its process id, and gives each port
//! of it only once, so that nobody takes the ports of a member that is not started yet, or is down
//! for a while.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::error::{LabError, chain};
use crate::http::{self, Answer, Request};
use crate::process::{Lifetime, Program, Running};
use crate::wait;

/// How long a member may take to answer: its own deadline is 7 s.
pub const ANSWER: Duration = Duration::from_secs(10);
/// How long a member may take to serve, on a loaded machine.
pub const START: Duration = Duration::from_secs(20);

/// The next port to give. The kernel hands out those from 32768 on by itself.
static NEXT_PORT: AtomicU16 = AtomicU16::new(20_000);
/// How many ports are tried before a machine without a free one is told of.
const PORTS_TRIED: usize = 1000;

/// A folder and an address for one test.
#[derive(Debug)]
pub struct Site {
    /// The folder. It is kept where the test fails, since the logs are there.
    pub dir: PathBuf,
    /// The address.
    pub host: Ipv4Addr,
}

impl Site {
    /// Makes an empty folder below `base`, and the address of this process.
    pub fn new(base: &str, name: &str) -> Result<Self, LabError> {
        let dir = Path::new(base).join("cluster").join(name);
        if dir.exists() {
            fs::remove_dir_all(&dir).map_err(LabError::file("remove", &dir))?;
        }
        fs::create_dir_all(&dir).map_err(LabError::file("create", &dir))?;
        let [high, middle, low, lowest] = std::process::id().to_be_bytes();
        let host = Ipv4Addr::new(127, 64 | (high ^ middle) & 63, low, lowest);
        Ok(Self { dir, host })
    }

    /// Finds `count` free ports that this process has given to nobody yet.
    pub fn ports(&self, count: usize) -> Result<Vec<SocketAddrV4>, LabError> {
        let free = |at: &SocketAddrV4| TcpListener::bind(at).is_ok();
        let next = || SocketAddrV4::new(self.host, NEXT_PORT.fetch_add(1, Ordering::Relaxed));
        let found: Vec<_> =
            std::iter::repeat_with(next).take(PORTS_TRIED).filter(free).take(count).collect();
        if found.len() < count {
            let why = format!("no {count} ports of {PORTS_TRIED} are free on {}", self.host);
            return Err(LabError::Missing(why));
        }
        Ok(found)
    }

    /// Makes members that begin as one cluster; none is started.
    pub fn cluster(&self, names: &[&str]) -> Result<Vec<Member>, LabError> {
        let mut members = Vec::new();
        for name in names {
            members.push(Member::new(self, name)?);
        }
        let listed: Vec<_> = members.iter().map(Member::listed).collect();
        let add = |member: Member| member.flag("initial-cluster", listed.join(","));
        Ok(members.into_iter().map(add).collect())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // What is left behind is wiped by the next run.
            fs::remove_dir_all(&self.dir).ok();
        }
    }
}

/// A member: its settings, and its process while it has one.
#[derive(Debug)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Where it serves clients.
    pub client: SocketAddrV4,
    /// Where it serves other members.
    pub peer: SocketAddrV4,
    /// Its data directory.
    pub data: PathBuf,
    log: PathBuf,
    flags: Vec<(String, String)>,
    within: Vec<String>,
    other: Option<PathBuf>,
    running: Option<Running>,
}

impl Member {
    /// A member with free ports and no data.
    pub fn new(site: &Site, name: &str) -> Result<Self, LabError> {
        let ports = site.ports(2)?;
        Ok(Self::at(&site.dir, name, ports[0], ports[1]))
    }

    /// A member at certain ports, without data.
    #[must_use]
    pub fn at(dir: &Path, name: &str, client: SocketAddrV4, peer: SocketAddrV4) -> Self {
        let (data, log) = (dir.join(name), dir.join(format!("{name}.log")));
        let (flags, within) = (Vec::new(), Vec::new());
        let name = name.to_owned();
        Self { name, client, peer, data, log, flags, within, other: None, running: None }
    }

    /// Sets a flag; of two with one name the last counts.
    #[must_use]
    pub fn flag(mut self, name: &str, value: impl Into<String>) -> Self {
        self.flags.retain(|(known, _)| known != name);
        self.flags.push((name.to_owned(), value.into()));
        self
    }

    /// Runs it by another program, such as `nsenter … --`.
    #[must_use]
    pub fn within(mut self, words: &[String]) -> Self {
        self.within = words.to_vec();
        self
    }

    /// Runs another program than ours, which knows the same flags.
    #[must_use]
    pub fn by(mut self, program: &Path) -> Self {
        self.other = Some(program.to_owned());
        self
    }

    /// How the others name it: `name=url`.
    #[must_use]
    pub fn listed(&self) -> String {
        format!("{}=http://{}", self.name, self.peer)
    }

    /// Its command line.
    #[must_use]
    pub fn program(&self) -> Program {
        let (client, peer) = (format!("http://{}", self.client), format!("http://{}", self.peer));
        let (own, verb) = match &self.other {
            Some(other) => (other.clone(), None),
            None => (crate::binary(), Some("etcd")),
        };
        let program = match self.within.split_first() {
            None => Program::new(own),
            Some((first, rest)) => Program::new(first).args(rest).arg(own),
        };
        program
            .args(verb)
            .args(["--name", &self.name, "--data-dir"])
            .arg(&self.data)
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(self.flags.iter().map(|(name, value)| format!("--{name}={value}")))
    }

    /// Starts it.
    pub fn start(&mut self) -> Result<(), LabError> {
        self.running = Some(self.program().start(Lifetime::Owned, &self.log)?);
        Ok(())
    }

    /// Starts it, and waits until it has a majority behind it.
    pub fn start_healthy(&mut self) -> Result<(), LabError> {
        self.start()?;
        self.healthy()
    }

    /// Waits until it has a majority behind it.
    pub fn healthy(&mut self) -> Result<(), LabError> {
        let what = format!("{} to be healthy", self.name);
        Ok(wait::until(&what, START, || self.is_healthy())?)
    }

    /// Says whether it has a majority behind it, or why not.
    pub fn is_healthy(&mut self) -> Result<(), String> {
        let running = self.running.as_mut().ok_or("it was not started")?;
        running.check().map_err(|error| chain(&error))?;
        let answer = self.get("/health").map_err(|error| chain(&error))?;
        if answer.status == 200 { Ok(()) } else { Err(answer.body) }
    }

    /// The id of its process.
    pub fn id(&self) -> Result<u32, LabError> {
        self.running.as_ref().map(Running::id).ok_or_else(|| self.not_started())
    }

    /// Ends it at once, as a loss of power would.
    pub fn kill(&mut self) {
        self.running = None;
    }

    /// Asks it to end.
    pub fn terminate(&mut self) -> Result<(), LabError> {
        let running = self.running.as_ref().ok_or_else(|| self.not_started())?;
        let failed = |source| LabError::Start { command: "kill -TERM".to_owned(), source };
        running.terminate().map_err(failed)
    }

    /// Waits until it has ended by itself.
    pub fn ended(&mut self, limit: Duration) -> Result<ExitStatus, LabError> {
        let missing = self.not_started();
        self.running.as_mut().ok_or(missing)?.wait(limit)
    }

    /// Runs it where it must refuse to; returns its exit code and its one sentence.
    pub fn refused(&self) -> Result<(Option<i32>, String), LabError> {
        let outcome = self.program().finish(START)?;
        Ok((outcome.status.code(), sentences(&outcome.stderr).join("\n")))
    }

    /// The sentences with which it ended, so far.
    pub fn sentences(&self) -> Result<Vec<String>, LabError> {
        Ok(sentences(&self.said()?))
    }

    /// All that it logged so far.
    pub fn said(&self) -> Result<String, LabError> {
        fs::read_to_string(&self.log).map_err(LabError::file("read", &self.log))
    }

    /// Asks it.
    pub fn ask(&self, request: &Request<'_>) -> Result<Answer, LabError> {
        http::ask_local(self.client, request, ANSWER)
    }

    /// `GET` of a path.
    pub fn get(&self, path: &str) -> Result<Answer, LabError> {
        self.ask(&Request { method: "GET", path, body: None })
    }

    /// `GET` of a path that answers with JSON.
    pub fn json(&self, path: &str) -> Result<Value, LabError> {
        self.get(path)?.json()
    }

    /// Sets a key, with a form such as `value=1`.
    pub fn put(&self, key: &str, form: &str) -> Result<Answer, LabError> {
        let path = format!("/v2/keys{key}");
        let body = Some(("application/x-www-form-urlencoded", form));
        self.ask(&Request { method: "PUT", path: &path, body })
    }

    /// Sets a key, and fails where that was not acknowledged.
    pub fn set(&self, key: &str, value: &str) -> Result<(), LabError> {
        self.put(key, &format!("value={value}"))?.json().map(drop)
    }

    /// A key's value, read through the majority.
    pub fn value(&self, key: &str) -> Result<String, LabError> {
        let read = self.json(&format!("/v2/keys{key}?quorum=true"))?;
        Ok(read["node"]["value"].as_str().unwrap_or_default().to_owned())
    }

    /// The name of the one that leads, as far as this one knows.
    pub fn leader(&self) -> Result<String, LabError> {
        let leader = self.json("/v2/members/leader")?;
        Ok(leader["name"].as_str().unwrap_or_default().to_owned())
    }

    fn not_started(&self) -> LabError {
        LabError::Missing(format!("{} was not started", self.name))
    }
}

/// The lines of a log that say why the process ended.
fn sentences(log: &str) -> Vec<String> {
    let said = |line: &str| Some(line.split_once("ERROR etcd: ")?.1.to_owned());
    log.lines().filter_map(|line| said(line).or_else(|| whole(line))).collect()
}

/// A complaint from before there is a log.
fn whole(line: &str) -> Option<String> {
    line.strip_prefix("etcd: ").map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_is_found_with_and_without_a_log() {
        let log =
            "2026-01-01T00:00:00Z  INFO stopping\n2026-01-01T00:00:00Z ERROR etcd: no\netcd: `x`\n";
        assert_eq!(sentences(log), ["no", "`x`"]);
    }

    #[test]
    fn no_port_is_given_twice() {
        let site = Site { dir: PathBuf::new(), host: Ipv4Addr::LOCALHOST };
        let one = site.ports(3).unwrap();
        let held = TcpListener::bind(SocketAddrV4::new(site.host, one[2].port() + 1));
        let more = site.ports(3).unwrap();
        let all: std::collections::BTreeSet<_> = one.iter().chain(&more).collect();
        assert_eq!(all.len(), 6);
        drop(held);
    }
}
