//! This machine, apart from its disk, network and units: name, users, programs, kernel.
//!
//! In a static binary nothing behind NSS may be called: users come from our own reader of
//! `/etc/passwd` and `/etc/group`.
//!
//! ```text
//!   agents ──▶ Host ──┬─▶ Linux: system calls, and files below a root
//!                     └─▶ MemoryHost: what it was told, and a record of what was run
//! ```

use std::ffi::OsString;
use std::fmt;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

#[cfg(test)]
mod contract;
pub mod linux;
pub mod memory;
pub mod process;
pub mod users;

pub use linux::Linux;
pub use memory::MemoryHost;

/// What is kept of each of a program's outputs, in bytes: more than a person reads.
pub const OUTPUT_BYTES_MAX: usize = 1 << 20;

/// Longest file that is read whole, in bytes: configuration is far shorter.
pub const FILE_BYTES_MAX: usize = 16 << 20;

/// Longest host name that the kernel takes, in bytes (`HOST_NAME_MAX`).
pub const HOSTNAME_BYTES_MAX: usize = 64;

/// A call across the seam.
pub type Call<'a, T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send + 'a>>;

/// A user of this machine, as `/etc/passwd` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The login name.
    pub name: String,
    /// The user's number.
    pub uid: u32,
    /// The number of the user's first group.
    pub gid: u32,
    /// The home folder.
    pub home: PathBuf,
}

/// A program to run to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The program's path, or its name to be found in `PATH`.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// What it reads.
    pub input: Vec<u8>,
    /// How long it may take; then it is killed and the call is an error of kind `TimedOut`.
    pub deadline: Duration,
}

/// How a program ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code; `None` where a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to its standard output, up to 1 MiB.
    pub output: Vec<u8>,
    /// What it wrote to its standard error, up to 1 MiB.
    pub errors: Vec<u8>,
}

/// This machine.
pub trait Host: fmt::Debug + Send + Sync {
    /// Returns the machine's id (`machine-id(5)`), 32 lowercase hex digits.
    fn machine_id(&self) -> io::Result<String>;

    /// Returns the host name.
    fn hostname(&self) -> io::Result<String>;

    /// Sets the host name, now and for later boots.
    fn set_hostname<'a>(&'a self, name: &'a str) -> Call<'a, ()>;

    /// Returns the user of that name, if there is one.
    fn user(&self, name: &str) -> io::Result<Option<User>>;

    /// Returns the first user of that number, if there is one.
    fn user_numbered(&self, uid: u32) -> io::Result<Option<User>>;

    /// Returns the number of the group of that name, if there is one.
    fn group(&self, name: &str) -> io::Result<Option<u32>>;

    /// Runs a program to its end.
    fn run<'a>(&'a self, program: &'a Program) -> Call<'a, Ended>;

    /// Returns the kernel's command line.
    fn kernel_command_line(&self) -> io::Result<String>;

    /// Reads a file of the machine whose size does not matter much; at most 16 MiB.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
}

/// Refuses what is no host name: letters, digits, `-`, `.` and `_`.
fn check_hostname(name: &str) -> io::Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if !name.is_empty() && name.len() <= HOSTNAME_BYTES_MAX && name.chars().all(allowed) {
        return Ok(());
    }
    let message = format!("`{}` is not a host name", name.escape_debug());
    Err(io::Error::new(io::ErrorKind::InvalidInput, message))
}

/// Refuses what is no machine id, such as the word `uninitialized` of a first boot.
fn check_machine_id(id: &str) -> io::Result<String> {
    let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if id.len() == 32 && id.bytes().all(digit) {
        return Ok(id.to_owned());
    }
    let message = format!("`{}` in /etc/machine-id is not a machine id", id.escape_debug());
    Err(io::Error::new(io::ErrorKind::InvalidData, message))
}
