//! `trace`: the requests of a kube-apiserver at a fixed rate, and what they came to.

use std::net::SocketAddrV4;
use std::time::Duration;

use clap::{Args, Subcommand};
use testbed::error::LabError;
use testbed::etcd::{Member, Site};
use testbed::etcd_v3;
use testbed::progress::say;
use testbed::trace::{self, Plan, Report, Trouble, report};

/// How often history is compacted in one run.
const COMPACTIONS: u32 = 8;

/// Whose requests.
#[derive(Debug, Subcommand)]
pub(crate) enum What {
    /// What kube-apiservers send: fails where a promise of the store is broken or an answer is late
    Kube(Options),
}

/// How much of it, and to whom.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How long
    #[arg(long, default_value_t = 120, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=86400))]
    seconds: u32,
    /// Requests in a second
    #[arg(long, default_value_t = 500, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// What is asked depends on it
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Members of one cluster that runs, such as `127.0.0.1:2379`: it is written to, and compacted.
    /// Otherwise one member is started for it, then three
    #[arg(long, num_args = 1.., value_name = "URL", value_parser = address)]
    endpoint: Vec<SocketAddrV4>,
}

/// Reads `127.0.0.1:2379`, also behind `http://`.
fn address(text: &str) -> Result<SocketAddrV4, String> {
    let bare = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
    bare.parse().map_err(|_| format!("`{text}` is not an address such as `127.0.0.1:2379`"))
}

/// Runs a trace, or two, and prints a table of each.
pub(crate) fn run(what: &What) -> Result<(), LabError> {
    let What::Kube(options) = what;
    if !options.endpoint.is_empty() {
        return once(options, options.endpoint.clone());
    }
    [1, 3].into_iter().try_for_each(|count| on_our_own(options, count))
}

/// Starts so many members for one trace.
fn on_our_own(options: &Options, count: usize) -> Result<(), LabError> {
    let base = testbed::lab::root().with_file_name("bench");
    let site = Site::new(&base.to_string_lossy(), "trace")?;
    let mut members = site.cluster(&["one", "two", "three"][..count])?;
    members.iter_mut().try_for_each(Member::start)?;
    members.iter_mut().try_for_each(Member::healthy)?;
    once(options, members.iter().map(|member| member.client).collect())
}

fn once(options: &Options, members: Vec<SocketAddrV4>) -> Result<(), LabError> {
    let time = Duration::from_secs(options.seconds.into());
    let Options { seed, rate, .. } = *options;
    let count = members.len();
    say(&format!("seed {seed}: {rate} requests a second for {time:?}, members: {count} …"));
    let compact_every = time / COMPACTIONS;
    let plan = Plan { members, seed, rate, time, compact_every, trouble: Trouble::None };
    let report = etcd_v3::run(trace::run(&plan, || {}))??;
    let versions: Vec<_> = report.versions.iter().map(String::as_str).collect();
    let about = format!(
        "{}\nmembers: {count}, version {}; seed {seed}, {rate} requests a second for {time:?}",
        crate::bench::machine()?,
        versions.join(" "),
    );
    let Report { events, bookmarks, resumed, conflicts, .. } = &report;
    let beside = format!(
        "events {events}, bookmarks {bookmarks}, streams ended {resumed}, conflicts {conflicts}"
    );
    crate::print(&format!("{about}\n\n{}\n{beside}\n\n", report.table()))?;
    judge(&report)
}

/// Fails where a promise is broken.
fn judge(report: &Report) -> Result<(), LabError> {
    if let Some(violation) = &report.violation {
        return Err(LabError::Missing(format!("a promise is broken: {violation}")));
    }
    let slow = report.too_slow();
    if slow.is_empty() {
        return Ok(());
    }
    let slow: Vec<_> = slow.iter().map(|(name, ms)| format!("{name} {ms:.1}")).collect();
    let most = report::P99_MS_MAX;
    Err(LabError::Missing(format!("p99 in ms, at most {most}: {}", slow.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_with_and_without_a_scheme() {
        let expected = SocketAddrV4::new([127, 0, 0, 1].into(), 2379);
        for text in ["127.0.0.1:2379", "http://127.0.0.1:2379", "http://127.0.0.1:2379/"] {
            assert_eq!(address(text), Ok(expected));
        }
        assert!(address("localhost").unwrap_err().contains("such as"));
    }
}
