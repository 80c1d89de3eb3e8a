//! The process that a local cluster lives in after `up` has returned.

use std::os::unix::net::UnixListener;

use tracing_subscriber::EnvFilter;

use crate::error::LabError;
use crate::lab;
use crate::local::control;
use crate::local::nodes::Nodes;
use crate::local::places::Places;

/// What is logged: the consensus library calls its every step an event.
const LOGGED: &str = "info,openraft=off";
/// Where the node's name is in a line of the log: behind the time and the level.
const NODE_WORD: usize = 2;

/// Runs a cluster until it is killed, which is how it is taken down.
pub fn serve(places: Places) -> Result<(), LabError> {
    // First of all: from here on it is found and ended by whoever takes the lab down.
    lab::serve_from_here(places.id())?;
    log();
    let socket = places.control_socket();
    let mut nodes = Nodes::start(places)?;
    let listener = UnixListener::bind(&socket).map_err(LabError::file("listen at", &socket))?;
    control::take(&listener, |order| {
        tracing::info!(%order, "told");
        nodes.obey(order)
    });
    Ok(())
}

/// Starts to log to standard error. A node is known by the name of its thread.
pub fn log() {
    let lines = tracing_subscriber::fmt().with_env_filter(EnvFilter::new(LOGGED));
    let lines = lines.with_writer(std::io::stderr).with_ansi(false);
    // The only failure is that somebody was first.
    lines.compact().with_target(false).with_thread_names(true).try_init().ok();
}

/// The lines of a log that one node wrote.
#[must_use]
pub fn lines_of(log: &str, node: &str) -> String {
    let by_node = |line: &&str| line.split_whitespace().nth(NODE_WORD) == Some(node);
    log.lines().filter(by_node).flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_found_by_its_name() {
        let log = "2026-01-01T00:00:00Z  INFO node1 one\n2026-01-01T00:00:00Z  WARN node11 two\n";
        assert_eq!(lines_of(log, "node1"), "2026-01-01T00:00:00Z  INFO node1 one\n");
    }
}
