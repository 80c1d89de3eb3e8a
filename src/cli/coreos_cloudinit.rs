//! `coreos-cloudinit`: provisions the machine from its user-data, at every boot.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::agents::provision::run::{self, Options, Outcome};
use crate::agents::provision::sources::Source;
use crate::agents::provision::{Machine, Root};
use crate::cli::multicall::Applet;
use crate::foundation::exit::{Exit, chain};
use crate::foundation::journal::{self, Reader};
use crate::foundation::limits::STOP_GRACE;
use crate::foundation::random::Random;
use crate::foundation::tasks::Tasks;
use crate::platform::host::linux::Linux;
use crate::platform::net::tokio_net::TokioNet;
use crate::platform::systemd::dbus::DbusSystemd;
use crate::rpc::client::http::HttpClient;
use crate::wire::cloud_config::substitute::Addresses;

/// The applet's row.
pub const APPLET: Applet = Applet {
    name: "coreos-cloudinit",
    about: "Provision this machine from its user-data",
    command,
    run: main,
    usage: Exit::Code(2),
    ..Applet::PLAIN
};

/// What the original exits with when it cannot begin.
const REFUSED: Exit = Exit::Code(2);

/// Sources that have no reader yet: their flags, and whether they take a value.
const NOT_YET: &[(&str, bool)] = &[
    ("from-waagent", true),
    ("from-ec2-metadata", true),
    ("from-gce-metadata", true),
    ("from-digitalocean-metadata", true),
    ("from-packet-metadata", true),
    ("from-cloudsigma-metadata", false),
    ("from-vmware-guestinfo", false),
    ("from-vmware-ovf-env", true),
    ("from-metadata-service", false),
];

/// A preset: what it stands for, and which of it has no reader yet.
struct Preset {
    name: &'static str,
    config_drive: Option<&'static str>,
    not_yet: &'static [&'static str],
}

const CONFIG_DRIVE: &str = "/media/configdrive";

const PRESETS: &[Preset] = &[
    preset("digitalocean", None, &["from-digitalocean-metadata"]),
    preset("ec2-compat", Some(CONFIG_DRIVE), &["from-ec2-metadata"]),
    preset("gce", None, &["from-gce-metadata"]),
    preset("rackspace-onmetal", Some(CONFIG_DRIVE), &["convert-netconf"]),
    preset("azure", None, &["from-waagent"]),
    preset("cloudsigma", None, &["from-cloudsigma-metadata"]),
    preset("packet", None, &["from-packet-metadata"]),
    preset("vmware", None, &["from-vmware-guestinfo", "convert-netconf"]),
];

const fn preset(
    name: &'static str,
    config_drive: Option<&'static str>,
    not_yet: &'static [&'static str],
) -> Preset {
    Preset { name, config_drive, not_yet }
}

/// The words make no sense.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("`-{flag}` is not there yet; use {INSTEAD}")]
    NotYet { flag: &'static str },
    #[error("`-oem {name}` needs `-{flag}`, which is not there yet; use {INSTEAD}")]
    PresetNotYet { name: &'static str, flag: &'static str },
    #[error("no OEM is named `{name}`; there are {}", preset_names())]
    NoPreset { name: String },
    #[error("`{name}` is no kind of network data; there are debian, packet, vmware")]
    NoNetconf { name: String },
    #[error("`-convert-netconf` is not there yet; write `.network` units in the cloud-config")]
    NetconfNotYet,
    #[error("no source is given; use {INSTEAD}")]
    NoSource,
}

const INSTEAD: &str =
    "`-from-file`, `-from-url`, `-from-configdrive`, `-from-proc-cmdline` or `-oem`";

fn preset_names() -> String {
    PRESETS.iter().map(|preset| preset.name).collect::<Vec<_>>().join(", ")
}

/// What to do.
#[derive(Debug)]
struct Request {
    options: Options,
    validate: bool,
    ignore_failure: bool,
    /// Flags of a preset that were left out.
    left_out: Vec<&'static str>,
}

fn command() -> Command {
    let value = |name: &'static str, word: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(word).help(help)
    };
    let switch = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
    };
    let several = |arg: Arg| arg.action(ArgAction::Append);
    let not_yet = NOT_YET.iter().map(|(name, valued)| {
        let arg =
            if *valued { value(name, "X", "Not there yet") } else { switch(name, "Not there yet") };
        arg.hide(true)
    });
    Command::new("coreos-cloudinit")
        .about(APPLET.about)
        .version(env!("CARGO_PKG_VERSION"))
        // As in Go, of a flag given twice the last one counts.
        .args_override_self(true)
        .arg(several(value("from-file", "PATH", "Read user-data from a file")))
        .arg(several(value("from-url", "URL", "Fetch user-data over HTTP")))
        .arg(several(value("from-configdrive", "DIR", "Read a mounted config drive")))
        .arg(switch("from-proc-cmdline", "Fetch what `cloud-config-url=` of the kernel names"))
        .args(not_yet)
        .arg(value("oem", "NAME", "Use the sources of a cloud"))
        .arg(value("convert-netconf", "KIND", "Not there yet").hide(true))
        .arg(
            value("workspace", "DIR", "Keep scripts here")
                .default_value("/var/lib/coreos-cloudinit"),
        )
        .arg(
            value("ssh-key-name", "NAME", "Name the set of keys that user-data gives")
                .default_value("coreos-cloudinit"),
        )
        .arg(switch("validate", "Say what is wrong with user-data and apply nothing"))
        .arg(switch("ignore-failure", "Exit with 0 although user-data is malformed"))
}

fn main(matches: ArgMatches) -> Exit {
    let err = &mut io::stderr();
    let request = match request(&matches) {
        Ok(request) => request,
        Err(refusal) => {
            writeln!(err, "coreos-cloudinit: {refusal}").ok();
            return REFUSED;
        }
    };
    drop(matches);
    let unit = std::env::var_os("JOURNAL_STREAM").is_some();
    journal::start("info", if unit { Reader::Journal } else { Reader::Person });
    for flag in &request.left_out {
        tracing::warn!("`-{flag}` of the preset is not there yet and is left out");
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            writeln!(err, "coreos-cloudinit: cannot start: {error}").ok();
            return Exit::Failure;
        }
    };
    runtime.block_on(provision(&request, unit))
}

async fn provision(request: &Request, unit: bool) -> Exit {
    let tasks = Tasks::default();
    let machine = Machine {
        host: Arc::new(Linux::default()),
        systemd: Arc::new(DbusSystemd::system(&tasks)),
        fetch: Arc::new(HttpClient::new(Arc::new(TokioNet::default()))),
        root: Root::new("/"),
        random: Arc::new(Random::from_system()),
    };
    let exit = if request.validate {
        validate(request, &machine, &mut io::stderr()).await
    } else {
        let mut console = console(unit);
        outcome(request, run::run(&request.options, &machine, &mut *console).await)
    };
    if let Err(error) = tasks.drain(STOP_GRACE).await {
        tracing::warn!("{error}");
    }
    exit
}

async fn validate(request: &Request, machine: &Machine, err: &mut impl Write) -> Exit {
    let findings = match run::look(&request.options, machine).await {
        Ok(findings) => findings,
        Err(error) => vec![chain(&error)],
    };
    for finding in &findings {
        writeln!(err, "{finding}").ok();
    }
    if findings.is_empty() { Exit::Ok } else { Exit::Failure }
}

fn outcome(request: &Request, ended: Result<Outcome, run::RunError>) -> Exit {
    match ended {
        Err(error) => {
            tracing::error!("{}", chain(&error));
            Exit::Failure
        }
        Ok(Outcome::Ignition) => Exit::Ok,
        Ok(Outcome::Applied { refused, failures }) => {
            let malformed = refused.is_some() && !request.ignore_failure;
            if malformed || !failures.is_empty() { Exit::Failure } else { Exit::Ok }
        }
    }
}

/// A person reads stderr; at boot, whoever stands before the machine reads its console too.
fn console(unit: bool) -> Box<dyn Write + Send> {
    let opened = unit.then(|| OpenOptions::new().write(true).open("/dev/console").ok()).flatten();
    opened.map_or_else(|| Box::new(io::sink()) as Box<dyn Write + Send>, |file| Box::new(file))
}

fn request(matches: &ArgMatches) -> Result<Request, Refusal> {
    for (flag, _) in NOT_YET {
        if matches.value_source(flag) == Some(clap::parser::ValueSource::CommandLine) {
            return Err(Refusal::NotYet { flag });
        }
    }
    if let Some(name) = matches.get_one::<String>("convert-netconf") {
        return Err(match name.as_str() {
            "debian" | "packet" | "vmware" => Refusal::NetconfNotYet,
            _ => Refusal::NoNetconf { name: name.clone() },
        });
    }
    let mut sources = given_sources(matches);
    let left_out = match matches.get_one::<String>("oem") {
        Some(name) => expand(name, &mut sources)?,
        None => Vec::new(),
    };
    if sources.is_empty() {
        return Err(Refusal::NoSource);
    }
    let text = |name: &str| matches.get_one::<String>(name).cloned().unwrap_or_default();
    let options = Options {
        sources,
        environment: environment(),
        workspace: PathBuf::from(text("workspace")),
        ssh_key_name: text("ssh-key-name"),
    };
    let (validate, ignore_failure) =
        (matches.get_flag("validate"), matches.get_flag("ignore-failure"));
    Ok(Request { options, validate, ignore_failure, left_out })
}

fn given_sources(matches: &ArgMatches) -> Vec<Source> {
    let all = |name: &str| {
        matches.get_many::<String>(name).into_iter().flatten().cloned().collect::<Vec<_>>()
    };
    let files = all("from-file").into_iter().map(|path| Source::File(path.into()));
    let drives = all("from-configdrive").into_iter().map(|path| Source::ConfigDrive(path.into()));
    let urls = all("from-url").into_iter().map(Source::Url);
    let kernel = matches.get_flag("from-proc-cmdline").then_some(Source::KernelCommandLine);
    files.chain(drives).chain(urls).chain(kernel).collect()
}

/// Adds the sources of a preset that can be read, and returns what was left out.
fn expand(name: &str, sources: &mut Vec<Source>) -> Result<Vec<&'static str>, Refusal> {
    let Some(preset) = PRESETS.iter().find(|preset| preset.name == name) else {
        return Err(Refusal::NoPreset { name: name.to_owned() });
    };
    sources.extend(preset.config_drive.map(|path| Source::ConfigDrive(path.into())));
    match preset.not_yet.first() {
        Some(flag) if preset.config_drive.is_none() => {
            Err(Refusal::PresetNotYet { name: preset.name, flag })
        }
        Some(_) | None => Ok(preset.not_yet.to_vec()),
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the command line's shell")]
fn environment() -> Addresses {
    let of = |name: &str| std::env::var(name).unwrap_or_default();
    Addresses {
        private_ipv4: of("COREOS_PRIVATE_IPV4"),
        private_ipv6: of("COREOS_PRIVATE_IPV6"),
        public_ipv4: of("COREOS_PUBLIC_IPV4"),
        public_ipv6: of("COREOS_PUBLIC_IPV6"),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::cli::go_flags;

    fn asked(args: &[&str]) -> Result<Request, Refusal> {
        let args: Vec<_> = ["coreos-cloudinit"].iter().chain(args).map(OsString::from).collect();
        let matches = command().try_get_matches_from(go_flags::rewrite(&command(), &args)).unwrap();
        request(&matches)
    }

    fn sources(args: &[&str]) -> Vec<String> {
        asked(args).unwrap().options.sources.iter().map(Source::to_string).collect()
    }

    #[test]
    fn several_sources_can_be_given() {
        assert_eq!(
            sources(&[
                "-from-url",
                "http://a/",
                "--from-file=/b",
                "-from-proc-cmdline",
                "-from-configdrive",
                "/c",
                "-from-file",
                "/d",
            ]),
            [
                "file `/b`",
                "file `/d`",
                "config drive `/c`",
                "url `http://a/`",
                "the kernel's command line",
            ]
        );
    }

    #[test]
    fn the_original_defaults_hold() {
        let request = asked(&["-from-file=/a"]).unwrap();
        assert_eq!(request.options.workspace, PathBuf::from("/var/lib/coreos-cloudinit"));
        assert_eq!(request.options.ssh_key_name, "coreos-cloudinit");
        assert!(!request.validate && !request.ignore_failure);
        let args = ["-from-file=/a", "-validate", "-ignore-failure=true", "-validate"];
        let request = asked(&args).unwrap();
        assert!(request.validate && request.ignore_failure);
    }

    #[test]
    fn a_source_without_a_reader_is_refused_by_name() {
        for (flag, valued) in NOT_YET {
            let flag_with = format!("-{flag}{}", if *valued { "=x" } else { "" });
            let refused = asked(&[&flag_with, "-from-file=/a"]).unwrap_err().to_string();
            assert!(refused.starts_with(&format!("`-{flag}` is not there yet; ")), "{refused}");
        }
    }

    #[test]
    fn a_preset_expands_as_far_as_its_sources_can_be_read() {
        for name in ["ec2-compat", "rackspace-onmetal"] {
            assert_eq!(sources(&["-oem", name]), ["config drive `/media/configdrive`"]);
            assert_eq!(asked(&["-oem", name]).unwrap().left_out.len(), 1);
        }
        let refused = asked(&["-oem", "gce"]).unwrap_err().to_string();
        assert!(refused.starts_with("`-oem gce` needs `-from-gce-metadata`, "), "{refused}");
    }

    #[test]
    fn words_that_make_no_sense_are_refused() {
        for (args, expected) in [
            (&[][..], "no source is given; "),
            (&["-oem", "acme"], "no OEM is named `acme`; there are digitalocean, ec2-compat, "),
            (&["-from-file=/a", "-convert-netconf", "x"], "`x` is no kind of network data; "),
            (&["-from-file=/a", "-convert-netconf=debian"], "`-convert-netconf` is not there yet"),
        ] {
            let refused = asked(args).unwrap_err().to_string();
            assert!(refused.starts_with(expected), "{refused}");
        }
    }

    #[test]
    fn the_exit_code_says_how_it_ended() {
        let strict = asked(&["-from-file=/a"]).unwrap();
        let lenient = asked(&["-from-file=/a", "-ignore-failure"]).unwrap();
        let refused = || {
            let error = crate::wire::cloud_config::user_data::Unrecognized::Other;
            Ok(Outcome::Applied { refused: Some(error.into()), failures: Vec::new() })
        };
        let failed = || {
            let failure = crate::agents::provision::apply::ApplyError::NoPath;
            Ok(Outcome::Applied { refused: None, failures: vec![failure] })
        };
        let applied = || Ok(Outcome::Applied { refused: None, failures: Vec::new() });
        assert_eq!(outcome(&strict, applied()), Exit::Ok);
        assert_eq!(outcome(&strict, Ok(Outcome::Ignition)), Exit::Ok);
        assert_eq!(outcome(&strict, refused()), Exit::Failure);
        assert_eq!(outcome(&lenient, refused()), Exit::Ok);
        assert_eq!(outcome(&lenient, failed()), Exit::Failure);
    }
}
