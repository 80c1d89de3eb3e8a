//! The peer port: frames between members, and the few words of HTTP that old proxies know there.

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use http::StatusCode;
use tokio_util::sync::CancellationToken;

use crate::consensus::Member;
use crate::consensus::network::MAGIC;
use crate::foundation::tasks::Tasks;
use crate::platform::net::{Incoming, Io};
use crate::rpc::server::answer::{json_answer, set_cluster};
use crate::rpc::server::keys_v2::version;
use crate::rpc::server::listen::Places;
use crate::rpc::server::members_v2::member_list;
use crate::rpc::server::{first_word, listen};

/// How long a caller may take to say which of the two it speaks.
const FIRST_WORD: Duration = Duration::from_secs(10);

/// Serves both on `incoming` until the tasks stop.
pub fn serve(incoming: Box<dyn Incoming>, member: &Member, tasks: &Tasks) {
    let member = member.clone();
    let router = router(member.clone());
    listen::accept(incoming, &Places::default(), tasks, move |(io, _from), stop| {
        let (member, router) = (member.clone(), router.clone());
        async move { sort(io, &member, router, stop).await }
    });
}

fn router(member: Member) -> Router {
    let version = || async { json_answer(StatusCode::OK, version()) };
    let members = move || {
        let list = serde_json::to_string(&member_list(&member)).unwrap_or_default();
        let mut answer = json_answer(StatusCode::OK, list);
        set_cluster(&mut answer, member.cluster());
        async { answer }
    };
    Router::new().route("/version", get(version)).route("/members", get(members))
}

/// Finds out what the caller speaks, and answers it.
async fn sort(io: Box<dyn Io>, member: &Member, router: Router, stop: CancellationToken) {
    match first_word::read(io, FIRST_WORD, &stop).await {
        Some((word, io)) if &word == MAGIC => member.serve_peer(io),
        Some((word, io)) => {
            listen::connection(first_word::unread(word, io), router, stop).await;
        }
        None => {}
    }
}
