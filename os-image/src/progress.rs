//! One line a step, with its duration: a spinner on a terminal, plain lines elsewhere.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;

/// How often the spinner turns.
const TICK: Duration = Duration::from_millis(100);

/// Tells a person how far the build is.
#[derive(Debug)]
pub struct Progress {
    terminal: bool,
}

impl Progress {
    /// Makes one that writes to standard error.
    pub fn on_stderr() -> Self {
        Self { terminal: io::stderr().is_terminal() }
    }

    /// Does one step and says what it was and how long it took.
    pub fn step<T, E>(&self, what: &str, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let spinner =
            if self.terminal { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        spinner.set_message(what.to_owned());
        spinner.enable_steady_tick(TICK);
        let started = Instant::now();
        let done = work();
        spinner.finish_and_clear();
        let mark = if done.is_ok() { "" } else { "failed: " };
        self.say(&format!("{:6.1} s  {mark}{what}", started.elapsed().as_secs_f32()));
        done
    }

    /// Says one line. A reader that went away must not stop a build.
    pub fn say(&self, line: &str) {
        writeln!(io::stderr().lock(), "{line}").ok();
    }
}
