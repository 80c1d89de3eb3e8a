//! The folder that holds the unit files of this machine's share of the cluster.

use std::io;
use std::path::{Path, PathBuf};

use crate::foundation::durable_file::{self, Attributes, WriteError};
use crate::foundation::limits::UNIT_FILE_BYTES_MAX;
use crate::wire::fleet::{UnitFile, UnitName};

/// Where unit files are kept.
#[derive(Debug, Clone)]
pub struct UnitFolder {
    path: PathBuf,
}

impl UnitFolder {
    /// Uses the folder at `path`, which is made when it is needed.
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Returns where a unit's file is.
    pub fn file(&self, unit: &UnitName) -> PathBuf {
        self.path.join(unit.as_str())
    }

    /// Writes a unit's file.
    pub fn write(&self, unit: &UnitName, file: &UnitFile) -> Result<(), WriteError> {
        durable_file::replace(
            &self.file(unit),
            file.canonical().as_bytes(),
            Attributes::mode(0o644),
        )
    }

    /// Removes a unit's file; fine if there is none.
    pub fn remove(&self, unit: &UnitName) -> io::Result<()> {
        match std::fs::remove_file(self.file(unit)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Returns the units whose files are there; what is no unit file is told and left alone.
    pub fn list(&self) -> io::Result<Vec<(UnitName, UnitFile)>> {
        let entries = match std::fs::read_dir(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with('.') {
                continue;
            }
            let unit = read(&path, &name);
            if unit.is_none() {
                tracing::warn!(file = %path.display(), "this is no unit file; left alone");
            }
            found.extend(unit);
        }
        found.sort_by(|one, other| one.0.cmp(&other.0));
        Ok(found)
    }
}

fn read(path: &Path, name: &str) -> Option<(UnitName, UnitFile)> {
    let name = UnitName::parse(name).ok()?;
    let bytes = std::fs::metadata(path).ok()?.len();
    if bytes > UNIT_FILE_BYTES_MAX as u64 {
        return None;
    }
    Some((name, UnitFile::parse(&std::fs::read_to_string(path).ok()?).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_listed_and_the_rest_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let units = UnitFolder::at(&folder.path().join("fleet/units"));
        assert_eq!(units.list().unwrap(), []);
        let name = UnitName::parse("a.service").unwrap();
        let file = UnitFile::parse("[Service]\nExecStart=/a\n").unwrap();
        units.write(&name, &file).unwrap();
        std::fs::write(units.file(&name).with_file_name("README"), "hello").unwrap();
        assert_eq!(units.list().unwrap(), [(name.clone(), file)]);
        units.remove(&name).unwrap();
        units.remove(&name).expect("removing what is gone is fine");
        assert_eq!(units.list().unwrap(), []);
    }
}
