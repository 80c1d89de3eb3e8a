//! What Debian has to give: looked for by the files that it brings, installed where we may.

use std::path::Path;

use crate::run::{Failure, Step, say};

/// Something that a verb or a suite needs of this computer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// The lab's network, and ssh into it.
    Network,
    /// Virtual machines.
    Machines,
    /// Container nodes.
    Nodes,
    /// Building the image.
    Image,
    /// A stock client of etcd.
    Etcdctl,
    /// What installs the other clients of etcd.
    Clients,
}

impl Need {
    /// Packages, each with a file that it brings.
    fn packages(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Network => &[
                ("iproute2", "/usr/sbin/ip"),
                ("dnsmasq-base", "/usr/sbin/dnsmasq"),
                ("openssh-client", "/usr/bin/ssh"),
            ],
            Self::Machines => &[
                ("qemu-system-x86", "/usr/bin/qemu-system-x86_64"),
                ("qemu-utils", "/usr/bin/qemu-img"),
                ("ovmf", "/usr/share/OVMF/OVMF_CODE_4M.fd"),
                ("mtools", "/usr/bin/mcopy"),
                ("dosfstools", "/usr/sbin/mkfs.vfat"),
            ],
            Self::Nodes => &[
                ("systemd-container", "/usr/bin/systemd-nspawn"),
                ("erofs-utils", "/usr/bin/fsck.erofs"),
            ],
            Self::Image => &[
                ("mmdebstrap", "/usr/bin/mmdebstrap"),
                ("erofs-utils", "/usr/bin/mkfs.erofs"),
                ("cryptsetup-bin", "/usr/sbin/veritysetup"),
                ("mtools", "/usr/bin/mcopy"),
                ("dosfstools", "/usr/sbin/mkfs.vfat"),
                ("e2fsprogs", "/usr/sbin/mke2fs"),
                ("binutils", "/usr/bin/objcopy"),
            ],
            Self::Etcdctl => &[("etcd-client", "/usr/bin/etcdctl")],
            Self::Clients => &[
                ("python3-pip", "/usr/bin/pip3"),
                ("nodejs", "/usr/bin/node"),
                ("npm", "/usr/bin/npm"),
                ("protobuf-compiler", "/usr/bin/protoc"),
                // The messages that every other one may import; the compiler only recommends them.
                ("libprotobuf-dev", "/usr/include/google/protobuf/descriptor.proto"),
            ],
        }
    }
}

/// Installs what is missing, saying so, or says which one command does.
pub(crate) fn ensure(needs: &[Need]) -> Result<(), Failure> {
    let missing = missing(needs);
    if missing.is_empty() {
        return Ok(());
    }
    let sudo = if is_root() { "" } else { "sudo " };
    let packages: Vec<_> = missing.iter().map(|package| pinned(package)).collect();
    let install = format!(
        "{sudo}apt-get install -y --no-install-recommends --allow-downgrades {}",
        packages.join(" ")
    );
    if !is_root() {
        return Err(Failure::First(format!("this needs more of Debian; run\n\n  {install}\n")));
    }
    say(&format!("Debian packages are missing and installed now: {}", missing.join(" ")));
    let update = Step::line("apt-get update -qq").run();
    let installed = update.and_then(|()| {
        // Pinned anew: only an updated list knows which versions there are.
        let packages = missing.iter().map(|package| pinned(package));
        Step::line("apt-get install -y -qq --no-install-recommends --allow-downgrades")
            .args(packages)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .run()
    });
    installed.map_err(|_| Failure::First(format!("could not install them; run\n\n  {install}\n")))
}

/// Says what cannot be done about a need by installing something.
pub(crate) fn impossible(needs: &[Need]) -> Option<String> {
    if needs.iter().all(|need| matches!(need, Need::Etcdctl | Need::Clients)) {
        return None;
    }
    if !is_root() {
        return Some("it needs root, for network namespaces".to_owned());
    }
    if needs.contains(&Need::Machines) && !Path::new("/dev/net/tun").exists() {
        return Some("it needs /dev/net/tun, for the machines' network".to_owned());
    }
    let cgroups = ["/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/unified/cgroup.procs"];
    if needs.contains(&Need::Nodes) && !cgroups.iter().any(|path| Path::new(path).exists()) {
        return Some("it needs version 2 control groups below /sys/fs/cgroup".to_owned());
    }
    None
}

fn missing(needs: &[Need]) -> Vec<&'static str> {
    let wanted = needs.iter().flat_map(|need| need.packages());
    let mut missing: Vec<_> =
        wanted.filter(|(_, file)| !Path::new(file).exists()).map(|(package, _)| *package).collect();
    // QEMU's two packages have to be of one version: a newer `qemu-utils` may be there already.
    if missing.contains(&"qemu-system-x86") {
        missing.push("qemu-utils");
    }
    missing.sort_unstable();
    missing.dedup();
    missing
}

/// Names the version of this release of Debian where another may be in the way.
fn pinned(package: &str) -> String {
    if !package.starts_with("qemu-") {
        return package.to_owned();
    }
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let codename = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let list = Step::line("apt-cache madison qemu-utils").text().unwrap_or_default();
    match codename.and_then(|codename| version_of(&list, codename)) {
        Some(version) => format!("{package}={version}"),
        None => package.to_owned(),
    }
}

/// The newest version of a release and its security updates, from what `apt-cache madison` says.
fn version_of(list: &str, codename: &str) -> Option<String> {
    let lines = list.lines().filter_map(|line| {
        let mut columns = line.split('|').map(str::trim).skip(1);
        let (version, source) = (columns.next()?, columns.next()?);
        let suite = source.split_whitespace().nth(1)?.split('/').next()?;
        let ours =
            [codename.to_owned(), format!("{codename}-security"), format!("{codename}-updates")];
        ours.iter().any(|name| name == suite).then(|| version.to_owned())
    });
    // The list begins with the newest.
    lines.into_iter().next()
}

fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| {
        let line = status.lines().find_map(|line| line.strip_prefix("Uid:"));
        line.and_then(|ids| ids.split_whitespace().nth(1)).is_some_and(|id| id == "0")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backports_are_passed_over() {
        let list = "\
qemu-utils | 1:10.0.2+ds-2~bpo12+1 | http://mirror/debian bookworm-backports/main amd64 Packages
qemu-utils | 1:7.2+dfsg-7+deb12u18 | http://mirror/debian-security bookworm-security/main amd64 Packages
qemu-utils | 1:7.2+dfsg-7+deb12u16 | http://mirror/debian bookworm/main amd64 Packages
";
        assert_eq!(version_of(list, "bookworm").as_deref(), Some("1:7.2+dfsg-7+deb12u18"));
        assert_eq!(version_of("", "bookworm"), None);
    }
}
