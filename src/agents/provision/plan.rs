//! What to do, in which order. Pure.

use std::path::{Path, PathBuf};

use crate::platform::systemd::Lasting;
use crate::wire::cloud_config::config::{
    CloudConfig, DropIn, FILE_MODE, Unit, Update, User, WriteFile, clean,
};
use crate::wire::cloud_config::metadata::Metadata;
use crate::wire::cloud_config::outputs;
use crate::wire::cloud_config::substitute::Addresses;

/// The user that everybody logs in as.
pub const CORE: &str = "core";

/// The drop-in that gives a service what the cloud-config says of it.
const DROP_IN: &str = "20-cloudinit.conf";

const ENVIRONMENT: &str = "/etc/environment";

/// What to plan from.
#[derive(Debug, Clone, Copy)]
pub struct Wishes<'a> {
    /// The cloud-config; an empty one where user-data is none.
    pub config: &'a CloudConfig,
    /// The script, where user-data is one.
    pub script: Option<&'a str>,
    /// What the source says of this machine.
    pub metadata: &'a Metadata,
    /// The addresses of this machine.
    pub addresses: &'a Addresses,
    /// The name of the set of keys that are given here.
    pub ssh_key_name: &'a str,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Names the machine.
    SetHostname(String),
    /// Makes a user, or gives the one that is there its password.
    EnsureUser(User),
    /// Replaces one set of a user's keys.
    SetKeys {
        /// The user.
        user: String,
        /// The set's name.
        set: String,
        /// The keys.
        keys: Vec<String>,
    },
    /// Replaces one set of a user's keys by those that an address lists.
    ImportKeys {
        /// The user.
        user: String,
        /// The set's name.
        set: String,
        /// The address.
        url: String,
    },
    /// Writes a file.
    WriteFile(WriteFile),
    /// Sets lines of `update.conf`.
    SetUpdateConf(Update),
    /// Writes `/etc/hosts`.
    WriteHosts,
    /// Sets lines of `/etc/environment`.
    SetEnvironment(Vec<(String, String)>),
    /// Something of a unit; where it fails, the next steps are still done.
    Unit {
        /// The unit.
        unit: String,
        /// What to do with it.
        step: UnitStep,
    },
    /// Runs a script as a unit of its own.
    RunScript(String),
    /// Cannot be done; this says what and why.
    Refuse(String),
}

/// One thing to do with a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnitStep {
    /// Writes its file or one that amends it.
    Place {
        /// Where.
        path: PathBuf,
        /// What.
        content: String,
    },
    /// Links it to nothing.
    Mask {
        /// The link.
        path: PathBuf,
    },
    /// Removes a link to nothing, or an empty file.
    Unmask {
        /// The link.
        path: PathBuf,
    },
    /// Does what its `[Install]` says.
    Enable(Lasting),
    /// Reads all units again, if any was changed.
    Reload,
    /// Runs a job and waits for it.
    Command(String),
    /// Cannot be done: the name is none of a file.
    Refuse(String),
}

/// Plans all of it.
pub fn plan(wishes: Wishes<'_>) -> Vec<Step> {
    let mut steps = Vec::new();
    steps.extend(hostname(wishes).map(Step::SetHostname));
    let users = wishes.config.users.iter().filter(|user| !user.name.is_empty());
    steps.extend(users.flat_map(|user| user_steps(user, wishes.ssh_key_name)));
    steps.extend(core_keys(wishes));
    steps.extend(files(wishes.config));
    steps.extend(environment(wishes));
    steps.extend(units(wishes.config));
    steps.extend(wishes.script.map(|script| Step::RunScript(script.to_owned())));
    steps
}

fn hostname(wishes: Wishes<'_>) -> Option<String> {
    let names = [&wishes.config.hostname, &wishes.metadata.hostname];
    names.into_iter().find(|name| !name.is_empty()).cloned()
}

fn user_steps(user: &User, key_name: &str) -> Vec<Step> {
    let mut steps = vec![Step::EnsureUser(user.clone())];
    if !user.ssh_authorized_keys.is_empty() {
        steps.push(Step::SetKeys {
            user: user.name.clone(),
            set: key_name.to_owned(),
            keys: user.ssh_authorized_keys.clone(),
        });
    }
    let import = |set, url| Step::ImportKeys { user: user.name.clone(), set, url };
    steps.extend(user.github_users.iter().map(|name| {
        import(format!("github-{name}"), format!("https://api.github.com/users/{name}/keys"))
    }));
    if !user.import_url.is_empty() {
        steps.push(import(key_name.to_owned(), user.import_url.clone()));
    }
    steps
}

fn core_keys(wishes: Wishes<'_>) -> Option<Step> {
    let mut keys = wishes.config.ssh_authorized_keys.clone();
    keys.extend(wishes.metadata.ssh_keys.iter().cloned());
    let set = wishes.ssh_key_name.to_owned();
    (!keys.is_empty()).then(|| Step::SetKeys { user: CORE.to_owned(), set, keys })
}

fn files(config: &CloudConfig) -> Vec<Step> {
    let ours = |path: &str, content: String| {
        Step::WriteFile(WriteFile {
            path: path.to_owned(),
            content: content.into_bytes(),
            owner: String::new(),
            mode: FILE_MODE,
        })
    };
    let mut steps: Vec<_> = config.write_files.iter().cloned().map(Step::WriteFile).collect();
    let coreos = &config.coreos;
    steps.extend(outputs::oem_release(&coreos.oem).map(|text| ours("/etc/oem-release", text)));
    if !coreos.update.settings.is_empty() {
        steps.push(Step::SetUpdateConf(coreos.update.clone()));
    }
    if !config.manage_etc_hosts.is_empty() {
        steps.push(Step::WriteHosts);
    }
    let flannel = outputs::flannel_options(&coreos.flannel);
    steps.extend(flannel.map(|text| ours("/run/flannel/options.env", text)));
    steps
}

fn environment(wishes: Wishes<'_>) -> Option<Step> {
    let variables = wishes.addresses.variables();
    let written = |file: &WriteFile| clean(&file.path) == Path::new(ENVIRONMENT);
    let theirs = wishes.config.write_files.iter().any(written);
    (!theirs && !variables.is_empty()).then_some(Step::SetEnvironment(variables))
}

fn units(config: &CloudConfig) -> Vec<Step> {
    let mut all = config.coreos.units.clone();
    all.extend(service_units(config));
    all.extend(update_units(&config.coreos.update));
    all.retain(|unit| !unit.name.is_empty());
    let mut steps: Vec<_> = all.iter().flat_map(placing).collect();
    steps.push(of("systemd", UnitStep::Reload));
    let network = |unit: &Unit| is_network(&unit.name) && touches(unit);
    if all.iter().any(network) {
        steps.push(of("systemd-networkd.service", UnitStep::Command("restart".to_owned())));
    }
    let commands = all.iter().filter(|unit| !is_network(&unit.name) && !unit.command.is_empty());
    steps.extend(commands.map(|unit| of(&unit.name, UnitStep::Command(unit.command.clone()))));
    steps
}

/// The services that have a section of their own.
fn service_units(config: &CloudConfig) -> Vec<Unit> {
    let coreos = &config.coreos;
    let services = [
        ("etcd.service", &coreos.etcd),
        ("etcd2.service", &coreos.etcd2),
        ("fleet.service", &coreos.fleet),
        ("locksmithd.service", &coreos.locksmith),
    ];
    let unit = |(name, settings): (&str, &Vec<_>)| {
        let drop_in =
            outputs::drop_in(settings).map(|content| DropIn { name: DROP_IN.to_owned(), content });
        Unit {
            name: name.to_owned(),
            runtime: true,
            drop_ins: drop_in.into_iter().collect(),
            ..Unit::default()
        }
    };
    services.into_iter().map(unit).collect()
}

/// What follows from `coreos.update`.
fn update_units(update: &Update) -> Vec<Unit> {
    let unit = |name: &str, command: &str| Unit {
        name: name.to_owned(),
        command: command.to_owned(),
        runtime: true,
        ..Unit::default()
    };
    let locksmith = update.reboot_strategy().map(|strategy| match strategy {
        "off" => Unit { mask: true, ..unit("locksmithd.service", "stop") },
        _ => unit("locksmithd.service", "restart"),
    });
    let engine = update
        .moves_engine()
        .then(|| Unit { runtime: false, ..unit("update-engine.service", "restart") });
    locksmith.into_iter().chain(engine).collect()
}

fn placing(unit: &Unit) -> Vec<Step> {
    if !is_file_name(&unit.name) {
        let why = "its name is none of a file".to_owned();
        return vec![of(&unit.name, UnitStep::Refuse(why))];
    }
    let folder = folder(unit);
    let path = folder.join(&unit.name);
    let mut steps = Vec::new();
    if !unit.content.is_empty() {
        steps.push(UnitStep::Place { path: path.clone(), content: unit.content.clone() });
    }
    for drop_in in &unit.drop_ins {
        steps.extend(amending(drop_in, &folder.join(format!("{}.d", unit.name))));
    }
    if unit.mask {
        steps.push(UnitStep::Mask { path });
    } else if unit.runtime {
        steps.push(UnitStep::Unmask { path });
    }
    if unit.enable && !is_network(&unit.name) {
        steps.push(UnitStep::Enable(lasting(unit)));
    }
    steps.into_iter().map(|step| of(&unit.name, step)).collect()
}

fn amending(drop_in: &DropIn, folder: &Path) -> Option<UnitStep> {
    if drop_in.name.is_empty() || drop_in.content.is_empty() {
        return None;
    }
    Some(if is_file_name(&drop_in.name) {
        UnitStep::Place { path: folder.join(&drop_in.name), content: drop_in.content.clone() }
    } else {
        UnitStep::Refuse(format!(
            "its drop-in `{}` has a name that is none of a file",
            drop_in.name
        ))
    })
}

fn of(unit: &str, step: UnitStep) -> Step {
    Step::Unit { unit: unit.to_owned(), step }
}

fn is_file_name(name: &str) -> bool {
    !name.contains(['/', '\0']) && name != "." && name != ".."
}

fn is_network(unit: &str) -> bool {
    [".network", ".netdev", ".link"].iter().any(|suffix| unit.ends_with(suffix))
}

/// Tells whether a unit's files are changed at all.
fn touches(unit: &Unit) -> bool {
    !unit.content.is_empty() || !unit.drop_ins.is_empty() || unit.mask || unit.runtime
}

fn lasting(unit: &Unit) -> Lasting {
    if unit.runtime { Lasting::Runtime } else { Lasting::Persistent }
}

fn folder(unit: &Unit) -> PathBuf {
    let area = match lasting(unit) {
        Lasting::Runtime => "/run/systemd",
        Lasting::Persistent => "/etc/systemd",
    };
    Path::new(area).join(if is_network(&unit.name) { "network" } else { "system" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(yaml: &str) -> Vec<Step> {
        let config = CloudConfig::parse(yaml).unwrap();
        plan(Wishes {
            config: &config,
            script: None,
            metadata: &Metadata::default(),
            addresses: &Addresses::default(),
            ssh_key_name: "coreos-cloudinit",
        })
    }

    /// The unit steps but those of every plan, in words.
    fn unit_steps(yaml: &str) -> Vec<String> {
        let always = planned("");
        let words = |step: Step| {
            if always.contains(&step) && step != of("systemd", UnitStep::Reload) {
                return None;
            }
            let Step::Unit { unit, step } = step else { return None };
            Some(match step {
                UnitStep::Place { path, .. } => format!("place {}", path.display()),
                UnitStep::Mask { path } => format!("mask {}", path.display()),
                UnitStep::Unmask { path } => format!("unmask {}", path.display()),
                UnitStep::Enable(lasting) => format!("enable {unit} {lasting:?}"),
                UnitStep::Reload => "reload".to_owned(),
                UnitStep::Command(command) => format!("{command} {unit}"),
                UnitStep::Refuse(why) => format!("refuse {unit}: {why}"),
            })
        };
        planned(yaml).into_iter().filter_map(words).collect()
    }

    #[test]
    fn nothing_said_lifts_runtime_masks_of_the_services_and_no_more() {
        let unmasked: Vec<_> = planned("")
            .into_iter()
            .filter_map(|step| {
                let Step::Unit { step: UnitStep::Unmask { path }, .. } = step else { return None };
                Some(path)
            })
            .collect();
        let expected = ["etcd", "etcd2", "fleet", "locksmithd"]
            .map(|name| PathBuf::from(format!("/run/systemd/system/{name}.service")));
        assert_eq!(unmasked, expected);
        assert_eq!(planned("").len(), 5);
    }

    #[test]
    fn a_units_kind_and_lifetime_tell_its_folder() {
        for (name, runtime, path) in [
            ("a.service", false, "/etc/systemd/system/a.service"),
            ("a.service", true, "/run/systemd/system/a.service"),
            ("a.mount", false, "/etc/systemd/system/a.mount"),
            ("a.network", false, "/etc/systemd/network/a.network"),
            ("a.netdev", true, "/run/systemd/network/a.netdev"),
            ("a.link", false, "/etc/systemd/network/a.link"),
        ] {
            let yaml = format!(
                "coreos:\n  units:\n  - name: {name}\n    runtime: {runtime}\n    content: x\n"
            );
            assert_eq!(unit_steps(&yaml)[0], format!("place {path}"));
        }
    }

    #[test]
    fn units_are_placed_amended_masked_and_enabled_before_any_runs() {
        let steps = unit_steps(
            "coreos:\n  units:\n  - {name: a.service, command: start, enable: true, content: x}\n  \
             - name: b.service\n    command: stop\n    mask: true\n    drop_ins:\n    - {name: \
             1.conf, content: y}\n    - {name: 2.conf}\n    - {content: z}\n  - {name: n.network, \
             command: start, enable: true, content: x}\n  - {command: start}\n  - {name: \
             c.service, runtime: true, enable: true}\n",
        );
        assert_eq!(
            steps,
            [
                "place /etc/systemd/system/a.service",
                "enable a.service Persistent",
                "place /etc/systemd/system/b.service.d/1.conf",
                "mask /etc/systemd/system/b.service",
                "place /etc/systemd/network/n.network",
                "unmask /run/systemd/system/c.service",
                "enable c.service Runtime",
                "reload",
                "restart systemd-networkd.service",
                "start a.service",
                "stop b.service",
            ]
        );
    }

    #[test]
    fn update_settings_move_locksmith_and_the_engine() {
        for (yaml, expected) in [
            (
                "reboot-strategy: off",
                &[
                    "mask /run/systemd/system/locksmithd.service",
                    "reload",
                    "stop locksmithd.service",
                ][..],
            ),
            ("reboot-strategy: reboot", &["reload", "restart locksmithd.service"]),
            ("reboot-strategy: etcd-lock", &["reload", "restart locksmithd.service"]),
            ("group: beta", &["reload", "restart update-engine.service"]),
            ("server: http://a/", &["reload", "restart update-engine.service"]),
            (
                "{group: a, server: b, reboot_strategy: off}",
                &[
                    "mask /run/systemd/system/locksmithd.service",
                    "reload",
                    "stop locksmithd.service",
                    "restart update-engine.service",
                ],
            ),
        ] {
            let steps = unit_steps(&format!("coreos:\n  update:\n    {yaml}\n"));
            assert_eq!(steps, expected, "{yaml}");
        }
    }

    #[test]
    fn a_name_that_is_none_of_a_file_is_refused_by_name() {
        let steps = unit_steps(
            "coreos:\n  units:\n  - {name: ../a.service, content: x}\n  - name: b.service\n    \
             drop_ins: [{name: a/b.conf, content: x}]\n",
        );
        assert_eq!(
            steps,
            [
                "refuse ../a.service: its name is none of a file",
                "refuse b.service: its drop-in `a/b.conf` has a name that is none of a file",
                "reload",
            ]
        );
    }

    #[test]
    fn the_config_names_the_machine_before_the_metadata_does_and_keys_are_joined() {
        let config = CloudConfig::parse("hostname: a\nssh_authorized_keys: [k1]\n").unwrap();
        let empty = CloudConfig::default();
        let metadata = Metadata {
            hostname: "b".to_owned(),
            ssh_keys: vec!["k2".to_owned()],
            addresses: Addresses::default(),
        };
        let of = |config| {
            plan(Wishes {
                config,
                script: None,
                metadata: &metadata,
                addresses: &metadata.addresses,
                ssh_key_name: "set",
            })
        };
        let keys = |keys: &[&str]| Step::SetKeys {
            user: "core".to_owned(),
            set: "set".to_owned(),
            keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        };
        assert_eq!(of(&config)[..2], [Step::SetHostname("a".to_owned()), keys(&["k1", "k2"])]);
        assert_eq!(of(&empty)[..2], [Step::SetHostname("b".to_owned()), keys(&["k2"])]);
    }

    #[test]
    fn users_come_before_files_and_the_environment_is_left_to_whoever_writes_it() {
        let addresses = Addresses { private_ipv4: "192.0.2.1".to_owned(), ..Addresses::default() };
        let environment = |yaml: &str| {
            let config = CloudConfig::parse(yaml).unwrap();
            let metadata = Metadata::default();
            let steps = plan(Wishes {
                config: &config,
                script: Some("#!/bin/sh"),
                metadata: &metadata,
                addresses: &addresses,
                ssh_key_name: "set",
            });
            assert_eq!(steps.last(), Some(&Step::RunScript("#!/bin/sh".to_owned())));
            steps.into_iter().any(|step| matches!(step, Step::SetEnvironment(_)))
        };
        assert!(environment("write_files: [{path: /etc/env}]"));
        assert!(!environment("write_files: [{path: /etc/./environment}]"));
        let steps = planned("users: [{name: a}, {gecos: nameless}]\nwrite_files: [{path: /a}]\n");
        assert!(matches!(steps[..2], [Step::EnsureUser(_), Step::WriteFile(_)]));
    }

    #[test]
    fn keys_are_imported_after_those_that_are_written_down() {
        let steps = planned(
            "users:\n- name: a\n  ssh_authorized_keys: [k]\n  coreos_ssh_import_github: g\n  \
             coreos_ssh_import_url: http://keys/\n",
        );
        let import = |set: &str, url: &str| Step::ImportKeys {
            user: "a".to_owned(),
            set: set.to_owned(),
            url: url.to_owned(),
        };
        assert!(matches!(&steps[1], Step::SetKeys { user, .. } if user == "a"));
        assert_eq!(
            steps[2..4],
            [
                import("github-g", "https://api.github.com/users/g/keys"),
                import("coreos-cloudinit", "http://keys/"),
            ]
        );
    }
}
