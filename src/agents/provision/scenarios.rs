//! Whole runs against a machine in memory whose files are in a folder.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::fetch::scripted::{Answer, Scripted};
use super::run::{Options, Outcome, RunError, look, run};
use super::sources::{Source, config_url, select};
use super::{Machine, Root};
use crate::foundation::exit::chain;
use crate::foundation::random::Random;
use crate::foundation::tasks::Tasks;
use crate::platform::host::memory::MemoryHost;
use crate::platform::host::{Ended, Host as _};
use crate::platform::systemd::memory::MemorySystemd;
use crate::platform::systemd::{Lasting, UnitName};
use crate::wire::cloud_config::substitute::Addresses;

const FULL: &str = include_str!("../../../testbed/inputs/full.yml");
const CLUSTER: &str = include_str!("../../../testbed/inputs/cluster.yml");
const WORKER: &str = include_str!("../../../testbed/inputs/worker.yml");
const FLEET_ONLY: &str = include_str!("../../../testbed/inputs/fleet-only.yml");

/// A machine to provision.
struct Lab {
    folder: tempfile::TempDir,
    host: MemoryHost,
    systemd: MemorySystemd,
    fetch: Arc<Scripted>,
    addresses: Addresses,
    console: Vec<u8>,
}

impl Lab {
    fn new() -> Self {
        Self::with_network(&[])
    }

    fn with_network(answers: &[(&str, &[Answer])]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let host = MemoryHost::named("localhost");
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        host.write("/etc/passwd", format!("root:x:{uid}:{gid}::/root:/bin/sh\n").as_bytes());
        host.write("/etc/group", format!("root:x:{gid}:\n").as_bytes());
        for program in ["useradd", "chpasswd", "update-ssh-keys"] {
            host.install(program, |_| Ok(Ended { code: Some(0), ..Ended::default() }));
        }
        let systemd = MemorySystemd::below(&Tasks::default(), folder.path());
        Self {
            host,
            systemd,
            fetch: Arc::new(Scripted::new(answers)),
            addresses: Addresses { private_ipv4: "192.0.2.11".to_owned(), ..Addresses::default() },
            console: Vec::new(),
            folder,
        }
    }

    /// Makes units known, as files in `/usr` do.
    fn ships(self, units: &[&str]) -> Self {
        for unit in units {
            self.systemd.add(&name(unit), "[Service]\n");
        }
        self
    }

    fn machine(&self) -> Machine {
        Machine {
            host: Arc::new(self.host.clone()),
            systemd: Arc::new(self.systemd.clone()),
            fetch: self.fetch.clone(),
            root: Root::new(self.folder.path()),
            random: Arc::new(Random::seeded(1)),
        }
    }

    async fn run(&mut self, sources: Vec<Source>) -> Result<Outcome, RunError> {
        let options = self.options(sources);
        run(&options, &self.machine(), &mut self.console).await
    }

    fn options(&self, sources: Vec<Source>) -> Options {
        Options {
            sources,
            environment: self.addresses.clone(),
            workspace: "/var/lib/coreos-cloudinit".into(),
            ssh_key_name: "coreos-cloudinit".to_owned(),
        }
    }

    /// Puts user-data into a file beside the root and runs from it.
    async fn apply(&mut self, user_data: &[u8]) -> (Option<String>, Vec<String>) {
        let file = self.user_data(user_data);
        self.run(vec![file]).await.map(split).unwrap()
    }

    fn user_data(&self, user_data: &[u8]) -> Source {
        let path = self.folder.path().join("user-data");
        fs::write(&path, user_data).unwrap();
        Source::File(path)
    }

    /// Makes a config drive.
    fn drive(&self, user_data: Option<&str>, metadata: Option<&str>) -> Source {
        let path = self.folder.path().join("drive");
        let latest = path.join("openstack/latest");
        fs::create_dir_all(&latest).unwrap();
        for (file, text) in [("user_data", user_data), ("meta_data.json", metadata)] {
            if let Some(text) = text {
                fs::write(latest.join(file), text).unwrap();
            }
        }
        Source::ConfigDrive(path)
    }

    fn at(&self, path: &str) -> std::path::PathBuf {
        self.machine().root.at(path)
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap_or_else(|error| format!("{path}: {error}"))
    }

    fn mode(&self, path: &str) -> u32 {
        fs::metadata(self.at(path)).unwrap().permissions().mode() & 0o7777
    }

    /// What was run, with what each program read.
    fn ran(&self) -> Vec<String> {
        let shown = |program: &crate::platform::host::Program| {
            let mut words = vec![program.path.display().to_string()];
            words.extend(program.arguments.iter().map(|word| word.to_string_lossy().into_owned()));
            format!("{} <{}>", words.join(" "), String::from_utf8_lossy(&program.input))
        };
        self.host.ran().iter().map(shown).collect()
    }

    fn console(&self) -> String {
        String::from_utf8(self.console.clone()).unwrap()
    }
}

fn name(unit: &str) -> UnitName {
    UnitName::parse(unit).unwrap()
}

fn split(outcome: Outcome) -> (Option<String>, Vec<String>) {
    match outcome {
        Outcome::Ignition => (Some("ignition".to_owned()), Vec::new()),
        Outcome::Applied { refused, failures } => {
            (refused.map(|error| chain(&error)), failures.iter().map(|f| chain(f)).collect())
        }
    }
}

const NOTHING: (Option<String>, Vec<String>) = (None, Vec::new());

#[tokio::test(start_paused = true)]
async fn the_full_config_of_2015_has_every_effect_that_it_asks_for() {
    let mut lab = Lab::new().ships(&[
        "etcd2.service",
        "fleet.service",
        "flanneld.service",
        "locksmithd.service",
        "update-engine.service",
        "systemd-networkd.service",
        "systemd-timesyncd.service",
        "lab-beat.timer",
    ]);
    assert_eq!(lab.apply(FULL.as_bytes()).await, NOTHING);

    assert_eq!(lab.host.hostname().unwrap(), "core1");
    assert_eq!(
        lab.ran(),
        [
            "useradd --password * --comment Operator of the lab --create-home --groups \
             sudo,docker --shell /bin/bash ada <>",
            "update-ssh-keys -u core -a coreos-cloudinit <ssh-ed25519 \
             AAAAC3NzaC1lZDI1NTE5AAAAIEG2x1xPv/BtyW4T63+MhMAh1tqpjciyIqdoVPoH7+bl lab>",
        ]
    );
    files_of_the_full_config(&lab);
    units_of_the_full_config(&lab);
    assert_eq!(
        lab.systemd.log(),
        [
            "enable persistent lab-beat.timer",
            "daemon-reload",
            "restart systemd-networkd.service",
            "start etcd2.service",
            "start fleet.service",
            "start flanneld.service",
            "start lab-beat.timer",
            "restart locksmithd.service",
            "restart update-engine.service",
        ]
    );
    assert_eq!(lab.console(), "");
}

fn files_of_the_full_config(lab: &Lab) {
    for (path, mode, text) in [
        ("/etc/motd.d/lab", 0o644, "This is a CoreBox lab machine.\n"),
        ("/etc/lab/answer", 0o600, "42\n"),
        (
            "/etc/coreos/update.conf",
            0o644,
            "GROUP=stable\nREBOOT_STRATEGY=etcd-lock\nSERVER=http://192.0.2.1:8000/v1/update/\n",
        ),
        ("/etc/hosts", 0o644, "127.0.0.1 core1\n"),
        ("/run/flannel/options.env", 0o644, "FLANNELD_ETCD_PREFIX=/coreos.com/network"),
        ("/etc/environment", 0o644, "COREOS_PRIVATE_IPV4=192.0.2.11\n"),
    ] {
        assert_eq!(lab.text(path), text);
        assert_eq!(lab.mode(path), mode, "{path}");
    }
    assert!(!lab.at("/etc/oem-release").exists());
}

fn units_of_the_full_config(lab: &Lab) {
    for (path, text) in [
        (
            "/run/systemd/system/etcd2.service.d/20-cloudinit.conf",
            "[Service]\n\
             Environment=\"ETCD_ADVERTISE_CLIENT_URLS=http://192.0.2.11:2379\"\n\
             Environment=\"ETCD_INITIAL_ADVERTISE_PEER_URLS=http://192.0.2.11:2380\"\n\
             Environment=\"ETCD_INITIAL_CLUSTER=core1=http://192.0.2.11:2380\"\n\
             Environment=\"ETCD_LISTEN_CLIENT_URLS=http://0.0.0.0:2379\"\n\
             Environment=\"ETCD_LISTEN_PEER_URLS=http://192.0.2.11:2380\"\n\
             Environment=\"ETCD_NAME=core1\"\n",
        ),
        (
            "/run/systemd/system/fleet.service.d/20-cloudinit.conf",
            "[Service]\n\
             Environment=\"FLEET_METADATA=disk=ssd,region=lab\"\n\
             Environment=\"FLEET_PUBLIC_IP=192.0.2.11\"\n",
        ),
        (
            "/run/systemd/system/locksmithd.service.d/20-cloudinit.conf",
            "[Service]\n\
             Environment=\"REBOOT_WINDOW_START=Thu 04:00\"\n\
             Environment=\"REBOOT_WINDOW_LENGTH=1h\"\n",
        ),
        (
            "/etc/systemd/system/flanneld.service.d/50-network-config.conf",
            "[Service]\nExecStartPre=/usr/bin/etcdctl set /coreos.com/network/config '{ \
             \"Network\": \"10.42.0.0/16\", \"Backend\": { \"Type\": \"vxlan\" } }'\n",
        ),
        (
            "/etc/systemd/system/lab-beat.timer",
            "[Unit]\nDescription=A beat every minute\n[Timer]\nOnBootSec=10s\n\
             OnUnitActiveSec=1min\n[Install]\nWantedBy=timers.target\n",
        ),
        (
            "/etc/systemd/system/lab-beat.service",
            "[Service]\nType=oneshot\nExecStart=/usr/bin/touch /run/lab-beat\n",
        ),
        ("/run/systemd/network/90-lab.network", "[Match]\nName=lab*\n[Network]\nDHCP=ipv4\n"),
    ] {
        assert_eq!(lab.text(path), text);
        assert_eq!(lab.mode(path), 0o644, "{path}");
    }
    let masked = fs::read_link(lab.at("/etc/systemd/system/systemd-timesyncd.service")).unwrap();
    assert_eq!(masked, Path::new("/dev/null"));
    assert!(!lab.at("/run/systemd/system/etcd.service.d").exists());
    assert_eq!(lab.systemd.enabled(&name("lab-beat.timer")), [Lasting::Persistent]);
}

#[tokio::test(start_paused = true)]
async fn the_other_configs_of_2015_start_their_services() {
    for (config, started) in [
        (CLUSTER, &["start etcd2.service", "start fleet.service"][..]),
        (WORKER, &["start etcd2.service", "start fleet.service"]),
        (FLEET_ONLY, &["start fleet.service"]),
    ] {
        let mut lab = Lab::new().ships(&["etcd2.service", "fleet.service"]);
        assert_eq!(lab.apply(config.as_bytes()).await, NOTHING);
        let log = lab.systemd.log();
        assert_eq!(log[0], "daemon-reload");
        assert_eq!(log[1..], *started);
        let fleet = lab.text("/run/systemd/system/fleet.service.d/20-cloudinit.conf");
        assert!(fleet.contains("Environment=\"FLEET_PUBLIC_IP=192.0.2.11\"\n"), "{fleet}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_boot_has_the_same_effects() {
    let units = ["etcd2.service", "fleet.service"];
    let mut lab = Lab::new().ships(&units);
    assert_eq!(lab.apply(CLUSTER.as_bytes()).await, NOTHING);
    let first = lab.systemd.log();
    let environment = fs::metadata(lab.at("/etc/environment")).unwrap().modified().unwrap();
    assert_eq!(lab.apply(CLUSTER.as_bytes()).await, NOTHING);
    assert_eq!(lab.systemd.log()[first.len()..], first);
    let again = fs::metadata(lab.at("/etc/environment")).unwrap().modified().unwrap();
    assert_eq!(again, environment, "what says the same is not written again");
}

#[tokio::test(start_paused = true)]
async fn a_unit_that_fails_is_reported_by_name_and_the_others_still_run() {
    let mut lab = Lab::new().ships(&["bad.service", "good.service"]);
    lab.systemd.fail_on_start(&name("bad.service"), true);
    let (refused, failures) = lab
        .apply(
            b"#cloud-config\ncoreos:\n  units:\n  - {name: bad.service, command: start}\n  - \
              {name: missing.service, command: start}\n  - {name: nonsense, command: start}\n  - \
              {name: good.service, command: start}\n",
        )
        .await;
    assert_eq!(refused, None);
    assert_eq!(
        failures,
        [
            "unit `bad.service`: the job for unit `bad.service` ended as `failed`; `systemctl \
             status bad.service` says why",
            "unit `missing.service`: unit `missing.service` does not exist",
            "unit `nonsense`: `nonsense` is not a unit name such as `web.service`",
        ]
    );
    assert_eq!(lab.systemd.log().last().unwrap(), "start good.service");
    assert!(lab.console().contains("coreos-cloudinit: unit `missing.service`: "));
}

#[tokio::test(start_paused = true)]
async fn a_job_that_never_ends_does_not_keep_the_next_one() {
    let mut lab = Lab::new().ships(&["slow.service", "good.service"]);
    lab.systemd.job_time(Duration::from_hours(1));
    let (_, failures) = lab
        .apply(b"#cloud-config\ncoreos:\n  units:\n  - {name: slow.service, command: start}\n")
        .await;
    assert_eq!(failures, ["unit `slow.service`: its job has not ended within 300s and goes on"]);
}

#[tokio::test(start_paused = true)]
async fn user_data_with_a_mistake_is_not_applied_but_name_and_keys_are() {
    for (user_data, expected) in [
        (
            "#cloud-config\nhostname: theirs\ncoreos:\n  units:\n    - name: a.service\n   oops\n",
            "line 6",
        ),
        ("#cloud-config\nhostname: theirs\nusers: nobody\n", "line 3: `users` must be a list"),
        (
            "#cloud-config\nhostname: theirs\nwrite_files:\n- path: /a\n  permissions: pants\n",
            "line 5: invalid value `pants` for `permissions`",
        ),
        (
            "#cloud-config\nwrite_files:\n- path: /a\n  encoding: rot13\n",
            "line 4: content cannot be decoded as \"rot13\"",
        ),
        (
            "#cloud-config\nwrite_files:\n- path: /a\n  encoding: base64\n  content: '*'\n",
            "line 4: content cannot be decoded as \"base64\"",
        ),
        ("who: knows\n", "Unrecognized user-data format: its first line must be"),
        ("MIME-Version: 1.0\n", "multipart user-data is not supported"),
    ] {
        let mut lab = Lab::new();
        let metadata = r#"{"hostname": "ours", "public_keys": {"a": "ssh-rsa A"}}"#;
        let drive = lab.drive(Some(user_data), Some(metadata));
        let (refused, failures) = split(lab.run(vec![drive]).await.unwrap());
        let refused = refused.unwrap();
        assert!(refused.contains(expected), "{refused}");
        assert_eq!(failures, Vec::<String>::new());
        assert_eq!(lab.host.hostname().unwrap(), "ours");
        assert_eq!(lab.ran(), ["update-ssh-keys -u core -a coreos-cloudinit <ssh-rsa A>"]);
        assert!(!lab.at("/a").exists());
        assert!(lab.console().contains(expected), "{}", lab.console());
    }
}

#[tokio::test(start_paused = true)]
async fn a_script_is_kept_and_run_after_everything_else() {
    let mut lab = Lab::new();
    let script = "#!/bin/bash\necho $private_ipv4 \\$private_ipv4\n";
    assert_eq!(lab.apply(script.as_bytes()).await, NOTHING);
    let unit = lab.text("/var/lib/coreos-cloudinit/scripts/unit-name");
    let word = unit.strip_prefix("coreos-cloudinit-").unwrap().strip_suffix(".service").unwrap();
    let path = format!("/var/lib/coreos-cloudinit/scripts/{word}");
    assert_eq!(lab.text(&path), "#!/bin/bash\necho 192.0.2.11 $private_ipv4\n");
    assert_eq!(lab.mode(&path), 0o744);
    let command = format!("run {unit} /bin/bash {}", lab.at(&path).display());
    assert_eq!(lab.systemd.log().last(), Some(&command));
}

#[tokio::test(start_paused = true)]
async fn an_ignition_config_is_left_alone() {
    let mut lab = Lab::new();
    let metadata = r#"{"hostname": "ours"}"#;
    let drive = lab.drive(Some(r#"{"ignitionVersion": 1}"#), Some(metadata));
    assert!(matches!(lab.run(vec![drive]).await.unwrap(), Outcome::Ignition));
    assert_eq!(lab.host.hostname().unwrap(), "localhost");
    assert_eq!(lab.systemd.log(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn gzip_is_unpacked_before_anything_else() {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(b"#cloud-config\nhostname: packed\n").unwrap();
    let mut lab = Lab::new();
    assert_eq!(lab.apply(&encoder.finish().unwrap()).await, NOTHING);
    assert_eq!(lab.host.hostname().unwrap(), "packed");
}

#[tokio::test(start_paused = true)]
async fn a_config_drive_may_lack_either_part_and_user_data_names_the_machine_first() {
    let mut lab = Lab::new();
    let empty = lab.drive(None, None);
    assert_eq!(split(lab.run(vec![empty]).await.unwrap()), NOTHING);
    assert_eq!(lab.systemd.log(), Vec::<String>::new());

    let both = lab.drive(
        Some("#cloud-config\nhostname: theirs\nssh_authorized_keys: [k1]\n"),
        Some(r#"{"hostname": "ours", "public_keys": {"a": "k2"}}"#),
    );
    assert_eq!(split(lab.run(vec![both]).await.unwrap()), NOTHING);
    assert_eq!(lab.host.hostname().unwrap(), "theirs");
    assert_eq!(lab.ran(), ["update-ssh-keys -u core -a coreos-cloudinit <k1\nk2>"]);
}

#[tokio::test(start_paused = true)]
async fn metadata_that_is_none_ends_the_run() {
    let mut lab = Lab::new();
    let drive = lab.drive(Some("#cloud-config\nhostname: a\n"), Some("{"));
    let error = lab.run(vec![drive]).await.unwrap_err();
    assert!(chain(&error).contains("meta_data.json`: the metadata of the config drive"));
    assert_eq!(lab.host.hostname().unwrap(), "localhost");
}

#[tokio::test(start_paused = true)]
async fn an_existing_user_only_gets_its_password_and_keys() {
    let mut lab = Lab::new();
    let outcome = lab
        .apply(
            b"#cloud-config\nusers:\n- {name: root, passwd: hash, shell: /bin/x, \
              ssh_authorized_keys: [k]}\n- {name: root}\n",
        )
        .await;
    assert_eq!(outcome, NOTHING);
    assert_eq!(
        lab.ran(),
        ["chpasswd -e <root:hash>", "update-ssh-keys -u root -a coreos-cloudinit <k>"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_program_that_fails_ends_the_run_with_what_it_said() {
    let mut lab = Lab::new();
    lab.host.install("useradd", |_| {
        let errors = b"useradd: group 'docker' does not exist\n".to_vec();
        Ok(Ended { code: Some(6), output: Vec::new(), errors })
    });
    let (_, failures) =
        lab.apply(b"#cloud-config\nusers: [{name: ada}]\nwrite_files: [{path: /a}]\n").await;
    assert_eq!(
        failures,
        ["`useradd` for `ada` ended with code 6: useradd: group 'docker' does not exist"]
    );
    assert!(!lab.at("/a").exists());
}

#[tokio::test(start_paused = true)]
async fn keys_are_imported_over_http_only() {
    let keys = r#"[{"id": 1, "key": "ssh-rsa A"}, {"key": "ssh-rsa B"}]"#;
    let mut lab = Lab::with_network(&[("http://keys/", &[Some((200, keys))])]);
    let config = b"#cloud-config\nusers: [{name: root, coreos_ssh_import_url: 'http://keys/'}]\n";
    assert_eq!(lab.apply(config).await, NOTHING);
    assert_eq!(lab.ran(), ["update-ssh-keys -u root -a coreos-cloudinit <ssh-rsa A\nssh-rsa B>"]);
    let mut lab = Lab::with_network(&[("http://keys/", &[Some((404, ""))])]);
    let (_, failures) = lab.apply(config).await;
    assert_eq!(failures, ["cannot import keys for `root`: `http://keys/` lists none"]);
}

#[tokio::test(start_paused = true)]
async fn a_file_must_belong_to_somebody_who_exists() {
    let mut lab = Lab::new();
    let (_, failures) = lab
        .apply(
            b"#cloud-config\nwrite_files:\n- {path: /a, owner: 'root:root'}\n- {path: /b, \
                 owner: 'root:'}\n- {path: /c, owner: ghost}\n",
        )
        .await;
    assert_eq!(failures, ["`/c` cannot belong to `ghost`: there is no such user or group"]);
    assert!(lab.at("/a").exists() && lab.at("/b").exists() && !lab.at("/c").exists());
}

#[tokio::test(start_paused = true)]
async fn an_update_conf_that_is_shipped_is_the_start_of_ours() {
    let mut lab = Lab::new().ships(&["update-engine.service"]);
    let shipped = lab.at("/usr/share/coreos/update.conf");
    fs::create_dir_all(shipped.parent().unwrap()).unwrap();
    fs::write(&shipped, "GROUP=alpha\nSERVER=http://shipped/\n").unwrap();
    let config = b"#cloud-config\ncoreos: {update: {group: beta}}\n";
    assert_eq!(lab.apply(config).await, NOTHING);
    let expected = "GROUP=beta\nSERVER=http://shipped/\n";
    assert_eq!(lab.text("/etc/coreos/update.conf"), expected);
}

#[tokio::test(start_paused = true)]
async fn turning_reboots_off_masks_locksmith_until_the_next_boot_and_back() {
    let mut lab = Lab::new().ships(&["locksmithd.service"]);
    let off = b"#cloud-config\ncoreos: {update: {reboot-strategy: off}}\n";
    assert_eq!(lab.apply(off).await, NOTHING);
    let mask = lab.at("/run/systemd/system/locksmithd.service");
    assert_eq!(fs::read_link(&mask).unwrap(), Path::new("/dev/null"));
    let on = b"#cloud-config\ncoreos: {update: {reboot-strategy: reboot}}\n";
    assert_eq!(lab.apply(on).await, NOTHING);
    assert!(!mask.is_symlink());
    assert_eq!(
        lab.systemd.log(),
        ["daemon-reload", "stop locksmithd.service", "daemon-reload", "restart locksmithd.service"]
    );
}

#[tokio::test(start_paused = true)]
async fn without_an_address_what_uses_it_is_left_out_by_name_and_the_rest_is_done() {
    let mut lab = Lab::new().ships(&["etcd2.service", "fleet.service"]);
    lab.addresses = Addresses::default();
    let text = b"#cloud-config\nhostname: a\nssh_authorized_keys: [k]\ncoreos:\n  etcd2: \
          {advertise-client-urls: \"http://$private_ipv4:2379\"}\n  units:\n  \
          - {name: etcd2.service, command: start}\n  - {name: fleet.service, command: start}\n";
    let (refused, failures) = lab.apply(text).await;
    assert_eq!((refused, failures.len()), (None, 1));
    let why = &failures[0];
    assert!(why.starts_with("unit `etcd2.service`: it is left as it was, since it uses "), "{why}");
    assert!(why.contains("`$private_ipv4`") && why.contains("set `COREOS_PRIVATE_IPV4`"), "{why}");
    assert_eq!(lab.systemd.log(), ["start fleet.service"]);
    assert_eq!(lab.host.hostname().unwrap(), "a");
    assert_eq!(lab.ran(), ["update-ssh-keys -u core -a coreos-cloudinit <k>"]);
    assert!(!lab.at("/run").exists() && !lab.at("/etc").exists(), "nothing was written");

    let (_, failures) = lab.apply(b"#!/bin/sh\necho $public_ipv4\n").await;
    assert!(failures[0].starts_with("the script: it is left as it was"), "{failures:?}");
    assert!(!lab.at("/var").exists(), "no script was kept");
}

#[tokio::test(start_paused = true)]
async fn a_folder_is_no_user_data_and_is_not_waited_for() {
    let mut lab = Lab::new();
    let folder = lab.folder.path().to_owned();
    let begun = tokio::time::Instant::now();
    let error = lab.run(vec![Source::File(folder.clone())]).await.unwrap_err();
    let what = format!("`{}` is a folder; name the file in it", folder.display());
    assert_eq!(error.to_string(), format!("no source has user-data: {what}"));
    assert_eq!(begun.elapsed().as_secs(), 0);
}

#[tokio::test(start_paused = true)]
async fn to_look_is_to_change_nothing() {
    let lab = Lab::new();
    let source = lab.user_data(b"#cloud-config\nhostname: a\nbogus: $private_ipv4\n");
    let findings = look(&lab.options(vec![source]), &lab.machine()).await.unwrap();
    assert_eq!(findings, ["line 3: warning: unrecognized key \"bogus\""]);
    assert_eq!(lab.host.hostname().unwrap(), "localhost");
}

#[tokio::test(start_paused = true)]
async fn the_first_source_that_is_there_wins() {
    let url = "http://192.0.2.1/config";
    let answers: &[Answer] = &[Some((200, "#cloud-config\nhostname: web\n"))];
    let mut lab = Lab::with_network(&[(url, answers)]);
    let late = Source::File(lab.folder.path().join("never"));
    let sources = vec![late, Source::Url(url.to_owned())];
    assert_eq!(split(lab.run(sources).await.unwrap()), NOTHING);
    assert_eq!(lab.host.hostname().unwrap(), "web");

    let file = lab.user_data(b"#cloud-config\nhostname: file\n");
    assert_eq!(split(lab.run(vec![file, Source::Url(url.to_owned())]).await.unwrap()), NOTHING);
    assert_eq!(lab.host.hostname().unwrap(), "file");
}

#[tokio::test(start_paused = true)]
async fn a_source_that_comes_late_is_found() {
    let lab = Lab::new();
    let path = lab.folder.path().join("late");
    let machine = lab.machine();
    let sources = [Source::ConfigDrive(path.clone())];
    let (found, ()) = tokio::join!(select(&sources, &machine), async {
        tokio::time::sleep(Duration::from_mins(1)).await;
        fs::create_dir(&path).unwrap();
    });
    found.unwrap();
}

#[tokio::test(start_paused = true)]
async fn no_source_within_five_minutes_is_a_failure_that_names_them() {
    let mut lab = Lab::new();
    let begun = tokio::time::Instant::now();
    let error = lab.run(vec![Source::File("/nonexistent/x".into())]).await.unwrap_err();
    assert_eq!(error.to_string(), "no source was there within 300s: file `/nonexistent/x`");
    assert_eq!(begun.elapsed().as_secs(), 300);

    lab.host.write("/proc/cmdline", b"quiet cloud-config-url=\n");
    let error = lab.run(vec![Source::KernelCommandLine]).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "no source has user-data: the kernel's command line has no `cloud-config-url=`"
    );
}

#[tokio::test(start_paused = true)]
async fn the_kernels_command_line_names_an_address() {
    let answers: &[Answer] = &[None, Some((200, "#cloud-config\nhostname: kernel\n"))];
    let mut lab = Lab::with_network(&[("http://b/", answers)]);
    lab.host.write("/proc/cmdline", b"cloud-config-url=http://a/ quiet cloud_config_url=http://b/");
    assert_eq!(split(lab.run(vec![Source::KernelCommandLine]).await.unwrap()), NOTHING);
    assert_eq!(lab.host.hostname().unwrap(), "kernel");
    assert_eq!(lab.fetch.asked(), ["http://b/", "http://b/"]);
}

#[test]
fn the_last_address_on_a_command_line_counts_and_an_empty_one_does_not() {
    for (line, expected) in [
        ("", None),
        ("cloud-config-url", None),
        ("cloud-config-url=", None),
        ("mycloud-config-url=http://a", None),
        ("cloud-config-url=http://a", Some("http://a")),
        ("x cloud_config_url=http://a?b=c y", Some("http://a?b=c")),
        ("cloud-config-url=http://a cloud_config_url=http://b", Some("http://b")),
        ("cloud-config-url=http://a cloud-config-url=", Some("http://a")),
    ] {
        assert_eq!(config_url(line), expected, "{line}");
    }
}
