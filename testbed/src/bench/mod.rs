//! `bench`: figures of this machine, taken in one run.

mod boot;
mod etcd;
mod faults;
mod figures;

use std::fs;
use std::path::Path;

use clap::Subcommand;
use testbed::error::LabError;

pub(crate) use etcd::limit::serve as serve_limit;

/// What to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum What {
    /// Build of the image, its size, boots of one and of three machines, memory of what runs there
    Boot {
        /// How many times; each figure is the median
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=99))]
        times: u8,
    },
    /// Speed and size of the store, beside those of etcd
    Etcd(etcd::Options),
    /// What those who put notice of clients that do wrong, and what memory these take
    Faults(faults::Options),
}

/// Measures, and prints a table.
pub(crate) fn run(what: &What) -> Result<(), LabError> {
    match what {
        What::Boot { times } => boot::run(*times),
        What::Etcd(options) => etcd::run(options),
        What::Faults(options) => faults::run(options),
    }
}

/// What these figures were taken on.
pub(crate) fn machine() -> Result<String, LabError> {
    let read =
        |path: &str| fs::read_to_string(path).map_err(LabError::file("read", Path::new(path)));
    let value = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default().to_owned();
        line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let (cpu, memory) = (read("/proc/cpuinfo")?, read("/proc/meminfo")?);
    let cores = cpu.lines().filter(|line| line.starts_with("processor")).count();
    Ok(format!(
        "{cores} cores of {}, {} of memory, Linux {}",
        value(&cpu, "model name"),
        value(&memory, "MemTotal"),
        read("/proc/sys/kernel/osrelease")?.trim()
    ))
}
