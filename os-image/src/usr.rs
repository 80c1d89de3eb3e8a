//! The contents of `/usr`: Debian's, less what `drop.list` names, with `rootfs/` and our program.
//!
//! Debian's `/etc` goes to `/usr/share/corebox/etc`, the lower layer of the overlay.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::files::{self, FileError};
use crate::initrd::lines;
use crate::tools::{self, ToolError};

const DROPPED: &str = include_str!("../drop.list");

/// Where `/usr` keeps the lower layer of `/etc`.
const ETC: &str = "usr/share/corebox/etc";

/// Units of Debian's for which everything else would wait. What needs names or the time says so.
const NOT_EARLY: &[&str] = &["systemd-resolved.service", "systemd-timesyncd.service"];

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
    add_static_nodes(&root.join("usr/lib"))?;
    for unit in NOT_EARLY {
        let path = root.join("usr/lib/systemd/system").join(unit);
        files::write(&path, not_early(&files::read_text(&path)?))?;
    }
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

/// Lists the device nodes that load a module when they are opened, as `kmod-static-nodes.service`
/// would at every boot.
fn add_static_nodes(lib: &Path) -> Result<(), UsrError> {
    let modules = lib.join("modules");
    let mut nodes = String::new();
    for version in files::names(&modules)? {
        let list = files::read_text(&modules.join(version).join("modules.devname"))?;
        nodes.push_str(&static_nodes(&list));
    }
    files::write(&lib.join("tmpfiles.d/static-nodes.conf"), nodes)?;
    Ok(())
}

/// Turns lines such as `tun net/tun c10:200` into what tmpfiles reads.
fn static_nodes(list: &str) -> String {
    let mut nodes = String::new();
    for line in list.lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        let &[_, path, device] = &words[..] else { continue };
        let Some((kind, numbers)) = device.split_at_checked(1) else { continue };
        if let Some((folder, _)) = path.rsplit_once('/') {
            let _ = writeln!(nodes, "d /dev/{folder} 0755 - - -");
        }
        let _ = writeln!(nodes, "{kind}! /dev/{path} 0600 - - - {numbers}");
    }
    nodes
}

/// Takes `sysinit.target`, which every other service is ordered after, out of what a unit is before.
fn not_early(unit: &str) -> String {
    let mut text = String::new();
    for line in unit.lines() {
        let line = match line.strip_prefix("Before=") {
            Some(names) => {
                let names = names.split_ascii_whitespace().filter(|name| *name != "sysinit.target");
                format!("Before={}", names.collect::<Vec<_>>().join(" "))
            }
            None => line.to_owned(),
        };
        text.push_str(&line);
        text.push('\n');
    }
    text
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
    fn what_is_not_early_is_still_before_the_rest() {
        let unit = "[Unit]\nBefore=sysinit.target network.target\nAfter=sysinit.target\n";
        assert_eq!(not_early(unit), "[Unit]\nBefore=network.target\nAfter=sysinit.target\n");
    }

    #[test]
    fn nodes_of_modules_become_lines_for_tmpfiles() {
        let list = "# Device nodes\nfuse fuse c10:229\ntun net/tun c10:200\n";
        assert_eq!(
            static_nodes(list),
            "c! /dev/fuse 0600 - - - 10:229\nd /dev/net 0755 - - -\n\
             c! /dev/net/tun 0600 - - - 10:200\n"
        );
    }

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
