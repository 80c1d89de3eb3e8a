//! What may be typed after `etcdctl`.

use clap::{Arg, Command};

use crate::cli::etcdctl::args::{flag, root, value, verb};
use crate::cli::etcdctl::v3::{Failed, cluster, keys, lease, perf, txn, watch};

/// Which version of the store's API we are to clients, as `/version` says.
pub(super) const VERSION: &str = "version: 3.5.30\nAPI version: 3.5";

/// Flags of which we say that they come later.
pub(super) const FLAGS_LATER: &[&str] =
    &["cert", "key", "cacert", "user", "password", "auth-jwt-token", "discovery-srv"];

/// Verbs of which we say that they come later.
const LATER: &[&str] = &[
    "auth",
    "completion",
    "downgrade",
    "elect",
    "lock",
    "make-mirror",
    "migrate",
    "role",
    "snapshot",
    "user",
];

/// Describes the command line, without what only the v2 API has.
pub(in crate::cli::etcdctl) fn command() -> Command {
    root("print-version", VERSION)
        .args(flags())
        .subcommands(keys::verbs())
        .subcommand(txn::verb_txn())
        .subcommand(watch::verb_watch())
        .subcommand(lease::verb_lease())
        .subcommands(cluster::verbs())
        .subcommand(perf::verb_check())
        .subcommand(verb("version", "Print the version"))
}

fn flags() -> Vec<Arg> {
    let later = |name: &'static str| Arg::new(name).long(name).hide(true);
    let time = |name, help| value(name, "TIME", help);
    let mut flags = vec![
        value(
            "endpoints",
            "ADDRESSES",
            "Where the members serve, separated by commas [default: 127.0.0.1:2379]",
        )
        .aliases(["endpoint", "peers"])
        .short('C'),
        value(
            "write-out",
            "FORMAT",
            "Write answers as `simple`, `fields`, `json`, `protobuf` or `table` [default: simple]",
        )
        .short('w'),
        flag("hex", "Write the bytes of keys and values as hex"),
        time("dial-timeout", "Give each endpoint this long for a connection [default: 2s]"),
        time("command-timeout", "Give a request this long [default: 5s]"),
        time(
            "keepalive-time",
            "Ask a silent connection after this long whether it lives [default: 2s]",
        ),
        time("keepalive-timeout", "Give it this long to say so [default: 6s]"),
        value("max-request-bytes", "BYTES", "Send no longer request [default: 2097152]"),
        value("max-recv-bytes", "BYTES", "Accept no longer answer [default: 268435456]"),
        flag("debug", "Print who is asked"),
        value("insecure-transport", "BOOL", "Without TLS, which comes later")
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .hide(true),
        flag("insecure-skip-tls-verify", "Accept any certificate").hide(true),
        flag("insecure-discovery", "Accept records without TLS").hide(true),
        later("discovery-srv-name"),
    ];
    flags.extend(FLAGS_LATER.iter().map(|name| match *name {
        "discovery-srv" => later("discovery-srv").short('d').short_alias('D'),
        name => later(name),
    }));
    let of_every_verb = |flag: Arg| flag.global(true).help_heading("Options of every verb");
    flags.into_iter().map(of_every_verb).collect()
}

/// Makes a verb with verbs of its own.
pub(super) fn group(name: &'static str, about: &'static str) -> Command {
    verb(name, about)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .allow_external_subcommands(true)
}

/// Refuses what is not there yet.
pub(super) fn later(what: &str) -> Failed {
    Failed::feature(format_args!("`{what}` comes later; `etcdctl --help` names what is there"))
}

/// Refuses what nobody knows.
pub(super) fn unknown(verb: &str) -> Failed {
    Failed::error(format_args!("no verb `{verb}`; `etcdctl --help` names what is there"))
}

/// Refuses a verb that is not in the table.
pub(super) fn absent(verb: &str) -> Failed {
    if LATER.contains(&verb) { later(verb) } else { unknown(verb) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_refused_by_name() {
        let check = |verb: &str, code: u8, text: &str| {
            assert_eq!(absent(verb), Failed::new(code, text));
        };
        check("snapshot", 4, "`snapshot` comes later; `etcdctl --help` names what is there");
        check("frobnicate", 1, "no verb `frobnicate`; `etcdctl --help` names what is there");
    }
}
