//! The store's keys over HTTP: [`Keys`] as any etcd with the v2 API serves it.
//!
//! Endpoints are tried in order, from the one that answered last. A read goes on to the next one
//! after any failure; a write only where the last one cannot have seen it.
//!
//! **Not here:** names and passwords, TLS.

use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use form_urlencoded::Serializer;
use http::{HeaderMap, Method};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::foundation::exit::chain;
use crate::rpc::client::http::{HttpClient, HttpError, Request, Response, Streaming};
use crate::rpc::client::keys::{Answer, Call, Delete, Expect, Keys, KeysFailure, Read, Write};
use crate::rpc::client::url::Url;
use crate::wire::etcd::keys_v2::{Code, Event, KeysError};

/// How long one endpoint may take for one request, unless told otherwise: etcdctl's own default.
pub const DEADLINE: Duration = Duration::from_secs(1);
/// How long one poll of a watch may last: an idle one may hang on a peer that is no more.
const POLL: Duration = Duration::from_secs(30);
/// Pause before a poll that ended with nothing is made again: the server may be stopping.
const EMPTY_POLL_PAUSE: Duration = Duration::from_millis(100);

const INDEX: &str = "x-etcd-index";
const FORM: &str = "application/x-www-form-urlencoded";
/// What stays as it is in a path: RFC 3986's unreserved characters and the separators.
const PATH: AsciiSet =
    NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// One request of `/v2/keys`, not yet encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The method.
    pub method: Method,
    /// The key, `/` first.
    pub key: String,
    /// Parameters in the URL.
    pub query: Vec<(&'static str, String)>,
    /// Parameters in the body.
    pub form: Vec<(&'static str, String)>,
}

impl Ask {
    /// Makes a request without parameters.
    pub fn new(method: Method, key: &str) -> Self {
        let slash = if key.starts_with('/') { "" } else { "/" };
        Self { method, key: format!("{slash}{key}"), query: Vec::new(), form: Vec::new() }
    }

    /// Adds a parameter to the URL.
    #[must_use]
    pub fn query(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    /// Adds a parameter to the URL if `flag`.
    #[must_use]
    pub fn query_if(self, flag: bool, name: &'static str) -> Self {
        if flag { self.query(name, "true") } else { self }
    }

    /// Adds a parameter to the body.
    #[must_use]
    pub fn form(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.form.push((name, value.into()));
        self
    }

    /// Adds a time to live to the body, if there is one.
    #[must_use]
    pub fn ttl(self, ttl: Option<Duration>) -> Self {
        match ttl {
            Some(ttl) => self.form("ttl", ttl.as_secs().to_string()),
            None => self,
        }
    }

    fn expecting(self, expect: &Expect) -> Self {
        match expect {
            Expect::Anything => self,
            Expect::Present => self.query("prevExist", "true"),
            Expect::Absent => self.query("prevExist", "false"),
            Expect::Value(value) => self.query("prevValue", value.as_str()),
            Expect::Index(index) => self.query("prevIndex", index.to_string()),
        }
    }

    /// Asks for what `read` wants at `key`.
    pub fn read(key: &str, read: Read) -> Self {
        Self::new(Method::GET, key)
            .query_if(read.recursive, "recursive")
            .query_if(read.sorted, "sorted")
            .query_if(read.quorum, "quorum")
    }

    /// Asks to write a key.
    pub fn write(key: &str, write: &Write) -> Self {
        let ask = Self::new(Method::PUT, key).form("value", write.value.as_str()).ttl(write.ttl);
        ask.expecting(&write.expect)
    }

    /// Asks to remove a key or a directory.
    pub fn remove(key: &str, delete: &Delete) -> Self {
        Self::new(Method::DELETE, key)
            .query_if(delete.recursive, "recursive")
            .query_if(delete.dir, "dir")
            .expecting(&delete.expect)
    }

    /// Asks for the first event from `from` on; from now on if zero.
    pub fn wait(key: &str, recursive: bool, from: u64) -> Self {
        let ask =
            Self::new(Method::GET, key).query("wait", "true").query_if(recursive, "recursive");
        if from == 0 { ask } else { ask.query("waitIndex", from.to_string()) }
    }

    /// Writes it as a person would type it for curl.
    pub fn curl(&self, base: &Url) -> String {
        let Request { method, target, body, .. } = self.encode(base);
        let url = format!("{}{target}", base.origin);
        let data = String::from_utf8_lossy(&body);
        if data.is_empty() {
            format!("curl -X {method} {url}")
        } else {
            format!("curl -X {method} {url} -d {data:?}")
        }
    }

    /// Encodes it for a server whose API is at `base`.
    fn encode(&self, base: &Url) -> Request {
        let mut target = base.below("/v2/keys");
        let _ = write!(target, "{}", utf8_percent_encode(&self.key, &PATH));
        if !self.query.is_empty() {
            let _ = write!(target, "?{}", encoded(&self.query));
        }
        let request = Request::new(self.method.clone(), target);
        if self.form.is_empty() { request } else { request.with_body(FORM, encoded(&self.form)) }
    }
}

fn encoded(pairs: &[(&'static str, String)]) -> String {
    Serializer::new(String::new()).extend_pairs(pairs).finish()
}

/// The store's keys over HTTP.
#[derive(Debug)]
pub struct KeysClient {
    http: HttpClient,
    endpoints: Vec<Url>,
    deadline: Duration,
    /// Which endpoint answered last.
    good: AtomicUsize,
}

impl KeysClient {
    /// Makes a client of the store whose members serve at `endpoints`.
    pub const fn new(http: HttpClient, endpoints: Vec<Url>) -> Self {
        Self { http, endpoints, deadline: DEADLINE, good: AtomicUsize::new(0) }
    }

    /// Gives each endpoint `deadline` for one request.
    #[must_use]
    pub const fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Returns the endpoints, in the order they were given.
    pub fn endpoints(&self) -> &[Url] {
        &self.endpoints
    }

    /// Asks one endpoint after the other until one has answered.
    pub async fn ask(&self, ask: &Ask) -> Result<Answer, KeysFailure> {
        let mut last = None;
        for (number, endpoint) in self.in_order() {
            let request = ask.encode(endpoint).within(self.deadline);
            let answered = self.http.call(&endpoint.origin, request).await;
            match judge(ask, endpoint, answered) {
                Verdict::Break(answer) => {
                    self.good.store(number, Ordering::Relaxed);
                    return answer;
                }
                Verdict::Continue(failure) => last = Some(failure),
            }
        }
        Err(self.nobody(last))
    }

    /// Waits for the first event at `key` (and below it, if `recursive`) from index `from` on;
    /// from now on if that is zero.
    pub async fn wait(&self, key: &str, recursive: bool, from: u64) -> Result<Event, KeysFailure> {
        let mut from = from;
        loop {
            let polled = tokio::time::timeout(POLL, self.poll(key, recursive, &mut from)).await;
            match polled {
                // Nothing for a while, or a dead peer: a new poll tells them apart.
                Err(_) => {}
                Ok(Ok(Some(event))) => return Ok(event),
                Ok(Ok(None)) => tokio::time::sleep(EMPTY_POLL_PAUSE).await,
                Ok(Err(failure)) => return Err(failure),
            }
        }
    }

    /// Polls once. `None` if the server ended the poll with nothing.
    async fn poll(
        &self,
        key: &str,
        recursive: bool,
        from: &mut u64,
    ) -> Result<Option<Event>, KeysFailure> {
        let ask = Ask::wait(key, recursive, *from);
        let mut last = None;
        for (number, endpoint) in self.in_order() {
            let opened = self.http.open(&endpoint.origin, ask.encode(endpoint)).await;
            let mut streaming = match opened {
                Ok(streaming) => streaming,
                Err(error) => {
                    last = Some(failed(endpoint, &error));
                    continue;
                }
            };
            self.good.store(number, Ordering::Relaxed);
            if let Some(looked) = index_of(&streaming.headers) {
                // The server has looked through its history up to here and found nothing.
                *from = (*from).max(looked + 1);
            }
            let body = streaming.rest(crate::foundation::limits::RESPONSE_BYTES_MAX).await;
            let body = body.map_err(|error| failed(endpoint, &error))?;
            if streaming.status.is_success() && body.iter().all(u8::is_ascii_whitespace) {
                return Ok(None);
            }
            let Streaming { status, headers, .. } = streaming;
            return match judge(&ask, endpoint, Ok(Response { status, headers, body })) {
                Verdict::Break(answer) => answer.map(|answer| Some(answer.event)),
                Verdict::Continue(failure) => Err(failure),
            };
        }
        Err(self.nobody(last))
    }

    fn in_order(&self) -> impl Iterator<Item = (usize, &Url)> {
        let count = self.endpoints.len();
        let first = self.good.load(Ordering::Relaxed);
        (0..count).map(move |step| {
            let number = (first + step) % count;
            (number, &self.endpoints[number])
        })
    }

    /// Says that all endpoints failed, the last one like this.
    fn nobody(&self, last: Option<KeysFailure>) -> KeysFailure {
        let names: Vec<String> = self.endpoints.iter().map(ToString::to_string).collect();
        let endpoints = names.join(", ");
        match last {
            Some(KeysFailure::Unreachable { why, .. }) => {
                KeysFailure::Unreachable { endpoints, why }
            }
            Some(other) => other,
            None => KeysFailure::Unreachable { endpoints, why: "no endpoint is given".to_owned() },
        }
    }
}

/// What to make of one endpoint's answer: it is the answer, or another endpoint may be asked.
type Verdict = ControlFlow<Result<Answer, KeysFailure>, KeysFailure>;

fn judge(ask: &Ask, endpoint: &Url, answered: Result<Response, HttpError>) -> Verdict {
    let may_repeat = ask.method.is_safe();
    let response = match answered {
        Ok(response) => response,
        Err(error) if may_repeat || error.nothing_was_done() => {
            return Verdict::Continue(failed(endpoint, &error));
        }
        Err(error) => return Verdict::Break(Err(failed(endpoint, &error))),
    };
    if response.status.is_success() {
        return Verdict::Break(event_of(endpoint, &response));
    }
    match serde_json::from_slice::<KeysError>(&response.body) {
        Ok(refusal) if refusal.is(Code::LeaderElect) => Verdict::Continue(refusal.into()),
        Ok(refusal) if refusal.is(Code::RaftInternal) => {
            let failure = unknown(endpoint, refusal.to_string());
            if may_repeat { Verdict::Continue(failure) } else { Verdict::Break(Err(failure)) }
        }
        Ok(refusal) => Verdict::Break(Err(refusal.into())),
        Err(_) => {
            let failure = unknown(endpoint, format!("it said {}", response.status));
            if may_repeat { Verdict::Continue(failure) } else { Verdict::Break(Err(failure)) }
        }
    }
}

fn event_of(endpoint: &Url, response: &Response) -> Result<Answer, KeysFailure> {
    let event = serde_json::from_slice(&response.body)
        .map_err(|error| unknown(endpoint, format!("its answer is no event: {error}")))?;
    Ok(Answer { event, index: index_of(&response.headers).unwrap_or_default() })
}

fn index_of(headers: &HeaderMap) -> Option<u64> {
    headers.get(INDEX)?.to_str().ok()?.parse().ok()
}

fn failed(endpoint: &Url, error: &HttpError) -> KeysFailure {
    if error.nothing_was_done() {
        KeysFailure::Unreachable { endpoints: endpoint.to_string(), why: cause(error) }
    } else {
        unknown(endpoint, cause(error))
    }
}

fn unknown(endpoint: &Url, why: String) -> KeysFailure {
    KeysFailure::Unknown { endpoint: endpoint.to_string(), why }
}

/// Says why, without naming the endpoint again.
fn cause(error: &HttpError) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), chain)
}

impl Keys for KeysClient {
    fn get<'a>(&'a self, path: &'a str, read: Read) -> Call<'a, Answer> {
        Box::pin(async move { self.ask(&Ask::read(path, read)).await })
    }

    fn put<'a>(&'a self, path: &'a str, write: Write) -> Call<'a, Answer> {
        Box::pin(async move { self.ask(&Ask::write(path, &write)).await })
    }

    fn delete<'a>(&'a self, path: &'a str, delete: Delete) -> Call<'a, Answer> {
        Box::pin(async move { self.ask(&Ask::remove(path, &delete)).await })
    }

    fn watch<'a>(&'a self, path: &'a str, after: u64) -> Call<'a, Event> {
        Box::pin(self.wait(path, true, after + 1))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::foundation::tasks::Tasks;
    use crate::platform::net::MemoryNet;
    use crate::rpc::client::scripted::{Reply, Scripted};
    use crate::wire::etcd::keys_v2::Action;

    const FIRST: &str = "http://10.0.0.1:2379";
    const SECOND: &str = "http://10.0.0.2:2379";
    const EVENT: &str =
        r#"{"action":"set","node":{"key":"/a","value":"1","modifiedIndex":7,"createdIndex":7}}"#;
    const AT_7: &str = "X-Etcd-Index: 7\r\n";

    struct Store {
        net: MemoryNet,
        tasks: Tasks,
    }

    impl Store {
        fn new() -> Self {
            Self { net: MemoryNet::default(), tasks: Tasks::default() }
        }

        async fn member(&self, url: &str, replies: Vec<Reply>) -> Scripted {
            let url: Url = url.parse().unwrap();
            Scripted::start(&self.net, &url.origin, &self.tasks, replies).await
        }

        fn client(&self) -> KeysClient {
            let endpoints = [FIRST, SECOND].map(|url| url.parse().unwrap()).to_vec();
            KeysClient::new(HttpClient::new(Arc::new(self.net.clone())), endpoints)
        }
    }

    fn target(ask: &Ask) -> (String, String) {
        let request = ask.encode(&FIRST.parse().unwrap());
        (request.target, String::from_utf8(request.body.to_vec()).unwrap())
    }

    #[test]
    fn what_is_special_in_a_url_is_encoded() {
        let write = Write::set("a b&c=ü").for_time(Duration::from_secs(30));
        let ask = Ask::write("/x y/ü?", &write.if_found(Expect::Value("1+1".into())));
        let (target, body) = target(&ask);
        assert_eq!(target, "/v2/keys/x%20y/%C3%BC%3F?prevValue=1%2B1");
        assert_eq!(body, "value=a+b%26c%3D%C3%BC&ttl=30");
    }

    #[test]
    fn what_is_expected_before_a_delete_goes_into_the_url() {
        let delete = Delete { recursive: true, dir: false, expect: Expect::Index(9) };
        let (target, body) = target(&Ask::remove("/a", &delete));
        assert_eq!((target.as_str(), body.as_str()), ("/v2/keys/a?recursive=true&prevIndex=9", ""));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_has_the_stores_index() {
        let store = Store::new();
        store.member(FIRST, vec![Reply::status(200, AT_7, EVENT)]).await;
        let answer = store.client().get("/a", Read::default()).await.unwrap();
        assert_eq!((answer.event.action, answer.index), (Action::Set, 7));
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_endpoint_is_asked_and_remembered() {
        let store = Store::new();
        let second = store.member(SECOND, vec![Reply::ok(EVENT), Reply::ok(EVENT)]).await;
        let client = store.client();
        client.put("/a", Write::set("1")).await.unwrap();
        let first = store.member(FIRST, vec![]).await;
        client.put("/a", Write::set("1")).await.unwrap();
        assert_eq!((first.connections(), second.requests().len()), (0, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_without_an_answer_is_unknown_and_goes_nowhere_else() {
        let store = Store::new();
        store.member(FIRST, vec![Reply::Hang]).await;
        let second = store.member(SECOND, vec![Reply::ok(EVENT)]).await;
        let failed = store.client().put("/a", Write::set("1")).await.unwrap_err();
        assert_eq!(
            failed.to_string(),
            "the store at http://10.0.0.1:2379 did not answer: the deadline passed",
        );
        assert_eq!(second.connections(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_without_an_answer_is_asked_elsewhere() {
        let store = Store::new();
        store.member(FIRST, vec![Reply::Hang]).await;
        store.member(SECOND, vec![Reply::ok(EVENT)]).await;
        store.client().get("/a", Read::default()).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_what_the_store_said() {
        let store = Store::new();
        let body = r#"{"errorCode":105,"message":"Key already exists","cause":"/a","index":7}"#;
        store.member(FIRST, vec![Reply::status(412, "", body)]).await;
        let failed = store.client().put("/a", Write::set("1")).await.unwrap_err();
        assert!(failed.is(Code::NodeExist));
        assert_eq!(failed.to_string(), "105: Key already exists (/a) [7]");
    }

    #[tokio::test(start_paused = true)]
    async fn where_nobody_answers_all_endpoints_are_named() {
        let failed = Store::new().client().get("/a", Read::default()).await.unwrap_err();
        assert_eq!(
            failed.to_string(),
            "cannot reach the store at http://10.0.0.1:2379, http://10.0.0.2:2379: connection refused",
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_watch_is_polled_again_from_where_the_store_had_looked() {
        let store = Store::new();
        let head = "HTTP/1.1 200 OK\r\nX-Etcd-Index: 20\r\nTransfer-Encoding: chunked\r\n\r\n";
        let event = format!("{head}{:x}\r\n{EVENT}\r\n0\r\n\r\n", EVENT.len());
        let first = store.member(FIRST, vec![Reply::Raw(head.into()), Reply::Raw(event)]).await;
        let event = store.client().watch("/a", 4).await.unwrap();
        assert_eq!(event.node.unwrap().modified_index, 7);
        let requests = first.requests();
        assert!(requests[0].starts_with("GET /v2/keys/a?wait=true&recursive=true&waitIndex=5 "));
        assert!(requests[1].starts_with("GET /v2/keys/a?wait=true&recursive=true&waitIndex=21 "));
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_ends_with_nothing_is_polled_again() {
        let store = Store::new();
        store.member(FIRST, vec![Reply::ok(""), Reply::ok(EVENT)]).await;
        store.client().watch("/a", 4).await.unwrap();
    }
}
