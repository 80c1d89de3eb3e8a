//! Many watchers, few streams, one writer.

use std::net::SocketAddrV4;
use std::time::Duration;

use corebox::wire::etcd::v3::etcdserverpb as pb;
use futures_util::{StreamExt as _, stream};
use http::uri::PathAndQuery;
use testbed::error::LabError;
use testbed::etcd_v3::{Client, put};
use tokio::task::JoinSet;
use tonic::client::Grpc;
use tonic::transport::Endpoint;
use tonic::{Request, Status, Streaming};

use crate::bench::etcd::rows::VALUE_BYTES;
use crate::bench::etcd::servers::refused;
use crate::bench::etcd::told::{Answer, Put, Told};

/// Streams, each on a connection of its own.
const STREAMS: usize = 10;
/// Watchers of each.
const WATCHERS: usize = 100;
/// A request to watch all keys that begin with `w`: a `WatchRequest`, encoded.
const CREATE: &[u8] = &[0x0a, 6, 0x0a, 1, b'w', 0x12, 1, b'x'];
/// What they are told.
const TOLD: Told = Told(Put { prefix: b"w", value_bytes: VALUE_BYTES });
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
    streams: Vec<Streaming<Answer>>,
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
            seeing.spawn(receive(stream, puts));
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
async fn open(address: SocketAddrV4) -> Result<Streaming<Answer>, Status> {
    let failed = |error: tonic::transport::Error| Status::unavailable(error.to_string());
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(failed)?;
    let mut grpc = Grpc::new(endpoint.connect().await.map_err(failed)?);
    grpc.ready().await.map_err(failed)?;
    let asked = stream::iter([CREATE; WATCHERS]).chain(stream::pending());
    let path = PathAndQuery::from_static("/etcdserverpb.Watch/Watch");
    let mut answers = grpc.streaming(Request::new(asked), path, TOLD).await?.into_inner();
    for _ in 0..WATCHERS {
        let answer = next(&mut answers).await?;
        if !answer.created || answer.canceled {
            return Err(Status::aborted("a watch was refused"));
        }
    }
    Ok(answers)
}

/// Reads until every watcher was told of so many revisions, each once and one after the other;
/// returns how many events that were.
async fn receive(mut answers: Streaming<Answer>, puts: u64) -> Result<u64, Status> {
    let all = i64::try_from(puts).map_err(|_| Status::out_of_range("too many puts"))?;
    // What each was told: the first revision, and how many.
    let mut told = [(0, 0); WATCHERS];
    let mut behind = WATCHERS;
    while behind > 0 {
        let answer = next(&mut answers).await?;
        let watch = usize::try_from(answer.watch).ok().and_then(|watch| told.get_mut(watch));
        let Some((first, count)) = watch.filter(|_| !answer.canceled) else {
            return Err(Status::aborted("a watch has ended"));
        };
        if *count == 0 {
            *first = answer.first;
        }
        if answer.events > 0 && answer.first != *first + *count {
            return Err(Status::data_loss("a revision was left out, or came twice"));
        }
        *count += answer.events;
        if *count > all {
            return Err(Status::data_loss("more was told than was put"));
        }
        behind -= usize::from(answer.events > 0 && *count == all);
    }
    if told.iter().any(|(first, _)| *first != told[0].0) {
        return Err(Status::data_loss("one watch was not told the first revision"));
    }
    Ok(puts * WATCHERS as u64)
}

async fn next(answers: &mut Streaming<Answer>) -> Result<Answer, Status> {
    answers.message().await?.ok_or_else(|| Status::aborted("the watch stream has ended"))
}
