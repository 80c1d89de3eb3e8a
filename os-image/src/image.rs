//! The whole build, step by step.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;

use crate::files::{self, FileError};
use crate::layout::{self, Layout, LayoutError};
use crate::lock::{Lock, LockError};
use crate::manifest::{self, Hashed, Manifest};
use crate::progress::Progress;
use crate::tree::{self, Tree};
use crate::verity::RootHash;
use crate::{esp, filesystems, initrd, program, table, tools, uki, usr, verity};

/// This crate's folder: `rootfs/`, `flavours/` and `packages.lock` are in it.
const SOURCES: &str = env!("CARGO_MANIFEST_DIR");

/// How often this system was installed: once, by whoever wrote the image to a disk.
const GENERATION: u32 = 1;

/// What an image is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Flavour {
    /// Emulated machines: talks on a serial console.
    Lab,
    /// Everything else.
    Production,
}

impl Flavour {
    fn name(self) -> &'static str {
        match self {
            Self::Lab => "lab",
            Self::Production => "production",
        }
    }

    /// What it adds to the kernel command line: the console, and a clock that an emulator that is
    /// short of time does not bend.
    fn words(self) -> &'static str {
        match self {
            Self::Lab => " console=ttyS0 tsc=unstable clocksource=hpet no_timer_check",
            Self::Production => "",
        }
    }
}

/// What to build.
#[derive(Debug)]
pub struct Request {
    /// What it is for.
    pub flavour: Flavour,
    /// Our program.
    pub corebox: PathBuf,
    /// Our init for the initrd.
    pub init: PathBuf,
    /// Where the results go.
    pub out: PathBuf,
    /// Where unpacked packages are kept.
    pub tree_cache: PathBuf,
    /// The system's version.
    pub version: String,
    /// Whether packages that are not locked are refused.
    pub locked: bool,
}

impl Request {
    /// Refuses programs that cannot run in the image, or that should not be in a production one.
    fn programs(&self) -> Result<(), program::ProgramError> {
        let fits = match self.flavour {
            Flavour::Lab => program::stands_alone,
            Flavour::Production => program::is_release,
        };
        fits(&self.corebox)?;
        fits(&self.init)
    }
}

/// The image could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A program of the host.
    #[error(transparent)]
    Tool(#[from] tools::ToolError),
    /// One of our own programs.
    #[error(transparent)]
    Program(#[from] program::ProgramError),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The partitions' plan.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Debian's packages.
    #[error(transparent)]
    Tree(#[from] tree::TreeError),
    /// The lock.
    #[error("cannot use packages.lock")]
    Lock(#[from] LockError),
    /// The archive serves other packages than the lock names.
    #[error(
        "packages.lock does not name what the archive serves; build without --locked to relock"
    )]
    NotLocked,
    /// `/usr`.
    #[error(transparent)]
    Usr(#[from] usr::UsrError),
    /// A file system.
    #[error(transparent)]
    Filesystem(#[from] filesystems::FilesystemError),
    /// The hash tree.
    #[error(transparent)]
    Verity(#[from] verity::VerityError),
    /// The initrd.
    #[error(transparent)]
    Initrd(#[from] initrd::InitrdError),
    /// The kernel image.
    #[error(transparent)]
    Uki(#[from] uki::UkiError),
    /// The EFI system partition.
    #[error(transparent)]
    Esp(#[from] esp::EspError),
    /// The partition table.
    #[error(transparent)]
    Table(#[from] table::TableError),
    /// Something does not fit into its partition.
    #[error(
        "{label} takes {bytes} bytes, but its partition has {room}: make it larger in layout.yaml"
    )]
    TooLarge {
        /// The partition.
        label: &'static str,
        /// What it would take.
        bytes: u64,
        /// What there is.
        room: u64,
    },
    /// The packages hold no kernel, or more than one.
    #[error("the packages hold {0} kernels, not one")]
    Kernels(usize),
    /// The manifest.
    #[error("cannot write the manifest")]
    Manifest(#[source] serde_json::Error),
}

/// Names and folders of one build.
struct Build<'a> {
    request: &'a Request,
    progress: &'a Progress,
    layout: Layout,
    scratch: PathBuf,
}

/// Returns the version of a development build: this crate's, with the number of commits.
pub fn development_version() -> String {
    let counted = Command::new("git").args(["-C", SOURCES, "rev-list", "--count", "HEAD"]).output();
    let count = counted.ok().filter(|ended| ended.status.success());
    let count = count.and_then(|ended| String::from_utf8(ended.stdout).ok()).unwrap_or_default();
    let count = if count.trim().is_empty() { "0" } else { count.trim() };
    format!("{}-dev.{count}", env!("CARGO_PKG_VERSION"))
}

/// Builds an image and everything that goes with it.
pub fn build(request: &Request, progress: &Progress) -> Result<(), BuildError> {
    tools::check()?;
    request.programs()?;
    let scratch = request.out.join("scratch");
    files::remove(&scratch)?;
    files::folder(&scratch)?;
    let build = Build { request, progress, layout: layout::plan()?, scratch };
    let tree = tree::get(&request.tree_cache, progress)?;
    build.relock(&tree.lock)?;
    let hash = build.usr(&tree)?;
    let kernel = build.kernel(&tree)?;
    let cmdline = format!("usrhash={} panic=1 quiet{}", hash.as_str(), request.flavour.words());
    build.uki(&tree, &kernel, &cmdline)?;
    build.disk(&tree, &hash)?;
    build.manifest(&hash, cmdline, &tree.lock)?;
    files::remove(&build.scratch)?;
    Ok(())
}

impl Build<'_> {
    fn out(&self, name: &str) -> PathBuf {
        self.request.out.join(name)
    }

    fn room(&self, label: &'static str, path: &Path) -> Result<(), BuildError> {
        let bytes = manifest::describe(path, Hashed::No)?.bytes;
        let room = self.layout.place(label)?.bytes;
        if bytes <= room { Ok(()) } else { Err(BuildError::TooLarge { label, bytes, room }) }
    }

    /// Compares what was unpacked with the lock, and writes a new one where they differ.
    fn relock(&self, unpacked: &Lock) -> Result<(), BuildError> {
        let path = Path::new(SOURCES).join("packages.lock");
        let old =
            if path.exists() { Lock::parse(&files::read_text(&path)?)? } else { Lock::default() };
        let changes = unpacked.changes_since(&old);
        if changes.is_empty() {
            return Ok(());
        }
        if self.request.locked {
            return Err(BuildError::NotLocked);
        }
        self.progress
            .say(&format!("packages.lock is written anew, {} packages differ", changes.len()));
        for change in changes.iter().filter(|_| old != Lock::default()) {
            self.progress.say(&format!("  {change}"));
        }
        files::write(&path, unpacked.to_string())?;
        Ok(())
    }

    fn usr(&self, tree: &Tree) -> Result<RootHash, BuildError> {
        let root = self.scratch.join("root");
        let (image, hashes) = (self.out("usr.erofs"), self.out("usr.verity"));
        let sources = Path::new(SOURCES);
        let flavour = sources.join("flavours").join(self.request.flavour.name()).join("rootfs");
        let mut overlays = vec![sources.join("rootfs")];
        overlays.extend(Some(flavour).filter(|folder| folder.is_dir()));
        let os_release = os_release(&self.request.version);
        let parts = usr::Parts {
            tree: &tree.root,
            overlays: &overlays,
            corebox: &self.request.corebox,
            os_release: &os_release,
        };
        self.progress.step("/usr: packages, rootfs and corebox put together", || {
            usr::assemble(&parts, &root)
        })?;
        self.progress.step("/usr: file system made by mkfs.erofs", || {
            filesystems::erofs(&root.join("usr"), &image)
        })?;
        self.room("USR-A", &image)?;
        let hash = self.progress.step("/usr: hash tree made by veritysetup", || {
            files::remove(&hashes)?;
            verity::format(&image, &hashes).map_err(BuildError::from)
        })?;
        self.room("USR-A-VERITY", &hashes)?;
        Ok(hash)
    }

    /// Copies the kernel out of the tree and returns the folder of its modules.
    fn kernel(&self, tree: &Tree) -> Result<PathBuf, BuildError> {
        let folder = tree.root.join("usr/lib/modules");
        let versions = files::names(&folder)?;
        let [version] = &versions[..] else {
            return Err(BuildError::Kernels(versions.len()));
        };
        let kernel = tree.root.join("boot").join(format!("vmlinuz-{version}"));
        files::place(&kernel, &self.out("vmlinuz"), 0o644)?;
        Ok(folder.join(version))
    }

    fn uki(&self, tree: &Tree, modules: &Path, cmdline: &str) -> Result<(), BuildError> {
        let (image, initrd, kernel) =
            (self.out("corebox.efi"), self.out("initrd"), self.out("vmlinuz"));
        self.progress.step("initrd: corebox-init and its modules", || {
            let init = self.scratch.join("init");
            files::place(&self.request.init, &init, 0o755)?;
            tools::run("objcopy", ["--strip-all", &init.display().to_string()])?;
            let archive = initrd::make(&files::read(&init)?, modules)?;
            files::write(&initrd, archive).map_err(BuildError::from)
        })?;
        files::write(&self.out("cmdline"), cmdline)?;
        let parts = uki::Parts {
            stub: &tree.root.join("usr/lib/systemd/boot/efi/linuxx64.efi.stub"),
            os_release: UKI_OS_RELEASE,
            cmdline,
            initrd: &initrd,
            kernel: &kernel,
        };
        self.progress.step("UKI: stub, kernel, initrd and command line joined by objcopy", || {
            uki::make(&parts, &self.scratch, &image).map_err(BuildError::from)
        })
    }

    /// Makes the disk. ROOT and OEM are made in their place: to read a hole in order to copy it takes
    /// longer than everything else. The ESP is not: mkfs.vfat loses its way behind an offset.
    fn disk(&self, tree: &Tree, hash: &RootHash) -> Result<(), BuildError> {
        let path = self.out("corebox.img");
        let mut disk = files::sparse(&path, self.layout.bytes)?;
        let esp = self.scratch.join("EFI-SYSTEM");
        self.esp(tree, &esp)?;
        self.progress.step("OEM and ROOT: made empty by mke2fs", || {
            ["OEM", "ROOT"].into_iter().try_for_each(|label| {
                filesystems::ext4(self.layout.place(label)?, &path).map_err(BuildError::from)
            })
        })?;
        let uuids =
            BTreeMap::from([("USR-A", hash.usr_uuid()), ("USR-A-VERITY", hash.verity_uuid())]);
        self.progress.step("disk: ESP, /usr, its hash tree and the partition table written", || {
            let (usr, hashes) = (self.out("usr.erofs"), self.out("usr.verity"));
            for (label, path) in [("EFI-SYSTEM", &esp), ("USR-A", &usr), ("USR-A-VERITY", &hashes)]
            {
                files::copy_into(&disk, self.layout.place(label)?.offset, path)?;
            }
            table::write(&mut disk, &self.layout, &uuids).map_err(BuildError::from)
        })
    }

    fn esp(&self, tree: &Tree, out: &Path) -> Result<(), BuildError> {
        let name = format!("corebox-{GENERATION}-{}.efi", self.request.version);
        let contents = esp::Contents {
            loader: &tree.root.join("usr/lib/systemd/boot/efi/systemd-bootx64.efi"),
            uki: &self.out("corebox.efi"),
            uki_name: &name,
        };
        let bytes = self.layout.place("EFI-SYSTEM")?.bytes;
        self.progress.step("ESP: systemd-boot and the UKI copied by mtools", || {
            esp::make(&contents, bytes, &self.scratch, out).map_err(BuildError::from)
        })
    }

    fn manifest(&self, hash: &RootHash, cmdline: String, lock: &Lock) -> Result<(), BuildError> {
        let hashed = ["corebox.efi", "vmlinuz", "initrd", "usr.erofs", "usr.verity"];
        let names = hashed.map(|name| (name, Hashed::Yes)).into_iter();
        let products = self.progress.step("manifest: every file hashed", || {
            names
                .chain([("corebox.img", Hashed::No)])
                .map(|(name, hashed)| {
                    Ok((name.to_owned(), manifest::describe(&self.out(name), hashed)?))
                })
                .collect::<Result<BTreeMap<_, _>, FileError>>()
        })?;
        let stored = products["corebox.img"].stored_bytes;
        let manifest = Manifest {
            version: self.request.version.clone(),
            flavour: self.request.flavour.name().to_owned(),
            root_hash: hash.as_str().to_owned(),
            cmdline,
            files: products,
            packages: lock.versions(),
        };
        let path = self.out("manifest.json");
        let file = File::create(&path).map_err(files::failed("write", &path))?;
        serde_json::to_writer_pretty(&file, &manifest).map_err(BuildError::Manifest)?;
        writeln!(&file).map_err(files::failed("write", &path))?;
        let mebibytes = stored >> 20;
        let image = self.out("corebox.img");
        self.progress.say(&format!("{} is ready: {mebibytes} MiB on disk", image.display()));
        Ok(())
    }
}

/// What the boot loader shows. Without a version: the file's name says which image is the newer.
const UKI_OS_RELEASE: &str = "ID=corebox\nNAME=\"CoreBox OS\"\nPRETTY_NAME=\"CoreBox OS\"\n";

/// What a running system says of itself.
fn os_release(version: &str) -> String {
    format!(
        "ID=corebox\nNAME=\"CoreBox OS\"\nPRETTY_NAME=\"CoreBox OS {version}\"\n\
         VERSION=\"{version}\"\nVERSION_ID=\"{version}\"\nANSI_COLOR=\"1;36\"\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_development_version_never_holds_a_plus_which_boot_counters_use() {
        let version = development_version();
        assert!(version.contains("-dev."), "{version}");
        assert!(!version.contains('+'), "{version}");
    }

    #[test]
    fn production_says_nothing_of_the_lab() {
        assert_eq!(Flavour::Production.words(), "");
        assert!(Flavour::Lab.words().contains("console=ttyS0"));
    }
}
