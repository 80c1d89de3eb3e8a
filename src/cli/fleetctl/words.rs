//! The words of `fleetctl` and what they ask for.

use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::cli::fleetctl::columns::{
    Ids, Legend, MACHINES, MACHINES_DEFAULT, Picked, UNIT_FILES, UNIT_FILES_DEFAULT, UNITS,
    UNITS_DEFAULT, pick,
};
use crate::cli::go_flags;
use crate::cli::output::{self, Format};
use crate::rpc::client::url::{Origin, Url, UrlError};
use crate::wire::fleet::JobState;
use crate::wire::fleet::api::{Machine, Unit, UnitState};

/// Where fleet is unless somebody says otherwise.
const ENDPOINT: &str = "unix:///var/run/fleet.sock";
/// How long one request may take, in seconds.
const REQUEST_TIMEOUT: &str = "3.0";
/// How long one of the `--block-attempts` lasts.
pub(super) const ATTEMPT: Duration = Duration::from_secs(2);
/// Ports that are the store's and not fleet's.
const PORTS_OF_THE_STORE: [u16; 2] = [2379, 4001];

/// Global flags that are known and not served, with what to do instead.
const REFUSED_FLAGS: [(&str, &str); 7] = [
    ("tunnel", "run fleetctl on a machine of the cluster, or forward its socket with `ssh -L`"),
    ("cert-file", "TLS is not served; use the unix socket or http://"),
    ("key-file", "TLS is not served; use the unix socket or http://"),
    ("ca-file", "TLS is not served; use the unix socket or http://"),
    ("etcd-keyfile", "fleetctl does not speak to etcd; give fleet's own `--endpoint`"),
    ("etcd-certfile", "fleetctl does not speak to etcd; give fleet's own `--endpoint`"),
    ("etcd-cafile", "fleetctl does not speak to etcd; give fleet's own `--endpoint`"),
];
/// Global flags that only shape what is not served; they are taken and change nothing.
const IDLE_FLAGS: [&str; 5] = [
    "etcd-key-prefix",
    "ssh-username",
    "ssh-timeout",
    "strict-host-key-checking",
    "known-hosts-file",
];
/// Commands that are known and not served, with what to do instead.
const REFUSED_COMMANDS: [(&str, &str); 4] = [
    ("status", "run `systemctl status -l UNIT` on the machine that `list-units` names"),
    ("journal", "run `journalctl -u UNIT` on the machine that `list-units` names"),
    ("ssh", "use ssh to the address that `list-machines` names"),
    ("fd-forward", "forward the socket with `ssh -L`"),
];

/// What every command obeys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) endpoint: Url,
    pub(super) deadline: Duration,
    /// What to say before anything is asked.
    pub(super) hints: Vec<String>,
}

/// How long a command waits for the cluster to do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// Not at all.
    None,
    /// This long.
    AtMost(Duration),
    /// For as long as it takes.
    Endless,
}

/// Whether a unit that is stored may be replaced by a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Replace {
    /// The stored one stays.
    Never,
    /// The file wins, where the unit's state allows it.
    Allowed,
}

/// How a listing looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) legend: Legend,
    pub(super) ids: Ids,
    pub(super) format: Format,
}

/// What a command asks for.
#[derive(Debug)]
pub(super) enum Job {
    ListMachines(Picked<Machine>, Look),
    ListUnits(Picked<UnitState>, Look),
    ListUnitFiles(Picked<Unit>, Look),
    /// `submit`, `load`, `start`: store the units, and bring them to this state.
    Bring {
        units: Vec<String>,
        to: JobState,
        replace: Replace,
        patience: Patience,
    },
    /// `stop`, `unload`: take them back to this state.
    TakeBack {
        units: Vec<String>,
        to: JobState,
        patience: Patience,
    },
    Restart {
        units: Vec<String>,
        patience: Patience,
    },
    Destroy {
        units: Vec<String>,
        patience: Patience,
    },
    Cat {
        units: Vec<String>,
    },
}

/// What the words ask for.
#[derive(Debug)]
pub(super) enum Wish {
    /// The usage.
    Usage,
    /// The version.
    Version,
    /// Something of the cluster.
    Job(Settings, Job),
    /// `verify`, which fleet took away.
    Verify,
}

/// Why the words make no sense.
#[derive(Debug, thiserror::Error)]
pub(super) enum WordsError {
    #[error("{what} is not there yet; {instead}")]
    NotYet { what: String, instead: &'static str },
    #[error("cannot use the endpoint")]
    Endpoint(#[source] UrlError),
    #[error("`--request-timeout={0}` is no number of seconds such as `3.0`")]
    Timeout(String),
    #[error("`--block-attempts={0}` is no number")]
    Attempts(String),
    #[error("{0}")]
    Listing(String),
}

/// The words, with the environment behind them.
struct Words<'a> {
    matches: &'a ArgMatches,
    environment: &'a dyn Fn(&str) -> Option<String>,
}

/// Describes the command line.
pub(super) fn command() -> Command {
    let units = || Arg::new("units").value_name("UNIT").num_args(0..);
    let replace = || switch("replace").help("Replace the stored unit by the local file");
    let sign = || switch("sign").hide(true);
    let no_block = || switch("no-block").help("Do not wait for the cluster to do it");
    let attempts = || {
        let help = "Wait this many times two seconds; 0 is for ever";
        value("block-attempts").value_name("N").help(help)
    };
    let verb =
        |name: &'static str, about: &'static str| Command::new(name).about(about).arg(units());
    let waits = |command: Command| command.arg(no_block()).arg(attempts());
    let lists = |name: &'static str, about: &'static str| {
        Command::new(name)
            .about(about)
            .arg(switch("full").short('l').help("Show ids in full; of the table only"))
            .arg(switch("no-legend").help("Leave out the columns' names"))
            .arg(value("fields").value_name("FIELDS").help("Show these columns, in this order"))
            .arg(output::format_argument())
    };
    let refused = |name: &'static str| {
        let rest = Arg::new("rest").num_args(0..).trailing_var_arg(true).allow_hyphen_values(true);
        Command::new(name).hide(true).disable_help_flag(true).arg(rest)
    };
    Command::new("fleetctl")
        .about("Submit, start and list the units of the cluster")
        .infer_subcommands(true)
        .disable_version_flag(true)
        .args(globals())
        .subcommand(lists("list-machines", "List the machines of the cluster"))
        .subcommand(lists("list-units", "List what systemd says of the units, machine by machine"))
        .subcommand(lists("list-unit-files", "List the units that are stored"))
        .subcommand(verb("submit", "Store units").arg(replace()).arg(sign()))
        .subcommand(waits(verb("load", "Put units on machines").arg(replace()).arg(sign())))
        .subcommand(waits(verb("start", "Start units").arg(replace()).arg(sign())))
        .subcommand(waits(verb("stop", "Stop units; they stay on their machines")))
        .subcommand(waits(verb("unload", "Take units off their machines")))
        .subcommand(verb("restart", "Stop units, then start them").arg(attempts()))
        .subcommand(waits(verb("destroy", "Remove units from the cluster")))
        .subcommand(verb("cat", "Show a stored unit's text"))
        .subcommand(Command::new("version").about("Show the version"))
        .subcommand(refused("verify"))
        .subcommands(REFUSED_COMMANDS.map(|(name, _)| refused(name)))
}

fn globals() -> Vec<Arg> {
    let visible = [
        value("endpoint").value_name("URL").help(format!("Where fleet is [default: {ENDPOINT}]")),
        value("request-timeout").value_name("SECONDS").help("How long one request may take"),
        value("driver").value_name("NAME").help("How to ask; only `API` is served"),
        switch("debug").help("Show where it asks"),
    ];
    let hidden = REFUSED_FLAGS.iter().map(|(name, _)| *name).chain(IDLE_FLAGS);
    let version = switch("version").short('v').help("Show the version");
    visible
        .into_iter()
        .chain(hidden.map(|name| value(name).hide(true)))
        .chain([switch("experimental-api").hide(true)])
        .map(|flag| flag.global(true))
        .chain([version])
        .collect()
}

fn value(name: &'static str) -> Arg {
    Arg::new(name).long(name)
}

fn switch(name: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue)
}

/// Finds out what the words ask for. `environment` knows the variables.
pub(super) fn wish(
    matches: &ArgMatches,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Wish, WordsError> {
    let global = Words { matches, environment };
    if global.on("version") {
        return Ok(Wish::Version);
    }
    let Some((name, matches)) = matches.subcommand() else { return Ok(Wish::Usage) };
    match name {
        "version" => return Ok(Wish::Version),
        "verify" => return Ok(Wish::Verify),
        _ => {}
    }
    if let Some((_, instead)) = REFUSED_COMMANDS.iter().find(|(refused, _)| *refused == name) {
        return Err(WordsError::NotYet { what: format!("`fleetctl {name}`"), instead });
    }
    let words = Words { matches, environment };
    Ok(Wish::Job(words.settings()?, words.job(name)?))
}

impl Words<'_> {
    fn job(&self, name: &str) -> Result<Job, WordsError> {
        let units = || {
            let given = self.matches.get_many::<String>("units");
            given.unwrap_or_default().cloned().collect::<Vec<_>>()
        };
        let bring = |to, patience| {
            let replace = if self.on("replace") { Replace::Allowed } else { Replace::Never };
            Job::Bring { units: units(), to, replace, patience }
        };
        let listing = WordsError::Listing;
        Ok(match name {
            "list-machines" => {
                let fields = self.fields(MACHINES_DEFAULT);
                Job::ListMachines(pick(MACHINES, &fields).map_err(listing)?, self.look())
            }
            "list-units" => {
                let fields = self.fields(UNITS_DEFAULT);
                Job::ListUnits(pick(UNITS, &fields).map_err(listing)?, self.look())
            }
            "list-unit-files" => {
                let fields = self.fields(UNIT_FILES_DEFAULT);
                Job::ListUnitFiles(pick(UNIT_FILES, &fields).map_err(listing)?, self.look())
            }
            "submit" => bring(JobState::Inactive, Patience::None),
            "load" => bring(JobState::Loaded, self.patience()?),
            "start" => bring(JobState::Launched, self.patience()?),
            "stop" => {
                Job::TakeBack { units: units(), to: JobState::Loaded, patience: self.patience()? }
            }
            "unload" => {
                Job::TakeBack { units: units(), to: JobState::Inactive, patience: self.patience()? }
            }
            "restart" => Job::Restart { units: units(), patience: self.patience()? },
            "destroy" => Job::Destroy { units: units(), patience: self.patience()? },
            _ => Job::Cat { units: units() },
        })
    }

    fn settings(&self) -> Result<Settings, WordsError> {
        self.refuse_what_is_not_there()?;
        let endpoint = endpoint(&self.text("endpoint").unwrap_or_else(|| ENDPOINT.to_owned()))?;
        let timeout = self.text("request-timeout").unwrap_or_else(|| REQUEST_TIMEOUT.to_owned());
        let deadline = seconds(&timeout).ok_or(WordsError::Timeout(timeout))?;
        let mut hints: Vec<String> = hint(&endpoint).into_iter().collect();
        if self.on("debug") {
            hints.push(format!("DEBUG: asking fleet at {endpoint}, {deadline:?} for a request"));
        }
        if self.on("sign") {
            hints.push("WARNING: fleet no longer signs units; `--sign` does nothing".to_owned());
        }
        Ok(Settings { endpoint, deadline, hints })
    }

    fn refuse_what_is_not_there(&self) -> Result<(), WordsError> {
        if let Some(driver) = self.text("driver").filter(|name| !name.eq_ignore_ascii_case("api")) {
            let instead = "fleetctl asks fleet's API; give its `--endpoint`";
            return Err(WordsError::NotYet { what: format!("`--driver={driver}`"), instead });
        }
        let used = REFUSED_FLAGS.iter().find(|(name, _)| self.text(name).is_some());
        used.map_or(Ok(()), |(name, instead)| {
            Err(WordsError::NotYet { what: format!("`--{name}`"), instead })
        })
    }

    fn patience(&self) -> Result<Patience, WordsError> {
        if self.on("no-block") {
            return Ok(Patience::None);
        }
        let attempts = self.text("block-attempts").unwrap_or_else(|| "0".to_owned());
        match attempts.parse::<u32>() {
            Ok(0) => Ok(Patience::Endless),
            Ok(attempts) => Ok(Patience::AtMost(ATTEMPT * attempts)),
            Err(_) => Err(WordsError::Attempts(attempts)),
        }
    }

    fn look(&self) -> Look {
        let format = self.matches.get_one("output").copied().unwrap_or_default();
        let legend = if self.on("no-legend") { Legend::Hidden } else { Legend::Shown };
        let ids = if self.on("full") { Ids::Full } else { Ids::Short };
        Look { legend, ids, format }
    }

    fn fields(&self, otherwise: &str) -> String {
        self.text("fields").unwrap_or_else(|| otherwise.to_owned())
    }

    fn text(&self, name: &str) -> Option<String> {
        let given = self.matches.try_get_one::<String>(name).ok().flatten().cloned();
        given.or_else(|| (self.environment)(&variable(name)))
    }

    fn on(&self, name: &str) -> bool {
        let given = self.matches.try_get_one::<bool>(name).ok().flatten();
        match given {
            None => false,
            Some(true) => true,
            Some(false) => {
                let words = ["1", "t", "T", "true", "TRUE", "True"];
                (self.environment)(&variable(name)).is_some_and(|it| words.contains(&it.as_str()))
            }
        }
    }
}

fn variable(flag: &str) -> String {
    format!("FLEETCTL_{}", flag.to_uppercase().replace('-', "_"))
}

/// Reads the first of a list of endpoints.
fn endpoint(list: &str) -> Result<Url, WordsError> {
    let first = list.split(',').next().unwrap_or_default().trim();
    let spelled = match first.strip_prefix("file://") {
        Some(path) => format!("unix://{path}"),
        None if first.contains("://") => first.to_owned(),
        None => format!("http://{first}"),
    };
    spelled.parse().map_err(WordsError::Endpoint)
}

/// Says what looks wrong about an endpoint.
fn hint(endpoint: &Url) -> Option<String> {
    match endpoint.origin {
        Origin::Tcp { port, .. } if PORTS_OF_THE_STORE.contains(&port) => Some(format!(
            "HINT: {endpoint} looks like etcd; fleetctl asks fleet, by default at {ENDPOINT}"
        )),
        Origin::Tcp { .. } | Origin::Unix(_) => None,
    }
}

/// Reads a number of seconds, or a time as Go writes it.
fn seconds(text: &str) -> Option<Duration> {
    let plain = text.parse::<f64>().ok().and_then(|secs| Duration::try_from_secs_f64(secs).ok());
    plain.or_else(|| go_flags::duration(text).ok()).filter(|time| !time.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::foundation::exit::chain;

    fn understood(typed: &str, environment: &[(&str, &str)]) -> Result<Wish, String> {
        let args: Vec<_> =
            std::iter::once("fleetctl").chain(typed.split_whitespace()).map(Into::into).collect();
        let args = go_flags::rewrite(&command(), &args);
        let matches = command().try_get_matches_from(args).map_err(|error| error.to_string())?;
        let variable = |name: &str| {
            let found = environment.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        wish(&matches, &variable).map_err(|error| chain(&error))
    }

    fn job(typed: &str) -> String {
        match understood(typed, &[]).unwrap() {
            Wish::Job(_, job) => format!("{job:?}"),
            other @ (Wish::Usage | Wish::Version | Wish::Verify) => format!("{other:?}"),
        }
    }

    fn settings(typed: &str, environment: &[(&str, &str)]) -> Settings {
        match understood(typed, environment).unwrap() {
            Wish::Job(settings, _) => settings,
            other @ (Wish::Usage | Wish::Version | Wish::Verify) => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_command_may_be_cut_short_as_long_as_it_is_the_only_one() {
        assert!(job("list-m").starts_with("ListMachines"));
        assert!(job("des a").starts_with("Destroy"));
        assert!(understood("st a", &[]).is_err());
    }

    #[test]
    fn without_words_there_is_the_usage() {
        assert_eq!(job(""), "Usage");
        for words in ["version", "--version", "-v", "-version"] {
            assert_eq!(job(words), "Version", "{words}");
        }
        assert_eq!(job("verify a.service"), "Verify");
    }

    #[test]
    fn commands_know_how_long_to_wait() {
        for (typed, patience) in [
            ("start a", "Endless"),
            ("start --block-attempts=20 a", "AtMost(40s)"),
            ("start a -block-attempts 0", "Endless"),
            ("start --no-block a", "None"),
            ("submit a", "None"),
        ] {
            assert!(
                job(typed).contains(&format!("patience: {patience} ")),
                "{typed}: {}",
                job(typed)
            );
        }
        let refused = understood("start --block-attempts=x a", &[]).unwrap_err();
        assert_eq!(refused, "`--block-attempts=x` is no number");
        let Wish::Job(_, waits) =
            understood("start a", &[("FLEETCTL_BLOCK_ATTEMPTS", "1")]).unwrap()
        else {
            panic!("a job")
        };
        assert!(format!("{waits:?}").contains("AtMost(2s)"));
    }

    #[test]
    fn the_endpoint_comes_from_the_flag_the_environment_or_the_default() {
        let shown =
            |typed: &str, environment: &[_]| settings(typed, environment).endpoint.to_string();
        let variable = [("FLEETCTL_ENDPOINT", "http://b:80,http://c")];
        assert_eq!(shown("cat a", &[]), ENDPOINT);
        assert_eq!(shown("cat a", &variable), "http://b");
        assert_eq!(shown("--endpoint a:8080 cat a", &variable), "http://a:8080");
        assert_eq!(shown("cat a --endpoint=file:///run/a", &[]), "unix:///run/a");
        assert_eq!(settings("--request-timeout=0.5 cat a", &[]).deadline.as_millis(), 500);
        assert!(understood("--endpoint=unix://host/run/a cat a", &[]).is_err());
    }

    #[test]
    fn an_endpoint_that_looks_like_etcd_gets_a_hint() {
        for (endpoint, hints) in [("http://a:4001", 1), ("http://a:2379", 1), ("http://a:49153", 0)]
        {
            let typed = format!("--endpoint={endpoint} list-units");
            assert_eq!(settings(&typed, &[]).hints.len(), hints, "{endpoint}");
        }
    }

    #[test]
    fn what_is_not_there_is_refused_by_name() {
        for (typed, begins) in [
            ("--tunnel=a list-units", "`--tunnel` is not there yet"),
            ("--driver=etcd list-units", "`--driver=etcd` is not there yet"),
            ("--cert-file=a list-units", "`--cert-file` is not there yet"),
            ("status a.service", "`fleetctl status` is not there yet"),
            ("journal -f --lines=3 a.service", "`fleetctl journal` is not there yet"),
            ("ssh -A abc ls -l", "`fleetctl ssh` is not there yet"),
            ("--request-timeout=x list-units", "`--request-timeout=x` is no number"),
            ("list-units --fields=foo", "Invalid key in output format: \"foo\""),
            (
                "--endpoint=https://a list-units",
                "cannot use the endpoint: `https://a` asks for TLS",
            ),
        ] {
            let refused = understood(typed, &[]).unwrap_err();
            assert!(refused.starts_with(begins), "{typed}: {refused}");
        }
    }

    #[test]
    fn flags_of_an_ssh_that_is_not_there_change_nothing() {
        let typed = "--ssh-username=core --strict-host-key-checking=false list-units";
        assert_eq!(settings(typed, &[]), settings("list-units", &[]));
    }
}
