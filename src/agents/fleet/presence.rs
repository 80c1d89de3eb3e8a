//! "I am here": the key that says so, written again before it expires.
//!
//! The first beat makes the key: a second machine with our id never joins. What an earlier run
//! of this machine left behind is known by its address and taken over. Once registered, a beat
//! writes whatever is there, since after an outage the key is gone.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::agents::fleet::registry::Store;
use crate::agents::fleet::view::{Health, View};
use crate::foundation::backoff::Backoff;
use crate::rpc::client::keys::{Expect, KeysFailure};
use crate::wire::etcd::keys_v2::Code;
use crate::wire::fleet::registry::MachineObject;

/// Beats that may fail before we count as gone.
const TRIES: u32 = 4;
/// Waits while the store is away: whoever lives is back within a second of its return.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// Waits while another machine has our id.
const FIRST_REFUSED: Duration = Duration::from_secs(1);
const LONGEST_REFUSED: Duration = Duration::from_mins(1);

/// A beat failed.
#[derive(Debug, thiserror::Error)]
enum BeatError {
    #[error(
        "a machine with the id {id} is registered from `{address}` already; \
         give each machine its own /etc/machine-id, or wait until that one has expired"
    )]
    Taken { id: String, address: String },
    #[error(transparent)]
    Store(KeysFailure),
    #[error("no answer in time")]
    Late,
}

/// Keeps the presence key alive.
#[derive(Debug)]
pub struct Presence {
    me: MachineObject,
    store: Store,
    view: Arc<View>,
    ttl: Duration,
    registered: bool,
    /// A first beat that was never answered may have been ours.
    unanswered: bool,
}

impl Presence {
    /// Makes a presence that lasts for `ttl` after each beat.
    pub fn new(me: MachineObject, store: Store, view: Arc<View>, ttl: Duration) -> Self {
        Self { me, store, view, ttl, registered: false, unanswered: false }
    }

    /// Beats until told to stop. The key stays; who leaves for good removes it.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut away = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        let mut refused = Backoff::new(FIRST_REFUSED, LONGEST_REFUSED);
        let mut health = self.view.health();
        let mut last = Instant::now();
        let mut failures = 0;
        loop {
            let wait = match self.try_beat().await {
                Ok(()) => {
                    (away, refused) = (
                        Backoff::new(FIRST_WAIT, LONGEST_WAIT),
                        Backoff::new(FIRST_REFUSED, LONGEST_REFUSED),
                    );
                    (failures, last) = (0, Instant::now());
                    self.view.set_present(true);
                    self.ttl / 2
                }
                Err(error @ BeatError::Taken { .. }) => {
                    tracing::error!(why = %error, "not part of the cluster");
                    self.view.set_present(false);
                    refused.next_wait()
                }
                Err(error) => {
                    failures += 1;
                    if failures >= TRIES || last.elapsed() >= self.ttl {
                        self.view.set_present(false);
                    }
                    tracing::debug!(why = %error, failures, "beat failed");
                    away.next_wait()
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = returned(&mut health) => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn try_beat(&mut self) -> Result<(), BeatError> {
        let limit = self.ttl / 3;
        tokio::time::timeout(limit, self.beat()).await.unwrap_or(Err(BeatError::Late))
    }

    async fn beat(&mut self) -> Result<(), BeatError> {
        if self.registered {
            return self.write(Expect::Anything).await;
        }
        match self.store.beat(&self.me, self.ttl, Expect::Absent).await {
            Ok(()) => {
                self.registered = true;
                tracing::info!(machine = %self.me.id, address = %self.me.public_ip, "registered");
                Ok(())
            }
            Err(failure) if failure.is(Code::NodeExist) => self.take_over().await,
            Err(failure) => {
                self.unanswered |= matches!(failure, KeysFailure::Unknown { .. });
                Err(BeatError::Store(failure))
            }
        }
    }

    /// Takes over what an earlier run of ours has left; another machine's is another machine's.
    async fn take_over(&mut self) -> Result<(), BeatError> {
        let found = self.store.presence(&self.me.id).await.map_err(BeatError::Store)?;
        let Some((other, index)) = found else { return self.write(Expect::Absent).await };
        let same_place = !other.public_ip.is_empty() && other.public_ip == self.me.public_ip;
        if same_place || (self.unanswered && other == self.me) {
            return self.write(Expect::Index(index)).await;
        }
        Err(BeatError::Taken { id: self.me.id.clone(), address: other.public_ip })
    }

    async fn write(&mut self, expect: Expect) -> Result<(), BeatError> {
        self.store.beat(&self.me, self.ttl, expect).await.map_err(BeatError::Store)?;
        self.registered = true;
        Ok(())
    }
}

/// Waits until the store is heard of again: then a beat is due at once, whatever the rhythm.
async fn returned(health: &mut watch::Receiver<Health>) {
    loop {
        let listed = health.borrow_and_update().listed;
        if health.changed().await.is_err() {
            return std::future::pending().await;
        }
        if !listed && health.borrow().listed {
            return;
        }
    }
}
