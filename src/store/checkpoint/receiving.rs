//! A checkpoint that comes from the leader, piece by piece.
//!
//! What is offered is compared with what is here: a part that this member has itself is not sent, and one
//! that was begun goes on where it ended. A part is written to a file under its later number, and synced
//! when it is whole. Nothing is believed before [`Stored::load`] has checked it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use crate::platform::disk::{Disk, DiskFile};
use crate::store::checkpoint::manifest::{Manifest, PartEntry};
use crate::store::checkpoint::{
    CheckpointError, INCOMING, Stored, ending_with, free_number, incoming_path,
};
use crate::store::mvcc::{Saved, SavedPart};

/// The parts of a checkpoint that is received.
#[derive(Debug, Default)]
pub struct Receiving {
    parts: Vec<Incoming>,
    /// The manifest of a checkpoint that is whole and may still be installed: its files are needed
    /// as long as somebody has it.
    installing: Option<Weak<[u8]>>,
}

/// A part that is received, or that this member has.
#[derive(Debug)]
struct Incoming {
    entry: PartEntry,
    /// The number that it gets here.
    number: u64,
    held: Held,
}

#[derive(Debug)]
enum Held {
    Own(Arc<SavedPart>),
    Begun { file: Arc<dyn DiskFile>, upto: u64 },
}

impl Incoming {
    fn upto(&self) -> u64 {
        match &self.held {
            Held::Own(_) => self.entry.length,
            Held::Begun { upto, .. } => *upto,
        }
    }
}

impl Receiving {
    /// Looks at what is offered, and returns how many bytes of each part are here; `None` while
    /// another checkpoint is installed. What is no longer offered is removed.
    pub fn offer(
        &mut self,
        disk: &dyn Disk,
        folder: &Path,
        own: &Saved,
        offered: &[PartEntry],
    ) -> Result<Option<Vec<u64>>, CheckpointError> {
        if self.installing.as_ref().is_some_and(|manifest| manifest.strong_count() > 0) {
            return Ok(None);
        }
        self.prepare(disk, folder, own, offered).map_err(|source| failed(folder, source))?;
        Ok(Some(offered.iter().filter_map(|entry| self.find(entry)).map(Incoming::upto).collect()))
    }

    fn prepare(
        &mut self,
        disk: &dyn Disk,
        folder: &Path,
        own: &Saved,
        offered: &[PartEntry],
    ) -> io::Result<()> {
        disk.create_folder(folder)?;
        let still =
            |incoming: &Incoming| offered.iter().any(|entry| entry.is_same(&incoming.entry));
        // Which parts are this member's own may have changed since.
        self.parts.retain(|part| matches!(part.held, Held::Begun { .. }) && still(part));
        for file in ending_with(disk, folder, INCOMING)? {
            if !self.parts.iter().any(|part| incoming_path(folder, part.number) == file) {
                disk.remove(&file)?;
            }
        }
        let mut free = free_number(disk, folder)?;
        for entry in offered {
            if self.find(entry).is_some() {
                continue;
            }
            let same = own.parts.iter().find(|part| PartEntry::of(part).is_same(entry));
            let (number, held) = if let Some(part) = same {
                (part.number(), Held::Own(Arc::clone(part)))
            } else {
                let number = free;
                free += 1;
                let file = disk.open(&incoming_path(folder, number))?;
                (number, Held::Begun { file, upto: 0 })
            };
            self.parts.push(Incoming { entry: *entry, number, held });
        }
        Ok(())
    }

    /// Writes a piece of a part, and returns how many bytes of it are here now. A piece that is not the
    /// next one is not written. The last one makes the part safe.
    pub fn piece(
        &mut self,
        folder: &Path,
        entry: &PartEntry,
        offset: u64,
        data: &[u8],
    ) -> Result<Option<u64>, CheckpointError> {
        let Some(incoming) = self.parts.iter_mut().find(|part| part.entry.is_same(entry)) else {
            return Ok(None);
        };
        if let Held::Begun { file, upto } = &mut incoming.held
            && *upto == offset
            && offset + data.len() as u64 <= entry.length
        {
            let written = file.write_at(offset, data).and_then(|()| {
                let is_whole = offset + data.len() as u64 == entry.length;
                if is_whole { file.sync() } else { Ok(()) }
            });
            written.map_err(|source| failed(folder, source))?;
            *upto += data.len() as u64;
        }
        Ok(Some(incoming.upto()))
    }

    /// Returns the checkpoint of a manifest whose parts are all here and whole; `None` if one is not
    /// here. Own parts of it are needed until [`Receiving::taken`]. After an error nothing of what
    /// came is used.
    pub fn finish(
        &mut self,
        disk: &dyn Disk,
        folder: &Path,
        manifest: &[u8],
    ) -> Result<Option<Stored>, CheckpointError> {
        let finished = self.gather(disk, folder, manifest).and_then(|stored| {
            stored.as_ref().map_or(Ok(()), |stored| stored.load(folder).map(drop))?;
            Ok(stored)
        });
        match &finished {
            Ok(Some(stored)) => self.installing = Some(Arc::downgrade(&stored.manifest)),
            Ok(None) => {}
            Err(_) => self.parts.clear(),
        }
        finished
    }

    fn gather(
        &mut self,
        disk: &dyn Disk,
        folder: &Path,
        manifest: &[u8],
    ) -> Result<Option<Stored>, CheckpointError> {
        let mut manifest = Manifest::decode(manifest, folder)?;
        let all = |part: &PartEntry| self.find(part).is_some_and(|own| own.upto() == part.length);
        if !manifest.parts.iter().all(all) {
            return Ok(None);
        }
        let mut parts = Vec::new();
        for entry in &mut manifest.parts {
            let Some(incoming) = self.find(entry) else { return Ok(None) };
            entry.number = incoming.number;
            parts.push(match &incoming.held {
                Held::Own(part) => Arc::clone(part),
                Held::Begun { .. } => {
                    let path = incoming_path(folder, incoming.number);
                    entry.open(disk, &path, folder)?
                }
            });
        }
        self.parts.retain(|part| matches!(part.held, Held::Own(_)));
        let saved = Saved { parts, revision: manifest.keys.revision };
        Ok(Some(Stored { manifest: manifest.encode().into(), saved }))
    }

    /// Takes note that the checkpoint is saved.
    pub fn taken(&mut self) {
        self.parts.retain(|part| matches!(part.held, Held::Begun { .. }));
    }

    /// Returns the numbers of this member's own parts that are needed.
    pub fn needed(&self) -> Vec<u64> {
        let own = self.parts.iter().filter(|part| matches!(part.held, Held::Own(_)));
        own.map(|part| part.number).collect()
    }

    fn find(&self, entry: &PartEntry) -> Option<&Incoming> {
        self.parts.iter().find(|part| part.entry.is_same(entry))
    }
}

fn failed(folder: &Path, source: io::Error) -> CheckpointError {
    let path: PathBuf = folder.to_owned();
    CheckpointError::Disk { what: "receive a part of", path, source }
}
