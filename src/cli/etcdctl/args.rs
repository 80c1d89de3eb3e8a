//! Words of a command line, made short.

use clap::{Arg, ArgAction, Command};

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
