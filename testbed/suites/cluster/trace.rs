//! What a kube-apiserver asks, of real members: nothing that it relies on is broken. How fast they
//! answer is `cargo xtask trace kube`: it would be luck beside other suites.

use std::time::Duration;

use testbed::etcd::Member;
use testbed::etcd_v3::{self, Client};
use testbed::trace::report::Request;
use testbed::trace::{self, Plan, Report, Trouble};

const NAMES: &[&str] = &["a", "b", "c"];

fn plan(members: &[Member]) -> Plan {
    Plan {
        members: members.iter().map(|member| member.client).collect(),
        seed: 1,
        rate: 200,
        time: Duration::from_secs(5),
        compact_every: Duration::from_millis(800),
        trouble: Trouble::None,
    }
}

fn keeps_its_promises(report: &Report) {
    if let Some(violation) = &report.violation {
        panic!("{violation}\n{}", report.table());
    }
}

#[test]
fn a_trace_of_apiservers_loses_doubles_and_disorders_nothing() {
    let site = super::site("trace");
    let members = super::started(&site, NAMES);
    let report = etcd_v3::run(trace::run(&plan(&members), || {})).unwrap().unwrap();
    keeps_its_promises(&report);
    assert_eq!(report.errors(), 0);
    assert!(report.answers() >= 1000, "{}", report.table());
    // Each of the three has its own watches of all that is written, and opens them anew.
    assert!(report.events >= 1500, "{} events", report.events);
    assert!(report.bookmarks > 0 && report.conflicts > 0 && report.resumed > 0, "{report:?}");
    assert!(report.answers_of(Request::Compact) > 0, "{}", report.table());
}

#[test]
fn a_leader_that_is_killed_in_the_middle_of_a_trace_takes_no_event_with_it() {
    let site = super::site("trace-kill");
    let mut members = super::started_quick(&site, NAMES);
    let leads = etcd_v3::run(async {
        let clients: Vec<_> = members.iter().map(|member| Client::new(member.client)).collect();
        let leads = super::v3::leader(&clients.iter().collect::<Vec<_>>()).await;
        let mut ids = Vec::new();
        for client in &clients {
            ids.push(super::v3::id(client).await);
        }
        ids.iter().position(|id| *id == leads).unwrap()
    })
    .unwrap();
    // History is kept for longer than an election takes, as an apiserver keeps it for minutes.
    let compact_every = Duration::from_secs(4);
    let time = Duration::from_secs(8);
    let plan = Plan { trouble: Trouble::Death, compact_every, time, ..plan(&members) };
    let report = etcd_v3::run(trace::run(&plan, || members[leads].kill())).unwrap().unwrap();
    keeps_its_promises(&report);
    assert!(report.errors() > 0, "nobody missed the leader:\n{}", report.table());
    assert!(report.answers() >= 1000, "{}", report.table());
    assert!(report.events >= 1000 && report.resumed > 0, "{report:?}");
}
