//! Writing a checkpoint, step by step: each writes a slice, and the next one makes that safe.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::platform::disk::{self, Disk, DiskFile};
use crate::store::checkpoint::manifest::{Manifest, PartEntry};
use crate::store::checkpoint::{
    Checkpoint, CheckpointError, INCOMING, MANIFEST, PART, Stored, TEMPORARY, ending_with,
    free_number, incoming_path, part_path,
};
use crate::store::mvcc::saved::{Head, Making, Sizes};
use crate::store::mvcc::{Saved, SavedPart};

/// Most that one step writes, in bytes, but for what ends a part: little enough that the log's sync does
/// not wait for it.
const SLICE_BYTES: u64 = 4 << 20;

/// Whether a checkpoint is saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// There is more to do; a sync comes next.
    More,
    /// It is saved, and what it does not name is removed.
    Done,
}

/// A checkpoint that is being written.
#[derive(Debug)]
pub struct Saving {
    folder: PathBuf,
    path: PathBuf,
    manifest: Manifest,
    /// What is new; `None` if all parts were received.
    making: Option<Box<Making>>,
    parts: Vec<Arc<SavedPart>>,
    writing: Option<Writing>,
    /// The bytes of the manifest, once they are written.
    written: Option<Vec<u8>>,
}

/// A part that is being written.
#[derive(Debug)]
struct Writing {
    file: Arc<dyn DiskFile>,
    bytes: u64,
    is_whole: bool,
}

impl Saving {
    /// Begins to save a checkpoint as `path` in `folder`.
    pub fn new(folder: &Path, path: PathBuf, checkpoint: Checkpoint) -> Self {
        Self::with_sizes(folder, path, checkpoint, Sizes::PRODUCT)
    }

    pub(super) fn with_sizes(
        folder: &Path,
        path: PathBuf,
        checkpoint: Checkpoint,
        sizes: Sizes,
    ) -> Self {
        let keys = &checkpoint.machine.keys_v3;
        let (alarms, head) = (keys.alarms().clone(), Head::of(&keys.view()));
        let making = keys.making(sizes);
        let Checkpoint { position, machine } = checkpoint;
        let manifest = Manifest { position, machine, alarms, keys: head, parts: Vec::new() };
        let parts = making.kept().to_vec();
        Self::begin(folder, path, manifest, Some(Box::new(making)), parts)
    }

    /// Begins to save a checkpoint whose parts are all here, under their own names or those of parts
    /// that were received.
    pub fn take(folder: &Path, path: PathBuf, stored: &Stored) -> Result<Self, CheckpointError> {
        let manifest = Manifest::decode(&stored.manifest, &path)?;
        Ok(Self::begin(folder, path, manifest, None, stored.saved.parts.clone()))
    }

    fn begin(
        folder: &Path,
        path: PathBuf,
        manifest: Manifest,
        making: Option<Box<Making>>,
        parts: Vec<Arc<SavedPart>>,
    ) -> Self {
        let folder = folder.to_owned();
        Self { folder, path, manifest, making, parts, writing: None, written: None }
    }

    /// Goes on. After an error nothing more may be written: this checkpoint is given up. Parts with the
    /// numbers in `needed` stay, whoever names them.
    pub fn step(&mut self, disk: &dyn Disk, needed: &[u64]) -> Result<Step, CheckpointError> {
        if self.written.is_some() {
            self.commit(disk, needed).map_err(|source| self.failed("save", source))?;
            return Ok(Step::Done);
        }
        self.end_slice(disk)?;
        if self.making.is_none() {
            self.name_received(disk).map_err(|source| self.failed("save a part of", source))?;
        }
        if !self.write_slice(disk).map_err(|source| self.failed("write a part of", source))? {
            self.write_manifest(disk).map_err(|source| self.failed("write", source))?;
        }
        Ok(Step::More)
    }

    /// Returns the checkpoint once it is saved.
    ///
    /// # Panics
    /// Before the last step.
    pub fn finish(self) -> Stored {
        let manifest = self.written.expect("all steps were done").into();
        Stored {
            manifest,
            saved: Saved { parts: self.parts, revision: self.manifest.keys.revision },
        }
    }

    fn failed(&self, what: &'static str, source: io::Error) -> CheckpointError {
        CheckpointError::Disk { what, path: self.path.clone(), source }
    }

    /// Makes safe what the last step wrote; a whole part gets its name.
    fn end_slice(&mut self, disk: &dyn Disk) -> Result<(), CheckpointError> {
        let Some(writing) = &self.writing else { return Ok(()) };
        let ended = writing.file.sync().and_then(|()| {
            if !writing.is_whole {
                return Ok(None);
            }
            let number = free_number(disk, &self.folder)?;
            let path = part_path(&self.folder, number);
            disk.rename(&self.temporary(PART), &path)?;
            disk.sync_folder(&self.folder)?;
            Ok(Some((number, disk.map(&path)?)))
        });
        let ended = ended.map_err(|source| self.failed("save a part of", source))?;
        if let Some((number, map)) = ended {
            let wrong = |source| CheckpointError::Parts { path: self.path.clone(), source };
            self.parts.push(Arc::new(SavedPart::open(number, map).map_err(wrong)?));
            self.writing = None;
        }
        Ok(())
    }

    /// Writes the next slice; tells whether there was one.
    fn write_slice(&mut self, disk: &dyn Disk) -> io::Result<bool> {
        let mut slice = 0;
        while slice < SLICE_BYTES
            && let Some(piece) = self.making.as_mut().and_then(|making| making.next_piece())
        {
            if self.writing.is_none() {
                disk.create_folder(&self.folder)?;
                let file = disk.open(&self.temporary(PART))?;
                file.set_len(0)?;
                self.writing = Some(Writing { file, bytes: 0, is_whole: false });
            }
            let Some(writing) = &mut self.writing else { break };
            writing.file.write_at(writing.bytes, &piece.bytes)?;
            writing.bytes += piece.bytes.len() as u64;
            slice += piece.bytes.len() as u64;
            if piece.is_last {
                writing.is_whole = true;
                break;
            }
        }
        Ok(slice > 0)
    }

    fn write_manifest(&mut self, disk: &dyn Disk) -> io::Result<()> {
        self.manifest.parts = self.parts.iter().map(|part| PartEntry::of(part)).collect();
        let bytes = self.manifest.encode();
        disk.create_folder(&self.folder)?;
        let file = disk.open(&self.temporary(MANIFEST))?;
        file.set_len(0)?;
        file.write_at(0, &bytes)?;
        self.written = Some(bytes);
        Ok(())
    }

    /// Makes the manifest the newest one, and removes what it does not name.
    fn commit(&self, disk: &dyn Disk, needed: &[u64]) -> io::Result<()> {
        let temporary = self.temporary(MANIFEST);
        disk.open(&temporary)?.sync()?;
        disk.rename(&temporary, &self.path)?;
        disk.sync_folder(&self.folder)?;
        for old in ending_with(disk, &self.folder, MANIFEST)? {
            if old < self.path {
                disk.remove(&old)?;
            }
        }
        let numbers = self.parts.iter().map(|part| part.number()).chain(needed.iter().copied());
        let kept: BTreeSet<_> = numbers.map(|number| part_path(&self.folder, number)).collect();
        let rest = ending_with(disk, &self.folder, TEMPORARY)?;
        for part in ending_with(disk, &self.folder, PART)?.into_iter().chain(rest) {
            if !kept.contains(&part) {
                disk.remove(&part)?;
            }
        }
        Ok(())
    }

    /// Gives parts that were received, and are safe, the names of parts.
    fn name_received(&self, disk: &dyn Disk) -> io::Result<()> {
        let received = ending_with(disk, &self.folder, INCOMING)?;
        for part in &self.parts {
            let path = incoming_path(&self.folder, part.number());
            let own = part_path(&self.folder, part.number());
            if received.contains(&path) {
                disk.rename(&path, &own)?;
            } else if !disk::exists(disk, &own)? {
                let what = format!("`{}` is not there any more", own.display());
                return Err(io::Error::new(io::ErrorKind::NotFound, what));
            }
        }
        disk.sync_folder(&self.folder)
    }

    fn temporary(&self, of: &str) -> PathBuf {
        self.folder.join(format!("next-{of}.{TEMPORARY}"))
    }
}
