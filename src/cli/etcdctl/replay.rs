//! The original's words against our store: a recording of `etcdctl` 3.4.23 on a fresh `etcd`
//! 3.4.23, line by line, must come out the same here. All of it in one process.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::agents::etcd::config::Config;
use crate::agents::etcd::run::{self, World};
use crate::cli::etcdctl::session::Session;
use crate::cli::etcdctl::{Settings, words};
use crate::cli::output::Output;
use crate::consensus::Seams;
use crate::consensus::log_store::WriterKind;
use crate::foundation::clock::{Timestamp, TokioClock};
use crate::foundation::random::Random;
use crate::foundation::tasks::Tasks;
use crate::platform::disk::MemoryDisk;
use crate::platform::net::MemoryNet;
use crate::rpc::client::http::HttpClient;
use crate::rpc::client::keys_contract;
use crate::rpc::client::keys_http::KeysClient;
use crate::rpc::client::members_http::MembersClient;
use crate::rpc::client::url::Url;

const RECORDED: &str = include_str!("../../../testbed/golden/etcdctl-v2.txt");
const ENDPOINT: &str = "http://10.0.0.1:2379";

/// A store of one member in this process.
struct Store {
    net: MemoryNet,
    tasks: Tasks,
}

impl Store {
    async fn start() -> Self {
        let store = Self { net: MemoryNet::default(), tasks: Tasks::default() };
        let world =
            World { seams: store.seams(), notify: Arc::new(|_| {}), writer: WriterKind::Task };
        let config = Config::read(flag).unwrap();
        store.tasks.spawn("etcd", |stop: CancellationToken| async move {
            run::run(config, world, stop).await.unwrap();
        });
        tokio::time::timeout(Duration::from_mins(1), store.is_published()).await.unwrap();
        store
    }

    fn seams(&self) -> Seams {
        Seams {
            net: Arc::new(self.net.clone()),
            disk: Arc::new(MemoryDisk::new(Random::seeded(1), 0)),
            clock: Arc::new(TokioClock::starting_at(Timestamp::from_secs(1_700_000_000))),
            random: Arc::new(Random::seeded(2)),
        }
    }

    async fn is_published(&self) {
        let members = MembersClient::new(self.http(), Duration::from_secs(1));
        let published = |listed: &[crate::rpc::client::members_http::Member]| {
            listed.iter().any(|member| !member.client_urls.is_empty())
        };
        while !members.list(&[endpoint()]).await.is_ok_and(|listed| published(&listed)) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn http(&self) -> HttpClient {
        HttpClient::new(Arc::new(self.net.clone()))
    }

    /// Types a line and returns what is seen, errors first, and how it ended.
    async fn typed(&self, line: &str) -> String {
        let matches = words::command().try_get_matches_from(line.split(' ')).unwrap();
        let job = words::job(&matches, Some("2"), || Ok(String::new())).unwrap();
        let settings = Settings::read(&matches, Some(ENDPOINT.to_owned())).unwrap();
        let (output, kept) = Output::kept();
        let exit = Session::new(self.http(), settings, output).carry_out(job).await;
        let seen = kept.err() + &kept.out();
        let seen = seen.trim_end_matches('\n');
        let end = if seen.is_empty() { "" } else { "\n" };
        format!("{seen}{end}[{}]\n", exit.code())
    }
}

fn endpoint() -> Url {
    ENDPOINT.parse().unwrap()
}

fn flag(name: &str) -> Option<String> {
    let value = match name {
        "data-dir" => "/data",
        "listen-peer-urls" | "initial-advertise-peer-urls" => "http://10.0.0.1:2380",
        "listen-client-urls" | "advertise-client-urls" => ENDPOINT,
        "initial-cluster" => "default=http://10.0.0.1:2380",
        _ => return None,
    };
    Some(value.to_owned())
}

#[tokio::test(start_paused = true)]
async fn every_line_of_the_recording_comes_out_the_same() {
    let store = Store::start().await;
    let mut replayed = String::new();
    for line in RECORDED.lines().filter_map(|line| line.strip_prefix("$ ")) {
        replayed.extend(["$ ", line, "\n", &store.typed(line).await]);
    }
    similar(&replayed, RECORDED);
    store.tasks.drain(Duration::from_secs(10)).await.unwrap();
}

/// Compares line by line, so that the first difference is what one sees.
fn similar(seen: &str, recorded: &str) {
    let mut last = "";
    for (seen, recorded) in seen.lines().zip(recorded.lines()) {
        if recorded.starts_with('$') {
            last = recorded;
        }
        assert_eq!(seen, recorded, "after `{last}`");
    }
    assert_eq!(seen.lines().count(), recorded.lines().count());
}

#[tokio::test(start_paused = true)]
async fn the_stores_keys_over_http_keep_the_contract() {
    let store = Store::start().await;
    let keys = KeysClient::new(store.http(), vec![endpoint()]);
    keys_contract::contract(&keys, "/contract").await;
    store.tasks.drain(Duration::from_secs(10)).await.unwrap();
}
