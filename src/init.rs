//! The program of the initrd: from a kernel without a root to systemd on a verified `/usr`.
//!
//! ```text
//! kernel → modules → the disk that carries `usrhash=` → dm-verity → ROOT → /usr → /etc → systemd
//! ```
//!
//! It is the only program there: small, synchronous, no shell. Whatever fails is one line on the
//! console and a restart, so that systemd-boot counts the try and falls back to the other slot.
//!
//! **Not here:** making users, growing ROOT, host keys: systemd does that, from `/usr`.

#[path = "init/disk.rs"]
mod disk;
#[path = "init/findings.rs"]
mod findings;
#[path = "init/gpt.rs"]
mod gpt;
#[path = "init/machine_id.rs"]
mod machine_id;
#[path = "init/modules.rs"]
mod modules;
#[path = "init/root_size.rs"]
mod root_size;
#[path = "init/roothash.rs"]
mod roothash;
#[path = "init/sysroot.rs"]
mod sysroot;
#[path = "init/verity.rs"]
mod verity;

use std::convert::Infallible;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::system::{RebootCommand, reboot};

/// How long the last line stays on a slow serial console before the machine restarts.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Why this slot cannot be booted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("cannot read `{}`", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot make `{}`", path.display())]
    Make { path: PathBuf, source: io::Error },
    #[error("cannot mount {what}")]
    Mount { what: String, source: rustix::io::Errno },
    #[error("the kernel command line holds no root hash")]
    NoHash(#[source] roothash::BadRootHash),
    #[error("no disk has the partitions of root hash {hash} and a ROOT")]
    NoDisk { hash: String },
    #[error("the hash tree on `{}` cannot be used", path.display())]
    HashTree { path: PathBuf, source: verity::BadSuperblock },
    #[error("device-mapper refused to {step} the verity device")]
    DeviceMapper { step: &'static str, source: rustix::io::Errno },
    #[error("cannot enter the new root")]
    Enter { source: rustix::io::Errno },
    #[error("cannot start `{}`", sysroot::SYSTEMD)]
    Start { source: io::Error },
}

fn main() {
    let Err(refusal) = boot();
    say(&format!("{}; restarting", chain(&refusal)));
    rest(LAST_WORDS);
    rustix::fs::sync();
    // Returning from PID 1 panics the kernel, which restarts too.
    if let Err(errno) = reboot(RebootCommand::Restart) {
        say(&format!("cannot restart: {errno}"));
    }
}

fn boot() -> Result<Infallible, Refusal> {
    sysroot::mount_kernel_views()?;
    let cmdline = read("/proc/cmdline")?;
    let hash = roothash::from_cmdline(&cmdline).map_err(Refusal::NoHash)?;
    modules::load_all(&say)?;
    let slot = disk::find(&hash)?;
    match disk::give_identity(&slot.disk) {
        Ok(true) => say(&format!("{} has an identity of its own now", slot.disk)),
        Ok(false) => {}
        // A disk that cannot be written to cannot be named, and will say so where it matters.
        Err(why) => say(&format!("{} keeps the identity of every new disk: {why}", slot.disk)),
    }
    let usr = verity::open(&slot.usr, &slot.verity, &hash)?;
    say(&format!("/usr is {}, / is {}", slot.usr.display(), slot.root.display()));
    let mut found = Vec::new();
    match root_size::can_grow(&slot.root, slot.free_behind_root) {
        Ok(can) => found.extend(can.then_some(findings::GROW)),
        Err(why) => say(&format!("ROOT stays as large as it is: {why}")),
    }
    let seen = sysroot::assemble(&slot.root, &usr)?;
    found.extend(seen.own_users.then_some(findings::OWN_USERS));
    if let Err(why) = findings::leave(&found) {
        say(&format!("what was found is not told to systemd: {}", chain(&why)));
    }
    if let Err(why) = machine_id::ensure(Path::new(sysroot::ETC)) {
        say(&format!("no machine id could be written, systemd makes one for this boot: {why}"));
    }
    sysroot::switch()
}

pub(crate) fn read(path: &str) -> Result<String, Refusal> {
    fs::read_to_string(path).map_err(|source| Refusal::Read { path: path.into(), source })
}

/// Writes one line to the console. A console that is gone must not stop a boot.
fn say(line: &str) {
    writeln!(io::stdout().lock(), "corebox-init: {line}").ok();
}

#[expect(clippy::disallowed_methods, reason = "there is no runtime here that could wait")]
pub(crate) fn rest(time: Duration) {
    std::thread::sleep(time);
}

/// Joins an error and its causes into one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}
