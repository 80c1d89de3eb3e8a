//! Runs a trace against real members: at a fixed rate, whatever the answers take.

use std::net::SocketAddrV4;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use crate::error::LabError;
use crate::etcd::START;
use crate::trace::checker::ResourceId;
use crate::trace::mix::Mix;
use crate::trace::report::Report;
use crate::trace::shared::ApiServer;
use crate::trace::violation::Violation;
use crate::trace::{compacting, watching};

/// Apiservers, if there are fewer members.
const API_SERVERS: usize = 2;
/// Requests that may be under way: four seconds' worth at 500 a second. More wait, and are late.
const UNDER_WAY_MAX: usize = 2_000;
/// How often each stream of watches is opened anew in one run.
const STREAMS: u32 = 4;
/// How long to rest between two looks in the end.
const REST: Duration = Duration::from_millis(50);

/// What may happen to the members meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing: no request may fail, and no watch may end.
    None,
    /// One may die: requests and streams that it takes with it may fail.
    Death,
}

/// What to run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where the members serve.
    pub members: Vec<SocketAddrV4>,
    /// What is asked depends on it.
    pub seed: u64,
    /// Requests in a second.
    pub rate: u32,
    /// How long.
    pub time: Duration,
    /// How often history is compacted.
    pub compact_every: Duration,
    /// What may happen meanwhile.
    pub trouble: Trouble,
}

/// Runs a trace; `midway` is called when half of it was asked.
///
/// It may have been found that a promise was broken: the report says so.
pub async fn run(plan: &Plan, midway: impl FnOnce()) -> Result<Report, LabError> {
    let count = plan.members.len().max(API_SERVERS);
    let servers = ApiServer::all(&plan.members, count, Mix::new(plan.seed), plan.trouble);
    let mut beside = JoinSet::new();
    begin(plan, &servers, &mut beside).await?;
    let mut compactors = JoinSet::new();
    for server in &servers {
        compactors.spawn(compacting::keep(server.clone(), plan.compact_every));
    }
    pace(plan, &servers, midway).await;
    compactors.shutdown().await;
    settle(&servers).await;
    beside.shutdown().await;
    Ok(std::mem::take(&mut servers[0].known().report))
}

/// Lists every resource, and begins to watch it from there, by every apiserver.
async fn begin(
    plan: &Plan,
    servers: &[ApiServer],
    beside: &mut JoinSet<()>,
) -> Result<(), LabError> {
    let mut listed = Vec::new();
    for prefix in Mix::prefixes() {
        let found = servers[0].pages(&prefix, Instant::now()).await;
        let (revision, found) = found.ok_or_else(|| unlisted(&servers[0]))?;
        let mut known = servers[0].known();
        let of = ResourceId(listed.len());
        for (key, version) in &found {
            known.mix.learned(of, key, Some(version.modified));
        }
        listed.push((known.checker.resource(&prefix, found), revision));
    }
    for (number, server) in servers.iter().enumerate() {
        let watch = |(of, revision): &(ResourceId, i64)| {
            server.known().checker.watch(&server.name, *of, *revision)
        };
        let watches: Vec<_> = listed.iter().map(watch).collect();
        // As apiservers of both kinds do it: a stream for each resource, or one for all.
        let on_a_stream = if number % 2 == 0 { 1 } else { watches.len() };
        for some in watches.chunks(on_a_stream) {
            let anew_after = plan.time / STREAMS;
            beside.spawn(watching::keep(server.clone(), some.to_vec(), anew_after));
        }
    }
    Ok(())
}

fn unlisted(server: &ApiServer) -> LabError {
    let (_, address, _) = server.member();
    let known = server.known();
    let why = known.report.first_error.clone();
    LabError::Answer { whom: address.to_string(), what: why.unwrap_or_else(|| "nothing".into()) }
}

/// Asks at a fixed rate, each time another apiserver, and waits for the answers.
async fn pace(plan: &Plan, servers: &[ApiServer], midway: impl FnOnce()) {
    let count = u32::try_from(plan.time.as_millis()).unwrap_or(u32::MAX);
    let count = u64::from(count) * u64::from(plan.rate) / 1000;
    let start = Instant::now();
    let (mut under_way, mut midway) = (JoinSet::new(), Some(midway));
    for (number, server) in (0..count).zip(servers.iter().cycle()) {
        let due = start + Duration::from_nanos(number * 1_000_000_000 / u64::from(plan.rate));
        tokio::time::sleep_until(due).await;
        while let Some(done) = under_way.try_join_next() {
            pass_on(done);
        }
        if under_way.len() >= UNDER_WAY_MAX {
            under_way.join_next().await.into_iter().for_each(pass_on);
        }
        if number >= count / 2
            && let Some(midway) = midway.take()
        {
            midway();
        }
        if server.is_over() {
            break;
        }
        let ask = server.known().mix.next_ask();
        under_way.spawn(server.clone().ask(ask, due));
    }
    while let Some(done) = under_way.join_next().await {
        pass_on(done);
    }
}

/// Goes on with a panic of a task.
fn pass_on(done: Result<(), JoinError>) {
    if let Err(error) = done
        && let Ok(panic) = error.try_into_panic()
    {
        std::panic::resume_unwind(panic);
    }
}

/// Reads everything once more by every apiserver, and waits until every watch has come that far.
async fn settle(servers: &[ApiServer]) {
    let deadline = Instant::now() + START;
    for server in servers {
        for (at, _) in Mix::prefixes().enumerate() {
            while server.list(ResourceId(at), Instant::now()).await.is_none() {
                if server.is_over() || Instant::now() > deadline {
                    return unfinished(server);
                }
                tokio::time::sleep(REST).await;
            }
        }
    }
    let server = &servers[0];
    let newest = server.known().checker.newest();
    while !server.known().checker.all_at(newest) && !server.is_over() && Instant::now() < deadline {
        tokio::time::sleep(REST).await;
    }
    let mut known = server.known();
    let checked = known.checker.finish(newest);
    known.judge(checked);
}

/// Takes note that the store could not be read in the end.
fn unfinished(server: &ApiServer) {
    let mut known = server.known();
    let why = known.report.first_error.clone().unwrap_or_default();
    known.judge(Err(Violation::Refused { what: "the last listing".to_owned(), why }));
}
