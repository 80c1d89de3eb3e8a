//! A machine in memory: it has what it was told, and keeps a record of what was run.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::platform::host::users::{group_in, user_in, user_numbered_in};
use crate::platform::host::{
    Call, Ended, FILE_BYTES_MAX, Host, Program, User, check_hostname, check_machine_id,
};

/// How a program behaves.
type Behaviour = Arc<dyn Fn(&Program) -> io::Result<Ended> + Send + Sync>;

#[derive(Default)]
struct State {
    files: BTreeMap<PathBuf, Vec<u8>>,
    programs: BTreeMap<PathBuf, Behaviour>,
    ran: Vec<Program>,
}

/// A machine in memory. Clones are the same one.
#[derive(Clone, Default)]
pub struct MemoryHost {
    state: Arc<Mutex<State>>,
}

impl std::fmt::Debug for MemoryHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryHost").field("ran", &self.state().ran).finish_non_exhaustive()
    }
}

impl MemoryHost {
    /// Makes a machine of that name, with an id derived from it and no users.
    pub fn named(name: &str) -> Self {
        let host = Self::default();
        // The first sixteen bytes of the name, read as one number.
        let id = name.bytes().take(16).fold(0_u128, |id, byte| id << 8 | u128::from(byte));
        host.write("/etc/machine-id", format!("{id:032x}\n").as_bytes());
        host.write("/etc/hostname", format!("{name}\n").as_bytes());
        host
    }

    /// Puts a file on the machine, such as `/etc/passwd` or `/proc/cmdline`.
    pub fn write(&self, path: &str, content: &[u8]) {
        self.state().files.insert(path.into(), content.to_owned());
    }

    /// Installs a program under the path or name it is run by.
    pub fn install(
        &self,
        path: &str,
        behaviour: impl Fn(&Program) -> io::Result<Ended> + Send + Sync + 'static,
    ) {
        self.state().programs.insert(path.into(), Arc::new(behaviour));
    }

    /// Returns what was run, in order.
    pub fn ran(&self) -> Vec<Program> {
        self.state().ran.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn text(&self, path: &str) -> io::Result<String> {
        Ok(String::from_utf8_lossy(&self.read(Path::new(path))?).trim().to_owned())
    }
}

impl Host for MemoryHost {
    fn machine_id(&self) -> io::Result<String> {
        check_machine_id(&self.text("/etc/machine-id")?)
    }

    fn hostname(&self) -> io::Result<String> {
        self.text("/etc/hostname")
    }

    fn set_hostname<'a>(&'a self, name: &'a str) -> Call<'a, ()> {
        Box::pin(async move {
            check_hostname(name)?;
            self.write("/etc/hostname", format!("{name}\n").as_bytes());
            Ok(())
        })
    }

    fn user(&self, name: &str) -> io::Result<Option<User>> {
        Ok(user_in(&self.text("/etc/passwd").unwrap_or_default(), name))
    }

    fn user_numbered(&self, uid: u32) -> io::Result<Option<User>> {
        Ok(user_numbered_in(&self.text("/etc/passwd").unwrap_or_default(), uid))
    }

    fn group(&self, name: &str) -> io::Result<Option<u32>> {
        Ok(group_in(&self.text("/etc/group").unwrap_or_default(), name))
    }

    fn run<'a>(&'a self, program: &'a Program) -> Call<'a, Ended> {
        Box::pin(async move {
            let behaviour = self.state().programs.get(&program.path).cloned();
            let behaviour = behaviour.ok_or(io::ErrorKind::NotFound)?;
            self.state().ran.push(program.clone());
            behaviour(program)
        })
    }

    fn kernel_command_line(&self) -> io::Result<String> {
        self.text("/proc/cmdline")
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let data = self.state().files.get(path).cloned().ok_or(io::ErrorKind::NotFound)?;
        if data.len() > FILE_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::host::contract;

    #[tokio::test]
    async fn keeps_the_contract() {
        let host = MemoryHost::default();
        for (path, text) in contract::FILES {
            host.write(path, text.as_bytes());
        }
        host.install("/bin/cat", |program| {
            Ok(Ended { code: Some(0), output: program.input.clone(), errors: Vec::new() })
        });
        contract::contract(&host).await;
        assert_eq!(host.ran().len(), 1, "a program that is not there was not run");
    }

    #[test]
    fn a_machine_that_was_given_only_a_name_has_an_id() {
        let host = MemoryHost::named("node-1");
        assert_eq!(host.machine_id().unwrap(), "000000000000000000006e6f64652d31");
        assert_eq!(host.hostname().unwrap(), "node-1");
    }
}
