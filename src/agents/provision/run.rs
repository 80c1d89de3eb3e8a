//! From sources to a provisioned machine, once.

use std::io::Write;
use std::path::PathBuf;

use tracing::{error, info, warn};

use super::Machine;
use super::apply::{ApplyError, apply};
use super::plan::{Wishes, plan};
use super::sources::{self, Available, ReadError, SelectError, Source};
use super::unknown::{leave_out, stand_in};
use crate::foundation::exit::chain;
use crate::wire::cloud_config::config::{CloudConfig, ConfigError};
use crate::wire::cloud_config::metadata::Metadata;
use crate::wire::cloud_config::substitute::{Addresses, substitute};
use crate::wire::cloud_config::user_data::{self, NoText, Unrecognized, UserData};
use crate::wire::cloud_config::validate::{self, Kind};

/// What a run is to do.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to look, in this order where several are there at once.
    pub sources: Vec<Source>,
    /// What of this machine's addresses the environment knows.
    pub environment: Addresses,
    /// The folder for scripts.
    pub workspace: PathBuf,
    /// The name of the set of keys that are given here.
    pub ssh_key_name: String,
}

/// User-data was there and is not applied.
#[derive(Debug, thiserror::Error)]
pub enum UserDataError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It is no text.
    #[error(transparent)]
    Text(#[from] NoText),
    /// It is of no kind.
    #[error(transparent)]
    Kind(#[from] Unrecognized),
    /// It is a cloud-config with a mistake.
    #[error("the cloud-config has a mistake")]
    Config(#[from] ConfigError),
}

/// A run that could not begin.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No source was there.
    #[error(transparent)]
    Select(#[from] SelectError),
    /// The source's metadata cannot be used.
    #[error(transparent)]
    Metadata(ReadError),
    /// User-data that is only to be looked at cannot be read.
    #[error(transparent)]
    UserData(UserDataError),
}

/// How a run ended.
#[derive(Debug)]
pub enum Outcome {
    /// User-data is for Ignition: nothing was done.
    Ignition,
    /// What could be done was done.
    Applied {
        /// User-data that was left out.
        refused: Option<UserDataError>,
        /// Steps that failed.
        failures: Vec<ApplyError>,
    },
}

/// Provisions the machine. What a human must look at also goes to `console`, best effort.
pub async fn run(
    options: &Options,
    machine: &Machine,
    console: &mut (dyn Write + Send),
) -> Result<Outcome, RunError> {
    let source = sources::select(&options.sources, machine).await?;
    let metadata = source.metadata().map_err(RunError::Metadata)?;
    let addresses = metadata.addresses.clone().or(options.environment.clone());
    let (user_data, refused) = match read(&source, &addresses) {
        Ok(user_data) => (user_data, None),
        Err(error) => (UserDataRead::default(), Some(error)),
    };
    if let Some(error) = &refused {
        say(console, &format!("user-data is not applied: {}", chain(error)));
    }
    if matches!(user_data.wanted, Wanted::Ignition) {
        info!("user-data is an Ignition config, which is not for this program");
        return Ok(Outcome::Ignition);
    }
    if let Wanted::Config(config) = &user_data.wanted {
        warn_of_two_names(config, &metadata);
    }
    let none = CloudConfig::default();
    let planned = |wanted: &Wanted| {
        let (config, script) = match wanted {
            Wanted::Config(config) => (&**config, None),
            Wanted::Script(script) => (&none, Some(&**script)),
            Wanted::Nothing | Wanted::Ignition => (&none, None),
        };
        plan(Wishes {
            config,
            script,
            metadata: &metadata,
            addresses: &addresses,
            ssh_key_name: &options.ssh_key_name,
        })
    };
    let others = user_data.varied.iter().map(|(variable, wanted)| (*variable, planned(wanted)));
    let steps = leave_out(planned(&user_data.wanted), &others.collect::<Vec<_>>());
    let failures = apply(&steps, machine, &options.workspace).await;
    for failure in &failures {
        say(console, &chain(failure));
    }
    Ok(Outcome::Applied { refused, failures })
}

/// Only looks: returns a line for each finding.
pub async fn look(options: &Options, machine: &Machine) -> Result<Vec<String>, RunError> {
    let source = sources::select(&options.sources, machine).await?;
    let refused = |error: UserDataError| RunError::UserData(error);
    let bytes = source.user_data().map_err(|error| refused(error.into()))?;
    let text = user_data::text(bytes).map_err(|error| refused(error.into()))?;
    Ok(validate::user_data(&text).iter().map(ToString::to_string).collect())
}

/// What user-data asks for.
#[derive(Default)]
enum Wanted {
    #[default]
    Nothing,
    Ignition,
    Config(Box<CloudConfig>),
    Script(String),
}

/// User-data as it was read, with stand-ins for the addresses that nobody knows.
#[derive(Default)]
struct UserDataRead {
    wanted: Wanted,
    /// The same with another stand-in for each of those that it names, by variable.
    varied: Vec<(&'static str, Wanted)>,
}

fn read(source: &Available, addresses: &Addresses) -> Result<UserDataRead, UserDataError> {
    let text = user_data::text(source.user_data()?)?;
    warn_of_findings(&text);
    let filled = |varied| wanted(substitute(&text, &stand_in(addresses, varied)).text);
    let mut read = UserDataRead { wanted: filled(None)?, varied: Vec::new() };
    for variable in substitute(&text, addresses).missing {
        read.varied.push((variable, filled(Some(variable))?));
    }
    Ok(read)
}

fn wanted(text: String) -> Result<Wanted, UserDataError> {
    Ok(match user_data::kind(text) {
        UserData::Empty => Wanted::Nothing,
        UserData::Ignition => Wanted::Ignition,
        UserData::Script(script) => Wanted::Script(script),
        UserData::CloudConfig(text) => Wanted::Config(Box::new(CloudConfig::parse(&text)?)),
        UserData::Unrecognized(error) => return Err(error.into()),
    })
}

fn warn_of_findings(text: &str) {
    for finding in validate::user_data(text) {
        match finding.kind {
            Kind::Error | Kind::Warning => warn!("user-data {finding}"),
            Kind::Info => info!("user-data {finding}"),
        }
    }
}

fn warn_of_two_names(config: &CloudConfig, metadata: &Metadata) {
    let (wanted, known) = (&config.hostname, &metadata.hostname);
    if !wanted.is_empty() && !known.is_empty() && wanted != known {
        warn!(user_data = wanted, metadata = known, "two host names; the one of user-data is used");
    }
}

fn say(console: &mut (dyn Write + Send), words: &str) {
    error!("{words}");
    // A machine without a console is fine.
    writeln!(console, "coreos-cloudinit: {words}\r").ok();
}
