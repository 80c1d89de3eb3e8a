//! Where an applet's asynchronous work runs. The runtime starts here, inside the applet.

use std::future::Future;

/// Runs a client's work on this thread.
///
/// # Panics
///
/// Where the kernel gives no descriptors for a poller, without which nothing can be done.
pub fn on_this_thread<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a fresh process can poll").block_on(work)
}
