//! Commands on a node: ssh with a key made for this lab, one connection for all of them, and a
//! deadline on each.

use std::ffi::OsString;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::LabError;
use crate::process::{Outcome, Program};
use crate::wait;

/// How long a command has unless its caller says otherwise.
pub const COMMAND: Duration = Duration::from_mins(1);
/// The user whom every node has.
const USER: &str = "core";

/// The key pair of a lab.
#[derive(Debug, Clone)]
pub struct Key {
    path: PathBuf,
    public: String,
}

impl Key {
    /// Makes one in `dir`, or takes the one that is there.
    pub fn make(dir: &Path) -> Result<Self, LabError> {
        let path = dir.join("key");
        if !path.exists() {
            let quick = Duration::from_secs(30);
            Program::line("ssh-keygen -q -t ed25519 -C lab -N")
                .arg("")
                .arg("-f")
                .arg(&path)
                .run(quick)?;
        }
        let public = path.with_extension("pub");
        let public = fs::read_to_string(&public).map_err(LabError::file("read", &public))?;
        Ok(Self { path, public: public.trim().to_owned() })
    }

    /// The line for `authorized_keys`.
    #[must_use]
    pub fn public(&self) -> &str {
        &self.public
    }

    /// Where its secret half is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The way into one node.
#[derive(Debug, Clone)]
pub struct Ssh {
    namespace: String,
    address: Ipv4Addr,
    key: PathBuf,
    control: PathBuf,
}

impl Ssh {
    /// Into the node at `address`; `sockets` is a folder with a short path.
    #[must_use]
    pub fn new(namespace: &str, address: Ipv4Addr, key: &Key, sockets: &Path) -> Self {
        Self {
            namespace: namespace.to_owned(),
            address,
            key: key.path().to_owned(),
            control: sockets.join(format!("ssh-{address}")),
        }
    }

    /// Runs a shell command as the user `core` and returns what it printed.
    pub fn run(&self, command: &str) -> Result<String, LabError> {
        self.run_within(command, COMMAND)
    }

    /// The same with another deadline.
    pub fn run_within(&self, command: &str, limit: Duration) -> Result<String, LabError> {
        self.program().arg(command).run(limit)
    }

    /// Runs a shell command as root.
    pub fn root(&self, command: &str) -> Result<String, LabError> {
        self.run(&format!("sudo -n sh -c {}", quoted(command)))
    }

    /// Runs a shell command, whatever its exit status.
    pub fn attempt(&self, command: &str, limit: Duration) -> Result<Outcome, LabError> {
        self.program().arg(command).finish(limit)
    }

    /// Writes a file, as the user `core`.
    pub fn put(&self, path: &str, bytes: &[u8]) -> Result<(), LabError> {
        let command = format!("cat > {}", quoted(path));
        self.program().arg(command).input(bytes).run(COMMAND).map(drop)
    }

    /// Waits until the node lets us in.
    pub fn ready(&self, limit: Duration) -> Result<(), LabError> {
        let what = format!("ssh at {}", self.address);
        let knock = Duration::from_secs(30);
        wait::until(&what, limit, || {
            self.run_within("true", knock).map_err(|error| error.to_string())
        })?;
        Ok(())
    }

    /// Brings a unix socket of the node to `here` on this host.
    pub fn forward_socket(&self, there: &str, here: &Path) -> Result<(), LabError> {
        // Gone already is as good as removed now.
        fs::remove_file(here).ok();
        self.ready(COMMAND)?;
        let pair = format!("{}:{there}", here.display());
        self.client().args(["-O", "forward", "-L", &pair]).arg(self.whom()).run(COMMAND).map(drop)
    }

    /// Lets go of the connection: after a power cut, nobody is at its other end.
    pub fn forget(&self) {
        if self.control.exists() {
            let quick = Duration::from_secs(5);
            self.client().args(["-O", "exit"]).arg(self.whom()).finish(quick).ok();
            fs::remove_file(&self.control).ok();
        }
    }

    /// The command line that a person uses, to be run with a terminal.
    #[must_use]
    pub fn interactive(&self, command: &[String]) -> Vec<OsString> {
        let mut words: Vec<OsString> =
            ["ip", "netns", "exec", &self.namespace, "ssh"].map(OsString::from).to_vec();
        words.extend(self.options());
        words.push(self.whom().into());
        words.extend(command.iter().map(OsString::from));
        words
    }

    fn program(&self) -> Program {
        self.client()
            .args(["-o", "ControlMaster=auto", "-o", "ControlPersist=120"])
            .arg(self.whom())
    }

    fn client(&self) -> Program {
        Program::new("ssh").args(self.options()).inside(&self.namespace)
    }

    fn whom(&self) -> String {
        format!("{USER}@{}", self.address)
    }

    fn options(&self) -> Vec<OsString> {
        // The machine is ours, made a minute ago: its host key says nothing.
        let mut words: Vec<OsString> = "-F none -q -o BatchMode=no -o StrictHostKeyChecking=no \
             -o UserKnownHostsFile=/dev/null -o PasswordAuthentication=no \
             -o KbdInteractiveAuthentication=no -o IdentitiesOnly=yes -o ConnectTimeout=20 \
             -o ServerAliveInterval=5 -o ServerAliveCountMax=6"
            .split_whitespace()
            .map(OsString::from)
            .collect();
        words.extend([OsString::from("-i"), self.key.clone().into()]);
        let mut control = OsString::from("ControlPath=");
        control.push(&self.control);
        words.extend([OsString::from("-o"), control]);
        words
    }
}

/// A word for the shell, whatever is in it.
#[must_use]
pub fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_word_survives_the_shell() {
        let word = "it's $HOME `date` \"\\n\"";
        let echoed = Program::new("sh")
            .args(["-c", &format!("printf %s {}", quoted(word))])
            .run(COMMAND)
            .unwrap();
        assert_eq!(echoed, word);
    }
}
