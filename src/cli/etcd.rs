//! `etcd`: a member of the store.

use std::sync::Arc;

use clap::{Arg, ArgMatches, Command};

use crate::agents::etcd::config::{self, Config, ConfigError, FLAGS, Flag};
use crate::agents::etcd::config_file::{self, ConfigFileError};
use crate::agents::etcd::flags::{UNUSED, described};
use crate::agents::etcd::run::{self, Report, World};
use crate::cli::multicall::Applet;
use crate::cli::output::Output;
use crate::cli::{daemon, environment};
use crate::consensus::Seams;
use crate::consensus::log_writer::WriterKind;
use crate::foundation::clock::SystemClock;
use crate::foundation::exit::{Exit, chain};
use crate::foundation::random::Random;
use crate::platform::disk::Files;
use crate::platform::net::TokioNet;
use crate::rpc::server::keys_v2::SERVER_VERSION;

/// Words that are no flags.
const WORDS: &str = "words";

/// The entry in the table of applets.
pub const APPLET: Applet = Applet {
    name: "etcd",
    aliases: &["etcd2"],
    about: "Serve the replicated store",
    command,
    run: run_applet,
    usage: Exit::Failure,
};

fn command() -> Command {
    let flags = FLAGS.iter().map(argument);
    let others = UNUSED.iter().map(|flag| argument(flag).hide(true));
    Command::new("etcd")
        .about("Serve the replicated store")
        .long_about(
            "Serve the replicated store to clients, together with the other members.\n\n\
             Without arguments it is a cluster of one on localhost. Every flag can be given as an \
             environment variable too: --data-dir is ETCD_DATA_DIR.",
        )
        .disable_version_flag(true)
        .arg(
            Arg::new("version")
                .long("version")
                .action(clap::ArgAction::SetTrue)
                .help("Print the version and exit"),
        )
        .args(flags)
        .args(others)
        .arg(Arg::new(WORDS).num_args(0..).hide(true))
        .after_long_help(described())
}

fn argument(flag: &'static Flag) -> Arg {
    let argument = Arg::new(flag.name).value_name("VALUE").help(flag.about);
    let mut letters = flag.name.chars();
    let argument = match (letters.next(), letters.next()) {
        (Some(letter), None) => argument.short(letter),
        _ => argument.long(flag.name),
    };
    // A Go flag without a value is true.
    let argument = argument.num_args(0..=1).default_missing_value("true");
    let argument = argument.allow_negative_numbers(true);
    if flag.default.is_empty() {
        argument
    } else {
        argument.help(format!("{} (default `{}`)", flag.about, flag.default))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the table of applets says so")]
fn run_applet(matches: ArgMatches) -> Exit {
    if matches.get_flag("version") {
        let mut output = Output::of_process();
        output.line(format_args!("etcd Version: {SERVER_VERSION}"));
        output.line(format_args!("corebox {}", env!("CARGO_PKG_VERSION")));
        return Exit::Ok;
    }
    let config = match settings(&matches) {
        Ok(config) => config,
        Err(error) => {
            Output::of_process().complain(format_args!("etcd: {}", chain(&error)));
            return Exit::Failure;
        }
    };
    daemon::log(&config.log_level);
    let connections_max = daemon::raise_connections();
    daemon::run(|stop| async move {
        match run::run(config, world(connections_max), stop).await {
            Ok(()) => Exit::Ok,
            Err(error) => {
                tracing::error!("etcd: {}", chain(&error));
                Exit::Failure
            }
        }
    })
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
enum SettingsError {
    #[error("'{word}' is not a valid flag")]
    Word { word: String },
    #[error("`etcd {word}` passes requests on to members, which is not there yet")]
    Later { word: String },
    #[error("cannot read the settings in `{path}`")]
    Read { path: String, source: std::io::Error },
    #[error("cannot use the settings in `{path}`")]
    File { path: String, source: ConfigFileError },
    #[error(transparent)]
    Config(#[from] ConfigError),
}

fn settings(matches: &ArgMatches) -> Result<Config, SettingsError> {
    if let Some(word) = matches.get_one::<String>(WORDS).cloned() {
        return Err(match word.as_str() {
            "gateway" | "grpc-proxy" => SettingsError::Later { word },
            _ => SettingsError::Word { word },
        });
    }
    let given =
        |name: &str| matches.get_one::<String>(name).cloned().or_else(|| from_environment(name));
    let Some(path) = given("config-file").filter(|path| !path.is_empty()) else {
        return Ok(Config::read(given)?);
    };
    let text = std::fs::read_to_string(&path);
    let text = text.map_err(|source| SettingsError::Read { path: path.clone(), source })?;
    let known = |name: &str| config::all().any(|flag| flag.name == name);
    let file = config_file::read(&text, known);
    let file = file.map_err(|source| SettingsError::File { path, source })?;
    Ok(Config::read(|name| file.get(name).cloned())?)
}

/// Reads a flag's environment variable.
fn from_environment(flag: &str) -> Option<String> {
    environment::variable(&format!("ETCD_{}", flag.to_uppercase().replace('-', "_")))
}

fn world(connections_max: usize) -> World {
    let (notify, writer) = (Arc::new(notify), WriterKind::Thread);
    World { seams: seams(), notify, writer, connections_max }
}

/// The real world, as far as a member of a store touches it.
pub(crate) fn seams() -> Seams {
    Seams {
        net: Arc::new(TokioNet::default()),
        disk: Arc::new(Files),
        clock: Arc::new(SystemClock),
        random: Arc::new(Random::from_system()),
    }
}

fn notify(report: Report<'_>) {
    match report {
        Report::Ready => daemon::notify_ready(),
        Report::Status(text) => daemon::notify_status(text),
    }
}
