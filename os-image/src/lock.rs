//! `packages.lock`: which versions of which packages an image was made of, with their hashes.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use crate::files::{self, FileError};

/// What one package was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Locked {
    /// Its version.
    pub version: String,
    /// SHA-256 of its file, `-` where the archive no longer names one.
    pub sha256: String,
}

/// All packages of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lock(BTreeMap<String, Locked>);

/// A lock could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// A file.
    #[error("cannot read what packages there are")]
    File(#[from] FileError),
    /// A line without three words.
    #[error("`{0}` is not a name, a version and a hash")]
    Line(String),
}

impl Lock {
    /// Reads a lock as it is written.
    pub fn parse(text: &str) -> Result<Self, LockError> {
        let mut packages = BTreeMap::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let [name, version, sha256] = words[..] else {
                return Err(LockError::Line(line.to_owned()));
            };
            let locked = Locked { version: version.to_owned(), sha256: sha256.to_owned() };
            packages.insert(name.to_owned(), locked);
        }
        Ok(Self(packages))
    }

    /// Returns the packages' versions.
    pub fn versions(&self) -> BTreeMap<String, String> {
        self.0.iter().map(|(name, locked)| (name.clone(), locked.version.clone())).collect()
    }

    /// Says what differs from an older lock, a line each.
    pub fn changes_since(&self, old: &Self) -> Vec<String> {
        let version = |lock: &Self, name: &str| {
            lock.0.get(name).map_or("none", |locked| locked.version.as_str()).to_owned()
        };
        let names = self.0.keys().chain(old.0.keys().filter(|name| !self.0.contains_key(*name)));
        let changed = names.filter(|name| self.0.get(*name) != old.0.get(*name));
        changed
            .map(|name| format!("{name}: {} → {}", version(old, name), version(self, name)))
            .collect()
    }
}

impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# name version SHA-256; written by os-image")?;
        self.0.iter().try_for_each(|(name, locked)| {
            writeln!(f, "{name} {} {}", locked.version, locked.sha256)
        })
    }
}

/// Reads what dpkg has unpacked, with the hashes that apt's indexes name.
pub fn read(status: &Path, indexes: &Path) -> Result<Lock, LockError> {
    let mut packages = BTreeMap::new();
    for_each_package(status, &mut |package| {
        let version = package.version.clone();
        packages.insert(package.name.clone(), Locked { version, sha256: "-".to_owned() });
    })?;
    for name in files::names(indexes)?.iter().filter(|name| name.ends_with("_Packages")) {
        for_each_package(&indexes.join(name), &mut |package| {
            if let Some(locked) = packages.get_mut(&package.name)
                && locked.version == package.version
                && !package.sha256.is_empty()
            {
                locked.sha256.clone_from(&package.sha256);
            }
        })?;
    }
    Ok(Lock(packages))
}

#[derive(Debug, Default)]
struct Package {
    name: String,
    version: String,
    sha256: String,
}

/// Reads the paragraphs of dpkg's or apt's list of packages.
fn for_each_package(path: &Path, each: &mut dyn FnMut(&Package)) -> Result<(), FileError> {
    let file = File::open(path).map_err(files::failed("read", path))?;
    let mut package = Package::default();
    for line in BufReader::new(file).lines() {
        let line = line.map_err(files::failed("read", path))?;
        match line.split_once(": ") {
            Some(("Package", name)) => name.clone_into(&mut package.name),
            Some(("Version", version)) => version.clone_into(&mut package.version),
            Some(("SHA256", sha256)) => sha256.clone_into(&mut package.sha256),
            _ if line.is_empty() => {
                each(&std::mem::take(&mut package));
            }
            _ => {}
        }
    }
    if !package.name.is_empty() {
        each(&package);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_from_dpkg_and_hashes_from_the_archive() {
        let folder = tempfile::tempdir().unwrap();
        let status = folder.path().join("status");
        let indexes = folder.path().join("indexes");
        files::write(&status, "Package: a\nVersion: 1\n\nPackage: b\nVersion: 2\n").unwrap();
        let archive =
            "Package: a\nVersion: 0\nSHA256: old\n\nPackage: a\nVersion: 1\nSHA256: new\n\n";
        files::write(&indexes.join("x_Packages"), archive).unwrap();
        files::write(&indexes.join("x_InRelease"), "SHA256: no\n").unwrap();
        let lock = read(&status, &indexes).unwrap();
        assert_eq!(lock.to_string().lines().skip(1).collect::<Vec<_>>(), ["a 1 new", "b 2 -"]);
        assert_eq!(Lock::parse(&lock.to_string()).unwrap(), lock);
    }

    #[test]
    fn a_changed_package_is_reported_with_both_versions() {
        let old = Lock::parse("a 1 x\nb 1 x\nc 1 x\n").unwrap();
        let new = Lock::parse("a 1 x\nb 2 y\nd 1 x\n").unwrap();
        assert_eq!(new.changes_since(&old), ["b: 1 → 2", "d: none → 1", "c: 1 → none"]);
        assert!(matches!(Lock::parse("a 1\n"), Err(LockError::Line(_))));
    }
}
