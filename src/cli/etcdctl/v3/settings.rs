//! What every verb obeys: flags, else `ETCDCTL_…` in the environment, else the original's defaults.

use std::time::Duration;

use clap::ArgMatches;

use crate::cli::etcdctl::v3::show::{Format, Show};
use crate::cli::etcdctl::v3::{Failed, Step, words};
use crate::cli::{endpoints, environment, go_flags};
use crate::rpc::client::url::Url;
use crate::rpc::client::v3::Settings as ClientSettings;

/// Where the store is unless somebody says otherwise.
const DEFAULT: &str = "127.0.0.1:2379";

/// A member's address, and how it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    name: String,
    /// Where it serves.
    pub(super) url: Url,
}

impl Endpoint {
    /// Reads one.
    pub(super) fn parse(name: &str) -> Step<Self> {
        let mut urls = endpoints::parse(name).map_err(Failed::arguments)?;
        let url = urls.pop().ok_or_else(|| Failed::arguments("an endpoint is empty"))?;
        Ok(Self { name: name.to_owned(), url })
    }

    /// How it was written.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

/// What every verb obeys.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    /// Whom to ask.
    pub(super) endpoints: Vec<Endpoint>,
    /// How answers are written.
    pub(super) show: Show,
    /// Whether one sees who is asked.
    pub(super) debug: bool,
    /// What a client obeys.
    pub(super) client: ClientSettings,
}

impl Settings {
    /// Reads them, with the process's environment.
    pub(super) fn read(matches: &ArgMatches) -> Step<Self> {
        Self::read_with(matches, environment::variable)
    }

    /// Reads them, with this environment.
    pub(super) fn read_with(
        matches: &ArgMatches,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Step<Self> {
        let text = |name: &str| {
            let typed = matches.get_one::<String>(name).cloned();
            typed.or_else(|| variable(&variable_of(name)))
        };
        let on = |name: &str| {
            matches.get_flag(name) || variable(&variable_of(name)).as_deref() == Some("true")
        };
        let time = |name: &str, usual: Duration| match text(name) {
            None => Ok(usual),
            Some(text) => go_flags::duration(&text)
                .map_err(|why| Failed::arguments(format_args!("--{name}: {why}"))),
        };
        let bytes = |name: &str, usual: usize| match text(name) {
            None => Ok(usual),
            Some(text) => text.parse().map_err(|_| {
                Failed::arguments(format_args!("--{name}: `{text}` is not a number of bytes"))
            }),
        };
        if let Some(name) = words::FLAGS_LATER.iter().find(|name| text(name).is_some()) {
            return Err(words::later(&format!("--{name}")));
        }
        if text("insecure-transport").as_deref() == Some("false") {
            return Err(words::later("--insecure-transport=false"));
        }
        let listed = text("endpoints").unwrap_or_else(|| DEFAULT.to_owned());
        let listed = listed.split(',').map(str::trim).filter(|name| !name.is_empty());
        let format = text("write-out").map_or(Ok(Format::Simple), |text| Format::parse(&text))?;
        let endpoints: Vec<_> = listed.map(Endpoint::parse).collect::<Step<_>>()?;
        let usual = ClientSettings::of(endpoints.iter().map(|one| one.url.clone()).collect());
        let client = ClientSettings {
            dial: time("dial-timeout", usual.dial)?,
            command: time("command-timeout", usual.command)?,
            silence: time("keepalive-time", usual.silence)?,
            sign_of_life: time("keepalive-timeout", usual.sign_of_life)?,
            request_bytes_max: bytes("max-request-bytes", usual.request_bytes_max)?,
            response_bytes_max: bytes("max-recv-bytes", usual.response_bytes_max)?,
            ..usual
        };
        let show = Show { format, hex: on("hex"), value_only: false };
        Ok(Self { endpoints, show, debug: on("debug"), client })
    }
}

/// The environment's name of a flag.
fn variable_of(flag: &str) -> String {
    format!("ETCDCTL_{}", flag.to_uppercase().replace('-', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str, environment: &[(&str, &str)]) -> Step<Settings> {
        let matches = words::command().try_get_matches_from(line.split(' ')).unwrap();
        let variable = |name: &str| {
            let found = environment.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Settings::read_with(&matches, variable)
    }

    #[test]
    fn a_flag_goes_before_the_environment_and_that_before_the_default() {
        let names = |settings: &Settings| {
            settings.endpoints.iter().map(Endpoint::name).collect::<Vec<_>>().join(" ")
        };
        let env = [("ETCDCTL_ENDPOINTS", "a:1, http://b:2"), ("ETCDCTL_WRITE_OUT", "json")];
        assert_eq!(names(&read("etcdctl version", &[]).unwrap()), "127.0.0.1:2379");
        let settings = read("etcdctl version", &env).unwrap();
        assert_eq!(
            (names(&settings).as_str(), settings.show.format),
            ("a:1 http://b:2", Format::Json)
        );
        let settings = read("etcdctl --endpoints c:3 version -w simple", &env).unwrap();
        assert_eq!((names(&settings).as_str(), settings.show.format), ("c:3", Format::Simple));
        assert_eq!(settings.endpoints[0].url.to_string(), "http://c:3");
    }

    #[test]
    fn what_is_not_there_yet_is_refused_wherever_it_is_said() {
        let refused = |line: &str, env: &[(&str, &str)]| read(line, env).unwrap_err().text;
        let later = "comes later; `etcdctl --help` names what is there";
        assert_eq!(refused("etcdctl --cacert x version", &[]), format!("`--cacert` {later}"));
        assert_eq!(
            refused("etcdctl version", &[("ETCDCTL_USER", "me")]),
            format!("`--user` {later}")
        );
        assert!(refused("etcdctl --endpoints https://a:1 version", &[]).contains("asks for TLS"));
        assert_eq!(
            refused("etcdctl --dial-timeout soon version", &[]),
            "--dial-timeout: write a time such as `5s`, `500ms` or `1m30s`",
        );
    }
}
