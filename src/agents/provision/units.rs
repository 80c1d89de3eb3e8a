//! Carries out what concerns units.

use std::collections::BTreeSet;
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
use crate::platform::systemd::{Call, Lasting, SystemdError, UnitName, Verb};

/// How long one job may take: half of what the boot gives the whole service.
pub(super) const COMMAND_DEADLINE: Duration = Duration::from_mins(5);

/// How long systemd may take to read its units or to link them.
const MANAGER_DEADLINE: Duration = Duration::from_mins(1);

const NULL: &str = "/dev/null";

/// Where unit files of any origin are.
const UNIT_FOLDERS: &[&str] =
    &["/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system"];

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
    /// Units whose files were changed and not read again since.
    changed: BTreeSet<String>,
    /// Links were made that belong to other units: what these want.
    linked: bool,
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
                self.changed.insert(unit.to_owned());
                replace(&machine.root.at(path), content.as_bytes(), Attributes::default())?;
                info!(unit, path = %path.display(), "unit file written");
            }
            UnitStep::Mask { path } => {
                self.changed.insert(unit.to_owned());
                mask(&machine.root.at(path))?;
                info!(unit, "unit masked");
            }
            UnitStep::Unmask { path } => {
                let lifted = unmask(&machine.root.at(path))?;
                if lifted {
                    self.changed.insert(unit.to_owned());
                    info!(unit, "mask lifted");
                }
            }
            UnitStep::Enable(lasting) => {
                self.linked = true;
                enable(unit, *lasting, machine).await?;
                info!(unit, "unit enabled");
            }
            UnitStep::Reload => self.reload(machine).await?,
            UnitStep::Command(command) => {
                run(unit, command, machine).await?;
                info!(unit, command, "unit job done");
            }
            UnitStep::Refuse(why) => return Err(UnitError::Refused(why.clone())),
        }
        Ok(())
    }

    /// Makes systemd read all units again, which takes it longer than anything else at a boot, where
    /// it would miss a change otherwise: a unit that it has not in memory it reads when it is started.
    async fn reload(&mut self, machine: &Machine) -> Result<(), UnitError> {
        if self.linked || self.is_read(machine).await? {
            in_time(machine.systemd.daemon_reload()).await?;
        }
        *self = Self::default();
        Ok(())
    }

    /// Tells whether systemd has in memory what was changed.
    async fn is_read(&self, machine: &Machine) -> Result<bool, UnitError> {
        if self.changed.is_empty() {
            return Ok(false);
        }
        let other_names = |name: &String| speaks_of_several(name) || is_alias(name, machine);
        Ok(self.changed.iter().any(other_names)
            || in_time(machine.systemd.list()).await?.keys().any(|read| {
                self.changed.contains(read)
                    || template_of(read).is_some_and(|template| self.changed.contains(&template))
            }))
    }
}

async fn in_time<T>(call: Call<'_, T>) -> Result<T, UnitError> {
    Ok(timeout(MANAGER_DEADLINE, call).await.map_err(|_| UnitError::Late(MANAGER_DEADLINE))??)
}

/// Tells whether systemd may have a unit in memory under another name.
fn is_alias(unit: &str, machine: &Machine) -> bool {
    UNIT_FOLDERS.iter().any(|folder| {
        let target = fs::read_link(machine.root.at(Path::new(folder)).join(unit));
        target.is_ok_and(|target| target != Path::new(NULL))
    })
}

/// Returns the template of an instance.
fn template_of(unit: &str) -> Option<String> {
    let (stem, suffix) = unit.rsplit_once('.')?;
    let (name, _) = stem.split_once('@')?;
    Some(format!("{name}@.{suffix}"))
}

/// Tells whether drop-ins under this name are read for units of other names: `web-.service` for all
/// that begin so, `service` for all of a kind.
fn speaks_of_several(name: &str) -> bool {
    name.rsplit_once('.').is_none_or(|(stem, _)| stem.ends_with('-'))
}

async fn enable(unit: &str, lasting: Lasting, machine: &Machine) -> Result<(), UnitError> {
    let names = [UnitName::parse(unit)?];
    in_time(machine.systemd.enable(&names, lasting)).await
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
    fn an_instance_has_a_template() {
        assert_eq!(template_of("web@1.service").as_deref(), Some("web@.service"));
        assert_eq!(template_of("a@b@c.d.socket").as_deref(), Some("a@.socket"));
        assert_eq!(template_of("web.service"), None);
    }

    #[test]
    fn some_names_speak_of_several_units() {
        for (name, several) in [("web.service", false), ("web-.service", true), ("service", true)] {
            assert_eq!(speaks_of_several(name), several, "{name}");
        }
    }

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
