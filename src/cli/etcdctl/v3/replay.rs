//! The original's words against our store: a recording of `etcdctl` 3.4.23 on a fresh `etcd` 3.5.1,
//! line by line, must come out the same here, but for those of `AS_3_5` and `BETTER`. All of it in one
//! process.
//!
//! A line `$ etcdctl txn < a\nb\n` has what follows ` < ` as its standard input, a line that begins
//! with `$ for-a-while` is ended from outside, and `LEASE` is the id of the lease that was granted
//! last. Left out is what has times in it, the log lines of the original's library, the page on
//! usage that follows a flag it does not know, and the stack that follows its panic.

use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use clap::ArgMatches;
use tokio::io::{AsyncWriteExt as _, BufReader};

use crate::cli::etcdctl::store::{ENDPOINT, Store, similar};
use crate::cli::etcdctl::v3::settings::Settings;
use crate::cli::etcdctl::v3::{Input, Session, Step, go_text, words};
use crate::cli::output::{Kept, Output};
use crate::rpc::client::v3::Client;

const RECORDED: &str = include_str!("../../../../testbed/golden/etcdctl-v3.txt");

/// A line at which we differ.
struct Ours {
    line: &'static str,
    /// What is seen here.
    seen: &'static str,
}

/// The words of 3.5.1, where 3.4.23 knew less or wrote it differently.
const AS_3_5: &[Ours] = &[
    Ours {
        line: r#"etcdctl get "" --prefix --count-only -w fields"#,
        seen: r#""ClusterID" : 13441312872613735827
"MemberID" : 4520489976140230000
"Revision" : 9
"RaftTerm" : 2
"More" : false
"Count" : 4
[0]"#,
    },
    Ours {
        line: r#"etcdctl get "" --prefix --count-only"#,
        seen: "Error: --count-only is only for `--write-out=fields`
[128]",
    },
    Ours {
        line: r#"etcdctl txn -w json < create("a") != "0"\n\nput a 3\nget a\ndel d\n\n\n"#,
        seen: r#"{"header":{"cluster_id":13441312872613735827,"member_id":4520489976140230000,"revision":13,"raft_term":2},"succeeded":true,"responses":[{"Response":{"response_put":{"header":{"revision":13}}}},{"Response":{"response_range":{"header":{"revision":13},"kvs":[{"key":"YQ==","create_revision":2,"mod_revision":13,"version":6,"value":"Mw=="}],"count":1}}},{"Response":{"response_delete_range":{"header":{"revision":13},"deleted":1}}}]}
[0]"#,
    },
    Ours {
        line: r#"etcdctl txn -w json < value("a") != "x"\n\ndel nothing\nget a --keys-only\n\n\n"#,
        seen: r#"{"header":{"cluster_id":13441312872613735827,"member_id":4520489976140230000,"revision":16,"raft_term":2},"succeeded":true,"responses":[{"Response":{"response_delete_range":{"header":{"revision":16}}}},{"Response":{"response_range":{"header":{"revision":16},"kvs":[{"key":"YQ==","create_revision":2,"mod_revision":16,"version":7}],"count":1}}}]}
[0]"#,
    },
    // Its lines are those of 3.5.30.
    Ours {
        line: "etcdctl member list -w table",
        seen: "┌──────────────────┬─────────┬─────────┬──────────────────────┬──────────────────────┬────────────┐
│        ID        │ STATUS  │  NAME   │      PEER ADDRS      │     CLIENT ADDRS     │ IS LEARNER │
├──────────────────┼─────────┼─────────┼──────────────────────┼──────────────────────┼────────────┤
│ 3ebc01aec68d6d70 │ started │ default │ http://10.0.0.1:2380 │ http://10.0.0.1:2379 │      false │
└──────────────────┴─────────┴─────────┴──────────────────────┴──────────────────────┴────────────┘
[0]",
    },
];

/// Our own words, where the original's say too little, or where it breaks down.
const BETTER: &[Ours] = &[
    // It takes 0 for no lease where the original panics.
    Ours {
        line: r#"etcdctl txn < lease("a") = "0"\n\nget a\n\n\n"#,
        seen: "SUCCESS

a
3
[0]",
    },
    // It refuses a sign where the original panics.
    Ours {
        line: r#"etcdctl txn < mod("a") ? "0"\n\n\n\n"#,
        seen: r#"Error: malformed comparison: mod("a") ? "0" (the sign is none of =, !=, > and <); write it like `mod("key") > "0"`
[3]"#,
    },
    Ours {
        line: r"etcdctl txn < \nput a 1\n",
        seen:
            "Error: the transaction is not complete: each of its three lists ends with an empty line
[3]",
    },
    Ours {
        line: r#"etcdctl txn < mod("a") > "x"\n\n\n\n"#,
        seen: r#"Error: malformed comparison: mod("a") > "x" (the value is no number); write it like `mod("key") > "0"`
[3]"#,
    },
    Ours {
        line: r"etcdctl txn < mod a > 0\n\n\n\n",
        seen: r#"Error: malformed comparison: mod a > 0 (no parenthesis); write it like `mod("key") > "0"`
[3]"#,
    },
    Ours {
        line: r"etcdctl txn < \nmove a b\n\n\n",
        seen: "Error: invalid txn request: move a b (write `put`, `get` or `del`)
[3]",
    },
    Ours {
        line: "etcdctl watch",
        seen: "Error: watch in non-interactive mode requires an argument or environment key
[128]",
    },
    Ours {
        line: r"for-a-while etcdctl watch -i < frob\n",
        seen: "Invalid command: frob; type `watch …` or `progress`
Error: Error reading watch request line: EOF
[3]",
    },
    Ours {
        line: "etcdctl compaction x",
        seen: "Error: `x` is no revision; write a number
[1]",
    },
    Ours {
        line: "etcdctl move-leader xyz",
        seen: "Error: `xyz` is no member's ID; `etcdctl member list` has them
[128]",
    },
];

/// How long a line lasts that is ended from outside.
const A_WHILE: Duration = Duration::from_secs(2);
/// How long it takes to type one.
const TYPING: Duration = Duration::from_millis(10);

/// A store, and somebody who types.
struct Terminal {
    store: Store,
    lease: String,
}

impl Terminal {
    /// Types a line and returns what is seen, errors first, and how it ended.
    async fn typed(&mut self, line: &str) -> String {
        let (line, input) = line.split_once(" < ").unwrap_or((line, ""));
        let (for_a_while, line) =
            line.strip_prefix("for-a-while ").map_or((false, line), |line| (true, line));
        let line = line.replace("LEASE", &self.lease);
        let matches = parsed(&line);
        let input = Cursor::new(input.replace("\\n", "\n").into_bytes());
        let (mut session, kept) = match self.session(&matches, Box::new(input)) {
            Ok(started) => started,
            Err(failed) => return format!("Error: {}\n[{}]\n", failed.text, failed.exit.code()),
        };
        tokio::time::sleep(TYPING).await;
        let lasts = if for_a_while { A_WHILE } else { Duration::from_mins(1) };
        let exit = tokio::time::timeout(lasts, session.carry_out(&matches)).await;
        let exit = exit.map_or("ended".to_owned(), |exit| exit.code().to_string());
        let seen = kept.err() + &kept.out();
        if let Some(id) = granted(&seen) {
            self.lease = id;
        }
        let end = if seen.is_empty() || seen.ends_with('\n') { "" } else { "\n" };
        format!("{}{end}[{exit}]\n", self.without_ids(seen))
    }

    fn session(&self, matches: &ArgMatches, input: Input) -> Step<(Session, Kept)> {
        let endpoint = ENDPOINT.trim_start_matches("http://");
        let environment = |name: &str| (name == "ETCDCTL_ENDPOINTS").then(|| endpoint.to_owned());
        let settings = Settings::read_with(matches, environment)?;
        let net = Arc::new(self.store.net.clone());
        let client = Client::new(net, self.store.tasks.child(), settings.client.clone());
        let (output, kept) = Output::kept();
        Ok((Session { client, settings, input, output }, kept))
    }

    fn without_ids(&self, mut seen: String) -> String {
        if let Ok(id) = i64::from_str_radix(&self.lease, 16) {
            seen = seen.replace(&self.lease, "LEASE").replace(&id.to_string(), "LEASEID");
        }
        seen
    }
}

fn parsed(line: &str) -> ArgMatches {
    words::command().try_get_matches_from(go_text::words(line).unwrap()).unwrap()
}

/// Finds the id of a lease that was granted.
fn granted(seen: &str) -> Option<String> {
    let (id, rest) = seen.strip_prefix("lease ")?.split_once(' ')?;
    rest.starts_with("granted with TTL(").then(|| id.to_owned())
}

/// Returns what is to be seen here after `line`, where that is not what was recorded.
fn ours(line: &str) -> Option<&'static str> {
    let differ = AS_3_5.iter().chain(BETTER).find(|ours| ours.line == line);
    differ.map(|ours| ours.seen)
}

/// Returns each line of the recording, and what was seen after it.
fn recorded() -> Vec<(&'static str, &'static str)> {
    let blocks = RECORDED.strip_prefix("$ ").expect("it begins with a line").split("\n$ ");
    blocks.map(|block| block.split_once('\n').expect("its end was recorded")).collect()
}

#[tokio::test(start_paused = true)]
async fn every_line_of_the_recording_comes_out_the_same() {
    let mut terminal = Terminal { store: Store::start().await, lease: "none".to_owned() };
    let (mut replayed, mut expected) = (String::new(), String::new());
    for (line, seen_then) in recorded() {
        let seen_then = ours(line).unwrap_or(seen_then).trim_end_matches('\n');
        expected.extend(["$ ", line, "\n", seen_then, "\n"]);
        let seen = terminal.typed(line).await;
        replayed.extend(["$ ", line, "\n", &seen]);
    }
    similar(&replayed, &expected);
    terminal.store.tasks.drain(Duration::from_secs(10)).await.unwrap();
}

#[test]
fn every_difference_is_one() {
    for ours in AS_3_5.iter().chain(BETTER) {
        let mut then = recorded().into_iter().filter(|(line, _)| *line == ours.line);
        let (_, seen_then) = then.next().expect("the line is in the recording");
        assert_ne!(seen_then.trim_end(), ours.seen.trim_end(), "{}", ours.line);
    }
}

#[tokio::test(start_paused = true)]
async fn watches_are_typed_one_after_the_other() {
    let mut terminal = Terminal { store: Store::start().await, lease: "none".to_owned() };
    terminal.typed("etcdctl put w/1 1").await;
    let matches = parsed("etcdctl watch -i");
    let (mut typist, input) = tokio::io::duplex(1 << 10);
    let (mut session, kept) = terminal.session(&matches, Box::new(BufReader::new(input))).unwrap();
    let types = async {
        for (line, printed) in [
            ("watch w/ --prefix --rev 1\n", "PUT\nw/1\n1\n"),
            ("watch x --rev 1 -- true\nprogress\n", "PUT\nw/1\n1\nprogress notify: 2\n"),
        ] {
            typist.write_all(line.as_bytes()).await.unwrap();
            while kept.out() != printed {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        typist.write_all(b"look\n").await.unwrap();
        drop(typist);
    };
    let both = async { tokio::join!(session.carry_out(&matches), types) };
    let (exit, ()) = tokio::time::timeout(Duration::from_mins(1), both).await.unwrap();
    assert_eq!(exit.code(), 3);
    let said = "Invalid command: look; type `watch …` or `progress`\n\
                Error: Error reading watch request line: EOF\n";
    assert_eq!(kept.err(), said);
    terminal.store.tasks.drain(Duration::from_secs(10)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn writes_are_judged_and_cleaned_up() {
    let mut terminal = Terminal { store: Store::start().await, lease: "none".to_owned() };
    let matches = parsed("etcdctl check perf --auto-compact");
    let (mut session, kept) = terminal.session(&matches, Box::new(tokio::io::empty())).unwrap();
    let words = matches.subcommand().and_then(|(_, words)| words.subcommand()).unwrap().1;
    session.perf(words, Duration::from_secs(2)).await.unwrap();
    let said = kept.out();
    assert!(said.starts_with("PASS: Throughput is 150 writes/s\n"), "{said}");
    assert!(said.ends_with("\nPASS\n"), "{said}");
    assert_eq!(terminal.typed("etcdctl get \"\" --prefix --keys-only").await, "[0]\n");
    terminal.store.tasks.drain(Duration::from_secs(10)).await.unwrap();
}
