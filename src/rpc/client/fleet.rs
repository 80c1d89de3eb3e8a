//! fleet's HTTP API v1, as its clients call it.
//!
//! Lists are read page by page to their end. Whatever is asked for and does not exist is `None`,
//! not an error.
//!
//! **Not here:** metadata of machines, and what to do when nobody answers.

use std::io;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;

use crate::rpc::client::http::{HttpClient, HttpError, Request, Response};
use crate::rpc::client::url::Url;
use crate::wire::fleet::JobState;
use crate::wire::fleet::api::{
    ErrorBody, Machine, MachinePage, PREFIX, Placement, StatePage, Unit, UnitPage, UnitState,
};

/// Pages that are read before a list that does not end is given up: the token counts to here.
const PAGES_MAX: usize = 65_536;

/// What stays as it is in a path.
const PLAIN: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'@').remove(b':');

/// Why fleet did not do it.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// Nobody listens; nothing was done.
    #[error("cannot reach fleet at {endpoint}")]
    Unreachable {
        /// Where.
        endpoint: Url,
        /// Why.
        source: io::Error,
    },
    /// It was asked and said nothing; whether it did it is unknown.
    #[error("fleet at {endpoint} does not answer")]
    Silent {
        /// Where.
        endpoint: Url,
        /// Why.
        source: io::Error,
    },
    /// The question cannot be put.
    #[error("cannot ask fleet for `{path}`")]
    Unaskable {
        /// What for.
        path: String,
        /// Why.
        source: http::Error,
    },
    /// It answered, and said no.
    #[error("fleet refused: {message} ({code})")]
    Refused {
        /// The HTTP status.
        code: u16,
        /// Its reason.
        message: String,
    },
    /// What answers is no fleet.
    #[error("what answers at {endpoint} does not speak fleet's API")]
    Nonsense {
        /// Where.
        endpoint: Url,
        /// Why.
        source: serde_json::Error,
    },
    /// A list had more pages than there are numbers for.
    #[error("the list at `{path}` does not end")]
    Endless {
        /// Which.
        path: String,
    },
}

/// Which states to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of<'a> {
    /// Those of all units.
    All,
    /// Those of one unit.
    Unit(&'a str),
}

/// A page of a list.
trait Page: DeserializeOwned {
    type Item;
    fn split(self) -> (Vec<Self::Item>, Option<String>);
}

impl Page for UnitPage {
    type Item = Unit;
    fn split(self) -> (Vec<Unit>, Option<String>) {
        (self.units, self.next_page_token)
    }
}

impl Page for StatePage {
    type Item = UnitState;
    fn split(self) -> (Vec<UnitState>, Option<String>) {
        (self.states, self.next_page_token)
    }
}

impl Page for MachinePage {
    type Item = Machine;
    fn split(self) -> (Vec<Machine>, Option<String>) {
        (self.machines, self.next_page_token)
    }
}

/// A client of one fleet API.
#[derive(Debug, Clone)]
pub struct FleetClient {
    http: HttpClient,
    endpoint: Url,
    deadline: Duration,
}

impl FleetClient {
    /// Makes a client that gives each request `deadline`.
    pub const fn new(http: HttpClient, endpoint: Url, deadline: Duration) -> Self {
        Self { http, endpoint, deadline }
    }

    /// Returns where it asks.
    pub const fn endpoint(&self) -> &Url {
        &self.endpoint
    }

    /// Lists every unit, by name.
    pub async fn units(&self) -> Result<Vec<Unit>, FleetError> {
        self.all::<UnitPage>("/units").await
    }

    /// Returns a unit, if there is one of that name.
    pub async fn unit(&self, name: &str) -> Result<Option<Unit>, FleetError> {
        self.one(&format!("/units/{}", encoded(name))).await
    }

    /// Writes a unit: its options if it has some, its desired state if it has one.
    pub async fn put_unit(&self, unit: &Unit) -> Result<(), FleetError> {
        let path = format!("/units/{}", encoded(&unit.name));
        let body = serde_json::to_vec(unit).map_err(|source| self.nonsense(source))?;
        let request = Request::new(http::Method::PUT, self.target(&path));
        self.call(&path, request.with_body("application/json", body)).await.map(drop)
    }

    /// Says what a unit shall be.
    pub async fn set_desired(&self, name: &str, state: JobState) -> Result<(), FleetError> {
        let unit = Unit { name: name.to_owned(), desired_state: Some(state), ..Unit::default() };
        self.put_unit(&unit).await
    }

    /// Removes a unit; tells whether there was one.
    pub async fn destroy(&self, name: &str) -> Result<bool, FleetError> {
        let path = format!("/units/{}", encoded(name));
        let request = Request::new(http::Method::DELETE, self.target(&path));
        found(self.call(&path, request).await.map(drop)).map(|gone| gone.is_some())
    }

    /// Lists what systemd says of units, by unit and machine.
    pub async fn states(&self, of: Of<'_>) -> Result<Vec<UnitState>, FleetError> {
        let path = match of {
            Of::All => "/state".to_owned(),
            Of::Unit(name) => format!("/state?unitName={}", encoded(name)),
        };
        self.all::<StatePage>(&path).await
    }

    /// Lists the machines, by id.
    pub async fn machines(&self) -> Result<Vec<Machine>, FleetError> {
        self.all::<MachinePage>("/machines").await
    }

    /// Returns where a unit could run and where not; an original fleet cannot tell.
    pub async fn placement(&self, name: &str) -> Result<Option<Placement>, FleetError> {
        self.one(&format!("/placement/{}", encoded(name))).await
    }

    async fn one<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, FleetError> {
        let answer = found(self.call(path, Request::get(self.target(path))).await)?;
        answer.map(|answer| self.understood(&answer)).transpose()
    }

    async fn all<P: Page>(&self, path: &str) -> Result<Vec<P::Item>, FleetError> {
        let mut items = Vec::new();
        let mut target = self.target(path);
        for _ in 0..PAGES_MAX {
            let answer = self.call(path, Request::get(&target)).await?;
            let (page, next) = self.understood::<P>(&answer)?.split();
            items.extend(page);
            let Some(token) = next.filter(|token| !token.is_empty()) else { return Ok(items) };
            let mark = if path.contains('?') { '&' } else { '?' };
            target = format!("{}{mark}nextPageToken={}", self.target(path), encoded(&token));
        }
        Err(FleetError::Endless { path: path.to_owned() })
    }

    fn target(&self, path: &str) -> String {
        self.endpoint.below(&format!("{PREFIX}{path}"))
    }

    async fn call(&self, path: &str, request: Request) -> Result<Response, FleetError> {
        let request = request.within(self.deadline);
        let called = self.http.call(&self.endpoint.origin, request).await;
        let answer = called.map_err(|error| self.unanswered(path, error))?;
        if answer.status.is_success() {
            return Ok(answer);
        }
        let said: ErrorBody = serde_json::from_slice(&answer.body).unwrap_or_default();
        let message = if said.error.message.is_empty() {
            format!("`{path}`: {}", answer.status.canonical_reason().unwrap_or("no reason given"))
        } else {
            said.error.message
        };
        Err(FleetError::Refused { code: answer.status.as_u16(), message })
    }

    fn unanswered(&self, path: &str, error: HttpError) -> FleetError {
        let endpoint = self.endpoint.clone();
        match error {
            HttpError::Connect { source, .. } => FleetError::Unreachable { endpoint, source },
            HttpError::NoAnswer { source, .. } => FleetError::Silent { endpoint, source },
            HttpError::Malformed { source, .. } => {
                FleetError::Unaskable { path: path.to_owned(), source }
            }
        }
    }

    fn understood<T: DeserializeOwned>(&self, answer: &Response) -> Result<T, FleetError> {
        serde_json::from_slice(&answer.body).map_err(|source| self.nonsense(source))
    }

    fn nonsense(&self, source: serde_json::Error) -> FleetError {
        FleetError::Nonsense { endpoint: self.endpoint.clone(), source }
    }
}

fn encoded(part: &str) -> String {
    utf8_percent_encode(part, PLAIN).to_string()
}

/// Makes `None` of "there is no such thing".
fn found<T>(answer: Result<T, FleetError>) -> Result<Option<T>, FleetError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(FleetError::Refused { code: 404, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::foundation::tasks::Tasks;
    use crate::platform::net::MemoryNet;
    use crate::rpc::client::scripted::{Reply, Scripted, origin};
    use crate::wire::fleet::UnitOption;

    async fn with(replies: Vec<Reply>) -> (FleetClient, Scripted) {
        let (net, tasks) = (MemoryNet::default(), Tasks::default());
        let server = Scripted::start(&net, &origin(), &tasks, replies).await;
        (client_on(&net), server)
    }

    fn client_on(net: &MemoryNet) -> FleetClient {
        let endpoint = Url { origin: origin(), target: "/".into() };
        FleetClient::new(HttpClient::new(Arc::new(net.clone())), endpoint, Duration::from_secs(3))
    }

    fn head(request: &str) -> &str {
        request.split(" HTTP/1.1").next().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_is_read_to_its_last_page() {
        let (client, server) = with(vec![
            Reply::ok(r#"{"states":[{"name":"a.service"}],"nextPageToken":"ZAABAA=="}"#),
            Reply::ok(r#"{"states":[{"name":"b.service"}],"nextPageToken":"ZAACAA=="}"#),
            Reply::ok("{}"),
        ])
        .await;
        let states = client.states(Of::Unit("web@1.service")).await.unwrap();
        let names: Vec<_> = states.iter().map(|state| state.name.as_str()).collect();
        assert_eq!(names, ["a.service", "b.service"]);
        let asked = server.requests();
        assert_eq!(head(&asked[0]), "GET /fleet/v1/state?unitName=web@1.service");
        assert!(head(&asked[2]).ends_with("&nextPageToken=ZAACAA%3D%3D"), "{}", asked[2]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_unit_is_written_as_the_original_writes_it() {
        let (client, server) = with(vec![Reply::ok(""), Reply::status(204, "", "")]).await;
        let options = vec![UnitOption::new("Service", "ExecStart", "/a")];
        let unit = Unit { name: "a.service".into(), options, ..Unit::default() };
        client.put_unit(&unit).await.unwrap();
        client.set_desired("a\\x2d.service", JobState::Launched).await.unwrap();
        let asked = server.requests();
        assert_eq!(head(&asked[0]), "PUT /fleet/v1/units/a.service");
        assert!(asked[0].contains("content-type: application/json\r\n"), "{}", asked[0]);
        assert!(asked[0].ends_with(
            r#"{"name":"a.service","options":[{"section":"Service","name":"ExecStart","value":"/a"}]}"#
        ));
        assert_eq!(head(&asked[1]), "PUT /fleet/v1/units/a%5Cx2d.service");
        assert!(asked[1].ends_with(r#"{"name":"a\\x2d.service","desiredState":"launched"}"#));
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_exist_is_no_error() {
        let missing =
            Reply::status(404, "", r#"{"error":{"code":404,"message":"unit does not exist"}}"#);
        let (client, _server) = with(vec![missing.clone(), missing.clone(), missing]).await;
        assert_eq!(client.unit("a.service").await.unwrap(), None);
        assert!(!client.destroy("a.service").await.unwrap());
        assert_eq!(client.placement("a.service").await.unwrap(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_says_why() {
        let reply = |status, body| Reply::status(status, "", body);
        let (client, _server) = with(vec![
            reply(503, r#"{"error":{"code":503,"message":"no store"}}"#),
            reply(500, "oops"),
            Reply::ok("<html>"),
            Reply::Hang,
        ])
        .await;
        let said = async || client.machines().await.unwrap_err().to_string();
        assert_eq!(said().await, "fleet refused: no store (503)");
        assert_eq!(said().await, "fleet refused: `/machines`: Internal Server Error (500)");
        assert_eq!(said().await, "what answers at http://10.0.0.1:2379 does not speak fleet's API");
        assert_eq!(said().await, "fleet at http://10.0.0.1:2379 does not answer");
        let nobody = client_on(&MemoryNet::default()).units().await.unwrap_err();
        assert_eq!(nobody.to_string(), "cannot reach fleet at http://10.0.0.1:2379");
    }
}
