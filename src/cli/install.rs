//! Links that make one binary many programs.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::cli::multicall::{BINARY, links};
use crate::cli::output::Output;

/// Why the links, the pages or the completions could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A file or a folder cannot be made.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something else has the name of an applet.
    #[error("`{}` is there and is no link to {BINARY}; move it away and try again", path.display())]
    Occupied {
        /// Where.
        path: PathBuf,
    },
    /// The binary does not know where it is.
    #[error("cannot find this program's own file")]
    Nowhere {
        /// Why.
        source: io::Error,
    },
}

impl WriteError {
    pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        |source| Self::Write { path, source }
    }
}

/// Links every applet and alias in `folder` to this binary and says what it did.
pub fn install(folder: &Path, output: &mut Output) -> Result<(), WriteError> {
    let program = std::env::current_exe().map_err(|source| WriteError::Nowhere { source })?;
    link_all(folder, &program, output)
}

fn link_all(folder: &Path, program: &Path, output: &mut Output) -> Result<(), WriteError> {
    fs::create_dir_all(folder).map_err(WriteError::at(folder))?;
    let beside = fs::canonicalize(folder).ok().as_deref() == program.parent();
    let target = match program.file_name() {
        Some(name) if beside => Path::new(name),
        _ => program,
    };
    let mut made = 0;
    for name in links() {
        let path = folder.join(name);
        if link(&path, target)? == Made::New {
            output.line(format_args!("{} -> {}", path.display(), target.display()));
            made += 1;
        }
    }
    let kept = links().len() - made;
    output.line(format_args!("{made} linked, {kept} as they were"));
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
enum Made {
    New,
    Kept,
}

fn link(path: &Path, target: &Path) -> Result<Made, WriteError> {
    match fs::read_link(path) {
        Ok(old) if old == target => return Ok(Made::Kept),
        // An older place of ours.
        Ok(old) if old.file_name().is_some_and(|name| name == BINARY) => {
            fs::remove_file(path).map_err(WriteError::at(path))?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        _ => return Err(WriteError::Occupied { path: path.to_owned() }),
    }
    symlink(target, path).map_err(WriteError::at(path))?;
    Ok(Made::New)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn installed(folder: &Path, program: &str) -> Result<String, WriteError> {
        let (mut output, kept) = Output::kept();
        link_all(folder, Path::new(program), &mut output)?;
        Ok(kept.out().lines().last().unwrap().to_owned())
    }

    #[test]
    fn every_name_is_linked_once_and_moved_when_the_binary_moves() {
        let folder = tempfile::tempdir().unwrap();
        let count = links().len();
        let all = format!("{count} linked, 0 as they were");
        assert_eq!(installed(folder.path(), "/a/corebox").unwrap(), all);
        let none = format!("0 linked, {count} as they were");
        assert_eq!(installed(folder.path(), "/a/corebox").unwrap(), none);
        assert_eq!(installed(folder.path(), "/b/corebox").unwrap(), all);
        let link = folder.path().join("etcdctl");
        assert_eq!(fs::read_link(link).unwrap(), Path::new("/b/corebox"));
    }

    #[test]
    fn a_binary_in_the_same_folder_is_linked_by_its_name_alone() {
        let folder = tempfile::tempdir().unwrap();
        let program = fs::canonicalize(folder.path()).unwrap().join("corebox");
        installed(folder.path(), program.to_str().unwrap()).unwrap();
        let link = folder.path().join("etcdctl");
        assert_eq!(fs::read_link(link).unwrap(), Path::new("corebox"));
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("etcdctl");
        fs::write(&path, "somebody's").unwrap();
        let refused = installed(folder.path(), "/a/corebox").unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!(
                "`{}` is there and is no link to corebox; move it away and try again",
                path.display()
            ),
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), "somebody's");
    }
}
