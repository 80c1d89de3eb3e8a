//! A user's `~/.ssh` on the disk, locked while it is changed.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::warn;

use crate::agents::ssh_keys::fragments::{
    Change, FRAGMENT_BYTES_MAX, Fragments, Name, Outcome, Refusal,
};
use crate::foundation::durable_file::{self, Attributes, WriteError};
use crate::platform::host::User;

/// How long another run may hold the lock: each takes milliseconds.
const LOCK_DEADLINE: Duration = Duration::from_secs(10);

/// How long to wait between two tries of the lock.
const LOCK_EVERY: Duration = Duration::from_millis(20);

/// Mode of the folders, and of the files in them: nobody else's business.
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// The keys of a user could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum SshKeysError {
    /// The change makes no sense.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A file or folder cannot be used.
    #[error("cannot use `{}`", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A folder of another user is a link, or belongs to a third.
    #[error("`{}` is not a folder that belongs to `{user}`", path.display())]
    NotTheirs {
        /// The folder.
        path: PathBuf,
        /// Whose keys were to be changed.
        user: String,
    },
    /// Another run does not come to its end.
    #[error("another run holds `{}` for longer than {LOCK_DEADLINE:?}", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// A file cannot be written.
    #[error("the keys cannot be kept")]
    Write(#[source] WriteError),
}

/// A user's keys, locked for as long as this lives.
#[derive(Debug)]
pub struct Folder {
    user: User,
    ssh: PathBuf,
    is_new: bool,
    _lock: File,
}

impl Folder {
    /// Opens a user's keys; makes `~/.ssh` where it is missing.
    pub async fn open(user: User) -> Result<Self, SshKeysError> {
        let ssh = user.home.join(".ssh");
        make(&ssh, &user)?;
        let lock = lock(&ssh.join(".authorized_keys.d.lock"), &user).await?;
        // Under the lock, so that only one run is the first.
        let is_new = !ssh.join("authorized_keys.d").exists();
        Ok(Self { user, ssh, is_new, _lock: lock })
    }

    /// Reads the fragments; the first time, what is in `authorized_keys` becomes one.
    pub fn read(&self) -> Result<Fragments, SshKeysError> {
        let mut fragments = Fragments::default();
        if self.is_new {
            let authorized_keys = self.ssh.join("authorized_keys");
            if authorized_keys.exists() {
                fragments.adopt(&text_of(&authorized_keys)?);
            }
            return Ok(fragments);
        }
        let path = self.fragments();
        make(&path, &self.user)?;
        let failed = |source| SshKeysError::File { path: path.clone(), source };
        for entry in fs::read_dir(&path).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            // Other files are not ours, such as those of an editor.
            let Ok(name) = Name::parse(&name) else { continue };
            fragments.0.insert(name, text_of(&path)?);
        }
        Ok(fragments)
    }

    /// Makes a change and `authorized_keys` anew. Nothing is written where no key would be left,
    /// unless `even_if_empty`.
    pub fn change(&mut self, change: Change, even_if_empty: bool) -> Result<Outcome, SshKeysError> {
        let found = self.read()?;
        let before = if self.is_new { Fragments::default() } else { found.clone() };
        let mut after = found;
        let outcome = after.apply(change)?;
        if after.key_count() == 0 && !even_if_empty {
            return Err(Refusal::Empty.into());
        }
        let (text, bad) = after.render();
        for (name, line) in bad {
            warn!(fragment = %name, line = line.line, "a line that is no key is left out");
        }
        make(&self.fragments(), &self.user)?;
        self.is_new = false;
        self.write_fragments(&before, &after)?;
        self.write(&self.ssh.join("authorized_keys"), &text)?;
        Ok(outcome)
    }

    fn write_fragments(&self, before: &Fragments, after: &Fragments) -> Result<(), SshKeysError> {
        let folder = self.fragments();
        for (name, text) in &after.0 {
            if before.0.get(name) != Some(text) {
                self.write(&folder.join(name.as_str()), text)?;
            }
        }
        for name in before.0.keys().filter(|name| !after.0.contains_key(name)) {
            let path = folder.join(name.as_str());
            fs::remove_file(&path).map_err(|source| SshKeysError::File { path, source })?;
        }
        Ok(())
    }

    fn write(&self, path: &Path, text: &str) -> Result<(), SshKeysError> {
        let attributes = Attributes::mode(FILE_MODE).owned_by(self.user.uid, self.user.gid);
        durable_file::replace(path, text.as_bytes(), attributes).map_err(SshKeysError::Write)
    }

    fn fragments(&self) -> PathBuf {
        self.ssh.join("authorized_keys.d")
    }
}

/// Makes a folder of the user's own, and tells whether it was missing.
///
/// What belongs to somebody else is refused, and so is a link where we are not that user: it
/// could lead us to write where only we may.
fn make(path: &Path, user: &User) -> Result<bool, SshKeysError> {
    let failed = |source| SshKeysError::File { path: path.to_owned(), source };
    let made = match DirBuilder::new().mode(FOLDER_MODE).create(path) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        Err(error) => return Err(failed(error)),
    };
    if made {
        std::os::unix::fs::lchown(path, Some(user.uid), Some(user.gid)).map_err(failed)?;
    }
    let ours = rustix::process::geteuid().as_raw() == user.uid;
    let found = if ours { fs::metadata(path) } else { fs::symlink_metadata(path) };
    let found = found.map_err(failed)?;
    if !found.is_dir() || found.uid() != user.uid {
        return Err(SshKeysError::NotTheirs { path: path.to_owned(), user: user.name.clone() });
    }
    Ok(made)
}

async fn lock(path: &Path, user: &User) -> Result<File, SshKeysError> {
    let failed = |source| SshKeysError::File { path: path.to_owned(), source };
    let no_follow = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or_default();
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(FILE_MODE).custom_flags(no_follow);
    let file = options.open(path).map_err(failed)?;
    std::os::unix::fs::fchown(&file, Some(user.uid), Some(user.gid)).map_err(failed)?;
    let deadline = tokio::time::Instant::now() + LOCK_DEADLINE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
            Err(TryLockError::WouldBlock) if tokio::time::Instant::now() >= deadline => {
                return Err(SshKeysError::Locked { path: path.to_owned() });
            }
            Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_EVERY).await,
        }
    }
}

/// Reads a file of keys; what is not UTF-8 in it is no key, and what is too long is refused.
fn text_of(path: &Path) -> Result<String, SshKeysError> {
    let failed = |source| SshKeysError::File { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let mut text = Vec::new();
    file.take(FRAGMENT_BYTES_MAX as u64 + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() > FRAGMENT_BYTES_MAX {
        return Err(failed(io::ErrorKind::FileTooLarge.into()));
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::agents::ssh_keys::fragments::{Existing, OLD};
    use crate::agents::ssh_keys::keys::tests::{ED25519, OTHER};

    /// Makes a user who is us, with a home of their own.
    fn user(home: &Path) -> User {
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        User { name: "core".to_owned(), uid, gid, home: home.to_owned() }
    }

    fn add(name: &str, text: &str) -> Change {
        let name = Name::parse(name).unwrap();
        Change::Add { name, text: text.to_owned(), existing: Existing::Replace }
    }

    fn authorized(home: &Path) -> Vec<String> {
        let text = fs::read_to_string(home.join(".ssh/authorized_keys")).unwrap();
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn the_first_run_keeps_what_was_there_and_later_runs_do_not_bring_it_back() {
        let home = tempfile::tempdir().unwrap();
        let ssh = home.path().join(".ssh");
        fs::create_dir(&ssh).unwrap();
        fs::write(ssh.join("authorized_keys"), format!("{OTHER}\n")).unwrap();
        let mut folder = Folder::open(user(home.path())).await.unwrap();
        assert_eq!(folder.read().unwrap().key_count(), 1);
        assert!(!ssh.join("authorized_keys.d").exists(), "looking is no first run");
        folder.change(add("a", ED25519), false).unwrap();
        drop(folder);
        assert_eq!(authorized(home.path()), [ED25519, OTHER]);
        let mut folder = Folder::open(user(home.path())).await.unwrap();
        folder.change(Change::Delete(Name::parse(OLD).unwrap()), false).unwrap();
        assert_eq!(authorized(home.path()), [ED25519]);
        let modes = ["authorized_keys", "authorized_keys.d", "authorized_keys.d/a"]
            .map(|path| fs::metadata(ssh.join(path)).unwrap().permissions().mode() & 0o7777);
        assert_eq!(modes, [0o600, 0o700, 0o600]);
    }

    #[tokio::test]
    async fn the_last_key_goes_only_by_force_and_a_refusal_changes_nothing() {
        let home = tempfile::tempdir().unwrap();
        let mut folder = Folder::open(user(home.path())).await.unwrap();
        folder.change(add("a", ED25519), false).unwrap();
        let name = Name::parse("a").unwrap();
        let refused = folder.change(Change::Disable(name.clone()), false).unwrap_err();
        assert!(matches!(refused, SshKeysError::Refused(Refusal::Empty)), "{refused}");
        assert_eq!(authorized(home.path()), [ED25519]);
        assert_eq!(folder.read().unwrap().key_count(), 1);
        folder.change(Change::Disable(name.clone()), true).unwrap();
        assert!(authorized(home.path()).is_empty());
        let disabled = home.path().join(".ssh/authorized_keys.d/a");
        assert_eq!(fs::read(&disabled).unwrap(), b"");
        assert_eq!(folder.change(add("a", ED25519), true).unwrap(), Outcome::Disabled);
        folder.change(Change::Delete(name), true).unwrap();
        assert!(!disabled.exists());
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_run_waits_for_the_first_and_not_for_ever() {
        let home = tempfile::tempdir().unwrap();
        let first = Folder::open(user(home.path())).await.unwrap();
        let late = Folder::open(user(home.path())).await.unwrap_err();
        assert!(matches!(late, SshKeysError::Locked { .. }), "{late}");
        drop(first);
        Folder::open(user(home.path())).await.unwrap();
    }

    #[tokio::test]
    async fn a_folder_that_belongs_to_somebody_else_is_refused() {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join(".ssh")).unwrap();
        let other = User { uid: user(home.path()).uid + 1, ..user(home.path()) };
        let refused = Folder::open(other).await.unwrap_err();
        assert!(matches!(refused, SshKeysError::NotTheirs { .. }), "{refused}");
    }
}
