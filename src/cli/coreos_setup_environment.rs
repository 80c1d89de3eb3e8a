//! `coreos-setup-environment`: writes this machine's addresses to `/etc/environment`.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use clap::{CommandFactory as _, FromArgMatches as _, Parser};

use crate::agents::environment::{self, OEM_FILE, Settings};
use crate::cli::multicall::Applet;
use crate::foundation::exit::{Exit, chain};
use crate::foundation::journal;
use crate::platform::netlink::Rtnetlink;

/// The applet.
pub const APPLET: Applet = Applet {
    name: NAME,
    about: "Write this machine's addresses to /etc/environment",
    command: Cli::command,
    run,
    ..Applet::PLAIN
};

const NAME: &str = "coreos-setup-environment";

/// Write this machine's addresses to /etc/environment
///
/// Waits for an address on the interface that `/usr/share/oem/network.conf` names
/// (`private-interface=`, `public-interface=`), else on that of the default route, else on the
/// only physical one.
#[derive(Debug, Parser)]
#[command(name = NAME)]
struct Cli {
    /// The file to keep `COREOS_PRIVATE_IPV4` and its like in
    #[arg(value_name = "FILE", default_value = "/etc/environment")]
    file: PathBuf,

    /// The file that names interfaces; it need not be there
    #[arg(long, value_name = "FILE", default_value = OEM_FILE)]
    oem: PathBuf,

    /// Seconds to wait for an address
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    wait: u32,
}

#[expect(clippy::needless_pass_by_value, reason = "the applet table wants it so")]
fn run(matches: clap::ArgMatches) -> Exit {
    match Cli::from_arg_matches(&matches) {
        Ok(cli) => act(cli),
        Err(refusal) => {
            refusal.print().ok();
            Exit::Usage
        }
    }
}

fn act(cli: Cli) -> Exit {
    journal::start("info", journal::Reader::Journal);
    let wait = Duration::from_secs(cli.wait.into());
    let settings = Settings { oem: cli.oem, environment: cli.file, wait };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(environment::run(&Rtnetlink, &settings)),
        Err(error) => Err(environment::EnvironmentError::Network(error)),
    };
    match done {
        Ok(_) => Exit::Ok,
        Err(error) => {
            writeln!(io::stderr(), "{NAME}: {}", chain(&error)).ok();
            Exit::Failure
        }
    }
}
