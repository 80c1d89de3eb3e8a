//! A program that writes to `/etc` and `/run` of its own: what it does to a machine is seen in a
//! folder, and does nothing to this one.
//!
//! **Not here:** `/usr`, `/var` and the rest, which are this machine's; nobody is kept out of them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::LabError;
use crate::process::Program;

/// Puts two folders of `$1` in the place of the machine's, then becomes the rest of the words.
const ENTER: &str =
    "mount --bind \"$1/run\" /run && mount --bind \"$1/etc\" /etc && shift && exec \"$@\"";

/// A folder that holds a machine's `/etc` and `/run`.
#[derive(Debug)]
pub struct Apart {
    dir: PathBuf,
    alone: bool,
}

impl Apart {
    /// Makes them, empty, in `dir`.
    pub fn new(dir: &Path) -> Result<Self, LabError> {
        for name in ["etc", "run"] {
            let folder = dir.join(name);
            fs::create_dir_all(&folder).map_err(LabError::file("make", &folder))?;
        }
        Ok(Self { dir: dir.to_owned(), alone: false })
    }

    /// Gives its programs no network but `lo`.
    #[must_use]
    pub fn without_network(self) -> Self {
        Self { alone: true, ..self }
    }

    /// Writes one of its files, such as `etc/machine-id`.
    pub fn write(&self, path: &str, text: impl AsRef<[u8]>) -> Result<(), LabError> {
        let path = self.dir.join(path);
        fs::write(&path, text).map_err(LabError::file("write", &path))
    }

    /// The program under test, to be run there under an applet's name. It is the process that is
    /// started, with a host name and mounts of its own.
    #[must_use]
    pub fn applet(&self, name: &str) -> Program {
        let network: &[&str] = if self.alone { &["--net"] } else { &[] };
        Program::line("unshare --user --map-root-user --mount --uts")
            .args(network)
            .args(["sh", "-c", ENTER, "sh"])
            .arg(&self.dir)
            .arg(crate::binary())
            .arg(name)
    }

    /// The same beside the process `id`, which was started there.
    #[must_use]
    pub fn applet_beside(id: u32, name: &str) -> Program {
        Program::line("nsenter --user --mount --preserve-credentials -t")
            .arg(id.to_string())
            .arg("--")
            .arg(crate::binary())
            .arg(name)
    }

    /// Every file that is there, by its path on that machine, with what it says.
    pub fn files(&self) -> Result<Vec<(PathBuf, String)>, LabError> {
        let mut folders = vec![self.dir.join("etc"), self.dir.join("run")];
        let mut found = Vec::new();
        while let Some(folder) = folders.pop() {
            let entries = fs::read_dir(&folder).map_err(LabError::file("list", &folder))?;
            for entry in entries {
                let path = entry.map_err(LabError::file("list", &folder))?.path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                // Sockets and links to nothing are there too, and say nothing.
                let bytes = if path.is_file() { fs::read(&path) } else { Ok(Vec::new()) };
                let bytes = bytes.map_err(LabError::file("read", &path))?;
                let there = path.strip_prefix(&self.dir).unwrap_or(&path);
                let text = String::from_utf8_lossy(&bytes).into_owned();
                found.push((Path::new("/").join(there), text));
            }
        }
        found.sort();
        Ok(found)
    }
}
