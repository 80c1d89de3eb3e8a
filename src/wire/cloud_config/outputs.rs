//! The texts of the files that a cloud-config becomes.

use std::collections::BTreeMap;

use super::config::{Oem, Setting, Update};
use crate::wire::env_file::{self, EnvFileError};

/// Returns the drop-in that gives a service its settings; `None` if there are none.
pub fn drop_in(settings: &[Setting]) -> Option<String> {
    if settings.is_empty() {
        return None;
    }
    let lines = settings.iter().map(|setting| {
        format!("Environment=\"{}={}\"\n", setting.variable, quotable(&setting.value))
    });
    Some(format!("[Service]\n{}", lines.collect::<String>()))
}

/// What would end the quotes or the line is written as systemd reads it back.
fn quotable(value: &str) -> String {
    value.replace('"', "\\\"").replace('\n', "\\n")
}

/// Returns `/run/flannel/options.env`; `None` if there is nothing to set.
pub fn flannel_options(settings: &[Setting]) -> Option<String> {
    let lines: Vec<_> =
        settings.iter().map(|setting| format!("{}={}", setting.variable, setting.value)).collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// Returns `/etc/oem-release`; `None` if the OEM has no id.
pub fn oem_release(oem: &Oem) -> Option<String> {
    if oem.id.is_empty() {
        return None;
    }
    let Oem { id, version_id, name, home_url, bug_report_url } = oem;
    Some(format!(
        "ID={id}\nVERSION_ID={version_id}\nNAME=\"{name}\"\nHOME_URL=\"{home_url}\"\n\
         BUG_REPORT_URL=\"{bug_report_url}\"\n"
    ))
}

/// Returns `/etc/hosts` for a machine that finds itself by its name.
pub fn hosts(hostname: &str) -> String {
    format!("127.0.0.1 {hostname}\n")
}

/// Sets what `update` sets in the text of `update.conf`; `None` where nothing changes.
pub fn update_conf(existing: &[u8], update: &Update) -> Result<Option<Vec<u8>>, EnvFileError> {
    let values: BTreeMap<_, _> = update
        .settings
        .iter()
        .map(|setting| (setting.variable.clone(), setting.value.clone()))
        .collect();
    env_file::merge(existing, &values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::cloud_config::config::CloudConfig;

    fn config(text: &str) -> CloudConfig {
        CloudConfig::parse(text).unwrap()
    }

    #[test]
    fn etcds_drop_in_has_its_settings_in_the_order_of_the_table() {
        let coreos = config(
            "coreos:\n  etcd:\n    peer-bind-addr: \"127.0.0.1:7002\"\n    name: node001\n    \
             discovery: http://disco.example.com/foobar\n    snapshot_count: 10\n    \
             cluster_remove_delay: 1.5\n    snapshot: true\n",
        )
        .coreos;
        assert_eq!(
            drop_in(&coreos.etcd).unwrap(),
            "[Service]\n\
             Environment=\"ETCD_CLUSTER_REMOVE_DELAY=1.5\"\n\
             Environment=\"ETCD_DISCOVERY=http://disco.example.com/foobar\"\n\
             Environment=\"ETCD_NAME=node001\"\n\
             Environment=\"ETCD_PEER_BIND_ADDR=127.0.0.1:7002\"\n\
             Environment=\"ETCD_SNAPSHOT=true\"\n\
             Environment=\"ETCD_SNAPSHOTCOUNT=10\"\n"
        );
    }

    #[test]
    fn etcd2s_drop_in_has_its_settings_in_the_order_of_the_table() {
        let coreos = config(
            "coreos:\n  etcd2:\n    snapshot_count: 5\n    name: core1\n    proxy: on\n    \
             initial-cluster: \"core1=http://192.0.2.1:2380\"\n    election_timeout: 0x10\n    \
             debug: yes\n    strict-reconfig-check: false\n    max_wals: 0\n    cors: ''\n",
        )
        .coreos;
        assert_eq!(
            drop_in(&coreos.etcd2).unwrap(),
            "[Service]\n\
             Environment=\"ETCD_DEBUG=true\"\n\
             Environment=\"ETCD_ELECTION_TIMEOUT=16\"\n\
             Environment=\"ETCD_INITIAL_CLUSTER=core1=http://192.0.2.1:2380\"\n\
             Environment=\"ETCD_NAME=core1\"\n\
             Environment=\"ETCD_PROXY=on\"\n\
             Environment=\"ETCD_SNAPSHOT_COUNT=5\"\n"
        );
    }

    #[test]
    fn fleets_drop_in_has_its_settings_in_the_order_of_the_table() {
        let coreos = config(
            "coreos:\n  fleet:\n    public-ip: 12.34.56.78\n    metadata: \"region=lab\"\n    \
             agent_ttl: 30s\n    etcd_request_timeout: 3\n    verify_units: true\n",
        )
        .coreos;
        assert_eq!(
            drop_in(&coreos.fleet).unwrap(),
            "[Service]\n\
             Environment=\"FLEET_AGENT_TTL=30s\"\n\
             Environment=\"FLEET_ETCD_REQUEST_TIMEOUT=3\"\n\
             Environment=\"FLEET_METADATA=region=lab\"\n\
             Environment=\"FLEET_PUBLIC_IP=12.34.56.78\"\n\
             Environment=\"FLEET_VERIFY_UNITS=true\"\n"
        );
    }

    #[test]
    fn locksmiths_drop_in_has_its_settings_in_the_order_of_the_table() {
        let coreos = config(
            "coreos:\n  locksmith:\n    window-length: 1h\n    window-start: \"Thu 04:00\"\n    \
             group: a\n    endpoint: http://127.0.0.1:2379\n",
        )
        .coreos;
        assert_eq!(
            drop_in(&coreos.locksmith).unwrap(),
            "[Service]\n\
             Environment=\"LOCKSMITHD_ENDPOINT=http://127.0.0.1:2379\"\n\
             Environment=\"LOCKSMITHD_GROUP=a\"\n\
             Environment=\"REBOOT_WINDOW_START=Thu 04:00\"\n\
             Environment=\"REBOOT_WINDOW_LENGTH=1h\"\n"
        );
    }

    #[test]
    fn no_settings_are_no_drop_in() {
        let coreos = config("coreos:\n  etcd2:\n  fleet: {}\n").coreos;
        for settings in [&coreos.etcd, &coreos.etcd2, &coreos.fleet, &coreos.locksmith] {
            assert_eq!(drop_in(settings), None);
        }
    }

    #[test]
    fn a_quote_in_a_value_does_not_end_the_line() {
        let settings = [Setting { variable: "A".to_owned(), value: "a\"b\nc".to_owned() }];
        let expected = "[Service]\nEnvironment=\"A=a\\\"b\\nc\"\n";
        assert_eq!(drop_in(&settings).unwrap(), expected);
    }

    #[test]
    fn flannels_options_have_no_line_break_at_the_end() {
        let coreos = config(
            "coreos:\n  flannel:\n    interface: eth1\n    etcd_prefix: /coreos.com/network\n",
        )
        .coreos;
        assert_eq!(
            flannel_options(&coreos.flannel).unwrap(),
            "FLANNELD_ETCD_PREFIX=/coreos.com/network\nFLANNELD_IFACE=eth1"
        );
        assert_eq!(flannel_options(&[]), None);
    }

    #[test]
    fn an_oem_is_written_only_if_it_has_an_id() {
        let oem = Oem {
            id: "rackspace".to_owned(),
            name: "Rackspace Cloud Servers".to_owned(),
            version_id: "168.0.0".to_owned(),
            home_url: "https://www.rackspace.com/cloud/servers/".to_owned(),
            bug_report_url: "https://github.com/coreos/coreos-overlay".to_owned(),
        };
        assert_eq!(
            oem_release(&oem).unwrap(),
            "ID=rackspace\nVERSION_ID=168.0.0\nNAME=\"Rackspace Cloud Servers\"\n\
             HOME_URL=\"https://www.rackspace.com/cloud/servers/\"\n\
             BUG_REPORT_URL=\"https://github.com/coreos/coreos-overlay\"\n"
        );
        assert_eq!(oem_release(&Oem { id: String::new(), ..oem }), None);
    }

    #[test]
    fn update_conf_keeps_what_it_does_not_set() {
        let update = config(
            "coreos:\n  update:\n    server: http://a.example/\n    reboot-strategy: off\n    \
             group: beta\n",
        )
        .coreos
        .update;
        let merge = |existing: &str| {
            let merged = update_conf(existing.as_bytes(), &update).unwrap().unwrap();
            String::from_utf8(merged).unwrap()
        };
        assert_eq!(merge(""), "GROUP=beta\nREBOOT_STRATEGY=off\nSERVER=http://a.example/\n");
        assert_eq!(
            merge("# mine\nSERVER=x\nGROUPS=keep\nFOO=bar"),
            "# mine\nSERVER=http://a.example/\nGROUPS=keep\nFOO=bar\nGROUP=beta\n\
             REBOOT_STRATEGY=off\n"
        );
    }

    #[test]
    fn hosts_names_this_machine() {
        assert_eq!(hosts("core1"), "127.0.0.1 core1\n");
    }
}
