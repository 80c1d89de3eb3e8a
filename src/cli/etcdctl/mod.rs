//! `etcdctl`: the store's keys, leases and members by hand, over either of its APIs.
//!
//! ```text
//!   words ─▶ which API? ─┬─▶ v2: as typed in 2015
//!                        └─▶ v3
//! ```
//! Verbs that only the v2 API has select it. Otherwise `ETCDCTL_API` decides, and v3 where it says
//! nothing: the image's shells and units say 2.

use clap::{ArgMatches, Command};

use crate::cli::environment;
use crate::cli::multicall::Applet;
use crate::foundation::exit::Exit;

mod args;
mod program;
#[cfg(test)]
mod store;
mod v2;
mod v3;

/// The words made no sense.
const BAD_ARGUMENTS: Exit = Exit::Code(1);

/// The entry in the table of applets.
pub const APPLET: Applet = Applet {
    name: "etcdctl",
    about: "Read, write and watch the store's keys",
    command,
    run,
    usage: BAD_ARGUMENTS,
    ..Applet::PLAIN
};

/// What `get`, `watch` and `member` mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Api {
    V2,
    V3,
}

impl Api {
    fn of_environment() -> Self {
        match environment::variable("ETCDCTL_API").as_deref() {
            Some("2") => Self::V2,
            _ => Self::V3,
        }
    }

    /// Returns the API that a verb means.
    fn of_verb(self, verb: Option<&str>) -> Self {
        if verb.is_some_and(|verb| v2::words::ONLY_HERE.contains(&verb)) { Self::V2 } else { self }
    }

    /// Describes the whole command line, with the verbs of this API before those of the other.
    fn command(self) -> Command {
        match self {
            Self::V2 => v2::words::command(),
            Self::V3 => with_v2(v3::words::command()),
        }
    }
}

/// Adds what is typed without a word about the API.
fn with_v2(command: Command) -> Command {
    let only_v2 = |verb: &Command| v2::words::ONLY_HERE.contains(&verb.get_name());
    let marked = |verb: Command| {
        let about = format!("{} (v2)", verb.get_about().cloned().unwrap_or_default());
        verb.about(about)
    };
    command
        .args(
            v2::words::flags_only_here()
                .map(|flag| flag.help_heading("Options of verbs of the v2 API")),
        )
        .subcommands(v2::words::verbs().into_iter().filter(only_v2).map(marked))
        .after_help("With ETCDCTL_API=2, `get`, `watch` and `member` are those of the v2 API.")
}

fn command() -> Command {
    Api::of_environment().command()
}

#[expect(clippy::needless_pass_by_value, reason = "the table of applets gives the words away")]
fn run(matches: ArgMatches) -> Exit {
    match Api::of_environment().of_verb(matches.subcommand_name()) {
        Api::V2 => v2::run(&matches),
        Api::V3 => v3::run(&matches),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_that_only_one_api_has_need_no_word_about_it() {
        assert_eq!(Api::V3.of_verb(Some("ls")), Api::V2);
        assert_eq!(Api::V3.of_verb(Some("get")), Api::V3);
        assert_eq!(Api::V2.of_verb(Some("get")), Api::V2);
    }

    #[test]
    fn both_command_lines_hold_together() {
        Api::V2.command().debug_assert();
        Api::V3.command().debug_assert();
    }

    #[test]
    fn flags_of_2015_are_read_where_v3_is_meant() {
        let line = "etcdctl --no-sync -o json --peers http://a:1 --timeout 3s ls --recursive /a";
        let matches = Api::V3.command().try_get_matches_from(line.split(' ')).unwrap();
        assert_eq!(matches.subcommand_name(), Some("ls"));
    }
}
