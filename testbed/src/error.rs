//! What can go wrong between the lab and the machine it runs on.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use crate::wait::TimedOut;

/// A step of the lab that did not work.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A file of ours could not be used.
    #[error("cannot {doing} {}", path.display())]
    File {
        /// A verb, such as `read`.
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A program of the host is missing or may not run.
    #[error("cannot start `{command}`; `cargo xtask up` installs what the lab needs")]
    Start {
        /// Its command line.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// A program ended with an error.
    #[error("`{command}` failed ({status}): {said}")]
    Failed {
        /// Its command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// The last that it said.
        said: String,
    },
    /// A program did not end in time.
    #[error("`{command}` did not end within {limit:?}: {said}")]
    Late {
        /// Its command line.
        command: String,
        /// How long it had.
        limit: Duration,
        /// The last that it said.
        said: String,
    },
    /// Something did not come true in time.
    #[error(transparent)]
    TimedOut(#[from] TimedOut),
    /// A server could not be asked.
    #[error("cannot ask {whom}")]
    Ask {
        /// The server and what it was asked.
        whom: String,
        /// Why.
        source: io::Error,
    },
    /// A server answered what we do not understand.
    #[error("{whom} answered {what}")]
    Answer {
        /// The server and what it was asked.
        whom: String,
        /// Its answer.
        what: String,
    },
    /// Something has to be there first.
    #[error("{0}")]
    Missing(String),
}

impl LabError {
    /// Wraps an I/O error with what was done to which file.
    pub fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { doing, path, source }
    }
}

/// An error with all its causes, on one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
