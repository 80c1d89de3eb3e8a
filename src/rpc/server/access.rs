//! Who may use the client port from a browser: pages by their origin (`--cors`), and names under
//! which the server is called (`--host-whitelist`, against DNS rebinding).

use http::{HeaderValue, Request, header};

/// Stands for everything.
const ANY: &str = "*";

/// What is allowed. Without names everything is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// Origins of pages, such as `https://example.com`.
    pub origins: Vec<String>,
    /// Names of this server, without a port.
    pub hosts: Vec<String>,
}

impl Access {
    /// Tells whether the server may be called by the name that this request calls it.
    pub fn allows_host<B>(&self, request: &Request<B>) -> bool {
        if is_open(&self.hosts) {
            return true;
        }
        let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
        let host = host.or_else(|| request.uri().host()).unwrap_or_default();
        self.hosts.iter().any(|known| known == without_port(host))
    }

    /// Returns the origin to which the answer is open, if to any.
    pub fn origin<B>(&self, request: &Request<B>) -> Option<HeaderValue> {
        if is_open(&self.origins) {
            return Some(HeaderValue::from_static(ANY));
        }
        let origin = request.headers().get(header::ORIGIN)?;
        self.origins
            .iter()
            .any(|known| known.as_bytes() == origin.as_bytes())
            .then(|| origin.clone())
    }
}

fn is_open(names: &[String]) -> bool {
    names.is_empty() || names.iter().any(|name| name == ANY)
}

/// Returns `a` of `a:1` and `::1` of `[::1]:1`.
fn without_port(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or_default();
    }
    host.rsplit_once(':').map_or(host, |(host, _)| host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(host: &str, origin: &str) -> Request<()> {
        let builder = Request::get("/").header(header::HOST, host);
        builder.header(header::ORIGIN, origin).body(()).unwrap()
    }

    #[test]
    fn without_names_everyone_is_served() {
        let open = Access::default();
        assert!(open.allows_host(&request("x", "http://a")));
        assert_eq!(open.origin(&request("x", "http://a")).unwrap(), "*");
        let star = Access { origins: vec!["*".into()], hosts: vec!["a".into(), "*".into()] };
        assert!(star.allows_host(&request("x", "http://a")));
    }

    #[test]
    fn with_names_only_those_are_served() {
        let access =
            Access { origins: vec!["http://a".into()], hosts: vec!["a".into(), "::1".into()] };
        for (host, allowed) in
            [("a", true), ("a:1", true), ("[::1]:1", true), ("b:1", false), ("", false)]
        {
            assert_eq!(access.allows_host(&request(host, "http://a")), allowed, "{host}");
        }
        assert_eq!(access.origin(&request("a", "http://a")).unwrap(), "http://a");
        assert_eq!(access.origin(&request("a", "http://b")), None);
    }
}
