//! When the log has grown by so much that a checkpoint is worth its cost.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// How long nothing must have been written for the log to be at rest.
const REST: Duration = Duration::from_millis(500);
/// Which part of what makes the log have grown is worth a checkpoint when it is at rest.
const REST_SHARE: u64 = 8;
/// Which part of what a checkpoint writes anew each time has to be written to the log before.
const WHOLE_SHARE: u64 = 4;

/// How many bytes were written, and who waits for them to be many.
#[derive(Debug)]
pub(super) struct Grown {
    bytes: AtomicU64,
    /// So many are worth a checkpoint when nothing more is written.
    some: AtomicU64,
    /// So many are worth one at once.
    many: u64,
    told: Notify,
}

impl Grown {
    /// Begins with none.
    pub(super) fn new(many: u64) -> Self {
        let grown =
            Self { bytes: AtomicU64::new(0), some: AtomicU64::new(0), many, told: Notify::new() };
        grown.weigh(0);
        grown
    }

    /// Decides how many are some, where each checkpoint writes `whole` bytes anew.
    pub(super) fn weigh(&self, whole: u64) {
        let some = (self.many / REST_SHARE).max(whole / WHOLE_SHARE).clamp(1, self.many.max(1));
        self.some.store(some, Ordering::Relaxed);
    }

    /// Starts to count anew.
    pub(super) fn reset(&self) {
        self.bytes.store(0, Ordering::Relaxed);
    }

    fn some(&self) -> u64 {
        self.some.load(Ordering::Relaxed)
    }

    /// Adds what was written, and tells who waits.
    pub(super) fn by(&self, bytes: u64) {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let reached = |level| before < level && before + bytes >= level;
        if reached(self.some()) || reached(self.many) {
            self.told.notify_one();
        }
    }

    /// Returns once there are many, or some and then none more for a while. Nothing wakes it while
    /// there are few.
    pub(super) async fn enough(&self) {
        loop {
            let known = self.bytes.load(Ordering::Relaxed);
            if known >= self.many {
                return;
            }
            let told = self.told.notified();
            if known < self.some() {
                told.await;
            } else if tokio::time::timeout(REST, told).await.is_err()
                && known == self.bytes.load(Ordering::Relaxed)
            {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_log_has_grown_when_it_is_long_or_at_rest_and_worth_it() {
        let grown = Grown::new(80);
        let soon = async || tokio::time::timeout(REST / 2, grown.enough()).await.is_ok();
        let long = async || tokio::time::timeout(REST * 100, grown.enough()).await.is_ok();
        grown.by(9);
        assert!(!long().await, "it is not worth it, however long it is at rest");
        grown.by(1);
        assert!(!soon().await, "it is not at rest yet");
        assert!(long().await, "an eighth is worth it");
        grown.reset();
        assert!(!long().await, "it counts anew");
        grown.by(10);
        for _ in 0..10 {
            assert!(!soon().await, "something is written now and then");
            grown.by(1);
        }
        grown.by(60);
        assert!(soon().await, "it is long");
        grown.reset();
        grown.weigh(200);
        grown.by(49);
        assert!(!long().await, "a checkpoint would write four times as much");
        grown.by(1);
        assert!(long().await, "it is worth that");
        grown.weigh(4_000);
        assert!(!long().await, "it is not worth ten times as much");
        grown.by(30);
        assert!(soon().await, "but what a start has to read has its limit");
        grown.reset();
        grown.weigh(0);
        let written = async {
            for _ in 0..100 {
                tokio::time::sleep(REST * 9 / 10).await;
                grown.by(11);
            }
        };
        let (at, ()) = tokio::join!(
            async {
                grown.enough().await;
                grown.bytes.load(Ordering::Relaxed)
            },
            written
        );
        assert!(at >= 80, "at {at}: what goes on being written is not at rest");
    }
}
