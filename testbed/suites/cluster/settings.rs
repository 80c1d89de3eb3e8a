//! How a member is told what to do: flags, environment, a file, or nothing at all.

use std::fs;

use testbed::etcd::{ANSWER, Member, START};
use testbed::http::Request;
use testbed::process::Program;
use testbed::wait;

/// Starts `etcd` with nothing, in a network of its own, asks it there, and stops it well.
const ALONE: &str = r#"
export ETCDCTL_API=2
ip link set lo up && cd "$1" || exit 1
"$2" etcd 2>log & member=$!
until "$2" etcdctl set /k v 2>said; do
    kill -0 $member || { cat log; exit 1; }
done
"$2" etcdctl get /k && "$2" etcdctl member list && ls -d default.etcd || cat log said
kill $member && wait $member
"#;

#[test]
fn without_arguments_it_serves_on_localhost() {
    let site = super::site("nothing");
    let program = Program::line("unshare --user --map-root-user --net sh -c").arg(ALONE).arg("sh");
    let said = program.arg(&site.dir).arg(testbed::binary()).run(START * 2).unwrap();
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 4, "{said}");
    assert_eq!((lines[0], lines[1], lines[3]), ("v", "v", "default.etcd"));
    let (_, member) = lines[2].split_once(": ").unwrap();
    assert_eq!(
        member,
        "name=default peerURLs=http://localhost:2380 clientURLs=http://localhost:2379 isLeader=true",
    );
}

/// Runs `etcd` where it must refuse, and returns what it says.
fn refused(program: &Program) -> String {
    let outcome = program.finish(START).unwrap();
    assert_eq!(outcome.status.code(), Some(1), "{}", outcome.stderr);
    assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
    outcome.stderr
}

fn etcd() -> Program {
    Program::new(testbed::binary()).arg("etcd")
}

#[test]
fn nobody_gets_an_open_server_who_asked_for_a_closed_one() {
    let later = "which is not there yet; leave it out";
    let by_flag = refused(&etcd().args(["-client-cert-auth", "--trusted-ca-file=ca.pem"]));
    assert!(by_flag.contains("`--client-cert-auth` asks for TLS") && by_flag.contains(later));
    let by_environment = refused(&etcd().env("ETCD_PEER_CERT_FILE", "peer.pem"));
    assert!(by_environment.contains("`--peer-cert-file` asks for TLS"), "{by_environment}");
    let by_url = refused(&etcd().args([
        "--listen-client-urls=https://127.0.0.1:0",
        "--advertise-client-urls=https://127.0.0.1:0",
    ]));
    assert!(by_url.contains("`--listen-client-urls` asks for TLS"), "{by_url}");
    let site = super::site("closed");
    let file = site.dir.join("etcd.yaml");
    fs::write(&file, "client-transport-security:\n  client-cert-auth: true\n").unwrap();
    let by_file = refused(&etcd().arg("--config-file").arg(&file));
    assert!(by_file.contains("`--client-cert-auth` asks for TLS"), "{by_file}");
    fs::write(&file, "client-transport-security:\n  client-cert-aut: true\n").unwrap();
    let misspelt = refused(&etcd().arg("--config-file").arg(&file));
    assert!(misspelt.contains("`client-cert-aut` is no setting"), "{misspelt}");
}

#[test]
fn words_that_are_no_flags_are_named() {
    assert_eq!(refused(&etcd().arg("x")), "etcd: 'x' is not a valid flag\n");
    let gateway = refused(&etcd().args(["gateway", "start"]));
    assert!(gateway.contains("`etcd gateway`"), "{gateway}");
}

#[test]
fn a_flag_without_meaning_is_accepted_and_told_in_one_line() {
    let site = super::site("meaning");
    let mut member = Member::new(&site, "one").unwrap().flag("snapshot-count", "5000");
    let listed = member.listed();
    member = member.flag("initial-cluster", listed);
    member.start_healthy().unwrap();
    let said = member.said().unwrap();
    let lines: Vec<_> = said.lines().filter(|line| line.contains("snapshot-count")).collect();
    assert_eq!(lines.len(), 1, "{said}");
    assert!(lines[0].contains("WARN") && lines[0].contains("has no meaning here"), "{}", lines[0]);
}

#[test]
fn a_file_is_used_alone() {
    let site = super::site("file");
    let mut member = Member::new(&site, "one").unwrap();
    let (client, peer) = (member.client, member.peer);
    let file = site.dir.join("etcd.yaml");
    let settings = format!(
        "name: filed\ndata-dir: {}\nsnapshot-count: 5000\n\
         listen-client-urls: http://{client}\nadvertise-client-urls: http://{client}\n\
         listen-peer-urls: http://{peer}\ninitial-advertise-peer-urls: http://{peer}\n",
        site.dir.join("filed").display(),
    );
    fs::write(&file, settings).unwrap();
    member = member.flag("config-file", file.to_str().unwrap());
    member.start_healthy().unwrap();
    wait::until("it to have told its name", ANSWER, || {
        let members = member.json("/v2/members").unwrap();
        if members["members"][0]["name"] == "filed" { Ok(()) } else { Err(members.to_string()) }
    })
    .unwrap();
    assert!(site.dir.join("filed/member").is_dir() && !member.data.exists());
}

#[test]
fn only_names_that_are_allowed_are_answered() {
    let site = super::site("names");
    let mut member = Member::new(&site, "one").unwrap();
    let listed = member.listed();
    let host = member.client.ip().to_string();
    member = member.flag("initial-cluster", listed).flag("host-whitelist", "elsewhere");
    member.start().unwrap();
    let asked = || member.ask(&Request { method: "GET", path: "/v2/keys", body: None });
    let answer = wait::until("an answer", START, || asked().map_err(|e| e.to_string()));
    // The client of this suite calls itself's host `lab`.
    assert_eq!(answer.unwrap().status, 421, "{host}");
    member.kill();
    let mut member = member.flag("host-whitelist", "lab").flag("cors", "http://pages");
    member.start_healthy().unwrap();
    let answer = member.get("/v2/keys").unwrap();
    assert_eq!((answer.status, answer.header("Access-Control-Allow-Origin")), (200, None));
}

#[test]
fn metrics_have_an_address_of_their_own_if_one_is_given() {
    let site = super::site("metrics-url");
    let mut member = Member::new(&site, "one").unwrap();
    let (listed, address) = (member.listed(), site.ports(1).unwrap()[0]);
    member = member.flag("initial-cluster", listed);
    member = member.flag("listen-metrics-urls", format!("http://{address}"));
    member.start_healthy().unwrap();
    let asked = |path| {
        let request = Request { method: "GET", path, body: None };
        testbed::http::ask_local(address, &request, ANSWER).unwrap()
    };
    assert!(asked("/metrics").body.contains("\netcd_server_has_leader 1\n"));
    assert_eq!((asked("/health").status, asked("/v2/keys").status), (200, 404));
}
