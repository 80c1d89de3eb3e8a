//! A small fleet in memory that does what it is told, some time later.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::Request;
use http::StatusCode;
use serde::Serialize;
use tokio::time::Instant;

use crate::cli::fleetctl::columns::{file, is_global};
use crate::foundation::limits::REQUEST_BYTES_MAX;
use crate::foundation::tasks::Tasks;
use crate::platform::net::{Address, MemoryNet, Net as _};
use crate::rpc::server::listen::serve;
use crate::wire::fleet::JobState;
use crate::wire::fleet::api::{
    ApiError, ErrorBody, Machine, MachinePage, MachineVerdict, PageToken, Placement, StatePage,
    Unit, UnitPage, UnitState,
};

/// Items a page: few, so that every list has several.
const PAGE_ITEMS: u16 = 2;
/// How long the cluster takes to do what it was told.
pub(super) const LAG: Duration = Duration::from_secs(1);

/// The fake's machines.
pub(super) const MACHINES: [&str; 3] = ["aaaaaaaa11", "bbbbbbbb22", "cccccccc33"];

/// A fleet behind its socket.
#[derive(Debug, Clone)]
pub(super) struct Fleet {
    pub(super) net: MemoryNet,
    state: Arc<Mutex<State>>,
    _tasks: Tasks,
}

#[derive(Debug, Default)]
struct State {
    units: BTreeMap<String, Kept>,
    /// Units that no machine can run.
    misfits: BTreeSet<String>,
    /// Units that fail as soon as they start.
    failing: BTreeSet<String>,
    writes: Vec<String>,
}

#[derive(Debug)]
struct Kept {
    unit: Unit,
    /// What it was when it was told to be something else.
    before: JobState,
    told: Instant,
    doomed: bool,
}

type Reply = (StatusCode, String);

impl Fleet {
    /// Starts at the default socket.
    pub(super) async fn start() -> Self {
        let (net, tasks) = (MemoryNet::default(), Tasks::default());
        let socket = Address::Unix("/var/run/fleet.sock".into());
        let incoming = net.bind(&socket).await.unwrap();
        let state: Arc<Mutex<State>> = Arc::default();
        let here = state.clone();
        let router = Router::new().fallback(move |request: Request| {
            let here = here.clone();
            async move { answer(&here, request).await }
        });
        serve(incoming, router, &tasks);
        Self { net, state, _tasks: tasks }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Lets no machine be able to run a unit.
    pub(super) fn no_place_for(&self, name: &str) {
        self.state().misfits.insert(name.to_owned());
    }

    /// Lets a unit fail when it starts.
    pub(super) fn let_fail(&self, name: &str) {
        self.state().failing.insert(name.to_owned());
    }

    /// Stores a unit that is already what it shall be.
    pub(super) fn keep(&self, name: &str, text: &str, desired: JobState) {
        let options = crate::wire::fleet::UnitFile::parse(text).unwrap().options().to_vec();
        let unit =
            Unit { name: name.into(), options, desired_state: Some(desired), ..Unit::default() };
        let kept = Kept { unit, before: desired, told: Instant::now(), doomed: false };
        self.state().units.insert(name.to_owned(), kept);
    }

    /// Returns what a unit shall be, if it is stored.
    pub(super) fn desired(&self, name: &str) -> Option<JobState> {
        self.state().units.get(name).and_then(|kept| kept.unit.desired_state)
    }

    /// Returns the canonical text of a unit.
    pub(super) fn text(&self, name: &str) -> String {
        file(&self.state().units[name].unit).canonical()
    }

    /// Returns every request that changed something.
    pub(super) fn writes(&self) -> Vec<String> {
        self.state().writes.clone()
    }
}

impl State {
    fn settle(&mut self) {
        self.units.retain(|_, kept| !kept.doomed || kept.told.elapsed() < LAG);
    }

    fn shown(&self, kept: &Kept) -> Unit {
        let mut unit = kept.unit.clone();
        if is_global(&unit) {
            return unit;
        }
        let desired = unit.desired_state.unwrap_or_default();
        let done = kept.told.elapsed() >= LAG && !self.misfits.contains(&unit.name);
        let current = if done { desired } else { kept.before };
        unit.current_state = Some(current);
        if current != JobState::Inactive {
            MACHINES[0].clone_into(&mut unit.machine_id);
        }
        unit
    }

    fn states(&self, of: Option<&str>) -> Vec<UnitState> {
        let units = self.units.values().map(|kept| self.shown(kept));
        let on_machines = units.filter(|unit| !unit.machine_id.is_empty());
        let asked = on_machines.filter(|unit| of.is_none_or(|name| unit.name == name));
        asked.map(|unit| self.state_of(&unit)).collect()
    }

    fn state_of(&self, unit: &Unit) -> UnitState {
        let (active, sub) = match unit.current_state {
            Some(JobState::Launched) if self.failing.contains(&unit.name) => ("failed", "failed"),
            Some(JobState::Launched) => ("active", "running"),
            _ => ("inactive", "dead"),
        };
        UnitState {
            name: unit.name.clone(),
            hash: file(unit).hash().to_string(),
            machine_id: unit.machine_id.clone(),
            systemd_load_state: "loaded".into(),
            systemd_active_state: active.into(),
            systemd_sub_state: sub.into(),
        }
    }

    fn put(&mut self, name: &str, body: &[u8]) -> Reply {
        let given: Unit = serde_json::from_slice(body).unwrap();
        assert_eq!(given.name, name, "the body names the unit of the path");
        let desired = given.desired_state.expect("fleetctl always says it");
        self.writes.push(format!("PUT {name} {desired} {}", given.options.len()));
        let before = self.units.get(name).map(|kept| self.shown(kept));
        let Some(options) = Some(given.options)
            .filter(|options| !options.is_empty())
            .or_else(|| before.as_ref().map(|unit| unit.options.clone()))
        else {
            return error(409, "unit does not exist and options field empty");
        };
        let unit =
            Unit { name: name.into(), options, desired_state: Some(desired), ..Unit::default() };
        let before = before.and_then(|unit| unit.current_state).unwrap_or_default();
        let kept = Kept { unit, before, told: Instant::now(), doomed: false };
        self.units.insert(name.to_owned(), kept);
        (StatusCode::NO_CONTENT, String::new())
    }

    fn delete(&mut self, name: &str) -> Reply {
        self.writes.push(format!("DELETE {name}"));
        let Some(kept) = self.units.get_mut(name) else { return missing() };
        kept.doomed = true;
        kept.told = Instant::now();
        (StatusCode::NO_CONTENT, String::new())
    }

    fn get(&self, path: &[&str], query: &BTreeMap<String, String>) -> Reply {
        match path {
            ["units"] => {
                let units = self.units.values().map(|kept| self.shown(kept)).collect();
                let (units, next_page_token) = cut(units, query);
                json(&UnitPage { units, next_page_token })
            }
            ["units", name] => {
                self.units.get(*name).map_or_else(missing, |kept| json(&self.shown(kept)))
            }
            ["state"] => {
                let states = self.states(query.get("unitName").map(String::as_str));
                let (states, next_page_token) = cut(states, query);
                json(&StatePage { states, next_page_token })
            }
            ["machines"] => {
                let (machines, next_page_token) = cut(machines(), query);
                json(&MachinePage { machines, next_page_token })
            }
            ["placement", name] => {
                let verdict = |machine: Machine| MachineVerdict {
                    machine_id: machine.id,
                    primary_ip: machine.primary_ip,
                    ok: false,
                    reason: "its metadata has no `disk`".into(),
                };
                let machines = machines().into_iter().map(verdict).collect();
                json(&Placement { unit: (*name).to_owned(), machines })
            }
            _ => missing(),
        }
    }
}

fn machines() -> Vec<Machine> {
    let machine = |(number, id): (usize, &str)| Machine {
        id: id.into(),
        primary_ip: format!("10.0.0.{}", number + 1),
        metadata: [("rack".to_owned(), number.to_string())].into(),
    };
    MACHINES.into_iter().enumerate().map(machine).collect()
}

async fn answer(state: &Mutex<State>, request: Request) -> Reply {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, REQUEST_BYTES_MAX).await.unwrap();
    let query = form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes());
    let query = query.into_owned().collect();
    let path = head.uri.path().strip_prefix("/fleet/v1/").unwrap();
    let path: Vec<&str> = path.split('/').collect();
    let mut state = state.lock().unwrap();
    state.settle();
    match (head.method.as_str(), &path[..]) {
        ("GET", path) => state.get(path, &query),
        ("PUT", ["units", name]) => state.put(name, &body),
        ("DELETE", ["units", name]) => state.delete(name),
        _ => error(405, "no such method"),
    }
}

fn cut<T>(items: Vec<T>, query: &BTreeMap<String, String>) -> (Vec<T>, Option<String>) {
    let page = query.get("nextPageToken").map_or(0, |it| PageToken::decode(it).unwrap().page);
    let before = usize::from(page) * usize::from(PAGE_ITEMS);
    let more = items.len() > before + usize::from(PAGE_ITEMS);
    let cut = items.into_iter().skip(before).take(PAGE_ITEMS.into()).collect();
    (cut, more.then(|| PageToken { limit: PAGE_ITEMS, page: page + 1 }.encode()))
}

fn json(value: &impl Serialize) -> Reply {
    (StatusCode::OK, serde_json::to_string(value).unwrap())
}

fn missing() -> Reply {
    error(404, "unit does not exist")
}

fn error(code: u16, message: &str) -> Reply {
    let body = ErrorBody { error: ApiError { code, message: message.into() } };
    (StatusCode::from_u16(code).unwrap(), serde_json::to_string(&body).unwrap())
}
