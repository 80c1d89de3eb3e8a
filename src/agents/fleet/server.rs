//! The HTTP server: every socket it is given, one answer for all.
//!
//! While the daemon has no store a request waits a little for its return, then is told so.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use percent_encoding::percent_decode_str;
use tokio::sync::watch;

use crate::agents::fleet::answers::{Answers, Ask, Reply};
use crate::agents::fleet::view::Health;
use crate::foundation::limits::REQUEST_BYTES_MAX;
use crate::wire::fleet::api::NO_STORE;

/// How long a request waits for the store to come back: less than `fleetctl` waits for us, and
/// more than an election takes.
const PATIENCE: Duration = Duration::from_secs(2);

/// The version that we speak, as `Server:` says it.
const SERVER: &str = concat!("fleetd/", "1.0.0");

/// What answers now; nothing while the daemon is being set up or taken down.
pub type Slot = watch::Receiver<Option<Arc<Answers>>>;

/// Makes the router that answers everything from `slot`.
pub fn router(slot: Slot) -> Router {
    Router::new().fallback(serve).with_state(slot)
}

async fn serve(State(slot): State<Slot>, request: Request) -> Response {
    let reply = match (read(request).await, ready(slot).await) {
        (Err(refusal), _) => refusal,
        (Ok(_), None) => Reply::error(503, NO_STORE),
        (Ok(ask), Some(answers)) => answers.answer(&ask).await,
    };
    write(reply)
}

/// Waits until there is somebody who may answer.
async fn ready(mut slot: Slot) -> Option<Arc<Answers>> {
    let waiting = async move {
        let answers = slot.wait_for(Option::is_some).await.ok()?.clone()?;
        let mut health = answers.view().health();
        let live = health.wait_for(Health::live).await.is_ok();
        live.then_some(answers)
    };
    tokio::time::timeout(PATIENCE, waiting).await.ok().flatten()
}

async fn read(request: Request) -> Result<Ask, Reply> {
    let (head, body) = request.into_parts();
    let path = head.uri.path().trim_start_matches('/').split('/').map(decoded).collect();
    let query = form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes());
    let query = query.into_owned().collect();
    let types = head.headers.get_all(header::CONTENT_TYPE).iter();
    let content_types =
        types.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect();
    let method = head.method.to_string();
    let body = to_bytes(body, REQUEST_BYTES_MAX).await.map_err(|_| {
        Reply::error(413, &format!("the body is over {REQUEST_BYTES_MAX} bytes, or broke off"))
    })?;
    Ok(Ask { method, path, query, content_types, body: body.to_vec() })
}

fn decoded(part: &str) -> String {
    percent_decode_str(part).decode_utf8_lossy().into_owned()
}

fn write(reply: Reply) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() =
        StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::SERVER, HeaderValue::from_static(SERVER));
    if let Some(body) = reply.body {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        *response.body_mut() = Body::from(body);
    }
    response
}
