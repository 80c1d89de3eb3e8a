//! The log on disk: segments of checked records, written in groups, synced once a group.
//!
//! ```text
//!  wal/0000000000000001.wal   header │ record │ record │ … │ end      full and synced
//!  wal/0000000000000002.wal   header │ record │ torn tail │ zeros     the one that is written
//!  wal/spare-….wal            an old segment, to be used again, or one that was made ahead
//!  wal/spare.tmp              one that is being made
//! ```
//! A record's checksum covers its segment's number and its offset, so that what an older life of a
//! used-again segment left behind is never taken for a record. Each record also carries the offset
//! up to which the segment was synced when it was written: a bad record below that is corruption
//! and opening fails; above it it is a torn tail, and is cut off. A full segment is synced and
//! closed by an end record before the next one is begun.
//!
//! What the records mean is the caller's affair. The calls block. The format is in
//! `docs/formats/wal.md`.
//!
//! **Not here:** threads, and who waits for a sync; that is `consensus::log_store`.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::platform::disk::{Disk, DiskFile};
use crate::store::wal::frame::{HEAD_BYTES, Scan, scan};

pub mod frame;

/// Size of a segment, in bytes: large enough that making one is rare.
pub const SEGMENT_BYTES: u64 = 64 << 20;
/// Size of the first segment of an empty log, in bytes: it must be ready at once.
pub const FIRST_SEGMENT_BYTES: u64 = 4 << 20;
/// Old segments kept to be used again: one is enough to go on when the disk is full.
const SPARES_MAX: usize = 2;
/// A segment that is being made for later.
const UNFINISHED: &str = "spare.tmp";
/// What is written of a segment for later between two syncs.
const SPARE_SLICE_BYTES: u64 = 4 << 20;
/// Zeros written at once when a segment is made.
const ZEROS_BYTES: usize = 1 << 20;

/// The version of the format that this program writes, and the only one it reads.
pub const FORMAT: u32 = 1;

/// The log could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// A file operation failed.
    #[error("cannot {what} the log at `{}`", path.display())]
    Disk {
        /// What was tried.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A record that had been safe is not whole any more.
    #[error(
        "the log `{}` is damaged at byte {offset}, in a part that was safe on disk; remove this member's data and add it to the cluster again, or restore a copy",
        path.display()
    )]
    Corrupt {
        /// The segment.
        path: PathBuf,
        /// Where the first bad record begins.
        offset: u64,
    },
    /// A segment is missing between two others.
    #[error("the log at `{}` lacks segment {missing}; restore it from a copy", folder.display())]
    Gap {
        /// The folder.
        folder: PathBuf,
        /// The number of the segment.
        missing: u64,
    },
    /// The file was written by a program that knows another format.
    #[error(
        "`{}` has format version {found}, and this program reads only version {FORMAT}; start the version of corebox that wrote it",
        path.display()
    )]
    Format {
        /// The segment.
        path: PathBuf,
        /// The version it has.
        found: u32,
    },
}

/// Sizes that a simulation makes smaller.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// The first segment of an empty log.
    pub first_bytes: u64,
    /// Every other one.
    pub segment_bytes: u64,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { first_bytes: FIRST_SEGMENT_BYTES, segment_bytes: SEGMENT_BYTES }
    }
}

/// One record to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its bytes, not empty.
    pub body: Bytes,
    /// The highest log index it carries, if it carries any: decides when its segment can go.
    pub last_index: Option<u64>,
}

#[derive(Debug)]
struct Segment {
    number: u64,
    path: PathBuf,
    last_index: Option<u64>,
}

/// An open log.
#[derive(Debug)]
pub struct Wal {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    sizes: Sizes,
    /// Full segments, oldest first.
    full: VecDeque<Segment>,
    current: Segment,
    file: Arc<dyn DiskFile>,
    /// Where the next record goes.
    end: u64,
    /// Up to where the current segment is known to be safe.
    synced: u64,
    /// How long the current segment is.
    bytes: u64,
    spares: Vec<PathBuf>,
    /// Whether a torn tail is left in place; see `mistake` in `consensus`.
    keep_torn_tail: bool,
}

/// How to open a log.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// How large segments are.
    pub sizes: Sizes,
    /// A planted mistake: what a crash tore is not cut off.
    pub keep_torn_tail: bool,
}

/// Where a log is and how it is to be.
struct Place {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    options: Options,
}

/// A segment's open file and what was found in it.
type Opened = (Arc<dyn DiskFile>, Scan);

/// Makes a spare segment while the log goes on.
#[derive(Debug)]
pub struct SpareMaker {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    bytes: u64,
    /// That of the segment which is written meanwhile: one spare is made for each.
    number: u64,
}

impl SpareMaker {
    /// Makes the segment, and makes it safe; returns it for [`Wal::add_spare`]. Whatever ends it
    /// early leaves nothing that would be taken for a spare.
    pub fn make(&self) -> Result<PathBuf, WalError> {
        let unfinished = self.folder.join(UNFINISHED);
        // Not the name that the segment itself will have as a spare.
        let path = self.folder.join(format!("spare-made-{:016x}.wal", self.number));
        let work = || {
            let file = self.disk.open(&unfinished)?;
            file.set_len(0)?;
            // In slices, so that the log's own syncs do not wait behind all of it.
            let mut at = 0;
            while at < self.bytes {
                let end = (at + SPARE_SLICE_BYTES).min(self.bytes);
                fill(&*file, at, end)?;
                file.sync()?;
                at = end;
            }
            self.disk.rename(&unfinished, &path)?;
            self.disk.sync_folder(&self.folder)
        };
        work().map_err(|source| {
            // What was made of it would take the room that the log itself may need.
            drop(self.disk.remove(&unfinished));
            WalError::Disk { what: "prepare", path: path.clone(), source }
        })?;
        Ok(path)
    }
}

impl Wal {
    /// Opens the log in `folder`, or begins one there. Returns the bodies of all records in order.
    pub fn open(
        disk: Arc<dyn Disk>,
        folder: &Path,
        options: Options,
        last_index: impl Fn(&[u8]) -> Option<u64>,
    ) -> Result<(Self, Vec<Bytes>), WalError> {
        let at = |what, path: &Path| {
            let path = path.to_owned();
            move |source| WalError::Disk { what, path, source }
        };
        disk.create_folder(folder).map_err(at("create", folder))?;
        // Whoever made them may have ended before their names were safe.
        disk.sync_folder(folder).map_err(at("sync", folder))?;
        let names = disk.list(folder).map_err(at("list", folder))?;
        for unfinished in names.iter().filter(|path| path.ends_with(UNFINISHED)) {
            disk.remove(unfinished).map_err(at("remove", unfinished))?;
        }
        let (mut segments, spares) = sort_names(&names);
        let mut bodies = Vec::new();
        let mut full = VecDeque::new();
        let newest = segments.pop();
        let mut expected = segments.first().map(|(number, _)| *number);
        for (number, path) in segments {
            check_gap(folder, &mut expected, number)?;
            let mut segment = Segment { number, path, last_index: None };
            read_segment(&*disk, &mut segment, true, &mut bodies, &last_index)?;
            full.push_back(segment);
        }
        let place = Place { disk: disk.clone(), folder: folder.to_owned(), options };
        let Some((number, path)) = newest else {
            return Ok((Self::begin(place, spares, full, 1)?, bodies));
        };
        check_gap(folder, &mut expected, number)?;
        let mut current = Segment { number, path, last_index: None };
        let found = read_segment(&*disk, &mut current, false, &mut bodies, &last_index)?;
        let Some((file, scanned)) = found else {
            // A crash came before the segment's header was safe: it never held a record.
            disk.remove(&current.path).map_err(at("remove", &current.path))?;
            return Ok((Self::begin(place, spares, full, number)?, bodies));
        };
        let bytes = file.len().map_err(at("measure", &current.path))?;
        let mut wal = Self {
            disk,
            folder: folder.to_owned(),
            sizes: options.sizes,
            full,
            current,
            file,
            end: scanned.end,
            synced: scanned.end,
            bytes,
            spares,
            keep_torn_tail: options.keep_torn_tail,
        };
        if scanned.closed {
            wal.rotate_closed()?;
        } else {
            wal.cut_tail()?;
        }
        Ok((wal, bodies))
    }

    /// Writes records behind each other; safe only after [`Wal::sync`]. `state` is a record that
    /// begins every new segment, since what older segments say goes with them.
    pub fn write(&mut self, records: &[Record], state: &[u8]) -> Result<(), WalError> {
        let mut out = Vec::new();
        let mut start = self.end;
        for record in records {
            let length = frame::framed_bytes(record.body.len());
            if self.end + length + frame::END_BYTES > self.bytes {
                self.flush(&mut out, start)?;
                self.rotate(length + frame::framed_bytes(state.len()), state)?;
                start = self.end;
            }
            frame::write(&mut out, self.current.number, self.end, self.synced, &record.body);
            self.end += length;
            self.current.last_index = self.current.last_index.max(record.last_index);
        }
        self.flush(&mut out, start)
    }

    /// Makes all that was written safe.
    pub fn sync(&mut self) -> Result<(), WalError> {
        self.file.sync().map_err(self.at("sync"))?;
        self.synced = self.end;
        Ok(())
    }

    /// Lets go of the oldest segments that carry nothing above `index`.
    pub fn drop_upto(&mut self, index: u64) -> Result<(), WalError> {
        let gone = |segment: &Segment| segment.last_index.is_none_or(|last| last <= index);
        while let Some(segment) = self.full.pop_front_if(|segment| gone(segment)) {
            self.retire(segment)?;
        }
        Ok(())
    }

    /// Returns the spare segment to make now, so that the next one is there when this one is full;
    /// `None` while there is one, or time.
    pub fn needs_spare(&self) -> Option<SpareMaker> {
        let soon = self.end >= self.bytes / 2;
        (soon && self.spares.is_empty()).then(|| SpareMaker {
            disk: self.disk.clone(),
            folder: self.folder.clone(),
            bytes: self.sizes.segment_bytes,
            number: self.current.number,
        })
    }

    /// Takes a spare segment that was made.
    pub fn add_spare(&mut self, spare: PathBuf) {
        self.spares.push(spare);
    }

    /// Returns how many segments there are.
    pub fn segments(&self) -> usize {
        self.full.len() + 1
    }

    /// Begins segment `number` behind full ones.
    fn begin(
        place: Place,
        mut spares: Vec<PathBuf>,
        full: VecDeque<Segment>,
        number: u64,
    ) -> Result<Self, WalError> {
        let Place { disk, folder, options } = place;
        let sizes = options.sizes;
        let bytes = if number == 1 { sizes.first_bytes } else { sizes.segment_bytes };
        let (path, file) = make_segment(&*disk, &folder, number, bytes, &mut spares)?;
        let end = frame::HEADER_BYTES;
        Ok(Self {
            disk,
            folder,
            sizes,
            full,
            current: Segment { number, path, last_index: None },
            file,
            end,
            synced: end,
            bytes,
            spares,
            keep_torn_tail: options.keep_torn_tail,
        })
    }

    fn flush(&self, out: &mut Vec<u8>, start: u64) -> Result<(), WalError> {
        if !out.is_empty() {
            self.file.write_at(start, out).map_err(self.at("write"))?;
            out.clear();
        }
        Ok(())
    }

    /// Closes the current segment and begins the next, with room for `needed` bytes.
    fn rotate(&mut self, needed: u64, state: &[u8]) -> Result<(), WalError> {
        let mut out = Vec::new();
        frame::write_end(&mut out, self.current.number, self.end, self.synced);
        self.file.write_at(self.end, &out).map_err(self.at("write"))?;
        self.file.sync().map_err(self.at("sync"))?;
        self.next_segment(needed)?;
        out.clear();
        frame::write(&mut out, self.current.number, self.end, self.synced, state);
        self.file.write_at(self.end, &out).map_err(self.at("write"))?;
        self.end += frame::framed_bytes(state.len());
        Ok(())
    }

    /// Goes on in a new segment after one that was found closed: by a program whose sync may have
    /// failed, or that ended before it.
    fn rotate_closed(&mut self) -> Result<(), WalError> {
        self.file.sync().map_err(self.at("sync"))?;
        self.next_segment(0)
    }

    fn next_segment(&mut self, needed: u64) -> Result<(), WalError> {
        let number = self.current.number + 1;
        let room = frame::HEADER_BYTES + needed + frame::END_BYTES;
        let bytes = self.sizes.segment_bytes.max(room);
        let (path, file) =
            make_segment(&*self.disk, &self.folder, number, bytes, &mut self.spares)?;
        let next = Segment { number, path, last_index: None };
        self.full.push_back(std::mem::replace(&mut self.current, next));
        self.file = file;
        self.bytes = bytes;
        self.end = frame::HEADER_BYTES;
        self.synced = self.end;
        Ok(())
    }

    /// Overwrites what a crash tore, so that it can never come back behind later records.
    fn cut_tail(&mut self) -> Result<(), WalError> {
        if self.keep_torn_tail {
            self.end = last_used(&*self.file, self.end, self.bytes).map_err(self.at("read"))?;
            return Ok(());
        }
        clear(&*self.file, self.end, self.bytes).map_err(self.at("write"))?;
        self.file.sync().map_err(self.at("sync"))
    }

    fn retire(&mut self, segment: Segment) -> Result<(), WalError> {
        let path = segment.path;
        let failed = |what| {
            let path = path.clone();
            move |source| WalError::Disk { what, path, source }
        };
        if self.spares.len() >= SPARES_MAX {
            return self.disk.remove(&path).map_err(failed("remove"));
        }
        let spare = self.folder.join(format!("spare-{:016x}.wal", segment.number));
        self.disk.rename(&path, &spare).map_err(failed("rename"))?;
        self.spares.push(spare);
        Ok(())
    }

    fn at(&self, what: &'static str) -> impl FnOnce(io::Error) -> WalError + use<> {
        let path = self.current.path.clone();
        move |source| WalError::Disk { what, path, source }
    }
}

/// Splits the names in the folder into segments, oldest first, and spares.
fn sort_names(names: &[PathBuf]) -> (Vec<(u64, PathBuf)>, Vec<PathBuf>) {
    let mut segments = Vec::new();
    let mut spares = Vec::new();
    for path in names {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let Some(name) = name.strip_suffix(".wal") else { continue };
        if name.starts_with("spare-") {
            spares.push(path.clone());
        } else if let Ok(number) = u64::from_str_radix(name, 16) {
            segments.push((number, path.clone()));
        }
    }
    segments.sort();
    (segments, spares)
}

fn check_gap(folder: &Path, expected: &mut Option<u64>, number: u64) -> Result<(), WalError> {
    if let Some(missing) = expected.filter(|expected| *expected != number) {
        return Err(WalError::Gap { folder: folder.to_owned(), missing });
    }
    *expected = Some(number + 1);
    Ok(())
}

/// Reads one segment's records; `None` where it has not even a header.
fn read_segment(
    disk: &dyn Disk,
    segment: &mut Segment,
    must_be_closed: bool,
    bodies: &mut Vec<Bytes>,
    last_index: impl Fn(&[u8]) -> Option<u64>,
) -> Result<Option<Opened>, WalError> {
    let path = segment.path.clone();
    let failed = |source| WalError::Disk { what: "read", path: path.clone(), source };
    let file = disk.open(&segment.path).map_err(failed)?;
    let bytes = usize::try_from(file.len().map_err(failed)?).unwrap_or(usize::MAX);
    let mut image = vec![0; bytes];
    file.read_at(0, &mut image).map_err(failed)?;
    let corrupt = |offset| WalError::Corrupt { path: path.clone(), offset };
    match frame::header(&image, segment.number) {
        frame::Header::Ours => {}
        frame::Header::Format(found) => return Err(WalError::Format { path, found }),
        frame::Header::None if must_be_closed || !frame::is_unused(&image, segment.number) => {
            return Err(corrupt(0));
        }
        frame::Header::None => return Ok(None),
    }
    let scanned = scan(&image, segment.number, |body| {
        segment.last_index = segment.last_index.max(last_index(body));
        bodies.push(Bytes::copy_from_slice(body));
    });
    if scanned.damaged || (must_be_closed && !scanned.closed) {
        return Err(corrupt(scanned.end));
    }
    Ok(Some((file, scanned)))
}

/// Makes a segment: zeros, then its header, both safe, and its name too.
fn make_segment(
    disk: &dyn Disk,
    folder: &Path,
    number: u64,
    bytes: u64,
    spares: &mut Vec<PathBuf>,
) -> Result<(PathBuf, Arc<dyn DiskFile>), WalError> {
    let path = folder.join(format!("{number:016x}.wal"));
    let failed = |source| WalError::Disk { what: "prepare", path: path.clone(), source };
    let mut work = || {
        // Old records in a spare do not check: they belong to another segment number.
        let reused = spares.pop();
        if let Some(spare) = &reused {
            disk.rename(spare, &path)?;
        }
        let file = disk.open(&path)?;
        let start = if reused.is_some() { file.len()?.min(bytes) } else { 0 };
        fill(&*file, start, bytes)?;
        file.write_at(0, &frame::header_bytes(number))?;
        file.sync()?;
        disk.sync_folder(folder)?;
        Ok(file)
    };
    let file = work().map_err(failed)?;
    Ok((path, file))
}

/// Writes zeros from `start` to `end`.
fn fill(file: &dyn DiskFile, start: u64, end: u64) -> io::Result<()> {
    let zeros = vec![0; ZEROS_BYTES];
    let mut at = start;
    while at < end {
        let bytes = usize::try_from(end - at).unwrap_or(usize::MAX).min(zeros.len());
        file.write_at(at, &zeros[..bytes])?;
        at += bytes as u64;
    }
    Ok(())
}

/// Has zeros from `start` to `end`, writing only where there are none: most of a tail is as it was
/// made.
fn clear(file: &dyn DiskFile, start: u64, end: u64) -> io::Result<()> {
    let mut piece = vec![0; ZEROS_BYTES];
    let mut at = start;
    while at < end {
        let bytes = usize::try_from(end - at).unwrap_or(usize::MAX).min(piece.len());
        file.read_at(at, &mut piece[..bytes])?;
        if piece[..bytes].iter().any(|byte| *byte != 0) {
            fill(file, at, at + bytes as u64)?;
        }
        at += bytes as u64;
    }
    Ok(())
}

/// Finds the end of the bytes that are not zero, which is where the planted mistake goes on.
fn last_used(file: &dyn DiskFile, from: u64, bytes: u64) -> io::Result<u64> {
    let length = file.len()?.min(bytes).saturating_sub(from);
    let mut tail = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
    file.read_at(from, &mut tail)?;
    let used = tail.iter().rposition(|byte| *byte != 0).map_or(0, |at| at as u64 + 1);
    Ok(from + used.next_multiple_of(HEAD_BYTES as u64))
}

#[cfg(test)]
mod tests;
