//! Members that find each other at the discovery service that ships.

use std::net::SocketAddrV4;

use testbed::etcd::{ANSWER, Member, START, Site};
use testbed::http::{self, Request};
use testbed::process::{Lifetime, Program, Running};
use testbed::wait;

/// Starts the service; it goes with what is returned.
fn service(site: &Site) -> (Running, SocketAddrV4) {
    let address = site.ports(1).unwrap()[0];
    let running = Program::new(testbed::binary())
        .args(["discovery", "--addr", &address.to_string()])
        .args(["--public-url", &format!("http://{address}"), "--data-dir"])
        .arg(site.dir.join("registry"))
        .start(Lifetime::Owned, &site.dir.join("discovery.log"))
        .unwrap();
    (running, address)
}

/// Gets a URL for three.
fn url_for_three(address: SocketAddrV4) -> String {
    let request = Request { method: "GET", path: "/new?size=3", body: None };
    let url = wait::until("a discovery URL", START, || {
        let answer = http::ask_local(address, &request, ANSWER).map_err(|e| e.to_string())?;
        if answer.status == 200 { Ok(answer.body) } else { Err(answer.body) }
    });
    url.unwrap().trim().to_owned()
}

#[test]
fn three_members_find_each_other_and_a_fourth_is_told_that_it_is_full() {
    let site = super::site("discovery");
    let (running, address) = service(&site);
    let url = url_for_three(address);
    let member = |name: &str| Member::new(&site, name).unwrap().flag("discovery", &url);
    let mut members: Vec<_> = ["a", "b", "c"].into_iter().map(member).collect();
    for member in &mut members {
        member.start().unwrap();
    }
    for member in &mut members {
        member.healthy().unwrap();
    }
    members[0].set("/found", "each other").unwrap();
    assert_eq!(members[2].value("/found").unwrap(), "each other");

    let (code, said) = member("d").flag("discovery-fallback", "exit").refused().unwrap();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("cluster is full") && said.contains(&url), "{said}");

    drop(running);
    members[1].kill();
    members[1].start_healthy().unwrap();
    assert_eq!(members[1].value("/found").unwrap(), "each other", "it needs no service again");
}
