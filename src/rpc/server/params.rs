//! From the words of a v2 request to commands and reads. Pure.
//!
//! Source: the specification A.2, with etcd's texts for what is wrong.

use crate::rpc::server::form::{self, FormError};
use crate::store::event::{Code, Refusal};
use crate::store::{Command, Compare, Delete, Expect, Put};

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// A read.
    Get {
        /// With everything below.
        recursive: bool,
        /// Not stale.
        quorum: bool,
    },
    /// To be told of a change.
    Wait {
        /// Everything below too.
        recursive: bool,
        /// The index to begin at; now, if `None`.
        since: Option<u64>,
        /// Go on after the first.
        stream: bool,
    },
    /// A write.
    Write {
        /// What to do.
        command: Command,
        /// Do not send the value back.
        no_value_on_success: bool,
    },
}

/// A word that Go's `ParseBool` does not know.
struct NeitherTrueNorFalse;

/// Parameters by name; of two with one name the first counts.
#[derive(Debug, Clone, Default)]
pub struct Params(Vec<(String, String)>);

impl Params {
    /// Reads the form body, which takes precedence, and the query.
    pub fn parse(body: &[u8], query: &[u8]) -> Result<Self, Refusal> {
        let wrong = |error: FormError| refuse(Code::InvalidForm, error.to_string());
        let mut pairs = form::pairs(body).map_err(wrong)?;
        pairs.extend(form::pairs(query).map_err(wrong)?);
        Ok(Self(pairs))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Takes a parameter that nothing else asks for.
    fn take(&mut self, name: &str) -> String {
        let found = self.0.iter_mut().find(|(known, _)| known == name);
        found.map(|(_, value)| std::mem::take(value)).unwrap_or_default()
    }

    fn flag(&self, name: &str) -> Result<bool, Refusal> {
        let wrong = || refuse(Code::InvalidField, format!("invalid value for \"{name}\""));
        Ok(self.maybe_flag(name).map_err(|NeitherTrueNorFalse| wrong())?.unwrap_or_default())
    }

    fn maybe_flag(&self, name: &str) -> Result<Option<bool>, NeitherTrueNorFalse> {
        match self.get(name) {
            None => Ok(None),
            Some("1" | "t" | "T" | "TRUE" | "true" | "True") => Ok(Some(true)),
            Some("0" | "f" | "F" | "FALSE" | "false" | "False") => Ok(Some(false)),
            Some(_) => Err(NeitherTrueNorFalse),
        }
    }

    fn index(&self, name: &str) -> Result<u64, Refusal> {
        let Some(text) = self.get(name) else { return Ok(0) };
        number(text).ok_or_else(|| refuse(Code::IndexNaN, format!("invalid value for \"{name}\"")))
    }

    fn ttl(&self) -> Result<Option<u64>, Refusal> {
        let Some(text) = self.get("ttl").filter(|text| !text.is_empty()) else { return Ok(None) };
        let wrong = || refuse(Code::TtlNaN, "invalid value for \"ttl\"".to_owned());
        number(text).map(Some).ok_or_else(wrong)
    }

    /// Reads a flag that is not the same when it is false and when it is missing.
    fn choice(&self, name: &str) -> Result<Option<bool>, Refusal> {
        let wrong = || refuse(Code::InvalidField, format!("invalid value for {name}"));
        self.maybe_flag(name).map_err(|NeitherTrueNorFalse| wrong())
    }

    fn prev_value(&self) -> Result<String, Refusal> {
        if self.get("prevValue") == Some("") {
            let cause = "\"prevValue\" cannot be empty".to_owned();
            return Err(refuse(Code::PrevValueRequired, cause));
        }
        Ok(self.get("prevValue").unwrap_or_default().to_owned())
    }

    fn refresh(&self, ttl: Option<u64>) -> Result<bool, Refusal> {
        let refresh = self.choice("refresh")?.unwrap_or_default();
        if refresh && self.get("value").is_some_and(|value| !value.is_empty()) {
            let cause = "A value was provided on a refresh".to_owned();
            return Err(refuse(Code::RefreshValue, cause));
        }
        if refresh && ttl.is_none() {
            return Err(refuse(Code::RefreshTtlRequired, "No TTL value set".to_owned()));
        }
        Ok(refresh)
    }
}

/// Reads a number of digits alone.
fn number(text: &str) -> Option<u64> {
    if text.starts_with('+') { None } else { text.parse().ok() }
}

fn refuse(code: Code, cause: String) -> Refusal {
    Refusal { code, cause, index: 0 }
}

/// The HTTP methods of `/v2/keys`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// `GET`.
    Get,
    /// `HEAD`, which never asks a quorum and never waits.
    Head,
    /// `PUT`.
    Put,
    /// `POST`.
    Post,
    /// `DELETE`.
    Delete,
}

/// Reads a request; `path` is clean. Every parameter is looked at, in etcd's order, whatever the
/// method is.
pub fn parse(method: Method, path: &str, mut params: Params) -> Result<Asked, Refusal> {
    let prev_index = params.index("prevIndex")?;
    let wait_index = params.index("waitIndex")?;
    let recursive = params.flag("recursive")?;
    let _sorted = params.flag("sorted")?;
    let wait = params.flag("wait")?;
    let dir = params.flag("dir")?;
    let quorum = params.flag("quorum")?;
    let stream = params.flag("stream")?;
    if wait && method != Method::Get {
        let cause = "\"wait\" can only be used with GET requests".to_owned();
        return Err(refuse(Code::InvalidField, cause));
    }
    let compare = Compare { value: params.prev_value()?, index: prev_index };
    let no_value_on_success = params.flag("noValueOnSuccess")?;
    let ttl = params.ttl()?;
    let prev_exist = params.choice("prevExist")?;
    let refresh = params.refresh(ttl)?;
    let mut written = || (path.to_owned(), params.take("value"));
    let command = match method {
        // As etcd: who asks a quorum is answered at once.
        Method::Get if wait && !quorum => {
            let since = Some(wait_index).filter(|index| *index != 0);
            return Ok(Asked::Wait { recursive, since, stream });
        }
        Method::Get => return Ok(Asked::Get { recursive, quorum }),
        Method::Head => return Ok(Asked::Get { recursive, quorum: false }),
        Method::Delete => {
            Command::Delete(Delete { path: path.to_owned(), dir, recursive, compare })
        }
        Method::Post => {
            let (path, value) = written();
            Command::Append { path, value, ttl, dir }
        }
        Method::Put => {
            let (path, value) = written();
            let expect = expectation(prev_exist, compare);
            Command::Put(Put { path, value, dir, ttl, expect, refresh })
        }
    };
    Ok(Asked::Write { command, no_value_on_success })
}

fn expectation(prev_exist: Option<bool>, compare: Compare) -> Expect {
    match prev_exist {
        Some(false) => Expect::Absent,
        _ if !compare.is_empty() => Expect::Equal(compare),
        Some(true) => Expect::Present,
        None => Expect::Anything,
    }
}

/// Decodes the path behind `/v2/keys`, and cleans it.
pub fn key_path(encoded: &str) -> String {
    let decoded = percent_encoding::percent_decode_str(encoded).decode_utf8_lossy();
    crate::store::tree_v2::clean(&decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: Method, query: &str) -> Result<Asked, (Code, String)> {
        let params = Params::parse(b"", query.as_bytes()).unwrap();
        parse(method, "/k", params).map_err(|refusal| (refusal.code, refusal.cause))
    }

    fn expects(query: &str) -> Expect {
        let Ok(Asked::Write { command: Command::Put(put), .. }) = asked(Method::Put, query) else {
            panic!("{query} is no put")
        };
        put.expect
    }

    #[test]
    fn the_dispatch_of_a_put_is_that_of_etcd() {
        let equal = |value: &str, index| Expect::Equal(Compare { value: value.into(), index });
        for (query, expected) in [
            ("", Expect::Anything),
            ("prevExist=true", Expect::Present),
            ("prevExist=true&prevIndex=3", equal("", 3)),
            ("prevExist=false&prevValue=x", Expect::Absent),
            ("prevValue=x&prevIndex=3", equal("x", 3)),
            ("prevIndex=0", Expect::Anything),
        ] {
            assert_eq!(expects(query), expected, "{query}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_in_the_words_of_etcd() {
        for (method, query, code, cause) in [
            (Method::Get, "wait", Code::InvalidField, "invalid value for \"wait\""),
            (
                Method::Get,
                "wait=true&waitIndex=x",
                Code::IndexNaN,
                "invalid value for \"waitIndex\"",
            ),
            (Method::Put, "prevExist=x", Code::InvalidField, "invalid value for prevExist"),
            (Method::Put, "prevValue=", Code::PrevValueRequired, "\"prevValue\" cannot be empty"),
            (Method::Put, "ttl=x", Code::TtlNaN, "invalid value for \"ttl\""),
            (Method::Put, "ttl=-1", Code::TtlNaN, "invalid value for \"ttl\""),
            (Method::Put, "ttl=%2B1", Code::TtlNaN, "invalid value for \"ttl\""),
            (Method::Put, "refresh=true", Code::RefreshTtlRequired, "No TTL value set"),
            (Method::Put, "refresh=x", Code::InvalidField, "invalid value for refresh"),
            (Method::Get, "prevExist=x", Code::InvalidField, "invalid value for prevExist"),
            (
                Method::Head,
                "wait=true",
                Code::InvalidField,
                "\"wait\" can only be used with GET requests",
            ),
        ] {
            assert_eq!(asked(method, query).unwrap_err(), (code, cause.to_owned()), "{query}");
        }
    }

    #[test]
    fn only_a_get_asks_a_quorum_and_then_it_does_not_wait() {
        let read = |method, query| asked(method, query).unwrap();
        let local = Asked::Get { recursive: false, quorum: false };
        let quorum = Asked::Get { recursive: false, quorum: true };
        assert_eq!(read(Method::Get, "quorum=T&wait=1&waitIndex=4"), quorum);
        assert_eq!(read(Method::Head, "quorum=true"), local);
    }

    #[test]
    fn a_form_that_cannot_be_read_is_refused() {
        let refused = Params::parse(b"value=%zz", b"").unwrap_err();
        assert_eq!((refused.code, refused.index), (Code::InvalidForm, 0));
        assert_eq!(refused.cause, "invalid URL escape \"%zz\"");
    }

    #[test]
    fn the_body_counts_before_the_query() {
        let params = Params::parse(b"value=body", b"value=query&ttl=5").unwrap();
        assert_eq!(params.get("value"), Some("body"));
        assert_eq!(params.ttl().unwrap(), Some(5));
    }

    #[test]
    fn a_path_is_decoded_before_it_is_cleaned() {
        assert_eq!(key_path("/a%20b//c%2Fd/"), "/a b/c/d");
        assert_eq!(key_path(""), "/");
    }
}
