//! What is told to systemd, by files in `/run/corebox` that its units have as conditions: work that
//! most boots need not do, and that it would cost a program to find out.

use std::fs::File;
use std::path::Path;

use rustix::mount::MountFlags;

use crate::Refusal;
use crate::sysroot::{folder_with_mode, mounted};

/// `/run` and our folder in it, as seen from the new root before it is entered.
const RUN: &str = "run";
const FOLDER: &str = "run/corebox";

/// What systemd would mount there itself.
const OPTIONS: &str = "mode=0755,size=20%,nr_inodes=800k";

/// ROOT does not fill the disk.
pub(crate) const GROW: &str = "grow";
/// This machine has users of its own, to which an update of `/usr` may have to add.
pub(crate) const OWN_USERS: &str = "own-users";

/// Files of the upper `/etc` that hold users of this machine's own.
const USER_FILES: &[&str] = &["passwd", "group", "shadow", "gshadow"];

/// Tells whether the upper layer of `/etc` has users. Only before the overlay is there.
pub(crate) fn has_own_users(etc: &Path) -> bool {
    USER_FILES.iter().any(|name| etc.join(name).exists())
}

/// Mounts `/run`, which systemd takes over, and leaves what was found there.
pub(crate) fn leave(names: &[&str]) -> Result<(), Refusal> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::STRICTATIME;
    mounted("tmpfs", RUN, "tmpfs", flags, Some(OPTIONS))?;
    folder_with_mode(Path::new(FOLDER), 0o755)?;
    for name in names {
        let path = Path::new(FOLDER).join(name);
        File::create(&path).map_err(|source| Refusal::Make { path, source })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn any_file_of_users_counts() {
        let etc = tempfile::tempdir().unwrap();
        fs::write(etc.path().join("hostname"), "").unwrap();
        assert!(!has_own_users(etc.path()));
        fs::write(etc.path().join("shadow"), "").unwrap();
        assert!(has_own_users(etc.path()));
    }
}
