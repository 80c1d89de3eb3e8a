//! `check perf`: writes at a steady pace for a minute, and says whether the store kept up.

use std::cell::Cell;
use std::time::Duration;

use clap::{ArgMatches, Command};
use tokio::time::Instant;

use crate::cli::etcdctl::args::{flag, value, verb};
use crate::cli::etcdctl::v3::keys::prefix_range;
use crate::cli::etcdctl::v3::{Failed, Session, Step, words};
use crate::rpc::client::v3::{Client, ClientError};
use crate::wire::etcd::v3::etcdserverpb as pb;

/// How long it is written.
const DURATION: Duration = Duration::from_mins(1);
/// Bytes of each value.
const VALUE_BYTES: usize = 1_024;
/// Different keys that are written.
const KEYS: u32 = 10_000;
/// How much of the goal must be reached, in percent.
const THROUGHPUT_PERCENT_MIN: u32 = 90;
/// How long the slowest write may take.
const SLOWEST_MAX: Duration = Duration::from_millis(500);
/// How far times may be from their mean.
const DEVIATION_MAX: Duration = Duration::from_millis(100);

/// How much is written.
#[derive(Debug, Clone, Copy)]
struct Load {
    per_second: u32,
    clients: u32,
}

impl Load {
    fn parse(text: &str) -> Step<Self> {
        let (per_second, clients) = match text {
            "s" | "small" => (150, 50),
            "m" | "medium" => (1_000, 200),
            "l" | "large" => (8_000, 500),
            "xl" | "xLarge" => (15_000, 1_000),
            _ => return Err(Failed::feature(format_args!("unknown load option {text}"))),
        };
        Ok(Self { per_second, clients })
    }
}

/// What became of the writes.
#[derive(Debug, Default)]
struct Outcome {
    took: Vec<Duration>,
    failures: Vec<ClientError>,
}

/// Describes the verb.
pub(super) fn verb_check() -> Command {
    words::group("check", "Find out what the cluster can do").subcommand(
        verb("perf", "Write for a minute and see whether the cluster keeps up").args([
            value(
                "load",
                "LOAD",
                "`s`, `m`, `l` or `xl`: 150, 1000, 8000 or 15000 writes a second",
            )
            .default_value("s"),
            value("prefix", "PREFIX", "Below which keys are written, and removed afterwards")
                .default_value("/etcdctl-check-perf/"),
            flag("auto-compact", "Forget afterwards what was written"),
            flag("auto-defrag", "Have members give space back afterwards"),
        ]),
    )
}

impl Session {
    pub(super) async fn check(&mut self, words: &ArgMatches) -> Step<()> {
        match words.subcommand() {
            Some(("perf", words)) => self.perf(words, DURATION).await,
            Some(("datascale", _)) => Err(words::later("check datascale")),
            other => Err(words::unknown(&format!("check {}", other.map_or("", |(verb, _)| verb)))),
        }
    }

    /// Writes for so long, and says how it went.
    pub(super) async fn perf(&mut self, words: &ArgMatches, duration: Duration) -> Step<()> {
        let text = |name| words.get_one::<String>(name).map_or("", String::as_str);
        let (load, prefix) = (Load::parse(text("load"))?, text("prefix"));
        if prefix.is_empty() {
            return Err(Failed::arguments("an empty prefix would remove every key afterwards"));
        }
        self.is_free(prefix).await?;
        let outcome = write(&self.client, load, duration, prefix).await;
        let revision = self.remove(prefix).await?;
        if words.get_flag("auto-compact") {
            let request = pb::CompactionRequest { revision, physical: true };
            self.client
                .write(|mut services| async move { services.kv.compact(request).await })
                .await?;
        }
        if words.get_flag("auto-defrag") {
            self.defrag_named().await?;
        }
        let (lines, well) = verdict(load, duration, &outcome);
        for line in lines {
            self.output.line(line);
        }
        self.output.line(if well { "PASS" } else { "FAIL" });
        if well { Ok(()) } else { Err(Failed::error("the cluster does not keep up")) }
    }

    async fn is_free(&self, prefix: &str) -> Step<()> {
        let (key, range_end) = prefix_range(prefix.into());
        let request = pb::RangeRequest { key, range_end, count_only: true, ..Default::default() };
        let found = self.client.read(|mut services| {
            let request = request.clone();
            async move { services.kv.range(request).await }
        });
        if found.await?.count > 0 {
            return Err(Failed::input(format_args!(
                "prefix \"{prefix}\" has keys. Delete with `etcdctl del --prefix {prefix}` first."
            )));
        }
        Ok(())
    }

    /// Removes what was written and returns the revision after it.
    async fn remove(&self, prefix: &str) -> Step<i64> {
        let (key, range_end) = prefix_range(prefix.into());
        let request = pb::DeleteRangeRequest { key, range_end, prev_kv: false };
        let done = self
            .client
            .write(|mut services| async move { services.kv.delete_range(request).await });
        Ok(done.await?.header.map_or(0, |header| header.revision))
    }
}

/// Writes at the pace of `load` for as long as told.
async fn write(client: &Client, load: Load, duration: Duration, prefix: &str) -> Outcome {
    let start = Instant::now();
    let next = Cell::new(0_u32);
    let due = |number: u32| start + Duration::from_secs(1) / load.per_second * number;
    let one = || async {
        let mut outcome = Outcome::default();
        loop {
            let number = next.replace(next.get() + 1);
            let at = due(number);
            // A store that does not keep up is not written to for longer.
            if at >= start + duration || Instant::now() >= start + duration {
                return outcome;
            }
            tokio::time::sleep_until(at).await;
            let key = format!("{prefix}{}", number % KEYS).into_bytes();
            let request =
                pb::PutRequest { key, value: vec![b'x'; VALUE_BYTES], ..Default::default() };
            let sent = Instant::now();
            let done = client.write(|mut services| async move { services.kv.put(request).await });
            match done.await {
                Ok(_) => outcome.took.push(sent.elapsed()),
                Err(error) => outcome.failures.push(error),
            }
        }
    };
    let writers = futures_util::future::join_all((0..load.clients).map(|_| one()));
    let mut all = Outcome::default();
    for outcome in writers.await {
        all.took.extend(outcome.took);
        all.failures.extend(outcome.failures);
    }
    all
}

/// Says line by line how the writes went, and whether that is well.
fn verdict(load: Load, duration: Duration, outcome: &Outcome) -> (Vec<String>, bool) {
    let count = u32::try_from(outcome.took.len()).unwrap_or(u32::MAX);
    let (slowest, deviation) =
        (outcome.took.iter().max().copied().unwrap_or_default(), deviation(&outcome.took));
    let secs = u32::try_from(duration.as_secs()).unwrap_or(u32::MAX).max(1);
    let throughput = count / secs;
    let enough = u64::from(throughput) * 100
        >= u64::from(load.per_second) * u64::from(THROUGHPUT_PERCENT_MIN);
    let mut lines: Vec<String> = outcome
        .failures
        .first()
        .map(|error| format!("FAIL: {} writes failed, the first: {error}", outcome.failures.len()))
        .into_iter()
        .collect();
    let mut check = |well: bool, good: String, bad: String| {
        lines.push(if well { format!("PASS: {good}") } else { format!("FAIL: {bad}") });
        well
    };
    let well = [
        check(
            enough,
            format!("Throughput is {throughput} writes/s"),
            format!("Throughput too low: {throughput} writes/s"),
        ),
        check(
            slowest <= SLOWEST_MAX,
            format!("Slowest request took {:.6}s", slowest.as_secs_f64()),
            format!("Slowest request took too long: {:.6}s", slowest.as_secs_f64()),
        ),
        check(
            deviation <= DEVIATION_MAX,
            format!("Stddev is {:.6}s", deviation.as_secs_f64()),
            format!("Stddev too high: {:.6}s", deviation.as_secs_f64()),
        ),
    ];
    (lines, outcome.failures.is_empty() && well.iter().all(|well| *well))
}

/// Returns how far times are from their mean.
fn deviation(times: &[Duration]) -> Duration {
    let count = f64::from(u32::try_from(times.len()).unwrap_or(u32::MAX)).max(1.0);
    let mean = times.iter().map(Duration::as_secs_f64).sum::<f64>() / count;
    let squares = times.iter().map(|time| (time.as_secs_f64() - mean).powi(2)).sum::<f64>();
    Duration::from_secs_f64((squares / count).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    fn judged(count: usize, took: Duration) -> (Vec<String>, bool) {
        let outcome = Outcome { took: vec![took; count], failures: Vec::new() };
        verdict(Load::parse("s").unwrap(), MINUTE, &outcome)
    }

    #[test]
    fn a_store_that_keeps_up_passes() {
        let (lines, well) = judged(9_000, Duration::from_millis(2));
        assert!(well, "{lines:?}");
        assert_eq!(
            lines,
            [
                "PASS: Throughput is 150 writes/s",
                "PASS: Slowest request took 0.002000s",
                "PASS: Stddev is 0.000000s",
            ],
        );
    }

    #[test]
    fn a_store_that_is_slow_or_fails_does_not() {
        let (lines, well) = judged(6_000, Duration::from_secs(1));
        assert!(!well);
        assert_eq!(lines[0], "FAIL: Throughput too low: 100 writes/s");
        assert_eq!(lines[1], "FAIL: Slowest request took too long: 1.000000s");
        let outcome =
            Outcome { took: vec![Duration::ZERO; 9_000], failures: vec![ClientError::Late] };
        let (lines, well) = verdict(Load::parse("s").unwrap(), MINUTE, &outcome);
        assert!(!well);
        assert_eq!(lines[0], "FAIL: 1 writes failed, the first: context deadline exceeded");
    }

    #[test]
    fn times_that_differ_deviate() {
        let times = [Duration::from_millis(100), Duration::from_millis(300)];
        assert_eq!(deviation(&times).as_millis(), 100);
        assert_eq!(deviation(&[]), Duration::ZERO);
    }
}
