//! Replaces a file so that a reader, and a machine that lost power, finds the old or the new one.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Mode of the folders that are made above a file.
const FOLDER_MODE: u32 = 0o755;

/// Tells apart the temporary files of one process.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// What the new file is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// Its permission bits, whatever the umask.
    pub mode: u32,
    /// The numbers of its user and group; ours where there are none.
    pub owner: Option<(u32, u32)>,
}

impl Default for Attributes {
    fn default() -> Self {
        Self::mode(0o644)
    }
}

impl Attributes {
    /// Makes attributes of these permission bits, owned by us.
    pub const fn mode(mode: u32) -> Self {
        Self { mode, owner: None }
    }

    /// Gives the file to a user and a group.
    #[must_use]
    pub const fn owned_by(self, uid: u32, gid: u32) -> Self {
        Self { owner: Some((uid, gid)), ..self }
    }
}

/// A file could not be replaced; the old one, if any, is still there.
#[derive(Debug, thiserror::Error)]
#[error("cannot write `{}`", path.display())]
pub struct WriteError {
    /// The file.
    pub path: PathBuf,
    /// Why not.
    pub source: io::Error,
}

/// Writes a file by way of a temporary one in the same folder; makes the folders above it.
///
/// Blocks. When it returns, content and name are on the disk. A symbolic link at `path` is
/// replaced, not followed.
pub fn replace(path: &Path, contents: &[u8], attributes: Attributes) -> Result<(), WriteError> {
    write(path, contents, attributes).map_err(|source| WriteError { path: path.to_owned(), source })
}

fn write(path: &Path, contents: &[u8], attributes: Attributes) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    };
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)?;
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}-{number}.new", std::process::id()));
    let temporary = folder.join(temporary);
    let written = fill(&temporary, contents, attributes)
        .and_then(|()| fs::rename(&temporary, path))
        .and_then(|()| File::open(folder)?.sync_all());
    if written.is_err() {
        fs::remove_file(&temporary).ok();
    }
    written
}

fn fill(path: &Path, contents: &[u8], attributes: Attributes) -> io::Result<()> {
    // Only a process that had our number and died can have left it.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Err(_) | Ok(()) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(contents)?;
    if let Some((uid, gid)) = attributes.owner {
        std::os::unix::fs::fchown(&file, Some(uid), Some(gid))?;
    }
    // After the owner: giving a file away takes its set-user-id bits.
    file.set_permissions(fs::Permissions::from_mode(attributes.mode))?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_with_its_mode_and_nothing_else_is_left() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b/file");
        replace(&path, b"one", Attributes::mode(0o777)).unwrap();
        replace(&path, b"two", Attributes::mode(0o640)).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_failure_names_the_file_and_leaves_no_temporary_one() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("taken");
        fs::create_dir(&path).unwrap();
        let refused = replace(&path, b"x", Attributes::default()).unwrap_err();
        assert_eq!(refused.to_string(), format!("cannot write `{}`", path.display()));
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }
}
