//! A recording of etcd 3.4.23 is replayed, and every answer is the recorded one.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};

use testbed::etcd::{ANSWER, Member};
use testbed::http::{Answer, Request};
use testbed::wait;

const RECORDING: &str = include_str!("../../golden/etcd-v2.txt");
/// Where the recorded member served clients and other members.
pub(super) const RECORDED_PORTS: (u16, u16) = (12379, 12380);
/// The recorded member's number, which follows from its URL.
const RECORDED_MEMBER: &str = "ddd67b312462fd7b";
const RECORDED_CLUSTER: &str = "a7ef944b95711739";

/// Parts of the recording that are about something else.
const ELSEWHERE: &[&str] = &[
    // Users and roles are not there yet.
    "/v2/auth/",
    "-u bob:b",
    "/v2/keys/a/b",
    // Numbers of one member at one time; what they are like is in `operator`.
    "/v2/stats/",
    "/debug/",
];

/// An answer of ours that is not the recorded one.
struct Difference {
    command: &'static str,
    why: &'static str,
    status: u16,
    body: &'static str,
}

const DIFFERENCES: &[Difference] = &[
    Difference {
        command: "/version",
        why: "it tells the version whose behaviour clients can expect",
        status: 200,
        body: r#"{"etcdserver":"3.5.30","etcdcluster":"3.5.0"}"#,
    },
    Difference {
        command: "/health",
        why: "it has a reason, as in 3.5",
        status: 200,
        body: r#"{"health":"true","reason":""}"#,
    },
    Difference {
        command: "/v2/keys -XGET",
        why: "a listing is always sorted; etcd's is in the order of chance",
        status: 200,
        body: "{\"action\":\"get\",\"node\":{\"dir\":true,\"nodes\":[\
               {\"key\":\"/dir\",\"dir\":true,\"modifiedIndex\":6,\"createdIndex\":6},\
               {\"key\":\"/o\",\"value\":\"1100\",\"modifiedIndex\":1113,\"createdIndex\":1113},\
               {\"key\":\"/q\",\"dir\":true,\"modifiedIndex\":8,\"createdIndex\":8}]}}\n",
    },
];

/// One line that was typed and what came of it.
pub(super) struct Exchange {
    pub(super) command: String,
    pub(super) status: u16,
    pub(super) body: String,
}

/// Reads a recording: the status stands behind the body, on its own line if the body ends one.
pub(super) fn exchanges(recording: &str) -> Vec<Exchange> {
    let mut found = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in recording.lines() {
        if let Some(command) = line.strip_prefix("$ curl http://127.0.0.1:12379") {
            open = Some((command.to_owned(), String::new()));
            continue;
        }
        let Some((command, body)) = &mut open else { continue };
        let status = line.strip_suffix(']').and_then(|line| line.rsplit_once('['));
        let status = status.and_then(|(text, code)| Some((text, code.parse::<u16>().ok()?)));
        if let Some((text, status)) = status {
            body.push_str(text.strip_suffix(' ').unwrap_or(text));
            found.push(Exchange { command: command.clone(), status, body: body.clone() });
            open = None;
        } else {
            body.push_str(line);
            body.push('\n');
        }
    }
    found
}

/// Asks what a `curl` with these words asks.
fn ask(member: &Member, command: &str) -> Answer {
    let mut words = command.split(' ');
    let path = words.next().unwrap();
    let (mut method, mut kind, mut form) = ("GET", "application/x-www-form-urlencoded", Vec::new());
    while let Some(word) = words.next() {
        match word {
            "-d" => form.push(words.next().unwrap()),
            "-H" => kind = words.by_ref().nth(1).unwrap(),
            "--max-time" => drop(words.next()),
            _ => method = word.strip_prefix("-X").unwrap(),
        }
    }
    let form = form.join("&");
    let body = (!form.is_empty()).then_some((kind, form.as_str()));
    member.ask(&Request { method, path, body }).unwrap()
}

/// Replaces what the time decides.
pub(super) fn timeless(body: &str) -> String {
    let mut parts = body.split("\"expiration\":\"");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text.push_str("\"expiration\":\"T\"");
        text.push_str(part.split_once('"').map_or("", |(_, rest)| rest));
    }
    text
}

/// A member where the recorded one was, or somewhere else if that place is taken.
pub(super) fn recorded_member(site: &testbed::etcd::Site) -> Member {
    let place = |port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    let (client, peer) = (place(RECORDED_PORTS.0), place(RECORDED_PORTS.1));
    let free = TcpListener::bind(client).is_ok() && TcpListener::bind(peer).is_ok();
    let member = if free {
        Member::at(&site.dir, "default", client, peer)
    } else {
        Member::new(site, "default").unwrap()
    };
    let listed = member.listed();
    member.flag("initial-cluster", listed)
}

/// Says in a recorded text what differs because of the place.
pub(super) fn placed(text: &str, member: &Member, own_id: &str) -> String {
    text.replace("127.0.0.1:12379", &member.client.to_string())
        .replace("127.0.0.1:12380", &member.peer.to_string())
        .replace(RECORDED_MEMBER, own_id)
}

/// The names of headers, as they are spelled.
fn names(head: &str) -> BTreeSet<&str> {
    head.lines().filter_map(|line| Some(line.split_once(": ")?.0)).collect()
}

#[test]
fn every_recorded_answer_is_given_again() {
    let site = super::site("golden");
    let mut member = recorded_member(&site);
    member.start_healthy().unwrap();
    let members = member.json("/v2/members").unwrap();
    let id = members["members"][0]["id"].as_str().unwrap().to_owned();
    if member.client.port() == RECORDED_PORTS.0 {
        assert_eq!(id, RECORDED_MEMBER, "the number follows from the URL");
    }
    the_first_answer_has_the_recorded_headers(&member);
    let (mut wrong, mut replayed) = (Vec::new(), 0);
    for exchange in exchanges(RECORDING) {
        let Exchange { command, status, body } = &exchange;
        if ELSEWHERE.iter().any(|part| command.contains(part)) {
            continue;
        }
        if command.contains("waitIndex=8") {
            for number in 1..=1100 {
                member.set("/o", &number.to_string()).unwrap();
            }
        }
        let body = timeless(&placed(body, &member, &id));
        let difference = DIFFERENCES.iter().find(|known| known.command == *command);
        let (status, body) = match difference {
            Some(known) => (known.status, known.body.to_owned()),
            None => (*status, body),
        };
        let same = |answer: &Answer| answer.status == status && timeless(&answer.body) == body;
        let mut answer = ask(&member, command);
        if command == "/v2/keys/t" && status == 404 {
            answer = wait::until("the key with no time to live to go", ANSWER, || {
                let answer = ask(&member, command);
                if same(&answer) { Ok(answer) } else { Err(answer.body) }
            })
            .unwrap();
        } else if command == "/v2/keys/t" && answer.status == 404 {
            // etcd looks for expired keys twice a second, and here it may be gone at once.
            continue;
        }
        if command.contains("waitIndex=8") {
            the_refusal_has_the_recorded_headers(&answer);
        }
        if !same(&answer) {
            let why = difference.map_or("", |known| known.why);
            let got = format!("{} {}", answer.status, timeless(&answer.body));
            wrong.push(format!("{command} {why}\n  recorded: {status} {body}\n  got: {got}"));
        }
        replayed += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(replayed > 50, "only {replayed} lines were replayed");
}

fn the_first_answer_has_the_recorded_headers(member: &Member) {
    // The headers are recorded with the line ends that HTTP has.
    let (recorded, body) = RECORDING.split_once("\r\n\r\n").unwrap();
    let answer = member.put("/message", "value=Hello").unwrap();
    assert_eq!(answer.status, 201);
    assert_eq!(answer.body.lines().next(), body.lines().next());
    assert_eq!(names(&answer.head), names(recorded));
    assert_eq!(answer.header("X-Etcd-Index"), Some("4"));
    assert_eq!(answer.header("Content-Type"), Some("application/json"));
    if member.client.port() == RECORDED_PORTS.0 {
        assert_eq!(answer.header("X-Etcd-Cluster-Id"), Some(RECORDED_CLUSTER));
    }
}

fn the_refusal_has_the_recorded_headers(answer: &Answer) {
    let recorded = RECORDING.split("HTTP/1.1 400 Bad Request").nth(1).unwrap();
    let recorded = recorded.split("$ curl").next().unwrap();
    assert_eq!(names(&answer.head), names(recorded));
    assert_eq!(answer.header("X-Etcd-Index"), Some("1113"));
}

#[test]
fn each_known_difference_is_still_one() {
    let recorded = exchanges(RECORDING);
    for known in DIFFERENCES {
        let found = recorded.iter().find(|exchange| exchange.command == known.command);
        let found = found.unwrap_or_else(|| panic!("{} is not recorded", known.command));
        let ours = (known.status, known.body);
        assert_ne!((found.status, found.body.as_str()), ours, "{}: {}", known.command, known.why);
    }
}
