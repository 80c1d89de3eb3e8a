//! What each verb teaches about itself.

/// One verb of `cargo xtask`.
#[derive(Debug)]
pub(crate) struct Verb {
    /// What one types.
    pub(crate) name: &'static str,
    /// What may follow it.
    pub(crate) usage: &'static str,
    /// One line.
    pub(crate) about: &'static str,
    /// The rest.
    pub(crate) more: &'static str,
}

impl Verb {
    /// The whole help of this verb.
    pub(crate) fn help(&self) -> String {
        let usage = format!("Usage: cargo xtask {} {}", self.name, self.usage);
        format!("{}\n\n{}\n\n{}", self.about, usage.trim_end(), self.more.trim_end())
    }
}

/// In the order in which a newcomer needs them.
pub(crate) const VERBS: &[Verb] = &[
    Verb {
        name: "up",
        usage: "[--nodes N] [--containers | --local] | NODE",
        about: "Build the image, boot a cluster of it, start the example units, and leave it running",
        more: "\
  --nodes N      how many nodes, 1 to 9: each is a member of the store [default: 3]
  --containers   containers on the image's /usr instead of virtual machines: seconds, not a minute
  --local        nodes inside one process, on loopback: no image, no root, a simulated systemd
  NODE           put the plug of one node of a running local cluster back

Machines need root, for a network namespace of their own; nothing leaves it. What stays is in
target/lab. Afterwards: `cargo xtask status`, `cargo xtask ssh node1`, `cargo xtask down`.",
    },
    Verb {
        name: "down",
        usage: "[NODE]",
        about: "Take the cluster away, and whatever an interrupted run left",
        more: "\
  NODE   pull the plug of one node of a local cluster instead

Safe at any time. Logs of failures stay in target/lab/*/failures.",
    },
    Verb {
        name: "status",
        usage: "",
        about: "Show the running cluster: members, machines, units",
        more: "\
Asks the store of the first node that has a quorum. For a local cluster it prints what leads
`etcdctl` and `fleetctl` there too; `. target/lab/env` tells it to a shell.",
    },
    Verb {
        name: "ssh",
        usage: "NODE [COMMAND…]",
        about: "Open a shell on a node, or run a command there",
        more: "\
  cargo xtask ssh node1
  cargo xtask ssh 2 fleetctl list-units

You are the user `core`, who may `sudo`. A local cluster has no machines to log into.",
    },
    Verb {
        name: "logs",
        usage: "[NODE] [--console]",
        about: "Print a node's journal",
        more: "\
  --console   what came over its console instead: it also works while the node does not boot

Of a local cluster, what its process logs: all of it where no node is named.",
    },
    Verb {
        name: "image",
        usage: "",
        about: "Build the disk image of the lab into target/image/lab",
        more: "\
The packages are fetched once and kept in target/os-tree; after a change of a line in src/, only
the last steps are done again.",
    },
    Verb {
        name: "test",
        usage: "[SUITE…] [-- FILTER…]",
        about: "Run every suite, or those that are named",
        more: "\
Suites, cheapest first: check unit tidy cli tour sim cluster netns nodes vm

  cargo xtask test                      everything; what .ci/run does
  cargo xtask test tidy cli             two of them
  cargo xtask test netns -- no_way_out  the cases whose names contain this

A suite that this machine cannot run is named; where CI=true, that is a failure.
docs/testing.md says what each of them shows.",
    },
    Verb {
        name: "check",
        usage: "",
        about: "The quick gate: format, lints, documentation, unit tests, tidy; it writes nothing",
        more: "At most three minutes once dependencies are built. `cargo xtask fix` repairs what it can.",
    },
    Verb {
        name: "fix",
        usage: "",
        about: "Format, and let clippy repair what it can",
        more: "It changes files: commit first.",
    },
    Verb {
        name: "sim",
        usage: "[--seed N | --seeds A..B] [--break NAME]",
        about: "Run simulated clusters, from a seed each",
        more: "\
  --seed N       one cluster; the same seed tells the same story
  --seeds A..B   a sweep
  --break NAME   with a planted mistake, which the sweep must find",
    },
    Verb {
        name: "differential",
        usage: "[--api v2|v3] [--seeds A..B] [--requests N]",
        about: "Give a member and a real etcd the same random requests, and say where they differ",
        more: "\
  --api v2|v3    only that API: v2 is compared with etcd 3.4.23, v3 with 3.5.1 [default: both]
  --seeds A..B   which seeds, or how many from 0 on [default: 20]
  --requests N   requests of each seed [default: 2000]

Both etcds are fetched once and unpacked into target/peers. The suite cluster tells two seeds; a
failure says with which words here it is told again.",
    },
    Verb {
        name: "bench",
        usage: "NAME [OPTIONS]",
        about: "Measure something, in one run on this machine",
        more: "\
  cargo xtask bench boot [--times N]   the image's build and size, from power to a cluster, memory
  cargo xtask bench etcd [OPTIONS]     speed and size of the store, beside those of two etcds
  cargo xtask bench faults [OPTIONS]   what those who put notice of clients that do wrong

Of `etcd`:
  --rows NAME…       only these rows: put-64 put-1000 put-1 put-three get-64 list-8 txn-64 watch
                     fill start idle put-v2 get-v2 compact
  --rounds N         how many times, but for fill, idle and compact; figures are medians [default: 3]
  --seconds N        how long each load lasts [default: 3]
  --idle-seconds N   how long the idle are looked at [default: 120]
  --million N        how many keys, and revisions to compact, a million is [default: 1000000]
  --minutes N        after how many minutes nothing more is begun [default: 45]

Of `faults`:
  --rows NAME…       only these rows: oversize bad-text malformed lying slow idle deaf
  --rounds N         how many times; figures are medians [default: 3]
  --seconds N        how long eight clients put undisturbed, and then disturbed [default: 5]
  --idle N, --slow N, --deaf N   how many connections [default: 10000, 1000, 16]

What `etcd` measures is the released program. All of `etcd` takes about twenty minutes, on a computer that
does nothing else. The etcds are fetched from Debian and PyPI once and unpacked into target/peers;
nothing is installed. docs/performance.md says what each row is.",
    },
    Verb {
        name: "trace",
        usage: "kube [OPTIONS]",
        about: "Ask a store what a kube-apiserver asks, and hold it to what that relies on",
        more: "\
  --seconds N      how long [default: 120]
  --rate N         requests in a second [default: 500]
  --seed N         what is asked depends on it [default: 1]
  --endpoint URL…  members of one cluster that runs: it is written to, and compacted

Without endpoints one member is started for it, then three. It fails if a request fails, an event is
lost, doubled or out of order, a bookmark is ahead of its events, a read and a watch do not agree, or
99 of 100 answers take more than 50 ms. docs/testing.md says more.",
    },
    Verb {
        name: "manual",
        usage: "",
        about: "Write the manual pages to docs/man",
        more: "They come from the applets' own command lines; a test says when they are out of date.",
    },
    Verb {
        name: "tour",
        usage: "",
        about: "Run what docs/tour.md tells a newcomer to type, and check what it says",
        more: "On a local cluster of its own, which it always takes down. It is a suite of `test` too.",
    },
    Verb {
        name: "dist",
        usage: "",
        about: "Build what is given to others: the released program and the production image",
        more: "\
Both are in target/dist, with manifest.json, which names every file's SHA-256. Refused: a program that
is not a stripped static PIE of at most 30 MB, and packages that packages.lock does not name.",
    },
];

/// All verbs, a line each.
pub(crate) fn overview() -> String {
    let widest = VERBS.iter().map(|verb| verb.name.len()).max().unwrap_or(0);
    let line = |verb: &Verb| format!("  {:widest$}  {}", verb.name, verb.about);
    let lines: Vec<_> = VERBS.iter().map(line).collect();
    format!(
        "Usage: cargo xtask VERB\n\n{}\n\n`cargo xtask VERB --help` says more.",
        lines.join("\n")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_has_a_line_and_a_page() {
        let overview = overview();
        for verb in VERBS {
            assert!(overview.contains(verb.about), "{}", verb.name);
            assert!(verb.help().contains(verb.name), "{}", verb.name);
            assert!(!verb.more.is_empty(), "{}", verb.name);
        }
    }
}
