//! What a cluster of three does when members stop, are killed and come back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use corebox::platform::net::TokioNet;
use corebox::rpc::client::http::HttpClient;
use corebox::rpc::client::keys_contract::contract;
use corebox::rpc::client::keys_http::KeysClient;
use testbed::etcd::{Member, START};
use testbed::wait;

/// How long the rest may take to serve again when one is gone.
const SOON: Duration = Duration::from_secs(5);
const NAMES: &[&str] = &["a", "b", "c"];

/// The position of the one that leads, once all that run agree. It has no name until it has told it.
pub(super) fn leader(members: &[Member], away: Option<usize>) -> usize {
    let at = |name: &str| members.iter().position(|member| member.name == name);
    wait::until("the members to agree on a leader", START, || {
        let running = members.iter().enumerate().filter(|(at, _)| Some(*at) != away);
        let said = running.map(|(_, member)| member.leader()).collect::<Result<Vec<_>, _>>();
        match said {
            Ok(said) if said.iter().all(|name| *name == said[0]) => {
                at(&said[0]).ok_or_else(|| "the leader has no name yet".to_owned())
            }
            Ok(said) => Err(said.join(" ")),
            Err(error) => Err(error.to_string()),
        }
    })
    .unwrap()
}

/// Writes `/w/FROM` to `/w/TO`, all acknowledged.
fn write(member: &Member, from: usize, to: usize) {
    for number in from..to {
        member.set(&format!("/w/{number}"), &number.to_string()).unwrap();
    }
}

/// Checks that `/w/0` to `/w/COUNT` are there, through the majority.
fn check(member: &Member, count: usize) {
    let read = member.json("/v2/keys/w?quorum=true").unwrap();
    let mut found: Vec<usize> = read["node"]["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| node["value"].as_str().unwrap().parse().unwrap())
        .collect();
    found.sort_unstable();
    assert_eq!(found, (0..count).collect::<Vec<_>>(), "through {}", member.name);
}

/// Waits until a member by itself has the last write.
fn caught_up(member: &Member, last: usize) {
    wait::until("the member to catch up", START, || {
        let answer =
            member.get(&format!("/v2/keys/w/{last}")).map_err(|error| error.to_string())?;
        if answer.status == 200 { Ok(()) } else { Err(answer.body) }
    })
    .unwrap();
}

#[test]
fn a_write_through_each_member_is_read_through_the_others() {
    let site = super::site("each");
    let members = super::started(&site, NAMES);
    for writer in &members {
        writer.set("/from", &writer.name).unwrap();
        for reader in &members {
            assert_eq!(reader.value("/from").unwrap(), writer.name, "through {}", reader.name);
        }
    }
}

#[test]
fn who_wrote_through_a_member_finds_it_there_without_asking_the_others() {
    let site = super::site("own");
    let members = super::started(&site, NAMES);
    for number in 0..50 {
        for member in &members {
            let value = format!("{}{number}", member.name);
            member.set("/own", &value).unwrap();
            let plain = member.get("/v2/keys/own").unwrap().json().unwrap();
            assert_eq!(plain["node"]["value"], value, "through {}", member.name);
        }
    }
}

#[test]
fn two_of_three_serve_without_the_third_and_it_catches_up() {
    let site = super::site("third");
    let mut members = super::started(&site, NAMES);
    write(&members[0], 0, 10);
    let follower = (leader(&members, None) + 1) % 3;
    let other = (follower + 1) % 3;
    let mut count = 10;
    for gone in [Some(follower), None] {
        let gone = gone.unwrap_or_else(|| leader(&members, None));
        let rest = if gone == other { (gone + 1) % 3 } else { other };
        members[gone].kill();
        let start = Instant::now();
        write(&members[rest], count, count + 1);
        let took = start.elapsed();
        assert!(took < SOON, "{} was gone for {took:?}", members[gone].name);
        write(&members[rest], count + 1, count + 10);
        count += 10;
        check(&members[rest], count);
        members[gone].start_healthy().unwrap();
        caught_up(&members[gone], count - 1);
        check(&members[gone], count);
    }
}

#[test]
fn a_cluster_that_was_killed_as_a_whole_has_every_acknowledged_write() {
    let site = super::site("whole");
    let mut members = super::started(&site, NAMES);
    for (at, member) in members.iter().enumerate() {
        write(member, at * 20, at * 20 + 20);
    }
    for member in &mut members {
        member.kill();
    }
    for member in &mut members {
        member.start().unwrap();
    }
    for member in &mut members {
        member.healthy().unwrap();
        check(member, 60);
    }
}

#[test]
fn a_leader_that_is_asked_to_stop_hands_over_at_once() {
    let site = super::site("handover");
    let mut members = super::started(&site, NAMES);
    let leads = leader(&members, None);
    let other = (leads + 1) % 3;
    members[leads].terminate().unwrap();
    let status = members[leads].ended(SOON).unwrap();
    let start = Instant::now();
    members[other].set("/after", "1").unwrap();
    let took = start.elapsed();
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(2), "the next write took {took:?}");
    assert_ne!(leader(&members, Some(leads)), leads);
    assert_eq!(members[leads].sentences().unwrap(), Vec::<String>::new());
}

#[test]
fn without_a_majority_a_write_is_refused_in_time_and_a_read_is_answered() {
    let site = super::site("minority");
    let mut members = super::started_quick(&site, NAMES);
    members[0].set("/here", "1").unwrap();
    members[1].kill();
    members[2].kill();
    let start = Instant::now();
    let answer = members[0].put("/here", "value=2").unwrap();
    let took = start.elapsed();
    assert_eq!(answer.status, 500, "{}", answer.body);
    assert!(answer.body.starts_with(r#"{"errorCode":300,"#), "{}", answer.body);
    // 5 s and two election timeouts, and what a loaded machine adds.
    assert!(took < Duration::from_millis(7_500), "{took:?}");
    let read = members[0].json("/v2/keys/here").unwrap();
    assert_eq!(read["node"]["value"], "1");
}

#[test]
fn a_real_store_keeps_the_contract_of_all_stores() {
    let site = super::site("contract");
    let member = super::alone(&site);
    let endpoint = format!("http://{}", member.client).parse().unwrap();
    let client = KeysClient::new(HttpClient::new(Arc::new(TokioNet::default())), vec![endpoint]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(contract(&client, "/contract"));
}
