//! Carries out what concerns units.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::timeout;
use tracing::info;

use super::Machine;
use super::plan::UnitStep;
use crate::foundation::durable_file::{Attributes, WriteError, replace};
use crate::platform::systemd::{Lasting, SystemdError, UnitName, Verb};

/// How long one job may take: half of what the boot gives the whole service.
pub(super) const COMMAND_DEADLINE: Duration = Duration::from_mins(5);

/// How long systemd may take to read its units or to link them.
const MANAGER_DEADLINE: Duration = Duration::from_mins(1);

const NULL: &str = "/dev/null";

/// Something of a unit was not done.
#[derive(Debug, thiserror::Error)]
pub enum UnitError {
    /// A file was not written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A link was not made or removed.
    #[error("cannot change `{}`", path.display())]
    Link {
        /// The link.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// systemd said no.
    #[error(transparent)]
    Systemd(#[from] SystemdError),
    /// systemd said nothing.
    #[error("its job has not ended within {}s and goes on", .0.as_secs())]
    Late(Duration),
    /// The cloud-config asks for what cannot be.
    #[error("{0}")]
    Refused(String),
}

/// What the steps so far have left to do.
#[derive(Debug, Default)]
pub(super) struct Units {
    /// Files were changed that systemd has not read yet.
    changed: bool,
}

impl Units {
    pub(super) async fn carry_out(
        &mut self,
        unit: &str,
        step: &UnitStep,
        machine: &Machine,
    ) -> Result<(), UnitError> {
        match step {
            UnitStep::Place { path, content } => {
                self.changed = true;
                replace(&machine.root.at(path), content.as_bytes(), Attributes::default())?;
                info!(unit, path = %path.display(), "unit file written");
            }
            UnitStep::Mask { path } => {
                self.changed = true;
                mask(&machine.root.at(path))?;
                info!(unit, "unit masked");
            }
            UnitStep::Unmask { path } => {
                let lifted = unmask(&machine.root.at(path))?;
                self.changed |= lifted;
                if lifted {
                    info!(unit, "mask lifted");
                }
            }
            UnitStep::Enable(lasting) => {
                self.changed = true;
                enable(unit, *lasting, machine).await?;
                info!(unit, "unit enabled");
            }
            UnitStep::Reload if self.changed => {
                let reload = machine.systemd.daemon_reload();
                timeout(MANAGER_DEADLINE, reload)
                    .await
                    .map_err(|_| UnitError::Late(MANAGER_DEADLINE))??;
            }
            UnitStep::Reload => {}
            UnitStep::Command(command) => {
                run(unit, command, machine).await?;
                info!(unit, command, "unit job done");
            }
            UnitStep::Refuse(why) => return Err(UnitError::Refused(why.clone())),
        }
        Ok(())
    }
}

async fn enable(unit: &str, lasting: Lasting, machine: &Machine) -> Result<(), UnitError> {
    let names = [UnitName::parse(unit)?];
    let enabled = timeout(MANAGER_DEADLINE, machine.systemd.enable(&names, lasting));
    Ok(enabled.await.map_err(|_| UnitError::Late(MANAGER_DEADLINE))??)
}

async fn run(unit: &str, command: &str, machine: &Machine) -> Result<(), UnitError> {
    let name = UnitName::parse(unit)?;
    let verb = verb(command)
        .ok_or_else(|| UnitError::Refused(format!("`{command}` is no command for a unit")))?;
    let job = timeout(COMMAND_DEADLINE, machine.systemd.run(verb, &name));
    Ok(job.await.map_err(|_| UnitError::Late(COMMAND_DEADLINE))??)
}

fn verb(command: &str) -> Option<Verb> {
    Some(match command {
        "start" => Verb::Start,
        "stop" => Verb::Stop,
        "restart" => Verb::Restart,
        "reload" => Verb::Reload,
        "try-restart" => Verb::TryRestart,
        "reload-or-restart" => Verb::ReloadOrRestart,
        "reload-or-try-restart" => Verb::ReloadOrTryRestart,
        _ => return None,
    })
}

fn mask(path: &Path) -> Result<(), UnitError> {
    let link = || {
        fs::create_dir_all(path.parent().unwrap_or(path))?;
        remove(path)?;
        symlink(NULL, path)
    };
    link().map_err(|source| UnitError::Link { path: path.to_owned(), source })
}

/// Removes a link to nothing or an empty file; tells whether there was one.
fn unmask(path: &Path) -> Result<bool, UnitError> {
    let lift = || {
        let Some(masks) = is_mask(path)? else { return Ok(false) };
        if masks {
            remove(path)?;
        } else {
            info!(path = %path.display(), "no mask but a unit file; it stays");
        }
        Ok(masks)
    };
    lift().map_err(|source| UnitError::Link { path: path.to_owned(), source })
}

/// Tells whether what is at `path` masks a unit; `None` if nothing is there.
fn is_mask(path: &Path) -> io::Result<Option<bool>> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let masks = if found.is_symlink() {
        fs::read_link(path)? == Path::new(NULL)
    } else {
        found.is_file() && found.len() == 0
    };
    Ok(Some(masks))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_replaces_what_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("system/foo.service");
        for _ in 0..2 {
            mask(&path).unwrap();
            assert_eq!(fs::read_link(&path).unwrap(), Path::new(NULL));
        }
        remove(&path).unwrap();
        fs::write(&path, "[Service]\n").unwrap();
        mask(&path).unwrap();
        assert_eq!(fs::read_link(&path).unwrap(), Path::new(NULL));
    }

    #[test]
    fn only_a_mask_is_lifted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("foo.service");
        assert!(!unmask(&path).unwrap());
        mask(&path).unwrap();
        assert!(unmask(&path).unwrap());
        fs::write(&path, "").unwrap();
        assert!(unmask(&path).unwrap());
        assert!(!path.exists());
        fs::write(&path, "[Service]\n").unwrap();
        assert!(!unmask(&path).unwrap());
        assert!(path.exists());
        remove(&path).unwrap();
        symlink("/nonexistent", &path).unwrap();
        assert!(!unmask(&path).unwrap());
        assert!(path.is_symlink());
    }
}
