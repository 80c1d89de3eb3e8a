//! The bytes of a file as memory: the kernel reads them when they are looked at, and takes the memory
//! back when it needs it.
//!
//! Where reading fails later, the kernel ends the process: there is nobody to tell. A member whose
//! disk fails stops anyway.

use std::fs::File;
use std::io;
use std::ops::Deref;

use memmap2::{Advice, Mmap};

/// What a file held when it was mapped. It may lose its name meanwhile.
#[derive(Debug)]
pub struct Map(Kind);

#[derive(Debug)]
enum Kind {
    Copy(Box<[u8]>),
    File(Mmap),
}

impl Map {
    /// Takes bytes that are in memory already.
    pub fn copied(bytes: Vec<u8>) -> Self {
        Self(Kind::Copy(bytes.into_boxed_slice()))
    }

    /// Maps a file that nobody writes to or cuts off any more.
    #[expect(unsafe_code, reason = "the kernel cannot promise that a file stays as it is")]
    pub(super) fn of_file(file: &File) -> io::Result<Self> {
        // SAFETY: the bytes must not change while they are mapped. `Disk::map` is asked for files
        // that are finished: a part of a checkpoint is written under another name, synced and
        // renamed before it is mapped, and then only ever removed; the folder is its owner's alone
        // and locked against other members.
        let map = unsafe { Mmap::map(file) }?;
        // Only a hint: that all of it will be read soon.
        if let Err(error) = map.advise(Advice::WillNeed) {
            tracing::debug!(%error, "the kernel takes no advice");
        }
        Ok(Self(Kind::File(map)))
    }
}

impl Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Kind::Copy(bytes) => bytes,
            Kind::File(map) => map,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_file_is_read_after_it_was_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        let content: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        std::fs::write(&path, &content).unwrap();
        let map = Map::of_file(&File::open(&path).unwrap()).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(*map, content[..]);
        let elsewhere = std::thread::scope(|scope| scope.spawn(|| map.to_vec()).join().unwrap());
        assert_eq!(elsewhere, content);
    }
}
