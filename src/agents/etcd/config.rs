//! The settings of etcd: one table of flags, and what the daemon needs of them.
//!
//! A flag whose feature is not there yet is refused by name: nobody gets an open server who asked
//! for a closed one. Source: the specification A.11, defaults of etcd 3.5.

use std::path::PathBuf;
use std::time::Duration;

use crate::agents::etcd::flags::UNUSED;
use crate::consensus::AutoCompaction;
use crate::foundation::go_duration;
use crate::foundation::limits::QUOTA_BYTES;
use crate::rpc::client::url::{Url, UrlError};
use crate::rpc::server::access::Access;

/// What a flag does here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It is used.
    Used,
    /// Accepted, and without meaning here; this says why.
    NoMeaning(&'static str),
    /// Refused unless it says no, since this is not there yet.
    Later(&'static str),
}

/// One flag. Its environment variable is `ETCD_` and its name in capitals.
#[derive(Debug, Clone, Copy)]
pub struct Flag {
    /// Its name.
    pub name: &'static str,
    /// Its value where nobody gives one.
    pub default: &'static str,
    /// What it does, for the help.
    pub about: &'static str,
    /// What it does here.
    pub kind: Kind,
    /// Values that ask for nothing, beside `false`, `off` and none.
    pub harmless: &'static [&'static str],
}

const fn used(name: &'static str, default: &'static str, about: &'static str) -> Flag {
    Flag { name, default, about, kind: Kind::Used, harmless: &[] }
}

/// Old flags, and those that took their place.
const OLD: [(&str, &str); 4] = [
    ("advertise-client-urls", "addr"),
    ("listen-client-urls", "bind-addr"),
    ("initial-advertise-peer-urls", "peer-addr"),
    ("listen-peer-urls", "peer-bind-addr"),
];

/// Every flag that is used.
pub const FLAGS: &[Flag] = &[
    used("name", "default", "This member's name"),
    used("data-dir", "", "Where the data is kept (default `NAME.etcd`)"),
    used("listen-peer-urls", "http://localhost:2380", "Where to listen for other members"),
    used("listen-client-urls", "http://localhost:2379", "Where to listen for clients"),
    used(
        "initial-advertise-peer-urls",
        "http://localhost:2380",
        "Where other members reach this one",
    ),
    used("advertise-client-urls", "http://localhost:2379", "Where clients reach this member"),
    used("initial-cluster", "", "The members to begin with: `a=http://10.0.0.1:2380,b=…`"),
    used("initial-cluster-state", "new", "`new`: begin a cluster"),
    used("initial-cluster-token", "etcd-cluster", "Tells clusters with the same addresses apart"),
    used("discovery", "", "The discovery URL at which the members find each other"),
    used("discovery-fallback", "proxy", "What to do when the discovered cluster is full: `exit`"),
    used("heartbeat-interval", "100", "Milliseconds between a leader's signs of life"),
    used("election-timeout", "1000", "Milliseconds of silence after which another may lead"),
    used("debug", "false", "Log more"),
    used("log-level", "info", "How much to log: debug, info, warn, error"),
    used(
        "quota-backend-bytes",
        "0",
        "How many bytes the v3 keys may take: 0 for 2 GiB, less for any number",
    ),
    used(
        "auto-compaction-mode",
        "periodic",
        "What the retention is: `periodic`, a time, or `revision`, a number of revisions",
    ),
    used(
        "auto-compaction-retention",
        "0",
        "How much of the v3 keys' history is kept: hours, a time such as `30m`, or revisions; 0 for all",
    ),
    used("cors", "*", "Origins of web pages that may use the API, or `*`"),
    used("host-whitelist", "*", "Names under which HTTP clients may call this member, or `*`"),
    used("listen-metrics-urls", "", "Where else to serve `/metrics` and `/health`"),
    used(
        "config-file",
        "",
        "A file in YAML with these settings; then all others are not looked at",
    ),
    used("addr", "", "An old way to say --advertise-client-urls: `host:port`"),
    used("bind-addr", "", "An old way to say --listen-client-urls: `host:port`"),
    used("peer-addr", "", "An old way to say --initial-advertise-peer-urls: `host:port`"),
    used("peer-bind-addr", "", "An old way to say --listen-peer-urls: `host:port`"),
];

/// Returns every flag, also those that are not used.
pub fn all() -> impl Iterator<Item = &'static Flag> {
    FLAGS.iter().chain(UNUSED)
}

/// How the cluster begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begin {
    /// With the members that everyone is told.
    Static {
        /// The members.
        cluster: String,
        /// What tells it from other clusters.
        token: String,
    },
    /// With the members that register at a discovery URL.
    Discovery {
        /// The URL, which is the cluster's token too.
        url: Url,
        /// The URL as it was given.
        token: String,
    },
}

impl Begin {
    /// Returns what tells the cluster from others.
    pub fn token(&self) -> &str {
        match self {
            Self::Static { token, .. } | Self::Discovery { token, .. } => token,
        }
    }
}

/// What the daemon runs on. If one exists, it is valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The member's name.
    pub name: String,
    /// Where the data is kept.
    pub data_dir: PathBuf,
    /// Where to listen for other members.
    pub listen_peer: Vec<Url>,
    /// Where to listen for clients.
    pub listen_client: Vec<Url>,
    /// Where other members reach this one.
    pub advertise_peer: Vec<String>,
    /// Where clients reach this one.
    pub advertise_client: Vec<String>,
    /// How the cluster begins, if it has not yet.
    pub begin: Begin,
    /// Milliseconds between a leader's signs of life.
    pub heartbeat_ms: u64,
    /// Milliseconds of silence after which another may lead.
    pub election_ms: u64,
    /// How many bytes the v3 keys may take; `None` for any.
    pub quota_bytes: Option<u64>,
    /// What is kept of the v3 keys' history; `None` for all.
    pub auto_compaction: Option<AutoCompaction>,
    /// Where else to serve the metrics.
    pub listen_metrics: Vec<Url>,
    /// Who may use the API from a browser.
    pub access: Access,
    /// How much to log.
    pub log_level: String,
    /// Flags that were given and have no meaning here, and why.
    pub ignored: Vec<(&'static str, &'static str)>,
}

impl Config {
    /// Returns how long a client's request may take: 5 s and two election timeouts.
    pub fn request_deadline(&self) -> Duration {
        Duration::from_secs(5) + Duration::from_millis(2 * self.election_ms)
    }
}

/// Settings that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A value that makes no sense.
    #[error("`--{flag}={value}` is not {wanted}")]
    Value {
        /// The flag.
        flag: &'static str,
        /// Its value.
        value: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// A feature that is not there.
    #[error("`--{flag}` asks for {what}, which is not there yet; leave it out")]
    Later {
        /// The flag.
        flag: &'static str,
        /// The feature.
        what: &'static str,
    },
    /// Two ways to begin a cluster.
    #[error(
        "give only one of `--initial-cluster` and `--discovery`: they are two ways to find the members"
    )]
    TwoWays,
    /// A listening address without one to tell.
    #[error(
        "--advertise-client-urls is required when --listen-client-urls is set explicitly; say where clients reach this member"
    )]
    AdvertiseMissing,
    /// A state that needs member changes.
    #[error(
        "`--initial-cluster-state=existing` joins a cluster that runs, which is not there yet; begin with all members and `new`"
    )]
    Existing,
}

impl Config {
    /// Reads the settings; `given` returns what a flag or its environment variable says.
    pub fn read(given: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let ignored = check_kinds(&given)?;
        let given = |name: &str| given(name).or_else(|| old_way(&given, name));
        let value = |name: &'static str| {
            let flag = FLAGS.iter().find(|flag| flag.name == name);
            given(name)
                .unwrap_or_else(|| flag.map_or(String::new(), |flag| flag.default.to_owned()))
        };
        if given("listen-client-urls").is_some() && given("advertise-client-urls").is_none() {
            return Err(ConfigError::AdvertiseMissing);
        }
        let name = value("name");
        let data_dir = given("data-dir").unwrap_or_else(|| format!("{name}.etcd")).into();
        let advertise_peer =
            urls("initial-advertise-peer-urls", &value("initial-advertise-peer-urls"))?;
        let begin = begin(given, &name, &advertise_peer, value("initial-cluster-token"))?;
        match value("initial-cluster-state").as_str() {
            "new" => {}
            "existing" => return Err(ConfigError::Existing),
            other => return Err(wrong("initial-cluster-state", other, "`new` or `existing`")),
        }
        if !["proxy", "exit"].contains(&value("discovery-fallback").as_str()) {
            let other = value("discovery-fallback");
            return Err(wrong("discovery-fallback", &other, "`proxy` or `exit`"));
        }
        let heartbeat_ms = number("heartbeat-interval", &value("heartbeat-interval"))?;
        let election_ms = number("election-timeout", &value("election-timeout"))?;
        if election_ms < 5 * heartbeat_ms || election_ms > 50_000 {
            let wanted = "at least five heartbeat intervals and at most 50000";
            return Err(wrong("election-timeout", &election_ms.to_string(), wanted));
        }
        let debug = value("debug") == "true";
        let names = |name| parts(&value(name)).map(str::to_owned).collect();
        let access = Access { origins: names("cors"), hosts: names("host-whitelist") };
        Ok(Self {
            data_dir,
            listen_peer: listeners("listen-peer-urls", &value("listen-peer-urls"))?,
            listen_client: listeners("listen-client-urls", &value("listen-client-urls"))?,
            advertise_peer,
            advertise_client: urls("advertise-client-urls", &value("advertise-client-urls"))?,
            begin,
            listen_metrics: parsed("listen-metrics-urls", &value("listen-metrics-urls"))?,
            access,
            heartbeat_ms,
            election_ms,
            quota_bytes: quota("quota-backend-bytes", &value("quota-backend-bytes"))?,
            auto_compaction: auto_compaction(
                &value("auto-compaction-mode"),
                &value("auto-compaction-retention"),
            )?,
            log_level: if debug { "debug".to_owned() } else { value("log-level") },
            ignored,
            name,
        })
    }
}

/// Refuses what is not there, and returns what has no meaning.
fn check_kinds(
    given: impl Fn(&str) -> Option<String>,
) -> Result<Vec<(&'static str, &'static str)>, ConfigError> {
    let mut ignored = Vec::new();
    for flag in all() {
        let Some(value) = given(flag.name) else { continue };
        match flag.kind {
            Kind::Used => {}
            Kind::NoMeaning(why) => ignored.push((flag.name, why)),
            Kind::Later(_) if asks_nothing(flag, &value) => {}
            Kind::Later(what) => return Err(ConfigError::Later { flag: flag.name, what }),
        }
    }
    Ok(ignored)
}

fn asks_nothing(flag: &Flag, value: &str) -> bool {
    ["", "false", "off"].contains(&value) || flag.harmless.contains(&value)
}

/// Returns what an old flag says for the one that took its place.
fn old_way(given: impl Fn(&str) -> Option<String>, name: &str) -> Option<String> {
    let (_, old) = OLD.iter().find(|(new, _)| *new == name)?;
    given(old).map(|address| format!("http://{address}"))
}

fn begin(
    given: impl Fn(&str) -> Option<String>,
    name: &str,
    advertise_peer: &[String],
    token: String,
) -> Result<Begin, ConfigError> {
    let set = |name| given(name).filter(|value| !value.is_empty());
    match (set("initial-cluster"), set("discovery")) {
        (Some(_), Some(_)) => Err(ConfigError::TwoWays),
        (None, Some(token)) => {
            let url = token.parse().map_err(|_| wrong("discovery", &token, A_URL))?;
            Ok(Begin::Discovery { url, token })
        }
        (Some(cluster), None) => Ok(Begin::Static { cluster, token }),
        (None, None) => {
            let own: Vec<_> = advertise_peer.iter().map(|url| format!("{name}={url}")).collect();
            Ok(Begin::Static { cluster: own.join(","), token })
        }
    }
}

const A_URL: &str = "an address such as `http://10.0.0.1:2380`";

fn wrong(flag: &'static str, value: &str, wanted: &'static str) -> ConfigError {
    ConfigError::Value { flag, value: value.to_owned(), wanted }
}

fn number(flag: &'static str, value: &str) -> Result<u64, ConfigError> {
    let parsed = value.parse().ok().filter(|number| *number > 0);
    parsed.ok_or_else(|| wrong(flag, value, "a number of milliseconds"))
}

/// Reads a quota: 0 is the usual one, and below it is none.
fn quota(flag: &'static str, value: &str) -> Result<Option<u64>, ConfigError> {
    let bytes: i64 = value.parse().map_err(|_| wrong(flag, value, "a number of bytes"))?;
    Ok(match bytes {
        0 => Some(QUOTA_BYTES),
        bytes => u64::try_from(bytes).ok(),
    })
}

/// Reads what is kept of the history. A plain number is of hours or of revisions.
fn auto_compaction(mode: &str, retention: &str) -> Result<Option<AutoCompaction>, ConfigError> {
    let wrong = |wanted| wrong("auto-compaction-retention", retention, wanted);
    let plain = retention.parse::<u32>().ok();
    match mode {
        "periodic" => {
            let hours = plain.map(|hours| Duration::from_hours(hours.into()));
            let period = hours.or_else(|| go_duration::parse(retention));
            let period =
                period.ok_or_else(|| wrong("a number of hours or a time such as `30m`"))?;
            Ok((!period.is_zero()).then_some(AutoCompaction::Periodic(period)))
        }
        "revision" => {
            let count = plain.ok_or_else(|| wrong("a number of revisions"))?;
            Ok((count > 0).then_some(AutoCompaction::Revisions(count.into())))
        }
        other => Err(ConfigError::Value {
            flag: "auto-compaction-mode",
            value: other.to_owned(),
            wanted: "`periodic` or `revision`",
        }),
    }
}

fn parts(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|part| !part.is_empty())
}

fn parsed(flag: &'static str, value: &str) -> Result<Vec<Url>, ConfigError> {
    let parse = |part: &str| {
        part.parse().map_err(|error| match error {
            UrlError::Tls { .. } => ConfigError::Later { flag, what: "TLS by `https://`" },
            UrlError::Malformed { .. } => wrong(flag, part, A_URL),
        })
    };
    parts(value).map(parse).collect()
}

fn listeners(flag: &'static str, value: &str) -> Result<Vec<Url>, ConfigError> {
    let urls = parsed(flag, value)?;
    if urls.is_empty() { Err(wrong(flag, value, A_URL)) } else { Ok(urls) }
}

/// Reads URLs that are told to others, as they were written.
fn urls(flag: &'static str, value: &str) -> Result<Vec<String>, ConfigError> {
    listeners(flag, value)?;
    Ok(parts(value).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(given: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::read(|name| {
            given.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn without_arguments_it_is_a_cluster_of_one_on_localhost() {
        let config = read(&[]).unwrap();
        assert_eq!(config.data_dir, PathBuf::from("default.etcd"));
        let Begin::Static { cluster, token } = config.begin else { panic!("not static") };
        assert_eq!(cluster, "default=http://localhost:2380");
        assert_eq!(token, "etcd-cluster");
    }

    #[test]
    fn nobody_gets_an_open_server_who_asked_for_a_closed_one() {
        let refused = read(&[("client-cert-auth", "true")]).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "`--client-cert-auth` asks for TLS, which is not there yet; leave it out",
        );
        assert!(read(&[("client-cert-auth", "false"), ("proxy", "off")]).is_ok());
        assert!(matches!(read(&[("proxy", "on")]), Err(ConfigError::Later { .. })));
    }

    #[test]
    fn what_asks_for_nothing_is_no_reason_to_refuse() {
        for (flag, value) in [
            ("auth-token", "simple"),
            ("max-request-bytes", "1572864"),
            ("enable-grpc-gateway", "true"),
        ] {
            assert!(read(&[(flag, value)]).is_ok(), "{flag}");
        }
        for (flag, value) in
            [("auth-token", "jwt"), ("max-request-bytes", "1000"), ("enable-grpc-gateway", "x")]
        {
            assert!(matches!(read(&[(flag, value)]), Err(ConfigError::Later { .. })), "{flag}");
        }
        let refused = read(&[("listen-peer-urls", "https://10.0.0.1:2380")]).unwrap_err();
        assert!(refused.to_string().contains("`--listen-peer-urls` asks for TLS"), "{refused}");
    }

    #[test]
    fn what_has_no_meaning_is_accepted_and_told() {
        let config = read(&[("snapshot-count", "5"), ("vv", "true")]).unwrap();
        let names: Vec<_> = config.ignored.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["snapshot-count", "vv"]);
    }

    #[test]
    fn addresses_of_version_0_4_are_understood() {
        let old =
            [("addr", "10.0.0.1:4001"), ("bind-addr", "0.0.0.0:4001"), ("peer-addr", "a:7001")];
        let config = read(&old).unwrap();
        assert_eq!(config.advertise_client, ["http://10.0.0.1:4001"]);
        assert_eq!(config.listen_client[0].to_string(), "http://0.0.0.0:4001");
        assert_eq!(config.advertise_peer, ["http://a:7001"]);
        let both = read(&[("addr", "a:1"), ("advertise-client-urls", "http://b:2")]).unwrap();
        assert_eq!(both.advertise_client, ["http://b:2"]);
    }

    #[test]
    fn names_of_hosts_and_origins_are_lists() {
        let config = read(&[("host-whitelist", "a, b")]).unwrap();
        assert_eq!(config.access.hosts, ["a", "b"]);
        assert_eq!(config.access.origins, ["*"]);
    }

    #[test]
    fn refusals_say_what_to_write_instead() {
        for (flags, text) in [
            (&[("election-timeout", "100")][..], "five heartbeat intervals"),
            (&[("listen-peer-urls", "ftp://x")], "an address such as"),
            (&[("discovery", "http://d/x"), ("initial-cluster", "a=b")], "only one of"),
            (&[("listen-client-urls", "http://0.0.0.0:1")], "--advertise-client-urls is required"),
            (&[("initial-cluster-state", "existing")], "not there yet"),
        ] {
            let refused = read(flags).unwrap_err().to_string();
            assert!(refused.contains(text), "{refused}");
        }
    }

    #[test]
    fn a_quota_of_zero_is_the_usual_one_and_one_below_is_none() {
        let quota =
            |value| read(&[("quota-backend-bytes", value)]).map(|config| config.quota_bytes);
        assert_eq!(read(&[]).unwrap().quota_bytes, Some(2 << 30));
        assert_eq!(quota("0"), Ok(Some(2 << 30)));
        assert_eq!(quota("-1"), Ok(None));
        assert_eq!(quota("65536"), Ok(Some(65_536)));
        assert!(quota("2G").is_err());
    }

    #[test]
    fn what_is_kept_of_the_history_is_a_time_or_a_number_of_revisions() {
        let kept = |mode, retention| {
            let flags = [("auto-compaction-mode", mode), ("auto-compaction-retention", retention)];
            read(&flags).map(|config| config.auto_compaction)
        };
        let periodic = |secs| Some(AutoCompaction::Periodic(Duration::from_secs(secs)));
        assert_eq!(read(&[]).unwrap().auto_compaction, None);
        assert_eq!(kept("periodic", "0"), Ok(None));
        assert_eq!(kept("periodic", "2"), Ok(periodic(7_200)));
        assert_eq!(kept("periodic", "1h30m"), Ok(periodic(5_400)));
        assert_eq!(kept("revision", "1000"), Ok(Some(AutoCompaction::Revisions(1_000))));
        assert_eq!(kept("revision", "0"), Ok(None));
        for (mode, retention) in
            [("periodic", "-1"), ("periodic", "long"), ("revision", "1h"), ("always", "1")]
        {
            assert!(kept(mode, retention).is_err(), "{mode} {retention}");
        }
    }

    #[test]
    fn flags_are_told_apart_by_their_names() {
        let names: std::collections::BTreeSet<_> = all().map(|flag| flag.name).collect();
        assert_eq!(names.len(), all().count());
    }
}
