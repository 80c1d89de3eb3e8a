//! Where a service listens, as people write it: `http://host:port/path`, `unix:///path`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// What a connection is made to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A host and a TCP port.
    Tcp {
        /// A name or an address, an IPv6 address without its brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// A unix socket.
    Unix(PathBuf),
}

impl Origin {
    /// Returns what the `Host` header says.
    pub fn host_header(&self) -> String {
        match self {
            Self::Tcp { host, port: HTTP_PORT } => bracketed(host),
            Self::Tcp { host, port } => format!("{}:{port}", bracketed(host)),
            Self::Unix(_) => "localhost".to_owned(),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { .. } => write!(f, "http://{}", self.host_header()),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// The port of `http://` where none is written.
const HTTP_PORT: u16 = 80;

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

/// An origin, and what to ask it for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Url {
    /// What to connect to.
    pub origin: Origin,
    /// The path and the query, `/` first. A unix socket's URL has no room for one: `/`.
    pub target: String,
}

impl Url {
    /// Returns the target of `path` below this URL's own path.
    pub fn below(&self, path: &str) -> String {
        let base = self.target.split('?').next().unwrap_or_default();
        format!("{}{path}", base.trim_end_matches('/'))
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = if self.target == "/" { "" } else { &self.target };
        write!(f, "{}{target}", self.origin)
    }
}

/// Why a text is no URL that we can use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// It asks for TLS.
    #[error("`{url}` asks for TLS, which is not served yet; write `http://` instead")]
    Tls {
        /// The text.
        url: String,
    },
    /// It is something else.
    #[error("`{url}` is no URL such as `http://127.0.0.1:2379` or `unix:///run/a.sock`")]
    Malformed {
        /// The text.
        url: String,
    },
}

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let malformed = || UrlError::Malformed { url: text.to_owned() };
        if text.starts_with("https://") || text.starts_with("unixs://") {
            return Err(UrlError::Tls { url: text.to_owned() });
        }
        if let Some(path) = text.strip_prefix("unix://") {
            let absolute = path.starts_with('/').then(|| PathBuf::from(path));
            let origin = Origin::Unix(absolute.ok_or_else(malformed)?);
            return Ok(Self { origin, target: "/".to_owned() });
        }
        let uri: http::Uri = text.parse().map_err(|_| malformed())?;
        let authority = uri.authority().ok_or_else(malformed)?;
        if uri.scheme_str() != Some("http") || authority.as_str().contains('@') {
            return Err(malformed());
        }
        let port = match authority.port() {
            Some(port) => port.as_str().parse().map_err(|_| malformed())?,
            None if authority.as_str().ends_with(':') => return Err(malformed()),
            None => HTTP_PORT,
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(malformed());
        }
        let target = uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
        Ok(Self { origin: Origin::Tcp { host, port }, target })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, shown: &str) {
        let parsed =
            text.parse::<Url>().map_or_else(|error| error.to_string(), |url| url.to_string());
        assert_eq!(parsed, shown);
    }

    #[test]
    fn a_url_is_shown_as_it_was_written() {
        check("http://127.0.0.1:2379", "http://127.0.0.1:2379");
        check("http://core-1/", "http://core-1");
        check("http://core-1:80/x?y=z", "http://core-1/x?y=z");
        check("http://[fe80::1]:4001/", "http://[fe80::1]:4001");
        check("unix:///run/fleet.sock", "unix:///run/fleet.sock");
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_what_to_write() {
        check(
            "https://core-1:2379",
            "`https://core-1:2379` asks for TLS, which is not served yet; write `http://` instead",
        );
        for text in ["127.0.0.1:2379", "core-1", "unix://run", "http://", "http://me:pw@host", ""] {
            let refused = text.parse::<Url>().unwrap_err();
            assert_eq!(refused, UrlError::Malformed { url: text.to_owned() }, "{text}");
        }
    }

    #[test]
    fn a_path_goes_below_the_urls_own() {
        let url: Url = "http://gateway/etcd/?x=y".parse().unwrap();
        assert_eq!(url.below("/v2/keys"), "/etcd/v2/keys");
    }
}
