//! Writing a checkpoint, step by step: each writes a slice, and the next one makes that safe.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::platform::disk::{Disk, DiskFile};
use crate::store::checkpoint::manifest::{Manifest, PartEntry};
use crate::store::checkpoint::{
    Checkpoint, CheckpointError, MANIFEST, PART, Stored, TEMPORARY, ending_with, part_path,
};
use crate::store::mvcc::saved::{Head, Making, Piece, Sizes};
use crate::store::mvcc::{Saved, SavedPart};

/// Most that one step writes, in bytes, but for what ends a part: little enough that the log's sync does
/// not wait for it.
const SLICE_BYTES: u64 = 4 << 20;

/// How much of a part that was received is written at once, in bytes.
const COPY_BYTES: usize = 256 << 10;

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
    source: Source,
    parts: Vec<Arc<SavedPart>>,
    writing: Option<Writing>,
    /// The bytes of the manifest, once they are written.
    written: Option<Vec<u8>>,
}

/// Where parts come from.
#[derive(Debug)]
enum Source {
    Making(Box<Making>),
    /// Parts that were received, and where in the first one it stands.
    Copy {
        parts: Vec<Arc<SavedPart>>,
        at: usize,
    },
}

/// A part that is being written.
#[derive(Debug)]
struct Writing {
    file: Arc<dyn DiskFile>,
    bytes: u64,
    is_whole: bool,
}

impl Source {
    fn next_piece(&mut self) -> Option<Piece> {
        match self {
            Self::Making(making) => making.next_piece(),
            Self::Copy { parts, at } => {
                let file = parts.first()?.file();
                let end = file.len().min(*at + COPY_BYTES);
                let piece = Piece { bytes: file[*at..end].to_vec(), is_last: end == file.len() };
                *at = end;
                if piece.is_last {
                    parts.remove(0);
                    *at = 0;
                }
                Some(piece)
            }
        }
    }
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
        Self::begin(folder, path, manifest, Source::Making(Box::new(making)), parts)
    }

    /// Begins to save a checkpoint that was received: all of its parts.
    pub fn copy(folder: &Path, path: PathBuf, stored: &Stored) -> Result<Self, CheckpointError> {
        let manifest = Manifest::decode(&stored.manifest, &path)?;
        let source = Source::Copy { parts: stored.saved.parts.clone(), at: 0 };
        Ok(Self::begin(folder, path, manifest, source, Vec::new()))
    }

    fn begin(
        folder: &Path,
        path: PathBuf,
        manifest: Manifest,
        source: Source,
        parts: Vec<Arc<SavedPart>>,
    ) -> Self {
        let folder = folder.to_owned();
        Self { folder, path, manifest, source, parts, writing: None, written: None }
    }

    /// Goes on. After an error nothing more may be written: this checkpoint is given up.
    pub fn step(&mut self, disk: &dyn Disk) -> Result<Step, CheckpointError> {
        if self.written.is_some() {
            self.commit(disk).map_err(|source| self.failed("save", source))?;
            return Ok(Step::Done);
        }
        self.end_slice(disk)?;
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
            let number = self.free_number(disk)?;
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
            && let Some(piece) = self.source.next_piece()
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
        let entry = |part: &Arc<SavedPart>| PartEntry {
            number: part.number(),
            length: part.file().len() as u64,
            count: part.count() as u64,
            checksum: part.checksum(),
        };
        self.manifest.parts = self.parts.iter().map(entry).collect();
        let bytes = self.manifest.encode();
        disk.create_folder(&self.folder)?;
        let file = disk.open(&self.temporary(MANIFEST))?;
        file.set_len(0)?;
        file.write_at(0, &bytes)?;
        self.written = Some(bytes);
        Ok(())
    }

    /// Makes the manifest the newest one, and removes what it does not name.
    fn commit(&self, disk: &dyn Disk) -> io::Result<()> {
        let temporary = self.temporary(MANIFEST);
        disk.open(&temporary)?.sync()?;
        disk.rename(&temporary, &self.path)?;
        disk.sync_folder(&self.folder)?;
        for old in ending_with(disk, &self.folder, MANIFEST)? {
            if old < self.path {
                disk.remove(&old)?;
            }
        }
        let named = |path: &PathBuf| {
            self.parts.iter().any(|part| part_path(&self.folder, part.number()) == *path)
        };
        let rest = ending_with(disk, &self.folder, TEMPORARY)?;
        for part in ending_with(disk, &self.folder, PART)?.into_iter().chain(rest) {
            if !named(&part) {
                disk.remove(&part)?;
            }
        }
        Ok(())
    }

    /// Returns a number that no file has, and no part.
    fn free_number(&self, disk: &dyn Disk) -> io::Result<u64> {
        let of_file = |path: &PathBuf| u64::from_str_radix(path.file_stem()?.to_str()?, 16).ok();
        let files = ending_with(disk, &self.folder, PART)?;
        let highest = files.iter().filter_map(of_file).max().unwrap_or(0);
        let own = self.parts.iter().map(|part| part.number()).max().unwrap_or(0);
        Ok(highest.max(own) + 1)
    }

    fn temporary(&self, of: &str) -> PathBuf {
        self.folder.join(format!("next-{of}.{TEMPORARY}"))
    }
}
