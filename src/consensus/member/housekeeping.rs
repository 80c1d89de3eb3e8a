//! What a member does by itself: it looks who leads, removes what is due, frees memory, makes
//! checkpoints, and ends with its log.

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::Fatal;
use tokio_util::sync::CancellationToken;

use crate::consensus::member::{FORWARDED, Inner, Member};
use crate::consensus::types::TypeConfig;
use crate::foundation::clock::{Clock, Timestamp};
use crate::store::Command;

/// Bytes of entries kept behind a checkpoint, if that is less than the entries that are kept.
const BYTES_KEPT: usize = 8 << 20;
/// How long to wait for a checkpoint before the log is shortened with the next one.
const CHECKPOINT_TAKES: Duration = Duration::from_mins(5);
/// How long to leave to others between two steps of freeing memory.
const SWEEP_PAUSE: Duration = Duration::from_millis(2);
/// Shortest time between two looks at what expires: keys that are due together go together.
const EXPIRY_STEP: Duration = Duration::from_millis(20);

impl Member {
    /// Ends the member with its log, also where nobody waits for what could not be written.
    pub(super) async fn end_with_log(&self, stop: CancellationToken) {
        if stop.run_until_cancelled(self.inner.log.stopped()).await.is_some()
            && self.status().failed.is_none()
        {
            self.end("the log cannot be written any more".to_owned()).await;
        }
    }

    /// Takes note of who leads whenever that changes. A member that leads alone has nobody to give
    /// signs of life to and nobody to hear them from: the library's clock stands still then.
    pub(super) async fn see_leaders(&self, clock: Arc<dyn Clock>, stop: CancellationToken) {
        let mut standing = self.inner.standing.clone();
        loop {
            self.inner.figures.led_by(standing.leader(), clock.now());
            self.inner.raft.runtime_config().tick(standing.alone_in().is_none());
            if stop.run_until_cancelled(standing.changed()).await != Some(true) {
                return;
            }
        }
    }

    /// Proposes the removal of keys as soon as they are due, while this member leads.
    pub(super) async fn expire(&self, clock: Arc<dyn Clock>, stop: CancellationToken) {
        let mut chores = self.inner.store.chores();
        loop {
            let due = chores.borrow_and_update().expiry;
            let wait = due.map(|due| due.since(clock.now()).max(EXPIRY_STEP));
            let slept = async {
                match wait {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = slept => {}
                changed = chores.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    continue;
                }
            }
            let now = clock.now();
            if due.is_some_and(|due| due <= now) && self.inner.raft.is_leader() {
                self.expire_now(now).await;
            }
        }
    }

    async fn expire_now(&self, now: Timestamp) {
        let proposed = self.inner.proposer.propose(vec![Command::Expire], false, FORWARDED).await;
        if let Err(error) = proposed {
            tracing::debug!(%error, now = now.as_nanos(), "keys are due, and could not be removed");
        }
    }

    /// Frees memory after each compaction, in steps between which batches are applied.
    pub(super) async fn sweep(&self, stop: CancellationToken) {
        let mut chores = self.inner.store.chores();
        loop {
            let dropped = chores.wait_for(|chores| chores.unswept);
            if !matches!(stop.run_until_cancelled(dropped).await, Some(Ok(_))) {
                return;
            }
            while self.inner.store.compact_step() {
                let paused = stop.run_until_cancelled(tokio::time::sleep(SWEEP_PAUSE)).await;
                if paused.is_none() {
                    return;
                }
            }
        }
    }

    /// Makes a checkpoint whenever the log has grown by as much as its options say.
    pub(super) async fn checkpoint(&self, stop: CancellationToken) {
        loop {
            let grown = self.inner.log.has_grown(self.inner.store.manifest_bytes());
            if stop.run_until_cancelled(grown).await.is_none() {
                return;
            }
            // Right after a start there may be nothing yet that the last one does not have.
            let mut progress = self.progress();
            let saved = self.inner.store.saved_index();
            let newer = progress.wait_for(|progress| progress.applied > saved);
            if !matches!(stop.run_until_cancelled(newer).await, Some(Ok(_))) {
                return;
            }
            self.inner.log.reset_bytes_written();
            match stop.run_until_cancelled(self.inner.make_checkpoint()).await {
                None => return,
                Some(Ok(())) => {}
                Some(Err(error)) => tracing::warn!(%error, "no checkpoint was made"),
            }
        }
    }
}

impl Inner {
    /// Makes a checkpoint, and then shortens the log to what may be kept behind it.
    async fn make_checkpoint(&self) -> Result<(), Fatal<TypeConfig>> {
        let before = self.raft.metrics().borrow_watched().snapshot;
        self.raft.trigger().snapshot().await?;
        let wait = self.raft.wait(Some(CHECKPOINT_TAKES));
        // What goes wrong here is told by whoever makes it; the next one shortens the log.
        let made = wait.metrics(|metrics| metrics.snapshot > before, "a checkpoint").await;
        let upto = self.log.index_before_last(BYTES_KEPT);
        if made.is_ok() && upto > 0 {
            self.raft.trigger().purge_log(upto).await?;
        }
        Ok(())
    }
}
