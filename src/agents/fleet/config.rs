//! Settings of fleetd: what `fleet.conf` and `FLEET_*` may say, and what the daemon needs.
//!
//! The environment wins over the file. Every setting is checked here, once.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::foundation::go_duration;
use crate::rpc::client::url::Url;
use crate::wire::fleet::{api, registry};

/// Where the file is unless a flag says otherwise; it may be missing there.
pub const FILE: &str = "/etc/fleet/fleet.conf";
/// What the names of environment variables begin with.
pub const ENVIRONMENT: &str = "FLEET_";
/// Where unit files are kept unless told otherwise.
const UNITS_DIRECTORY: &str = "/run/fleet/units/";
/// Where the store is unless told otherwise: a local member or proxy, at its new and old port.
const SERVERS: [&str; 2] = ["http://127.0.0.1:2379", "http://127.0.0.1:4001"];
/// Shortest time to live of a machine: the store counts whole seconds and expires twice a second.
const TTL_MIN: Duration = Duration::from_secs(1);

/// Every setting there is.
const KEYS: [&str; 21] = [
    "verbosity",
    "etcd_servers",
    "etcd_username",
    "etcd_password",
    "etcd_keyfile",
    "etcd_certfile",
    "etcd_cafile",
    "etcd_key_prefix",
    "etcd_request_timeout",
    "engine_reconcile_interval",
    "public_ip",
    "metadata",
    "agent_ttl",
    "units_directory",
    "systemd_user",
    "token_limit",
    "enable_grpc",
    "disable_engine",
    "disable_watches",
    "verify_units",
    "authorized_keys_file",
];

/// Returns the names of the environment variables that count.
pub fn variables() -> impl Iterator<Item = String> {
    KEYS.into_iter().map(variable)
}

fn variable(key: &str) -> String {
    format!("{ENVIRONMENT}{}", key.to_ascii_uppercase())
}

/// What the daemon runs on. If one of these exists, it is valid.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// 0, 1 or 2.
    pub verbosity: u8,
    /// Where the store is.
    pub etcd_servers: Vec<String>,
    /// Where fleet's keys are in it.
    pub key_prefix: String,
    /// How long one request to the store may take.
    pub request_timeout: Duration,
    /// How often the engine looks even if nothing happened.
    pub engine_reconcile_interval: Duration,
    /// This machine's address, if it is told.
    pub public_ip: Option<String>,
    /// What is told about this machine.
    pub metadata: BTreeMap<String, String>,
    /// How long the cluster believes in a machine that fell silent.
    pub agent_ttl: Duration,
    /// Where unit files are kept.
    pub units_directory: PathBuf,
    /// Whether the user's service manager is meant.
    pub systemd_user: bool,
    /// Items on a page of the API.
    pub token_limit: u16,
    /// Whether this machine never decides.
    pub disable_engine: bool,
}

/// A configuration that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A line that is neither empty, a comment nor a setting.
    #[error("{file} line {line}: `{text}` is no setting; write `key=value`")]
    Syntax {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// What it says.
        text: String,
    },
    /// A setting that there is not.
    #[error("{place}: fleetd has no setting `{key}`{}", hint(key))]
    UnknownKey {
        /// File and line, or the environment.
        place: String,
        /// What was written.
        key: String,
    },
    /// A value that makes no sense.
    #[error("{place}: `{key}={value}` is not {wanted}")]
    BadValue {
        /// File and line, or the environment.
        place: String,
        /// The setting.
        key: String,
        /// What was written.
        value: String,
        /// What to write instead.
        wanted: &'static str,
    },
    /// A setting whose work we do not do.
    #[error("{place}: `{key}` is not supported yet; {instead}")]
    Unsupported {
        /// File and line, or the environment.
        place: String,
        /// The setting.
        key: String,
        /// What to do instead.
        instead: &'static str,
    },
}

fn hint(key: &str) -> String {
    let alike =
        |known: &&&str| known.contains(key) || key.contains(**known) || known[1..] == key[1..];
    if key.len() < 2 || !key.is_ascii() {
        return String::new();
    }
    KEYS.iter().find(alike).map(|known| format!("; did you mean `{known}`?")).unwrap_or_default()
}

/// A value, and where it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Setting {
    place: String,
    key: &'static str,
    value: String,
}

/// A configuration and what to tell the operator about it.
pub type Read = (Config, Vec<String>);

/// Reads a configuration from a file, given as its name and text, and the environment.
pub fn read(
    file: Option<(&str, &str)>,
    environment: &BTreeMap<String, String>,
) -> Result<Read, ConfigError> {
    let mut settings = BTreeMap::new();
    if let Some((name, text)) = file {
        for (at, line) in text.lines().enumerate() {
            if let Some(setting) = setting_of_line(name, at + 1, line)? {
                settings.insert(setting.key, setting);
            }
        }
    }
    for key in KEYS {
        let name = variable(key);
        if let Some(value) = environment.get(&name) {
            let place = format!("environment variable {name}");
            settings.insert(key, Setting { place, key, value: unquoted(value).to_owned() });
        }
    }
    build(&settings)
}

fn setting_of_line(file: &str, line: usize, text: &str) -> Result<Option<Setting>, ConfigError> {
    let trimmed = text.trim();
    if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
        return Ok(None);
    }
    let (key, value) = trimmed.split_once('=').ok_or_else(|| ConfigError::Syntax {
        file: file.to_owned(),
        line,
        text: trimmed.to_owned(),
    })?;
    let (key, place) = (key.trim(), format!("{file} line {line}"));
    match KEYS.iter().find(|known| **known == key) {
        Some(key) => Ok(Some(Setting { place, key, value: unquoted(value).to_owned() })),
        None => Err(ConfigError::UnknownKey { place, key: key.to_owned() }),
    }
}

/// Takes away blanks around a value, and quotes around all of it.
fn unquoted(value: &str) -> &str {
    let value = value.trim();
    ['"', '\'']
        .into_iter()
        .find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote))
        .unwrap_or(value)
}

impl Setting {
    fn bad(&self, wanted: &'static str) -> ConfigError {
        let (place, key, value) = (self.place.clone(), self.key.to_owned(), self.value.clone());
        ConfigError::BadValue { place, key, value, wanted }
    }

    fn flag(&self) -> Result<bool, ConfigError> {
        match self.value.to_ascii_lowercase().as_str() {
            "true" | "1" | "t" | "yes" | "on" => Ok(true),
            "false" | "0" | "f" | "no" | "off" | "" => Ok(false),
            _ => Err(self.bad("`true` or `false`")),
        }
    }

    fn number<T: std::str::FromStr>(&self, wanted: &'static str) -> Result<T, ConfigError> {
        self.value.trim().parse().map_err(|_| self.bad(wanted))
    }

    fn seconds(&self) -> Result<Duration, ConfigError> {
        let wanted = "a number of seconds such as `2.0`";
        let seconds = self.number(wanted)?;
        let time = Duration::try_from_secs_f64(seconds).map_err(|_| self.bad(wanted))?;
        if time.is_zero() { Err(self.bad("more than 0 seconds")) } else { Ok(time) }
    }

    fn time(&self) -> Result<Duration, ConfigError> {
        let time = go_duration::parse(self.value.trim())
            .ok_or_else(|| self.bad("a duration such as `30s`"))?;
        if time < TTL_MIN { Err(self.bad("at least `1s`")) } else { Ok(time) }
    }

    /// Reads `["a","b"]` or `a,b`.
    fn list(&self) -> Vec<String> {
        let inner = self.value.trim().trim_start_matches('[').trim_end_matches(']');
        let items = inner.split(',').map(|item| unquoted(item).to_owned());
        items.filter(|item| !item.is_empty()).collect()
    }

    fn servers(&self) -> Result<Vec<String>, ConfigError> {
        let servers = self.list();
        if let Some(tls) = servers.iter().find(|server| server.starts_with("https://")) {
            let (place, key) = (self.place.clone(), format!("{}={tls}", self.key));
            let instead = "use `http://` endpoints on a network that you trust";
            return Err(ConfigError::Unsupported { place, key, instead });
        }
        let good = |server: &String| server.parse::<Url>().is_ok();
        if servers.is_empty() || !servers.iter().all(good) {
            return Err(
                self.bad("a list of URLs such as `http://127.0.0.1:2379,http://10.0.0.2:2379`")
            );
        }
        Ok(servers)
    }

    fn pairs(&self) -> Result<BTreeMap<String, String>, ConfigError> {
        let pair = |item: &String| {
            let (key, value) = item.split_once('=')?;
            (!key.trim().is_empty()).then(|| (key.trim().to_owned(), value.trim().to_owned()))
        };
        let pairs: Option<_> = self.list().iter().map(pair).collect();
        pairs.ok_or_else(|| self.bad("a list of pairs such as `region=eu,disk=ssd`"))
    }
}

fn build(settings: &BTreeMap<&'static str, Setting>) -> Result<Read, ConfigError> {
    let get = |key: &str| settings.get(key).filter(|setting| !setting.value.trim().is_empty());
    let seconds = |key: &str, default: f64| {
        get(key).map_or(Ok(Duration::from_secs_f64(default)), Setting::seconds)
    };
    let flag = |key: &str| get(key).map_or(Ok(false), Setting::flag);
    let text = |key: &str| get(key).map(|setting| setting.value.clone());
    let limit = "a number of items from 1 to 65535";
    refuse(settings)?;
    let config = Config {
        verbosity: get("verbosity").map_or(Ok(0), |it| it.number("0, 1 or 2"))?,
        etcd_servers: get("etcd_servers")
            .map_or_else(|| Ok(SERVERS.map(str::to_owned).into()), Setting::servers)?,
        key_prefix: text("etcd_key_prefix").unwrap_or_else(|| registry::PREFIX.to_owned()),
        request_timeout: seconds("etcd_request_timeout", 1.0)?,
        engine_reconcile_interval: seconds("engine_reconcile_interval", 2.0)?,
        public_ip: text("public_ip"),
        metadata: get("metadata").map_or_else(|| Ok(BTreeMap::new()), Setting::pairs)?,
        agent_ttl: get("agent_ttl").map_or(Ok(Duration::from_secs(30)), Setting::time)?,
        units_directory: text("units_directory")
            .map_or_else(|| PathBuf::from(UNITS_DIRECTORY), PathBuf::from),
        systemd_user: flag("systemd_user")?,
        token_limit: get("token_limit").map_or(Ok(api::PAGE_ITEMS), |it| {
            match it.number(limit)? {
                0 => Err(it.bad(limit)),
                items => Ok(items),
            }
        })?,
        disable_engine: flag("disable_engine")?,
    };
    let grpc = flag("enable_grpc")?.then_some(
        "`enable_grpc=true` has no effect: units are kept in the store, which is as fast here",
    );
    let watches = flag("disable_watches")?
        .then_some("`disable_watches=true` has no effect: one watch feeds the whole daemon");
    let keys = flag("verify_units")?
        .then_some("`verify_units` is deprecated and has no effect")
        .into_iter()
        .chain(
            get("authorized_keys_file")
                .map(|_| "`authorized_keys_file` is deprecated and has no effect"),
        );
    let warnings = grpc.into_iter().chain(watches).chain(keys).map(str::to_owned).collect();
    Ok((config, warnings))
}

/// Refuses what would leave the operator less protected than the file says.
fn refuse(settings: &BTreeMap<&'static str, Setting>) -> Result<(), ConfigError> {
    let tls = "use `http://` endpoints on a network that you trust";
    let password = "remove it, or let the store answer without authentication";
    for (key, instead) in [
        ("etcd_keyfile", tls),
        ("etcd_certfile", tls),
        ("etcd_cafile", tls),
        ("etcd_username", password),
        ("etcd_password", password),
    ] {
        if let Some(setting) = settings.get(key).filter(|setting| !setting.value.is_empty()) {
            let (place, key) = (setting.place.clone(), key.to_owned());
            return Err(ConfigError::Unsupported { place, key, instead });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_file(text: &str) -> Result<Read, String> {
        read(Some(("fleet.conf", text)), &BTreeMap::new()).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_said_means_the_defaults() {
        let (config, warnings) = read(None, &BTreeMap::new()).unwrap();
        assert_eq!(config.etcd_servers, SERVERS);
        assert_eq!(config.key_prefix, "/_coreos.com/fleet/");
        assert_eq!(config.agent_ttl, Duration::from_secs(30));
        assert_eq!(config.engine_reconcile_interval, Duration::from_secs(2));
        assert_eq!((config.token_limit, warnings.len()), (100, 0));
    }

    #[test]
    fn a_file_of_the_time_is_read() {
        let (config, warnings) = from_file(
            "# comment\nverbosity=2\netcd_servers=[\"http://a:4001\", \"http://b:4001\"]\n\
             metadata=\"region=us-west,az=1\"\npublic_ip=\"\"\nagent_ttl=\"1m30s\"\n\
             engine_reconcile_interval=2.5\nverify_units=true\nenable_grpc=true\n",
        )
        .unwrap();
        assert_eq!(config.etcd_servers, ["http://a:4001", "http://b:4001"]);
        assert_eq!(config.metadata["region"], "us-west");
        assert_eq!(config.public_ip, None);
        assert_eq!(config.agent_ttl, Duration::from_secs(90));
        assert_eq!(config.engine_reconcile_interval, Duration::from_millis(2500));
        assert_eq!(warnings.len(), 2);
    }

    #[test]
    fn the_environment_wins() {
        let environment =
            [("FLEET_PUBLIC_IP", "10.0.0.1"), ("FLEET_METADATA", "a=b"), ("HOME", "/")];
        let environment = environment.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let (config, _) = read(Some(("f", "public_ip=1.1.1.1\n")), &environment).unwrap();
        assert_eq!(config.public_ip.as_deref(), Some("10.0.0.1"));
        assert_eq!(config.metadata["a"], "b");
    }

    #[test]
    fn every_mistake_says_where_it_is_and_what_to_write() {
        for (text, message) in [
            ("\nnonsense\n", "fleet.conf line 2: `nonsense` is no setting; write `key=value`"),
            (
                "etcd_server=http://a\n",
                "fleet.conf line 1: fleetd has no setting `etcd_server`; did you mean `etcd_servers`?",
            ),
            ("agent_ttl=30\n", "fleet.conf line 1: `agent_ttl=30` is not a duration such as `30s`"),
            ("agent_ttl=10ms\n", "fleet.conf line 1: `agent_ttl=10ms` is not at least `1s`"),
            (
                "token_limit=0\n",
                "fleet.conf line 1: `token_limit=0` is not a number of items from 1 to 65535",
            ),
            (
                "engine_reconcile_interval=fast\n",
                "fleet.conf line 1: `engine_reconcile_interval=fast` is not a number of seconds such as `2.0`",
            ),
            (
                "metadata=region\n",
                "fleet.conf line 1: `metadata=region` is not a list of pairs such as `region=eu,disk=ssd`",
            ),
            (
                "systemd_user=maybe\n",
                "fleet.conf line 1: `systemd_user=maybe` is not `true` or `false`",
            ),
            (
                "etcd_cafile=/x\n",
                "fleet.conf line 1: `etcd_cafile` is not supported yet; use `http://` endpoints on a network that you trust",
            ),
        ] {
            assert_eq!(from_file(text).unwrap_err(), message);
        }
    }
}
