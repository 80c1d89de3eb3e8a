//! Clients in a closed loop: each asks again as soon as it was answered.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use testbed::error::LabError;
use testbed::latencies::Latencies;
use tokio::task::JoinSet;

/// How long clients may take to be answered for the last time.
const LAST_ANSWERS: Duration = Duration::from_mins(1);
/// How long filling a store may take: a million puts are a minute's work on a slow disk's peer.
const FILL: Duration = Duration::from_mins(15);

/// Asks one thing.
pub(in crate::bench) trait Client: Send + 'static {
    /// Asks for the `number`th time of all clients together; an answer that is not what it should
    /// be is an error.
    fn once(&mut self, number: u64) -> impl Future<Output = Result<(), String>> + Send;
}

/// What the clients of one load have in common.
#[derive(Debug)]
struct Shared {
    phase: AtomicU8,
    /// The number of the next operation.
    next: AtomicU64,
    /// How many operations there may be.
    last: u64,
}

const WARM_UP: u8 = 0;
const COUNTED: u8 = 1;
const OVER: u8 = 2;

/// Has clients ask for as long as `window` takes, after a time that does not count. Returns how
/// long the operations took that ended within it, and what the window came to.
pub(in crate::bench) async fn during<C: Client, T>(
    clients: Vec<C>,
    warm_up: Duration,
    window: impl Future<Output = T>,
) -> Result<(Latencies, T), LabError> {
    let shared = shared(WARM_UP, u64::MAX);
    let all = start(clients, &shared);
    tokio::time::sleep(warm_up).await;
    shared.phase.store(COUNTED, Ordering::Relaxed);
    let came_to = window.await;
    shared.phase.store(OVER, Ordering::Relaxed);
    Ok((ended(all, LAST_ANSWERS).await?, came_to))
}

/// Has clients ask so many times together.
pub(super) async fn times<C: Client>(clients: Vec<C>, count: u64) -> Result<(), LabError> {
    ended(start(clients, &shared(COUNTED, count)), FILL).await.map(drop)
}

fn shared(phase: u8, last: u64) -> Arc<Shared> {
    Arc::new(Shared { phase: AtomicU8::new(phase), next: AtomicU64::new(0), last })
}

type All = JoinSet<Result<Vec<u32>, String>>;

fn start<C: Client>(clients: Vec<C>, shared: &Arc<Shared>) -> All {
    let mut all = JoinSet::new();
    for client in clients {
        all.spawn(ask(client, shared.clone()));
    }
    all
}

async fn ask<C: Client>(mut client: C, shared: Arc<Shared>) -> Result<Vec<u32>, String> {
    let mut took = Vec::new();
    loop {
        let number = shared.next.fetch_add(1, Ordering::Relaxed);
        if number >= shared.last || shared.phase.load(Ordering::Relaxed) == OVER {
            return Ok(took);
        }
        let start = Instant::now();
        client.once(number).await?;
        if shared.phase.load(Ordering::Relaxed) == COUNTED {
            took.push(u32::try_from(start.elapsed().as_micros()).unwrap_or(u32::MAX));
        }
    }
}

async fn ended(mut all: All, limit: Duration) -> Result<Latencies, LabError> {
    let failed = |what: String| LabError::Answer { whom: "the server under load".to_owned(), what };
    let joined = async {
        let mut took = Vec::new();
        while let Some(one) = all.join_next().await {
            took.extend(one.map_err(|error| failed(error.to_string()))?.map_err(failed)?);
        }
        Ok::<_, LabError>(Latencies::new(took))
    };
    let late = |_| failed(format!("nothing more within {limit:?}"));
    tokio::time::timeout(limit, joined).await.map_err(late)?
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fails(u64);

    impl Client for Fails {
        async fn once(&mut self, number: u64) -> Result<(), String> {
            tokio::task::yield_now().await;
            if number == self.0 { Err(format!("not {number}")) } else { Ok(()) }
        }
    }

    #[tokio::test]
    async fn so_many_operations_are_done_and_no_more() {
        // The first that must not happen would fail.
        times(vec![Fails(100), Fails(100)], 100).await.unwrap();
        let error = times(vec![Fails(99), Fails(99)], 100).await.unwrap_err();
        assert!(error.to_string().contains("not 99"), "{error}");
    }

    #[tokio::test]
    async fn clients_stop_when_the_window_ends() {
        let window = async {
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
        };
        let clients = vec![Fails(u64::MAX), Fails(u64::MAX)];
        let (latencies, ()) = during(clients, Duration::ZERO, window).await.unwrap();
        assert!(latencies.count() > 0);
    }
}
