//! A stock `etcdctl` of etcd 3.4 against our members: what it prints is what people and scripts see.

use std::time::Duration;

use testbed::etcd::{ANSWER, Member};
use testbed::process::{Lifetime, Program};
use testbed::wait;

/// Debian's, whatever else is called so here.
const ETCDCTL: &str = "/usr/bin/etcdctl";

fn etcdctl(members: &[&Member], words: &[&str]) -> Program {
    let endpoints: Vec<_> = members.iter().map(|member| member.client.to_string()).collect();
    Program::new(ETCDCTL)
        .env("ETCDCTL_API", "3")
        .arg(format!("--endpoints={}", endpoints.join(",")))
        .args(words)
}

/// What it prints where all is well.
fn says(member: &Member, words: &[&str]) -> String {
    etcdctl(&[member], words).run(ANSWER).unwrap()
}

fn check(member: &Member, cases: &[(&[&str], &str)]) {
    for (words, expected) in cases {
        assert_eq!(says(member, words), *expected, "{words:?}");
    }
}

#[test]
fn keys_are_put_got_and_deleted() {
    let site = super::site("stock-keys");
    let member = super::alone(&site);
    check(
        &member,
        &[
            (&["put", "a", "1"], "OK\n"),
            (&["put", "a", "2", "--prev-kv"], "OK\na\n1\n"),
            (&["put", "b", "3"], "OK\n"),
            (&["get", "a"], "a\n2\n"),
            (&["get", "", "--prefix"], "a\n2\nb\n3\n"),
            (&["get", "", "--prefix", "--order=DESCEND", "--limit=1"], "b\n3\n"),
            (&["get", "a", "--rev=2"], "a\n1\n"),
            (&["get", "", "--from-key", "--keys-only"], "a\n\nb\n\n"),
            (&["get", "a", "--consistency=s", "--print-value-only"], "2\n"),
            (&["del", "a", "--prev-kv"], "1\na\n2\n"),
            (&["del", "a"], "0\n"),
            (&["del", "", "--prefix"], "1\n"),
            (&["get", "b"], ""),
        ],
    );
}

#[test]
fn a_transaction_goes_the_way_of_its_compares() {
    let site = super::site("stock-txn");
    let member = super::alone(&site);
    let txn = |input: &str| etcdctl(&[&member], &["txn"]).input(input).run(ANSWER).unwrap();
    let once = "create(\"k\") = \"0\"\n\nput k first\n\nget k\n\n";
    assert_eq!(txn(once), "SUCCESS\n\nOK\n");
    assert_eq!(txn(once), "FAILURE\n\nk\nfirst\n");
    let swap = "value(\"k\") = \"first\"\nmod(\"k\") > \"1\"\nversion(\"k\") < \"2\"\n\nput k second\nget k\ndel k\n\n\n";
    let refused = etcdctl(&[&member], &["txn"]).input(swap).finish(ANSWER).unwrap();
    let text = "etcdserver: duplicate key given in txn request";
    assert!(refused.stderr.contains(text), "{}", refused.stderr);
    let swap = swap.replace("del k\n", "");
    assert_eq!(txn(&swap), "SUCCESS\n\nOK\n\nk\nsecond\n");
}

#[test]
fn a_watch_prints_what_happened_and_what_happens() {
    let site = super::site("stock-watch");
    let member = super::alone(&site);
    says(&member, &["put", "w/a", "1"]);
    let log = site.dir.join("watch.log");
    let words = ["watch", "w/", "--prefix", "--rev=1", "--prev-kv"];
    let _watching = etcdctl(&[&member], &words).start(Lifetime::Owned, &log).unwrap();
    let printed = |expected: &str| {
        wait::until("the watch to print", ANSWER, || {
            let printed = std::fs::read_to_string(&log).map_err(|error| error.to_string())?;
            if printed == expected { Ok(()) } else { Err(printed) }
        })
        .unwrap();
    };
    printed("PUT\nw/a\n1\n");
    says(&member, &["put", "elsewhere", "1"]);
    says(&member, &["put", "w/a", "2"]);
    says(&member, &["del", "w/a"]);
    printed("PUT\nw/a\n1\nPUT\nw/a\n1\nw/a\n2\nDELETE\nw/a\n2\nw/a\n\n");
}

#[test]
fn leases_are_granted_listed_kept_and_revoked() {
    let site = super::site("stock-lease");
    let member = super::alone(&site);
    let granted = says(&member, &["lease", "grant", "600"]);
    let id = granted.split_whitespace().nth(1).unwrap().to_owned();
    assert_eq!(granted, format!("lease {id} granted with TTL(600s)\n"));
    says(&member, &["put", "leased", "1", &format!("--lease={id}")]);
    assert_eq!(says(&member, &["lease", "list"]), format!("found 1 leases\n{id}\n"));
    let left = says(&member, &["lease", "timetolive", &id, "--keys"]);
    let start = format!("lease {id} granted with TTL(600s), remaining(");
    assert!(left.starts_with(&start) && left.ends_with("s), attached keys([leased])\n"), "{left}");
    let kept = format!("lease {id} keepalived with TTL(600)\n");
    assert_eq!(says(&member, &["lease", "keep-alive", "--once", &id]), kept);
    assert_eq!(says(&member, &["lease", "revoke", &id]), format!("lease {id} revoked\n"));
    assert_eq!(says(&member, &["get", "leased"]), "");
    let gone = format!("lease {id} already expired\n");
    assert_eq!(says(&member, &["lease", "timetolive", &id]), gone);
}

#[test]
fn what_is_compacted_is_refused_and_a_lock_is_held_and_left() {
    let site = super::site("stock-compact");
    let member = super::alone(&site);
    for value in ["1", "2", "3"] {
        says(&member, &["put", "k", value]);
    }
    assert_eq!(says(&member, &["compact", "3", "--physical"]), "compacted revision 3\n");
    let refused = etcdctl(&[&member], &["get", "k", "--rev=2"]).finish(ANSWER).unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let text = "etcdserver: mvcc: required revision has been compacted";
    assert!(refused.stderr.contains(text), "{}", refused.stderr);
    assert_eq!(says(&member, &["get", "k", "--rev=3"]), "k\n2\n");
    assert_eq!(says(&member, &["lock", "door", "echo", "inside"]), "inside\n");
    assert_eq!(says(&member, &["get", "door", "--prefix"]), "");
}

#[test]
fn the_members_and_how_they_fare_are_shown() {
    let site = super::site("stock-members");
    let members = super::started(&site, &["a", "b", "c"]);
    let every: Vec<&Member> = members.iter().collect();
    let ask = |words: &[&str]| etcdctl(&every, words).run(ANSWER * 2).unwrap();
    wait::until("every member to have told its name", ANSWER, || {
        let list = says(&members[0], &["member", "list"]);
        let named = members.iter().all(|member| {
            let peer = format!("http://{}", member.peer);
            let client = format!("http://{}", member.client);
            list.contains(&format!(", started, {}, {peer}, {client}, false", member.name))
        });
        if named { Ok(()) } else { Err(list) }
    })
    .unwrap();
    says(&members[1], &["put", "k", "1"]);
    let health = etcdctl(&every, &["endpoint", "health"]).finish(ANSWER * 2).unwrap();
    let healthy = format!("{}{}", health.stdout, health.stderr);
    assert_eq!(
        healthy.matches("is healthy: successfully committed proposal").count(),
        3,
        "{healthy}"
    );
    let status = ask(&["endpoint", "status"]);
    assert_eq!(status.matches(", 3.5.30, ").count(), 3, "{status}");
    assert_eq!(status.matches(", true, false, ").count(), 1, "one leads: {status}");
    assert_eq!(ask(&["endpoint", "hashkv"]).lines().count(), 3);
    assert_eq!(says(&members[0], &["alarm", "list"]), "");
    let finished = says(&members[0], &["defrag"]);
    assert!(finished.starts_with("Finished defragmenting etcd member["), "{finished}");
}

#[test]
fn a_client_of_three_members_goes_on_when_one_is_killed() {
    let site = super::site("stock-kill");
    let mut members = super::started(&site, &["a", "b", "c"]);
    for gone in 0..3 {
        members[gone].kill();
        let every: Vec<&Member> = members.iter().collect();
        let put = etcdctl(&every, &["put", "k", &gone.to_string()]);
        // An attempt meets an election, or the member that is away, and says so.
        let done = wait::until("a put to be done", Duration::from_secs(30), || {
            put.finish(ANSWER).map_err(|error| error.to_string()).and_then(|outcome| {
                if outcome.status.success() { Ok(outcome.stdout) } else { Err(outcome.stderr) }
            })
        });
        assert_eq!(done.unwrap(), "OK\n");
        members[gone].start_healthy().unwrap();
    }
    let every: Vec<&Member> = members.iter().collect();
    assert_eq!(etcdctl(&every, &["get", "k"]).run(ANSWER).unwrap(), "k\n2\n");
}

#[test]
fn leadership_is_moved_and_an_election_is_won() {
    let site = super::site("stock-lead");
    let members = super::started(&site, &["a", "b", "c"]);
    let every: Vec<&Member> = members.iter().collect();
    let ask = |words: &[&str]| etcdctl(&every, words).run(ANSWER * 2).unwrap();
    let leads = || {
        let status = ask(&["endpoint", "status"]);
        let line = status.lines().find(|line| line.contains(", true, false, "));
        line.and_then(|line| line.split(", ").nth(1)).map(str::to_owned).ok_or(status)
    };
    let leader = leads().unwrap();
    let list = ask(&["member", "list"]);
    let mut ids = list.lines().filter_map(|line| line.split(", ").next());
    let other = ids.find(|id| *id != leader).unwrap();
    let moved = ask(&["move-leader", other]);
    assert_eq!(moved, format!("Leadership transferred from {leader} to {other}\n"));
    wait::until("the other to lead", ANSWER, || {
        let leader = leads()?;
        if leader == other { Ok(()) } else { Err(leader) }
    })
    .unwrap();
    let log = site.dir.join("elect.log");
    let campaign = ["elect", "boss", "ours"];
    let winner = etcdctl(&every, &campaign).start(Lifetime::Owned, &log).unwrap();
    wait::until("the election to be won", ANSWER, || {
        let printed = std::fs::read_to_string(&log).map_err(|error| error.to_string())?;
        if printed.ends_with("\nours\n") { Ok(()) } else { Err(printed) }
    })
    .unwrap();
    assert!(ask(&["get", "boss/", "--prefix"]).ends_with("\nours\n"));
    // Asked to end, it resigns.
    winner.terminate().unwrap();
    wait::until("nobody to lead", ANSWER, || {
        let left = ask(&["get", "boss/", "--prefix"]);
        if left.is_empty() { Ok(()) } else { Err(left) }
    })
    .unwrap();
}

#[test]
fn what_is_not_there_yet_is_said_to_be_unimplemented() {
    let site = super::site("stock-later");
    let member = super::alone(&site);
    let file = site.dir.join("snapshot.db").display().to_string();
    for words in [
        &["user", "list"][..],
        &["role", "add", "r"],
        &["auth", "enable"],
        &["member", "add", "new", "--peer-urls=http://127.0.0.1:1"],
        &["member", "remove", "1"],
        &["snapshot", "save", &file],
    ] {
        let outcome = etcdctl(&[&member], words).finish(ANSWER).unwrap();
        assert!(!outcome.status.success(), "{words:?}: {}", outcome.stdout);
        assert!(outcome.stderr.contains("code = Unimplemented"), "{words:?}: {}", outcome.stderr);
    }
}
