//! `bench etcd`: ours beside etcd itself, on one machine, disk, client and set of cores.
//!
//! ```text
//!   rows: what is measured      for each row, for each round, for each system:
//!   systems: who is measured      servers: start it ─▶ work: do it, by load, watch, kv over unary, http1
//!   limit: no store at all          └─▶ compare: medians, ratios, a table
//! ```

mod compare;
mod http1;
pub(super) mod kv;
pub(super) mod limit;
pub(super) mod load;
pub(super) mod rows;
pub(super) mod servers;
mod told;
mod unary;
mod watch;
mod work;

use std::time::{Duration, Instant};

use clap::Args;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use testbed::error::{LabError, chain};
use testbed::progress::{Steps, say};

use crate::bench::machine;
use compare::Samples;
use rows::{ROWS, Row, Scale, Work};
use servers::System;

/// Client and server share as many cores.
const CORES: usize = 2;

/// How much to measure.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only these rows; all otherwise
    #[arg(long, num_args = 1.., value_name = "NAME", value_parser = rows::named)]
    rows: Vec<Row>,
    /// How many times, all systems after each other each time; figures are medians. What takes
    /// minutes is done once
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=99))]
    rounds: u8,
    /// How long each load lasts
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// How long the idle are looked at
    #[arg(long, default_value_t = 120, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=3600))]
    idle_seconds: u32,
    /// How many keys, and revisions to compact, a million is
    #[arg(long, default_value_t = 1_000_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1000..))]
    million: u32,
    /// After how many minutes nothing more is begun
    #[arg(long, default_value_t = 45, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1440))]
    minutes: u32,
}

impl Options {
    fn scale(&self) -> Scale {
        Scale {
            time: Duration::from_secs(self.seconds.into()),
            idle: Duration::from_secs(self.idle_seconds.into()),
            million: self.million.into(),
        }
    }
}

/// Measures, and prints a table. What could not be measured is left out of it, and is a failure in
/// the end.
pub(super) fn run(options: &Options) -> Result<(), LabError> {
    stay_on_few_cores()?;
    let systems = servers::systems()?;
    let rows: &[Row] = if options.rows.is_empty() { ROWS } else { &options.rows };
    let mut bench = Bench {
        samples: Samples::new(&systems),
        steps: Steps::default(),
        end: Instant::now() + Duration::from_secs(60 * u64::from(options.minutes)),
        failed: 0,
        options,
    };
    for row in rows {
        let rounds = if row.long { 1 } else { options.rounds };
        for round in 1..=rounds {
            bench.round(row, &systems, &format!("{} {round}/{rounds}", row.name));
        }
    }
    let ours = testbed::binary();
    let table = bench.samples.table(rows);
    crate::print(&format!("{}\nours: {}\n\n{table}\n", machine()?, ours.display()))?;
    match bench.failed {
        0 => Ok(()),
        failed => Err(LabError::Missing(format!("{failed} measurements failed, as said above"))),
    }
}

/// One run of the benchmark.
struct Bench<'a> {
    options: &'a Options,
    samples: Samples,
    steps: Steps,
    /// When nothing more is begun.
    end: Instant,
    failed: usize,
}

impl Bench<'_> {
    /// Has each system do a row's work once.
    fn round(&mut self, row: &Row, systems: &[System], name: &str) {
        let scale = self.options.scale();
        let who: Vec<_> = systems.iter().filter(|system| system.does(row)).collect();
        if row.work == Work::Idle {
            let measured = self.step(name, || work::measure_idle(&who, scale.idle));
            for (system, sample) in who.iter().zip(measured.unwrap_or_default()) {
                self.take(row, system, &sample);
            }
            return;
        }
        for system in who {
            let step = format!("{name}, {}", system.name());
            if let Some(sample) = self.step(&step, || work::measure(row, system, &scale)) {
                self.take(row, system, &sample);
            }
        }
    }

    fn step<T>(&mut self, name: &str, work: impl FnOnce() -> Result<T, LabError>) -> Option<T> {
        let minutes = self.options.minutes;
        let late = || LabError::Missing(format!("not begun: {minutes} minutes are over"));
        let done =
            if Instant::now() < self.end { self.steps.step(name, work) } else { Err(late()) };
        if let Err(error) = &done {
            self.failed += 1;
            say(&format!("{name}: {}", chain(error)));
        }
        done.ok()
    }

    fn take(&mut self, row: &Row, system: &System, sample: &[(rows::Metric, f64)]) {
        let figures = sample.iter().map(|(metric, value)| figure(*metric, *value));
        say(&format!("           {}: {}", system.name(), figures.collect::<Vec<_>>().join("; ")));
        self.samples.add(row, system, sample);
    }
}

fn figure(metric: rows::Metric, value: f64) -> String {
    format!("{}: {}", metric.name(), compare::shown(value))
}

/// This process and those that it starts share the first cores that it may use: a machine with
/// more would compare something else.
pub(super) fn stay_on_few_cores() -> Result<(), LabError> {
    let failed = |errno: rustix::io::Errno| LabError::Ask {
        whom: "the kernel for two cores".to_owned(),
        source: errno.into(),
    };
    let allowed = sched_getaffinity(None).map_err(failed)?;
    let mut few = CpuSet::new();
    let usable = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
    usable.take(CORES).for_each(|core| few.set(core));
    sched_setaffinity(None, &few).map_err(failed)
}
