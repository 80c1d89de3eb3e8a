//! The store's v2 API over HTTP: `/v2/keys`, members, health and version.
//!
//! Source: the specification A.2 to A.7; bodies and headers as recorded from etcd 3.4.23.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::Response;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::consensus::Member;
use crate::consensus::proposer::ProposeError;
use crate::foundation::clock::Clock;
use crate::foundation::limits::REQUEST_BYTES_MAX;
use crate::rpc::server::health;
use crate::rpc::server::params::{self, Asked, Params};
use crate::store::Command;
use crate::store::event::{Action, Code, Event, Outcome, Refusal};
use crate::store::history::Interest;
use crate::store::tree_v2::Depth;
use crate::wire::etcd::keys_v2;

/// The version of etcd whose behaviour clients can expect.
pub const SERVER_VERSION: &str = "3.5.30";
/// The version of the cluster's API.
pub const CLUSTER_VERSION: &str = "3.5.0";

const JSON: &str = "application/json";
const CORS: [(&str, &str); 3] = [
    ("access-control-allow-headers", "accept, content-type, authorization"),
    ("access-control-allow-methods", "POST, GET, OPTIONS, PUT, DELETE"),
    ("access-control-allow-origin", "*"),
];

/// What the handlers work with.
#[derive(Debug, Clone)]
pub struct Service {
    /// The member that serves.
    pub member: Member,
    /// For the time that is left of keys.
    pub clock: Arc<dyn Clock>,
    /// How long a write or a quorum read may take: etcd's 5 s and two election timeouts.
    pub deadline: Duration,
    /// Ends watches when the server stops.
    pub stop: CancellationToken,
}

/// Returns the router for clients.
pub fn router(service: Service) -> Router {
    Router::new().fallback(handle).with_state(service)
}

async fn handle(State(service): State<Service>, request: Request<Body>) -> Response {
    let path = request.uri().path();
    let mut response = match path {
        "/v2/machines" => service.machines(),
        "/version" => json_answer(StatusCode::OK, &version()),
        path if health::serves(path) => {
            let (method, query) = (request.method(), request.uri().query());
            health::answer(&service.member, path, method, query).await
        }
        _ => match (path.strip_prefix("/v2/keys"), path.strip_prefix("/v2/members")) {
            (Some(key), _) if key.is_empty() || key.starts_with('/') => {
                let key = params::key_path(key);
                service.keys(&key, request).await
            }
            (_, Some(rest)) if rest.is_empty() || rest.starts_with('/') => {
                let rest = rest.to_owned();
                service.members(&rest, request.method())
            }
            _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
        },
    };
    let headers = response.headers_mut();
    for (name, value) in CORS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Returns what `/version` answers.
pub fn version() -> String {
    format!(r#"{{"etcdserver":"{SERVER_VERSION}","etcdcluster":"{CLUSTER_VERSION}"}}"#)
}

fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static(content_type);
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

/// Makes an answer of JSON.
pub fn json_answer(status: StatusCode, body: &str) -> Response {
    answer(status, JSON, body.to_owned())
}

/// Makes an answer of plain text.
pub fn text(status: StatusCode, body: &str) -> Response {
    answer(status, "text/plain; charset=utf-8", body.to_owned())
}

fn message(status: StatusCode, text: &str) -> Response {
    json_answer(status, &json!({ "message": text }).to_string())
}

fn to_json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("plain data always encodes")
}

impl Service {
    async fn keys(&self, key: &str, request: Request<Body>) -> Response {
        let method = match *request.method() {
            Method::GET | Method::HEAD => params::Method::Get,
            Method::PUT => params::Method::Put,
            Method::POST => params::Method::Post,
            Method::DELETE => params::Method::Delete,
            _ => {
                let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
                let allowed = HeaderValue::from_static("HEAD,GET,PUT,POST,DELETE");
                refused.headers_mut().insert(header::ALLOW, allowed);
                return refused;
            }
        };
        let head = request.method() == Method::HEAD;
        match self.read_request(method, key, request).await {
            // etcd does not promote a HEAD to a quorum read.
            Ok(Asked::Get { quorum: true, .. }) if !head && !self.confirmed().await => {
                self.timed_out("request timed out")
            }
            Ok(Asked::Get { recursive, .. }) => self.get(key, recursive),
            Ok(Asked::Wait { recursive, since, stream }) => {
                let interest = Interest { path: key.to_owned(), recursive };
                self.wait(interest, since, stream)
            }
            Ok(Asked::Write { command, no_value_on_success }) => {
                self.write(command, no_value_on_success).await
            }
            Err(refusal) => self.refuse(&refusal),
        }
    }

    async fn read_request(
        &self,
        method: params::Method,
        key: &str,
        request: Request<Body>,
    ) -> Result<Asked, Refusal> {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let form = matches!(method, params::Method::Put | params::Method::Post);
        let bytes = if form { form_body(request).await? } else { Bytes::new() };
        params::parse(method, key, &Params::parse(&bytes, &query))
    }

    /// Tells whether a local read is not stale now.
    async fn confirmed(&self) -> bool {
        self.member.barrier(self.deadline).await.is_ok()
    }

    fn get(&self, key: &str, recursive: bool) -> Response {
        let depth = if recursive { Depth::All } else { Depth::Children };
        let now = self.clock.now();
        let (found, index) =
            self.member.read(|machine| (machine.keys.get(key, depth, now), machine.keys.index()));
        match found {
            Ok(event) => self.event(StatusCode::OK, index, &(&event).into()),
            Err(refusal) => self.refuse(&refusal),
        }
    }

    async fn write(&self, command: Command, no_value_on_success: bool) -> Response {
        let outcomes = match self.member.propose(vec![command], self.deadline).await {
            Ok(outcomes) => outcomes,
            Err(ProposeError::Overloaded) => return self.timed_out("too many requests"),
            Err(error) => return self.timed_out(&error.to_string()),
        };
        match outcomes.first() {
            Some(Outcome::Event(event)) => {
                let mut shown: keys_v2::Event = (&**event).into();
                if no_value_on_success
                    && !matches!(event.action, Action::Delete | Action::CompareAndDelete)
                {
                    shown = keys_v2::Event { node: None, prev_node: None, ..shown };
                }
                self.event(status_of(event), event.index(), &shown)
            }
            Some(Outcome::Refused(refusal)) => self.refuse(refusal),
            Some(Outcome::Done | Outcome::V3(_)) | None => {
                self.timed_out("the command had no outcome")
            }
        }
    }

    fn wait(&self, interest: Interest, since: Option<u64>, stream: bool) -> Response {
        let index = self.member.read(|machine| machine.keys.index());
        let since = since.unwrap_or(index + 1);
        // What the history lost is said at once, with its own status.
        if let Err(refusal) = self.member.read(|machine| machine.keys.changed(&interest, since)) {
            return self.refuse(&refusal);
        }
        let watch = Watch { service: self.clone(), interest, next: since, stream, over: false };
        let chunks = futures_util::stream::unfold(watch, |mut watch| async move {
            let chunk = watch.next().await?;
            Some((Ok::<_, Infallible>(chunk), watch))
        });
        let mut response = answer(StatusCode::OK, JSON, Body::from_stream(chunks));
        self.position(&mut response, index);
        response
    }

    fn event(&self, status: StatusCode, index: u64, event: &keys_v2::Event) -> Response {
        let mut response = json_answer(status, &format!("{}\n", to_json(event)));
        self.position(&mut response, index);
        response
    }

    /// Adds the headers of an answer that was not refused.
    fn position(&self, response: &mut Response, index: u64) {
        let status = self.member.status();
        let headers = response.headers_mut();
        headers.insert("x-etcd-cluster-id", hex_header(self.member.cluster()));
        headers.insert("x-etcd-index", index.into());
        headers.insert("x-raft-index", status.applied.into());
        headers.insert("x-raft-term", status.term.into());
    }

    fn refuse(&self, refusal: &Refusal) -> Response {
        let error = keys_v2::KeysError::from(refusal);
        let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST);
        let mut response = json_answer(status, &format!("{}\n", to_json(&error)));
        let headers = response.headers_mut();
        headers.insert("x-etcd-cluster-id", hex_header(self.member.cluster()));
        headers.insert("x-etcd-index", refusal.index.into());
        response
    }

    fn timed_out(&self, why: &str) -> Response {
        let index = self.member.read(|machine| machine.keys.index());
        let cause = format!("etcdserver: {why}");
        self.refuse(&Refusal { code: Code::RaftInternal, cause, index })
    }

    fn members(&self, rest: &str, method: &Method) -> Response {
        if method != Method::GET {
            let text = "changing the members is not there yet; begin with all of them";
            return message(StatusCode::NOT_IMPLEMENTED, text);
        }
        match rest.trim_end_matches('/') {
            "" => {
                let list = MemberList { members: self.member_list() };
                json_answer(StatusCode::OK, &format!("{}\n", to_json(&list)))
            }
            "/leader" => {
                let leader = self.member.status().leader.map(|id| format!("{id:x}"));
                let known = self.member_list();
                match known.into_iter().find(|member| Some(&member.id) == leader.as_ref()) {
                    Some(member) => json_answer(StatusCode::OK, &format!("{}\n", to_json(&member))),
                    None => message(StatusCode::SERVICE_UNAVAILABLE, "During election"),
                }
            }
            _ => message(StatusCode::NOT_FOUND, "Not found"),
        }
    }

    /// Returns the members as the API shows them.
    pub fn member_list(&self) -> Vec<MemberView> {
        member_list(&self.member)
    }

    fn machines(&self) -> Response {
        let urls: Vec<_> =
            self.member_list().into_iter().flat_map(|member| member.client_urls).collect();
        text(StatusCode::OK, &urls.join(", "))
    }
}

/// The members as the API shows them.
#[derive(serde::Serialize)]
struct MemberList {
    members: Vec<MemberView>,
}

/// A member as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct MemberView {
    /// Its number, in hex.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Where the others reach it.
    #[serde(rename = "peerURLs")]
    pub peer_urls: Vec<String>,
    /// Where clients reach it.
    #[serde(rename = "clientURLs")]
    pub client_urls: Vec<String>,
}

/// Returns the members, by number.
pub fn member_list(member: &Member) -> Vec<MemberView> {
    let published = member.read(|machine| machine.published.clone());
    let view = |(id, peer): (u64, crate::consensus::Peer)| {
        let said = published.get(&id).cloned().unwrap_or_default();
        MemberView {
            id: format!("{id:x}"),
            name: said.name,
            peer_urls: peer.peer_urls,
            client_urls: said.client_urls,
        }
    };
    member.members().into_iter().map(view).collect()
}

fn hex_header(id: u64) -> HeaderValue {
    HeaderValue::try_from(format!("{id:x}")).unwrap_or(HeaderValue::from_static("0"))
}

fn status_of(event: &Event) -> StatusCode {
    match event.action {
        Action::Create => StatusCode::CREATED,
        Action::Set if event.prev.is_none() => StatusCode::CREATED,
        Action::Get
        | Action::Set
        | Action::Update
        | Action::Delete
        | Action::CompareAndSwap
        | Action::CompareAndDelete
        | Action::Expire => StatusCode::OK,
    }
}

/// Reads a form; any other body is not looked at.
async fn form_body(request: Request<Body>) -> Result<Bytes, Refusal> {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if !kind.is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded")) {
        return Ok(Bytes::new());
    }
    let wrong = |cause: String| Refusal { code: Code::InvalidForm, cause, index: 0 };
    let read = Limited::new(request.into_body(), REQUEST_BYTES_MAX).collect().await;
    let read =
        read.map_err(|error| wrong(format!("{error}; at most {REQUEST_BYTES_MAX} bytes")))?;
    Ok(read.to_bytes())
}

/// One client that waits.
struct Watch {
    service: Service,
    interest: Interest,
    next: u64,
    stream: bool,
    over: bool,
}

impl Watch {
    /// Waits for the next change; `None` when the answer is complete.
    async fn next(&mut self) -> Option<Bytes> {
        if self.over {
            return None;
        }
        let mut progress = self.service.member.progress();
        loop {
            let member = &self.service.member;
            let (found, index) = member.read(|machine| {
                (machine.keys.changed(&self.interest, self.next), machine.keys.index())
            });
            match found {
                Ok(Some(event)) => {
                    self.next = event.index() + 1;
                    self.over = !self.stream;
                    return Some(format!("{}\n", to_json(&keys_v2::Event::from(&*event))).into());
                }
                Ok(None) => {}
                // A reader that is this slow starts over, as one that etcd dropped.
                Err(_) => return None,
            }
            self.next = self.next.max(index + 1);
            let seen = index;
            tokio::select! {
                biased;
                () = self.service.stop.cancelled() => return None,
                changed = progress.wait_for(|progress| progress.keys > seen) => changed.ok().map(drop)?,
            }
        }
    }
}
