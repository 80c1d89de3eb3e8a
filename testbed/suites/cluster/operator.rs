//! What an operator looks at: statistics, metrics, variables, the log; and what a member bears.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;
use testbed::etcd::{ANSWER, Member};
use testbed::http::{self, Request};
use testbed::wait;

const WRITES: u64 = 20;

/// The samples of `/metrics` by their name and labels.
fn metrics(member: &Member) -> BTreeMap<String, f64> {
    let answer = member.get("/metrics").unwrap();
    assert_eq!(answer.header("Content-Type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let mut samples = BTreeMap::new();
    let mut typed = String::new();
    for line in answer.body.lines() {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            family.split(' ').next().unwrap().clone_into(&mut typed);
        } else if !line.starts_with("# HELP ") {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(name.starts_with(&typed), "{name} stands below {typed}");
            let before = samples.insert(name.to_owned(), value.parse().unwrap());
            assert_eq!(before, None, "{name} is there twice");
        }
    }
    samples
}

/// Writes so that every member has applied it.
fn write(members: &[Member]) {
    for number in 0..WRITES {
        members[0].set("/n", &number.to_string()).unwrap();
    }
    for member in members {
        member.value("/n").unwrap();
    }
}

#[test]
fn statistics_tell_who_leads_and_what_was_done() {
    let site = super::site("statistics");
    let members = super::started(&site, &["a", "b", "c"]);
    write(&members);
    let leader = members[0].leader().unwrap();
    let mut ids = BTreeMap::new();
    for member in &members {
        let own = member.json("/v2/stats/self").unwrap();
        let leads = member.name == leader;
        let state = if leads { "StateLeader" } else { "StateFollower" };
        assert_eq!((&own["name"], &own["state"]), (&member.name.as_str().into(), &state.into()));
        let (sent, got) = (&own["sendAppendRequestCnt"], &own["recvAppendRequestCnt"]);
        let moved = if leads { sent } else { got };
        assert!(moved.as_u64().unwrap() > 0, "{own}");
        ids.insert(member.name.clone(), own["id"].as_str().unwrap().to_owned());
        let store = member.json("/v2/stats/store").unwrap();
        assert_eq!(store["setsSuccess"], WRITES, "{store}");
    }
    for member in &members {
        let own = member.json("/v2/stats/self").unwrap();
        assert_eq!(own["leaderInfo"]["leader"], ids[&leader].as_str());
        assert!(own["leaderInfo"]["uptime"].as_str().unwrap().ends_with('s'), "{own}");
        let answer = member.get("/v2/stats/leader").unwrap();
        if member.name != leader {
            assert_eq!((answer.status, answer.body.as_str()), (403, NOT_LEADER));
            continue;
        }
        let told = answer.json().unwrap();
        let followers = told["followers"].as_object().unwrap();
        assert_eq!((followers.len(), &told["leader"]), (2, &ids[&leader].as_str().into()));
        for follower in followers.values() {
            assert!(follower["counts"]["success"].as_u64().unwrap() > 0, "{told}");
            let latency = &follower["latency"];
            let millis = |name: &str| latency[name].as_f64().unwrap();
            assert!(millis("minimum") > 0.0 && millis("average") <= millis("maximum"), "{told}");
        }
    }
}

const NOT_LEADER: &str = r#"{"message":"not current leader"}"#;

#[test]
fn metrics_have_the_names_that_dashboards_expect() {
    let site = super::site("metrics");
    let member = super::alone(&site);
    for number in 0..WRITES {
        member.set("/n", &number.to_string()).unwrap();
    }
    member.get("/v2/keys/none").unwrap();
    let samples = metrics(&member);
    for (name, value) in [
        ("etcd_server_has_leader", 1.0),
        ("etcd_server_is_leader", 1.0),
        ("etcd_server_leader_changes_seen_total", 1.0),
        ("etcd_server_proposals_pending", 0.0),
        ("etcd_server_proposals_failed_total", 0.0),
        ("etcd_debugging_store_writes_total{action=\"set\"}", 20.0),
        ("etcd_debugging_store_reads_failed_total{action=\"get\"}", 1.0),
        ("etcd_debugging_store_watchers", 0.0),
        ("etcd_debugging_mvcc_keys_total", 0.0),
        ("etcd_debugging_mvcc_current_revision", 1.0),
        ("etcd_server_version{server_version=\"3.5.30\"}", 1.0),
        ("etcd_cluster_version{cluster_version=\"3.5\"}", 1.0),
    ] {
        assert_eq!(samples.get(name), Some(&value), "{name}");
    }
    for (name, least) in [
        ("etcd_server_proposals_applied_total", 20.0),
        ("etcd_server_proposals_committed_total", 20.0),
        ("etcd_disk_wal_fsync_duration_seconds_count", 20.0),
        ("etcd_disk_wal_write_bytes_total", 500.0),
        ("etcd_debugging_snap_save_total_duration_seconds_count", 0.0),
        ("process_resident_memory_bytes", 1_000_000.0),
        ("process_cpu_seconds_total", 0.001),
        ("process_open_fds", 5.0),
        ("process_start_time_seconds", 1.7e9),
    ] {
        assert!(samples[name] >= least, "{name}: {}", samples[name]);
    }
    let all = samples["etcd_disk_wal_fsync_duration_seconds_bucket{le=\"+Inf\"}"];
    assert!(all >= samples["etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.001\"}"]);
}

#[test]
fn who_waits_is_counted_until_he_goes() {
    let site = super::site("waits");
    let member = super::alone(&site);
    let watchers = |expected: f64| {
        wait::until("the number of watchers", ANSWER, || {
            let seen = metrics(&member)["etcd_debugging_store_watchers"];
            if (seen - expected).abs() < 0.5 { Ok(()) } else { Err(seen.to_string()) }
        })
        .unwrap();
    };
    let waits = "/v2/keys/w?wait=true";
    let waiting = http::follow_local(member.client, waits, ANSWER).unwrap();
    watchers(1.0);
    drop(waiting);
    watchers(0.0);
    let requests = metrics(&member)["etcd_debugging_store_watch_requests_total"];
    assert!((requests - 1.0).abs() < 0.5, "{requests}");
}

#[test]
fn variables_tell_how_it_was_started_and_where_it_stands() {
    let site = super::site("variables");
    let member = super::alone(&site);
    let vars = member.json("/debug/vars").unwrap();
    let words: Vec<_> =
        vars["cmdline"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(words[1..4], ["etcd", "--name", "one"]);
    assert!(vars["file_descriptor_limit"].as_u64().unwrap() > 100, "{vars}");
    let raft = &vars["raft.status"];
    assert_eq!((&raft["raftState"], &raft["lead"]), (&"StateLeader".into(), &raft["id"]));
    assert!(raft["applied"].as_u64().unwrap() > 0, "{vars}");
}

#[test]
fn the_log_level_is_changed_while_it_runs() {
    let site = super::site("level");
    let member = super::alone(&site);
    let set = |level: &str| {
        let body = format!("{{\"Level\":\"{level}\"}}");
        let body = Some(("application/json", body.as_str()));
        let request = Request { method: "PUT", path: "/config/local/log", body };
        assert_eq!(member.ask(&request).unwrap().status, 204);
    };
    let noise = || {
        let mut stream = TcpStream::connect(member.client).unwrap();
        stream.write_all(b"this is no request of HTTP\r\n\r\n").unwrap();
        stream.read_to_end(&mut Vec::new()).ok();
    };
    noise();
    assert!(!member.said().unwrap().contains("a connection ended"));
    set("DEBUG");
    wait::until("a line for those who look for mistakes", ANSWER, || {
        noise();
        let said = member.said().unwrap();
        if said.contains("a connection ended") { Ok(()) } else { Err(said) }
    })
    .unwrap();
}

#[test]
fn what_is_too_long_is_refused_and_not_kept() {
    let site = super::site("too-long");
    let member = super::alone(&site);
    let value = "x".repeat(2 << 20);
    let refused = member.put("/k", &format!("value={value}"));
    // The server may close before it has read all.
    if let Ok(answer) = refused {
        assert_eq!(answer.status, 400);
        assert!(answer.body.contains("\"errorCode\":210"), "{}", answer.body);
    }
    let path = format!("/v2/keys/k?value={}", &value[..100_000]);
    if let Ok(answer) = member.ask(&Request { method: "PUT", path: &path, body: None }) {
        assert_eq!(answer.status, 414);
    }
    assert_eq!(member.get("/v2/keys/k").unwrap().status, 404);
    let kept = "y".repeat(1 << 20);
    member.set("/k", &kept).unwrap();
    assert_eq!(member.value("/k").unwrap().len(), kept.len());
    wait::until("it to be well", Duration::from_secs(5), || {
        let answer = member.get("/health").unwrap();
        if answer.status == 200 { Ok(()) } else { Err(answer.body) }
    })
    .unwrap();
}
