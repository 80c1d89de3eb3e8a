//! Does a row's work with one system, and says what it came to.

use std::future::Future;
use std::net::SocketAddrV4;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use corebox::wire::etcd::v3::etcdserverpb as pb;
use testbed::error::LabError;
use testbed::etcd_v3;
use testbed::latencies::Latencies;

use crate::bench::etcd::load;
use crate::bench::etcd::rows::{LISTED, Metric, Op, READ, Row, Scale, Work};
use crate::bench::etcd::servers::{Servers, System, own_cpu, refused};
use crate::bench::etcd::watch::Watchers;
use crate::bench::etcd::{http1, kv};

/// How long a load runs before it counts.
const WARM_UP: Duration = Duration::from_secs(1);
/// How long servers have after a start, or a million puts, before they are looked at.
const SETTLE: Duration = Duration::from_secs(3);
/// Puts in each second of a run with watchers: each is a thousand events.
const WATCHED_PUTS: u64 = 200;
/// Keys whose revisions are compacted.
const COMPACTED_KEYS: u64 = 10_000;
/// Clients that put meanwhile.
const MEANWHILE: usize = 64;
/// How long to look at puts at most, and at least, while the server does something else: etcd
/// itself takes some ten seconds to compact a million revisions.
const ELSE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(10);

/// What one piece of work came to.
pub(super) type Sample = Vec<(Metric, f64)>;

/// Does the work of a row once.
pub(super) fn measure(row: &Row, system: &System, scale: &Scale) -> Result<Sample, LabError> {
    let members = if let Work::Load { members, .. } = row.work { members } else { 1 };
    let mut servers = Servers::start(system, members)?;
    match row.work {
        Work::Load { op, clients, .. } => run(drive(&servers, op, clients, scale.time))?,
        Work::Watch => run(watch(&servers, scale.time))?,
        Work::Fill => fill(&mut servers, scale.million),
        Work::Start => Ok(vec![(Metric::Healthy, milliseconds(servers.first_start))]),
        Work::Idle => Ok(idle(&[servers], scale.idle)?.concat()),
        Work::Compact => run(compact(&servers, system, scale))?,
    }
}

/// Looks at idle members of several systems. Side by side: who does nothing is in nobody's way.
pub(super) fn measure_idle(systems: &[&System], time: Duration) -> Result<Vec<Sample>, LabError> {
    let servers: Result<Vec<_>, _> =
        systems.iter().map(|system| Servers::start(system, 1)).collect();
    idle(&servers?, time)
}

/// Runs clients, in a runtime that ends with them.
fn run<T>(work: impl Future<Output = T>) -> Result<T, LabError> {
    let failed = |source| LabError::Ask { whom: "tokio for a runtime".to_owned(), source };
    Ok(tokio::runtime::Runtime::new().map_err(failed)?.block_on(work))
}

async fn drive(
    servers: &Servers,
    op: Op,
    clients: usize,
    time: Duration,
) -> Result<Sample, LabError> {
    let address = servers.address;
    prepare(address, op).await?;
    let window = window(servers, time);
    let (latencies, used) = if matches!(op, Op::PutV2 | Op::GetV2) {
        let clients = http(address, op == Op::PutV2, clients).await?;
        load::during(clients, WARM_UP, window).await?
    } else {
        load::during(kv::clients(address, op, clients), WARM_UP, window).await?
    };
    let mut sample = used?.of_each(float(latencies.count()));
    sample.extend(quantiles(&latencies)?);
    Ok(sample)
}

fn quantiles(latencies: &Latencies) -> Result<Sample, LabError> {
    let (median, last) = (latencies.per_mille(500)?, latencies.per_mille(990)?);
    Ok(vec![(Metric::Median, median), (Metric::P99, last)])
}

/// Puts what is to be read.
async fn prepare(address: SocketAddrV4, op: Op) -> Result<(), LabError> {
    let new = Op::Put { keys: u64::MAX };
    match op {
        Op::Get => kv::fill(address, new, READ).await.map(drop),
        Op::List => kv::fill(address, new, LISTED).await.map(drop),
        Op::GetV2 => load::times(http(address, true, MEANWHILE).await?, http1::KEYS).await,
        Op::Put { .. } | Op::Txn | Op::PutV2 => Ok(()),
    }
}

async fn http(
    address: SocketAddrV4,
    puts: bool,
    count: usize,
) -> Result<Vec<http1::Http>, LabError> {
    let failed = |source| LabError::Ask { whom: address.to_string(), source };
    http1::clients(address, puts, count).await.map_err(failed)
}

/// What a window came to, in seconds.
#[derive(Debug, Clone, Copy)]
struct Used {
    elapsed: f64,
    /// Processor time of the servers.
    servers: f64,
    /// Processor time of this process.
    clients: f64,
}

impl Used {
    /// What it came to if so much was done in it.
    fn of_each(self, done: f64) -> Sample {
        vec![
            (Metric::Rate, done / self.elapsed),
            (Metric::Cpu, self.servers * 1e6 / done),
            (Metric::Client, self.clients * 1e6 / done),
        ]
    }
}

/// Where a window began.
#[derive(Debug)]
struct Window {
    start: Instant,
    servers: f64,
    clients: f64,
}

impl Window {
    fn begin(servers: &Servers) -> Result<Self, LabError> {
        Ok(Self { start: Instant::now(), servers: servers.cpu()?, clients: own_cpu()? })
    }

    fn end(&self, servers: &Servers) -> Result<Used, LabError> {
        let elapsed = self.start.elapsed().as_secs_f64();
        let (all, own) = (servers.cpu()? - self.servers, own_cpu()? - self.clients);
        Ok(Used { elapsed, servers: all, clients: own })
    }
}

/// Waits, and returns what was used meanwhile.
async fn window(servers: &Servers, time: Duration) -> Result<Used, LabError> {
    let window = Window::begin(servers)?;
    tokio::time::sleep(time).await;
    window.end(servers)
}

async fn watch(servers: &Servers, time: Duration) -> Result<Sample, LabError> {
    let watchers = Watchers::open(servers.address).await?;
    let window = Window::begin(servers)?;
    let events = watchers.see(WATCHED_PUTS * time.as_secs()).await?;
    Ok(window.end(servers)?.of_each(float(events)))
}

/// Puts as many keys as a million is: what they take, and how soon they are there again.
fn fill(servers: &mut Servers, million: u64) -> Result<Sample, LabError> {
    let address = servers.address;
    run(async {
        kv::fill(address, Op::Put { keys: u64::MAX }, million).await?;
        tokio::time::sleep(SETTLE).await;
        Ok::<_, LabError>(())
    })??;
    let (memory, resident) = (servers.memory()?, servers.resident()?);
    servers.stop()?;
    let healthy = milliseconds(servers.start_again()?);
    Ok(vec![(Metric::Memory, memory), (Metric::Resident, resident), (Metric::Healthy, healthy)])
}

fn idle(all: &[Servers], time: Duration) -> Result<Vec<Sample>, LabError> {
    run(async {
        tokio::time::sleep(SETTLE).await;
        let windows: Result<Vec<_>, _> = all.iter().map(Window::begin).collect();
        let windows = windows?;
        tokio::time::sleep(time).await;
        let used = windows.iter().zip(all).map(|(window, servers)| window.end(servers));
        used.map(|used| used.map(|used| vec![(Metric::Idle, used.servers * 100.0 / used.elapsed)]))
            .collect()
    })?
}

/// Looks at puts while a server drops history; and while a peer defragments what that has left.
async fn compact(servers: &Servers, system: &System, scale: &Scale) -> Result<Sample, LabError> {
    let (address, puts) = (servers.address, Op::Put { keys: COMPACTED_KEYS });
    let revision = kv::fill(address, puts, scale.million).await?;
    tokio::time::sleep(SETTLE).await;
    let mut client = etcd_v3::Client::new(address);
    let asked = pb::CompactionRequest { revision, physical: true };
    let mut sample = quantiles(&during(address, puts, client.kv.compact(asked)).await?)?;
    if matches!(system, System::Peer { .. }) {
        let work = client.maintenance.defragment(pb::DefragmentRequest {});
        let latencies = during(address, puts, work).await?;
        sample.push((Metric::Defragmenting, latencies.per_mille(990)?));
    }
    Ok(sample)
}

/// Has clients put while something else is done, from its beginning until its end or [`ELSE`].
async fn during<T>(
    address: SocketAddrV4,
    puts: Op,
    work: impl Future<Output = Result<T, tonic::Status>>,
) -> Result<Latencies, LabError> {
    let work = async {
        let least = tokio::time::sleep(*ELSE.start());
        tokio::join!(tokio::time::timeout(*ELSE.end(), work), least).0
    };
    let clients = kv::clients(address, puts, MEANWHILE);
    let (latencies, done) = load::during(clients, WARM_UP, work).await?;
    match done {
        Ok(Err(status)) => Err(refused(address, &status)),
        // One that goes on was looked at for long enough.
        Ok(Ok(_)) | Err(_) => Ok(latencies),
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// A count, to calculate with.
fn float(count: impl TryInto<u32>) -> f64 {
    // Four milliards of operations would take a day.
    count.try_into().map_or(f64::INFINITY, f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_is_shared_by_what_was_done() {
        let used = Used { elapsed: 2.0, servers: 1.5, clients: 0.5 };
        let expected = [(Metric::Rate, 50_000.0), (Metric::Cpu, 15.0), (Metric::Client, 5.0)];
        assert_eq!(used.of_each(100_000.0), expected);
    }
}
