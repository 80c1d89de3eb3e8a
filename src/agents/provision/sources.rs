//! Where user-data and metadata come from.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::select_ok;
use tokio::time::{sleep, timeout};
use tracing::info;

use super::Machine;
use super::fetch::{self, FetchError};
use crate::foundation::backoff::Backoff;
use crate::foundation::exit::chain;
use crate::foundation::limits::CLOUD_CONFIG_BYTES_MAX;
use crate::wire::cloud_config::metadata::{BadMetadata, Metadata};

/// How long sources may take to appear: half of what the boot gives the whole service.
pub const SELECT_DEADLINE: Duration = Duration::from_mins(5);

const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// A place that may have user-data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// An address.
    Url(String),
    /// A mounted config drive.
    ConfigDrive(PathBuf),
    /// The address that the kernel's command line names.
    KernelCommandLine,
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "file `{}`", path.display()),
            Self::Url(url) => write!(f, "url `{url}`"),
            Self::ConfigDrive(path) => write!(f, "config drive `{}`", path.display()),
            Self::KernelCommandLine => f.write_str("the kernel's command line"),
        }
    }
}

/// A source that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Available {
    /// A file.
    File(PathBuf),
    /// What an address answered.
    Body(Vec<u8>),
    /// A mounted config drive.
    ConfigDrive(PathBuf),
}

/// No source became available.
#[derive(Debug, thiserror::Error)]
pub enum SelectError {
    /// None can any more.
    #[error("no source has user-data: {0}")]
    None(String),
    /// Some might have, later.
    #[error("no source was there within {}s: {sources}", SELECT_DEADLINE.as_secs())]
    Late {
        /// Those that were asked for.
        sources: String,
    },
}

/// A source that is there cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A file of it.
    #[error("cannot read `{}`", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is longer than any user-data.
    #[error("`{}` is longer than {CLOUD_CONFIG_BYTES_MAX} bytes; make it shorter", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// Its metadata.
    #[error("cannot use `{}`", path.display())]
    Metadata {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: BadMetadata,
    },
}

/// What looking at a source found.
#[derive(Debug)]
enum Probe {
    Ready(Available),
    NotYet(String),
    Never(String),
}

/// Looks at all sources, again and again, until one is there. Of two at once the first given wins.
pub async fn select(sources: &[Source], machine: &Machine) -> Result<Available, SelectError> {
    let probes = sources.iter().map(|source| Box::pin(until_available(source, machine)));
    match timeout(SELECT_DEADLINE, select_ok(probes)).await {
        Ok(Ok((available, _others))) => Ok(available),
        Ok(Err(why)) => Err(SelectError::None(why)),
        Err(_) => {
            let names: Vec<_> = sources.iter().map(Source::to_string).collect();
            Err(SelectError::Late { sources: names.join(", ") })
        }
    }
}

async fn until_available(source: &Source, machine: &Machine) -> Result<Available, String> {
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
    loop {
        match probe(source, machine).await {
            Probe::Ready(available) => {
                info!(%source, "source is there");
                return Ok(available);
            }
            Probe::Never(why) => {
                info!(%source, why, "source is out of question");
                return Err(why);
            }
            Probe::NotYet(why) => info!(%source, why, "source is not there yet"),
        }
        sleep(backoff.next_wait()).await;
    }
}

async fn probe(source: &Source, machine: &Machine) -> Probe {
    match source {
        Source::File(path) if path.is_dir() => {
            let path = path.display();
            Probe::Never(format!("`{path}` is a folder; name the file in it"))
        }
        Source::File(path) => there(path.is_file(), path, Available::File),
        Source::ConfigDrive(path) => there(path.is_dir(), path, Available::ConfigDrive),
        Source::Url(url) => ask(url, machine).await,
        Source::KernelCommandLine => match machine.host.kernel_command_line() {
            Err(error) => Probe::Never(format!("cannot read the kernel's command line: {error}")),
            Ok(line) => match config_url(&line) {
                Some(url) => ask(url, machine).await,
                None => {
                    Probe::Never("the kernel's command line has no `cloud-config-url=`".to_owned())
                }
            },
        },
    }
}

fn there(is: bool, path: &Path, available: fn(PathBuf) -> Available) -> Probe {
    if is {
        Probe::Ready(available(path.to_owned()))
    } else {
        Probe::NotYet(format!("`{}` is not there", path.display()))
    }
}

async fn ask(url: &str, machine: &Machine) -> Probe {
    match fetch::get(&*machine.fetch, url).await {
        Ok(Some(body)) => Probe::Ready(Available::Body(body)),
        Ok(None) => Probe::NotYet(format!("`{url}` has no such file")),
        Err(error @ FetchError::NoAnswer { .. }) => Probe::NotYet(chain(&error)),
        Err(error @ (FetchError::Address { .. } | FetchError::Status { .. })) => {
            Probe::Never(chain(&error))
        }
    }
}

/// Finds the address on a kernel command line: the last one given counts, an empty one does not.
pub fn config_url(line: &str) -> Option<&str> {
    line.split_whitespace().rev().find_map(|word| {
        let (key, value) = word.split_once('=')?;
        let known = key == "cloud-config-url" || key == "cloud_config_url";
        (known && !value.is_empty()).then_some(value)
    })
}

impl Available {
    /// Reads user-data; none at all is empty.
    pub fn user_data(&self) -> Result<Vec<u8>, ReadError> {
        match self {
            Self::File(path) => read(path).map(Option::unwrap_or_default),
            Self::Body(body) => Ok(body.clone()),
            Self::ConfigDrive(path) => {
                read(&path.join("openstack/latest/user_data")).map(Option::unwrap_or_default)
            }
        }
    }

    /// Reads metadata; only a config drive has any.
    pub fn metadata(&self) -> Result<Metadata, ReadError> {
        let Self::ConfigDrive(path) = self else { return Ok(Metadata::default()) };
        let path = path.join("openstack/latest/meta_data.json");
        let json = read(&path)?.unwrap_or_default();
        Metadata::from_config_drive(&json).map_err(|source| ReadError::Metadata { path, source })
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, ReadError> {
    let failed = |source| ReadError::File { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    let limit = CLOUD_CONFIG_BYTES_MAX as u64 + 1;
    file.take(limit).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > CLOUD_CONFIG_BYTES_MAX {
        return Err(ReadError::TooLong { path: path.to_owned() });
    }
    Ok(Some(bytes))
}
