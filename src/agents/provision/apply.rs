//! Carries out a plan.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tracing::info;

use super::Machine;
use super::fetch::{self, FetchError};
use super::plan::Step;
use super::units::{UnitError, Units};
use super::users;
use crate::foundation::durable_file::{Attributes, WriteError, replace};
use crate::platform::host::{Host, Program};
use crate::platform::systemd::{SystemdError, Transient, UnitName};
use crate::wire::cloud_config::config::{Update, User, WriteFile};
use crate::wire::cloud_config::outputs;
use crate::wire::env_file::{self, EnvFileError};

/// Only its owner changes a script; everybody may read it, as the original has it.
const SCRIPT_MODE: u32 = 0o744;

/// Something was not done.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The machine has no name.
    #[error("cannot set the host name to `{name}`")]
    Hostname {
        /// The name.
        name: String,
        /// Why not.
        source: io::Error,
    },
    /// The user files cannot be read.
    #[error("cannot look up `{name}`")]
    LookUp {
        /// The user or group.
        name: String,
        /// Why not.
        source: io::Error,
    },
    /// There is no such user or group.
    #[error("`{path}` cannot belong to `{name}`: there is no such user or group")]
    NoOwner {
        /// The file.
        path: String,
        /// The user or group.
        name: String,
    },
    /// A program did not run.
    #[error("cannot run `{program}` for `{user}`")]
    Run {
        /// The program.
        program: String,
        /// The user.
        user: String,
        /// Why not.
        source: io::Error,
    },
    /// A program ended badly.
    #[error("`{program}` for `{user}` ended with {code}: {errors}")]
    Ended {
        /// The program.
        program: String,
        /// The user.
        user: String,
        /// Its exit code.
        code: String,
        /// What it said.
        errors: String,
    },
    /// Keys of another place cannot be had.
    #[error("cannot import keys for `{user}`")]
    Import {
        /// The user.
        user: String,
        /// Why not.
        source: FetchError,
    },
    /// What an address answered lists no keys.
    #[error("cannot import keys for `{user}`: `{url}` lists none")]
    NoKeys {
        /// The user.
        user: String,
        /// The address.
        url: String,
    },
    /// A file has no path.
    #[error("an element of `write_files` has no `path`")]
    NoPath,
    /// A file was not written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A file that is to be changed cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file of variables cannot have this one.
    #[error("cannot change `{path}`")]
    Variable {
        /// The file.
        path: &'static str,
        /// Why not.
        source: EnvFileError,
    },
    /// A unit is not as it should be.
    #[error("unit `{unit}`")]
    Unit {
        /// The unit.
        unit: String,
        /// Why not.
        source: UnitError,
    },
    /// It cannot be done on this machine.
    #[error("{0}")]
    Refused(String),
    /// The script was not started.
    #[error("cannot start the script `{}`", path.display())]
    Script {
        /// Where it is.
        path: PathBuf,
        /// Why not.
        source: SystemdError,
    },
}

/// Carries out the steps and returns what was not done, in order.
///
/// What fails of a unit does not keep the next steps, nor does what the plan itself refuses; any
/// other failure ends it, as what follows may build on it.
pub async fn apply(steps: &[Step], machine: &Machine, workspace: &Path) -> Vec<ApplyError> {
    let mut units = Units::default();
    let mut failures = Vec::new();
    for step in steps {
        if let Step::Unit { unit, step } = step {
            if let Err(source) = units.carry_out(unit, step, machine).await {
                failures.push(ApplyError::Unit { unit: unit.clone(), source });
            }
        } else if let Step::Refuse(why) = step {
            failures.push(ApplyError::Refused(why.clone()));
        } else if let Err(error) = carry_out(step, machine, workspace).await {
            failures.push(error);
            break;
        }
    }
    failures
}

async fn carry_out(step: &Step, machine: &Machine, workspace: &Path) -> Result<(), ApplyError> {
    match step {
        Step::SetHostname(name) => {
            let set = machine.host.set_hostname(name).await;
            set.map_err(|source| ApplyError::Hostname { name: name.clone(), source })?;
            info!(name, "host name set");
            Ok(())
        }
        Step::EnsureUser(user) => ensure_user(user, &*machine.host).await,
        Step::SetKeys { user, set, keys } => {
            run(&users::set_keys(user, set, keys), user, &*machine.host).await?;
            info!(user, set, count = keys.len(), "keys set");
            Ok(())
        }
        Step::ImportKeys { user, set, url } => {
            let keys = listed_keys(user, url, machine).await?;
            run(&users::set_keys(user, set, &keys), user, &*machine.host).await
        }
        Step::WriteFile(file) => write_file(file, machine),
        Step::SetUpdateConf(update) => set_update_conf(update, machine),
        Step::WriteHosts => write_hosts(machine),
        Step::SetEnvironment(variables) => set_environment(variables, machine),
        Step::RunScript(script) => run_script(script, machine, workspace).await,
        // `apply` has taken these.
        Step::Unit { .. } | Step::Refuse(_) => Ok(()),
    }
}

async fn ensure_user(user: &User, host: &dyn Host) -> Result<(), ApplyError> {
    let name = &user.name;
    let found =
        host.user(name).map_err(|source| ApplyError::LookUp { name: name.clone(), source })?;
    if found.is_none() {
        run(&users::create(user), name, host).await?;
        info!(user = name, "user made");
    } else if let Some(program) = users::set_password(user) {
        run(&program, name, host).await?;
        info!(user = name, "password set");
    }
    Ok(())
}

async fn run(program: &Program, user: &str, host: &dyn Host) -> Result<(), ApplyError> {
    let (name, user) = (program.path.display().to_string(), user.to_owned());
    let ended = match host.run(program).await {
        Ok(ended) => ended,
        Err(source) => return Err(ApplyError::Run { program: name, user, source }),
    };
    if ended.code == Some(0) {
        return Ok(());
    }
    let code = ended.code.map_or_else(|| "a signal".to_owned(), |code| format!("code {code}"));
    let errors = String::from_utf8_lossy(&ended.errors).trim().to_owned();
    Err(ApplyError::Ended { program: name, user, code, errors })
}

#[derive(Deserialize)]
struct ListedKey {
    key: String,
}

async fn listed_keys(user: &str, url: &str, machine: &Machine) -> Result<Vec<String>, ApplyError> {
    let body = fetch::get(&*machine.fetch, url)
        .await
        .map_err(|source| ApplyError::Import { user: user.to_owned(), source })?;
    let keys: Option<Vec<ListedKey>> = body.and_then(|json| serde_json::from_slice(&json).ok());
    let none = || ApplyError::NoKeys { user: user.to_owned(), url: url.to_owned() };
    Ok(keys.ok_or_else(none)?.into_iter().map(|listed| listed.key).collect())
}

fn write_file(file: &WriteFile, machine: &Machine) -> Result<(), ApplyError> {
    if file.path.is_empty() {
        return Err(ApplyError::NoPath);
    }
    let owner = owner(file, &*machine.host)?;
    let attributes = Attributes { owner, ..Attributes::mode(file.mode) };
    replace(&machine.root.at(&file.path), &file.content, attributes)?;
    info!(path = file.path, "file written");
    Ok(())
}

/// Finds the numbers of `user[:group]`. A user alone keeps our own group, as `chown` does.
fn owner(file: &WriteFile, host: &dyn Host) -> Result<Option<(u32, u32)>, ApplyError> {
    if file.owner.is_empty() {
        return Ok(None);
    }
    let (user, group) = file
        .owner
        .split_once(':')
        .map_or((&*file.owner, None), |(user, group)| (user, Some(group)));
    let missing =
        |name: &str| ApplyError::NoOwner { path: file.path.clone(), name: name.to_owned() };
    let look_up = |name: &str| {
        let name = name.to_owned();
        move |source| ApplyError::LookUp { name, source }
    };
    let found = host.user(user).map_err(look_up(user))?;
    let uid = found
        .as_ref()
        .map(|user| user.uid)
        .or_else(|| user.parse().ok())
        .ok_or_else(|| missing(user))?;
    let gid = match group {
        None => rustix::process::getegid().as_raw(),
        // `user:` means the user's own first group.
        Some("") => found.map(|user| user.gid).ok_or_else(|| missing(user))?,
        Some(name) => {
            let group = host.group(name).map_err(look_up(name))?;
            group.or_else(|| name.parse().ok()).ok_or_else(|| missing(name))?
        }
    };
    Ok(Some((uid, gid)))
}

const UPDATE_CONF: &str = "/etc/coreos/update.conf";
const SHIPPED_UPDATE_CONF: &str = "/usr/share/coreos/update.conf";

fn set_update_conf(update: &Update, machine: &Machine) -> Result<(), ApplyError> {
    let own = read(&machine.root.at(UPDATE_CONF))?;
    let is_ours = own.is_some();
    let existing = match own {
        Some(text) => text,
        None => read(&machine.root.at(SHIPPED_UPDATE_CONF))?.unwrap_or_default(),
    };
    let merged = outputs::update_conf(&existing, update)
        .map_err(|source| ApplyError::Variable { path: UPDATE_CONF, source })?;
    // Where the shipped file says it all, ours must still be there for who changes it.
    let Some(text) = merged.or_else(|| (!is_ours).then_some(existing)) else { return Ok(()) };
    replace(&machine.root.at(UPDATE_CONF), &text, Attributes::default())?;
    info!(path = UPDATE_CONF, "file written");
    Ok(())
}

fn write_hosts(machine: &Machine) -> Result<(), ApplyError> {
    let name = machine
        .host
        .hostname()
        .map_err(|source| ApplyError::Read { path: "/etc/hostname".into(), source })?;
    let text = outputs::hosts(&name);
    replace(&machine.root.at("/etc/hosts"), text.as_bytes(), Attributes::default())?;
    info!(path = "/etc/hosts", "file written");
    Ok(())
}

const ENVIRONMENT: &str = "/etc/environment";

fn set_environment(variables: &[(String, String)], machine: &Machine) -> Result<(), ApplyError> {
    let path = machine.root.at(ENVIRONMENT);
    let existing = read(&path)?.unwrap_or_default();
    let merged = env_file::merge(&existing, &variables.iter().cloned().collect())
        .map_err(|source| ApplyError::Variable { path: ENVIRONMENT, source })?;
    if let Some(text) = merged {
        replace(&path, &text, Attributes::default())?;
        info!(path = ENVIRONMENT, "file written");
    }
    Ok(())
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, ApplyError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ApplyError::Read { path: path.to_owned(), source }),
    }
}

async fn run_script(script: &str, machine: &Machine, workspace: &Path) -> Result<(), ApplyError> {
    let word = machine.random.hex(8);
    let scripts = machine.root.at(workspace.join("scripts"));
    let path = scripts.join(&word);
    replace(&path, script.as_bytes(), Attributes::mode(SCRIPT_MODE))?;
    let failed = |source| ApplyError::Script { path: path.clone(), source };
    let unit = UnitName::parse(&format!("coreos-cloudinit-{word}.service")).map_err(failed)?;
    let transient = Transient {
        unit: unit.clone(),
        description: "The script that is this machine's user-data".to_owned(),
        command: vec!["/bin/bash".to_owned(), path.display().to_string()],
    };
    machine.systemd.run_transient(&transient).await.map_err(failed)?;
    replace(&scripts.join("unit-name"), unit.as_str().as_bytes(), Attributes::default())?;
    info!(%unit, "script started");
    Ok(())
}
