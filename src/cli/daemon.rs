//! What every daemon's applet does around its agent: a runtime, signals, the service manager.

use std::future::Future;

use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

use crate::cli::environment;
use crate::cli::output::Output;
use crate::foundation::exit::Exit;
use crate::foundation::journal::{self, Reader};
use crate::foundation::limits::CONNECTIONS_MAX;
use crate::platform::host::process;
use crate::rpc::server::listen::connections_within;

/// Worker threads of a daemon: its own work is little, and a node has other things to do.
const WORKERS: usize = 2;

/// Runs `work` on a runtime of its own until it is done; its token is cancelled by SIGTERM and
/// SIGINT.
pub fn run<F>(work: impl FnOnce(CancellationToken) -> F) -> Exit
where
    F: Future<Output = Exit>,
{
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(WORKERS).enable_all();
    match builder.build() {
        Ok(runtime) => runtime.block_on(until_signal(work)),
        Err(error) => {
            Output::of_process().complain(format_args!("cannot start a runtime: {error}"));
            Exit::Failure
        }
    }
}

async fn until_signal<F: Future<Output = Exit>>(work: impl FnOnce(CancellationToken) -> F) -> Exit {
    use tokio::signal::unix::{SignalKind, signal};

    let stop = CancellationToken::new();
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let (Ok(mut terminate), Ok(mut interrupt)) = signals else {
        Output::of_process().complain("cannot listen for signals");
        return Exit::Failure;
    };
    let mut work = std::pin::pin!(work(stop.clone()));
    loop {
        tokio::select! {
            biased;
            exit = work.as_mut() => return exit,
            _ = terminate.recv() => stop.cancel(),
            _ = interrupt.recv() => stop.cancel(),
        }
    }
}

/// Starts to log: for the journal where systemd reads our stderr, else for a person.
pub fn log(level: &str) {
    let journal = environment::variable("JOURNAL_STREAM").is_some();
    journal::start(level, if journal { Reader::Journal } else { Reader::Person });
}

/// Allows as many connections as the kernel lets this process have, and returns how many that are.
pub fn raise_connections() -> usize {
    if let Err(error) = process::raise_descriptors() {
        tracing::warn!(%error, "cannot raise the number of descriptors of this process");
    }
    let descriptors = process::descriptors();
    let connections = connections_within(descriptors);
    if connections < CONNECTIONS_MAX {
        tracing::warn!(
            descriptors,
            connections,
            "there may be only so many connections of clients at a time: raise `LimitNOFILE=` of \
             the unit, or `ulimit -Hn`"
        );
    }
    connections
}

/// Tells the service manager that the service is up.
pub fn notify_ready() {
    notify(&[NotifyState::Ready]);
}

/// Tells the service manager what the service is doing.
pub fn notify_status(text: &str) {
    notify(&[NotifyState::Status(text)]);
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager was not told");
    }
}
