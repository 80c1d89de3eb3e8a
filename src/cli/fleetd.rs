//! `fleetd`: this machine's part of a cluster that runs systemd units.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Arg, ArgAction, ArgMatches, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::agents::fleet::config::{self, Config, ConfigError};
use crate::agents::fleet::run::{self, FLEET_VERSION, Order, World};
use crate::cli::multicall::Applet;
use crate::cli::output::Output;
use crate::cli::{daemon, environment};
use crate::foundation::exit::{Exit, chain};
use crate::foundation::tasks::Tasks;
use crate::platform::host::{Host as _, Linux};
use crate::platform::net::{Address, Incoming, Net, TokioNet};
use crate::platform::systemd::dbus::Dial;
use crate::platform::systemd::{DbusSystemd, Systemd};
use crate::rpc::client::http::HttpClient;
use crate::rpc::client::keys::Keys;
use crate::rpc::client::keys_http::KeysClient;
use crate::wire::fleet::api::SOCKET;

/// The entry in the table of applets.
pub const APPLET: Applet = Applet {
    name: NAME,
    about: "Run this machine's share of the cluster's units",
    command,
    run: run_applet,
    usage: Exit::Failure,
    ..Applet::PLAIN
};

const NAME: &str = "fleetd";

/// Orders that wait for the daemon.
const ORDERS_MAX: usize = 8;

fn command() -> Command {
    Command::new(NAME)
        .about("Run this machine's share of the cluster's units")
        .long_about(
            "Run this machine's share of the cluster's units, and take part in deciding which \
             machine runs which.\n\n\
             Settings are in /etc/fleet/fleet.conf, one `key=value` a line; each can be given as \
             an environment variable too: agent_ttl is FLEET_AGENT_TTL. SIGHUP reads them again, \
             SIGUSR1 prints what is known as JSON, SIGTERM unloads every unit and leaves the \
             cluster.",
        )
        .disable_version_flag(true)
        .arg(Arg::new("config").long("config").value_name("FILE").help("Read settings from FILE"))
        .arg(
            Arg::new("version")
                .long("version")
                .action(ArgAction::SetTrue)
                .help("Print the version and exit"),
        )
        .arg(Arg::new("word").hide(true).value_parser(["version"]))
}

/// The daemon cannot start.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("cannot read `{}`", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("cannot listen at {at}")]
    Listen { at: String, source: io::Error },
    #[error("this machine has no id; `systemd-machine-id-setup` makes one")]
    MachineId { source: io::Error },
}

#[expect(clippy::needless_pass_by_value, reason = "the table of applets says so")]
fn run_applet(matches: ArgMatches) -> Exit {
    if matches.get_flag("version") || matches.contains_id("word") {
        Output::of_process().line(format_args!("{NAME} version {FLEET_VERSION}"));
        return Exit::Ok;
    }
    let file = matches.get_one::<String>("config").map(PathBuf::from);
    let config = match load(file.as_deref()) {
        Ok((config, _)) => config,
        Err(error) => {
            Output::of_process().complain(format_args!("{NAME}: {}", chain(&error)));
            return Exit::Failure;
        }
    };
    daemon::log(match config.verbosity {
        0 => "info",
        1 => "info,corebox=debug",
        _ => "info,corebox=trace",
    });
    daemon::run(|stop| async move {
        match serve(config, file, stop).await {
            Ok(()) => Exit::Ok,
            Err(error) => {
                tracing::error!("{NAME}: {}", chain(&error));
                Exit::Failure
            }
        }
    })
}

/// Reads the settings. The default file may be missing, one that was asked for may not.
fn load(file: Option<&Path>) -> Result<(Config, Vec<String>), StartError> {
    let path = file.unwrap_or(Path::new(config::FILE));
    let text = match std::fs::read_to_string(path) {
        Err(error) if file.is_none() && error.kind() == io::ErrorKind::NotFound => None,
        Err(source) => return Err(StartError::File { path: path.to_owned(), source }),
        Ok(text) => Some(text),
    };
    let name = path.display().to_string();
    let variables: BTreeMap<String, String> = config::variables()
        .filter_map(|name| environment::variable(&name).map(|value| (name, value)))
        .collect();
    Ok(config::read(text.as_deref().map(|text| (name.as_str(), text)), &variables)?)
}

async fn serve(
    config: Config,
    file: Option<PathBuf>,
    stop: CancellationToken,
) -> Result<(), StartError> {
    if let Ok((_, warnings)) = load(file.as_deref()) {
        warn(&warnings);
    }
    let net: Arc<dyn Net> = Arc::new(TokioNet::with_inherited(inherited()));
    let incoming = listen(net.as_ref()).await?;
    let tasks = Tasks::default();
    let machine_id =
        Linux::default().machine_id().map_err(|source| StartError::MachineId { source })?;
    let world = World {
        keys: Box::new(move |config: &Config| keys(&net, config)),
        systemd: systemd(&config, &tasks),
        machine_id,
        address: address().map(|address| address.to_string()).unwrap_or_default(),
    };
    daemon::notify_ready();
    let (orders, taken) = mpsc::channel(ORDERS_MAX);
    tokio::select! {
        biased;
        () = run::run(config, world, incoming, taken, tasks) => {}
        () = give_orders(orders, file, stop) => {}
    }
    Ok(())
}

fn warn(warnings: &[String]) {
    for warning in warnings {
        tracing::warn!("{warning}");
    }
}

fn keys(net: &Arc<dyn Net>, config: &Config) -> Arc<dyn Keys> {
    let endpoints = config.etcd_servers.iter().filter_map(|server| server.parse().ok()).collect();
    let http = HttpClient::new(net.clone());
    Arc::new(KeysClient::new(http, endpoints).with_deadline(config.request_timeout))
}

fn systemd(config: &Config, tasks: &Tasks) -> Arc<dyn Systemd> {
    if config.systemd_user {
        let dial: Dial = Box::new(|| Box::pin(zbus::Connection::session()));
        return Arc::new(DbusSystemd::dialing(tasks, dial));
    }
    Arc::new(DbusSystemd::system(tasks))
}

/// Returns how many sockets the service manager handed to this very process.
fn inherited() -> i32 {
    let number = |name| environment::variable(name).and_then(|value| value.parse::<i64>().ok());
    let ours = number("LISTEN_PID") == Some(i64::from(std::process::id()));
    let count = if ours { number("LISTEN_FDS").unwrap_or(0) } else { 0 };
    i32::try_from(count).unwrap_or(0).max(0)
}

/// Takes the sockets of the service manager, or the default one where there are none.
async fn listen(net: &dyn Net) -> Result<Vec<Box<dyn Incoming>>, StartError> {
    let handed = net
        .inherited()
        .map_err(|source| StartError::Listen { at: "the inherited sockets".to_owned(), source })?;
    if !handed.is_empty() {
        return Ok(handed);
    }
    let bound = net.bind(&Address::Unix(SOCKET.into())).await;
    let bound = bound.map_err(|source| StartError::Listen { at: SOCKET.to_owned(), source })?;
    Ok(vec![bound])
}

/// Returns the address that the default route leaves from. No packet is sent.
fn address() -> io::Result<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // An address of documentation: any that only the default route can lead to would do.
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
    Ok(socket.local_addr()?.ip())
}

/// Turns signals into orders, until the daemon no longer takes any.
async fn give_orders(orders: mpsc::Sender<Order>, file: Option<PathBuf>, stop: CancellationToken) {
    let signals = (signal(SignalKind::hangup()), signal(SignalKind::user_defined1()));
    let (Ok(mut hangup), Ok(mut dump)) = signals else {
        tracing::error!("cannot listen for signals");
        return;
    };
    loop {
        let order = tokio::select! {
            biased;
            () = stop.cancelled() => Some(Order::Stop),
            _ = hangup.recv() => reload(file.as_deref()),
            _ = dump.recv() => {
                print_dump(&orders).await;
                None
            }
        };
        let stopping = matches!(order, Some(Order::Stop));
        if let Some(order) = order
            && orders.send(order).await.is_err()
        {
            return;
        }
        if stopping {
            // The daemon ends by itself once everything is unloaded.
            return std::future::pending().await;
        }
    }
}

/// Reads the settings again; bad ones change nothing.
fn reload(file: Option<&Path>) -> Option<Order> {
    match load(file) {
        Ok((config, warnings)) => {
            warn(&warnings);
            Some(Order::Reload(Box::new(config)))
        }
        Err(error) => {
            tracing::error!(why = %chain(&error), "the new settings are not used");
            None
        }
    }
}

async fn print_dump(orders: &mpsc::Sender<Order>) {
    let (answer, dumped) = oneshot::channel();
    if orders.send(Order::Dump(answer)).await.is_ok()
        && let Ok(text) = dumped.await
    {
        Output::of_process().line(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_word_version_may_follow() {
        assert!(command().try_get_matches_from([NAME, "version"]).is_ok());
        assert!(command().try_get_matches_from([NAME, "start"]).is_err());
    }

    #[test]
    fn a_file_that_was_asked_for_must_be_there() {
        let missing = Path::new("/nonexistent/fleet.conf");
        let refused = load(Some(missing)).unwrap_err();
        assert_eq!(refused.to_string(), "cannot read `/nonexistent/fleet.conf`");
    }
}
