//! `/v2/members` and `/v2/machines`: who the members are.
//!
//! What is wrong with a change is said in etcd's words; a change that would be right is refused,
//! since the members cannot be changed yet. Source: the specification A.5.

use axum::body::Body;
use axum::response::Response;
use http::{Method, Request, StatusCode, header};
use serde::Deserialize;

use crate::consensus::Member;
use crate::rpc::server::answer::{
    JSON, json_answer, message, not_allowed, plainly, set_cluster, text, to_line,
};
use crate::rpc::server::body;

/// What a change is told that is right but for the time.
const LATER: &str = "changing the members is not there yet; begin with all of them";

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

/// Answers `/v2/machines`.
pub(super) fn machines(member: &Member, method: &Method) -> Response {
    if method != Method::GET && method != Method::HEAD {
        return not_allowed("GET,HEAD");
    }
    let urls: Vec<_> =
        member_list(member).into_iter().flat_map(|member| member.client_urls).collect();
    text(StatusCode::OK, &urls.join(", "))
}

/// Answers what is below `/v2/members`; `rest` is the path behind it.
pub(super) async fn members(member: &Member, rest: &str, request: Request<Body>) -> Response {
    let rest = rest.strip_prefix('/').unwrap_or(rest);
    let mut response = match *request.method() {
        Method::GET => look(member, rest),
        Method::POST => match wanted_urls(request).await {
            Ok(urls) => refuse_urls(member, &urls),
            Err(refused) => refused,
        },
        Method::PUT => match known(member, rest) {
            Ok(()) | Err(Unknown::Number) => match wanted_urls(request).await {
                Ok(_) if known(member, rest).is_err() => no_such(rest),
                Ok(urls) => refuse_urls(member, &urls),
                Err(refused) => refused,
            },
            Err(unknown) => unknown.refuse(rest),
        },
        Method::DELETE => match known(member, rest) {
            Ok(()) => message(StatusCode::NOT_IMPLEMENTED, LATER),
            Err(unknown) => unknown.refuse(rest),
        },
        _ => return not_allowed("GET,POST,DELETE,PUT"),
    };
    set_cluster(&mut response, member.cluster());
    response
}

fn look(member: &Member, rest: &str) -> Response {
    match rest {
        "" => {
            let list = MemberList { members: member_list(member) };
            json_answer(StatusCode::OK, to_line(&list))
        }
        "leader" => {
            let leader = member.status().leader.map(|id| format!("{id:x}"));
            let known = member_list(member);
            match known.into_iter().find(|member| Some(&member.id) == leader.as_ref()) {
                Some(member) => json_answer(StatusCode::OK, to_line(&member)),
                None => message(StatusCode::SERVICE_UNAVAILABLE, "During election"),
            }
        }
        _ => message(StatusCode::NOT_FOUND, "Not found"),
    }
}

/// What stands where a member's number should.
enum Unknown {
    /// Nothing.
    Missing,
    /// Something that is no number.
    Word,
    /// A number that no member has.
    Number,
}

impl Unknown {
    fn refuse(&self, rest: &str) -> Response {
        match self {
            Self::Missing => plainly(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n"),
            Self::Word | Self::Number => no_such(rest),
        }
    }
}

fn no_such(rest: &str) -> Response {
    message(StatusCode::NOT_FOUND, &format!("No such member: {rest}"))
}

fn known(member: &Member, rest: &str) -> Result<(), Unknown> {
    if rest.is_empty() {
        return Err(Unknown::Missing);
    }
    let id = u64::from_str_radix(rest, 16).map_err(|_| Unknown::Word)?;
    let found = member.members().iter().any(|(known, _)| *known == id);
    if found { Ok(()) } else { Err(Unknown::Number) }
}

fn refuse_urls(member: &Member, urls: &[String]) -> Response {
    let taken =
        |url: &String| member.members().iter().any(|(_, peer)| peer.peer_urls.contains(url));
    if urls.iter().any(taken) {
        return message(StatusCode::CONFLICT, "membership: peerURL exists");
    }
    message(StatusCode::NOT_IMPLEMENTED, LATER)
}

#[derive(Deserialize)]
struct Wanted {
    #[serde(rename = "peerURLs", default)]
    peer_urls: Vec<String>,
}

/// Reads the peer URLs that a change is about.
async fn wanted_urls(request: Request<Body>) -> Result<Vec<String>, Response> {
    let kind = request.headers().get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = match kind.split_once(';') {
        Some((kind, _)) => kind.to_lowercase().trim().to_owned(),
        None => kind.to_owned(),
    };
    if kind != JSON {
        let said = format!("Bad Content-Type {kind}, accept application/json");
        return Err(message(StatusCode::UNSUPPORTED_MEDIA_TYPE, &said));
    }
    let bad = |said: String| message(StatusCode::BAD_REQUEST, &said);
    let body = body::read(request.into_body()).await.map_err(|error| bad(error.to_string()))?;
    let wanted: Wanted = serde_json::from_slice(&body).map_err(|error| {
        bad(if error.is_eof() {
            "unexpected end of JSON input".to_owned()
        } else {
            error.to_string()
        })
    })?;
    check_urls(&wanted.peer_urls).map_err(bad)?;
    Ok(wanted.peer_urls)
}

/// Checks URLs of members, in the words of etcd.
fn check_urls(urls: &[String]) -> Result<(), String> {
    if urls.is_empty() {
        return Err("no valid URLs given".to_owned());
    }
    for url in urls {
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        if !["http", "https", "unix", "unixs"].contains(&scheme) {
            return Err(format!("URL scheme must be http, https, unix, or unixs: {url}"));
        }
        if scheme.starts_with("unix") {
            continue;
        }
        let (host, path) = rest.split_once('/').map_or((rest, ""), |(host, _)| (host, "/"));
        if host.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
            return Err(format!("URL address does not have the form \"host:port\": {url}"));
        }
        if !path.is_empty() {
            return Err(format!("URL must not contain a path: {url}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_url_is_said_in_the_words_of_etcd() {
        for (urls, said) in [
            (vec![], "no valid URLs given"),
            (vec!["bad"], "URL scheme must be http, https, unix, or unixs: bad"),
            (vec!["ftp://x:1"], "URL scheme must be http, https, unix, or unixs: ftp://x:1"),
            (vec!["http://x"], "URL address does not have the form \"host:port\": http://x"),
            (vec!["http://a:1", "http://x:1/p"], "URL must not contain a path: http://x:1/p"),
        ] {
            let urls: Vec<String> = urls.into_iter().map(str::to_owned).collect();
            assert_eq!(check_urls(&urls).unwrap_err(), said);
        }
        let good = ["http://[::1]:2380", "https://x:1", "unix:///run/x"].map(str::to_owned);
        assert_eq!(check_urls(&good), Ok(()));
    }
}
