//! The v3 API as JSON over HTTP, for those without gRPC: `POST /v3/kv/range` and its like.
//!
//! ```text
//!  POST, JSON ─▶ wire::etcd::v3::json ─▶ the gRPC router, in this process ─▶ json ─▶ JSON
//! ```
//! A table says which path is which method; all else is the method's own, down to its refusals. What
//! a method streams is an object on each line: `{"result":…}`, and at last perhaps `{"error":…}`.
//!
//! Source: the specification B.8.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::Response;
use bytes::{Buf as _, BytesMut};
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, HeaderName, HeaderValue, Method as Verb, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use serde_json::json;
use tonic::{Code, Status};

use crate::foundation::exit::chain;
use crate::foundation::limits::GATEWAY_BYTES_MAX;
use crate::rpc::server::answer::json_answer;
use crate::rpc::server::body::{self, BodyError};
use crate::rpc::server::v3::calls::Calls;
use crate::rpc::server::v3::errors;
use crate::rpc::server::v3::objects::Objects;
use crate::rpc::server::v3::whole::HEAD_BYTES;
use crate::wire::etcd::v3::json::{self, Method};

/// How long a client may take to send the body of a request that is one message.
const BODY_DEADLINE: Duration = Duration::from_mins(1);
/// What a header begins with that is meant for the method.
const METADATA: &str = "grpc-metadata-";

/// Which path is which method.
const ROUTES: &[(&str, &str)] = &[
    ("kv/range", "/etcdserverpb.KV/Range"),
    ("kv/put", "/etcdserverpb.KV/Put"),
    ("kv/deleterange", "/etcdserverpb.KV/DeleteRange"),
    ("kv/txn", "/etcdserverpb.KV/Txn"),
    ("kv/compaction", "/etcdserverpb.KV/Compact"),
    ("watch", "/etcdserverpb.Watch/Watch"),
    ("lease/grant", "/etcdserverpb.Lease/LeaseGrant"),
    ("lease/revoke", "/etcdserverpb.Lease/LeaseRevoke"),
    ("lease/keepalive", "/etcdserverpb.Lease/LeaseKeepAlive"),
    ("lease/timetolive", "/etcdserverpb.Lease/LeaseTimeToLive"),
    ("lease/leases", "/etcdserverpb.Lease/LeaseLeases"),
    ("kv/lease/revoke", "/etcdserverpb.Lease/LeaseRevoke"),
    ("kv/lease/timetolive", "/etcdserverpb.Lease/LeaseTimeToLive"),
    ("kv/lease/leases", "/etcdserverpb.Lease/LeaseLeases"),
    ("cluster/member/add", "/etcdserverpb.Cluster/MemberAdd"),
    ("cluster/member/remove", "/etcdserverpb.Cluster/MemberRemove"),
    ("cluster/member/update", "/etcdserverpb.Cluster/MemberUpdate"),
    ("cluster/member/list", "/etcdserverpb.Cluster/MemberList"),
    ("cluster/member/promote", "/etcdserverpb.Cluster/MemberPromote"),
    ("maintenance/alarm", "/etcdserverpb.Maintenance/Alarm"),
    ("maintenance/status", "/etcdserverpb.Maintenance/Status"),
    ("maintenance/defragment", "/etcdserverpb.Maintenance/Defragment"),
    ("maintenance/hash", "/etcdserverpb.Maintenance/Hash"),
    ("maintenance/hashkv", "/etcdserverpb.Maintenance/HashKV"),
    ("maintenance/snapshot", "/etcdserverpb.Maintenance/Snapshot"),
    ("maintenance/transfer-leadership", "/etcdserverpb.Maintenance/MoveLeader"),
    ("maintenance/downgrade", "/etcdserverpb.Maintenance/Downgrade"),
    ("auth/enable", "/etcdserverpb.Auth/AuthEnable"),
    ("auth/disable", "/etcdserverpb.Auth/AuthDisable"),
    ("auth/status", "/etcdserverpb.Auth/AuthStatus"),
    ("auth/authenticate", "/etcdserverpb.Auth/Authenticate"),
    ("auth/user/add", "/etcdserverpb.Auth/UserAdd"),
    ("auth/user/get", "/etcdserverpb.Auth/UserGet"),
    ("auth/user/list", "/etcdserverpb.Auth/UserList"),
    ("auth/user/delete", "/etcdserverpb.Auth/UserDelete"),
    ("auth/user/changepw", "/etcdserverpb.Auth/UserChangePassword"),
    ("auth/user/grant", "/etcdserverpb.Auth/UserGrantRole"),
    ("auth/user/revoke", "/etcdserverpb.Auth/UserRevokeRole"),
    ("auth/role/add", "/etcdserverpb.Auth/RoleAdd"),
    ("auth/role/get", "/etcdserverpb.Auth/RoleGet"),
    ("auth/role/list", "/etcdserverpb.Auth/RoleList"),
    ("auth/role/delete", "/etcdserverpb.Auth/RoleDelete"),
    ("auth/role/grant", "/etcdserverpb.Auth/RoleGrantPermission"),
    ("auth/role/revoke", "/etcdserverpb.Auth/RoleRevokePermission"),
    ("election/campaign", "/v3electionpb.Election/Campaign"),
    ("election/proclaim", "/v3electionpb.Election/Proclaim"),
    ("election/leader", "/v3electionpb.Election/Leader"),
    ("election/observe", "/v3electionpb.Election/Observe"),
    ("election/resign", "/v3electionpb.Election/Resign"),
    ("lock/lock", "/v3lockpb.Lock/Lock"),
    ("lock/unlock", "/v3lockpb.Lock/Unlock"),
];

/// Tells whether a path is the gateway's.
pub(super) fn serves(path: &str) -> bool {
    within(path).is_some()
}

/// Returns a path below the gateway's own: that of 3.4 and later, or that of 3.3 and 3.4.
fn within(path: &str) -> Option<&str> {
    path.strip_prefix("/v3/").or_else(|| path.strip_prefix("/v3beta/"))
}

fn method(path: &str) -> Option<&'static Method> {
    let path = within(path)?;
    let (_, method) = ROUTES.iter().find(|(route, _)| *route == path)?;
    json::method(method)
}

/// Answers a request by `grpc`.
pub(super) async fn answer(grpc: Calls, request: Request<Body>) -> Response {
    let Some(method) = method(request.uri().path()) else {
        return failure(&Status::not_found("Not Found"));
    };
    if request.method() != Verb::POST {
        return failure(&Status::unimplemented("Method Not Allowed"));
    }
    let (head, body) = request.into_parts();
    let body = if method.many_requests { Ok(many(method, body)) } else { one(method, body).await };
    let asked = match body {
        Ok(body) => call(method, &head.headers, body),
        Err(status) => return failure(&status),
    };
    let Ok(answer) = grpc.call(asked).await;
    if let Some(refused) = refusal(answer.headers()) {
        return failure(&refused);
    }
    let answers = Answers { method, body: answer.into_body(), arrived: BytesMut::new() };
    if method.many_answers { answers.all().await } else { answers.only().await }
}

/// Makes a call of gRPC.
fn call(method: &Method, headers: &HeaderMap, body: Body) -> Request<Body> {
    let mut request = Request::new(body);
    *request.method_mut() = Verb::POST;
    *request.uri_mut() = http::Uri::from_static(method.path);
    let asked = request.headers_mut();
    for (name, value) in headers {
        let meant = name.as_str().strip_prefix(METADATA);
        let meant = meant.or_else(|| (name == header::AUTHORIZATION).then_some("authorization"));
        if let Some(name) = meant.and_then(|name| HeaderName::try_from(name).ok()) {
            asked.append(name, value.clone());
        }
    }
    asked.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    asked.insert(header::TE, HeaderValue::from_static("trailers"));
    request
}

/// Puts a message into the frame of gRPC.
fn framed(message: &[u8]) -> Result<Bytes, Status> {
    let length = u32::try_from(message.len()).map_err(|_| errors::request_too_large())?;
    let mut frame = Vec::with_capacity(HEAD_BYTES + message.len());
    frame.push(0);
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(message);
    Ok(frame.into())
}

fn read(method: &Method, body: &[u8]) -> Result<Bytes, Status> {
    let message = json::read(method.input, body);
    let message = message.map_err(|error| Status::invalid_argument(chain(&error)))?;
    framed(&message)
}

/// Reads the only message of a request; nothing is a message without fields.
async fn one(method: &Method, body: Body) -> Result<Body, Status> {
    let body = body::read_within(body, GATEWAY_BYTES_MAX, BODY_DEADLINE).await;
    let body = body.map_err(|error| match error {
        BodyError::Late { .. } => Status::deadline_exceeded("the body did not come in time"),
        BodyError::TooLarge { bytes_max } => {
            Status::resource_exhausted(format!("the body is longer than {bytes_max} bytes"))
        }
        BodyError::Broken(why) => Status::cancelled(why),
    })?;
    let message: &[u8] = if body.trim_ascii().is_empty() { b"{}" } else { &body };
    read(method, message).map(Body::from)
}

/// Reads messages as they come, one after the other.
fn many(method: &'static Method, body: Body) -> Body {
    let asked = Asked { method, body, objects: Objects::new(GATEWAY_BYTES_MAX) };
    Body::from_stream(stream::try_unfold(asked, |mut asked| async move {
        Ok::<_, Status>(asked.next().await?.map(|frame| (frame, asked)))
    }))
}

/// What a client streams.
struct Asked {
    method: &'static Method,
    body: Body,
    objects: Objects,
}

impl Asked {
    async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        let wrong = |error| Status::invalid_argument(format!("{error}"));
        loop {
            if let Some(object) = self.objects.take().map_err(wrong)? {
                return read(self.method, &object).map(Some);
            }
            let frame = match self.body.frame().await {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Err(Status::cancelled(error.to_string())),
                None => return self.objects.end().map(|()| None).map_err(wrong),
            };
            if let Ok(data) = frame.into_data() {
                self.objects.add(&data);
            }
        }
    }
}

/// What a method answers.
struct Answers {
    method: &'static Method,
    body: Body,
    arrived: BytesMut,
}

impl Answers {
    /// Shows the only answer.
    async fn only(mut self) -> Response {
        match self.next().await {
            Ok(Some(shown)) => json_answer(StatusCode::OK, shown),
            Ok(None) => failure(&errors::no_answer()),
            Err(status) => failure(&status),
        }
    }

    /// Shows all answers as they come. What is refused at once has its own status.
    async fn all(mut self) -> Response {
        let first = self.next().await;
        if let Err(status) = &first {
            return json_answer(status_of(status.code()), wrapped("error", &shown(status)));
        }
        let lines = stream::unfold(Some((self, Some(first))), |state| async move {
            let (mut answers, waiting) = state?;
            let next = match waiting {
                Some(first) => first,
                None => answers.next().await,
            };
            match next {
                Ok(Some(answer)) => {
                    Some((line(&wrapped("result", &answer)), Some((answers, None))))
                }
                Ok(None) => None,
                Err(status) => Some((line(&wrapped("error", &shown(&status))), None)),
            }
        });
        let mut response = json_answer(StatusCode::OK, "");
        *response.body_mut() = Body::from_stream(lines.map(Ok::<_, Infallible>));
        response
    }

    /// Waits for the next answer, as JSON; `None` when that was all.
    async fn next(&mut self) -> Result<Option<String>, Status> {
        loop {
            if let Some(message) = self.take() {
                let shown = json::write(self.method.output, &message);
                return shown.map(Some).map_err(|error| Status::internal(error.to_string()));
            }
            let frame = match self.body.frame().await {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Err(Status::unknown(error.to_string())),
                None => return Ok(None),
            };
            match frame.into_data() {
                Ok(data) => self.arrived.extend_from_slice(&data),
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    return refusal(&trailers).map_or(Ok(None), Err);
                }
            }
        }
    }

    /// Takes the next message that is whole.
    fn take(&mut self) -> Option<BytesMut> {
        let head = self.arrived.get(1..HEAD_BYTES)?.try_into().ok()?;
        let length = usize::try_from(u32::from_be_bytes(head)).ok()?;
        let end = HEAD_BYTES + length;
        if self.arrived.len() < end {
            return None;
        }
        let mut message = self.arrived.split_to(end);
        message.advance(HEAD_BYTES);
        Some(message)
    }
}

/// Returns what headers or trailers refuse.
fn refusal(headers: &HeaderMap) -> Option<Status> {
    Status::from_header_map(headers).filter(|status| status.code() != Code::Ok)
}

fn wrapped(name: &str, shown: &str) -> String {
    format!("{{\"{name}\":{shown}}}")
}

fn line(shown: &str) -> Bytes {
    format!("{shown}\n").into()
}

fn shown(status: &Status) -> String {
    json!({ "code": i32::from(status.code()), "message": status.message() }).to_string()
}

fn failure(status: &Status) -> Response {
    json_answer(status_of(status.code()), shown(status))
}

/// Which status of HTTP stands for which code of gRPC.
fn status_of(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::Cancelled => StatusCode::REQUEST_TIMEOUT,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => {
            StatusCode::BAD_REQUEST
        }
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_a_method_of_its_own_services() {
        for (route, path) in ROUTES {
            for prefix in ["/v3/", "/v3beta/"] {
                let found = method(&format!("{prefix}{route}"));
                assert_eq!(found.map(|method| method.path), Some(*path));
            }
        }
        assert_eq!(method("/v3/kv/nothing"), None);
        assert!(!serves("/v3") && !serves("/v2/keys"));
    }

    #[test]
    fn only_what_is_meant_for_the_method_is_passed_on() {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", HeaderValue::from_static("token"));
        headers.insert("grpc-metadata-hasleader", HeaderValue::from_static("true"));
        headers.insert("content-length", HeaderValue::from_static("7"));
        let method = method("/v3/kv/range").unwrap();
        let asked = call(method, &headers, Body::empty());
        assert_eq!(asked.uri().path(), "/etcdserverpb.KV/Range");
        let names: Vec<_> = asked.headers().keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["authorization", "hasleader", "content-type", "te"]);
    }
}
