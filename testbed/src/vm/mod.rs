//! Virtual machines that boot the image: firmware, disk, serial console, as in a data centre.
//!
//! ```text
//!   corebox.img (read-only) ◀── disk.qcow2   what this machine wrote
//!   config.img  vfat `config-2`              its cloud-config and our ssh key
//!   vars.fd                                  the firmware's memory
//!   console.log   qmp                        what it says, how to press its buttons
//! ```
//!
//! Emulated, never by KVM: a device that opens is not one that works (`docs/testing.md`).

mod config_drive;
mod qmp;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::LabError;
use crate::lab::Lab;
use crate::machine::Machine;
use crate::process::{Program, Running};
use crate::ssh::Ssh;

/// A step that only the host's disk has to do.
const QUICK: Duration = Duration::from_mins(1);
/// Where Debian keeps the firmware.
const FIRMWARE: &str = "/usr/share/OVMF";

/// What a virtual machine is made of.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Decides its name and addresses.
    pub number: u8,
    /// The cloud-config of its config drive; without one it has no config drive.
    pub user_data: Option<String>,
    /// MiB of memory.
    pub memory: u32,
    /// Processors: two for a lone machine, one where as many machines share the host's.
    pub processors: u8,
    /// How it starts.
    pub boot: Boot,
}

impl Spec {
    /// A machine that boots from its disk.
    #[must_use]
    pub fn new(number: u8, user_data: &str) -> Self {
        let user_data = Some(user_data.to_owned());
        Self { number, user_data, memory: 768, processors: 1, boot: Boot::Disk }
    }
}

/// How a virtual machine starts.
#[derive(Debug, Clone)]
pub enum Boot {
    /// Firmware, boot loader, kernel.
    Disk,
    /// QEMU loads the kernel, which is the only way to add words to its command line.
    Kernel {
        /// The kernel.
        kernel: PathBuf,
        /// Its initrd.
        initrd: PathBuf,
        /// Its whole command line.
        append: String,
    },
}

/// One virtual machine.
#[derive(Debug)]
pub struct Vm {
    name: String,
    spec: Spec,
    dir: PathBuf,
    qmp: PathBuf,
    tap: String,
    lab: crate::lab::Shared,
    qemu: Option<Running>,
    ssh: Ssh,
}

impl Vm {
    /// Makes its disks. It has no power yet.
    pub fn create(lab: &Lab, spec: Spec) -> Result<Self, LabError> {
        let name = format!("node{}", spec.number);
        let dir = lab.folder(&name)?;
        let image = image()?;
        let disk = dir.join("disk.qcow2");
        Program::line("qemu-img create -q -f qcow2 -F raw -b").arg(&image).arg(&disk).run(QUICK)?;
        let vars = dir.join("vars.fd");
        fs::copy(Path::new(FIRMWARE).join("OVMF_VARS_4M.fd"), &vars)
            .map_err(LabError::file("write", &vars))?;
        if let Some(user_data) = &spec.user_data {
            let key = lab.key().public();
            config_drive::write(&dir.join("config.img"), &name, user_data, key)?;
        }
        let tap = lab.net().tap(spec.number)?;
        let qmp = lab.sockets().join(format!("{name}.qmp"));
        let ssh = lab.ssh(spec.number);
        Ok(Self { name, spec, dir, qmp, tap, lab: lab.shared(), qemu: None, ssh })
    }

    fn program(&self) -> Program {
        let at = |file: &str| self.dir.join(file).display().to_string();
        let hardware = crate::net::Net::hardware(self.spec.number);
        // Told otherwise, the firmware would prefer the disk to the kernel that QEMU has loaded.
        let first = match self.spec.boot {
            Boot::Disk => ",bootindex=0",
            Boot::Kernel { .. } => "",
        };
        let mut program = Program::line(
            "qemu-system-x86_64 -M q35 -accel tcg,thread=multi,tb-size=128 -cpu qemu64 \
             -nodefaults -no-user-config -display none -device virtio-rng-pci",
        )
        .args(["-name", &self.name, "-m", &self.spec.memory.to_string()])
        .args(["-smp", &self.spec.processors.to_string()])
        .args(["-pidfile", &at("qemu.pid")])
        .args(["-qmp", &format!("unix:{},server=on,wait=off", self.qmp.display())])
        .args(["-chardev", &format!("file,id=console,append=on,path={}", at("console.log"))])
        .args(["-serial", "chardev:console"])
        .args(drive("disk", &format!("file={},format=qcow2", at("disk.qcow2")), first))
        .args(["-netdev", &format!("tap,id=net,ifname={},script=no,downscript=no", self.tap)])
        .args(["-device", &format!("virtio-net-pci,netdev=net,romfile=,mac={hardware}")]);
        if self.spec.user_data.is_some() {
            let config = format!("file={},format=raw,readonly=on", at("config.img"));
            program = program.args(drive("config", &config, ""));
        }
        match &self.spec.boot {
            Boot::Disk => program.args(firmware(&at("vars.fd"))),
            Boot::Kernel { kernel, initrd, append } => program
                .arg("-kernel")
                .arg(kernel)
                .arg("-initrd")
                .arg(initrd)
                .args(["-append", append]),
        }
    }
}

impl Machine for Vm {
    fn name(&self) -> &str {
        &self.name
    }

    fn number(&self) -> u8 {
        self.spec.number
    }

    fn power_on(&mut self) -> Result<(), LabError> {
        let program = self.program().inside(self.lab.namespace());
        self.qemu = Some(program.start(self.lab.lifetime(), &self.dir.join("qemu.log"))?);
        Ok(())
    }

    fn kill(&mut self) {
        if let Some(mut qemu) = self.qemu.take() {
            qemu.kill();
        }
        self.ssh.forget();
    }

    fn shut_down(&mut self, limit: Duration) -> Result<(), LabError> {
        if let Some(qemu) = &mut self.qemu {
            qmp::tell(&self.qmp, "system_powerdown")?;
            qemu.wait(limit)?;
        }
        self.kill();
        Ok(())
    }

    fn is_on(&mut self) -> bool {
        self.qemu.as_mut().is_some_and(|qemu| qemu.ended().is_none())
    }

    fn detach(self: Box<Self>) {
        // Detached programs are not ended with their owner.
        drop(self);
    }

    fn ssh(&self) -> &Ssh {
        &self.ssh
    }

    fn console(&self) -> PathBuf {
        self.dir.join("console.log")
    }
}

/// The disk image under test, which `cargo xtask` names in `COREBOX_IMAGE`.
pub fn image() -> Result<PathBuf, LabError> {
    let folder = image_folder()?;
    let image = folder.join("corebox.img");
    // QEMU resolves a backing file from the overlay's folder.
    image.canonicalize().map_err(LabError::file("find", &image))
}

/// The folder with everything that the image's build left.
pub fn image_folder() -> Result<PathBuf, LabError> {
    std::env::var_os("COREBOX_IMAGE").map(PathBuf::from).ok_or_else(|| {
        LabError::Missing(
            "COREBOX_IMAGE names no image; run this through `cargo xtask`, which builds one"
                .to_owned(),
        )
    })
}

/// A drive, with what its device is told besides.
fn drive(id: &str, file: &str, device: &str) -> [String; 4] {
    [
        "-drive".to_owned(),
        format!("if=none,id={id},cache=unsafe,discard=unmap,{file}"),
        "-device".to_owned(),
        format!("virtio-blk-pci,drive={id}{device}"),
    ]
}

/// The firmware, set up as in a data centre: it boots from the disk, not from the network.
fn firmware(vars: &str) -> [String; 8] {
    let without = |protocol: &str| format!("name=opt/org.tianocore/{protocol}PXESupport,string=n");
    [
        "-fw_cfg".to_owned(),
        without("IPv4"),
        "-fw_cfg".to_owned(),
        without("IPv6"),
        "-drive".to_owned(),
        format!("if=pflash,unit=0,format=raw,readonly=on,file={FIRMWARE}/OVMF_CODE_4M.fd"),
        "-drive".to_owned(),
        format!("if=pflash,unit=1,format=raw,file={vars}"),
    ]
}
