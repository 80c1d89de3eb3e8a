//! Programs that a watch runs at every change.

use tokio::process::Command;

/// Makes the command line of a program by name.
#[expect(
    clippy::disallowed_methods,
    reason = "the program talks to the terminal while it runs, which `Host::run` does not let it"
)]
pub(super) fn command(name: &str) -> Command {
    Command::new(name)
}
