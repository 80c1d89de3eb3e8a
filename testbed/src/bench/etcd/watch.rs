//! Many watchers, few streams, one writer.

use std::net::SocketAddrV4;
use std::time::Duration;

use corebox::wire::etcd::v3::etcdserverpb as pb;
use corebox::wire::etcd::v3::etcdserverpb::watch_request::RequestUnion;
use testbed::error::LabError;
use testbed::etcd_v3::{Client, WatchStream, end_of, put};
use tokio::task::JoinSet;
use tonic::Status;

use crate::bench::etcd::rows::VALUE_BYTES;
use crate::bench::etcd::servers::refused;

/// Streams, each on a connection of its own.
const STREAMS: usize = 10;
/// Watchers of each.
const WATCHERS: u64 = 100;
/// Keys that are put, all of which are watched.
const KEYS: u64 = 100;
/// How long all watchers may take to be known.
const OPEN: Duration = Duration::from_mins(1);
/// How long all events of one run may take.
const ALL: Duration = Duration::from_mins(5);

/// Streams whose watchers are all there.
#[derive(Debug)]
pub(super) struct Watchers {
    address: SocketAddrV4,
    streams: Vec<WatchStream>,
}

impl Watchers {
    /// Opens the streams, and waits until every watcher is known.
    pub(super) async fn open(address: SocketAddrV4) -> Result<Self, LabError> {
        let failed = |status| refused(address, &status);
        let opened = async {
            let mut streams = Vec::new();
            for _ in 0..STREAMS {
                streams.push(open(address).await?);
            }
            Ok(streams)
        };
        let late = |_| Err(Status::deadline_exceeded("not all watchers were known in time"));
        let streams = tokio::time::timeout(OPEN, opened).await.unwrap_or_else(late);
        Ok(Self { address, streams: streams.map_err(failed)? })
    }

    /// Puts so often, one after the other, and waits until every watcher has seen every put.
    /// Returns the number of events.
    pub(super) async fn see(self, puts: u64) -> Result<u64, LabError> {
        let address = self.address;
        let failed = |status| refused(address, &status);
        let mut seeing = JoinSet::new();
        for stream in self.streams {
            seeing.spawn(receive(stream, WATCHERS * puts));
        }
        let all = async {
            let client = Client::new(address);
            for number in 0..puts {
                let key = format!("w{}", number % KEYS).into_bytes();
                let request = pb::PutRequest { key, value: vec![b'x'; VALUE_BYTES], ..put() };
                client.put_with(request).await.map_err(failed)?;
            }
            let mut events = 0;
            while let Some(one) = seeing.join_next().await {
                let one = one.map_err(|error| Status::internal(error.to_string()));
                events += one.flatten().map_err(failed)?;
            }
            Ok::<_, LabError>(events)
        };
        let late = |_| LabError::Answer {
            whom: address.to_string(),
            what: format!("not all events within {ALL:?}"),
        };
        tokio::time::timeout(ALL, all).await.map_err(late)?
    }
}

/// Opens a stream, and waits until all its watchers are known.
async fn open(address: SocketAddrV4) -> Result<WatchStream, Status> {
    let create = || {
        RequestUnion::CreateRequest(pb::WatchCreateRequest {
            key: b"w".to_vec(),
            range_end: end_of("w"),
            ..pb::WatchCreateRequest::default()
        })
    };
    let mut stream = Client::new(address).stream_with(create()).await?;
    for known in 1..=WATCHERS {
        let created = stream.next().await?;
        if !created.created || created.canceled {
            return Err(Status::aborted(created.cancel_reason));
        }
        if known < WATCHERS {
            stream.ask(create()).await;
        }
    }
    Ok(stream)
}

/// Reads until so many events came; more would be a mistake of the server.
async fn receive(mut stream: WatchStream, count: u64) -> Result<u64, Status> {
    let mut seen = 0;
    while seen < count {
        let answer = stream.next().await?;
        if answer.canceled {
            return Err(Status::aborted(answer.cancel_reason));
        }
        seen += u64::try_from(answer.events.len()).unwrap_or(u64::MAX);
    }
    if seen == count { Ok(seen) } else { Err(Status::data_loss("an event came twice")) }
}
