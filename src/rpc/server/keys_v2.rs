//! The store's v2 API over HTTP: `/v2/keys`, and who answers all the rest.
//!
//! Source: the specification A.2 to A.7; bodies and headers as recorded from etcd 3.4.23.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::Response;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, header};
use tokio_util::sync::CancellationToken;

use crate::consensus::Member;
use crate::consensus::proposer::ProposeError;
use crate::foundation::clock::Clock;
use crate::foundation::metrics::Inside;
use crate::rpc::server::access::Access;
use crate::rpc::server::answer::{self, JSON, json_answer, message, set_cluster, text, to_line};
use crate::rpc::server::health;
use crate::rpc::server::params::{self, Asked, Params};
use crate::rpc::server::{body, debug, form, members_v2, metrics, stats_v2};
use crate::store::Command;
use crate::store::event::{Action, Code, Event, Outcome, Refusal};
use crate::store::history::Interest;
use crate::store::tally::Deed;
use crate::store::tree_v2::Depth;
use crate::wire::etcd::keys_v2;

/// The version of etcd whose behaviour clients can expect.
pub const SERVER_VERSION: &str = "3.5.30";
/// The version of the cluster's API.
pub const CLUSTER_VERSION: &str = "3.5.0";

/// The folder of the keys.
const KEYS: &str = "/v2/keys";
const CORS: [(HeaderName, &str); 2] = [
    (header::ACCESS_CONTROL_ALLOW_HEADERS, "accept, content-type, authorization"),
    (header::ACCESS_CONTROL_ALLOW_METHODS, "POST, GET, OPTIONS, PUT, DELETE"),
];
const INDEX: HeaderName = HeaderName::from_static("x-etcd-index");
const RAFT_INDEX: HeaderName = HeaderName::from_static("x-raft-index");
const RAFT_TERM: HeaderName = HeaderName::from_static("x-raft-term");
const STRANGE_HOST: &str =
    "this name is not one under which this member may be called; add it to --host-whitelist\n";

/// What the handlers work with.
#[derive(Debug, Clone)]
pub struct Service {
    /// The member that serves.
    pub member: Member,
    /// For the time that is left of keys.
    pub clock: Arc<dyn Clock>,
    /// How long a write or a quorum read may take: etcd's 5 s and two election timeouts.
    pub deadline: Duration,
    /// Who may use the API from a browser.
    pub access: Access,
    /// Ends watches when the server stops.
    pub stop: CancellationToken,
}

/// Returns the router for clients.
pub fn router(service: Service) -> Router {
    Router::new().fallback(handle).with_state(service)
}

async fn handle(State(service): State<Service>, request: Request<Body>) -> Response {
    service.answer(request).await
}

/// Opens an answer to pages of an origin, if to any.
fn open_to(origin: Option<HeaderValue>, response: &mut Response) {
    let Some(origin) = origin else { return };
    let headers = response.headers_mut();
    for (name, value) in CORS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
}

/// Tells whether a request is about keys, and of a method that needs no router: only for what a
/// `HEAD` and an unknown method are answered the router knows more.
pub(super) fn is_about_keys<B>(request: &Request<B>) -> bool {
    let known =
        matches!(*request.method(), Method::GET | Method::PUT | Method::POST | Method::DELETE);
    known && request.uri().path().strip_prefix(KEYS).is_some_and(is_below)
}

/// Returns the router of an address that serves the metrics alone.
pub fn metrics_router(service: Service) -> Router {
    Router::new().fallback(look_at).with_state(service)
}

async fn look_at(State(service): State<Service>, request: Request<Body>) -> Response {
    match request.uri().path() {
        "/metrics" | "/health" => service.route(request).await,
        _ => answer::not_found(),
    }
}

/// Returns what `/version` answers.
pub fn version() -> String {
    format!(r#"{{"etcdserver":"{SERVER_VERSION}","etcdcluster":"{CLUSTER_VERSION}"}}"#)
}

impl Service {
    /// Answers a request.
    pub(super) async fn answer(&self, request: Request<Body>) -> Response {
        if !self.access.allows_host(&request) {
            return answer::plainly(StatusCode::MISDIRECTED_REQUEST, STRANGE_HOST);
        }
        let origin = self.access.origin(&request);
        let mut response = if request.method() == Method::OPTIONS {
            answer::empty(StatusCode::OK)
        } else {
            self.route(request).await
        };
        open_to(origin, &mut response);
        response
    }

    /// Answers a request to read keys as this member has them now; `None` for any other, and for one
    /// that is refused before it comes to that.
    pub(super) fn answer_at_once<B>(&self, request: &Request<B>) -> Option<Response> {
        let path = request.uri().path();
        let key = path.strip_prefix(KEYS).filter(|rest| is_below(rest))?;
        let asks = request.method() == Method::GET && form::is_path(path);
        if !asks || !self.access.allows_host(request) {
            return None;
        }
        let query = request.uri().query().unwrap_or_default();
        let params = Params::parse(b"", query.as_bytes()).ok()?;
        let key = params::key_path(key);
        match params::parse(params::Method::Get, &key, params) {
            Ok(Asked::Get { recursive, quorum: false }) => {
                let mut response = self.get(&key, recursive);
                open_to(self.access.origin(request), &mut response);
                Some(response)
            }
            Ok(_) | Err(_) => None,
        }
    }

    async fn route(&self, request: Request<Body>) -> Response {
        let path = request.uri().path().to_owned();
        if !form::is_path(&path) {
            return text(StatusCode::BAD_REQUEST, "400 Bad Request");
        }
        let below = |folder| path.strip_prefix(folder).filter(|rest| is_below(rest));
        if let Some(key) = below(KEYS) {
            return self.keys(&params::key_path(key), request).await;
        }
        if let Some(rest) = below("/v2/members") {
            return members_v2::members(&self.member, rest, request).await;
        }
        if let Some(rest) = below("/v2/auth") {
            let mut response = no_users(rest, request.method());
            set_cluster(&mut response, self.member.cluster());
            return response;
        }
        let method = request.method();
        if let Some(rest) = path.strip_prefix("/v2/stats") {
            return stats_v2::stats(&self.member, &*self.clock, rest, method);
        }
        match path.as_str() {
            // As etcd, which answers every method here.
            "/metrics" => metrics::metrics(&self.member),
            "/debug/vars" => answer::only(&Method::GET, method, || debug::vars(&self.member)),
            "/config/local/log" => debug::log(request).await,
            "/v2/machines" => members_v2::machines(&self.member, method),
            "/version" => {
                answer::only(&Method::GET, method, || json_answer(StatusCode::OK, version()))
            }
            path if health::serves(path) => {
                health::answer(&self.member, path, method, request.uri().query()).await
            }
            _ => answer::not_found(),
        }
    }

    async fn keys(&self, key: &str, request: Request<Body>) -> Response {
        let method = match *request.method() {
            Method::GET => params::Method::Get,
            Method::HEAD => params::Method::Head,
            Method::PUT => params::Method::Put,
            Method::POST => params::Method::Post,
            Method::DELETE => params::Method::Delete,
            _ => return answer::not_allowed("HEAD,GET,PUT,POST,DELETE"),
        };
        match self.read_request(method, key, request).await {
            Ok(Asked::Get { quorum: true, .. }) if !self.confirmed().await => {
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
        params::parse(method, key, Params::parse(&bytes, query.as_bytes())?)
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
        self.member.figures().keys.count(Deed::Get, found.is_ok());
        match found {
            Ok(event) => self.event(StatusCode::OK, index, &event.into()),
            Err(refusal) => self.refuse(&refusal),
        }
    }

    async fn write(&self, command: Command, no_value_on_success: bool) -> Response {
        let outcomes = match self.member.propose(vec![command], self.deadline).await {
            Ok(outcomes) => outcomes,
            Err(error) => return self.timed_out(why(&error)),
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
        let tally = &self.member.figures().keys;
        tally.watches.add(1);
        let waiting = tally.watchers.enter();
        let service = self.clone();
        let watch =
            Watch { service, interest, next: since, stream, over: false, _waiting: waiting };
        let chunks = futures_util::stream::unfold(watch, |mut watch| async move {
            let chunk = watch.next().await?;
            Some((Ok::<_, Infallible>(chunk), watch))
        });
        let mut response = answer::answer(StatusCode::OK, JSON, Body::from_stream(chunks));
        self.position(&mut response, index);
        response
    }

    fn event(&self, status: StatusCode, index: u64, event: &keys_v2::Event) -> Response {
        let mut response = json_answer(status, to_line(event));
        self.position(&mut response, index);
        response
    }

    /// Adds the headers of an answer that was not refused.
    fn position(&self, response: &mut Response, index: u64) {
        let status = self.member.status();
        let headers = response.headers_mut();
        headers.insert(INDEX, index.into());
        headers.insert(RAFT_INDEX, status.applied.into());
        headers.insert(RAFT_TERM, status.term.into());
        set_cluster(response, self.member.cluster());
    }

    fn refuse(&self, refusal: &Refusal) -> Response {
        let error = keys_v2::KeysError::from(refusal);
        let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST);
        let mut response = json_answer(status, to_line(&error));
        response.headers_mut().insert(INDEX, refusal.index.into());
        set_cluster(&mut response, self.member.cluster());
        response
    }

    fn timed_out(&self, why: &str) -> Response {
        let cause = format!("etcdserver: {why}");
        self.refuse(&Refusal { code: Code::RaftInternal, cause, index: 0 })
    }
}

/// Tells whether what follows a folder's path is in it, or nothing.
fn is_below(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with('/')
}

/// Answers `/v2/auth`, without users and roles.
fn no_users(rest: &str, method: &Method) -> Response {
    if rest == "/enable" && method == Method::GET {
        return json_answer(StatusCode::OK, "{\"enabled\":false}\n");
    }
    message(StatusCode::NOT_IMPLEMENTED, "users and roles are not there yet; everybody may do all")
}

/// Says why a write was not done, or may not have been, in the words of etcd.
fn why(error: &ProposeError) -> &'static str {
    tracing::debug!(%error, "a write failed");
    match error {
        ProposeError::NoLeader | ProposeError::NotLeader => {
            "request timed out, possibly due to previous leader failure"
        }
        ProposeError::Unknown { .. } => "request timed out, possibly due to connection lost",
        ProposeError::Overloaded => "too many requests",
        ProposeError::Stopping => "server stopped",
    }
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
    let wrong = |cause: String| Refusal { code: Code::InvalidForm, cause, index: 0 };
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if !form::is_form(kind).map_err(|error| wrong(error.to_string()))? {
        return Ok(Bytes::new());
    }
    body::read(request.into_body()).await.map_err(|error| wrong(error.to_string()))
}

/// One client that waits.
struct Watch {
    service: Service,
    interest: Interest,
    next: u64,
    stream: bool,
    over: bool,
    _waiting: Inside,
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
                    return Some(to_line(&keys_v2::Event::from(&*event)).into());
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

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use tower_service::Service as _;

    use super::*;
    use crate::consensus::identity::Cluster;
    use crate::consensus::log_writer::WriterKind;
    use crate::consensus::member::{Options, Seams};
    use crate::foundation::clock::{ManualClock, Timestamp};
    use crate::foundation::random::Random;
    use crate::platform::disk::MemoryDisk;
    use crate::platform::net::MemoryNet;

    const DEADLINE: Duration = Duration::from_secs(30);

    /// A member that is alone.
    async fn service() -> Service {
        let cluster = Cluster::parse("one=http://localhost:1", "test").unwrap();
        let mut options = Options::new(cluster.named("one").unwrap(), cluster, "/data".into());
        options.writer = WriterKind::Task;
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(Timestamp::from_secs(1_000)));
        let seams = Seams {
            net: Arc::new(MemoryNet::default()),
            disk: Arc::new(MemoryDisk::new(Random::seeded(1), 0)),
            clock: clock.clone(),
            random: Arc::new(Random::seeded(2)),
        };
        let member = Member::start(options, seams).await.unwrap();
        let (access, stop) = (Access::default(), CancellationToken::new());
        Service { member, clock, deadline: DEADLINE, access, stop }
    }

    fn request(method: Method, path: &str) -> Request<Body> {
        Request::builder().method(method).uri(path).header("host", "a").body(Body::empty()).unwrap()
    }

    /// All that is said, but for the length, which only the router adds by itself.
    async fn said(response: Response) -> (StatusCode, Vec<(String, HeaderValue)>, Bytes) {
        let (mut head, body) = response.into_parts();
        head.headers.remove(header::CONTENT_LENGTH);
        let headers = head.headers.iter();
        let headers = headers.map(|(name, value)| (name.as_str().to_owned(), value.clone()));
        (head.status, headers.collect(), body.collect().await.unwrap().to_bytes())
    }

    #[tokio::test(start_paused = true)]
    async fn keys_are_read_at_once_as_the_router_has_them_read() {
        let mut service = service().await;
        for path in ["/v2/keys/a/b%20c?value=1", "/v2/keys/a/d/e?value=%22&ttl=100"] {
            assert_eq!(service.answer(request(Method::PUT, path)).await.status(), 201, "{path}");
        }
        service.access.origins = vec!["http://a".to_owned()];
        let mut router = router(service.clone());
        for path in [
            "/v2/keys",
            "/v2/keys/",
            "/v2/keys/a?recursive=true",
            "/v2/keys//a/./b%20c/",
            "/v2/keys/a/d/e?quorum=false&sorted=true",
            "/v2/keys/none",
            "/v2/keys/a/b%20c/none",
        ] {
            for origin in ["http://a", "http://b"] {
                let asked = || {
                    let mut asked = request(Method::GET, path);
                    asked.headers_mut().insert(header::ORIGIN, HeaderValue::from_static(origin));
                    asked
                };
                let at_once = service.answer_at_once(&asked()).unwrap();
                let by_router = router.call(asked()).await.unwrap();
                assert_eq!(said(at_once).await, said(by_router).await, "{path} for {origin}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_to_wait_or_is_refused_is_not_answered_at_once() {
        let mut service = service().await;
        for path in [
            "/v2/keys/a?wait=true",
            "/v2/keys/a?quorum=true",
            "/v2/keys/a?recursive=x",
            "/v2/keys/a?b=%zz",
            "/v2/keys/%",
            "/v2/keysa",
            "/version",
        ] {
            assert!(service.answer_at_once(&request(Method::GET, path)).is_none(), "{path}");
        }
        for method in [Method::HEAD, Method::PUT, Method::POST, Method::DELETE, Method::OPTIONS] {
            assert!(service.answer_at_once(&request(method, "/v2/keys/a")).is_none());
        }
        assert!(service.answer_at_once(&request(Method::GET, "/v2/keys/a")).is_some());
        service.access.hosts = vec!["b".to_owned()];
        assert!(service.answer_at_once(&request(Method::GET, "/v2/keys/a")).is_none());
    }

    #[test]
    fn only_what_needs_no_router_goes_without() {
        for (method, path, about_keys) in [
            (Method::GET, "/v2/keys", true),
            (Method::PUT, "/v2/keys/a", true),
            (Method::DELETE, "/v2/keys/a?x", true),
            (Method::POST, "/v2/keys/", true),
            (Method::HEAD, "/v2/keys/a", false),
            (Method::OPTIONS, "/v2/keys/a", false),
            (Method::GET, "/v2/keysa", false),
            (Method::GET, "/", false),
        ] {
            assert_eq!(is_about_keys(&request(method, path)), about_keys, "{path}");
        }
    }
}
