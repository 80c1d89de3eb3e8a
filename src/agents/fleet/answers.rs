//! What the HTTP API answers: from a request's parts to a status and a body.
//!
//! Lists come from the view, so that every page is one look; writes go to the registry and show
//! in the view at once.
//!
//! **Not here:** connections, headers of answers, and what is said while the store is away;
//! `server` does that. `/discovery` is not served.

use std::sync::Arc;

use serde::Serialize;

use crate::agents::fleet::cluster::{Cluster, Job, Unit};
use crate::agents::fleet::registry::Store;
use crate::agents::fleet::schedule;
use crate::agents::fleet::view::View;
use crate::foundation::exit::chain;
use crate::foundation::limits::UNIT_FILE_BYTES_MAX;
use crate::rpc::client::keys::KeysFailure;
use crate::wire::fleet::api::{
    self, ApiError, ErrorBody, MachinePage, MachineVerdict, MetadataPatch, NO_STORE, PageToken,
    Placement, StatePage, UnitPage,
};
use crate::wire::fleet::registry::{JobState, MachineObject, StateObject};
use crate::wire::fleet::{Requirements, UnitFile, UnitName};

/// A request, as far as it matters here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ask {
    /// `GET`, `PUT`, …
    pub method: String,
    /// The path, decoded part by part.
    pub path: Vec<String>,
    /// The query's parameters, decoded.
    pub query: Vec<(String, String)>,
    /// Every `Content-Type` header.
    pub content_types: Vec<String>,
    /// The body.
    pub body: Vec<u8>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// A JSON text, if there is a body.
    pub body: Option<String>,
}

impl Reply {
    fn empty(status: u16) -> Self {
        Self { status, body: None }
    }

    fn json(value: &impl Serialize) -> Self {
        match serde_json::to_string(value) {
            Ok(body) => Self { status: 200, body: Some(body) },
            Err(error) => Self::error(500, &chain(&error)),
        }
    }

    /// Makes an error's answer.
    pub fn error(code: u16, message: &str) -> Self {
        let body = ErrorBody { error: ApiError { code, message: message.to_owned() } };
        Self { status: code, body: serde_json::to_string(&body).ok() }
    }
}

/// A refusal on the way to an answer.
type Answered = Result<Reply, Reply>;

/// Answers requests.
#[derive(Debug, Clone)]
pub struct Answers {
    view: Arc<View>,
    store: Store,
    page_items: u16,
}

impl Answers {
    /// Makes answers with pages of `page_items`.
    pub fn new(view: Arc<View>, store: Store, page_items: u16) -> Self {
        Self { view, store, page_items }
    }

    /// Returns the view that the answers come from.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Answers one request.
    pub async fn answer(&self, ask: &Ask) -> Reply {
        let path: Vec<&str> = ask.path.iter().map(String::as_str).collect();
        let rest = match path[..] {
            ["fleet", "v1", ref rest @ ..] | ["v1-alpha", ref rest @ ..] => rest,
            [] | [""] => return Reply::error(405, "only resources below /fleet/v1 are served"),
            _ => return Reply::error(404, "there is nothing at this path"),
        };
        let answered = match (rest, ask.method.as_str()) {
            ([] | [""], _) => Err(not_allowed()),
            (["units"], "GET") => self.units(ask),
            (["units", name], "GET") => self.unit(name),
            (["units", name], "PUT") => self.put_unit(name, ask).await,
            (["units", name], "DELETE") => self.destroy(name).await,
            (["state"], "GET") => self.states(ask),
            (["state", unit], "GET") => self.state(unit),
            (["machines"], "GET") => self.machines(ask),
            (["machines"], "PATCH") => self.patch_machines(ask).await,
            (["placement", name], "GET") => self.placement(name),
            (["units" | "state" | "machines"] | ["units" | "state" | "placement", _], _) => {
                Err(not_allowed())
            }
            _ => Err(Reply::error(404, "there is nothing at this path")),
        };
        answered.unwrap_or_else(|refusal| refusal)
    }

    fn units(&self, ask: &Ask) -> Answered {
        let page = self.page(ask)?;
        Ok(self.view.read(|cluster| {
            let all = cluster.jobs().map(|(name, job)| unit_entity(cluster, name, job));
            let (units, next_page_token) = self.cut(page, all);
            Reply::json(&UnitPage { units, next_page_token })
        }))
    }

    fn unit(&self, name: &str) -> Answered {
        self.view.read(|cluster| match cluster.job(name) {
            Some(job) => Ok(Reply::json(&unit_entity(cluster, name, job))),
            None => Err(no_unit()),
        })
    }

    async fn destroy(&self, name: &str) -> Answered {
        match self.store.destroy(name).await {
            Ok(true) => Ok(Reply::empty(204)),
            Ok(false) => Err(no_unit()),
            Err(failure) => Err(store_failed(&failure)),
        }
    }

    fn states(&self, ask: &Ask) -> Answered {
        let page = self.page(ask)?;
        let (machine, unit) = (ask.parameter("machineID"), ask.parameter("unitName"));
        let asked_for = |state: &api::UnitState| {
            machine.is_none_or(|id| state.machine_id == id)
                && unit.is_none_or(|name| state.name == name)
        };
        Ok(self.view.read(|cluster| {
            let units = cluster.units_with_states();
            let all = units.iter().flat_map(|name| {
                cluster.states_of(name).into_values().map(|state| state_entity(name, state))
            });
            let (states, next_page_token) = self.cut(page, all.filter(asked_for));
            Reply::json(&StatePage { states, next_page_token })
        }))
    }

    fn state(&self, unit: &str) -> Answered {
        self.view.read(|cluster| match cluster.states_of(unit).into_values().next() {
            Some(state) => Ok(Reply::json(&state_entity(unit, state))),
            None => Err(Reply::error(404, "unit state does not exist")),
        })
    }

    fn machines(&self, ask: &Ask) -> Answered {
        let page = self.page(ask)?;
        Ok(self.view.read(|cluster| {
            let (machines, next_page_token) =
                self.cut(page, cluster.machines().values().map(machine_entity));
            Reply::json(&MachinePage { machines, next_page_token })
        }))
    }

    async fn patch_machines(&self, ask: &Ask) -> Answered {
        let patches: Vec<MetadataPatch> = serde_json::from_slice(&ask.body)
            .map_err(|error| bad(&format!("the body is no list of patches: {error}")))?;
        let changes: Vec<_> = patches
            .iter()
            .map(MetadataPatch::check)
            .collect::<Result<_, _>>()
            .map_err(|error| bad(&error.to_string()))?;
        for change in &changes {
            self.store.set_metadata(change).await.map_err(|failure| store_failed(&failure))?;
        }
        Ok(Reply::empty(204))
    }

    fn placement(&self, name: &str) -> Answered {
        let name = UnitName::parse(name).map_err(|error| bad(&error.to_string()))?;
        self.view.read(|cluster| {
            let job = cluster.job(name.as_str()).ok_or_else(no_unit)?;
            let Some(unit) = &job.unit else {
                return Err(Reply::error(404, "the unit's text is not in the registry"));
            };
            Ok(Reply::json(&placement_entity(cluster, unit, job)))
        })
    }

    async fn put_unit(&self, name: &str, ask: &Ask) -> Answered {
        let given = decode_unit(name, ask)?;
        let name = UnitName::parse(name).map_err(|error| bad(&error.to_string()))?;
        let known = self.view.read(|cluster| cluster.job(name.as_str()).cloned());
        if known.is_none() && given.options.is_empty() {
            return Err(Reply::error(409, "unit does not exist and options field empty"));
        }
        let activates = given.desired_state.is_some_and(|state| state != JobState::Inactive);
        if name.is_template() && activates {
            return Err(bad(&format!(
                "cannot activate template `{name}`; start an instance of it"
            )));
        }
        let file =
            if given.options.is_empty() { None } else { Some(checked(&name, given.options)?) };
        let hash = known.as_ref().and_then(|job| job.hash);
        match (file.filter(|file| hash != Some(file.hash())), given.desired_state) {
            (Some(file), desired) => {
                let desired = match (desired, known) {
                    (None, Some(job)) => job.target_state,
                    (desired, _) => desired.unwrap_or_default(),
                };
                self.store.save_unit(&name, &file).await.map_err(|it| store_failed(&it))?;
                self.aim(&name, desired).await?;
                Ok(Reply::empty(201))
            }
            (None, None) => {
                Err(Reply::error(409, "must provide DesiredState to update existing unit"))
            }
            (None, Some(desired)) => {
                self.aim(&name, desired).await?;
                Ok(Reply::empty(204))
            }
        }
    }

    async fn aim(&self, name: &UnitName, desired: JobState) -> Result<(), Reply> {
        let written = self.store.set_target_state(name.as_str(), desired).await;
        written.map_err(|failure| store_failed(&failure))
    }

    /// Returns which page is asked for.
    fn page(&self, ask: &Ask) -> Result<u16, Reply> {
        let tokens: Vec<&str> = ask.parameters("nextPageToken").collect();
        match tokens[..] {
            [] => Ok(0),
            [token] => PageToken::accept(token, self.page_items)
                .map(|token| token.page)
                .map_err(|error| bad(&error.to_string())),
            _ => Err(bad("too many values for nextPageToken; give one")),
        }
    }

    /// Cuts a page out of a list; the token of the next one if there is more.
    fn cut<T>(&self, page: u16, all: impl Iterator<Item = T>) -> (Vec<T>, Option<String>) {
        let items = usize::from(self.page_items);
        let mut rest = all.skip(usize::from(page) * items);
        let cut: Vec<T> = rest.by_ref().take(items).collect();
        let more = rest.next().is_some();
        let next = page.checked_add(1).filter(|_| more);
        (cut, next.map(|page| PageToken { limit: self.page_items, page }.encode()))
    }
}

impl Ask {
    fn parameters<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.query.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Returns a parameter that is there and not empty.
    fn parameter<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.parameters(name).find(|value| !value.is_empty())
    }
}

fn bad(message: &str) -> Reply {
    Reply::error(400, message)
}

fn no_unit() -> Reply {
    Reply::error(404, "unit does not exist")
}

fn not_allowed() -> Reply {
    Reply::error(405, "this method is not supported here")
}

fn store_failed(failure: &KeysFailure) -> Reply {
    match failure {
        KeysFailure::Unreachable { .. } => Reply::error(503, NO_STORE),
        KeysFailure::Refused(_) | KeysFailure::Unknown { .. } => {
            Reply::error(500, &format!("the registry could not be written: {}", chain(failure)))
        }
    }
}

/// Reads the body of a PUT.
fn decode_unit(name: &str, ask: &Ask) -> Result<api::Unit, Reply> {
    let [content_type] = &ask.content_types[..] else {
        return Err(Reply::error(415, "give exactly one Content-Type, `application/json`"));
    };
    let media = content_type.split(';').next().unwrap_or_default().trim();
    if !media.eq_ignore_ascii_case("application/json") {
        return Err(Reply::error(415, "Content-Type must be `application/json`"));
    }
    let given: api::Unit = serde_json::from_slice(&ask.body)
        .map_err(|error| bad(&format!("unable to decode body: {error}")))?;
    if !given.name.is_empty() && given.name != name {
        return Err(bad(&format!("the body names `{}`, the path `{name}`", given.name)));
    }
    Ok(given)
}

/// Checks a unit's options as one file and as wishes.
fn checked(
    name: &UnitName,
    options: Vec<crate::wire::fleet::UnitOption>,
) -> Result<UnitFile, Reply> {
    let file = UnitFile::from_options(options).map_err(|error| bad(&error.to_string()))?;
    if file.canonical().len() > UNIT_FILE_BYTES_MAX {
        return Err(bad(&format!("the unit file is over {UNIT_FILE_BYTES_MAX} bytes")));
    }
    Requirements::read(name, &file).check().map_err(|error| bad(&error.to_string()))?;
    Ok(file)
}

fn unit_entity(cluster: &Cluster, name: &str, job: &Job) -> api::Unit {
    let global = job.is_global();
    api::Unit {
        name: name.to_owned(),
        options: job.unit.as_ref().map(|unit| unit.file.options().to_vec()).unwrap_or_default(),
        desired_state: Some(job.target_state),
        current_state: cluster.current_state(name, job),
        machine_id: job.target.clone().filter(|_| !global).unwrap_or_default(),
    }
}

fn state_entity(name: &str, state: &StateObject) -> api::UnitState {
    api::UnitState {
        name: name.to_owned(),
        hash: state.unit_hash.clone(),
        machine_id: state.machine_state.id.clone(),
        systemd_load_state: state.load_state.clone(),
        systemd_active_state: state.active_state.clone(),
        systemd_sub_state: state.sub_state.clone(),
    }
}

fn machine_entity(machine: &MachineObject) -> api::Machine {
    api::Machine {
        id: machine.id.clone(),
        primary_ip: machine.public_ip.clone(),
        metadata: machine.metadata.clone(),
    }
}

fn placement_entity(cluster: &Cluster, unit: &Unit, job: &Job) -> Placement {
    let verdicts = schedule::placement(cluster, unit);
    let machines = verdicts.into_iter().map(|(machine, verdict)| {
        let at_home = job.target.as_deref() == Some(machine.id.as_str());
        let (ok, reason) = match verdict {
            Ok(_) if at_home => (true, "it is scheduled here".to_owned()),
            Ok(units) => (true, format!("it could run here, beside {units} units")),
            Err(reason) => (false, reason.to_string()),
        };
        let primary_ip = machine.public_ip.clone();
        MachineVerdict { machine_id: machine.id.clone(), primary_ip, ok, reason }
    });
    Placement { unit: unit.name.to_string(), machines: machines.collect() }
}
