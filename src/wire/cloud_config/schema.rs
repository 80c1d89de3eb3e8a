//! What a cloud-config may say: one table that decoding, validation and the written files share.

use super::patterns::{self, Accepts};

/// What a key may hold.
#[derive(Debug, Clone, Copy)]
pub enum Type {
    /// Text; any scalar will do.
    Text,
    /// Yes or no.
    Flag,
    /// A whole number.
    Integer,
    /// A number.
    Float,
    /// These keys.
    Struct(&'static [Field]),
    /// A list of texts.
    Texts,
    /// A list of these keys.
    Structs(&'static [Field]),
}

impl Type {
    /// Returns the name that findings give the type.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "string",
            Self::Flag => "bool",
            Self::Integer => "int",
            Self::Float => "float64",
            Self::Struct(_) => "struct",
            Self::Texts => "[]string",
            Self::Structs(_) => "[]struct",
        }
    }
}

/// One key.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Its name, with underscores.
    pub name: &'static str,
    /// What it holds.
    pub holds: Type,
    /// Why it should not be used any more.
    pub deprecated: Option<&'static str>,
    /// Which texts it accepts; all if there is none.
    pub accepts: Option<Accepts>,
    /// The environment variable it becomes, where that is not the prefix and its name.
    pub variable: Option<&'static str>,
}

impl Field {
    const fn new(name: &'static str, holds: Type) -> Self {
        Self { name, holds, deprecated: None, accepts: None, variable: None }
    }

    const fn deprecated(mut self, reason: &'static str) -> Self {
        self.deprecated = Some(reason);
        self
    }

    const fn accepts(mut self, accepts: Accepts) -> Self {
        self.accepts = Some(accepts);
        self
    }

    const fn variable(mut self, variable: &'static str) -> Self {
        self.variable = Some(variable);
        self
    }

    /// Returns the environment variable it becomes.
    pub fn environment(&self, prefix: &str) -> String {
        self.variable
            .map_or_else(|| format!("{prefix}{}", self.name.to_ascii_uppercase()), str::to_owned)
    }
}

const NO_ETCD: &str = "etcd 0.4 is no longer shipped; use etcd2";
const NOT_ETCD: &str = "etcd2 options do nothing for etcd 0.4; write them under etcd2";
const CA_FILE: &str = "use trusted_ca_file and client_cert_auth";
const PEER_CA_FILE: &str = "use peer_trusted_ca_file and peer_client_cert_auth";
const IMPORT: &str = "keys fetched over the network may be missing when a machine boots; write them in \
     ssh_authorized_keys";

/// A whole cloud-config.
pub const CLOUD_CONFIG: &[Field] = &[
    Field::new("ssh_authorized_keys", Type::Texts),
    Field::new("coreos", Type::Struct(COREOS)),
    Field::new("write_files", Type::Structs(WRITE_FILES)),
    Field::new("hostname", Type::Text),
    Field::new("users", Type::Structs(USERS)),
    Field::new("manage_etc_hosts", Type::Text),
];

/// `coreos`.
pub const COREOS: &[Field] = &[
    Field::new("etcd", Type::Struct(ETCD)).deprecated(NO_ETCD),
    Field::new("etcd2", Type::Struct(ETCD2)),
    Field::new("flannel", Type::Struct(FLANNEL)),
    Field::new("fleet", Type::Struct(FLEET)),
    Field::new("locksmith", Type::Struct(LOCKSMITH)),
    Field::new("oem", Type::Struct(OEM)),
    Field::new("update", Type::Struct(UPDATE)),
    Field::new("units", Type::Structs(UNITS)),
];

/// `coreos.etcd`, in the order in which its settings are written.
pub const ETCD: &[Field] = &[
    Field::new("addr", Type::Text),
    Field::new("advertise_client_urls", Type::Text).deprecated(NOT_ETCD),
    Field::new("bind_addr", Type::Text),
    Field::new("ca_file", Type::Text),
    Field::new("cert_file", Type::Text),
    Field::new("cluster_active_size", Type::Integer),
    Field::new("cluster_remove_delay", Type::Float),
    Field::new("cluster_sync_interval", Type::Float),
    Field::new("cors", Type::Text),
    Field::new("data_dir", Type::Text),
    Field::new("discovery", Type::Text),
    Field::new("discovery_fallback", Type::Text).deprecated(NOT_ETCD),
    Field::new("discovery_srv", Type::Text).deprecated(NOT_ETCD),
    Field::new("discovery_proxy", Type::Text).deprecated(NOT_ETCD),
    Field::new("election_timeout", Type::Integer).deprecated(NOT_ETCD),
    Field::new("force_new_cluster", Type::Flag).deprecated(NOT_ETCD),
    Field::new("graphite_host", Type::Text),
    Field::new("heartbeat_interval", Type::Integer).deprecated(NOT_ETCD),
    Field::new("http_read_timeout", Type::Float),
    Field::new("http_write_timeout", Type::Float),
    Field::new("initial_advertise_peer_urls", Type::Text).deprecated(NOT_ETCD),
    Field::new("initial_cluster", Type::Text).deprecated(NOT_ETCD),
    Field::new("initial_cluster_state", Type::Text).deprecated(NOT_ETCD),
    Field::new("initial_cluster_token", Type::Text).deprecated(NOT_ETCD),
    Field::new("key_file", Type::Text),
    Field::new("listen_client_urls", Type::Text).deprecated(NOT_ETCD),
    Field::new("listen_peer_urls", Type::Text).deprecated(NOT_ETCD),
    Field::new("max_result_buffer", Type::Integer),
    Field::new("max_retry_attempts", Type::Integer),
    Field::new("max_snapshots", Type::Integer).deprecated(NOT_ETCD),
    Field::new("max_wals", Type::Integer).deprecated(NOT_ETCD),
    Field::new("name", Type::Text),
    Field::new("peer_addr", Type::Text),
    Field::new("peer_bind_addr", Type::Text),
    Field::new("peer_ca_file", Type::Text),
    Field::new("peer_cert_file", Type::Text),
    Field::new("peer_election_timeout", Type::Integer),
    Field::new("peer_heartbeat_interval", Type::Integer),
    Field::new("peer_key_file", Type::Text),
    Field::new("peers", Type::Text),
    Field::new("peers_file", Type::Text),
    Field::new("proxy", Type::Text).deprecated(NOT_ETCD),
    Field::new("retry_interval", Type::Float),
    Field::new("snapshot", Type::Flag),
    Field::new("snapshot_count", Type::Integer).variable("ETCD_SNAPSHOTCOUNT"),
    Field::new("trace", Type::Text),
    Field::new("verbose", Type::Flag),
    Field::new("very_verbose", Type::Flag),
    Field::new("very_very_verbose", Type::Flag),
];

/// `coreos.etcd2`, in the order in which its settings are written.
pub const ETCD2: &[Field] = &[
    Field::new("advertise_client_urls", Type::Text),
    Field::new("ca_file", Type::Text).deprecated(CA_FILE),
    Field::new("cert_file", Type::Text),
    Field::new("client_cert_auth", Type::Flag),
    Field::new("cors", Type::Text),
    Field::new("data_dir", Type::Text),
    Field::new("debug", Type::Flag),
    Field::new("discovery", Type::Text),
    Field::new("discovery_fallback", Type::Text),
    Field::new("discovery_srv", Type::Text),
    Field::new("discovery_proxy", Type::Text),
    Field::new("election_timeout", Type::Integer),
    Field::new("enable_pprof", Type::Flag),
    Field::new("force_new_cluster", Type::Flag),
    Field::new("heartbeat_interval", Type::Integer),
    Field::new("initial_advertise_peer_urls", Type::Text),
    Field::new("initial_cluster", Type::Text),
    Field::new("initial_cluster_state", Type::Text),
    Field::new("initial_cluster_token", Type::Text),
    Field::new("key_file", Type::Text),
    Field::new("listen_client_urls", Type::Text),
    Field::new("listen_peer_urls", Type::Text),
    Field::new("log_package_levels", Type::Text),
    Field::new("max_snapshots", Type::Integer),
    Field::new("max_wals", Type::Integer),
    Field::new("name", Type::Text),
    Field::new("peer_ca_file", Type::Text).deprecated(PEER_CA_FILE),
    Field::new("peer_cert_file", Type::Text),
    Field::new("peer_key_file", Type::Text),
    Field::new("peer_client_cert_auth", Type::Flag),
    Field::new("peer_trusted_ca_file", Type::Text),
    Field::new("proxy", Type::Text).accepts(patterns::proxy),
    Field::new("proxy_dial_timeout", Type::Integer),
    Field::new("proxy_failure_wait", Type::Integer),
    Field::new("proxy_read_timeout", Type::Integer),
    Field::new("proxy_refresh_interval", Type::Integer),
    Field::new("proxy_write_timeout", Type::Integer),
    Field::new("snapshot_count", Type::Integer),
    Field::new("strict_reconfig_check", Type::Flag),
    Field::new("trusted_ca_file", Type::Text),
    Field::new("wal_dir", Type::Text),
];

/// `coreos.fleet`, in the order in which its settings are written.
pub const FLEET: &[Field] = &[
    Field::new("agent_ttl", Type::Text),
    Field::new("authorized_keys_file", Type::Text),
    Field::new("disable_engine", Type::Flag),
    Field::new("engine_reconcile_interval", Type::Float),
    Field::new("etcd_cafile", Type::Text),
    Field::new("etcd_certfile", Type::Text),
    Field::new("etcd_keyfile", Type::Text),
    Field::new("etcd_key_prefix", Type::Text),
    Field::new("etcd_request_timeout", Type::Float),
    Field::new("etcd_servers", Type::Text),
    Field::new("etcd_username", Type::Text),
    Field::new("etcd_password", Type::Text),
    Field::new("metadata", Type::Text),
    Field::new("public_ip", Type::Text),
    Field::new("token_limit", Type::Integer),
    Field::new("verbosity", Type::Integer),
    Field::new("verify_units", Type::Flag),
];

/// `coreos.flannel`, in the order in which its settings are written.
pub const FLANNEL: &[Field] = &[
    Field::new("etcd_endpoints", Type::Text),
    Field::new("etcd_cafile", Type::Text),
    Field::new("etcd_certfile", Type::Text),
    Field::new("etcd_keyfile", Type::Text),
    Field::new("etcd_prefix", Type::Text),
    Field::new("etcd_username", Type::Text),
    Field::new("etcd_password", Type::Text),
    Field::new("ip_masq", Type::Text),
    Field::new("subnet_file", Type::Text),
    Field::new("interface", Type::Text).variable("FLANNELD_IFACE"),
    Field::new("public_ip", Type::Text),
];

/// `coreos.locksmith`, in the order in which its settings are written.
pub const LOCKSMITH: &[Field] = &[
    Field::new("endpoint", Type::Text),
    Field::new("etcd_cafile", Type::Text),
    Field::new("etcd_certfile", Type::Text),
    Field::new("etcd_keyfile", Type::Text),
    Field::new("etcd_username", Type::Text),
    Field::new("etcd_password", Type::Text),
    Field::new("group", Type::Text),
    Field::new("window_start", Type::Text)
        .accepts(patterns::window_start)
        .variable("REBOOT_WINDOW_START"),
    Field::new("window_length", Type::Text)
        .accepts(patterns::window_length)
        .variable("REBOOT_WINDOW_LENGTH"),
];

/// `coreos.update`.
pub const UPDATE: &[Field] = &[
    Field::new("reboot_strategy", Type::Text).accepts(patterns::reboot_strategy),
    Field::new("group", Type::Text),
    Field::new("server", Type::Text),
];

/// `coreos.oem`.
pub const OEM: &[Field] = &[
    Field::new("id", Type::Text),
    Field::new("name", Type::Text),
    Field::new("version_id", Type::Text),
    Field::new("home_url", Type::Text),
    Field::new("bug_report_url", Type::Text),
];

/// An element of `coreos.units`.
pub const UNITS: &[Field] = &[
    Field::new("name", Type::Text),
    Field::new("mask", Type::Flag),
    Field::new("enable", Type::Flag),
    Field::new("runtime", Type::Flag),
    Field::new("content", Type::Text),
    Field::new("command", Type::Text).accepts(patterns::command),
    Field::new("drop_ins", Type::Structs(DROP_INS)),
];

/// An element of a unit's `drop_ins`.
pub const DROP_INS: &[Field] = &[Field::new("name", Type::Text), Field::new("content", Type::Text)];

/// An element of `users`.
pub const USERS: &[Field] = &[
    Field::new("name", Type::Text),
    Field::new("passwd", Type::Text),
    Field::new("ssh_authorized_keys", Type::Texts),
    Field::new("coreos_ssh_import_github", Type::Text).deprecated(IMPORT),
    Field::new("coreos_ssh_import_github_users", Type::Texts).deprecated(IMPORT),
    Field::new("coreos_ssh_import_url", Type::Text).deprecated(IMPORT),
    Field::new("gecos", Type::Text),
    Field::new("homedir", Type::Text),
    Field::new("no_create_home", Type::Flag),
    Field::new("primary_group", Type::Text),
    Field::new("groups", Type::Texts),
    Field::new("no_user_group", Type::Flag),
    Field::new("system", Type::Flag),
    Field::new("no_log_init", Type::Flag),
    Field::new("shell", Type::Text),
];

/// An element of `write_files`. Its `encoding` is judged together with its `content`.
pub const WRITE_FILES: &[Field] = &[
    Field::new("path", Type::Text),
    Field::new("content", Type::Text),
    Field::new("owner", Type::Text),
    Field::new("permissions", Type::Text).accepts(patterns::permissions),
    Field::new("encoding", Type::Text),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_section_has_all_its_keys() {
        let counts = [ETCD, ETCD2, FLEET, FLANNEL, LOCKSMITH].map(<[Field]>::len);
        assert_eq!(counts, [49, 41, 17, 11, 9]);
    }

    #[test]
    fn a_variable_is_the_prefix_and_the_name_unless_it_has_one_of_its_own() {
        let names = |fields: &[Field], prefix: &str| -> Vec<String> {
            fields.iter().map(|field| field.environment(prefix)).collect()
        };
        assert!(names(ETCD, "ETCD_").contains(&"ETCD_SNAPSHOTCOUNT".to_owned()));
        assert!(names(ETCD2, "ETCD_").contains(&"ETCD_SNAPSHOT_COUNT".to_owned()));
        assert!(names(FLANNEL, "FLANNELD_").contains(&"FLANNELD_IFACE".to_owned()));
        assert!(names(LOCKSMITH, "LOCKSMITHD_").contains(&"REBOOT_WINDOW_START".to_owned()));
    }
}
