//! The store as the consensus library drives it: applies what is committed, makes checkpoints.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use futures_util::{Stream, TryStreamExt as _};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::consensus::figures::Figures;
use crate::consensus::leases::Leases;
use crate::consensus::types::{LogId, Membership, Snapshot, SnapshotMeta, TypeConfig};
use crate::foundation::clock::Timestamp;
use crate::foundation::exit::chain;
use crate::foundation::limits::{COMPACT_EVENTS_MAX, SETTLE_VERSIONS_MAX};
use crate::platform::disk::Disk;
use crate::store::checkpoint::{
    self, Checkpoint, CheckpointError, PartEntry, Receiving, Saving, Step, Stored,
};
use crate::store::machine::Machine;
use crate::store::mvcc::SavedPart;

/// How long to leave the disk to others between two slices of a checkpoint.
const SAVE_PAUSE: Duration = Duration::from_millis(2);
/// How long to leave the keys to others between some steps of letting go what a checkpoint has.
const SETTLE_PAUSE: Duration = Duration::from_millis(1);
/// Steps between two such pauses. A pause is two to five times as long as it should be where the machine
/// is busy, and until all is let go no other checkpoint is made: with a pause after each step, what was
/// written meanwhile came to hundreds of mebibytes.
const SETTLE_STEPS: usize = 40;

/// Where in the log the machine stands, and who the members are there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The last entry that was applied.
    pub applied: Option<LogId>,
    /// The members as of that entry.
    pub membership: Membership,
}

impl Position {
    /// Returns the index of the last entry that was applied; 0 if there is none.
    fn index(&self) -> u64 {
        self.applied.map_or(0, |id| id.index)
    }
}

/// The machine with its position.
#[derive(Debug, Default)]
pub struct Image {
    /// The machine.
    pub machine: Machine,
    /// Where it stands.
    pub position: Position,
}

/// How far the machine has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// The index of the last entry that was applied.
    pub applied: u64,
    /// The index of the v2 keys.
    pub keys: u64,
    /// The revision of the v3 keys.
    pub revision: i64,
    /// The revision before which their history was dropped last.
    pub compacted: i64,
    /// The last such revision for which memory was freed.
    pub swept: i64,
    /// What the v3 keys take of their quota, in bytes.
    pub bytes: u64,
}

/// What is to be done beside applying. It changes seldom: who has only this to do is not woken by
/// every batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Chores {
    /// When the next of the v2 keys expires.
    pub expiry: Option<Timestamp>,
    /// Whether a compaction has left memory to free.
    pub unswept: bool,
    /// What the v3 keys take, in bytes, if that is the quota or more.
    pub outgrown_bytes: Option<u64>,
}

/// The store of one member; clones share it.
#[derive(Debug, Clone)]
pub struct StateMachine {
    image: Arc<RwLock<Image>>,
    progress: Arc<watch::Sender<Progress>>,
    chores: Arc<watch::Sender<Chores>>,
    /// How many bytes the v3 keys may take; `None` for any.
    quota_bytes: Option<u64>,
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    leases: Arc<Leases>,
    figures: Arc<Figures>,
    /// The newest checkpoint, and where in the log it is.
    newest: Arc<Mutex<Option<(Position, Stored)>>>,
    /// What comes of a checkpoint of the leader.
    receiving: Arc<Mutex<Receiving>>,
    /// Held while a checkpoint is written: one that is made and one that is installed would write
    /// the same temporary files, and remove each other's parts.
    saving: Arc<tokio::sync::Mutex<()>>,
    /// Work that blocks runs inline where the disk is simulated: its clock would stand still.
    inline: bool,
}

impl StateMachine {
    /// Reads the newest checkpoint in `folder`, or begins empty.
    pub fn open(
        disk: Arc<dyn Disk>,
        folder: &Path,
        inline: bool,
        quota_bytes: Option<u64>,
        figures: Arc<Figures>,
    ) -> Result<Self, CheckpointError> {
        let (image, newest) = match checkpoint::open(&*disk, folder)? {
            Some((checkpoint, stored)) => {
                let image = image_of(checkpoint, folder)?;
                let newest = (image.position.clone(), stored);
                (image, Some(newest))
            }
            None => (Image::default(), None),
        };
        let progress = Arc::new(watch::Sender::new(progress(&image)));
        let store = Self {
            image: Arc::new(RwLock::new(image)),
            progress,
            chores: Arc::default(),
            quota_bytes,
            disk,
            folder: folder.to_owned(),
            leases: Arc::default(),
            figures,
            newest: Arc::new(Mutex::new(newest)),
            receiving: Arc::default(),
            saving: Arc::default(),
            inline,
        };
        let (known, expiry) = (*store.progress.borrow(), store.next_expiry());
        store.publish(known, expiry);
        Ok(store)
    }

    fn next_expiry(&self) -> Option<Timestamp> {
        self.image().machine.keys.next_expiry()
    }

    /// Tells whoever waits how far the machine has come, and what there is to do.
    fn publish(&self, progress: Progress, expiry: Option<Timestamp>) {
        self.progress.send_replace(progress);
        let chores = Chores {
            expiry,
            unswept: progress.compacted != progress.swept,
            outgrown_bytes: self
                .quota_bytes
                .filter(|quota| progress.bytes >= *quota)
                .map(|_| progress.bytes),
        };
        self.chores.send_if_modified(|known| std::mem::replace(known, chores) != chores);
    }

    /// Returns the machine and its position, locked against changes: not across an await.
    pub fn image(&self) -> RwLockReadGuard<'_, Image> {
        self.image.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a channel that tells how far the machine has come.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Returns a channel that tells what is to be done beside applying.
    pub fn chores(&self) -> watch::Receiver<Chores> {
        self.chores.subscribe()
    }

    /// Returns the ends of leases.
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    /// Frees some memory after a compaction; tells whether there is more to free.
    pub fn compact_step(&self) -> bool {
        let mut image = self.image_mut();
        let keys = &mut image.machine.keys_v3;
        let more = keys.compact_step(COMPACT_EVENTS_MAX);
        let (swept, bytes) = (keys.now().compact_revision(), keys.bytes());
        let expiry = image.machine.keys.next_expiry();
        // Locked until it is told: what is applied next is told next.
        if !more {
            let known = *self.progress.borrow();
            self.publish(Progress { swept, bytes, ..known }, expiry);
        }
        drop(image);
        more
    }

    fn image_mut(&self) -> RwLockWriteGuard<'_, Image> {
        self.image.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a checkpoint and makes it safe, in slices.
    async fn save(&self, mut saving: Saving, position: Position) -> io::Result<Stored> {
        let begun = Instant::now();
        loop {
            let (disk, needed) = (self.disk.clone(), self.receiving().needed());
            let work = move || {
                let step = saving.step(&*disk, &needed)?;
                Ok((saving, step))
            };
            let step;
            (saving, step) = self.blocking(work).await?;
            if step == Step::Done {
                break;
            }
            tokio::time::sleep(self.disk.sync_time().max(SAVE_PAUSE)).await;
        }
        let stored = saving.finish();
        *self.newest() = Some((position, stored.clone()));
        self.figures.checkpoints.observe(begun.elapsed());
        Ok(stored)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, CheckpointError> + Send + 'static,
    ) -> io::Result<T> {
        let done =
            if self.inline { work() } else { crate::foundation::tasks::blocking(work).await };
        done.map_err(failed)
    }

    fn newest(&self) -> MutexGuard<'_, Option<(Position, Stored)>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn receiving(&self) -> MutexGuard<'_, Receiving> {
        self.receiving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of the parts that the leader is about to send; returns how many bytes of each are
    /// here, or `None` while another checkpoint is installed.
    pub async fn offered(&self, parts: Vec<PartEntry>) -> io::Result<Option<Vec<u64>>> {
        // Parts of this member that the answer relies on must not be removed meanwhile; the work goes
        // on where whoever asked is gone.
        let saving = self.saving.clone().lock_owned().await;
        let store = self.clone();
        let own = self.image().machine.keys_v3.saved().clone();
        let offer = move || {
            let _saving = saving;
            store.receiving().offer(&*store.disk, &store.folder, &own, &parts)
        };
        self.blocking(offer).await
    }

    /// Writes a piece of a part; returns how many bytes of it are here, or `None` if it was not offered.
    pub async fn receive(
        &self,
        part: PartEntry,
        offset: u64,
        data: Vec<u8>,
    ) -> io::Result<Option<u64>> {
        if offset.saturating_add(data.len() as u64) == part.length {
            tokio::time::sleep(self.disk.sync_time()).await;
        }
        let store = self.clone();
        let piece = move || store.receiving().piece(&store.folder, &part, offset, &data);
        self.blocking(piece).await
    }

    /// Returns the checkpoint of the leader if all its parts have come.
    pub async fn received(&self, manifest: Vec<u8>) -> io::Result<Option<Stored>> {
        let store = self.clone();
        let finish = move || store.receiving().finish(&*store.disk, &store.folder, &manifest);
        self.blocking(finish).await
    }

    /// Returns the index of the last entry that the newest checkpoint has; 0 if there is none.
    pub fn saved_index(&self) -> u64 {
        let newest = self.newest();
        newest.as_ref().map_or(0, |(position, _)| position.index())
    }

    /// Returns how many bytes the newest checkpoint has beside its parts: each is written anew with
    /// all of them.
    pub fn manifest_bytes(&self) -> u64 {
        let newest = self.newest();
        newest.as_ref().map_or(0, |(_, stored)| stored.manifest().len() as u64)
    }

    fn path_at(&self, position: &Position) -> PathBuf {
        checkpoint::path_of(&self.folder, position.index())
    }

    /// Makes a checkpoint of what is applied now. Returns with it the parts that it does not have.
    async fn make(&self) -> io::Result<(Snapshot, Vec<Arc<SavedPart>>)> {
        let _saving = self.saving.lock().await;
        let (checkpoint, position) = {
            let image = self.image();
            (copied(&image), image.position.clone())
        };
        let (folder, path) = (self.folder.clone(), self.path_at(&position));
        let saving = self.blocking(move || Ok(Saving::new(&folder, path, checkpoint))).await?;
        let stored = self.save(saving, position.clone()).await?;
        let old = self.image_mut().machine.keys_v3.adopt(stored.saved().clone());
        Ok((snapshot(position, stored), old))
    }

    /// Lets go of the memory that the newest checkpoint has, in steps between which batches are
    /// applied, and then of `old` parts. Where the leader's state is taken over meanwhile, there is
    /// nothing more to do.
    async fn settle(&self, old: Vec<Arc<SavedPart>>) -> io::Result<()> {
        let mut steps = 0;
        while self.settle_step() {
            steps += 1;
            if steps % SETTLE_STEPS == 0 {
                tokio::time::sleep(SETTLE_PAUSE).await;
            } else {
                tokio::task::yield_now().await;
            }
        }
        // To unmap one takes milliseconds.
        let unmap = move || {
            drop(old);
            Ok(())
        };
        self.blocking(unmap).await
    }

    fn settle_step(&self) -> bool {
        self.image_mut().machine.keys_v3.settle_step(SETTLE_VERSIONS_MAX)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` gives")]
fn failed(error: CheckpointError) -> io::Error {
    let kind = match error {
        CheckpointError::Disk { .. } => io::ErrorKind::Other,
        CheckpointError::Corrupt { .. }
        | CheckpointError::Keys { .. }
        | CheckpointError::Parts { .. }
        | CheckpointError::Format { .. } => io::ErrorKind::InvalidData,
    };
    io::Error::new(kind, chain(&error))
}

/// Returns how far a machine has come that has nothing to free, as one that was just read.
fn progress(image: &Image) -> Progress {
    let view = image.machine.keys_v3.now();
    Progress {
        applied: image.position.index(),
        keys: image.machine.keys.index(),
        revision: view.revision(),
        compacted: view.compact_revision(),
        swept: view.compact_revision(),
        bytes: image.machine.keys_v3.bytes(),
    }
}

fn copied(image: &Image) -> Checkpoint {
    let position = postcard::to_stdvec(&image.position).expect("plain data always encodes");
    Checkpoint { position, machine: image.machine.clone() }
}

fn image_of(checkpoint: Checkpoint, folder: &Path) -> Result<Image, CheckpointError> {
    let position = postcard::from_bytes(&checkpoint.position)
        .map_err(|_| CheckpointError::Corrupt { path: folder.to_owned() })?;
    Ok(Image { machine: checkpoint.machine, position })
}

fn snapshot(position: Position, stored: Stored) -> Snapshot {
    let meta = SnapshotMeta { last_log_id: position.applied, last_membership: position.membership };
    Snapshot { meta, snapshot: stored }
}

impl RaftSnapshotBuilder<TypeConfig> for StateMachine {
    type SnapshotData = Stored;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let (made, old) = self.make().await?;
        self.settle(old).await?;
        Ok(made)
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = Stored;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, Membership)> {
        let image = self.image();
        Ok((image.position.applied, image.position.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let outcomes = {
                let mut image = self.image_mut();
                image.position.applied = Some(entry.log_id);
                let outcomes = match &entry.payload {
                    EntryPayload::Blank => Vec::new(),
                    EntryPayload::Normal(batch) => {
                        let before = image.machine.keys.index();
                        let outcomes = image.machine.apply(batch);
                        let moved = image.machine.keys.index() - before;
                        self.figures.keys.applied(&batch.commands, &outcomes, moved);
                        self.leases.applied(batch, &outcomes);
                        outcomes
                    }
                    EntryPayload::Membership(members) => {
                        image.position.membership =
                            Membership::new(Some(entry.log_id), members.clone());
                        Vec::new()
                    }
                };
                let swept = self.progress.borrow().swept;
                let progress = Progress { swept, ..progress(&image) };
                self.publish(progress, image.machine.keys.next_expiry());
                outcomes
            };
            if let Some(responder) = responder {
                responder.send(outcomes);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, _meta: &SnapshotMeta, received: Stored) -> io::Result<()> {
        let _saving = self.saving.lock().await;
        let (folder, stored) = (self.folder.clone(), received.clone());
        let load = move || image_of(stored.load(&folder)?, &folder);
        let image = self.blocking(load).await?;
        let position = image.position.clone();
        let saving = Saving::take(&self.folder, self.path_at(&position), &received);
        self.save(saving.map_err(failed)?, position).await?;
        self.receiving().taken();
        let progress = progress(&image);
        {
            let mut known = self.image_mut();
            *known = image;
            self.publish(progress, known.machine.keys.next_expiry());
        }
        tracing::info!(index = progress.applied, "a checkpoint of the leader installed");
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let newest = self.newest().clone();
        Ok(newest.map(|(position, stored)| snapshot(position, stored)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::foundation::random::Random;
    use crate::platform::disk::MemoryDisk;

    #[tokio::test(start_paused = true)]
    async fn a_checkpoint_that_is_made_while_another_is_installed_leaves_both_whole() {
        let folder = Path::new("/checkpoint");
        for seed in 0..20 {
            let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new(Random::seeded(seed), 20));
            let open = || {
                let figures = Arc::new(Figures::new(Timestamp::EPOCH));
                StateMachine::open(disk.clone(), folder, true, None, figures)
            };
            let store = open().unwrap();
            let other = StateMachine::open(
                Arc::new(MemoryDisk::new(Random::seeded(seed), 20)),
                folder,
                true,
                None,
                Arc::new(Figures::new(Timestamp::EPOCH)),
            );
            let other = other.unwrap().build_snapshot().await.unwrap();
            for part in &other.snapshot.saved().parts {
                let entry = PartEntry::of(part);
                store.offered(vec![entry]).await.unwrap();
                store.receive(entry, 0, part.file().to_vec()).await.unwrap();
            }
            let manifest = other.snapshot.manifest().to_vec();
            let received = store.received(manifest).await.unwrap().unwrap();
            let (mut builder, mut other_store) = (store.clone(), store.clone());
            let install = other_store.install_snapshot(&other.meta, received);
            let (made, installed) = tokio::join!(builder.build_snapshot(), install);
            assert!(made.is_ok() && installed.is_ok(), "seed {seed}");
            assert!(open().is_ok(), "seed {seed}");
        }
    }
}
