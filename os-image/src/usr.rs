//! The contents of `/usr`: Debian's, less what `drop.list` names, with `rootfs/` and our program.
//!
//! Debian's `/etc` goes to `/usr/share/corebox/etc`, the lower layer of the overlay.

use std::path::{Path, PathBuf};

use crate::files::{self, FileError};
use crate::initrd::lines;
use crate::tools::{self, ToolError};

const DROPPED: &str = include_str!("../drop.list");

/// Where `/usr` keeps the lower layer of `/etc`.
const ETC: &str = "usr/share/corebox/etc";

/// `/usr` could not be put together.
#[derive(Debug, thiserror::Error)]
pub enum UsrError {
    /// A file.
    #[error("cannot put /usr together")]
    File(#[from] FileError),
    /// A program.
    #[error("cannot put /usr together")]
    Tool(#[from] ToolError),
}

/// What `/usr` is made of.
#[derive(Debug)]
pub struct Parts<'a> {
    /// The tree of Debian's packages.
    pub tree: &'a Path,
    /// Folders that mirror the disk, later ones over earlier ones.
    pub overlays: &'a [PathBuf],
    /// Our program.
    pub corebox: &'a Path,
    /// The contents of os-release.
    pub os_release: &'a str,
}

/// Puts `usr` together under `root`.
pub fn assemble(parts: &Parts<'_>, root: &Path) -> Result<(), UsrError> {
    files::remove(root)?;
    for part in ["usr", "etc"] {
        files::folder(root)?;
        let paths = [parts.tree.join(part), root.join(part)];
        tools::run("cp", ["-a", "--reflink=auto"].map(PathBuf::from).iter().chain(&paths))?;
    }
    for pattern in lines(DROPPED) {
        for path in matching(root, pattern)? {
            files::remove(&path)?;
        }
    }
    files::folder(&root.join("usr/share/corebox"))?;
    let moved = [root.join("etc"), root.join(ETC)];
    std::fs::rename(&moved[0], &moved[1]).map_err(files::failed("move", &moved[0]))?;
    for overlay in parts.overlays {
        files::overlay(overlay, root)?;
    }
    add_program(parts.corebox, &root.join("usr/bin"))?;
    files::write(&root.join("usr/lib/os-release"), parts.os_release)?;
    add_users(root)
}

fn add_program(corebox: &Path, folder: &Path) -> Result<(), UsrError> {
    let place = folder.join("corebox");
    files::place(corebox, &place, 0o755)?;
    let path = place.display().to_string();
    tools::run("objcopy", ["--strip-debug", &path])?;
    for name in corebox::cli::multicall::links() {
        files::link(&folder.join(name), "corebox")?;
    }
    Ok(())
}

/// Writes the users of `sysusers.d` into the lower `/etc`, so that a boot need not.
fn add_users(root: &Path) -> Result<(), UsrError> {
    let etc = root.join("etc");
    files::link(&etc, ETC)?;
    let made = tools::run("systemd-sysusers", [format!("--root={}", root.display())]);
    files::remove(&etc)?;
    for left in ["passwd-", "group-", "shadow-", "gshadow-", ".pwd.lock"] {
        files::remove(&root.join(ETC).join(left))?;
    }
    made?;
    Ok(())
}

/// Returns the paths under `root` that match a pattern, in which `*` and `?` stay within a name.
fn matching(root: &Path, pattern: &str) -> Result<Vec<PathBuf>, FileError> {
    let mut found = vec![root.to_owned()];
    for part in pattern.split('/') {
        let mut next = Vec::new();
        for folder in found {
            if !part.contains(['*', '?']) {
                next.push(folder.join(part));
            } else if folder.is_dir() {
                let names = files::names(&folder)?;
                let fitting = names.iter().filter(|name| fits(part.as_bytes(), name.as_bytes()));
                next.extend(fitting.map(|name| folder.join(name)));
            }
        }
        found = next;
    }
    found.retain(|path| path.symlink_metadata().is_ok());
    Ok(found)
}

fn fits(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => (0..=name.len()).any(|length| fits(rest, &name[length..])),
        ([b'?', rest @ ..], [_, name @ ..]) => fits(rest, name),
        ([first, rest @ ..], [same, name @ ..]) if first == same => fits(rest, name),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stay_within_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for path in ["etc/rc0.d/x", "etc/rcS.d/x", "etc/rc.d/x", "etc/passwd-", "etc/passwd"] {
            files::write(&root.join(path), "").unwrap();
        }
        let check = |pattern: &str, expected: &[&str]| {
            let expected: Vec<PathBuf> = expected.iter().map(|path| root.join(path)).collect();
            assert_eq!(matching(root, pattern).unwrap(), expected, "{pattern}");
        };
        check("etc/rc?.d", &["etc/rc0.d", "etc/rcS.d"]);
        check("etc/*-", &["etc/passwd-"]);
        check("*/rc*.d/x", &["etc/rc.d/x", "etc/rc0.d/x", "etc/rcS.d/x"]);
        check("etc/absent", &[]);
        check("etc/passwd/x*", &[]);
    }
}
