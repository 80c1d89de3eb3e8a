//! `bench faults`: what eight clients that put notice of another that does wrong, and what the
//! member's memory grows by meanwhile.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::time::Duration;

use clap::Args;
use comfy_table::Table;
use comfy_table::presets::ASCII_MARKDOWN;
use testbed::error::{LabError, chain};
use testbed::etcd::Member;
use testbed::faults::bad::{self, Bad, Kind};
use testbed::faults::held::{self, Held};
use testbed::progress::{Steps, say};
use tokio::task::JoinSet;

use crate::bench::etcd::load;
use crate::bench::etcd::rows::Op;
use crate::bench::etcd::servers::{Servers, System};
use crate::bench::etcd::{kv, stay_on_few_cores};
use crate::bench::figures::median;
use crate::bench::machine;

/// Clients that put, each again as soon as it was answered.
const CLIENTS: usize = 8;
/// Keys that they put.
const PUTS: Op = Op::Put { keys: 1000 };
/// How long they put before it counts.
const WARM_UP: Duration = Duration::from_secs(1);
/// Between two bad requests.
const EVERY: Duration = Duration::from_millis(50);
/// Between two looks at the memory.
const LOOK: Duration = Duration::from_millis(100);
/// How much longer 99 of 100 puts may take than undisturbed.
const RATIO_MAX: f64 = 1.5;
/// What the memory may grow by, in MiB.
const GROWTH_MIB_MAX: f64 = 256.0;
/// Descriptors that this process needs beside the connections that it keeps.
const OTHER_DESCRIPTORS: usize = 200;

/// Who does what wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Row {
    /// Twenty bad requests a second.
    Bad(Kind),
    /// Connections on which byte comes after byte.
    Slow,
    /// Connections that say nothing, or half a word.
    Idle,
    /// Watches of everything that nobody reads.
    Deaf,
}

const ROWS: [(&str, Row); 7] = [
    ("oversize", Row::Bad(Kind::Oversize)),
    ("bad-text", Row::Bad(Kind::BadText)),
    ("malformed", Row::Bad(Kind::Malformed)),
    ("lying", Row::Bad(Kind::Lying)),
    ("slow", Row::Slow),
    ("idle", Row::Idle),
    ("deaf", Row::Deaf),
];

/// How much to measure.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only these rows; all otherwise
    #[arg(long, num_args = 1.., value_name = "NAME", value_parser = ROWS.map(|(name, _)| name))]
    rows: Vec<String>,
    /// How many times; figures are medians
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=99))]
    rounds: u8,
    /// How long the clients put undisturbed, and then disturbed
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// How many connections are idle
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    idle: usize,
    /// How many connections are slow
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    slow: usize,
    /// How many watches are not read
    #[arg(long, default_value_t = 16, value_name = "N")]
    deaf: usize,
}

/// What one round of a row came to.
#[derive(Debug, Clone, Copy)]
struct Sample {
    undisturbed_ms: f64,
    disturbed_ms: f64,
    growth_mib: f64,
}

/// Measures, and prints a table. What could not be measured is a failure in the end.
pub(super) fn run(options: &Options) -> Result<(), LabError> {
    stay_on_few_cores()?;
    held::allow_descriptors(options.idle.max(options.slow) + OTHER_DESCRIPTORS)?;
    let wanted = |name: &str| options.rows.is_empty() || options.rows.iter().any(|row| row == name);
    let steps = Steps::default();
    let mut samples: BTreeMap<usize, Vec<Sample>> = BTreeMap::new();
    let mut failed = 0;
    for round in 1..=options.rounds {
        for (at, (name, row)) in ROWS.iter().enumerate().filter(|(_, (name, _))| wanted(name)) {
            let step = format!("{name} {round}/{}", options.rounds);
            match steps.step(&step, || measure(*row, options)) {
                Ok(sample) => samples.entry(at).or_default().push(sample),
                Err(error) => {
                    failed += 1;
                    say(&format!("{step}: {}", chain(&error)));
                }
            }
        }
    }
    let ours = testbed::binary();
    crate::print(&format!("{}\nours: {}\n\n{}\n", machine()?, ours.display(), table(&samples)))?;
    match failed {
        0 => Ok(()),
        failed => Err(LabError::Missing(format!("{failed} measurements failed, as said above"))),
    }
}

fn table(samples: &BTreeMap<usize, Vec<Sample>>) -> Table {
    let mut table = Table::new();
    table.load_preset(ASCII_MARKDOWN).set_header([
        "ROW",
        "P99 UNDISTURBED, ms",
        "P99, ms",
        "RATIO",
        "GROWTH, MiB",
        "REACHED",
    ]);
    for (at, samples) in samples {
        let middle = |figure: &dyn Fn(&Sample) -> f64| {
            median(&samples.iter().map(figure).collect::<Vec<_>>())
        };
        let ratio = middle(&|sample| sample.disturbed_ms / sample.undisturbed_ms);
        let growth = middle(&|sample| sample.growth_mib);
        let reached = ratio <= RATIO_MAX && growth <= GROWTH_MIB_MAX;
        table.add_row([
            ROWS[*at].0.to_owned(),
            format!("{:.2}", middle(&|sample| sample.undisturbed_ms)),
            format!("{:.2}", middle(&|sample| sample.disturbed_ms)),
            format!("{ratio:.2}"),
            format!("{growth:.1}"),
            if reached { "yes" } else { "no" }.to_owned(),
        ]);
    }
    table
}

fn measure(row: Row, options: &Options) -> Result<Sample, LabError> {
    let servers = Servers::start(&System::Ours, 1)?;
    let member = servers.members.first().ok_or_else(|| LabError::Missing("no member".into()))?;
    let failed = |source| LabError::Ask { whom: "tokio for a runtime".to_owned(), source };
    let runtime = tokio::runtime::Runtime::new().map_err(failed)?;
    runtime.block_on(async {
        let time = Duration::from_secs(options.seconds.into());
        let (undisturbed_ms, _) = putting(&servers, time).await?;
        let before = servers.memory()?;
        let mut disturbance = Disturbance::begin(row, member, options).await?;
        let (disturbed_ms, most) = putting(&servers, time).await?;
        disturbance.check()?;
        Ok(Sample { undisturbed_ms, disturbed_ms, growth_mib: most - before })
    })
}

/// Has the clients put; returns what 99 of 100 puts took at most, in milliseconds, and the most
/// memory that the server had meanwhile, in MiB.
async fn putting(servers: &Servers, time: Duration) -> Result<(f64, f64), LabError> {
    let clients = kv::clients(servers.address, PUTS, CLIENTS);
    let looking = async {
        let (mut looks, mut most) = (tokio::time::interval(LOOK), 0.0_f64);
        let end = tokio::time::Instant::now() + time;
        while looks.tick().await < end {
            most = most.max(servers.memory()?);
        }
        Ok::<_, LabError>(most)
    };
    let (latencies, most) = load::during(clients, WARM_UP, looking).await?;
    Ok((latencies.per_mille(990)?, most?))
}

/// Someone who does wrong, until this is dropped.
enum Disturbance {
    Asking(JoinSet<Result<(), LabError>>),
    Holding(Held, usize),
}

impl Disturbance {
    async fn begin(row: Row, member: &Member, options: &Options) -> Result<Self, LabError> {
        let client = member.client;
        let failed = |source| LabError::Ask { whom: client.to_string(), source };
        let (held, count) = match row {
            Row::Bad(kind) => {
                let mut asking = JoinSet::new();
                asking.spawn(ask(kind, client, member.peer));
                return Ok(Self::Asking(asking));
            }
            Row::Slow => (held::slow(client, options.slow), options.slow),
            Row::Idle => (held::idle(client, options.idle).await.map_err(failed)?, options.idle),
            Row::Deaf => {
                (held::never_reading(client, options.deaf).await.map_err(failed)?, options.deaf)
            }
        };
        Ok(Self::Holding(held, count))
    }

    /// Fails where the disturbance was over before its time, or was not answered as it should be.
    fn check(&mut self) -> Result<(), LabError> {
        match self {
            Self::Asking(asking) => match asking.try_join_next() {
                Some(Ok(Err(error))) => Err(error),
                Some(_) => Err(LabError::Missing("the bad client is gone".to_owned())),
                None => Ok(()),
            },
            Self::Holding(held, count) => {
                let left = held.count();
                let lost = || LabError::Missing(format!("{left} of {count} connections are left"));
                if left == *count { Ok(()) } else { Err(lost()) }
            }
        }
    }
}

/// Asks what is bad in one way, again and again.
async fn ask(kind: Kind, client: SocketAddrV4, peer: SocketAddrV4) -> Result<(), LabError> {
    let all: Vec<Bad> = bad::all().into_iter().filter(|bad| bad.kind == kind).collect();
    let mut every = tokio::time::interval(EVERY);
    let mut under_way = JoinSet::new();
    for bad in all.iter().cycle() {
        every.tick().await;
        let bad = bad.clone();
        under_way.spawn(async move { (bad.ask(client, peer).await, bad) });
        while let Some(answered) = under_way.try_join_next() {
            let Ok((answer, bad)) = answered else { continue };
            if answer.as_ref().ok() != Some(&bad.refusal) {
                let what = format!("{answer:?} to {}", bad.what);
                return Err(LabError::Answer { whom: client.to_string(), what });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_whether_both_bars_are_reached() {
        let sample = |disturbed_ms, growth_mib| {
            vec![Sample { undisturbed_ms: 2.0, disturbed_ms, growth_mib }]
        };
        let samples = [(0, sample(3.0, 256.0)), (4, sample(3.1, 1.0)), (5, sample(2.0, 257.0))];
        let table = table(&samples.into()).to_string();
        let reached: Vec<_> = table.lines().skip(2).map(|line| line.contains("| yes ")).collect();
        assert_eq!(reached, [true, false, false], "{table}");
    }
}
