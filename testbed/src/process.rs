//! Programs of the host: run with a deadline, or kept running under an owner.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::MemfdFlags;
use rustix::process::{Pid, Signal};

use crate::error::LabError;
use crate::wait;

/// How long between two looks at a running program.
const GLANCE: Duration = Duration::from_millis(10);
/// How much of what a failed program said goes into the error.
const SAID: usize = 2000;

/// How long a started program lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// Until its owner lets go of it, or dies.
    Owned,
    /// Until somebody takes the lab down.
    Detached,
}

/// A command line to be run.
#[derive(Debug, Clone)]
pub struct Program {
    words: Vec<OsString>,
    environment: Vec<(&'static str, OsString)>,
    input: Vec<u8>,
}

impl Program {
    /// A program by name or path.
    pub fn new(name: impl AsRef<OsStr>) -> Self {
        Self { words: vec![name.as_ref().to_owned()], environment: Vec::new(), input: Vec::new() }
    }

    /// The words of a command line that has no quotes in it.
    #[must_use]
    pub fn line(line: &str) -> Self {
        let words = line.split_whitespace().map(OsString::from).collect();
        Self { words, environment: Vec::new(), input: Vec::new() }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, word: impl AsRef<OsStr>) -> Self {
        self.words.push(word.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(mut self, words: I) -> Self {
        self.words.extend(words.into_iter().map(|word| word.as_ref().to_owned()));
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, name: &'static str, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name, value.as_ref().to_owned()));
        self
    }

    /// What it reads from its standard input; nothing otherwise.
    #[must_use]
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = bytes.into();
        self
    }

    /// Runs it inside a named network namespace.
    #[must_use]
    pub fn inside(mut self, namespace: &str) -> Self {
        let prefix = ["ip", "netns", "exec", namespace].map(OsString::from);
        self.words.splice(0..0, prefix);
        self
    }

    /// Runs it to its end and returns what it wrote to its standard output.
    pub fn run(self, limit: Duration) -> Result<String, LabError> {
        let outcome = self.finish(limit)?;
        if outcome.status.success() {
            return Ok(outcome.stdout);
        }
        let said = tail(&format!("{}{}", outcome.stdout, outcome.stderr));
        Err(LabError::Failed { command: self.shown(), status: outcome.status, said })
    }

    /// Runs it to its end, however that is.
    pub fn finish(&self, limit: Duration) -> Result<Outcome, LabError> {
        let started = |source| LabError::Start { command: self.shown(), source };
        let (mut stdout, mut stderr) = (scratch().map_err(started)?, scratch().map_err(started)?);
        let mut stdin = scratch().map_err(started)?;
        stdin.write_all(&self.input).and_then(|()| stdin.rewind()).map_err(started)?;
        let mut child = self
            .command(&self.words)
            .stdin(stdin)
            .stdout(stdout.try_clone().map_err(started)?)
            .stderr(stderr.try_clone().map_err(started)?)
            .spawn()
            .map_err(started)?;
        let start = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().map_err(started)? {
                break status;
            }
            if start.elapsed() > limit {
                end(&mut child);
                let said = tail(&format!("{}{}", text(&mut stdout), text(&mut stderr)));
                return Err(LabError::Late { command: self.shown(), limit, said });
            }
            wait::rest(GLANCE);
        };
        Ok(Outcome { status, stdout: text(&mut stdout), stderr: text(&mut stderr) })
    }

    /// Starts it, with what it says in a file.
    ///
    /// An owned program dies with the *thread* that started it (that is what the kernel offers), so
    /// start it from one that lives as long as its owner.
    pub fn start(self, lifetime: Lifetime, log: &Path) -> Result<Running, LabError> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .map_err(LabError::file("write", log))?;
        let again = file.try_clone().map_err(LabError::file("write", log))?;
        let keeper: &[&str] = match lifetime {
            Lifetime::Owned => &["setpriv", "--pdeathsig", "KILL", "--"],
            Lifetime::Detached => &["setsid"],
        };
        let words: Vec<OsString> =
            keeper.iter().map(OsString::from).chain(self.words.iter().cloned()).collect();
        let child = self
            .command(&words)
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(again)
            .spawn()
            .map_err(|source| LabError::Start { command: self.shown(), source })?;
        Ok(Running { name: self.shown(), child, lifetime })
    }

    fn command(&self, words: &[OsString]) -> Command {
        let (program, arguments) = words.split_first().expect("made from a name");
        let mut command = Command::new(program);
        command.args(arguments).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    fn shown(&self) -> String {
        let words: Vec<_> = self.words.iter().map(|word| word.to_string_lossy()).collect();
        words.join(" ")
    }
}

/// How a program ended.
#[derive(Debug)]
pub struct Outcome {
    /// Its exit status.
    pub status: ExitStatus,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
}

/// A program that runs, and ends with this value when it is owned.
#[derive(Debug)]
pub struct Running {
    name: String,
    child: Child,
    lifetime: Lifetime,
}

impl Running {
    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Says how it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Fails when it has ended: for waits on what it should bring about.
    pub fn check(&mut self) -> Result<(), LabError> {
        match self.ended() {
            None => Ok(()),
            Some(status) => Err(LabError::Failed {
                command: self.name.clone(),
                status,
                said: "it ended early; its log says why".to_owned(),
            }),
        }
    }

    /// Ends it at once, as a power cut would.
    pub fn kill(&mut self) {
        end(&mut self.child);
    }

    /// Asks it to end, as a service manager would.
    pub fn terminate(&self) -> io::Result<()> {
        let id = Pid::from_child(&self.child);
        Ok(rustix::process::kill_process(id, Signal::TERM)?)
    }

    /// Waits until it has ended by itself.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus, LabError> {
        let what = format!("`{}` to end", self.name);
        Ok(wait::until(&what, limit, || self.ended().ok_or("still running"))?)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.lifetime == Lifetime::Owned {
            end(&mut self.child);
        }
    }
}

fn end(child: &mut Child) {
    // Both fail only for a process that has been waited for: then there is nothing left to do.
    child.kill().ok();
    child.wait().ok();
}

fn scratch() -> io::Result<File> {
    Ok(rustix::fs::memfd_create("lab", MemfdFlags::CLOEXEC).map(File::from)?)
}

fn text(file: &mut File) -> String {
    let mut bytes = Vec::new();
    // Memory of our own: reading it back cannot fail in a way that matters more than its content.
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).ok();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn tail(said: &str) -> String {
    let start = said.len().saturating_sub(SAID);
    let start = (start..=said.len()).find(|&at| said.is_char_boundary(at)).unwrap_or(said.len());
    said[start..].trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    #[test]
    fn a_failed_program_says_what_it_said() {
        let error = Program::new("sh").args(["-c", "echo no >&2; exit 3"]).run(SOON).unwrap_err();
        assert!(matches!(error, LabError::Failed { ref said, .. } if said == "no"), "{error}");
    }

    #[test]
    fn a_program_that_hangs_is_ended_at_its_deadline() {
        let error = Program::line("sleep 100").run(Duration::from_millis(50)).unwrap_err();
        assert!(matches!(error, LabError::Late { .. }), "{error}");
    }

    #[test]
    fn input_reaches_the_program() {
        assert_eq!(Program::new("cat").input("hello").run(SOON).unwrap(), "hello");
    }

    #[test]
    fn an_owned_program_ends_with_its_owner() {
        let log = std::env::temp_dir().join(format!("owned-{}.log", std::process::id()));
        let running = Program::line("sleep 100").start(Lifetime::Owned, &log).unwrap();
        let proc = Path::new("/proc").join(running.id().to_string());
        assert!(proc.exists());
        drop(running);
        assert!(!proc.exists());
        std::fs::remove_file(log).unwrap();
    }
}
