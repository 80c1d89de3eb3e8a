//! This machine, by system calls and files.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Child;

use crate::foundation::durable_file::{self, Attributes};
use crate::foundation::tasks;
use crate::platform::host::users::{group_in, user_in, user_numbered_in};
use crate::platform::host::{
    Call, Ended, FILE_BYTES_MAX, Host, OUTPUT_BYTES_MAX, Program, User, check_hostname,
    check_machine_id,
};

/// The machine whose files are below a root.
#[derive(Debug, Clone)]
pub struct Linux {
    root: PathBuf,
    /// Whether the kernel's own host name is meant, too.
    kernel: bool,
}

impl Default for Linux {
    fn default() -> Self {
        Self { root: "/".into(), kernel: true }
    }
}

impl Linux {
    /// Makes a machine whose files are below `root`; its host name is only the file's. Programs
    /// are those of the real one.
    pub fn below(root: &Path) -> Self {
        Self { root: root.to_owned(), kernel: false }
    }

    fn path(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    fn text(&self, path: &str) -> io::Result<String> {
        String::from_utf8(self.read(Path::new(path))?).map_err(io::Error::other)
    }

    /// Reads a file that need not be there.
    fn text_or_empty(&self, path: &str) -> io::Result<String> {
        self.text(path).or_else(|error| {
            if error.kind() == io::ErrorKind::NotFound { Ok(String::new()) } else { Err(error) }
        })
    }
}

impl Host for Linux {
    fn machine_id(&self) -> io::Result<String> {
        check_machine_id(self.text("/etc/machine-id")?.trim())
    }

    fn hostname(&self) -> io::Result<String> {
        if self.kernel {
            let uname = rustix::system::uname();
            return Ok(uname.nodename().to_string_lossy().into_owned());
        }
        Ok(self.text("/etc/hostname")?.trim().to_owned())
    }

    fn set_hostname<'a>(&'a self, name: &'a str) -> Call<'a, ()> {
        Box::pin(async move {
            check_hostname(name)?;
            let (path, text) = (self.path(Path::new("/etc/hostname")), format!("{name}\n"));
            let write =
                move || durable_file::replace(&path, text.as_bytes(), Attributes::default());
            tasks::blocking(write)
                .await
                .map_err(|error| io::Error::new(error.source.kind(), error))?;
            if self.kernel {
                rustix::system::sethostname(name.as_bytes())?;
            }
            Ok(())
        })
    }

    fn user(&self, name: &str) -> io::Result<Option<User>> {
        Ok(user_in(&self.text_or_empty("/etc/passwd")?, name))
    }

    fn user_numbered(&self, uid: u32) -> io::Result<Option<User>> {
        Ok(user_numbered_in(&self.text_or_empty("/etc/passwd")?, uid))
    }

    fn group(&self, name: &str) -> io::Result<Option<u32>> {
        Ok(group_in(&self.text_or_empty("/etc/group")?, name))
    }

    fn run<'a>(&'a self, program: &'a Program) -> Call<'a, Ended> {
        Box::pin(async move {
            let mut child = start(program)?;
            let group = child.id();
            let attended = Box::pin(attend(&mut child, &program.input));
            if let Ok(ended) = tokio::time::timeout(program.deadline, attended).await {
                return ended;
            }
            kill(&mut child, group).await;
            let (name, deadline) = (program.path.display(), program.deadline);
            let message = format!("`{name}` did not end within {deadline:?} and was killed");
            Err(io::Error::new(io::ErrorKind::TimedOut, message))
        })
    }

    fn kernel_command_line(&self) -> io::Result<String> {
        Ok(self.text("/proc/cmdline")?.trim().to_owned())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = std::fs::File::open(self.path(path))?;
        let mut data = Vec::new();
        file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut data)?;
        if data.len() > FILE_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(data)
    }
}

/// Starts a program in a process group of its own, so that what it starts can be killed too.
#[expect(clippy::disallowed_methods, reason = "this is the one place that runs programs")]
fn start(program: &Program) -> io::Result<Child> {
    let mut command = tokio::process::Command::new(&program.path);
    command.args(&program.arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true).spawn()
}

/// Feeds a program, reads what it writes and waits for it.
async fn attend(child: &mut Child, input: &[u8]) -> io::Result<Ended> {
    let stdin = child.stdin.take();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let feed = async {
        if let Some(mut stdin) = stdin {
            // One that ends without reading all of it is its own affair.
            stdin.write_all(input).await.ok();
        }
    };
    let ((), output, errors, status) =
        tokio::join!(feed, first_of(stdout), first_of(stderr), child.wait());
    let status = status?;
    Ok(Ended { code: status.code(), output: output?, errors: errors? })
}

/// Reads to the end, and keeps what is within the limit.
async fn first_of(pipe: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    let Some(mut pipe) = pipe else { return Ok(kept) };
    let mut buf = [0; 8192];
    loop {
        let count = pipe.read(&mut buf).await?;
        if count == 0 {
            return Ok(kept);
        }
        let room = OUTPUT_BYTES_MAX - kept.len();
        kept.extend_from_slice(&buf[..count.min(room)]);
    }
}

/// Kills a program and all of its group, which may outlive it and hold its outputs open.
async fn kill(child: &mut Child, group: Option<u32>) {
    let group = group.and_then(|id| i32::try_from(id).ok());
    if let Some(group) = group.and_then(rustix::process::Pid::from_raw) {
        // It may just have ended by itself.
        rustix::process::kill_process_group(group, rustix::process::Signal::KILL).ok();
    }
    child.kill().await.ok();
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;
    use crate::platform::host::contract;

    fn shell(script: &str) -> Program {
        Program {
            path: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
            input: Vec::new(),
            deadline: Duration::from_secs(10),
        }
    }

    #[tokio::test]
    async fn keeps_the_contract() {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in contract::FILES {
            let path = root.path().join(path.trim_start_matches('/'));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        contract::contract(&Linux::below(root.path())).await;
    }

    #[test]
    fn the_real_machine_has_a_root_user_and_a_name() {
        let linux = Linux::default();
        assert_eq!(linux.user("root").unwrap().map(|user| user.uid), Some(0));
        assert!(!linux.hostname().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_program_that_takes_too_long_is_killed_with_what_it_started() {
        let marker = tempfile::tempdir().unwrap();
        let pid = marker.path().join("pid");
        let script = format!("sleep 600 & echo $! > {}; wait", pid.display());
        let program = Program { deadline: Duration::from_millis(300), ..shell(&script) };
        let late = Linux::default().run(&program).await.unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        let pid = fs::read_to_string(pid).unwrap();
        let stat = format!("/proc/{}/stat", pid.trim());
        let gone = async {
            // Dead, or a zombie that nobody has waited for yet.
            while fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), gone).await.expect("it was killed");
    }

    #[tokio::test]
    async fn what_a_program_writes_beyond_the_limit_is_dropped_and_it_still_ends() {
        let program = shell("head -c 3000000 /dev/zero; echo no >&2; exit 3");
        let ended = Linux::default().run(&program).await.unwrap();
        assert_eq!(ended.output.len(), OUTPUT_BYTES_MAX);
        assert_eq!((ended.code, ended.errors), (Some(3), b"no\n".to_vec()));
    }
}
