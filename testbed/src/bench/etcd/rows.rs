//! What is measured: each row is one piece of work that every system does.

use std::time::Duration;

/// Bytes of every value.
pub(super) const VALUE_BYTES: usize = 256;
/// Keys that a listing returns.
pub(super) const LISTED: u64 = 5000;
/// Keys that are there to be read.
pub(super) const READ: u64 = 10_000;

/// What a number is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Metric {
    /// Operations, or events, in a second.
    Rate,
    /// What the servers spent on one of them.
    Cpu,
    /// What the clients spent on one of them: what no server can make faster.
    Client,
    /// The time that half of them took at most.
    Median,
    /// The time that all but a hundredth took at most.
    P99,
    /// The same while the database is defragmented, which ours never needs.
    Defragmenting,
    /// Anonymous and shared memory.
    Memory,
    /// All memory, also what a file stands behind.
    Resident,
    /// From starting a process until it says that it is healthy.
    Healthy,
    /// Time on a processor while nobody asks.
    Idle,
}

impl Metric {
    /// Its name and its unit, for people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Rate => "1/s",
            Self::Cpu => "server CPU each, µs",
            Self::Client => "client CPU each, µs",
            Self::Median => "p50, ms",
            Self::P99 => "p99, ms",
            Self::Defragmenting => "p99 at defragmentation, ms",
            Self::Memory => "memory, MiB",
            Self::Resident => "all resident, MiB",
            Self::Healthy => "to healthy, ms",
            Self::Idle => "idle, % of a core",
        }
    }

    /// Of two, the better.
    pub(super) fn better(self, one: f64, other: f64) -> f64 {
        if self == Self::Rate { one.max(other) } else { one.min(other) }
    }

    /// Says whether a ratio is at least as good as promised.
    pub(super) fn reaches(self, ratio: f64, promised: f64) -> bool {
        if self == Self::Rate { ratio >= promised } else { ratio <= promised }
    }
}

/// One operation of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bench) enum Op {
    /// Put over so many keys; as many as there are puts, if that is more.
    Put {
        /// How many.
        keys: u64,
    },
    /// Read one key, linearizably.
    Get,
    /// Read [`LISTED`] keys, linearizably.
    List,
    /// Put a key if it is new.
    Txn,
    /// `PUT /v2/keys`.
    PutV2,
    /// `GET /v2/keys`.
    GetV2,
}

/// Every put is of a new key.
const NEW: Op = Op::Put { keys: u64::MAX };

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// Clients that each ask again as soon as they were answered.
    Load { op: Op, clients: usize, members: usize },
    /// A thousand watchers see every put of one client.
    Watch,
    /// A million keys: memory, then a restart.
    Fill,
    /// A start without data.
    Start,
    /// Nothing.
    Idle,
    /// Puts while a million revisions are compacted.
    Compact,
}

/// What is promised of a metric: ours divided by the better peer's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Bar {
    /// Of what.
    pub(super) metric: Metric,
    /// What must be.
    pub(super) must: f64,
    /// What should be.
    pub(super) should: f64,
}

/// One row of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Row {
    /// What one types.
    pub(super) name: &'static str,
    /// What it is, for people.
    pub(super) about: &'static str,
    /// What is done.
    pub(super) work: Work,
    /// What is promised.
    pub(super) bars: &'static [Bar],
    /// What is shown beside it, with nothing promised.
    pub(super) beside: &'static [Metric],
    /// Whether it takes minutes: then it is done in the first round only.
    pub(super) long: bool,
    /// The part of what a server without a store reaches, where that is a goal.
    pub(super) of_limit: Option<f64>,
}

const fn bar(metric: Metric, must: f64, should: f64) -> Bar {
    Bar { metric, must, should }
}

const fn load(op: Op, clients: usize) -> Work {
    Work::Load { op, clients, members: 1 }
}

const fn row(name: &'static str, about: &'static str, work: Work, bars: &'static [Bar]) -> Row {
    Row { name, about, work, bars, beside: &[], long: false, of_limit: None }
}

/// What a load shows beside what is promised of it.
const LOAD: &[Metric] = &[Metric::Client, Metric::Median, Metric::P99];

/// All rows.
pub(super) const ROWS: &[Row] = &[
    Row {
        of_limit: Some(0.5),
        beside: LOAD,
        ..row(
            "put-64",
            "put, 64 clients",
            load(NEW, 64),
            &[bar(Metric::Rate, 1.6, 2.2), bar(Metric::Cpu, 0.45, 0.3)],
        )
    },
    Row {
        beside: LOAD,
        ..row(
            "put-1000",
            "put, 1000 clients",
            load(NEW, 1000),
            &[bar(Metric::Rate, 1.3, 2.0), bar(Metric::Cpu, 0.55, 0.33)],
        )
    },
    Row {
        beside: &[Metric::Rate, Metric::Cpu, Metric::P99],
        ..row("put-1", "put, 1 client", load(NEW, 1), &[bar(Metric::Median, 0.75, 0.6)])
    },
    Row {
        beside: &[Metric::Cpu, Metric::Client, Metric::P99],
        ..row(
            "put-three",
            "put, 64 clients, three members",
            Work::Load { op: NEW, clients: 64, members: 3 },
            &[bar(Metric::Rate, 1.6, 2.2)],
        )
    },
    Row {
        of_limit: Some(0.8),
        beside: LOAD,
        ..row(
            "get-64",
            "linearizable get, 64 clients",
            load(Op::Get, 64),
            &[bar(Metric::Rate, 2.2, 3.0), bar(Metric::Cpu, 0.35, 0.25)],
        )
    },
    Row {
        beside: &[Metric::Cpu, Metric::Client, Metric::P99],
        ..row(
            "list-8",
            "range of 5000 keys, 8 clients",
            load(Op::List, 8),
            &[bar(Metric::Rate, 5.0, 10.0)],
        )
    },
    Row {
        beside: &[Metric::Cpu, Metric::Client, Metric::P99],
        ..row(
            "txn-64",
            "txn of compare and put, 64 clients",
            load(Op::Txn, 64),
            &[bar(Metric::Rate, 1.6, 2.2)],
        )
    },
    Row {
        beside: &[Metric::Client],
        ..row(
            "watch",
            "1000 watchers on 10 streams, events",
            Work::Watch,
            &[bar(Metric::Cpu, 0.35, 0.15), bar(Metric::Rate, 2.0, 4.0)],
        )
    },
    Row {
        long: true,
        beside: &[Metric::Resident],
        ..row(
            "fill",
            "a million keys",
            Work::Fill,
            &[bar(Metric::Memory, 0.6, 0.4), bar(Metric::Healthy, 0.2, 0.1)],
        )
    },
    row("start", "start without data", Work::Start, &[bar(Metric::Healthy, 0.15, 0.05)]),
    Row {
        long: true,
        ..row("idle", "one member, nobody asks", Work::Idle, &[bar(Metric::Idle, 0.5, 0.2)])
    },
    Row {
        beside: LOAD,
        ..row(
            "put-v2",
            "v2 put over HTTP, 64 clients",
            load(Op::PutV2, 64),
            &[bar(Metric::Rate, 1.4, 2.0), bar(Metric::Cpu, 0.5, 0.3)],
        )
    },
    Row {
        beside: LOAD,
        ..row(
            "get-v2",
            "v2 get over HTTP, 64 clients",
            load(Op::GetV2, 64),
            &[bar(Metric::Rate, 1.2, 2.0), bar(Metric::Cpu, 0.5, 0.3)],
        )
    },
    Row {
        long: true,
        beside: &[Metric::Median, Metric::Defragmenting],
        ..row(
            "compact",
            "put, 64 clients, while a million revisions are compacted",
            Work::Compact,
            &[bar(Metric::P99, 0.7, 0.3)],
        )
    },
];

/// Finds a row by its name.
pub(super) fn named(name: &str) -> Result<Row, String> {
    let found = ROWS.iter().find(|row| row.name == name).copied();
    let names: Vec<_> = ROWS.iter().map(|row| row.name).collect();
    found.ok_or_else(|| format!("there is no row `{name}`; there are: {}", names.join(" ")))
}

/// How many and how long, so that a trial may be short.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    /// How long a load lasts.
    pub(super) time: Duration,
    /// How long the idle are looked at.
    pub(super) idle: Duration,
    /// How many keys, or revisions, a million is.
    pub(super) million: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_a_name_of_its_own_and_a_bar_below_its_aim() {
        for row in ROWS {
            assert_eq!(named(row.name).unwrap().about, row.about);
            for Bar { metric, must, should } in row.bars {
                assert!(metric.reaches(*should, *must), "{}: {metric:?}", row.name);
                assert!(!metric.reaches(*must, *should), "{}: {metric:?}", row.name);
            }
        }
        assert!(named("no-such-row").unwrap_err().contains("put-64"));
    }
}
