//! One node with a real systemd: what needs that and no cluster.

use std::time::Duration;

use testbed::cluster::{Cluster, Kind};
use testbed::net::Net;
use testbed::process::Lifetime;
use testbed::progress::Steps;
use testbed::ssh::{Key, Ssh};
use testbed::wait;

use super::{BOOT, SHUTDOWN};

/// What one command on the machine may take.
const SOON: Duration = Duration::from_mins(1);
const USER_DATA: &str = "/var/lib/coreos-install/user_data";
const UNIT: &str = r"user-cloudinit@var-lib-coreos\\x2dinstall-user_data.service";
/// The mistake, a tab, is in line 4.
const BROKEN: &str = "#cloud-config\nhostname: never\nwrite_files:\n\t- {path: /etc/never}\n";

/// A node that is up.
fn node(steps: &Steps) -> Cluster {
    let mut cluster = Cluster::empty(Kind::Containers, Lifetime::Owned).unwrap();
    cluster.add(1, "#cloud-config\nhostname: first\n").unwrap();
    steps.step("a node boots", || cluster.machine(1).ssh().ready(BOOT).unwrap());
    cluster
}

#[test]
fn the_real_systemd_keeps_the_contract_of_all_service_managers() {
    let steps = Steps::default();
    let cluster = node(&steps);
    let ssh = cluster.machine(1).ssh();
    steps.step("the contract is carried in and kept", || {
        let program = std::fs::read(env!("CARGO_BIN_EXE_testbed")).unwrap();
        ssh.put("/home/core/testbed", &program).unwrap();
        ssh.run("chmod +x /home/core/testbed").unwrap();
        ssh.root("/home/core/testbed contract /run/contract").unwrap();
    });
    let states = ssh.root("systemctl list-units --all --plain --no-legend 'corebox-contract*'");
    assert_eq!(states.unwrap().trim(), "", "it leaves nothing behind");
}

#[test]
fn a_broken_cloud_config_is_named_by_its_line_and_leaves_the_way_in() {
    let steps = Steps::default();
    let mut cluster = node(&steps);
    let key = steps.step("a config drive: its metadata is applied, its user-data is not", || {
        broken_drive(&cluster)
    });
    let changed = cluster.lab().sockets().join("new");
    std::fs::create_dir_all(&changed).unwrap();
    let ssh = Ssh::new(cluster.net().namespace(), Net::address(1), &key, &changed);
    steps.step("the key of the metadata opens the door", || ssh.ready(SOON).unwrap());

    steps.step("the machine's own user-data breaks, and it boots again", || {
        ssh.run(&format!("printf '{BROKEN}' | sudo -n tee {USER_DATA}")).unwrap();
        ssh.forget();
        cluster.machine_mut(1).shut_down(SHUTDOWN).unwrap();
        cluster.machine_mut(1).power_on().unwrap();
        ssh.ready(BOOT).unwrap();
    });
    steps.step("the journal names the line, and the unit has failed", || {
        wait::until("the unit to fail", SOON, || {
            let state = ssh.root(&format!("systemctl is-failed {UNIT} || true"));
            let state = state.map_err(|error| error.to_string())?;
            if state.trim() == "failed" { Ok(()) } else { Err(state) }
        })
        .unwrap();
        let said = ssh.root(&format!("journalctl -b --no-pager -o cat -u {UNIT}")).unwrap();
        let named = said.lines().find(|line| line.contains("user-data is not applied"));
        assert!(named.is_some_and(|line| line.contains("line 4")), "{said}");
        assert_eq!(ssh.run("hostname").unwrap().trim(), "named", "as it was before");
    });
    ssh.forget();
}

/// Provisions the node from a config drive with good metadata and broken user-data; returns the
/// key that the metadata brings.
fn broken_drive(cluster: &Cluster) -> Key {
    let ssh = cluster.machine(1).ssh();
    let key = Key::make(&cluster.lab().folder("new").unwrap()).unwrap();
    let metadata = format!(r#"{{"hostname":"named","public_keys":{{"a":"{}"}}}}"#, key.public());
    ssh.run("mkdir -p drive/openstack/latest").unwrap();
    ssh.put("drive/openstack/latest/meta_data.json", metadata.as_bytes()).unwrap();
    ssh.put("drive/openstack/latest/user_data", BROKEN.as_bytes()).unwrap();
    let command = "sudo -n coreos-cloudinit --from-configdrive=/home/core/drive";
    let ended = ssh.attempt(command, SOON).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    let errors: Vec<_> = ended.stderr.lines().filter(|line| line.contains("ERROR")).collect();
    assert!(errors.len() == 1 && errors[0].contains("line 4"), "{}", ended.stderr);
    assert_eq!(ssh.run("hostname").unwrap().trim(), "named");
    ssh.run("test ! -e /etc/never").unwrap();
    key
}
