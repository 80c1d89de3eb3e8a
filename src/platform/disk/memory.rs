//! A disk in memory that can lose power.
//!
//! At a crash each unsynced write is kept, lost or torn, one by one, so a later write can survive
//! an earlier one; names that were not synced are kept or lost together. It can also fail: from
//! some operation on, every change is refused until it is healed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::foundation::random::Random;
use crate::platform::disk::{Disk, DiskFile, Map};

#[derive(Debug)]
enum Op {
    Write(u64, Vec<u8>),
    SetLen(u64),
}

/// One file's bytes: what a crash leaves, what a running program sees, and the way between.
#[derive(Debug, Default)]
struct Platter {
    durable: Vec<u8>,
    seen: Vec<u8>,
    unsynced: Vec<Op>,
}

type Names = BTreeMap<PathBuf, Arc<Mutex<Platter>>>;

#[derive(Debug, Default)]
struct Tree {
    files: Names,
    /// The names that a crash leaves.
    durable: Names,
    folders: BTreeSet<PathBuf>,
    locks: BTreeSet<PathBuf>,
}

/// How a disk fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskError {
    /// Whatever changes something, and every sync, ends in an I/O error.
    Broken,
    /// Whatever needs room finds none.
    Full,
}

/// Errors to come, or that are there.
#[derive(Debug)]
struct Failing {
    error: DiskError,
    /// Operations that still succeed.
    left: u64,
    /// Whether an operation was refused.
    has_refused: bool,
}

/// A disk in memory. Clones are the same disk.
#[derive(Debug, Clone)]
pub struct MemoryDisk {
    tree: Arc<Mutex<Tree>>,
    random: Arc<Random>,
    sync_ms_max: Arc<AtomicU64>,
    lost: Arc<AtomicU64>,
    /// Bytes that may still be written before the disk is full.
    room: Arc<AtomicU64>,
    failing: Arc<Mutex<Option<Failing>>>,
    /// Whether a sync was begun, and none has ended since.
    syncing: Arc<AtomicBool>,
}

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

fn apply(image: &mut Vec<u8>, op: &Op) {
    match op {
        Op::Write(offset, data) => {
            let start = index(*offset);
            let end = start + data.len();
            if image.len() < end {
                image.resize(end, 0);
            }
            image[start..end].copy_from_slice(data);
        }
        Op::SetLen(bytes) => image.resize(index(*bytes), 0),
    }
}

impl MemoryDisk {
    /// Makes an empty disk whose syncs take up to `sync_ms_max` simulated milliseconds.
    pub fn new(random: Random, sync_ms_max: u64) -> Self {
        Self {
            tree: Arc::default(),
            random: Arc::new(random),
            sync_ms_max: Arc::new(sync_ms_max.into()),
            lost: Arc::default(),
            room: Arc::new(u64::MAX.into()),
            failing: Arc::default(),
            syncing: Arc::default(),
        }
    }

    /// Makes syncs slower or faster from now on.
    pub fn set_sync_ms_max(&self, max: u64) {
        self.sync_ms_max.store(max, Ordering::Relaxed);
    }

    /// Lets only `bytes` more be written.
    pub fn set_room(&self, bytes: u64) {
        self.room.store(bytes, Ordering::Relaxed);
    }

    /// Fails from the operation after the next `operations` on, until it is healed.
    pub fn fail_after(&self, operations: u64, error: DiskError) {
        *guard(&self.failing) = Some(Failing { error, left: operations, has_refused: false });
    }

    /// Ends its errors, and those to come.
    pub fn heal(&self) {
        *guard(&self.failing) = None;
    }

    /// Tells whether it has refused an operation since it was healed last.
    pub fn has_refused(&self) -> bool {
        guard(&self.failing).as_ref().is_some_and(|failing| failing.has_refused)
    }

    /// Tells whether a sync was begun, and none has ended since.
    pub fn is_syncing(&self) -> bool {
        self.syncing.load(Ordering::Relaxed)
    }

    /// Returns how many unsynced operations crashes have lost or torn.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Loses power. Returns the number of operations that were not safe.
    pub fn crash(&self) -> usize {
        self.syncing.store(false, Ordering::Relaxed);
        let tree = &mut *guard(&self.tree);
        tree.locks.clear();
        let names_survive = self.random.one_in(2);
        if names_survive {
            tree.durable = tree.files.clone();
        }
        // An open handle to a file that lost its name must not bring it back.
        tree.files = tree.durable.clone();
        let mut unsafe_ops = 0;
        for platter in tree.files.values() {
            let platter = &mut *guard(platter);
            let unsynced = std::mem::take(&mut platter.unsynced);
            unsafe_ops += unsynced.len();
            for op in &unsynced {
                match (self.random.below(4), op) {
                    (0, Op::Write(offset, data)) => {
                        let kept = index(self.random.below(data.len() as u64 + 1));
                        apply(&mut platter.durable, &Op::Write(*offset, data[..kept].to_vec()));
                        self.lost.fetch_add(1, Ordering::Relaxed);
                    }
                    (1, op) => apply(&mut platter.durable, op),
                    _ => drop(self.lost.fetch_add(1, Ordering::Relaxed)),
                }
            }
            platter.seen = platter.durable.clone();
        }
        unsafe_ops
    }

    /// Counts an operation, and refuses it if that is due.
    fn admit(&self, needs_room: bool) -> io::Result<()> {
        let mut failing = guard(&self.failing);
        let Some(failing) =
            failing.as_mut().filter(|one| needs_room || one.error == DiskError::Broken)
        else {
            return Ok(());
        };
        if failing.left > 0 {
            failing.left -= 1;
            return Ok(());
        }
        failing.has_refused = true;
        Err(match failing.error {
            DiskError::Broken => io::Error::other("the disk is broken"),
            DiskError::Full => io::ErrorKind::StorageFull.into(),
        })
    }

    fn take_room(&self, bytes: usize) -> io::Result<()> {
        let take = |room: u64| room.checked_sub(bytes as u64);
        let taken = self.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        taken.map(drop).map_err(|_| io::ErrorKind::StorageFull.into())
    }
}

#[derive(Debug)]
struct MemoryFile {
    platter: Arc<Mutex<Platter>>,
    disk: MemoryDisk,
}

impl MemoryFile {
    fn change(&self, op: Op) {
        let platter = &mut *guard(&self.platter);
        apply(&mut platter.seen, &op);
        platter.unsynced.push(op);
    }
}

impl DiskFile for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(guard(&self.platter).seen.len() as u64)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let platter = guard(&self.platter);
        let start = index(offset);
        let found = platter.seen.get(start..start.saturating_add(buf.len()));
        buf.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.disk.admit(true)?;
        self.disk.take_room(data.len())?;
        self.change(Op::Write(offset, data.to_vec()));
        Ok(())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.disk.admit(true)?;
        self.change(Op::SetLen(bytes));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.syncing.store(false, Ordering::Relaxed);
        self.disk.admit(false)?;
        let platter = &mut *guard(&self.platter);
        for op in std::mem::take(&mut platter.unsynced) {
            apply(&mut platter.durable, &op);
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Held {
    path: PathBuf,
    tree: Arc<Mutex<Tree>>,
}

impl Drop for Held {
    fn drop(&mut self) {
        guard(&self.tree).locks.remove(&self.path);
    }
}

impl Disk for MemoryDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut tree = guard(&self.tree);
        let folder = path.parent().unwrap_or(path);
        if !tree.folders.contains(folder) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let platter = tree.files.entry(path.to_owned()).or_default().clone();
        Ok(Arc::new(MemoryFile { platter, disk: self.clone() }))
    }

    fn map(&self, path: &Path) -> io::Result<Map> {
        let platter = guard(&self.tree).files.get(path).cloned().ok_or(io::ErrorKind::NotFound)?;
        Ok(Map::copied(guard(&platter).seen.clone()))
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        guard(&self.tree).folders.extend(path.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let tree = guard(&self.tree);
        if !tree.folders.contains(folder) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let names = tree.files.keys().chain(&tree.folders);
        let mut names: Vec<_> =
            names.filter(|path| path.parent() == Some(folder)).cloned().collect();
        names.sort();
        Ok(names)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.admit(true)?;
        let mut tree = guard(&self.tree);
        let platter = tree.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        tree.files.insert(to.to_owned(), platter);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.admit(false)?;
        let gone = guard(&self.tree).files.remove(path);
        gone.map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.admit(false)?;
        let tree = &mut *guard(&self.tree);
        let within = |path: &Path| path.parent() == Some(folder);
        tree.durable.retain(|path, _| !within(path));
        let synced = tree.files.iter().filter(|(path, _)| within(path));
        tree.durable.extend(synced.map(|(path, platter)| (path.clone(), platter.clone())));
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        if !guard(&self.tree).locks.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(Held { path: path.to_owned(), tree: self.tree.clone() }))
    }

    fn sync_time(&self) -> Duration {
        self.syncing.store(true, Ordering::Relaxed);
        let max = self.sync_ms_max.load(Ordering::Relaxed);
        Duration::from_millis(self.random.between(0, max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_contract() {
        crate::platform::disk::contract(&MemoryDisk::new(Random::seeded(1), 0), Path::new("/x"));
    }

    #[test]
    fn what_was_synced_survives_every_crash_and_the_rest_does_not_always() {
        let mut lost = 0;
        for seed in 0..50 {
            let disk = MemoryDisk::new(Random::seeded(seed), 0);
            let folder = Path::new("/d");
            disk.create_folder(folder).unwrap();
            let file = disk.open(&folder.join("f")).unwrap();
            file.write_at(0, b"safe").unwrap();
            file.sync().unwrap();
            disk.sync_folder(folder).unwrap();
            file.write_at(4, b"more").unwrap();
            disk.crash();
            let left = crate::platform::disk::read(&disk, &folder.join("f")).unwrap();
            assert_eq!(&left[..4], b"safe");
            lost += usize::from(left != b"safemore");
        }
        assert!(lost > 10, "only {lost} of 50 crashes lost anything");
    }

    #[test]
    fn a_full_disk_says_so() {
        let disk = MemoryDisk::new(Random::seeded(1), 0);
        disk.create_folder(Path::new("/d")).unwrap();
        disk.set_room(3);
        let file = disk.open(Path::new("/d/f")).unwrap();
        let full = file.write_at(0, b"four").unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn a_disk_that_fails_refuses_every_change_until_it_is_healed() {
        let disk = MemoryDisk::new(Random::seeded(1), 0);
        disk.create_folder(Path::new("/d")).unwrap();
        let file = disk.open(Path::new("/d/f")).unwrap();
        disk.fail_after(1, DiskError::Broken);
        file.write_at(0, b"one").unwrap();
        assert!(!disk.has_refused());
        assert!(file.sync().is_err() && file.write_at(3, b"two").is_err() && disk.has_refused());
        disk.heal();
        assert!(file.sync().is_ok() && !disk.has_refused());
        assert_eq!(file.len().unwrap(), 3);
        disk.fail_after(0, DiskError::Full);
        assert!(file.sync().is_ok(), "a sync needs no room");
        assert_eq!(file.write_at(0, b"x").unwrap_err().kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn a_sync_is_in_progress_from_when_it_is_begun_until_it_ends_or_power_is_lost() {
        let disk = MemoryDisk::new(Random::seeded(1), 0);
        disk.create_folder(Path::new("/d")).unwrap();
        let file = disk.open(Path::new("/d/f")).unwrap();
        disk.sync_time();
        assert!(disk.is_syncing());
        file.sync().unwrap();
        assert!(!disk.is_syncing());
        disk.sync_time();
        disk.crash();
        assert!(!disk.is_syncing());
    }
}
