//! `test` and `check`: which suites there are, what each needs, and how it went.

use std::time::{Duration, Instant};

use crate::build::{self, Build};
use crate::clients;
use crate::packages::{self, Need};
use crate::peers;
use crate::run::{Failure, Step, say};
use crate::tour;

/// One rung of the ladder that docs/testing.md describes.
#[derive(Debug)]
struct Suite {
    name: &'static str,
    needs: &'static [Need],
    run: fn(&[&str]) -> Result<(), Failure>,
}

/// Cheapest first: what breaks is heard of early.
const SUITES: &[Suite] = &[
    Suite { name: "check", needs: &[], run: lints },
    Suite { name: "unit", needs: &[], run: unit },
    Suite { name: "tidy", needs: &[], run: |cases| dev("tidy", cases) },
    Suite { name: "cli", needs: &[], run: |cases| dev("cli", cases) },
    Suite { name: "tour", needs: &[], run: |_| tour::walk() },
    Suite { name: "sim", needs: &[], run: simulated },
    Suite { name: "cluster", needs: &[Need::Etcdctl, Need::Clients], run: cluster },
    Suite { name: "netns", needs: &[Need::Network], run: |cases| dev("netns", cases) },
    Suite {
        name: "nodes",
        needs: &[Need::Network, Need::Nodes, Need::Image],
        run: |cases| with_image("nodes", cases),
    },
    Suite {
        name: "vm",
        needs: &[Need::Network, Need::Machines, Need::Image],
        run: |cases| with_image("vm", cases),
    },
];

/// The quick gate; it writes nothing.
const GATE: &[&str] = &["check", "unit", "tidy"];

/// How one suite went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Passed,
    Failed,
    Impossible,
}

/// Runs every suite, or those that are named.
pub(crate) fn test(words: &[&str]) -> Result<(), Failure> {
    let end = words.iter().position(|word| *word == "--").unwrap_or(words.len());
    let (names, cases) = (&words[..end], words.get(end + 1..).unwrap_or_default());
    if let Some(name) = names.iter().find(|name| !SUITES.iter().any(|suite| suite.name == **name)) {
        let all: Vec<_> = SUITES.iter().map(|suite| suite.name).collect();
        return Err(Failure::Usage(format!("no suite `{name}`; there are {}", all.join(" "))));
    }
    let chosen = |suite: &&Suite| names.is_empty() || names.contains(&suite.name);
    run(&SUITES.iter().filter(chosen).collect::<Vec<_>>(), cases)
}

/// Runs the quick gate.
pub(crate) fn check(words: &[&str]) -> Result<(), Failure> {
    if let Some(word) = words.first() {
        return Err(Failure::Usage(format!("what is `{word}`?")));
    }
    run(&SUITES.iter().filter(|suite| GATE.contains(&suite.name)).collect::<Vec<_>>(), &[])
}

fn run(suites: &[&Suite], cases: &[&str]) -> Result<(), Failure> {
    nextest_is_there()?;
    let mut rows = Vec::new();
    for suite in suites {
        say(&format!("── {} ──", suite.name));
        let begun = Instant::now();
        let verdict = one(suite, cases);
        rows.push((suite.name, verdict, begun.elapsed()));
    }
    say(&table(&rows));
    judge(&rows, std::env::var("CI").is_ok_and(|value| value == "true"))
}

fn one(suite: &Suite, cases: &[&str]) -> Verdict {
    if let Some(why) = packages::impossible(suite.needs) {
        say(&format!("suite {} cannot run on this machine: {why}", suite.name));
        return Verdict::Impossible;
    }
    let done = packages::ensure(suite.needs).and_then(|()| (suite.run)(cases));
    match done {
        Ok(()) => Verdict::Passed,
        Err(failure) => {
            say(&format!("suite {}: {failure}", suite.name));
            Verdict::Failed
        }
    }
}

/// What cannot run is a failure where nobody looks.
fn judge(rows: &[(&str, Verdict, Duration)], unattended: bool) -> Result<(), Failure> {
    let named = |verdict| {
        let names = rows.iter().filter(|row| row.1 == verdict).map(|row| row.0);
        names.collect::<Vec<_>>().join(" ")
    };
    let (failed, impossible) = (named(Verdict::Failed), named(Verdict::Impossible));
    if !failed.is_empty() {
        return Err(Failure::First(format!("failed: {failed}")));
    }
    if !impossible.is_empty() && unattended {
        return Err(Failure::First(format!("could not run here: {impossible}")));
    }
    Ok(())
}

fn table(rows: &[(&str, Verdict, Duration)]) -> String {
    let lines = rows.iter().map(|(name, verdict, took)| {
        let verdict = match verdict {
            Verdict::Passed => "passed",
            Verdict::Failed => "FAILED",
            Verdict::Impossible => "CANNOT RUN",
        };
        format!("\n{name:<9} {verdict:<12} {:>8.1}", took.as_secs_f64())
    });
    let head = format!("\n{:<9} {:<12} {:>8}", "SUITE", "RESULT", "SECONDS");
    std::iter::once(head).chain(lines).collect()
}

fn lints(_: &[&str]) -> Result<(), Failure> {
    Step::cargo("fmt --all --check").run()?;
    Step::cargo("clippy --workspace --all-targets -- -D warnings").run()?;
    Step::cargo("doc --workspace --no-deps --document-private-items")
        .env("RUSTDOCFLAGS", "-D warnings")
        .run()
}

fn unit(cases: &[&str]) -> Result<(), Failure> {
    nextest("--workspace --lib --bins", cases, Build::Dev)?;
    if cases.is_empty() {
        // nextest does not run the examples in the documentation.
        Step::cargo("test --quiet --workspace --doc").run()?;
    }
    Ok(())
}

fn dev(suite: &str, cases: &[&str]) -> Result<(), Failure> {
    Build::Dev.programs()?;
    nextest(&format!("--workspace --test {suite}"), cases, Build::Dev)
}

fn cluster(cases: &[&str]) -> Result<(), Failure> {
    clients::install()?;
    peers::unpack()?;
    dev("cluster", cases)
}

fn simulated(cases: &[&str]) -> Result<(), Failure> {
    // Thousands of simulated seconds: worth an optimized build, which the image needs anyway.
    nextest("--cargo-profile lab --workspace --test sim", cases, Build::Lab)
}

fn with_image(suite: &str, cases: &[&str]) -> Result<(), Failure> {
    build::image()?;
    nextest(&format!("--cargo-profile lab --workspace --test {suite}"), cases, Build::Lab)
}

fn nextest(what: &str, cases: &[&str], build: Build) -> Result<(), Failure> {
    let step = Step::cargo(&format!("nextest run --profile ci {what}"));
    build.environment(step.args(cases)).run()
}

/// Installs what runs the suites, where it is not here.
pub(crate) fn nextest_is_there() -> Result<(), Failure> {
    if Step::cargo("nextest --version").silently() {
        return Ok(());
    }
    say("cargo-nextest runs the suites and is not here: cargo installs it, which takes minutes");
    // It builds for this computer, not with the flags of ours.
    Step::cargo("install --locked cargo-nextest").env("CARGO_BUILD_RUSTFLAGS", "").run()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_run_fails_only_where_nobody_looks() {
        let rows = [
            ("tidy", Verdict::Passed, Duration::ZERO),
            ("vm", Verdict::Impossible, Duration::ZERO),
        ];
        judge(&rows, false).unwrap();
        assert_eq!(judge(&rows, true).unwrap_err().to_string(), "could not run here: vm");
    }

    #[test]
    fn a_failure_is_named() {
        let rows = [("cli", Verdict::Failed, Duration::ZERO)];
        assert_eq!(judge(&rows, false).unwrap_err().to_string(), "failed: cli");
        assert!(table(&rows).contains("cli       FAILED"));
    }

    #[test]
    fn the_gate_is_made_of_suites_that_exist() {
        assert!(GATE.iter().all(|name| SUITES.iter().any(|suite| suite.name == *name)));
    }
}
