//! This process as the kernel sees it (`proc(5)`): its time, memory, descriptors and words.

use std::fs;
use std::io;
use std::path::Path;

use rustix::process::{Resource, getrlimit, setrlimit};

/// Where the kernel says it.
pub const PROC: &str = "/proc";

/// Parts of a second in which the kernel counts a process's time (`USER_HZ`): one on every Linux.
const TICKS: f64 = 100.0;

/// What the kernel says of this process.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Process {
    /// Seconds of processor time it took.
    pub cpu_seconds: f64,
    /// Seconds from the Unix epoch to its start.
    pub start_seconds: f64,
    /// Bytes of memory it has in use.
    pub resident_bytes: u64,
    /// Bytes of addresses it has reserved.
    pub virtual_bytes: u64,
    /// Descriptors it has open.
    pub open_fds: u64,
    /// Descriptors it may have.
    pub max_fds: u64,
    /// The words it was started with.
    pub words: Vec<String>,
}

/// Reads what the kernel says, below `proc`.
pub fn read(proc: &Path) -> io::Result<Process> {
    let text = |name: &str| fs::read_to_string(proc.join(name));
    let open = fs::read_dir(proc.join("self/fd"))?.count();
    let words = text("self/cmdline")?;
    let words = words.trim_end_matches('\0').split('\0').map(str::to_owned).collect();
    let process = Process { open_fds: open as u64, words, ..Process::default() };
    let parsed = parse(process, &text("self/stat")?, &text("self/status")?, &text("stat")?);
    let mut process = parsed.ok_or(io::ErrorKind::InvalidData)?;
    process.max_fds = descriptors().unwrap_or(u64::MAX);
    Ok(process)
}

/// Returns how many descriptors this process may have, if that is limited.
pub fn descriptors() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// Allows this process as many descriptors as it may allow itself.
pub fn raise_descriptors() -> io::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}

fn parse(known: Process, stat: &str, status: &str, system: &str) -> Option<Process> {
    // The name of the program stands in brackets, and may have anything in it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').split_whitespace().next()?.parse::<u64>().ok()
    };
    let boot = system.lines().find_map(|line| line.strip_prefix("btime "))?;
    Some(Process {
        // Fields 14, 15 and 22 of `proc_pid_stat(5)`; the third stands first here.
        cpu_seconds: (ticks(11)? + ticks(12)?) / TICKS,
        start_seconds: boot.trim().parse::<f64>().ok()? + ticks(19)? / TICKS,
        resident_bytes: kib("VmRSS")? * 1024,
        virtual_bytes: kib("VmSize")? * 1024,
        ..known
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_is_understood() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 1 0 0 0 150 50 0 0 20 0 3 0 2000 9 9 9";
        let status = "Name:\ta\nVmSize:\t    200 kB\nVmRSS:\t     10 kB\n";
        let process = parse(Process::default(), stat, status, "cpu 1\nbtime 1000\n").unwrap();
        let expected = Process {
            cpu_seconds: 2.0,
            start_seconds: 1020.0,
            resident_bytes: 10 << 10,
            virtual_bytes: 200 << 10,
            ..Process::default()
        };
        assert_eq!(process, expected);
    }

    #[test]
    fn this_process_is_found() {
        let process = read(Path::new(PROC)).unwrap();
        assert!(process.open_fds > 2 && process.max_fds >= process.open_fds, "{process:?}");
        assert!(process.resident_bytes > 100_000 && !process.words.is_empty(), "{process:?}");
    }
}
