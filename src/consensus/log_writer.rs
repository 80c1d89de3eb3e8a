//! The writer of the log: takes everything that waits, writes it, syncs once, and only then says so.
//!
//! In the product it is a thread; in simulation a task, so that a sync takes simulated time. A failed
//! write or sync ends the member: it is never tried again, since the kernel may have dropped what was to
//! be written.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use openraft::storage::IOFlushed;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::consensus::figures::Figures;
use crate::consensus::log_store::{Record, State, encode};
use crate::consensus::mistakes::{Mistake, Mistakes};
use crate::consensus::types::TypeConfig;
use crate::foundation::exit::chain;
use crate::foundation::tasks::{self, Tasks};
use crate::platform::disk::Disk;
use crate::store::wal::{self, Wal, WalError};

/// Writes that wait for the writer before the library has to wait too.
pub(super) const JOBS_MAX: usize = 4096;

/// Where the writer runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriterKind {
    /// A thread of its own: the product.
    Thread,
    /// A task: simulation.
    Task,
}

/// Who waits for bytes to be safe.
pub(super) enum Waiting {
    Nobody,
    Caller(oneshot::Sender<io::Result<()>>),
    Raft(IOFlushed<TypeConfig>),
}

/// What is to be written together.
pub(super) struct Job {
    pub(super) records: Vec<wal::Record>,
    /// What a segment that begins after this job is to say first.
    pub(super) state: State,
    /// Segments that carry nothing above this can go.
    pub(super) purge: Option<u64>,
    pub(super) waiting: Waiting,
}

/// The one who writes.
pub(super) struct Writer {
    pub(super) wal: Wal,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) state: State,
    pub(super) mistakes: Mistakes,
    pub(super) figures: Arc<Figures>,
    pub(super) jobs: mpsc::Receiver<Job>,
}

impl Writer {
    /// Starts to write; it ends with the senders of its jobs.
    pub(super) fn start(self, kind: WriterKind, tasks: &Tasks) -> io::Result<()> {
        match kind {
            WriterKind::Thread => tasks::thread("log-writer", move || self.thread()).map(drop),
            WriterKind::Task => {
                tasks.spawn("log-writer", |_stop| self.task());
                Ok(())
            }
        }
    }

    fn thread(mut self) {
        let mut spare = Spare::default();
        while let Some(first) = self.jobs.blocking_recv() {
            spare.see_to(&mut self.wal);
            let batch = self.batch(first);
            let result = self.write(&batch).and_then(|()| self.sync(Instant::now()));
            if !self.finish(batch, result) {
                return;
            }
        }
    }

    async fn task(mut self) {
        while let Some(first) = self.jobs.recv().await {
            let mut batch = self.batch(first);
            let mut result = self.write(&batch);
            if self.mistakes.makes(Mistake::AckBeforeSync) && result.is_ok() {
                let waiting = batch
                    .iter_mut()
                    .map(|job| std::mem::replace(&mut job.waiting, Waiting::Nobody));
                waiting.for_each(|waiting| tell(waiting, Ok(())));
            }
            let begun = Instant::now();
            tokio::time::sleep(self.disk.sync_time()).await;
            result = result.and_then(|()| self.sync(begun));
            if !self.finish(batch, result) {
                return;
            }
        }
    }

    /// Makes safe what was written; the sync counts from `begun`.
    fn sync(&mut self, begun: Instant) -> Result<(), WalError> {
        self.wal.sync()?;
        self.figures.wal_sync.observe(begun.elapsed());
        Ok(())
    }

    fn batch(&mut self, first: Job) -> Vec<Job> {
        let mut batch = vec![first];
        while batch.len() < JOBS_MAX
            && let Ok(job) = self.jobs.try_recv()
        {
            batch.push(job);
        }
        batch
    }

    fn write(&mut self, batch: &[Job]) -> Result<(), WalError> {
        for job in batch {
            // The state before this job: a new segment must not promise what is not yet written.
            let state = encode(&Record::State(self.state.clone()));
            self.wal.write(&job.records, &state)?;
            let bytes: usize = job.records.iter().map(|record| record.body.len()).sum();
            self.figures.wal_bytes.add(bytes as u64);
            self.state = job.state.clone();
        }
        Ok(())
    }

    /// Tells everyone how it ended. False when nothing may be written any more.
    fn finish(&mut self, batch: Vec<Job>, mut result: Result<(), WalError>) -> bool {
        if result.is_ok()
            && let Some(upto) = batch.iter().filter_map(|job| job.purge).max()
        {
            result = self.wal.drop_upto(upto);
        }
        let ignored = self.mistakes.makes(Mistake::IgnoreDiskErrors);
        let told =
            result.map_err(|error| chain(&error)).or_else(|why| ignored.then_some(()).ok_or(why));
        if let Err(why) = &told {
            tracing::error!("{why}; nothing more is written: this member stops");
        }
        for job in batch {
            tell(job.waiting, told.clone().map_err(io::Error::other));
        }
        told.is_ok()
    }
}

/// The spare segment that is made by a thread while the log goes on, so that the writer need not
/// stop for it.
#[derive(Debug, Default)]
struct Spare {
    made: Option<JoinHandle<Result<PathBuf, WalError>>>,
    /// What was wrong with the last one; no other is tried before the log itself had to make one.
    failed: bool,
}

impl Spare {
    /// Takes the segment that was made, or has one made, if it is time.
    fn see_to(&mut self, wal: &mut Wal) {
        if self.made.as_ref().is_some_and(JoinHandle::is_finished)
            && let Some(made) = self.made.take()
        {
            match made.join() {
                Ok(Ok(spare)) => wal.add_spare(spare),
                Ok(Err(error)) => self.fail(&chain(&error)),
                Err(_) => self.fail("its thread ended early"),
            }
        }
        let maker = wal.needs_spare();
        self.failed &= maker.is_some();
        if self.made.is_some() || self.failed {
            return;
        }
        let Some(maker) = maker else { return };
        match tasks::thread("log-spare", move || maker.make()) {
            Ok(thread) => self.made = Some(thread),
            Err(error) => self.fail(&chain(&error)),
        }
    }

    fn fail(&mut self, why: &str) {
        self.failed = true;
        tracing::warn!("{why}; the log goes on while its segment has room: make room on the disk");
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        // A thread that panicked has said so.
        drop(self.made.take().map(JoinHandle::join));
    }
}

fn tell(waiting: Waiting, result: io::Result<()>) {
    match waiting {
        Waiting::Nobody => {}
        // A caller that is gone no longer cares.
        Waiting::Caller(caller) => drop(caller.send(result)),
        Waiting::Raft(flushed) => flushed.io_completed(result),
    }
}
