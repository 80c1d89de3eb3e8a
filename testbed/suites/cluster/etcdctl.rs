//! Our own `etcdctl` over the v3 API against members that are real processes.

use std::time::Duration;

use testbed::etcd::{ANSWER, Member, START};
use testbed::process::{Lifetime, Program};
use testbed::wait;

fn etcdctl(members: &[&Member], words: &[&str]) -> Program {
    let endpoints: Vec<_> = members.iter().map(|member| member.client.to_string()).collect();
    Program::new(testbed::binary())
        .arg("etcdctl")
        .env("ETCDCTL_API", "3")
        .env("ETCDCTL_ENDPOINTS", endpoints.join(","))
        .args(words)
}

/// What it prints where all is well.
fn says(members: &[&Member], words: &[&str]) -> String {
    etcdctl(members, words).run(ANSWER).unwrap()
}

/// The exit code and the complaint, where all is not well.
fn refused(members: &[&Member], words: &[&str]) -> (Option<i32>, String) {
    let outcome = etcdctl(members, words).finish(ANSWER).unwrap();
    (outcome.status.code(), outcome.stderr)
}

#[test]
fn keys_transactions_and_leases_are_worked_with_over_sockets() {
    let site = super::site("ctl-keys");
    let member = super::alone(&site);
    let one = [&member];
    assert_eq!(says(&one, &["put", "a", "1"]), "OK\n");
    let from_stdin = etcdctl(&one, &["put", "b"]).input("read").run(ANSWER).unwrap();
    assert_eq!(from_stdin, "OK\n");
    assert_eq!(says(&one, &["get", "", "--prefix"]), "a\n1\nb\nread\n");
    let txn = "version(\"a\") = \"1\"\n\nput a 2\nget a\n\n\n";
    let done = etcdctl(&one, &["txn"]).input(txn).run(ANSWER).unwrap();
    assert_eq!(done, "SUCCESS\n\nOK\n\na\n2\n");
    let granted = says(&one, &["lease", "grant", "600"]);
    let id = granted.split(' ').nth(1).unwrap();
    assert_eq!(says(&one, &["put", "leased", "1", "--lease", id]), "OK\n");
    assert_eq!(says(&one, &["lease", "revoke", id]), format!("lease {id} revoked\n"));
    assert_eq!(says(&one, &["get", "leased"]), "");
    assert_eq!(says(&one, &["compaction", "3"]), "compacted revision 3\n");
    let compacted = "Error: etcdserver: mvcc: required revision has been compacted\n";
    assert_eq!(refused(&one, &["get", "a", "--rev", "2"]), (Some(1), compacted.to_owned()));
    for (bytes, said) in [
        (1_600_000, "Error: etcdserver: request is too large\n"),
        (
            2 << 20,
            "Error: rpc error: code = ResourceExhausted desc = \
                   trying to send message larger than max (2097164 vs. 2097152)\n",
        ),
    ] {
        let put = etcdctl(&one, &["put", "large"]).input("x".repeat(bytes));
        let outcome = put.finish(ANSWER).unwrap();
        assert_eq!((outcome.status.code(), outcome.stderr.as_str()), (Some(1), said));
    }
}

#[test]
fn a_watch_goes_on_at_another_member_when_its_own_is_killed() {
    let site = super::site("ctl-watch");
    let mut members = super::started(&site, &["a", "b", "c"]);
    let log = site.dir.join("watch.log");
    let every: Vec<&Member> = members.iter().collect();
    let words = ["watch", "w/", "--prefix", "--rev", "1"];
    let _watching = etcdctl(&every, &words).start(Lifetime::Owned, &log).unwrap();
    let printed = |expected: &str| {
        wait::until("the watch to print", START, || {
            let printed = std::fs::read_to_string(&log).map_err(|error| error.to_string())?;
            if printed == expected { Ok(()) } else { Err(printed) }
        })
        .unwrap();
    };
    says(&every, &["put", "w/a", "1"]);
    printed("PUT\nw/a\n1\n");
    // The first endpoint is the one that is asked first.
    members[0].kill();
    let rest = [&members[1], &members[2]];
    wait::until("a put to be done", Duration::from_secs(30), || {
        let outcome = etcdctl(&rest, &["put", "w/b", "2"]).finish(ANSWER);
        let outcome = outcome.map_err(|error| error.to_string())?;
        if outcome.status.success() { Ok(()) } else { Err(outcome.stderr) }
    })
    .unwrap();
    let every: Vec<&Member> = members.iter().collect();
    wait::until("a read that begins at the one that is away", START, || {
        let outcome = etcdctl(&every, &["get", "w/b", "--print-value-only"]).finish(ANSWER);
        let outcome = outcome.map_err(|error| error.to_string())?;
        if outcome.stdout == "2\n" { Ok(()) } else { Err(outcome.stderr) }
    })
    .unwrap();
    printed("PUT\nw/a\n1\nPUT\nw/b\n2\n");
    let run_at_each = ["watch", "w/a", "--rev", "1", "--", "sh", "-c", "echo $ETCD_WATCH_KEY"];
    let log = site.dir.join("exec.log");
    let _running = etcdctl(&rest, &run_at_each).start(Lifetime::Owned, &log).unwrap();
    wait::until("the program to be run", START, || {
        let printed = std::fs::read_to_string(&log).map_err(|error| error.to_string())?;
        if printed == "PUT\nw/a\n1\n\"w/a\"\n" { Ok(()) } else { Err(printed) }
    })
    .unwrap();
    says(&rest, &["del", "w/a"]);
    printed("PUT\nw/a\n1\nPUT\nw/b\n2\nDELETE\nw/a\n\n");
}

#[test]
fn the_members_are_shown_and_leadership_is_moved() {
    let site = super::site("ctl-members");
    let mut members = super::started(&site, &["a", "b", "c"]);
    let every: Vec<&Member> = members.iter().collect();
    wait::until("every member to have told its name", ANSWER, || {
        let list = says(&every, &["member", "list"]);
        let named = members.iter().all(|member| {
            let (peer, client) = (member.peer, member.client);
            let line =
                format!(", started, {}, http://{peer}, http://{client}, false\n", member.name);
            list.contains(&line)
        });
        if named { Ok(()) } else { Err(list) }
    })
    .unwrap();
    let table = says(&every, &["member", "list", "-w", "table"]);
    assert_eq!((table.lines().count(), table.chars().next()), (7, Some('┌')), "{table}");
    let health = says(&every[..1], &["endpoint", "health", "--cluster"]);
    let well = "is healthy: successfully committed proposal: took = ";
    assert_eq!(health.matches(well).count(), 3, "{health}");
    let status = says(&every, &["endpoint", "status"]);
    let leads = |status: &str| {
        let line = status.lines().find(|line| line.contains(", true, false, "));
        line.and_then(|line| line.split(", ").nth(1)).map(str::to_owned)
    };
    let leader = leads(&status).unwrap();
    let list = says(&every, &["member", "list"]);
    let mut ids = list.lines().filter_map(|line| line.split(", ").next());
    let other = ids.find(|id| *id != leader).unwrap();
    let moved = says(&every, &["move-leader", other]);
    assert_eq!(moved, format!("Leadership transferred from {leader} to {other}\n"));
    wait::until("the other to lead", START, || {
        let status = says(&every, &["endpoint", "status"]);
        if leads(&status).as_deref() == Some(other) { Ok(()) } else { Err(status) }
    })
    .unwrap();
    let hashes = says(&every, &["endpoint", "hashkv"]);
    let mut hashes: Vec<_> = hashes.lines().filter_map(|line| line.split(", ").nth(1)).collect();
    hashes.dedup();
    assert_eq!(hashes.len(), 1, "{hashes:?}");
    let finished = says(&every, &["defrag", "--cluster"]);
    assert_eq!(finished.matches("Finished defragmenting etcd member[").count(), 3, "{finished}");
    assert_eq!(says(&every, &["alarm", "list"]), "");
    members[2].kill();
    let every: Vec<&Member> = members.iter().collect();
    let (code, said) = refused(&every, &["endpoint", "health"]);
    assert_eq!(code, Some(1), "{said}");
    let unwell = format!("{} is unhealthy: failed to commit proposal: ", members[2].client);
    assert!(said.contains(&unwell) && said.ends_with("Error: unhealthy cluster\n"), "{said}");
}

#[test]
fn a_lease_is_kept_alive_until_it_is_revoked() {
    let site = super::site("ctl-lease");
    let member = super::alone(&site);
    let one = [&member];
    let granted = says(&one, &["lease", "grant", "2"]);
    let id = granted.split(' ').nth(1).unwrap();
    let log = site.dir.join("lease.log");
    let words = ["lease", "keep-alive", id];
    let mut keeping = etcdctl(&one, &words).start(Lifetime::Owned, &log).unwrap();
    let renewed = format!("lease {id} keepalived with TTL(2)\n");
    let printed = || std::fs::read_to_string(&log).map_err(|error| error.to_string());
    // Five renewals take longer than the lease lives.
    wait::until("five renewals", START, || {
        let printed = printed()?;
        if printed.matches(&renewed).count() >= 5 { Ok(()) } else { Err(printed) }
    })
    .unwrap();
    says(&one, &["lease", "revoke", id]);
    assert!(keeping.wait(START).unwrap().success());
    let end = format!("lease {id} expired or revoked.\n");
    assert!(printed().unwrap().ends_with(&end), "{:?}", printed());
}

#[test]
fn where_nobody_listens_each_endpoint_is_named() {
    let outcome = Program::new(testbed::binary())
        .args(["etcdctl", "--endpoints", "127.0.0.1:1,localhost:1", "get", "a"])
        .env("ETCDCTL_API", "3")
        .finish(ANSWER)
        .unwrap();
    assert_eq!(outcome.status.code(), Some(2));
    assert_eq!(
        outcome.stderr,
        "Error: cannot connect to http://127.0.0.1:1: Connection refused (os error 111); \
         cannot connect to http://localhost:1: Connection refused (os error 111)\n",
    );
}
