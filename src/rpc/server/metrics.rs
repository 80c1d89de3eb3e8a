//! `/metrics`: the member's figures under the names that dashboards for etcd expect.
//!
//! Only what there is: no garbage collector, no bbolt, no defragmentation, so no figures of them.

use std::path::Path;

use axum::response::Response;
use http::StatusCode;

use crate::consensus::Member;
use crate::foundation::metrics::{Kind, Page};
use crate::platform::host::process::{self, Process};
use crate::rpc::server::answer::answer;
use crate::rpc::server::keys_v2::{CLUSTER_VERSION, SERVER_VERSION};
use crate::store::tally::Deed;

/// The format's name.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Answers with all figures.
pub(super) fn metrics(member: &Member) -> Response {
    let mut page = Page::default();
    server(&mut page, member);
    proposals(&mut page, member);
    disk(&mut page, member);
    keys_v2(&mut page, member);
    keys_v3(&mut page, member);
    // A kernel that hides it takes only this part away.
    if let Ok(process) = process::read(Path::new(process::PROC)) {
        of_process(&mut page, &process);
    }
    answer(StatusCode::OK, PROMETHEUS, page.into_text())
}

fn server(page: &mut Page, member: &Member) {
    let status = member.status();
    let (id, figures) = (member.id(), member.figures());
    let changes = figures.leadership().changes;
    page.family(
        Kind::Gauge,
        "etcd_cluster_version",
        "Which version is running. 1 for 'cluster_version' label with current cluster version",
        [(format!("cluster_version=\"{}\"", minor(CLUSTER_VERSION)), 1)],
    );
    let mut gauge = |name, about, value: bool| page.one(Kind::Gauge, name, about, u8::from(value));
    gauge("etcd_server_has_leader", "Whether or not a leader exists.", status.leader.is_some());
    gauge("etcd_server_is_leader", "Whether or not this member is a leader.", status.leads);
    gauge("etcd_server_is_learner", "Whether or not this member is a learner.", false);
    page.one(
        Kind::Counter,
        "etcd_server_leader_changes_seen_total",
        "The number of leader changes seen.",
        changes,
    );
    page.family(
        Kind::Gauge,
        "etcd_server_id",
        "Server or member ID in hexadecimal format. 1 for 'server_id' label with current ID.",
        [(format!("server_id=\"{id:x}\""), 1)],
    );
    page.family(
        Kind::Gauge,
        "etcd_server_version",
        "Which version is running. 1 for 'server_version' label with current version.",
        [(format!("server_version=\"{SERVER_VERSION}\""), 1)],
    );
    let followers = figures.followers();
    page.histograms(
        "etcd_network_peer_round_trip_time_seconds",
        "Round-Trip-Time histogram between peers",
        &followers
            .iter()
            .map(|(id, follower)| (format!("To=\"{id:x}\""), &follower.trips))
            .collect::<Vec<_>>(),
    );
    page.family(
        Kind::Counter,
        "etcd_network_peer_sent_failures_total",
        "The total number of send failures from peers.",
        followers.iter().map(|(id, follower)| (format!("To=\"{id:x}\""), follower.fail.get())),
    );
}

fn proposals(page: &mut Page, member: &Member) {
    let (status, figures) = (member.status(), member.figures());
    for (kind, name, about, value) in [
        (
            Kind::Gauge,
            "etcd_server_proposals_committed_total",
            "The total number of consensus proposals committed.",
            status.committed,
        ),
        (
            Kind::Gauge,
            "etcd_server_proposals_applied_total",
            "The total number of consensus proposals applied.",
            status.applied,
        ),
        (
            Kind::Gauge,
            "etcd_server_proposals_pending",
            "The current number of pending proposals to commit.",
            figures.pending.get(),
        ),
        (
            Kind::Counter,
            "etcd_server_proposals_failed_total",
            "The total number of failed proposals seen.",
            figures.failed.get(),
        ),
        (
            Kind::Counter,
            "etcd_server_read_indexes_failed_total",
            "The total number of failed read indexes seen.",
            figures.reads_failed.get(),
        ),
    ] {
        page.one(kind, name, about, value);
    }
}

fn disk(page: &mut Page, member: &Member) {
    let figures = member.figures();
    page.histograms(
        "etcd_disk_wal_fsync_duration_seconds",
        "The latency distributions of fsync called by WAL.",
        &[("", &figures.wal_sync)],
    );
    page.one(
        Kind::Gauge,
        "etcd_disk_wal_write_bytes_total",
        "Total number of bytes written in WAL.",
        figures.wal_bytes.get(),
    );
    page.histograms(
        "etcd_debugging_snap_save_total_duration_seconds",
        "The total latency distributions of save called by snapshot.",
        &[("", &figures.checkpoints)],
    );
}

fn keys_v2(page: &mut Page, member: &Member) {
    let tally = &member.figures().keys;
    let writes = [
        (Deed::Set, "set"),
        (Deed::Create, "create"),
        (Deed::Update, "update"),
        (Deed::CompareAndSwap, "compareAndSwap"),
        (Deed::Delete, "delete"),
        (Deed::CompareAndDelete, "compareAndDelete"),
    ];
    let labels = |action: &str| format!("action=\"{action}\"");
    let gets = tally.of(Deed::Get);
    let mut counter =
        |name, about, samples: Vec<(String, u64)>| page.family(Kind::Counter, name, about, samples);
    counter(
        "etcd_debugging_store_reads_total",
        "Total number of reads action by (get/getRecursive), local to this member.",
        vec![(labels("get"), gets.success.get())],
    );
    counter(
        "etcd_debugging_store_reads_failed_total",
        "Failed read actions by (get/getRecursive), local to this member.",
        vec![(labels("get"), gets.fail.get())],
    );
    counter(
        "etcd_debugging_store_writes_total",
        "Total number of writes (e.g. set/compareAndDelete) seen by this member.",
        writes.iter().map(|(deed, name)| (labels(name), tally.of(*deed).success.get())).collect(),
    );
    counter(
        "etcd_debugging_store_writes_failed_total",
        "Failed write actions (e.g. set/compareAndDelete), seen by this member.",
        writes.iter().map(|(deed, name)| (labels(name), tally.of(*deed).fail.get())).collect(),
    );
    let plain = |value| vec![(String::new(), value)];
    counter(
        "etcd_debugging_store_expires_total",
        "Total number of expired keys.",
        plain(tally.expired.get()),
    );
    counter(
        "etcd_debugging_store_watch_requests_total",
        "Total number of incoming watch requests (new or reestablished).",
        plain(tally.watches.get()),
    );
    page.one(
        Kind::Gauge,
        "etcd_debugging_store_watchers",
        "Count of currently active watchers.",
        tally.watchers.get(),
    );
}

fn keys_v3(page: &mut Page, member: &Member) {
    let view = member.read(|machine| machine.keys_v3.view());
    let usage = view.usage();
    for (name, about, value) in [
        (
            "etcd_mvcc_db_total_size_in_bytes",
            "Total size of the underlying database physically allocated in bytes.",
            usage.total_bytes.to_string(),
        ),
        (
            "etcd_mvcc_db_total_size_in_use_in_bytes",
            "Total size of the underlying database logically in use in bytes.",
            usage.live_bytes.to_string(),
        ),
        ("etcd_debugging_mvcc_keys_total", "Total number of keys.", view.keys_count().to_string()),
        (
            "etcd_debugging_mvcc_current_revision",
            "The current revision of store.",
            view.revision().to_string(),
        ),
        (
            "etcd_debugging_mvcc_compact_revision",
            "The revision of the last compaction in store.",
            view.compact_revision().to_string(),
        ),
    ] {
        page.one(Kind::Gauge, name, about, value);
    }
}

fn of_process(page: &mut Page, process: &Process) {
    page.one(
        Kind::Counter,
        "process_cpu_seconds_total",
        "Total user and system CPU time spent in seconds.",
        process.cpu_seconds,
    );
    for (name, about, value) in [
        ("process_open_fds", "Number of open file descriptors.", process.open_fds),
        ("process_max_fds", "Maximum number of open file descriptors.", process.max_fds),
        ("os_fd_used", "The number of used file descriptors.", process.open_fds),
        ("os_fd_limit", "The file descriptor limit.", process.max_fds),
        ("process_resident_memory_bytes", "Resident memory size in bytes.", process.resident_bytes),
        ("process_virtual_memory_bytes", "Virtual memory size in bytes.", process.virtual_bytes),
    ] {
        page.one(Kind::Gauge, name, about, value);
    }
    page.one(
        Kind::Gauge,
        "process_start_time_seconds",
        "Start time of the process since unix epoch in seconds.",
        process.start_seconds,
    );
}

/// Returns `3.5` of `3.5.0`.
fn minor(version: &str) -> &str {
    version.rsplit_once('.').map_or(version, |(minor, _)| minor)
}
