//! The flags of etcd 2 to 3.5 that are not used here, and why each is refused or accepted.
//!
//! Whoever asks for something that is not there is told so, and gets no server: nobody gets an open
//! one who asked for a closed one. Source: the specification A.11.
//!
//! **Not here:** the flags that are used; they are in [`super::config`].

use crate::agents::etcd::config::{Flag, Kind};

const TLS: &str = "TLS";
const SRV: &str = "discovery by DNS";
const DISCOVERY_V3: &str = "discovery through etcd's v3 API";
const LIMIT: &str = "another limit on requests";
const TRACING: &str = "tracing across programs";
const LEASES: &str = "leases whose remaining time outlives a leader";
const CHECKS: &str = "members that compare their data";

const SIZED: &str = "checkpoints are made by the size of the log";
const NO_BBOLT: &str = "there is no bbolt here";
const NO_PROXY: &str = "it is about being a proxy";
const NO_USERS: &str = "it is about users, who are not there yet";
const NO_CHANGES: &str = "the members cannot be changed yet";
const SILENT: &str = "connections that are silent are asked after 5 minutes";
const ALWAYS: &str = "it is always so";
const WARNINGS: &str = "the metrics tell how long things take";
const STEPS: &str = "a compaction frees memory in small steps by itself";
const IGNORED: &str = "etcd has ignored it since version 2";
const GO: &str = "there is no Go runtime to profile";
const LOGGED: &str = "the log goes to standard error, for the journal or for a person";

/// Every flag that is not used.
pub const UNUSED: &[Flag] = &[
    // Refused: what they ask for is not there yet.
    later("ca-file", TLS, &[]),
    later("cert-file", TLS, &[]),
    later("key-file", TLS, &[]),
    later("client-cert-file", TLS, &[]),
    later("client-key-file", TLS, &[]),
    later("client-cert-auth", TLS, &[]),
    later("client-crl-file", TLS, &[]),
    later("client-cert-allowed-hostname", TLS, &[]),
    later("trusted-ca-file", TLS, &[]),
    later("auto-tls", TLS, &[]),
    later("peer-ca-file", TLS, &[]),
    later("peer-cert-file", TLS, &[]),
    later("peer-key-file", TLS, &[]),
    later("peer-client-cert-file", TLS, &[]),
    later("peer-client-key-file", TLS, &[]),
    later("peer-client-cert-auth", TLS, &[]),
    later("peer-trusted-ca-file", TLS, &[]),
    later("peer-auto-tls", TLS, &[]),
    later("peer-crl-file", TLS, &[]),
    later("peer-cert-allowed-cn", TLS, &[]),
    later("peer-cert-allowed-hostname", TLS, &[]),
    later("peer-skip-client-san-verification", TLS, &[]),
    later("experimental-peer-skip-client-san-verification", TLS, &[]),
    later("self-signed-cert-validity", TLS, &["1"]),
    later("cipher-suites", TLS, &[]),
    later("tls-min-version", TLS, &["TLS1.2"]),
    later("tls-max-version", TLS, &[]),
    later("auth-token", "users with tokens", &["simple"]),
    later("proxy", "being a proxy", &[]),
    later("discovery-proxy", "discovery through a proxy", &[]),
    later("discovery-srv", SRV, &[]),
    later("discovery-srv-name", SRV, &[]),
    later("discovery-token", DISCOVERY_V3, &[]),
    later("discovery-endpoints", DISCOVERY_V3, &[]),
    later("discovery-cert", DISCOVERY_V3, &[]),
    later("discovery-key", DISCOVERY_V3, &[]),
    later("discovery-cacert", DISCOVERY_V3, &[]),
    later("discovery-user", DISCOVERY_V3, &[]),
    later("discovery-password", DISCOVERY_V3, &[]),
    later("discovery-insecure-transport", DISCOVERY_V3, &["true"]),
    later("discovery-insecure-skip-tls-verify", DISCOVERY_V3, &[]),
    later("discovery-dial-timeout", DISCOVERY_V3, &["2s"]),
    later("discovery-request-timeout", DISCOVERY_V3, &["5s"]),
    later("discovery-keepalive-time", DISCOVERY_V3, &["2s"]),
    later("discovery-keepalive-timeout", DISCOVERY_V3, &["6s"]),
    later("force-new-cluster", "beginning anew from a copy", &[]),
    later("wal-dir", "a folder of its own for the log", &[]),
    later("listen-client-http-urls", "an address of its own for HTTP", &[]),
    later("enable-grpc-gateway", "a port without the JSON gateway", &["true"]),
    later("max-request-bytes", LIMIT, &["1572864"]),
    later("max-txn-ops", LIMIT, &["128"]),
    later("experimental-enable-lease-checkpoint", LEASES, &[]),
    later("experimental-enable-lease-checkpoint-persist", LEASES, &[]),
    later("memory-mlock", "memory that is never swapped out", &[]),
    later("experimental-memory-mlock", "memory that is never swapped out", &[]),
    later("socket-reuse-port", "a port that is shared", &[]),
    later("socket-reuse-address", "an address that is shared", &[]),
    later("log-outputs", "a log in a file", &["default", "stderr", "systemd/journal"]),
    later("enable-log-rotation", "a log in a file", &[]),
    later("feature-gates", "features that are switched by name", &[]),
    later("corrupt-check-time", CHECKS, &["0", "0s"]),
    later("compact-hash-check-enabled", CHECKS, &[]),
    later("experimental-corrupt-check-time", CHECKS, &["0", "0s"]),
    later("experimental-initial-corrupt-check", CHECKS, &[]),
    later("experimental-compact-hash-check-enabled", CHECKS, &[]),
    later("experimental-enable-v2v3", "the v2 API on the v3 keys", &[]),
    later("enable-distributed-tracing", TRACING, &[]),
    later("experimental-enable-distributed-tracing", TRACING, &[]),
    later("experimental-stop-grpc-service-on-defrag", "a defragmentation, which needs none", &[]),
    later("peers", "members by an old flag (now `--initial-cluster` names them)", &[]),
    later("peers-file", "members by an old flag (now `--initial-cluster` names them)", &[]),
    // Accepted: they have no meaning here.
    no_meaning("snapshot-count", SIZED),
    no_meaning("max-snapshots", SIZED),
    no_meaning("max-wals", SIZED),
    no_meaning("snapshot-catchup-entries", SIZED),
    no_meaning("experimental-snapshot-catchup-entries", SIZED),
    no_meaning("log-package-levels", "use --log-level"),
    no_meaning("logger", LOGGED),
    no_meaning("log-format", LOGGED),
    no_meaning("log-rotation-config-json", LOGGED),
    no_meaning("enable-v2", "the v2 API is always on"),
    no_meaning("experimental-v3demo", "the v3 API is always on"),
    no_meaning("experimental-gRPC-addr", "the v3 API is on the clients' port"),
    no_meaning("strict-reconfig-check", NO_CHANGES),
    no_meaning("max-learners", NO_CHANGES),
    no_meaning("experimental-max-learners", NO_CHANGES),
    no_meaning("enable-pprof", GO),
    no_meaning("metrics", "there is one set of metrics"),
    no_meaning("pre-vote", ALWAYS),
    no_meaning(
        "initial-election-tick-advance",
        "a member that starts waits for no more than one election",
    ),
    no_meaning("unsafe-no-fsync", "what is acknowledged is always synced"),
    no_meaning("raft-read-timeout", SILENT),
    no_meaning("raft-write-timeout", SILENT),
    no_meaning("grpc-keepalive-min-time", SILENT),
    no_meaning("grpc-keepalive-interval", SILENT),
    no_meaning("grpc-keepalive-timeout", SILENT),
    no_meaning("max-concurrent-streams", "a connection has at most 16384 streams"),
    no_meaning("bcrypt-cost", NO_USERS),
    no_meaning("auth-token-ttl", NO_USERS),
    no_meaning("proxy-failure-wait", NO_PROXY),
    no_meaning("proxy-refresh-interval", NO_PROXY),
    no_meaning("proxy-dial-timeout", NO_PROXY),
    no_meaning("proxy-write-timeout", NO_PROXY),
    no_meaning("proxy-read-timeout", NO_PROXY),
    no_meaning("backend-bbolt-freelist-type", NO_BBOLT),
    no_meaning("backend-batch-interval", NO_BBOLT),
    no_meaning("backend-batch-limit", NO_BBOLT),
    no_meaning("experimental-backend-bbolt-freelist-type", NO_BBOLT),
    no_meaning("bootstrap-defrag-threshold-megabytes", NO_BBOLT),
    no_meaning("experimental-bootstrap-defrag-threshold-megabytes", NO_BBOLT),
    no_meaning("experimental-txn-mode-write-with-shared-buffer", NO_BBOLT),
    no_meaning("warning-apply-duration", WARNINGS),
    no_meaning("warning-unary-request-duration", WARNINGS),
    no_meaning("experimental-warning-apply-duration", WARNINGS),
    no_meaning("experimental-warning-unary-request-duration", WARNINGS),
    no_meaning("compaction-batch-limit", STEPS),
    no_meaning("compaction-sleep-interval", STEPS),
    no_meaning("experimental-compaction-batch-limit", STEPS),
    no_meaning("experimental-compaction-sleep-interval", STEPS),
    no_meaning("compact-hash-check-time", "members do not compare their data yet"),
    no_meaning("experimental-compact-hash-check-time", "members do not compare their data yet"),
    no_meaning(
        "watch-progress-notify-interval",
        "watches are told their progress every 10 minutes",
    ),
    no_meaning(
        "experimental-watch-progress-notify-interval",
        "watches are told their progress every 10 minutes",
    ),
    no_meaning("downgrade-check-time", "a running cluster has one version"),
    no_meaning("experimental-downgrade-check-time", "a running cluster has one version"),
    no_meaning("wait-cluster-ready-timeout", "the service counts as up after 30 seconds"),
    no_meaning(
        "experimental-wait-cluster-ready-timeout",
        "the service counts as up after 30 seconds",
    ),
    no_meaning("distributed-tracing-address", TRACING_OFF),
    no_meaning("distributed-tracing-service-name", TRACING_OFF),
    no_meaning("distributed-tracing-instance-id", TRACING_OFF),
    no_meaning("distributed-tracing-sampling-rate", TRACING_OFF),
    no_meaning("experimental-distributed-tracing-address", TRACING_OFF),
    no_meaning("experimental-distributed-tracing-service-name", TRACING_OFF),
    no_meaning("experimental-distributed-tracing-instance-id", TRACING_OFF),
    no_meaning("experimental-distributed-tracing-sampling-rate", TRACING_OFF),
    no_meaning("cluster-active-size", IGNORED),
    no_meaning("cluster-remove-delay", IGNORED),
    no_meaning("cluster-sync-interval", IGNORED),
    no_meaning("config", IGNORED),
    no_meaning("force", IGNORED),
    no_meaning("max-result-buffer", IGNORED),
    no_meaning("max-retry-attempts", IGNORED),
    no_meaning("peer-heartbeat-interval", IGNORED),
    no_meaning("peer-election-timeout", IGNORED),
    no_meaning("retry-interval", IGNORED),
    no_meaning("snapshot", IGNORED),
    no_meaning("v", IGNORED),
    no_meaning("vv", IGNORED),
];

const TRACING_OFF: &str = "it is about tracing across programs";

const fn later(name: &'static str, what: &'static str, harmless: &'static [&'static str]) -> Flag {
    Flag { name, default: "", about: what, kind: Kind::Later(what), harmless }
}

const fn no_meaning(name: &'static str, why: &'static str) -> Flag {
    Flag { name, default: "", about: why, kind: Kind::NoMeaning(why), harmless: &[] }
}

/// Describes the flags that are not used: a paragraph for those that are refused, and one for those
/// that are accepted, each with its reason.
pub fn described() -> String {
    let refused = |flag: &Flag| if let Kind::Later(what) = flag.kind { Some(what) } else { None };
    let ignored = |flag: &Flag| if let Kind::NoMeaning(why) = flag.kind { Some(why) } else { None };
    format!(
        "Flags of etcd that are refused, since what they ask for is not there yet:\n{}\n\
         Flags of etcd that are accepted and have no meaning here:\n{}",
        grouped(refused),
        grouped(ignored),
    )
}

/// Lists flags by their reason, in the order of the table.
fn grouped(reason: impl Fn(&Flag) -> Option<&'static str>) -> String {
    let mut groups: Vec<(&str, Vec<String>)> = Vec::new();
    for flag in UNUSED {
        let Some(reason) = reason(flag) else { continue };
        let name = format!("--{}", flag.name);
        match groups.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, names)) => names.push(name),
            None => groups.push((reason, vec![name])),
        }
    }
    let line = |(reason, names): (&str, Vec<String>)| format!("  {reason}: {}\n", names.join(" "));
    groups.into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_flag_is_described_once() {
        let text = described();
        for flag in UNUSED {
            let name = format!("--{}", flag.name);
            let words = text.split_whitespace().filter(|word| **word == name).count();
            assert_eq!(words, 1, "{name}");
        }
    }
}
