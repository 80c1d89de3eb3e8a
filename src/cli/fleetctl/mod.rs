//! `fleetctl`: the cluster's units by hand.
//!
//! ```text
//!   words ─▶ session ─┬─▶ content: which text a unit gets       rpc::client::fleet ─▶ fleet
//!                     ├─▶ waiting: until the cluster has done it
//!                     └─▶ columns, table ─▶ output
//! ```
//! Exit codes and messages are the original's. Ours beyond it: `--output json|yaml`, and `start`
//! says after two seconds why a unit does not run.
//!
//! **Not here yet:** status, journal, ssh and tunnels, TLS, restarting global units.

use std::sync::Arc;

use clap::ArgMatches;

use crate::cli::fleetctl::session::Session;
use crate::cli::fleetctl::words::Wish;
use crate::cli::multicall::Applet;
use crate::cli::output::Output;
use crate::cli::{environment, runtime};
use crate::foundation::exit::{Exit, chain};
use crate::platform::net::TokioNet;
use crate::rpc::client::fleet::FleetClient;
use crate::rpc::client::http::HttpClient;

mod columns;
mod content;
#[cfg(test)]
mod fake;
mod session;
mod table;
#[cfg(test)]
mod tests;
mod waiting;
mod words;

/// What `verify` ends with: it was taken away, and scripts shall see it.
const TAKEN_AWAY: Exit = Exit::Code(2);

/// The entry in the table of applets.
pub const APPLET: Applet = Applet {
    name: "fleetctl",
    about: "Submit, start and list the cluster's units",
    command: words::command,
    run,
    usage: Exit::Failure,
    ..Applet::PLAIN
};

#[expect(clippy::needless_pass_by_value, reason = "the table of applets gives the words away")]
fn run(matches: ArgMatches) -> Exit {
    let mut output = Output::of_process();
    let wish = words::wish(&matches, &environment::variable);
    runtime::on_this_thread(async {
        let http = HttpClient::new(Arc::new(TokioNet::default()));
        match wish {
            Ok(wish) => grant(wish, http, output).await,
            Err(why) => {
                output.complain(chain(&why));
                Exit::Failure
            }
        }
    })
}

async fn grant(wish: Wish, http: HttpClient, mut output: Output) -> Exit {
    match wish {
        Wish::Usage => output.text(words::command().render_help()),
        Wish::Version => output.line(concat!("fleetctl version ", env!("CARGO_PKG_VERSION"))),
        Wish::Verify => {
            output.complain("WARNING: fleet no longer signs units, so there is nothing to verify");
            return TAKEN_AWAY;
        }
        Wish::Job(settings, job) => {
            for hint in &settings.hints {
                output.complain(hint);
            }
            let client = FleetClient::new(http, settings.endpoint, settings.deadline);
            return Session::new(client, output).carry_out(job).await;
        }
    }
    Exit::Ok
}
