//! The new root: ROOT with `/usr` and the `/etc` overlay on it, then systemd.
//!
//! An empty ROOT is enough: the skeleton is made here, its contents by tmpfiles and sysusers.

use std::convert::Infallible;
use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_move, unmount};
use rustix::process::{chdir, chroot};

use crate::Refusal;
use crate::findings;

/// What the machine is handed to.
pub(crate) const SYSTEMD: &str = "/usr/lib/systemd/systemd";

const SYSROOT: &str = "/sysroot";

/// Folders of `/`, with their modes.
const FOLDERS: &[(&str, u32)] = &[
    ("usr", 0o755),
    ("etc", 0o755),
    (".etc-work", 0o700),
    ("var", 0o755),
    ("run", 0o755),
    ("tmp", 0o1777),
    ("proc", 0o555),
    ("sys", 0o555),
    ("dev", 0o755),
    ("root", 0o700),
    ("boot", 0o755),
    ("home", 0o755),
    ("media", 0o755),
    ("mnt", 0o755),
    ("oem", 0o755),
    ("opt", 0o755),
    ("srv", 0o755),
];

/// Names of `/` that live in `/usr`.
const LINKS: &[(&str, &str)] =
    &[("bin", "usr/bin"), ("sbin", "usr/sbin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")];

/// `/etc` of the new root, once it is assembled.
pub(crate) const ETC: &str = "etc";

/// The overlay of `/etc`: what `/usr` ships below, what was changed on this machine above.
const ETC_LAYERS: &str = "lowerdir=usr/share/corebox/etc,upperdir=etc,workdir=.etc-work,\
                   redirect_dir=on,metacopy=off";

/// Mounts what the kernel shows of itself.
pub(crate) fn mount_kernel_views() -> Result<(), Refusal> {
    for (folder, kind) in [("/dev", "devtmpfs"), ("/proc", "proc"), ("/sys", "sysfs")] {
        folder_with_mode(Path::new(folder), 0o755)?;
        mounted(kind, folder, kind, MountFlags::empty(), None)?;
    }
    Ok(())
}

/// What was seen of the new root on the way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    /// The upper layer of `/etc` has users.
    pub(crate) own_users: bool,
}

/// Mounts ROOT, `/usr` and `/etc`, and makes what an empty ROOT lacks.
pub(crate) fn assemble(root: &Path, usr: &Path) -> Result<Seen, Refusal> {
    folder_with_mode(Path::new(SYSROOT), 0o755)?;
    mounted(root, SYSROOT, "ext4", MountFlags::empty(), None)?;
    chdir(SYSROOT).map_err(|source| Refusal::Enter { source })?;
    for (name, mode) in FOLDERS {
        folder_with_mode(Path::new(name), *mode)?;
    }
    for (name, target) in LINKS {
        link(Path::new(name), target)?;
    }
    mounted(usr, "usr", "erofs", MountFlags::RDONLY | MountFlags::NODEV, None)?;
    let seen = Seen { own_users: findings::has_own_users(Path::new(ETC)) };
    mounted("overlay", ETC, "overlay", MountFlags::empty(), Some(ETC_LAYERS))?;
    Ok(seen)
}

/// Enters the new root and becomes systemd.
pub(crate) fn switch() -> Result<Infallible, Refusal> {
    enter().map_err(|source| Refusal::Enter { source })?;
    #[expect(clippy::disallowed_methods, reason = "PID 1 becomes systemd; nothing is spawned")]
    let source = std::process::Command::new(SYSTEMD).arg0("systemd").exec();
    Err(Refusal::Start { source })
}

fn enter() -> Result<(), Errno> {
    for view in ["/proc", "/sys"] {
        unmount(view, UnmountFlags::DETACH)?;
    }
    mount_move("/dev", "dev")?;
    fs::remove_file("/init").ok();
    mount_move(".", "/")?;
    chroot(".")?;
    chdir("/")
}

pub(crate) fn mounted(
    source: impl AsRef<Path>,
    target: &str,
    kind: &str,
    flags: MountFlags,
    options: Option<&str>,
) -> Result<(), Refusal> {
    let source = source.as_ref();
    let options = options.map(|text| std::ffi::CString::new(text).expect("a constant without NUL"));
    mount(source, target, kind, flags, options.as_deref()).map_err(|errno| Refusal::Mount {
        what: format!("`{}` on `{target}` as {kind}", source.display()),
        source: errno,
    })
}

pub(crate) fn folder_with_mode(path: &Path, mode: u32) -> Result<(), Refusal> {
    let outcome = match fs::create_dir(path) {
        Ok(()) => fs::set_permissions(path, Permissions::from_mode(mode)),
        Err(present) if present.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(other) => Err(other),
    };
    outcome.map_err(|source| Refusal::Make { path: path.into(), source })
}

fn link(path: &Path, target: &str) -> Result<(), Refusal> {
    match symlink(target, path) {
        Err(source) if source.kind() != ErrorKind::AlreadyExists => {
            Err(Refusal::Make { path: path.into(), source })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
