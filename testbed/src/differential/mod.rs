//! Random requests from a seed to a member of ours and to a real etcd, which must say the same.
//!
//! ```text
//!   chance ─▶ v2, v3: what is asked next ─▶ story_v2, story_v3: both are asked, and wait together
//!                                             │    waits_v2, watches_v3: answers that go on
//!                    known: what may differ ─▶ difference: all else is equal, field by field
//! ```
//! The v3 API is asked in JSON through the gateway, but for watches and `HashKV`, which are gRPC.
//!
//! **Not here:** what depends on time, such as a lease that ends; clusters of several members.

pub mod chance;
mod known;
mod story_v2;
mod story_v3;
pub mod v2;
pub mod v3;
mod waits_v2;
mod watches_v3;

use std::collections::{BTreeMap, VecDeque};
use std::fmt::{self, Debug};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::differential::chance::Chance;
use crate::error::LabError;
use crate::etcd::{Member, Site};
use crate::http::{Answer, Request};

/// Which API is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// The v2 API, beside etcd 3.4.23.
    V2,
    /// The v3 API, beside etcd 3.5.1.
    V3,
}

impl Api {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::V2 => "v2",
            Self::V3 => "v3",
        }
    }

    /// The folder of the etcd it is compared with.
    fn peer(self) -> &'static str {
        match self {
            Self::V2 => "debian",
            Self::V3 => "pypi",
        }
    }
}

/// A request of either API, as HTTP carries it; or, with the path of a method of gRPC, its fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The method.
    pub method: &'static str,
    /// Path and query.
    pub path: String,
    /// The body with its content type.
    pub body: Option<(&'static str, String)>,
}

/// What is compared of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// The status code.
    pub status: u16,
    /// Some headers.
    pub headers: BTreeMap<String, String>,
    /// The body; text where it is no JSON.
    pub body: Value,
}

/// Headers that are compared.
const HEADERS: &[&str] = &["content-type", "x-etcd-index", "allow"];
/// Headers that both must have or neither.
const OWN_HEADERS: &[&str] = &["x-etcd-cluster-id", "x-raft-index", "x-raft-term"];
/// Fields that both must have or neither: who answered, and in which term.
const OWN_FIELDS: &[&str] = &["cluster_id", "member_id", "raft_term"];

impl Seen {
    /// Takes what is compared from an answer with this body.
    #[must_use]
    pub fn of(answer: &Answer, mut body: Value) -> Self {
        let mut headers = BTreeMap::new();
        for name in HEADERS.iter().chain(OWN_HEADERS) {
            if let Some(value) = answer.header(name) {
                let own = OWN_HEADERS.contains(name);
                headers.insert((*name).to_owned(), if own { "" } else { value }.to_owned());
            }
        }
        each_field(&mut body, &mut |name, value| {
            if OWN_FIELDS.contains(&name) {
                *value = Value::Null;
            }
        });
        Self { status: answer.status, headers, body }
    }

    /// A body without an answer of HTTP around it.
    fn body(body: Value) -> Self {
        Self { status: 200, headers: BTreeMap::new(), body }
    }
}

/// Most characters of a body that are shown.
const SHOWN_CHARS: usize = 3000;

impl fmt::Display for Seen {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = self.body.to_string();
        let shown: String = body.chars().take(SHOWN_CHARS).collect();
        let more = if shown.len() < body.len() { " …" } else { "" };
        write!(to, "{} {:?} {shown}{more}", self.status, self.headers)
    }
}

/// Reads a body.
fn json(body: &str) -> Value {
    serde_json::from_str(body).unwrap_or_else(|_| Value::from(body))
}

/// The sentence about two answers that differ, unless it is known that they do.
///
/// `apart` is how many seconds may lie between the two being asked: time that is counted may differ
/// by so much.
#[must_use]
pub fn difference(asked: &Asked, ours: &Seen, theirs: &Seen, apart: i64) -> Option<String> {
    let (mut left, mut right) = (ours.clone(), theirs.clone());
    known::even_out(asked, &mut left, &mut right);
    let counts = asked.path.starts_with("/v2/") || asked.path == "/v3/lease/timetolive";
    let apart = if counts { apart } else { 0 };
    let found = if (left.status, &left.headers) == (right.status, &right.headers) {
        differs("", &left.body, &right.body, apart)?
    } else {
        "status or headers".to_owned()
    };
    Some(format!("{asked:?}\ndiffer in {found}\n  ours:   {ours}\n  theirs: {theirs}"))
}

/// Finds the first part of two values that differs; its path from `path` on.
fn differs(path: &str, ours: &Value, theirs: &Value, apart: i64) -> Option<String> {
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => {
            let names = ours.keys().chain(theirs.keys().filter(|name| !ours.contains_key(*name)));
            let mut found = names.filter_map(|name| {
                let path = format!("{path}.{name}");
                match (ours.get(name), theirs.get(name)) {
                    (Some(ours), Some(theirs)) => differs(&path, ours, theirs, apart),
                    _ => Some(path),
                }
            });
            found.next()
        }
        (Value::Array(ours), Value::Array(theirs)) => {
            let both = ours.iter().zip(theirs).enumerate();
            let mut found = both.filter_map(|(at, (ours, theirs))| {
                differs(&format!("{path}.{at}"), ours, theirs, apart)
            });
            let longer = || format!("{path}.{}", ours.len().min(theirs.len()));
            found.next().or_else(|| (ours.len() != theirs.len()).then(longer))
        }
        _ => {
            let name = path.rsplit('.').next().unwrap_or_default();
            let equal = ours == theirs || (apart > 0 && near(name, ours, theirs, apart));
            (!equal).then(|| format!("{path}: {ours} and {theirs}"))
        }
    }
}

/// Tells whether both are the end of something that lives for a time, or how long it still does,
/// and that about the same.
fn near(name: &str, ours: &Value, theirs: &Value, apart: i64) -> bool {
    let seconds = |value: &Value| match name {
        "ttl" => value.as_i64(),
        "TTL" => value.as_str()?.parse().ok(),
        "expiration" => moment(value.as_str()?),
        _ => None,
    };
    match (seconds(ours), seconds(theirs)) {
        (Some(ours), Some(theirs)) => (ours - theirs).abs() <= apart,
        _ => false,
    }
}

/// The seconds of a time such as `2026-11-24T10:47:42.1Z`, from some day on.
fn moment(text: &str) -> Option<i64> {
    let whole = text.strip_suffix('Z')?.split('.').next()?;
    let numbers: Option<Vec<i64>> =
        whole.split(['-', 'T', ':']).map(|number| number.parse().ok()).collect();
    let [year, month, day, hour, minute, second] = numbers?[..] else { return None };
    // As if March began the year: its days before a month are then those of a line.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leaps = year / 4 - year / 100 + year / 400;
    let days = 365 * year + leaps + (153 * month + 2) / 5 + day;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

/// Changes each field of each object.
fn each_field(value: &mut Value, change: &mut impl FnMut(&str, &mut Value)) {
    match value {
        Value::Object(fields) => {
            fields.iter_mut().for_each(|(name, value)| change(name, value));
            fields.values_mut().for_each(|value| each_field(value, change));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| each_field(item, change)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Tells a seed's story to a new member of each; returns how they differ, if they do.
pub fn tell(
    api: Api,
    peers: &Path,
    site: &Site,
    seed: u64,
    requests: usize,
) -> Result<Option<String>, LabError> {
    let mut pair = Pair::start(api, peers, site)?;
    let chance = Chance::new(seed);
    let mut so_far = SoFar::default();
    let found = match api {
        Api::V2 => story_v2::tell(&mut pair, chance, requests, &mut so_far)?,
        Api::V3 => story_v3::tell(&mut pair, chance, requests, &mut so_far)?,
    };
    Ok(found.map(|found| {
        let number = so_far.number;
        let before: Vec<_> = so_far.last.into();
        let name = api.name();
        format!(
            "{name}, seed {seed}: they differ at request {number}, after these:\n  {}\n{found}\n\
             `cargo xtask differential --api {name} --seeds {seed}..{} --requests {}` tells it again",
            before.join("\n  "),
            seed + 1,
            number + 1,
        )
    }))
}

/// How many requests are shown with a difference.
const SHOWN: usize = 10;

/// The last requests.
#[derive(Debug, Default)]
struct SoFar {
    number: usize,
    last: VecDeque<String>,
}

impl SoFar {
    fn add(&mut self, number: usize, asked: &impl Debug) {
        if self.last.len() == SHOWN {
            self.last.pop_front();
        }
        self.number = number;
        self.last.push_back(format!("{number}: {asked:?}"));
    }
}

/// Ours and the etcd that it is compared with.
#[derive(Debug)]
struct Pair {
    ours: Member,
    theirs: Member,
    /// The longest that one request to both has taken.
    longest: Duration,
}

impl Pair {
    fn start(api: Api, peers: &Path, site: &Site) -> Result<Self, LabError> {
        let program = peers.join(api.peer()).join("etcd");
        if !program.exists() {
            let missing = format!("{} is not there; `cargo xtask test cluster`", program.display());
            return Err(LabError::Missing(missing));
        }
        let alone = |name| site.cluster(&[name]).map(|mut members| members.remove(0));
        let mut ours = alone("ours")?;
        let mut theirs = alone("theirs")?.by(&program).flag("enable-v2", "true");
        ours.start()?;
        theirs.start_healthy()?;
        ours.healthy()?;
        Ok(Self { ours, theirs, longest: Duration::ZERO })
    }

    /// Asks one after the other.
    fn ask(&mut self, asked: &Asked) -> Result<[Answer; 2], LabError> {
        let start = Instant::now();
        let body = asked.body.as_ref().map(|(kind, body)| (*kind, body.as_str()));
        let request = Request { method: asked.method, path: &asked.path, body };
        let answers = [self.ours.ask(&request)?, self.theirs.ask(&request)?];
        self.longest = self.longest.max(start.elapsed());
        Ok(answers)
    }

    /// How many seconds lie between the two, where time is rounded.
    fn apart(&self) -> i64 {
        1 + i64::try_from(self.longest.as_millis().div_ceil(1000)).unwrap_or(i64::MAX - 1)
    }
}

#[cfg(test)]
mod tests;
