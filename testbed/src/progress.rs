//! Says what takes long, with the time that it took.

use std::io::Write as _;
use std::time::{Duration, Instant};

/// Writes one line for the person who waits.
pub fn say(line: &str) {
    // Nobody may be listening any more, which is no reason to stop.
    writeln!(std::io::stderr().lock(), "{line}").ok();
}

/// The named steps of one scenario, with their times.
#[derive(Debug)]
pub struct Steps {
    start: Instant,
}

impl Default for Steps {
    fn default() -> Self {
        Self { start: Instant::now() }
    }
}

impl Steps {
    /// Does one step and says how long it took.
    pub fn step<T>(&self, name: &str, work: impl FnOnce() -> T) -> T {
        say(&format!("{} {name} …", stamp(self.start.elapsed())));
        let begun = Instant::now();
        let done = work();
        let took = begun.elapsed().as_secs_f64();
        say(&format!("{} {name}: {took:.1} s", stamp(self.start.elapsed())));
        done
    }
}

fn stamp(time: Duration) -> String {
    format!("[{:6.1} s]", time.as_secs_f64())
}
