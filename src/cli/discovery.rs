//! `discovery`: a discovery service for new clusters.

use clap::{Arg, ArgMatches, Command};

use crate::agents::discovery::{self, Config};
use crate::cli::multicall::Applet;
use crate::cli::output::Output;
use crate::cli::{daemon, etcd};
use crate::foundation::exit::{Exit, chain};
use crate::platform::net::Address;

/// The entry in the table of applets.
pub const APPLET: Applet = Applet {
    name: "discovery",
    about: "Give out URLs at which new clusters find their members",
    command,
    run,
    ..Applet::PLAIN
};

fn command() -> Command {
    let option = |name, value, default: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).default_value(default).help(help)
    };
    Command::new("discovery")
        .about("Give out URLs at which new clusters find their members")
        .long_about(
            "Give out URLs at which new clusters find their members.\n\n\
             `curl 'http://HOST:8087/new?size=3'` answers with a URL for three members; give it to \
             each of them as `discovery:` of its cloud-config, or to `etcd --discovery`.",
        )
        .arg(option("addr", "HOST:PORT", "127.0.0.1:8087", "Where to listen"))
        .arg(option("data-dir", "DIR", "discovery.data", "Where the registry is kept"))
        .arg(
            Arg::new("public-url")
                .long("public-url")
                .value_name("URL")
                .help("How clusters reach this service (default `http://` and --addr)"),
        )
}

#[expect(clippy::needless_pass_by_value, reason = "the table of applets says so")]
fn run(matches: ArgMatches) -> Exit {
    let value = |name| matches.get_one::<String>(name).cloned().unwrap_or_default();
    let addr = value("addr");
    let Ok(listen) = addr.parse() else {
        Output::of_process().complain(format_args!("discovery: `--addr={addr}` is not an address and a port, such as `0.0.0.0:8087`"));
        return Exit::Usage;
    };
    let public_url =
        matches.get_one::<String>("public-url").cloned().unwrap_or_else(|| format!("http://{addr}"));
    let config = Config { listen: Address::Tcp(listen), public_url, data_dir: value("data-dir").into() };
    daemon::log("info");
    daemon::run(|stop| async move {
        let serving = |address: &Address| {
            tracing::info!(%address, "serving; `/new?size=3` makes a URL for a cluster");
            daemon::notify_ready();
        };
        match discovery::run(config, etcd::seams(), serving, stop).await {
            Ok(()) => Exit::Ok,
            Err(error) => {
                tracing::error!("discovery: {}", chain(&error));
                Exit::Failure
            }
        }
    })
}
