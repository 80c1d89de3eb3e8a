//! Container nodes: a real systemd on the image's own `/usr`, without a kernel of its own.
//!
//! A node starts in about a second, which is what makes eight of them affordable. Compared with a
//! machine it lacks the boot: no firmware, no initrd, no verity.
//!
//! ```text
//!   /        a folder of this node      what it keeps
//!   /usr     the image's, read-only     unpacked once from usr.erofs
//!   /etc     overlay                    lower: the image's, upper: a folder of this node
//!   network  a namespace of its own, plugged into the lab's bridge
//! ```

pub(crate) mod cgroup;
mod usr;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::LabError;
use crate::lab::{Lab, Shared};
use crate::machine::Machine;
use crate::net::Net;
use crate::process::{Lifetime, Program, Running};
use crate::ssh::Ssh;
use cgroup::Cgroup;

/// Where a machine looks for the cloud-config that its installer left.
const USER_DATA: &str = "var/lib/coreos-install/user_data";

/// One container node.
#[derive(Debug)]
pub struct Node {
    name: String,
    number: u8,
    dir: PathBuf,
    usr: PathBuf,
    lab: Shared,
    nspawn: Option<(Running, Cgroup)>,
    ssh: Ssh,
}

impl Node {
    /// Makes its folders. It does not run yet.
    pub fn create(lab: &Lab, number: u8, user_data: &str) -> Result<Self, LabError> {
        let name = format!("node{number}");
        let dir = lab.folder(&name)?;
        let usr = usr::unpacked()?;
        for folder in ["root/usr/lib", "root/etc", "root/var/lib/coreos-install", "etc-upper"] {
            let folder = dir.join(folder);
            fs::create_dir_all(&folder).map_err(LabError::file("make", &folder))?;
        }
        // A machine's initrd makes these: without them, no program finds its loader.
        for name in ["bin", "sbin", "lib", "lib64"] {
            let link = dir.join("root").join(name);
            symlink(Path::new("usr").join(name), &link).map_err(LabError::file("link", &link))?;
        }
        // nspawn looks for a system before it mounts one.
        let release = dir.join("root/usr/lib/os-release");
        fs::copy(usr.join("lib/os-release"), &release)
            .map_err(LabError::file("write", &release))?;
        let path = dir.join("root").join(USER_DATA);
        fs::write(&path, with_key(user_data, lab.key().public()))
            .map_err(LabError::file("write", &path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
            .map_err(LabError::file("protect", &path))?;
        let ssh = lab.ssh(number);
        Ok(Self { name, number, dir, usr, lab: lab.shared(), nspawn: None, ssh })
    }

    fn program(&self, namespace: &str, cgroup: &Cgroup) -> Program {
        let root = self.dir.join("root");
        let lower = self.usr.join("share/corebox/etc");
        let upper = self.dir.join("etc-upper");
        let enter = format!("{} && exec \"$@\"", cgroup.enter());
        Program::new("sh")
            .args(["-c", &enter, "sh", "systemd-nspawn"])
            .args(["--quiet", "--boot", "--register=no", "--keep-unit", "--link-journal=no"])
            .args(["--resolv-conf=off", "--timezone=off", "--console=pipe"])
            .args(["--kill-signal=SIGRTMIN+4", "--capability=all"])
            .arg(format!("--machine={}", self.name))
            .arg(format!("--hostname={}", self.name))
            .arg(format!("--uuid={}", machine_id(self.lab.namespace(), self.number)))
            .arg(format!("--network-namespace-path=/run/netns/{namespace}"))
            .arg(format!("--directory={}", root.display()))
            .arg(format!("--bind-ro={}:/usr", self.usr.display()))
            .arg(format!("--overlay={}:{}:/etc", lower.display(), upper.display()))
            .arg("systemd.show_status=1")
            .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
            // The lab's own namespaces keep the node apart; what it may do inside is its affair.
            .env("SYSTEMD_SECCOMP", "0")
    }

    fn net(&self) -> Net {
        Net::existing(self.lab.namespace())
    }

    fn off(&mut self) {
        self.ssh.forget();
        if let Some((mut nspawn, cgroup)) = self.nspawn.take() {
            cgroup.kill();
            nspawn.kill();
            cgroup.remove();
            self.net().unplug(self.number);
        }
    }
}

impl Machine for Node {
    fn name(&self) -> &str {
        &self.name
    }

    fn number(&self) -> u8 {
        self.number
    }

    fn power_on(&mut self) -> Result<(), LabError> {
        let cgroup = Cgroup::make(self.lab.namespace(), &self.name)?;
        let namespace = self.net().plug(self.number)?;
        let program = self.program(&namespace, &cgroup);
        let nspawn = program.start(self.lab.lifetime(), &self.console())?;
        self.nspawn = Some((nspawn, cgroup));
        Ok(())
    }

    fn kill(&mut self) {
        self.off();
    }

    fn shut_down(&mut self, limit: Duration) -> Result<(), LabError> {
        if let Some((nspawn, _)) = &mut self.nspawn {
            // Its systemd takes this signal as the order to power off; nspawn passes it on.
            let pid = i32::try_from(nspawn.id()).ok().and_then(rustix::process::Pid::from_raw);
            let pid = pid.expect("a running program has an id");
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
            nspawn.wait(limit)?;
        }
        self.off();
        Ok(())
    }

    fn is_on(&mut self) -> bool {
        self.nspawn.as_mut().is_some_and(|(nspawn, _)| nspawn.ended().is_none())
    }

    fn detach(self: Box<Self>) {
        drop(self);
    }

    fn ssh(&self) -> &Ssh {
        &self.ssh
    }

    fn console(&self) -> PathBuf {
        self.dir.join("console.log")
    }

    fn journal(&self) -> Option<PathBuf> {
        let kept = self.dir.join("root/var/log/journal");
        Path::exists(&kept).then_some(kept)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.lab.lifetime() == Lifetime::Owned {
            self.off();
        }
    }
}

/// A cloud-config with our key in it: a container has no metadata to find it in.
fn with_key(user_data: &str, key: &str) -> String {
    format!("{}\nssh_authorized_keys:\n  - \"{key}\"\n", user_data.trim_end())
}

/// Distinct for each node of each lab, and the same at its next start.
fn machine_id(lab: &str, number: u8) -> String {
    let seed = lab.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{seed:016x}4000800000000{number:03x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_ids_differ_by_lab_and_node() {
        assert_eq!(machine_id("cb1", 1).len(), 32);
        assert_ne!(machine_id("cb1", 1), machine_id("cb1", 2));
        assert_ne!(machine_id("cb1", 1), machine_id("cb2", 1));
    }

    #[test]
    fn the_key_is_added_to_a_cloud_config() {
        let text = with_key("#cloud-config\nhostname: a\n", "ssh-ed25519 AAAA lab");
        assert_eq!(
            text,
            "#cloud-config\nhostname: a\nssh_authorized_keys:\n  - \"ssh-ed25519 AAAA lab\"\n"
        );
    }
}
