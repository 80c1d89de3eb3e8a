//! The tree of Debian's packages, made once and kept for the next build.

use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::files::{self, FileError};
use crate::initrd::lines;
use crate::lock::{self, Lock};
use crate::progress::Progress;
use crate::tools::{self, ToolError};

const PACKAGES: &str = include_str!("../packages.list");

/// Debian 12.
const RELEASE: &str = "bookworm";

/// Written last: a tree without it was not finished.
const FINISHED: &str = "finished";

/// Packages leave these out; the image has no use for them either.
const EXCLUDED: &[&str] = &[
    "/usr/share/doc/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/man/*",
    // Makes Debian's initrd, which we do not boot.
    "/etc/kernel/postinst.d/initramfs-tools",
];

/// The tree could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The host has no Debian sources of the release.
    #[error("no source of {RELEASE} in /etc/apt/sources.list or /etc/apt/sources.list.d: add one")]
    NoSource,
    /// A file.
    #[error("cannot keep the tree of packages")]
    File(#[from] FileError),
    /// The program that unpacks.
    #[error("cannot unpack the packages")]
    Tool(#[from] ToolError),
    /// What was unpacked cannot be told.
    #[error("cannot tell what was unpacked")]
    Lock(#[from] lock::LockError),
}

/// An unpacked tree.
#[derive(Debug)]
pub struct Tree {
    /// Its root.
    pub root: PathBuf,
    /// What was unpacked.
    pub lock: Lock,
}

/// Returns the tree of all packages: the one kept in `cache`, or a new one.
pub fn get(cache: &Path, progress: &Progress) -> Result<Tree, TreeError> {
    let sources = sources()?;
    let kept = cache.join(key(&sources));
    if kept.join(FINISHED).exists() {
        return progress.step("packages: unpacked before", || open(&kept));
    }
    progress.step("packages: fetched and unpacked by mmdebstrap", || {
        files::remove(&kept)?;
        files::folder(&kept)?;
        unpack(&sources, &kept)?;
        open(&kept)
    })
}

fn open(kept: &Path) -> Result<Tree, TreeError> {
    let lock = Lock::parse(&files::read_text(&kept.join(FINISHED))?)?;
    Ok(Tree { root: kept.join("tree"), lock })
}

/// Names a tree after all that decides what is in it.
fn key(sources: &str) -> String {
    let mut sum = Sha256::new();
    for part in
        [RELEASE, sources].into_iter().chain(lines(PACKAGES)).chain(EXCLUDED.iter().copied())
    {
        sum.update(part);
        sum.update([0]);
    }
    sum.finalize()[..8].iter().fold(String::new(), |digits, byte| digits + &format!("{byte:02x}"))
}

fn unpack(sources: &str, kept: &Path) -> Result<(), TreeError> {
    let (tree, list, indexes) = (kept.join("tree"), kept.join("sources"), kept.join("indexes"));
    files::write(&list, sources)?;
    let include = format!("--include={}", lines(PACKAGES).join(","));
    // What the archive says of each package, for the lock: apt's lists are gone when it is done.
    let keep_indexes =
        format!("--customize-hook=cp -r \"$1/var/lib/apt/lists\" '{}'", indexes.display());
    let options = [
        "--mode=root",
        "--variant=essential",
        "--aptopt=Acquire::Languages \"none\"",
        "--aptopt=APT::Install-Recommends \"false\"",
        "--dpkgopt=force-unsafe-io",
    ];
    let excluded = EXCLUDED.iter().map(|path| format!("--dpkgopt=path-exclude={path}"));
    let places = [RELEASE.to_owned(), tree.display().to_string(), list.display().to_string()];
    let arguments = options.map(str::to_owned).into_iter().chain(excluded);
    tools::run("mmdebstrap", arguments.chain([include, keep_indexes]).chain(places))?;
    let lock = lock::read(&tree.join("var/lib/dpkg/status"), &indexes)?;
    files::remove(&indexes)?;
    files::write(&kept.join(FINISHED), lock.to_string())?;
    Ok(())
}

/// Returns the host's own sources of the release, one line each.
fn sources() -> Result<String, TreeError> {
    let apt = Path::new("/etc/apt");
    let folder = apt.join("sources.list.d");
    let mut found = Vec::new();
    if apt.join("sources.list").exists() {
        found.extend(of_lines(&files::read_text(&apt.join("sources.list"))?));
    }
    for name in files::names(&folder)? {
        let text = files::read_text(&folder.join(&name))?;
        match name.rsplit_once('.') {
            Some((_, "list")) => found.extend(of_lines(&text)),
            Some((_, "sources")) => found.extend(of_paragraphs(&text)),
            _ => {}
        }
    }
    if found.is_empty() { Err(TreeError::NoSource) } else { Ok(found.join("\n") + "\n") }
}

/// Tells whether a suite belongs to the release. Backports do not: they would mix two systems.
fn of_release(suite: &str) -> bool {
    suite == RELEASE
        || [format!("{RELEASE}-updates"), format!("{RELEASE}-security")].contains(&suite.to_owned())
}

/// Picks the release's lines of a file in apt's one-line style.
fn of_lines(text: &str) -> Vec<String> {
    let ours = |line: &&str| {
        let mut words = line.split_ascii_whitespace().skip_while(|word| !word.contains("://"));
        line.starts_with("deb ")
            && words.nth(1).is_some_and(of_release)
            && words.any(|component| component == "main")
    };
    text.lines().map(str::trim).filter(ours).map(str::to_owned).collect()
}

/// Turns the release's paragraphs of a deb822 file into lines.
fn of_paragraphs(text: &str) -> Vec<String> {
    let field = |paragraph: &str, name: &str| {
        let mut lines = paragraph.lines().filter_map(|line| line.split_once(':'));
        lines
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim().to_owned())
    };
    let mut found = Vec::new();
    for paragraph in text.split("\n\n") {
        let get = |name| field(paragraph, name).unwrap_or_default();
        let (kinds, components) = (get("Types"), get("Components"));
        let has = |words: &str, word| words.split_ascii_whitespace().any(|found| found == word);
        if !has(&kinds, "deb") || !has(&components, "main") {
            continue;
        }
        let key = field(paragraph, "Signed-By").filter(|key| key.starts_with('/'));
        let options = key.map(|key| format!("[signed-by={key}] ")).unwrap_or_default();
        for address in get("URIs").split_ascii_whitespace() {
            for suite in get("Suites").split_ascii_whitespace().filter(|suite| of_release(suite)) {
                found.push(format!("deb {options}{address} {suite} main"));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_releases_own_sources_are_taken() {
        let text = "# deb http://a bookworm main\n\
                    deb [arch=amd64] http://a bookworm main contrib\n\
                    deb http://a bookworm-backports main\n\
                    deb https://b cloud-sdk-bookworm main\n\
                    deb http://a bookworm-security main\n\
                    deb-src http://a bookworm main\n";
        assert_eq!(
            of_lines(text),
            [
                "deb [arch=amd64] http://a bookworm main contrib",
                "deb http://a bookworm-security main"
            ]
        );
    }

    #[test]
    fn paragraphs_become_lines() {
        let text = "Types: deb\n# a comment: yes\nURIs: http://a\nSuites: bookworm bookworm-updates\n\
                    Components: main\nSigned-By: /k.gpg\n\n\
                    Types: deb-src\nURIs: http://a\nSuites: bookworm\nComponents: main\n\n\
                    Types: deb\nURIs: http://n\nSuites: nodistro\nComponents: main\n";
        assert_eq!(
            of_paragraphs(text),
            [
                "deb [signed-by=/k.gpg] http://a bookworm main",
                "deb [signed-by=/k.gpg] http://a bookworm-updates main"
            ]
        );
    }

    #[test]
    fn another_source_makes_another_tree() {
        assert_eq!(key("a"), key("a"));
        assert_ne!(key("a"), key("b"));
    }
}
