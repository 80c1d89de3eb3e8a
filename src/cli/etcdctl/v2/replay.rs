//! The original's words against our store: a recording of `etcdctl` 3.4.23 on a fresh `etcd`
//! 3.4.23, line by line, must come out the same here. All of it in one process.

use std::time::Duration;

use crate::cli::etcdctl::store::{ENDPOINT, Store, endpoint, similar};
use crate::cli::etcdctl::v2::session::Session;
use crate::cli::etcdctl::v2::{Settings, words};
use crate::cli::output::Output;
use crate::rpc::client::keys_contract;
use crate::rpc::client::keys_http::KeysClient;

const RECORDED: &str = include_str!("../../../../testbed/golden/etcdctl-v2.txt");

/// Types a line and returns what is seen, errors first, and how it ended.
async fn typed(store: &Store, line: &str) -> String {
    let matches = words::command().try_get_matches_from(line.split(' ')).unwrap();
    let job = words::job(&matches, || Ok(String::new())).unwrap();
    let settings = Settings::read(&matches, Some(ENDPOINT.to_owned())).unwrap();
    let (output, kept) = Output::kept();
    let exit = Session::new(store.http(), settings, output).carry_out(job).await;
    let seen = kept.err() + &kept.out();
    let seen = seen.trim_end_matches('\n');
    let end = if seen.is_empty() { "" } else { "\n" };
    format!("{seen}{end}[{}]\n", exit.code())
}

#[tokio::test(start_paused = true)]
async fn every_line_of_the_recording_comes_out_the_same() {
    let store = Store::start().await;
    let mut replayed = String::new();
    for line in RECORDED.lines().filter_map(|line| line.strip_prefix("$ ")) {
        replayed.extend(["$ ", line, "\n", &typed(&store, line).await]);
    }
    similar(&replayed, RECORDED);
    store.tasks.drain(Duration::from_secs(10)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_stores_keys_over_http_keep_the_contract() {
    let store = Store::start().await;
    let keys = KeysClient::new(store.http(), vec![endpoint()]);
    keys_contract::contract(&keys, "/contract").await;
    store.tasks.drain(Duration::from_secs(10)).await.unwrap();
}
