//! The v2 API's verbs: the store's keys and members by hand, as of 2015.
//!
//! ```text
//!   words ─▶ job ─▶ session: sync the members, ask ─▶ render ─▶ output
//! ```
//! Exit codes are the original's: 0 well, 1 the words, 2 the connection, 4 the store's refusal,
//! 5 a cluster that is not healthy.
//!
//! **Not here yet:** TLS, users and roles, backups, changing the members.

use std::io::{self, Read as _};
use std::sync::Arc;
use std::time::Duration;

use clap::ArgMatches;

use crate::cli::environment;
use crate::cli::etcdctl::BAD_ARGUMENTS;
use crate::cli::etcdctl::v2::render::Format;
use crate::cli::etcdctl::v2::session::Session;
use crate::cli::etcdctl::v2::words::Job;
use crate::cli::output::Output;
use crate::cli::{endpoints, runtime};
use crate::foundation::exit::Exit;
use crate::platform::net::TokioNet;
use crate::rpc::client::http::HttpClient;
use crate::rpc::client::url::{Url, UrlError};

mod cluster;
mod exec;
mod render;
#[cfg(test)]
mod replay;
mod session;
pub(super) mod words;

/// Nobody could be reached.
const BAD_CONNECTION: Exit = Exit::Code(2);
/// The store refused, or answered nonsense.
const SERVER_ERROR: Exit = Exit::Code(4);
/// Not every member is healthy.
const NOT_HEALTHY: Exit = Exit::Code(5);

/// What every verb obeys.
#[derive(Debug, Clone)]
struct Settings {
    endpoints: Vec<Url>,
    format: Format,
    /// For one request to one endpoint.
    deadline: Duration,
    /// For all of it.
    total: Duration,
    asks: Asks,
    /// Whether each request is shown as a curl command.
    debug: bool,
}

/// Which endpoints are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asks {
    /// Those that the members publish.
    Published,
    /// Those that were given.
    Given,
}

impl Settings {
    fn read(matches: &ArgMatches, from_environment: Option<String>) -> Result<Self, UrlError> {
        let given = matches.get_one::<String>("endpoints").cloned().or(from_environment);
        let endpoints = endpoints::parse(given.as_deref().unwrap_or(endpoints::DEFAULT))?;
        let time = |name, otherwise: u64| {
            matches.get_one(name).copied().unwrap_or(Duration::from_secs(otherwise))
        };
        Ok(Self {
            endpoints,
            format: matches.get_one("output").copied().unwrap_or(Format::Simple),
            deadline: time("timeout", 1),
            total: time("total-timeout", 5),
            asks: if matches.get_flag("no-sync") { Asks::Given } else { Asks::Published },
            debug: matches.get_flag("debug"),
        })
    }
}

/// Does what was typed.
pub(super) fn run(matches: &ArgMatches) -> Exit {
    let mut output = Output::of_process();
    match understand(matches) {
        Ok((settings, job)) => runtime::on_this_thread(async {
            let http = HttpClient::new(Arc::new(TokioNet::default()));
            let mut session = Session::new(http, settings, output);
            tokio::select! {
                biased;
                // Whoever watches ends it by hand, which is no failure.
                _ = tokio::signal::ctrl_c() => Exit::Ok,
                exit = session.carry_out(job) => exit,
            }
        }),
        Err(why) => {
            output.complain(format_args!("Error:  {why}"));
            BAD_ARGUMENTS
        }
    }
}

fn understand(matches: &ArgMatches) -> Result<(Settings, Job), String> {
    if environment::variable("ETCDCTL_DISCOVERY_SRV").is_some() {
        let verb = "ETCDCTL_DISCOVERY_SRV".to_owned();
        return Err(words::Refusal::Later { verb }.to_string());
    }
    let job = words::job(matches, all_of_stdin).map_err(|why| why.to_string())?;
    let names = ["ETCDCTL_ENDPOINTS", "ETCDCTL_ENDPOINT", "ETCDCTL_PEERS"];
    let from_environment = endpoints::from_environment(&names);
    let settings = Settings::read(matches, from_environment).map_err(|why| why.to_string())?;
    Ok((settings, job))
}

fn all_of_stdin() -> io::Result<String> {
    let mut text = String::new();
    io::stdin().lock().read_to_string(&mut text)?;
    Ok(text)
}
