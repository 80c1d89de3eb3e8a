//! The disk, as far as data must survive on it.
//!
//! The calls block. What was written is safe only once the file's `sync` has returned; a name is
//! safe only once the folder's has. In the product they run on a writer's own thread; in
//! simulation a sync takes simulated time (see [`Disk::sync_time`]), else no crash would ever
//! lose anything.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub mod files;
pub mod map;
pub mod memory;

pub use files::Files;
pub use map::Map;
pub use memory::{DiskError, MemoryDisk};

/// One open file. Clones of the handle are the same file.
pub trait DiskFile: fmt::Debug + Send + Sync {
    /// Returns the file's length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Tells whether the file is empty.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills `buf` from `offset`; an error if the file ends before.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;

    /// Writes all of `data` at `offset`, extending the file where needed.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Cuts the file off, or extends it with zeros.
    fn set_len(&self, bytes: u64) -> io::Result<()>;

    /// Makes what was written survive a loss of power (`fdatasync(2)`).
    fn sync(&self) -> io::Result<()>;
}

/// A place for files.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Opens a file for reading and writing, making it first where it is missing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Returns the bytes of a file that is not written to any more, without reading them first where
    /// that can be. An error of kind `NotFound` where there is none.
    fn map(&self, path: &Path) -> io::Result<Map>;

    /// Makes a folder and those above it, readable by the owner only; fine if it is there.
    fn create_folder(&self, path: &Path) -> io::Result<()>;

    /// Returns the files and folders in a folder, sorted.
    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>>;

    /// Gives a file another name, replacing what had it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a folder survive a loss of power.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;

    /// Locks the file at `path` against other processes for as long as the answer lives; an
    /// error of kind `WouldBlock` where another process has it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>>;

    /// Returns how long to wait before a sync. Real disks take their time inside the call.
    fn sync_time(&self) -> Duration {
        Duration::ZERO
    }
}

/// Reads a whole file.
pub fn read(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path)?;
    let bytes = usize::try_from(file.len()?).map_err(io::Error::other)?;
    let mut data = vec![0; bytes];
    file.read_at(0, &mut data)?;
    Ok(data)
}

/// Tells whether a file or folder is there.
pub fn exists(disk: &dyn Disk, path: &Path) -> io::Result<bool> {
    let Some(folder) = path.parent() else { return Ok(true) };
    match disk.list(folder) {
        Ok(names) => Ok(names.iter().any(|name| name == path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Everything that any disk must do; `folder` is an empty folder on it.
#[cfg(test)]
pub(crate) fn contract(disk: &dyn Disk, folder: &Path) {
    let folder = folder.join("a/b");
    disk.create_folder(&folder).unwrap();
    disk.create_folder(&folder).expect("making it twice is fine");
    let path = folder.join("one");
    let file = disk.open(&path).unwrap();
    assert!(file.is_empty().unwrap());
    file.write_at(4, b"data").unwrap();
    assert_eq!(file.len().unwrap(), 8);
    file.sync().unwrap();
    assert_eq!(read(disk, &path).unwrap(), b"\0\0\0\0data");
    assert_eq!(*disk.map(&path).unwrap(), *b"\0\0\0\0data");
    assert_eq!(disk.map(&folder.join("no")).unwrap_err().kind(), io::ErrorKind::NotFound);
    let mut buf = [0; 8];
    let short = file.read_at(4, &mut buf).unwrap_err();
    assert_eq!(short.kind(), io::ErrorKind::UnexpectedEof);
    file.set_len(2).unwrap();
    assert_eq!(read(disk, &path).unwrap(), b"\0\0");
    let other = folder.join("two");
    disk.rename(&path, &other).unwrap();
    disk.sync_folder(&folder).unwrap();
    assert_eq!(disk.list(&folder).unwrap(), std::slice::from_ref(&other));
    assert!(exists(disk, &other).unwrap());
    assert!(!exists(disk, &path).unwrap());
    let map = disk.map(&other).unwrap();
    disk.remove(&other).unwrap();
    assert_eq!(*map, *b"\0\0", "a map outlives the file's name");
    let empty = folder.join("empty");
    drop(disk.open(&empty).unwrap());
    assert!(disk.map(&empty).unwrap().is_empty());
    disk.remove(&empty).unwrap();
    assert_eq!(disk.remove(&other).unwrap_err().kind(), io::ErrorKind::NotFound);
    let lock = disk.lock(&folder.join("lock")).unwrap();
    let held = disk.lock(&folder.join("lock")).map(drop).unwrap_err();
    assert_eq!(held.kind(), io::ErrorKind::WouldBlock);
    drop(lock);
    drop(disk.lock(&folder.join("lock")).expect("a lock that was let go can be taken"));
}
