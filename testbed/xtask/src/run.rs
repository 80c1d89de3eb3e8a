//! Runs other programs, and says what takes long.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Why a verb did not do what it should.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line makes no sense.
    Usage(String),
    /// A program could not be started.
    Start(String, io::Error),
    /// A program ended with an error, which it has told already.
    Step(String),
    /// Anything that a person has to do first.
    First(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) | Self::First(text) => out.write_str(text),
            Self::Start(program, error) => write!(out, "cannot start `{program}`: {error}"),
            Self::Step(command) => write!(out, "`{command}` failed"),
        }
    }
}

/// The root of this checkout.
pub(crate) fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().unwrap_or(root)
}

/// Writes a line for the person who waits.
pub(crate) fn say(text: &str) {
    // Nobody may be listening any more, which is no reason to stop.
    writeln!(io::stderr().lock(), "{text}").ok();
}

/// What became of a command, and what it said.
#[derive(Debug)]
pub(crate) struct Heard {
    /// Whether it ended well.
    pub(crate) well: bool,
    /// All that it wrote, on both streams.
    pub(crate) text: String,
}

/// One command, run in the checkout's root with its output shown.
#[derive(Debug)]
pub(crate) struct Step {
    words: Vec<OsString>,
    environment: Vec<(&'static str, OsString)>,
}

impl Step {
    /// A program with the words of a line that has no quotes in it.
    pub(crate) fn line(line: &str) -> Self {
        let words = line.split_whitespace().map(OsString::from).collect();
        Self { words, environment: Vec::new() }
    }

    /// A program by its path.
    pub(crate) fn program(path: impl AsRef<OsStr>) -> Self {
        Self { words: vec![path.as_ref().to_owned()], environment: Vec::new() }
    }

    /// The cargo that runs us.
    pub(crate) fn cargo(line: &str) -> Self {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut step = Self::line(line);
        step.words.insert(0, cargo);
        step
    }

    /// Adds arguments.
    pub(crate) fn args<S: AsRef<OsStr>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.words.extend(words.into_iter().map(|word| word.as_ref().to_owned()));
        self
    }

    /// Sets a variable of its environment.
    pub(crate) fn env(mut self, name: &'static str, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name, value.as_ref().to_owned()));
        self
    }

    /// Runs it to its end.
    pub(crate) fn run(self) -> Result<(), Failure> {
        let shown = self.shown();
        let status =
            self.command().status().map_err(|error| Failure::Start(shown.clone(), error))?;
        if status.success() { Ok(()) } else { Err(Failure::Step(shown)) }
    }

    /// Runs it to its end without showing anything, and says whether it ended well.
    pub(crate) fn silently(self) -> bool {
        self.command().output().is_ok_and(|output| output.status.success())
    }

    /// Runs it to its end with all that it writes shown, and returns that too.
    pub(crate) fn heard(self) -> Result<Heard, Failure> {
        let shown = self.shown();
        let started = |error| Failure::Start(shown.clone(), error);
        let (reader, writer) = io::pipe().map_err(started)?;
        let again = writer.try_clone().map_err(started)?;
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(writer).stderr(again);
        let mut child = command.spawn().map_err(started)?;
        // It holds our ends of the pipe, which must be closed for reading to end.
        drop(command);
        let mut text = String::new();
        for line in BufReader::new(reader).split(b'\n') {
            let line = line.map_err(started)?;
            let line = String::from_utf8_lossy(&line);
            say(&line);
            text.push_str(&line);
            text.push('\n');
        }
        let well = child.wait().map_err(started)?.success();
        Ok(Heard { well, text })
    }

    /// Runs it and returns what it wrote.
    pub(crate) fn text(self) -> Result<String, Failure> {
        let shown = self.shown();
        let output =
            self.command().output().map_err(|error| Failure::Start(shown.clone(), error))?;
        if !output.status.success() {
            return Err(Failure::Step(shown));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn command(&self) -> Command {
        let (program, arguments) = self.words.split_first().expect("made from a line");
        let mut command = Command::new(program);
        command.args(arguments).current_dir(root());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    fn shown(&self) -> String {
        let words: Vec<_> = self.words.iter().map(|word| word.to_string_lossy()).collect();
        let program = words.first().map_or("", |word| word.rsplit('/').next().unwrap_or(word));
        let words: Vec<_> =
            std::iter::once(program).chain(words.iter().skip(1).map(AsRef::as_ref)).collect();
        words.join(" ")
    }
}
