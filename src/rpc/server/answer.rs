//! Answers over HTTP as etcd's look: JSON, plain text, refusals with a message.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use serde_json::json;

/// As many as an answer mostly has, all together.
const HEADERS: usize = 12;
pub(super) const JSON: &str = "application/json";
const CLUSTER: HeaderName = HeaderName::from_static("x-etcd-cluster-id");
/// Plain text, as Go calls it.
pub(super) const TEXT: &str = "text/plain; charset=utf-8";

/// Makes an answer.
pub(super) fn answer(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Body>,
) -> Response {
    let mut response = empty(status);
    *response.body_mut() = body.into();
    let content_type = HeaderValue::from_static(content_type);
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

/// Makes an answer without a body.
pub(super) fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.headers_mut() = HeaderMap::with_capacity(HEADERS);
    *response.status_mut() = status;
    response
}

/// Makes an answer of JSON.
pub fn json_answer(status: StatusCode, body: impl Into<String>) -> Response {
    answer(status, JSON, body.into())
}

/// Makes an answer of plain text.
pub fn text(status: StatusCode, body: &str) -> Response {
    answer(status, TEXT, body.to_owned())
}

/// Refuses in plain text, as Go's HTTP server does.
pub(super) fn plainly(status: StatusCode, body: &str) -> Response {
    let mut response = text(status, body);
    let nosniff = HeaderValue::from_static("nosniff");
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}

/// Says that there is nothing.
pub(super) fn not_found() -> Response {
    plainly(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// Refuses a method, and names those that are served.
pub(super) fn not_allowed(allowed: &'static str) -> Response {
    let mut response = plainly(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}

/// Answers if the method is the one that is served.
pub(super) fn only(
    served: &'static Method,
    method: &Method,
    answer: impl FnOnce() -> Response,
) -> Response {
    if method == served { answer() } else { not_allowed(served.as_str()) }
}

/// Refuses with a message, as everything beside the keys does.
pub(super) fn message(status: StatusCode, text: &str) -> Response {
    json_answer(status, json!({ "message": text }).to_string())
}

/// Writes plain data.
pub(super) fn to_json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("plain data always encodes")
}

/// Writes plain data, and ends the line.
pub(super) fn to_line(value: &impl serde::Serialize) -> String {
    let mut line = to_json(value);
    line.push('\n');
    line
}

/// Says which cluster answers.
pub(super) fn set_cluster(response: &mut Response, cluster: u64) {
    let id = HeaderValue::try_from(format!("{cluster:x}"));
    response.headers_mut().insert(CLUSTER, id.unwrap_or(HeaderValue::from_static("0")));
}
