//! A store of one member in this process, for recordings to be replayed on.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::agents::etcd::config::Config;
use crate::agents::etcd::run::{self, World};
use crate::consensus::Seams;
use crate::consensus::log_writer::WriterKind;
use crate::foundation::clock::{Timestamp, TokioClock};
use crate::foundation::limits::CONNECTIONS_MAX;
use crate::foundation::random::Random;
use crate::foundation::tasks::Tasks;
use crate::platform::disk::MemoryDisk;
use crate::platform::net::MemoryNet;
use crate::rpc::client::http::HttpClient;
use crate::rpc::client::members_http::MembersClient;
use crate::rpc::client::url::Url;

/// Where it serves.
pub(super) const ENDPOINT: &str = "http://10.0.0.1:2379";

/// A store of one member in this process.
pub(super) struct Store {
    pub(super) net: MemoryNet,
    pub(super) tasks: Tasks,
}

impl Store {
    pub(super) async fn start() -> Self {
        let store = Self { net: MemoryNet::default(), tasks: Tasks::default() };
        let world = World {
            seams: store.seams(),
            notify: Arc::new(|_| {}),
            writer: WriterKind::Task,
            connections_max: CONNECTIONS_MAX,
        };
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

    pub(super) fn http(&self) -> HttpClient {
        HttpClient::new(Arc::new(self.net.clone()))
    }
}

pub(super) fn endpoint() -> Url {
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

/// Compares line by line, so that the first difference is what one sees.
pub(super) fn similar(seen: &str, recorded: &str) {
    let mut last = "";
    for (seen, recorded) in seen.lines().zip(recorded.lines()) {
        if recorded.starts_with('$') {
            last = recorded;
        }
        assert_eq!(seen, recorded, "after `{last}`");
    }
    assert_eq!(seen.lines().count(), recorded.lines().count());
}
