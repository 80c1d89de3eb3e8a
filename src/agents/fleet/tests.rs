//! Whole daemons in one process: one store in memory, a service manager each, a paused clock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::agents::fleet::answers::{Ask, Reply};
use crate::agents::fleet::config::{self, Config};
use crate::agents::fleet::run::{Parts, World};
use crate::agents::fleet::server;
use crate::foundation::clock::{Timestamp, TokioClock};
use crate::foundation::tasks::Tasks;
use crate::platform::net::{Address, MemoryNet, Net};
use crate::platform::systemd::{MemorySystemd, Systemd as _, UnitName};
use crate::rpc::client::http::{HttpClient, Request};
use crate::rpc::client::keys::{Keys as _, Read, leaves};
use crate::rpc::client::keys_memory::MemoryKeys;
use crate::rpc::client::url::Url;
use crate::rpc::server::listen;
use crate::wire::fleet::api::{MachinePage, Placement, StatePage, Unit, UnitPage};
use crate::wire::fleet::{JobState, UnitFile};

/// How long anything may take that is not bound to a time to live.
const SOON: Duration = Duration::from_secs(10);
const TTL: Duration = Duration::from_secs(3);

const EXAMPLE: &str = include_str!("../../../testbed/inputs/example@.service");
const GLOBAL: &str = include_str!("../../../testbed/inputs/example-global.service");

struct Cluster {
    keys: Arc<MemoryKeys>,
}

impl Cluster {
    fn new() -> Self {
        let clock = TokioClock::starting_at(Timestamp::from_secs(1_000_000));
        Self { keys: Arc::new(MemoryKeys::new(Arc::new(clock))) }
    }

    /// Every key of the registry.
    async fn registry(&self) -> BTreeMap<String, String> {
        let read = Read { recursive: true, sorted: true, quorum: true };
        let answer = self.keys.get("/_coreos.com/fleet", read).await.unwrap();
        let node = answer.event.node.unwrap();
        let short = |path: &str| path.trim_start_matches("/_coreos.com/fleet/").to_owned();
        leaves(&node).into_iter().map(|(path, value)| (short(path), value.to_owned())).collect()
    }

    fn node(&self, id: &str) -> Node {
        self.node_with(id, &[("FLEET_METADATA", "role=store")])
    }

    fn node_with(&self, id: &str, settings: &[(&str, &str)]) -> Node {
        let folder = tempfile::tempdir().unwrap();
        let tasks = Tasks::default();
        let systemd = MemorySystemd::below(&tasks, folder.path());
        let units = folder.path().join("units");
        let mut environment: BTreeMap<String, String> =
            settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        environment.insert("FLEET_UNITS_DIRECTORY".into(), units.display().to_string());
        environment.insert("FLEET_AGENT_TTL".into(), "3s".into());
        let (config, _) = config::read(None, &environment).unwrap();
        let keys = self.keys.clone();
        let world = World {
            keys: Box::new(move |_| keys.clone()),
            systemd: Arc::new(systemd.clone()),
            machine_id: id.to_owned(),
            address: format!("10.0.0.{}", id.trim_start_matches('m')),
        };
        let parts = Parts::start(&config, &world, &tasks);
        Node { config, world, parts, systemd, tasks, _folder: folder }
    }

    /// Waits for a state in which `there` is true, and says how long that took.
    async fn wait(&self, what: &str, mut there: impl FnMut() -> bool) -> Duration {
        let start = Instant::now();
        while !there() {
            assert!(start.elapsed() < SOON, "{what} did not come about within {SOON:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        start.elapsed()
    }
}

struct Node {
    config: Config,
    world: World,
    parts: Parts,
    systemd: MemorySystemd,
    tasks: Tasks,
    _folder: tempfile::TempDir,
}

impl Node {
    fn running(&self) -> Vec<String> {
        let units = self.systemd.list().now_or_never().unwrap().unwrap();
        units.into_iter().filter(|(_, it)| it.active == "active").map(|(name, _)| name).collect()
    }

    /// Stops the daemon as a crash would, and starts it again.
    async fn restart(self) -> Self {
        self.parts.halt().await;
        let parts = Parts::start(&self.config, &self.world, &self.tasks);
        Self { parts, ..self }
    }

    async fn ask(&self, method: &str, path: &str, body: &str) -> Reply {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let pair = |it: &str| {
            let (key, value) = it.split_once('=').unwrap();
            (key.to_owned(), value.to_owned())
        };
        let ask = Ask {
            method: method.to_owned(),
            path: path.trim_start_matches('/').split('/').map(str::to_owned).collect(),
            query: query.split('&').filter(|it| !it.is_empty()).map(pair).collect(),
            content_types: vec!["application/json; charset=utf-8".to_owned()],
            body: body.as_bytes().to_vec(),
        };
        self.parts.answers().answer(&ask).await
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> T {
        let reply = self.ask("GET", path, "").await;
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        serde_json::from_str(&reply.body.unwrap()).unwrap()
    }

    async fn put(&self, name: &str, text: Option<&str>, desired: Option<JobState>) -> u16 {
        let file = text.map(|text| UnitFile::parse(text).unwrap());
        let unit = Unit {
            options: file.map(|file| file.options().to_vec()).unwrap_or_default(),
            desired_state: desired,
            ..Unit::default()
        };
        let body = serde_json::to_string(&unit).unwrap();
        self.ask("PUT", &format!("/fleet/v1/units/{name}"), &body).await.status
    }

    async fn start(&self, name: &str, text: &str) {
        assert_eq!(self.put(name, Some(text), Some(JobState::Launched)).await, 201);
    }

    fn live(&self) -> bool {
        self.parts.answers().view().health().borrow().live()
    }

    fn calls(&self, verb: &str) -> Vec<String> {
        self.systemd.log().into_iter().filter(|call| call.starts_with(verb)).collect()
    }
}

/// Starts machines m1, m2, … and waits until they are all there.
async fn nodes(cluster: &Cluster, count: usize) -> Vec<Node> {
    let nodes: Vec<Node> = (1..=count).map(|at| cluster.node(&format!("m{at}"))).collect();
    cluster.wait("a cluster", || nodes.iter().all(Node::live)).await;
    let seen = |node: &Node| node.parts.answers().view().read(|seen| seen.machines().len());
    cluster.wait("all see all", || nodes.iter().all(|node| seen(node) == count)).await;
    nodes
}

fn everywhere(nodes: &[Node]) -> Vec<String> {
    let mut all: Vec<String> = nodes.iter().flat_map(Node::running).collect();
    all.sort();
    all
}

#[tokio::test(start_paused = true)]
async fn the_unit_of_a_machine_that_died_runs_elsewhere_soon_after_its_presence_expired() {
    let cluster = Cluster::new();
    let mut nodes = nodes(&cluster, 4).await;
    let units = ["example@1.service", "example@2.service", "example@3.service"];
    for unit in units {
        nodes[0].start(unit, EXAMPLE).await;
    }
    cluster.wait("three units", || everywhere(&nodes) == units).await;
    assert!(nodes.iter().all(|node| node.running().len() <= 1), "they exclude each other");
    let victim = nodes.iter().position(|node| node.running() == [units[1]]).unwrap();
    let dead = nodes.remove(victim);
    let before: Vec<_> = nodes.iter().map(Node::running).collect();
    dead.parts.halt().await;
    let took = cluster.wait("a new home", || everywhere(&nodes) == units).await;
    assert!(took < TTL + Duration::from_secs(2), "it took {took:?}");
    for (node, before) in nodes.iter().zip(before) {
        assert!(before.iter().all(|unit| node.running().contains(unit)), "only that unit moved");
        assert_eq!(node.calls("stop"), [] as [&str; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_unit_is_never_on_two_machines_while_it_moves() {
    let cluster = Cluster::new();
    let mut nodes = nodes(&cluster, 2).await;
    for node in &nodes {
        node.systemd.job_time(Duration::from_secs(2));
    }
    nodes[0].start("web.service", "[Service]\nExecStart=/web\n").await;
    cluster.wait("web", || everywhere(&nodes) == ["web.service"]).await;
    let home = nodes.iter().position(|node| node.running() == ["web.service"]).unwrap();
    let away = if home == 0 { "m2" } else { "m1" };
    let pinned = format!("[Service]\nExecStart=/web\n[X-Fleet]\nMachineID={away}\n");
    assert_eq!(nodes[0].put("web.service", Some(&pinned), None).await, 201);
    let moved = |nodes: &[Node]| {
        assert!(everywhere(nodes).len() <= 1, "{:?}", everywhere(nodes));
        nodes[1 - home].running() == ["web.service"]
    };
    cluster.wait("the move", || moved(&nodes)).await;
    let leaving = nodes.remove(1 - home);
    leaving.parts.leave().await;
    let left = leaving.systemd.list().await.unwrap();
    assert!(left.values().all(|state| state.active != "active"), "{left:?}");
    let registry = cluster.registry().await;
    assert!(!registry.contains_key(&format!("machines/{away}/object")), "{registry:?}");
    assert!(!registry.keys().any(|key| key.starts_with("states/")), "{registry:?}");
    assert!(!registry.contains_key("job/web.service/job-state"), "{registry:?}");
}

#[tokio::test(start_paused = true)]
async fn while_the_store_is_away_nothing_stops_and_nothing_moves_afterwards() {
    let cluster = Cluster::new();
    let nodes = nodes(&cluster, 3).await;
    nodes[0].start("example@1.service", EXAMPLE).await;
    nodes[0].start("example@2.service", EXAMPLE).await;
    nodes[0].start("example-global.service", GLOBAL).await;
    cluster.wait("five", || everywhere(&nodes).len() == 5).await;
    let before: Vec<_> = nodes.iter().map(Node::running).collect();
    cluster.keys.set_reachable(false);
    cluster.wait("it is noticed", || !nodes.iter().any(Node::live)).await;
    tokio::time::sleep(Duration::from_mins(5)).await;
    cluster.keys.set_reachable(true);
    cluster.wait("all are back", || nodes.iter().all(Node::live)).await;
    tokio::time::sleep(TTL * 4).await;
    assert_eq!(nodes.iter().map(Node::running).collect::<Vec<_>>(), before);
    for node in &nodes {
        assert_eq!(node.calls("stop"), [] as [&str; 0]);
    }
    let states: StatePage = nodes[1].get("/fleet/v1/state").await;
    assert_eq!(states.states.len(), 5, "states are published again");
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_starts_again_takes_over_what_runs() {
    let cluster = Cluster::new();
    let mut nodes = nodes(&cluster, 1).await;
    let node = nodes.remove(0);
    node.start("web.service", "[Service]\nExecStart=/web\n").await;
    cluster.wait("web", || node.running() == ["web.service"]).await;
    let (starts, links) = (node.calls("start").len(), node.calls("link").len());
    let node = node.restart().await;
    cluster.wait("it is back", || node.live()).await;
    tokio::time::sleep(TTL * 3).await;
    assert_eq!(node.running(), ["web.service"]);
    assert_eq!((node.calls("start").len(), node.calls("link").len()), (starts, links));
    assert_eq!(node.calls("stop"), [] as [&str; 0]);
    let unit: Unit = node.get("/v1-alpha/units/web.service").await;
    assert_eq!(unit.current_state, Some(JobState::Launched));
}

#[tokio::test(start_paused = true)]
async fn a_unit_follows_what_is_asked_of_it() {
    let cluster = Cluster::new();
    let nodes = nodes(&cluster, 1).await;
    let node = &nodes[0];
    let state = || async {
        let unit: Unit = node.get("/fleet/v1/units/web.service").await;
        unit.current_state.unwrap()
    };
    let settle = |wanted: JobState| async move {
        let start = Instant::now();
        while state().await != wanted {
            assert!(start.elapsed() < SOON, "{wanted} not reached");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let text = "[Service]\nExecStart=/web\n[Install]\nWantedBy=x.target\n";
    assert_eq!(node.put("web.service", Some(text), None).await, 201);
    settle(JobState::Inactive).await;
    for wanted in [JobState::Loaded, JobState::Launched, JobState::Loaded] {
        assert_eq!(node.put("web.service", None, Some(wanted)).await, 204);
        settle(wanted).await;
        let runs = usize::from(wanted == JobState::Launched);
        assert_eq!(node.running().len(), runs);
        assert_eq!(node.systemd.enabled(&UnitName::parse("web.service").unwrap()).len(), 1);
    }
    node.put("web.service", None, Some(JobState::Launched)).await;
    settle(JobState::Launched).await;
    let other = text.replace("/web", "/other");
    assert_eq!(node.put("web.service", Some(&other), Some(JobState::Launched)).await, 201);
    let name = UnitName::parse("web.service").unwrap();
    let new = || node.systemd.content(&name).is_some_and(|text| text.contains("/other"));
    cluster.wait("the new text runs", || new() && node.running().len() == 1).await;
    assert_eq!(node.ask("DELETE", "/fleet/v1/units/web.service", "").await.status, 204);
    assert_eq!(node.ask("GET", "/fleet/v1/units/web.service", "").await.status, 404);
    assert_eq!(node.ask("DELETE", "/fleet/v1/units/web.service", "").await.status, 404);
    cluster.wait("it is gone", || node.running().is_empty()).await;
    let gone = || node.parts.answers().view().read(|seen| seen.units_with_states().is_empty());
    cluster.wait("its state is gone", gone).await;
}

#[tokio::test(start_paused = true)]
async fn a_reload_is_left_out_where_it_changes_nothing() {
    let cluster = Cluster::new();
    let nodes = nodes(&cluster, 1).await;
    let node = &nodes[0];
    node.start("plain.service", "[Service]\nExecStart=/plain\n").await;
    cluster.wait("it runs", || node.running().len() == 1).await;
    assert_eq!(node.calls("daemon-reload"), [""; 0]);
    let wanted = "[Service]\nExecStart=/wanted\n[Install]\nWantedBy=x.target\n";
    node.start("wanted.service", wanted).await;
    cluster.wait("both run", || node.running().len() == 2).await;
    assert_ne!(node.calls("daemon-reload"), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_unit_that_fails_or_never_ends_its_start_holds_up_no_other() {
    let cluster = Cluster::new();
    let nodes = nodes(&cluster, 1).await;
    let node = &nodes[0];
    let bad = UnitName::parse("web-bad.service").unwrap();
    node.systemd.fail_on_start(&bad, true);
    node.start("web-bad.service", "[Service]\nExecStart=/bad\n").await;
    cluster.wait("it failed", || node.calls("start web-bad").len() == 1).await;
    node.start("web-good.service", "[Service]\nExecStart=/good\n").await;
    cluster.wait("the other runs", || node.running() == ["web-good.service"]).await;
    tokio::time::sleep(SOON).await;
    assert_eq!(node.calls("start web-bad").len(), 1, "a failed unit is left to systemd");
    node.systemd.job_time(Duration::from_hours(1));
    node.start("web-slow.service", "[Service]\nExecStart=/slow\n").await;
    cluster.wait("it starts", || node.calls("start web-slow").len() == 1).await;
    node.systemd.job_time(Duration::ZERO);
    node.ask("DELETE", "/fleet/v1/units/web-slow.service", "").await;
    cluster.wait("its start is cut short", || node.calls("stop web-slow").len() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_second_machine_with_the_same_id_stays_out_until_the_first_has_left() {
    let cluster = Cluster::new();
    let nodes = nodes(&cluster, 1).await;
    let twin = cluster.node_with("m1", &[("FLEET_PUBLIC_IP", "10.0.0.99")]);
    tokio::time::sleep(TTL * 3).await;
    assert!(!twin.live(), "two machines of one id");
    let [first] = <[Node; 1]>::try_from(nodes).ok().unwrap();
    first.parts.leave().await;
    cluster.wait("the twin joins", || twin.live()).await;
}

#[tokio::test(start_paused = true)]
async fn metadata_can_be_changed_and_units_follow() {
    let cluster = Cluster::new();
    let nodes = nodes(&cluster, 2).await;
    let text = "[Service]\nExecStart=/web\n[X-Fleet]\nMachineMetadata=disk=ssd\n";
    nodes[0].start("web.service", text).await;
    let placement: Placement = nodes[0].get("/fleet/v1/placement/web.service").await;
    assert_eq!(placement.machines.len(), 2);
    assert_eq!(placement.machines[1].reason, "metadata `disk` is missing, the unit asks for `ssd`");
    let patch = r#"[{"op":"add","path":"/m2/metadata/disk","value":"ssd"}]"#;
    assert_eq!(nodes[0].ask("PATCH", "/fleet/v1/machines", patch).await.status, 204);
    cluster.wait("it goes there", || nodes[1].running() == ["web.service"]).await;
    let page: MachinePage = nodes[0].get("/fleet/v1/machines").await;
    assert_eq!(page.machines[1].metadata["disk"], "ssd");
    assert_eq!(page.machines[1].metadata["role"], "store");
    let patch = r#"[{"op":"remove","path":"/m2/metadata/disk"}]"#;
    assert_eq!(nodes[1].ask("PATCH", "/fleet/v1/machines", patch).await.status, 204);
    cluster.wait("it leaves", || everywhere(&nodes).is_empty()).await;
    let bad = r#"[{"op":"add","path":"/m2/disk","value":"ssd"}]"#;
    assert_eq!(nodes[1].ask("PATCH", "/fleet/v1/machines", bad).await.status, 400);
}

#[tokio::test(start_paused = true)]
async fn the_decision_table_of_put_holds() {
    let cluster = Cluster::new();
    let nodes = nodes(&cluster, 1).await;
    let node = &nodes[0];
    let text = Some("[Service]\nExecStart=/a\n");
    let never = Some("[X-Fleet]\nMachineID=1\nGlobal=true\n");
    for (name, text, desired, status) in [
        ("a.service", None, Some(JobState::Launched), 409),
        ("a.service", None, None, 409),
        ("bad", text, None, 400),
        ("a.service", never, None, 400),
        ("a@.service", text, Some(JobState::Launched), 400),
        ("a.service", text, None, 201),
        ("a.service", text, None, 409),
        ("a.service", text, Some(JobState::Inactive), 204),
        ("a.service", Some("[Service]\nExecStart=/b\n"), None, 201),
        ("a.service", never, Some(JobState::Inactive), 400),
        ("a@.service", text, Some(JobState::Inactive), 201),
        ("a@.service", None, Some(JobState::Loaded), 400),
    ] {
        assert_eq!(node.put(name, text, desired).await, status, "{name} {text:?} {desired:?}");
    }
    let url = "/fleet/v1/units/a.service";
    assert_eq!(node.ask("PUT", url, r#"{"name":"b.service"}"#).await.status, 400);
    assert_eq!(node.ask("PUT", url, r#"{"desiredState":"flying"}"#).await.status, 400);
    assert_eq!(node.ask("PUT", url, "{").await.status, 400);
    for types in [vec![], vec!["text/plain".to_owned()], vec!["application/json".to_owned(); 2]] {
        let path = ["fleet", "v1", "units", "a.service"].map(str::to_owned).into();
        let ask = Ask { method: "PUT".into(), path, content_types: types, ..Ask::default() };
        assert_eq!(node.parts.answers().answer(&ask).await.status, 415);
    }
}

#[tokio::test(start_paused = true)]
async fn paths_and_methods_are_answered_as_documented() {
    let cluster = Cluster::new();
    let nodes = nodes(&cluster, 1).await;
    for (method, path, status) in [
        ("GET", "/", 405),
        ("GET", "/fleet/v1", 405),
        ("GET", "/fleet/v1/", 405),
        ("GET", "/v1-alpha/units", 200),
        ("POST", "/fleet/v1/units", 405),
        ("POST", "/fleet/v1/units/a.service", 405),
        ("GET", "/fleet/v1/units/a/b", 404),
        ("DELETE", "/fleet/v1/state", 405),
        ("GET", "/fleet/v1/state/a.service", 404),
        ("PUT", "/fleet/v1/machines", 405),
        ("GET", "/fleet/v1/machines/m1", 404),
        ("GET", "/fleet/v2/units", 404),
        ("GET", "/fleet/v1/units?nextPageToken=x", 400),
        ("GET", "/fleet/v1/units?nextPageToken=ZAABAA==&nextPageToken=ZAABAA==", 400),
        ("GET", "/fleet/v1/placement/a.service", 404),
    ] {
        assert_eq!(nodes[0].ask(method, path, "").await.status, status, "{method} {path}");
    }
}

#[tokio::test(start_paused = true)]
async fn lists_come_in_pages_and_end_where_they_end() {
    let cluster = Cluster::new();
    let node = cluster.node_with("m1", &[("FLEET_TOKEN_LIMIT", "4")]);
    cluster.wait("live", || node.live()).await;
    for at in 0..8 {
        assert_eq!(node.put(&format!("u{at}.service"), Some("[A]\nb=c\n"), None).await, 201);
    }
    let first: UnitPage = node.get("/fleet/v1/units").await;
    let token = first.next_page_token.unwrap();
    let second: UnitPage = node.get(&format!("/fleet/v1/units?nextPageToken={token}")).await;
    assert_eq!((first.units.len(), second.units.len()), (4, 4));
    assert_eq!(second.units[3].name, "u7.service");
    assert_eq!(second.next_page_token, None, "no token that leads to an empty page");
}

#[tokio::test(start_paused = true)]
async fn the_registry_is_written_as_fleet_writes_it() {
    let cluster = Cluster::new();
    let nodes = nodes(&cluster, 1).await;
    let text = "[Service]\nExecStart=/bin/sleep 100\n";
    nodes[0].start("web.service", text).await;
    cluster.wait("web", || nodes[0].running() == ["web.service"]).await;
    let launched = |nodes: &[Node]| {
        nodes[0].parts.answers().view().read(|seen| {
            let state = seen.state("web.service", "m1");
            let job = seen.job("web.service").unwrap();
            job.heartbeat.is_some() && state.is_some_and(|state| state.sub_state == "running")
        })
    };
    cluster.wait("it is published", || launched(&nodes)).await;
    let registry = cluster.registry().await;
    let hash = "1c6fb6f3684bafb0c173d8b8b957ceff031180c1";
    assert_eq!(
        registry[&format!("unit/{hash}")],
        r#"{"Raw":"[Service]\nExecStart=/bin/sleep 100\n"}"#
    );
    assert!(
        registry["job/web.service/object"]
            .starts_with(r#"{"Name":"web.service","UnitHash":[28,111,"#)
    );
    assert_eq!(registry["job/web.service/target"], "m1");
    assert_eq!(registry["job/web.service/target-state"], "launched");
    assert_eq!(registry["job/web.service/job-state"], "m1");
    assert_eq!(registry["lease/engine-leader"], r#"{"MachineID":"m1","Version":1}"#);
    assert_eq!(registry["engine/version"], "1");
    assert_eq!(registry["states/web.service/m1"], registry["state/web.service"]);
    assert!(registry["states/web.service/m1"].contains(hash));
    assert!(
        registry["machines/m1/object"]
            .contains(r#""PublicIP":"10.0.0.1","Metadata":{"role":"store"}"#)
    );
}

#[tokio::test(start_paused = true)]
async fn the_server_says_who_it_is_and_answers_503_without_a_store() {
    let cluster = Cluster::new();
    let node = cluster.node("m1");
    cluster.wait("live", || node.live()).await;
    let net: Arc<dyn Net> = Arc::new(MemoryNet::default());
    let address = Address::Tcp(([127, 0, 0, 1], 0).into());
    let incoming = net.bind(&address).await.unwrap();
    let slot = watch::Sender::new(Some(node.parts.answers().clone()));
    let router = server::router(slot.subscribe());
    let url: Url = format!("http://{}", incoming.local()).parse().unwrap();
    listen::serve(incoming, router, &node.tasks);
    let client = HttpClient::new(net);
    let ask =
        || async { client.call(&url.origin, Request::get("/fleet/v1/machines")).await.unwrap() };
    let answer = ask().await;
    assert_eq!(answer.status.as_u16(), 200);
    assert_eq!(answer.headers["server"], "fleetd/1.0.0");
    assert_eq!(answer.headers["content-type"], "application/json");
    let page: MachinePage = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(page.machines[0].primary_ip, "10.0.0.1");
    cluster.keys.set_reachable(false);
    cluster.wait("it is noticed", || !node.live()).await;
    let answer = ask().await;
    assert_eq!(answer.status.as_u16(), 503);
    let said = String::from_utf8(answer.body.to_vec()).unwrap();
    assert!(said.contains("fleet server unable to communicate with etcd"), "{said}");
}
