//! How members find each other at a discovery URL, each knowing only how many they will be.
//!
//! Source: the specification A.10. A member registers under its own number, so that one that was
//! restarted in the middle finds itself again; places are given in the order of registration.

use std::time::Duration;

use http::{Method, StatusCode};

use crate::foundation::backoff::Backoff;
use crate::foundation::exit::chain;
use crate::rpc::client::http::{HttpClient, HttpError, Request, Response};
use crate::rpc::client::url::Url;
use crate::wire::etcd::keys_v2::{Code, Event, KeysError, Node};

/// How long one call may take.
const CALL: Duration = Duration::from_secs(5);
/// How long one wait for a change may take before it is asked anew: the other end may be gone.
const WAIT: Duration = Duration::from_secs(20);
/// Most members that a discovery URL can be for.
const SIZE_MAX: usize = crate::consensus::identity::MEMBERS_MAX;

/// The members were not found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiscoveryError {
    /// The URL is for no cluster.
    #[error(
        "discovery: size key not found at {url}; get a new URL with `curl 'http://…/new?size=3'`"
    )]
    NoSize {
        /// The URL.
        url: String,
    },
    /// The size is no number that a cluster can have.
    #[error("discovery: size key is bad: `{size}` at {url} is not a number from 1 to {SIZE_MAX}")]
    BadSize {
        /// The URL.
        url: String,
        /// What it says.
        size: String,
    },
    /// What answers there is no discovery service.
    #[error("discovery: bad discovery endpoint: {url} answered {status}")]
    BadEndpoint {
        /// The URL.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// All places are taken.
    #[error(
        "discovery: cluster is full: {url} is for {size} members and has them; being a proxy of a full cluster is not there yet, so get a new URL or run this machine without a store"
    )]
    Full {
        /// The URL.
        url: String,
        /// Its size.
        size: usize,
    },
    /// Another member has this one's number.
    #[error(
        "discovery: found duplicate id {id}: another member has registered with the same peer URLs"
    )]
    DuplicateId {
        /// The number.
        id: String,
    },
    /// Two members have one name.
    #[error("discovery: found duplicate name `{name}`; give each member its own --name")]
    DuplicateName {
        /// The name.
        name: String,
    },
}

/// A member that wants to find the others.
#[derive(Debug, Clone)]
pub struct Seeker {
    /// The client to ask with.
    pub http: HttpClient,
    /// The discovery URL.
    pub url: Url,
    /// This member's number, in hex.
    pub id: String,
    /// What it registers: `name=url[,name=url]`.
    pub own: String,
}

/// Why one step did not work.
enum Trouble {
    /// It never will.
    Final(DiscoveryError),
    /// The service is away; try again.
    Away(String),
}

impl From<DiscoveryError> for Trouble {
    fn from(error: DiscoveryError) -> Self {
        Self::Final(error)
    }
}

impl Seeker {
    /// Registers, waits until all have, and returns the value for `--initial-cluster`. `waiting`
    /// is told who is missing, or why the service cannot be asked.
    pub async fn find(&self, waiting: impl Fn(&str)) -> Result<String, DiscoveryError> {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        loop {
            match self.try_find(&waiting).await {
                Ok(cluster) => return Ok(cluster),
                Err(Trouble::Final(error)) => return Err(error),
                Err(Trouble::Away(why)) => {
                    waiting(&format!("the discovery service does not answer: {why}"));
                    tokio::time::sleep(backoff.next_wait()).await;
                }
            }
        }
    }

    async fn try_find(&self, waiting: &impl Fn(&str)) -> Result<String, Trouble> {
        let size = self.size().await?;
        let (before, _) = self.registered().await?;
        self.check_place(&before, size)?;
        if !before.iter().any(|node| self.is_own(node)) {
            self.register().await?;
        }
        loop {
            let (found, index) = self.registered().await?;
            self.check_place(&found, size)?;
            if found.len() >= size {
                return Ok(cluster(&found[..size])?);
            }
            waiting(&format!("{} of {size} members have registered", found.len()));
            self.wait(index + 1).await?;
        }
    }

    async fn size(&self) -> Result<usize, Trouble> {
        let url = self.url.to_string();
        let answer = self.ask(Request::get(self.url.below("/_config/size"))).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Err(DiscoveryError::NoSize { url }.into());
        }
        let size = self.event(&answer)?.node.and_then(|node| node.value).unwrap_or_default();
        let number = size.parse().ok().filter(|number| (1..=SIZE_MAX).contains(number));
        number.ok_or_else(|| DiscoveryError::BadSize { url, size }.into())
    }

    /// Returns who has registered, in the order of registration, and the index of the store.
    async fn registered(&self) -> Result<(Vec<Node>, u64), Trouble> {
        let answer = self.ask(Request::get(self.url.below(""))).await?;
        let index = answer.headers.get("x-etcd-index").and_then(|value| value.to_str().ok());
        let index = index.and_then(|text| text.parse().ok()).unwrap_or_default();
        let mut nodes = self.event(&answer)?.node.map(|node| node.nodes).unwrap_or_default();
        nodes.retain(|node| !node.dir && node.value.is_some() && !node.key.ends_with("/_config"));
        nodes.sort_by_key(|node| node.created_index);
        Ok((nodes, index))
    }

    /// A member that is not among the first `size` has no place.
    fn check_place(&self, found: &[Node], size: usize) -> Result<(), DiscoveryError> {
        let taken = found.iter().take(size);
        if found.len() >= size && !taken.clone().any(|node| self.is_own(node)) {
            return Err(DiscoveryError::Full { url: self.url.to_string(), size });
        }
        Ok(())
    }

    async fn register(&self) -> Result<(), Trouble> {
        let target = self.url.below(&format!("/{}?prevExist=false", self.id));
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("value", &self.own)
            .finish();
        let put =
            Request::new(Method::PUT, target).with_body("application/x-www-form-urlencoded", form);
        let answer = self.ask(put).await?;
        if answer.status.is_success() {
            return Ok(());
        }
        let refused: Option<KeysError> = serde_json::from_slice(&answer.body).ok();
        if refused.is_some_and(|error| error.is(Code::NodeExist)) {
            // Ours, from before a restart, or of an answer that was lost?
            let (found, _) = self.registered().await?;
            if found.iter().any(|node| self.is_own(node) && node.value.as_ref() == Some(&self.own))
            {
                return Ok(());
            }
            return Err(DiscoveryError::DuplicateId { id: self.id.clone() }.into());
        }
        Err(self.bad_endpoint(&answer).into())
    }

    /// Waits for the next registration, for a while.
    async fn wait(&self, index: u64) -> Result<(), Trouble> {
        let target = self.url.below(&format!("?wait=true&recursive=true&waitIndex={index}"));
        let asked = self.http.call(&self.url.origin, Request::get(target));
        match tokio::time::timeout(WAIT, asked).await {
            // Whatever it was, the list is read again.
            Ok(Ok(_)) | Err(_) => Ok(()),
            Ok(Err(error)) => Err(away(&error)),
        }
    }

    async fn ask(&self, request: Request) -> Result<Response, Trouble> {
        let answer = self.http.call(&self.url.origin, request.within(CALL)).await;
        let answer = answer.map_err(|error| away(&error))?;
        if answer.status.is_server_error() {
            return Err(Trouble::Away(format!("it answered {}", answer.status)));
        }
        Ok(answer)
    }

    fn event(&self, answer: &Response) -> Result<Event, DiscoveryError> {
        serde_json::from_slice(&answer.body).map_err(|_| self.bad_endpoint(answer))
    }

    fn bad_endpoint(&self, answer: &Response) -> DiscoveryError {
        let status = answer.status.as_u16();
        DiscoveryError::BadEndpoint { url: self.url.to_string(), status }
    }

    fn is_own(&self, node: &Node) -> bool {
        node.key.rsplit('/').next() == Some(&self.id)
    }
}

fn away(error: &HttpError) -> Trouble {
    Trouble::Away(chain(error))
}

/// Joins what the members registered.
fn cluster(found: &[Node]) -> Result<String, DiscoveryError> {
    let values: Vec<&str> = found.iter().filter_map(|node| node.value.as_deref()).collect();
    let mut names = std::collections::BTreeSet::new();
    for value in &values {
        let name = value.split('=').next().unwrap_or_default();
        if !names.insert(name) {
            return Err(DiscoveryError::DuplicateName { name: name.to_owned() });
        }
    }
    Ok(values.join(","))
}
