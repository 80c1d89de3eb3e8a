//! `update-ssh-keys`: a user's `authorized_keys` out of named parts.

use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};

use clap::{CommandFactory as _, FromArgMatches as _, Parser};

use crate::agents::ssh_keys::folder::{Folder, SshKeysError};
use crate::agents::ssh_keys::fragments::{
    Change, Existing, FRAGMENT_BYTES_MAX, Fragments, Name, Outcome, Refusal,
};
use crate::cli::multicall::Applet;
use crate::foundation::exit::{Exit, chain};
use crate::foundation::journal;
use crate::platform::host::{Host, Linux, User};

/// The applet.
pub const APPLET: Applet = Applet {
    name: NAME,
    about: "Make a user's authorized_keys out of named parts",
    command: Cli::command,
    run,
    ..Applet::PLAIN
};

const NAME: &str = "update-ssh-keys";

/// Make a user's `authorized_keys` out of named parts
///
/// The parts are the files in `~/.ssh/authorized_keys.d`. Without an action, `authorized_keys` is
/// made anew from them.
#[derive(Debug, Parser)]
#[command(name = NAME)]
struct Cli {
    /// Whose keys; by default your own
    #[arg(short = 'u', value_name = "USER")]
    user: Option<String>,

    /// Add keys under a name, replacing what it has; a disabled name stays disabled
    #[arg(short = 'a', value_name = "NAME", group = "action")]
    add: Option<String>,

    /// Add keys under a name even if it is disabled
    #[arg(short = 'A', value_name = "NAME", group = "action")]
    add_force: Option<String>,

    /// Leave a name that is there as it is
    #[arg(short = 'n')]
    no_replace: bool,

    /// Delete the keys of a name
    #[arg(short = 'd', value_name = "NAME", group = "action")]
    delete: Option<String>,

    /// Disable a name, so that only `-A` adds it again
    #[arg(short = 'D', value_name = "NAME", group = "action")]
    disable: Option<String>,

    /// List the names with their number of keys
    #[arg(short = 'l', group = "action")]
    list: bool,

    /// Go on even if not one key is left
    #[arg(long)]
    force: bool,

    /// Files to read keys from; by default standard input
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// What went wrong here rather than in the folder.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error("there is no user `{name}`")]
    NoUser { name: String },
    #[error("cannot tell who you are; name a user with `-u USER`")]
    Nobody,
    #[error("cannot read the users of this machine")]
    Users(#[source] io::Error),
    #[error("cannot read keys from {from}")]
    Read { from: String, source: io::Error },
    #[error("`-n` goes with `-a`, files with `-a` or `-A`")]
    Usage,
    #[error("cannot start")]
    Start(#[source] io::Error),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Keys(#[from] SshKeysError),
}

#[expect(clippy::needless_pass_by_value, reason = "the applet table wants it so")]
fn run(matches: clap::ArgMatches) -> Exit {
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(refusal) => {
            refusal.print().ok();
            return Exit::Usage;
        }
    };
    journal::start("info", journal::Reader::Person);
    match act(cli, &Linux::default(), &mut io::stdout().lock()) {
        Ok(()) => Exit::Ok,
        Err(error) => {
            writeln!(io::stderr(), "{NAME}: {}", chain(&error)).ok();
            if matches!(error, CliError::Usage) { Exit::Usage } else { Exit::Failure }
        }
    }
}

fn act(cli: Cli, host: &dyn Host, out: &mut impl Write) -> Result<(), CliError> {
    let user = user(cli.user.as_deref(), host)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(CliError::Start)?;
    if cli.list {
        let folder = runtime.block_on(Folder::open(user))?;
        list(&folder.read()?, out);
        return Ok(());
    }
    let even_if_empty = cli.force;
    // Before the lock: who types the keys by hand must not hold up others.
    let change = change(cli)?;
    let name = name_of(&change);
    let mut folder = runtime.block_on(Folder::open(user))?;
    let left = match folder.change(change, even_if_empty)? {
        Outcome::Done => return Ok(()),
        Outcome::Kept => "are there already and were left",
        Outcome::Disabled => "are disabled and were left; `-A` adds them all the same",
    };
    writeln!(io::stderr(), "{NAME}: the keys named `{name}` {left}").ok();
    Ok(())
}

fn user(name: Option<&str>, host: &dyn Host) -> Result<User, CliError> {
    let Some(name) = name else {
        let uid = rustix::process::getuid().as_raw();
        return host.user_numbered(uid).map_err(CliError::Users)?.ok_or(CliError::Nobody);
    };
    let found = host.user(name).map_err(CliError::Users)?;
    found.ok_or_else(|| CliError::NoUser { name: name.to_owned() })
}

/// Turns the words into a change, reading the keys to add.
fn change(cli: Cli) -> Result<Change, CliError> {
    if (cli.no_replace && cli.add.is_none())
        || (!cli.files.is_empty() && cli.add.is_none() && cli.add_force.is_none())
    {
        return Err(CliError::Usage);
    }
    let add = |name: &str, existing| {
        let name = Name::parse(name)?;
        Ok(Change::Add { name, text: keys(&cli.files)?, existing })
    };
    if let Some(name) = cli.add {
        return add(&name, if cli.no_replace { Existing::Keep } else { Existing::Replace });
    }
    if let Some(name) = cli.add_force {
        return add(&name, Existing::Force);
    }
    Ok(match (cli.delete, cli.disable) {
        (Some(name), _) => Change::Delete(Name::parse(&name)?),
        (None, Some(name)) => Change::Disable(Name::parse(&name)?),
        (None, None) => Change::Nothing,
    })
}

fn name_of(change: &Change) -> String {
    match change {
        Change::Nothing => String::new(),
        Change::Add { name, .. } | Change::Delete(name) | Change::Disable(name) => name.to_string(),
    }
}

/// Reads keys from files, or from standard input where there are none.
fn keys(files: &[PathBuf]) -> Result<String, CliError> {
    if files.is_empty() {
        return bounded(io::stdin().lock(), || "standard input".to_owned());
    }
    let mut text = String::new();
    for path in files {
        let from = || format!("`{}`", path.display());
        let file = open(path).map_err(|source| CliError::Read { from: from(), source })?;
        text.push_str(&bounded(file, from)?);
        text.push('\n');
    }
    Ok(text)
}

fn open(path: &Path) -> io::Result<std::fs::File> {
    std::fs::File::open(path)
}

/// Reads one byte more than may be there, which is then refused as too long.
fn bounded(from: impl io::Read, name: impl Fn() -> String) -> Result<String, CliError> {
    let mut text = String::new();
    let read = from.take(FRAGMENT_BYTES_MAX as u64 + 1).read_to_string(&mut text);
    read.map_err(|source| CliError::Read { from: name(), source })?;
    Ok(text)
}

fn list(fragments: &Fragments, out: &mut impl Write) {
    for (name, count) in fragments.counts() {
        let text = fragments.0.get(name).map_or("", String::as_str);
        let line = match count {
            _ if text.is_empty() => format!("{name}: disabled"),
            1 => format!("{name}: 1 key"),
            count => format!("{name}: {count} keys"),
        };
        if writeln!(out, "{line}").is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::host::MemoryHost;

    fn cli(words: &[&str]) -> Cli {
        Cli::try_parse_from([&[NAME], words].concat()).unwrap()
    }

    #[test]
    fn words_become_changes() {
        let name = |name| Name::parse(name).unwrap();
        assert_eq!(change(cli(&["-u", "core", "-d", "a"])).unwrap(), Change::Delete(name("a")));
        assert_eq!(change(cli(&["-D", "a"])).unwrap(), Change::Disable(name("a")));
        assert_eq!(change(cli(&[])).unwrap(), Change::Nothing);
        assert!(matches!(change(cli(&["-n"])), Err(CliError::Usage)));
        assert!(matches!(change(cli(&["-d", "a", "file"])), Err(CliError::Usage)));
        Cli::try_parse_from([NAME, "-a", "x", "-d", "y"]).expect_err("one action at a time");
    }

    #[test]
    fn keys_are_added_from_files_for_a_user_of_the_machine_and_listed() {
        let home = tempfile::tempdir().unwrap();
        let keys = home.path().join("keys");
        let key = crate::agents::ssh_keys::keys::tests::ED25519;
        std::fs::write(&keys, key).unwrap();
        let host = MemoryHost::named("a");
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        let home_text = home.path().display();
        let passwd = format!("core:x:{}:{}::{home_text}:/bin/sh\n", uid.as_raw(), gid.as_raw());
        host.write("/etc/passwd", passwd.as_bytes());

        let words = ["-u", "core", "-a", "test", keys.to_str().unwrap()];
        act(cli(&words), &host, &mut Vec::new()).unwrap();
        let text = std::fs::read_to_string(home.path().join(".ssh/authorized_keys")).unwrap();
        assert!(text.lines().any(|line| line == key), "{text}");
        let mut out = Vec::new();
        act(cli(&["-u", "core", "-l"]), &host, &mut out).unwrap();
        assert_eq!(out, b"test: 1 key\n");

        let refused = act(cli(&["-u", "nobody", "-l"]), &host, &mut Vec::new()).unwrap_err();
        assert_eq!(refused.to_string(), "there is no user `nobody`");
    }
}
