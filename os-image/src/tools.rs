//! The host's programs that the build uses, and how it calls them.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Every program that we call, with Debian's package that has it.
pub const TOOLS: &[(&str, &str)] = &[
    ("cp", "coreutils"),
    ("mcopy", "mtools"),
    ("mke2fs", "e2fsprogs"),
    ("mkfs.erofs", "erofs-utils"),
    ("mkfs.vfat", "dosfstools"),
    ("mmd", "mtools"),
    ("mmdebstrap", "mmdebstrap"),
    ("objcopy", "binutils"),
    ("systemd-sysusers", "systemd"),
    ("veritysetup", "cryptsetup-bin"),
];

/// Folders that hold programs even where `PATH` does not name them.
const SYSTEM_FOLDERS: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin";

/// How many of a failed program's last lines we pass on.
const LAST_LINES: usize = 12;

/// A program of the host did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// Some are not installed.
    #[error("{programs} missing: run `apt-get install -y {packages}`")]
    Missing {
        /// Their names.
        programs: String,
        /// The packages that have them.
        packages: String,
    },
    /// Only root may unpack packages with their owners.
    #[error("only root can unpack packages with their owners: run this with `sudo`")]
    NotRoot,
    /// It could not be started.
    #[error("cannot start `{program}`")]
    Start {
        /// Its name.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// It ended with an error.
    #[error("`{program}` failed:\n{lines}")]
    Failed {
        /// Its name.
        program: String,
        /// The end of what it said.
        lines: String,
    },
}

/// Checks that the build can run: as root, with every program there. Says what to do if not.
pub fn check() -> Result<(), ToolError> {
    let missing: Vec<_> = TOOLS.iter().filter(|(program, _)| find(program).is_none()).collect();
    if missing.is_empty() {
        let owner = fs::metadata("/proc/self").map(|process| process.uid());
        return if owner.is_ok_and(|owner| owner == 0) { Ok(()) } else { Err(ToolError::NotRoot) };
    }
    let programs: Vec<&str> = missing.iter().map(|(program, _)| *program).collect();
    let packages: BTreeSet<&str> = missing.iter().map(|(_, package)| *package).collect();
    Err(ToolError::Missing {
        programs: programs.join(", "),
        packages: packages.into_iter().collect::<Vec<_>>().join(" "),
    })
}

/// Runs a program and returns what it wrote to standard output.
pub fn run<A: AsRef<OsStr>>(
    program: &str,
    arguments: impl IntoIterator<Item = A>,
) -> Result<String, ToolError> {
    let ended = Command::new(program)
        .args(arguments)
        .env("PATH", search_path())
        .env("LC_ALL", "C.UTF-8")
        .env("TZ", "UTC")
        .env("SOURCE_DATE_EPOCH", crate::EPOCH_SECONDS.to_string())
        .env("E2FSPROGS_FAKE_TIME", crate::EPOCH_SECONDS.to_string())
        .env("MTOOLS_SKIP_CHECK", "1")
        .output()
        .map_err(|source| ToolError::Start { program: program.to_owned(), source })?;
    if ended.status.success() {
        return Ok(String::from_utf8_lossy(&ended.stdout).into_owned());
    }
    let said = [ended.stdout, ended.stderr].concat();
    Err(ToolError::Failed { program: program.to_owned(), lines: last_lines(&said) })
}

fn last_lines(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
}

fn search_path() -> String {
    format!("{}:{SYSTEM_FOLDERS}", std::env::var("PATH").unwrap_or_default())
}

fn find(program: &str) -> Option<PathBuf> {
    search_path()
        .split(':')
        .map(|folder| Path::new(folder).join(program))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_carries_the_programs_last_words() {
        let failed = run("sh", ["-c", "echo first; echo because >&2; exit 3"]).unwrap_err();
        assert_eq!(failed.to_string(), "`sh` failed:\nfirst\nbecause");
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        assert_eq!(find("no-such-program-of-ours"), None);
        let failed = run("no-such-program-of-ours", [""; 0]).unwrap_err();
        assert_eq!(failed.to_string(), "cannot start `no-such-program-of-ours`");
    }
}
