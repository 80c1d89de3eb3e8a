//! Where a unit's text comes from: what is stored, a file here, a template of either kind.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::cli::fleetctl::columns;
use crate::cli::fleetctl::words::Replace;
use crate::foundation::limits::UNIT_FILE_BYTES_MAX;
use crate::wire::fleet::api::Unit;
use crate::wire::fleet::names::mangle;
use crate::wire::fleet::unit_file::UnitFileError;
use crate::wire::fleet::{JobState, UnitFile};

/// A text that a unit could be made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Offer {
    /// The file, or the stored template, as messages name it.
    pub(super) from: String,
    pub(super) file: UnitFile,
}

/// A file that is there and cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    #[error("cannot read `{}`", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("`{}` is longer than {UNIT_FILE_BYTES_MAX} bytes, which no unit file is", path.display())]
    TooLong { path: PathBuf },
    #[error("`{}` is no unit file", path.display())]
    NoUnitFile { path: PathBuf, source: UnitFileError },
}

/// What to do about one unit that is to be stored.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The stored one stays.
    Keep,
    /// The stored one stays, though this file says something else.
    KeepDespite(String),
    /// It would be replaced by itself.
    Same,
    /// It would be replaced, and there is nothing to take its place.
    NothingToTake,
    /// It may not be replaced while this is what it shall be.
    Forbidden(JobState),
    /// This is stored; the unit shall then be in this state.
    Write(UnitFile, JobState),
    /// There is nothing at all.
    Unknown,
}

/// Decides about one unit: what is stored, what could be, and what the command wants.
pub(super) fn decide(
    stored: Option<&Unit>,
    offer: Option<Offer>,
    to: JobState,
    replace: Replace,
) -> Step {
    let Some(stored) = stored else {
        return offer.map_or(Step::Unknown, |offer| Step::Write(offer.file, JobState::Inactive));
    };
    let is_same = |offer: &Offer| offer.file.hash() == columns::file(stored).hash();
    let desired = stored.desired_state.unwrap_or_default();
    match (replace, offer) {
        (Replace::Never, Some(offer)) if !is_same(&offer) => Step::KeepDespite(offer.from),
        (Replace::Never, _) => Step::Keep,
        (Replace::Allowed, None) => Step::NothingToTake,
        (Replace::Allowed, Some(offer)) if is_same(&offer) => Step::Same,
        // `submit` replaces what is inactive, `load` also what is loaded, `start` everything.
        (Replace::Allowed, Some(_)) if desired > to => Step::Forbidden(desired),
        (Replace::Allowed, Some(offer)) => Step::Write(offer.file, desired),
    }
}

/// Returns the file that a person means by `typed`: `dir/a` is `dir/a.service`.
pub(super) fn path_of(typed: &str) -> PathBuf {
    Path::new(typed).with_file_name(mangle(typed))
}

/// Reads a unit file, if there is one.
pub(super) fn read(path: PathBuf) -> Result<Option<Offer>, FileError> {
    let bytes = match bytes_of(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(FileError::Read { path, source }),
    };
    if bytes.len() > UNIT_FILE_BYTES_MAX {
        return Err(FileError::TooLong { path });
    }
    match UnitFile::parse(&String::from_utf8_lossy(&bytes)) {
        Ok(file) => Ok(Some(Offer { from: path.display().to_string(), file })),
        Err(source) => Err(FileError::NoUnitFile { path, source }),
    }
}

/// Reads one byte more than is allowed, so that too much is seen as such.
fn bytes_of(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(UNIT_FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::fleet::UnitOption;

    fn offer(command: &str) -> Offer {
        let options = vec![UnitOption::new("Service", "ExecStart", command)];
        Offer { from: "a.service".into(), file: UnitFile::from_options(options).unwrap() }
    }

    fn stored(command: &str, desired: JobState) -> Unit {
        let options = offer(command).file.options().to_vec();
        let desired_state = Some(desired);
        Unit { name: "a.service".into(), options, desired_state, ..Unit::default() }
    }

    #[test]
    fn what_is_stored_wins_unless_it_may_be_replaced() {
        use JobState::{Inactive, Launched, Loaded};
        use Replace::{Allowed, Never};
        let (old, new) = (|| Some(offer("/old")), || Some(offer("/new")));
        let write = |desired| Step::Write(offer("/new").file, desired);
        for (desired, offered, to, replace, expected) in [
            (None, None, Launched, Never, Step::Unknown),
            (None, new(), Launched, Never, write(Inactive)),
            (None, new(), Launched, Allowed, write(Inactive)),
            (Some(Launched), None, Launched, Never, Step::Keep),
            (Some(Launched), old(), Launched, Never, Step::Keep),
            (Some(Launched), new(), Launched, Never, Step::KeepDespite("a.service".into())),
            (Some(Launched), None, Launched, Allowed, Step::NothingToTake),
            (Some(Launched), old(), Launched, Allowed, Step::Same),
            (Some(Launched), new(), Launched, Allowed, write(Launched)),
            (Some(Loaded), new(), Loaded, Allowed, write(Loaded)),
            (Some(Launched), new(), Loaded, Allowed, Step::Forbidden(Launched)),
            (Some(Loaded), new(), Inactive, Allowed, Step::Forbidden(Loaded)),
            (Some(Inactive), new(), Inactive, Allowed, write(Inactive)),
        ] {
            let unit = desired.map(|desired| stored("/old", desired));
            let case = format!("{desired:?} {offered:?} {to} {replace:?}");
            assert_eq!(decide(unit.as_ref(), offered, to, replace), expected, "{case}");
        }
    }

    #[test]
    fn a_name_without_a_type_is_a_service_in_the_same_folder() {
        assert_eq!(path_of("dir/a"), Path::new("dir/a.service"));
        assert_eq!(path_of("/x/a.socket"), Path::new("/x/a.socket"));
        assert_eq!(path_of("a"), Path::new("a.service"));
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        assert_eq!(read(folder.path().join("none.service")).unwrap(), None);
        let bad = read(at("bad.service", "[Service]\nfoo\n")).unwrap_err();
        assert!(bad.to_string().ends_with("bad.service` is no unit file"), "{bad}");
        let long = read(at("long.service", &"#\n".repeat(UNIT_FILE_BYTES_MAX))).unwrap_err();
        assert!(long.to_string().contains("long.service` is longer than"), "{long}");
        assert!(matches!(read(folder.path().to_owned()), Err(FileError::Read { .. })));
    }
}
