//! What must be true of the units in `rootfs/`, whatever else changes in them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::files;

const UNITS: &str = "rootfs/usr/lib/systemd/system";

/// Programs of Debian's that units of ours call.
const DEBIANS: &[&str] = &["ssh-keygen", "systemctl", "udevadm"];

fn units() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(UNITS)
}

/// Every unit file and drop-in, by its path below the folder of units.
fn texts() -> BTreeMap<String, String> {
    let mut texts = BTreeMap::new();
    for name in files::names(&units()).unwrap() {
        let path = units().join(&name);
        if path.is_dir() && !name.contains(".wants") {
            for part in files::names(&path).unwrap() {
                let text = files::read_text(&path.join(&part)).unwrap();
                texts.insert(format!("{name}/{part}"), text);
            }
        } else if path.is_file() && !path.is_symlink() {
            texts.insert(name, files::read_text(&path).unwrap());
        }
    }
    assert!(texts.contains_key("etcd2.service"));
    texts
}

/// The words of every line `key=…` of a unit.
fn words<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    let values =
        text.lines().filter_map(|line| line.split_once('=')).filter(|(name, _)| *name == key);
    values.flat_map(|(_, value)| value.split_ascii_whitespace()).collect()
}

#[test]
fn nothing_waits_for_the_user_configuration_which_waits_for_what_it_starts() {
    for (name, text) in texts() {
        let waits = ["After", "Requires", "Requisite", "BindsTo"]
            .iter()
            .any(|key| words(&text, key).contains(&"user-config.target"));
        assert!(!waits, "{name} would wait for ever when a cloud-config starts it");
    }
}

#[test]
fn every_program_that_a_unit_calls_is_in_the_image() {
    for (name, text) in texts() {
        let programs = ["ExecStart", "ExecStartPre"].into_iter().flat_map(|key| {
            let lines =
                text.lines().filter_map(move |line| line.strip_prefix(key)?.strip_prefix('='));
            lines.filter_map(|line| line.split_ascii_whitespace().next())
        });
        // A leading `-`: its failure is none of the unit's.
        for program in programs.map(|word| word.trim_start_matches('-')) {
            let known = match program.strip_prefix("/usr/bin/") {
                Some(program) => {
                    corebox::cli::multicall::links().contains(&program)
                        || DEBIANS.contains(&program)
                }
                None if program.starts_with("/usr/lib/systemd/") => true,
                None => Path::new(env!("CARGO_MANIFEST_DIR"))
                    .join("rootfs")
                    .join(program.trim_start_matches('/'))
                    .is_file(),
            };
            assert!(known, "{name} calls {program}");
        }
    }
}

#[test]
fn both_stores_exclude_each_other() {
    let texts = texts();
    assert_eq!(words(&texts["etcd.service"], "Conflicts"), ["etcd2.service"]);
    assert_eq!(words(&texts["etcd2.service"], "Conflicts"), ["etcd.service"]);
}

#[test]
fn a_boot_is_only_complete_when_the_machine_is_well() {
    let texts = texts();
    assert!(units().join("multi-user.target.wants/boot-complete.target").is_symlink());
    let complete = &texts["boot-complete.target.d/10-corebox.conf"];
    assert_eq!(words(complete, "Requires"), ["corebox-health.service"]);
    assert_eq!(words(complete, "JobTimeoutAction"), ["reboot-force"]);
    let health = words(&texts["corebox-health.service"], "Requires");
    assert_eq!(health, ["ssh.service", "systemd-networkd-wait-online.service"]);
}
