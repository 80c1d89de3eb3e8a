//! Files and folders of the build: copying `rootfs/` over a tree, and copying into a sparse disk.

use std::fs::{self, File, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

/// What is copied at a time; a run of zeros of this length becomes a hole.
const PIECE_BYTES: usize = 64 * 1024;

/// A file could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} `{}`", path.display())]
pub struct FileError {
    verb: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Turns an I/O error into one that names the operation and the file.
pub fn failed(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError { verb, path, source }
}

/// Reads a text file.
pub fn read_text(path: &Path) -> Result<String, FileError> {
    fs::read_to_string(path).map_err(failed("read", path))
}

/// Reads a file.
pub fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    fs::read(path).map_err(failed("read", path))
}

/// Writes a file, making its folder.
pub fn write(path: &Path, contents: impl AsRef<[u8]>) -> Result<(), FileError> {
    folder_of(path)?;
    fs::write(path, contents).map_err(failed("write", path))
}

/// Makes a symlink, replacing what is there.
pub fn link(path: &Path, target: impl AsRef<Path>) -> Result<(), FileError> {
    folder_of(path)?;
    remove(path)?;
    symlink(target, path).map_err(failed("link", path))
}

/// Makes a folder and those above it.
pub fn folder(path: &Path) -> Result<(), FileError> {
    fs::create_dir_all(path).map_err(failed("make folder", path))
}

fn folder_of(path: &Path) -> Result<(), FileError> {
    path.parent().map_or(Ok(()), folder)
}

/// Removes a file or a folder with all it holds; fine if there is none.
pub fn remove(path: &Path) -> Result<(), FileError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(absent) if absent.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(other) => Err(other),
    };
    removed.map_err(failed("remove", path))
}

/// Returns what a folder holds, in order of names.
pub fn names(folder: &Path) -> Result<Vec<String>, FileError> {
    let entries = fs::read_dir(folder).map_err(failed("read", folder))?;
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed("read", folder))?.file_name();
        names.push(name.to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Copies what `from` mirrors onto `to`, path by path. A checkout keeps only whether a file may be
/// run, so files become 0755 or 0644 and folders that it makes 0755.
pub fn overlay(from: &Path, to: &Path) -> Result<(), FileError> {
    for name in names(from)? {
        let (source, target) = (from.join(&name), to.join(&name));
        let kind = fs::symlink_metadata(&source).map_err(failed("read", &source))?;
        if kind.is_symlink() {
            link(&target, fs::read_link(&source).map_err(failed("read", &source))?)?;
        } else if kind.is_dir() {
            if !target.is_dir() {
                folder(&target)?;
                set_mode(&target, 0o755)?;
            }
            overlay(&source, &target)?;
        } else {
            let mode = if kind.permissions().mode() & 0o111 == 0 { 0o644 } else { 0o755 };
            place(&source, &target, mode)?;
        }
    }
    Ok(())
}

/// Copies one file, replacing what is there, with this mode.
pub fn place(from: &Path, to: &Path, mode: u32) -> Result<(), FileError> {
    folder_of(to)?;
    remove(to)?;
    fs::copy(from, to).map_err(failed("copy", from))?;
    set_mode(to, mode)
}

fn set_mode(path: &Path, mode: u32) -> Result<(), FileError> {
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed("set mode of", path))
}

/// Copies a file into a disk at an offset, leaving holes where it holds zeros.
pub fn copy_into(disk: &File, offset: u64, from: &Path) -> Result<(), FileError> {
    let mut source = File::open(from).map_err(failed("read", from))?;
    let (mut piece, zeros) = (vec![0; PIECE_BYTES], vec![0; PIECE_BYTES]);
    let mut at = offset;
    loop {
        let length = source.read(&mut piece).map_err(failed("read", from))?;
        if length == 0 {
            return Ok(());
        }
        if piece[..length] != zeros[..length] {
            disk.write_all_at(&piece[..length], at).map_err(failed("copy", from))?;
        }
        at += length as u64;
    }
}

/// Makes an empty file of this length, all of it a hole.
pub fn sparse(path: &Path, bytes: u64) -> Result<File, FileError> {
    remove(path)?;
    let made = File::options().read(true).write(true).create_new(true).open(path);
    let file = made.map_err(failed("make", path))?;
    file.set_len(bytes).map_err(failed("size", path))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn zeros_become_holes_and_the_rest_arrives() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source");
        let mut contents = vec![0; 3 * PIECE_BYTES];
        contents[2 * PIECE_BYTES + 7] = 42;
        fs::write(&source, &contents).unwrap();
        let target = folder.path().join("disk");
        let disk = sparse(&target, 8 << 20).unwrap();
        copy_into(&disk, 1 << 20, &source).unwrap();
        let written = fs::read(&target).unwrap();
        assert_eq!(written[(1 << 20)..][..contents.len()], contents);
        assert!(fs::metadata(&target).unwrap().blocks() * 512 <= 2 * PIECE_BYTES as u64);
    }

    #[test]
    fn an_overlay_replaces_files_and_links_and_keeps_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        write(&from.join("a/new"), "new").unwrap();
        link(&from.join("a/link"), "elsewhere").unwrap();
        write(&to.join("a/kept"), "kept").unwrap();
        write(&to.join("a/new"), "old").unwrap();
        write(&to.join("a/link"), "old").unwrap();
        overlay(&from, &to).unwrap();
        assert_eq!(names(&to.join("a")).unwrap(), ["kept", "link", "new"]);
        assert_eq!(read_text(&to.join("a/new")).unwrap(), "new");
        assert_eq!(fs::read_link(to.join("a/link")).unwrap(), Path::new("elsewhere"));
    }
}
