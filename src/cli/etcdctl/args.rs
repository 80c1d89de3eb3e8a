//! Words of a command line, made short.

use clap::{Arg, ArgAction, Command};

/// Begins the whole command line, of either API: `id` is that of the flag that prints `version`.
pub(super) fn root(id: &'static str, version: &'static str) -> Command {
    Command::new("etcdctl")
        .about("Read, write and watch the store's keys")
        .disable_version_flag(true)
        .version(version)
        .arg(
            Arg::new(id)
                .short('v')
                .long("version")
                .help("Print the version")
                .action(ArgAction::Version),
        )
        .subcommand_required(true)
        .arg_required_else_help(true)
        .allow_external_subcommands(true)
}

/// Makes a switch.
pub(super) fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).help(help).action(ArgAction::SetTrue)
}

/// Makes a flag that has a value.
pub(super) fn value(name: &'static str, value_name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value_name).help(help)
}

/// Makes a verb.
pub(super) fn verb(name: &'static str, about: &'static str) -> Command {
    Command::new(name).about(about)
}
