//! The store as the consensus library drives it: applies what is committed, makes checkpoints.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

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
use crate::foundation::limits::COMPACT_EVENTS_MAX;
use crate::platform::disk::Disk;
use crate::store::checkpoint::{self, Checkpoint, CheckpointError};
use crate::store::machine::Machine;

/// Where in the log the machine stands, and who the members are there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The last entry that was applied.
    pub applied: Option<LogId>,
    /// The members as of that entry.
    pub membership: Membership,
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
    /// Held while a checkpoint is written: one that is made and one that is installed would write
    /// the same temporary file.
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
        let image = match checkpoint::newest(&*disk, folder)? {
            Some((path, bytes)) => decode(&bytes, &path)?,
            None => Image::default(),
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

    /// Writes a checkpoint's bytes and makes them safe.
    async fn save(&self, bytes: Arc<Vec<u8>>, index: u64) -> io::Result<()> {
        let _saving = self.saving.lock().await;
        let begun = Instant::now();
        let prepare = {
            let (disk, folder) = (self.disk.clone(), self.folder.clone());
            move || checkpoint::prepare(&*disk, &folder, &bytes).map(drop)
        };
        let commit = {
            let (disk, folder) = (self.disk.clone(), self.folder.clone());
            move || checkpoint::commit(&*disk, &folder, index)
        };
        self.blocking(prepare).await?;
        tokio::time::sleep(self.disk.sync_time()).await;
        self.blocking(commit).await?;
        self.figures.checkpoints.observe(begun.elapsed());
        Ok(())
    }

    async fn blocking(
        &self,
        work: impl FnOnce() -> Result<(), CheckpointError> + Send + 'static,
    ) -> io::Result<()> {
        let done =
            if self.inline { work() } else { crate::foundation::tasks::blocking(work).await };
        done.map_err(|error| io::Error::other(chain(&error)))
    }
}

/// Returns how far a machine has come that has nothing to free, as one that was just read.
fn progress(image: &Image) -> Progress {
    let view = image.machine.keys_v3.now();
    Progress {
        applied: image.position.applied.map_or(0, |id| id.index),
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

fn decode(bytes: &[u8], path: &Path) -> Result<Image, CheckpointError> {
    let checkpoint = Checkpoint::decode(bytes, path)?;
    let position = postcard::from_bytes(&checkpoint.position)
        .map_err(|_| CheckpointError::Corrupt { path: path.to_owned() })?;
    Ok(Image { machine: checkpoint.machine, position })
}

fn snapshot(position: &Position, bytes: Vec<u8>) -> Snapshot {
    let meta = SnapshotMeta {
        last_log_id: position.applied,
        last_membership: position.membership.clone(),
    };
    Snapshot { meta, snapshot: bytes }
}

impl RaftSnapshotBuilder<TypeConfig> for StateMachine {
    type SnapshotData = Vec<u8>;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let (checkpoint, position) = {
            let image = self.image();
            (copied(&image), image.position.clone())
        };
        let bytes = Arc::new(checkpoint.encode());
        self.save(bytes.clone(), position.applied.map_or(0, |id| id.index)).await?;
        Ok(snapshot(&position, Arc::unwrap_or_clone(bytes)))
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = Vec<u8>;
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

    async fn install_snapshot(&mut self, _meta: &SnapshotMeta, bytes: Vec<u8>) -> io::Result<()> {
        let image =
            decode(&bytes, &self.folder).map_err(|error| io::Error::other(chain(&error)))?;
        let progress = progress(&image);
        self.save(Arc::new(bytes), progress.applied).await?;
        {
            let mut known = self.image_mut();
            *known = image;
            self.publish(progress, known.machine.keys.next_expiry());
        }
        tracing::info!(index = progress.applied, "a checkpoint of the leader installed");
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let failed = |error: CheckpointError| io::Error::other(chain(&error));
        let newest = checkpoint::newest(&*self.disk, &self.folder).map_err(failed)?;
        let Some((path, bytes)) = newest else { return Ok(None) };
        let image = decode(&bytes, &path).map_err(failed)?;
        Ok(Some(snapshot(&image.position, bytes)))
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
            let other = Arc::new(copied(&Image::default()).encode());
            let mut builder = store.clone();
            let (made, installed) = tokio::join!(builder.build_snapshot(), store.save(other, 5));
            assert!(made.is_ok() && installed.is_ok(), "seed {seed}");
            assert!(open().is_ok(), "seed {seed}");
        }
    }
}
