//! fleetd and its store: what is said when one is missing or taken, and that no unit pays for it.
//!
//! [`Daemon`] is all of fleetd in this process, with a service manager in memory; [`Fleetd`] is the
//! program, in folders of its own, where no service manager answers.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use corebox::agents::fleet::config::{self, Config};
use corebox::agents::fleet::run::{self, World};
use corebox::foundation::tasks::Tasks;
use corebox::platform::net::{Address, Net as _, TokioNet};
use corebox::platform::systemd::MemorySystemd;
use corebox::rpc::client::http::HttpClient;
use corebox::rpc::client::keys_http::KeysClient;
use testbed::apart::Apart;
use testbed::etcd::{Member, START, Site};
use testbed::process::{Lifetime, Outcome, Program, Running};
use testbed::wait;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

const ID: &str = "0123456789abcdef0123456789abcdef";
const OTHER_ID: &str = "fedcba9876543210fedcba9876543210";
const UNIT: &str = "steady.service";
const UNIT_TEXT: &str = "[Service]\nExecStart=/bin/sleep infinity\n";
/// What a daemon that is asked to end may take.
const END: Duration = Duration::from_secs(5);
/// What fleetctl may take.
const ANSWER: Duration = Duration::from_secs(20);

/// The settings of a machine: its address, its store.
fn settings(address: &str, store: &Member) -> [(&'static str, String); 3] {
    [
        ("FLEET_PUBLIC_IP", address.to_owned()),
        ("FLEET_ETCD_SERVERS", format!("http://{}", store.client)),
        ("FLEET_AGENT_TTL", "10s".to_owned()),
    ]
}

/// The machine as its service manager sees it: it outlives the daemon.
struct Machine {
    systemd: MemorySystemd,
    units: PathBuf,
    api: SocketAddrV4,
}

impl Machine {
    fn new(site: &Site) -> Self {
        let systemd = MemorySystemd::below(&Tasks::default(), &site.dir.join("machine"));
        Self { systemd, units: site.dir.join("units"), api: site.ports(1).unwrap()[0] }
    }

    fn fleetctl(&self, words: &str) -> Outcome {
        let program = Program::new(testbed::binary()).arg("fleetctl");
        let endpoint = format!("--endpoint=http://{}", self.api);
        program.arg(endpoint).args(words.split(' ')).finish(ANSWER).unwrap()
    }

    /// Starts the unit, and waits until it runs.
    fn start_unit(&self, site: &Site) {
        let path = site.dir.join(UNIT);
        std::fs::write(&path, UNIT_TEXT).unwrap();
        wait::until("the unit to run", START, || {
            let ended = self.fleetctl(&format!("start {}", path.display()));
            if ended.status.success() { Ok(()) } else { Err(ended.stderr) }
        })
        .unwrap();
        self.nothing_but_one_start();
    }

    /// Checks that all that ever happened to the unit is that it was started, once.
    fn nothing_but_one_start(&self) {
        let about = |call: &String| call.contains(UNIT) && !call.starts_with("link");
        let calls: Vec<_> = self.systemd.log().into_iter().filter(about).collect();
        assert_eq!(calls, [format!("start {UNIT}")]);
    }
}

/// All of fleetd, as long as this is there; then it is gone as if it were killed.
struct Daemon {
    _runtime: Runtime,
}

impl Daemon {
    fn start(machine: &Machine, address: &str, store: &Member) -> Self {
        let mut environment: BTreeMap<String, String> = settings(address, store)
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        let units = machine.units.display().to_string();
        environment.insert("FLEET_UNITS_DIRECTORY".to_owned(), units);
        let (config, _) = config::read(None, &environment).unwrap();
        let keys = |config: &Config| {
            let endpoints = config.etcd_servers.iter().map(|server| server.parse().unwrap());
            let http = HttpClient::new(Arc::new(TokioNet::default()));
            let client = KeysClient::new(http, endpoints.collect());
            Arc::new(client.with_deadline(config.request_timeout)) as Arc<_>
        };
        let world = World {
            keys: Box::new(keys),
            systemd: Arc::new(machine.systemd.clone()),
            machine_id: ID.to_owned(),
            address: address.to_owned(),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let api = Address::Tcp(machine.api.into());
        let incoming = runtime.block_on(TokioNet::default().bind(&api)).unwrap();
        let (orders, taken) = mpsc::channel(1);
        // Its end would be the order to stop: it is kept.
        let work = async move {
            let _orders = orders;
            run::run(config, world, vec![incoming], taken, Tasks::default()).await;
        };
        runtime.block_on(async { Tasks::default().spawn("fleetd", |_stop| work) });
        Self { _runtime: runtime }
    }
}

/// The program, in folders of its own.
struct Fleetd {
    apart: Apart,
    log: PathBuf,
    running: Option<Running>,
}

impl Fleetd {
    fn new(site: &Site, id: &str) -> Self {
        let apart = Apart::new(&site.dir.join("apart")).unwrap();
        apart.write("etc/machine-id", format!("{id}\n")).unwrap();
        Self { apart, log: site.dir.join("fleetd.log"), running: None }
    }

    fn start(&mut self, address: &str, store: &Member) {
        let program = settings(address, store)
            .into_iter()
            .fold(self.apart.applet("fleetd"), |program, (name, value)| program.env(name, value));
        self.running = Some(program.start(Lifetime::Owned, &self.log).unwrap());
    }

    fn running(&mut self) -> &mut Running {
        self.running.as_mut().unwrap()
    }

    /// Waits for a line of its log that has all of these parts.
    fn says(&mut self, parts: &[&str]) {
        let log = self.log.clone();
        let running = self.running();
        wait::until("a sentence in fleetd's log", START, || {
            running.check().map_err(|error| error.to_string())?;
            let said = std::fs::read_to_string(&log).map_err(|error| error.to_string())?;
            let all = |line: &str| parts.iter().all(|part| line.contains(part));
            if said.lines().any(all) { Ok(()) } else { Err(said) }
        })
        .unwrap();
    }

    fn fleetctl(&mut self, words: &str) -> Outcome {
        let id = self.running().id();
        Apart::applet_beside(id, "fleetctl").args(words.split(' ')).finish(ANSWER).unwrap()
    }

    /// Waits until it shows these machines, by their addresses.
    fn shows(&mut self, addresses: &[&str]) {
        wait::until("fleetctl to show the machines", START, || {
            let ended = self.fleetctl("list-machines --no-legend --fields=ip");
            let seen: Vec<_> = ended.stdout.lines().map(str::trim).collect();
            if ended.status.success() && seen == addresses {
                Ok(())
            } else {
                Err(format!("{seen:?} {}", ended.stderr))
            }
        })
        .unwrap();
    }

    /// Asks it to end, and checks that it does so in time and well.
    fn ends_well(&mut self) {
        let running = self.running();
        running.terminate().unwrap();
        assert_eq!(running.wait(END).unwrap().code(), Some(0));
    }
}

/// What the store says of the machine with this id.
fn registered(store: &Member, id: &str) -> Option<String> {
    let path = format!("/v2/keys/_coreos.com/fleet/machines/{id}/object");
    let answer = store.get(&path).unwrap();
    if answer.status == 404 {
        return None;
    }
    let node = answer.json().unwrap();
    Some(node["node"]["value"].as_str().unwrap().to_owned())
}

#[test]
fn a_second_machine_with_one_id_is_told_so_does_nothing_and_joins_with_another() {
    let site = super::site("same-id");
    let store = super::alone(&site);
    let machine = Machine::new(&site);
    let _first = Daemon::start(&machine, "10.0.0.1", &store);
    machine.start_unit(&site);
    let before = registered(&store, ID).unwrap();

    let mut second = Fleetd::new(&site, ID);
    second.start("10.0.0.2", &store);
    second.says(&["a machine with the id", ID, "`10.0.0.1`", "its own /etc/machine-id"]);
    let refused = second.fleetctl("list-machines");
    assert_eq!(refused.status.code(), Some(1), "{}", refused.stdout);
    assert!(refused.stderr.contains("503"), "{}", refused.stderr);
    second.ends_well();
    assert_eq!(registered(&store, ID).unwrap(), before);
    machine.nothing_but_one_start();

    second.apart.write("etc/machine-id", format!("{OTHER_ID}\n")).unwrap();
    second.start("10.0.0.2", &store);
    second.shows(&["10.0.0.1", "10.0.0.2"]);
    second.ends_well();
    assert_eq!(registered(&store, OTHER_ID), None, "it has left the cluster");
    machine.nothing_but_one_start();
}

#[test]
fn fleetd_without_a_store_names_it_and_works_once_it_is_there() {
    let site = super::site("no-store");
    let mut store = site.cluster(&["one"]).unwrap().pop().unwrap();
    let mut fleetd = Fleetd::new(&site, ID);
    fleetd.start("10.0.0.1", &store);
    let endpoint = format!("http://{}", store.client);
    fleetd.says(&["no store answers at", &endpoint, "start one there", "`etcd_servers`"]);
    store.start_healthy().unwrap();
    fleetd.shows(&["10.0.0.1"]);
    fleetd.ends_well();
    assert_eq!(registered(&store, ID), None, "it has left the cluster");
}

#[test]
fn units_keep_running_while_a_daemon_starts_without_its_store_and_when_that_returns() {
    let site = super::site("store-returns");
    let mut store = super::alone(&site);
    let machine = Machine::new(&site);
    let daemon = Daemon::start(&machine, "10.0.0.1", &store);
    machine.start_unit(&site);
    drop(daemon);
    store.kill();
    let _daemon = Daemon::start(&machine, "10.0.0.1", &store);
    let refused = machine.fleetctl("list-units");
    assert_eq!(refused.status.code(), Some(1), "{}", refused.stdout);
    machine.nothing_but_one_start();

    store.start_healthy().unwrap();
    wait::until("the unit to be seen again", START, || {
        let ended = machine.fleetctl("list-units --no-legend --fields=unit,active");
        let seen = ended.stdout.split_whitespace().collect::<Vec<_>>();
        if seen == [UNIT, "active"] { Ok(()) } else { Err(format!("{seen:?} {}", ended.stderr)) }
    })
    .unwrap();
    machine.nothing_but_one_start();
    assert!(Path::new(&machine.units).join(UNIT).exists());
}
