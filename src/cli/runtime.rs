//! Where an applet's asynchronous work runs. The runtime starts here, inside the applet.

use std::future::Future;

/// Runs a client's work on this thread. Who still reads standard input is not waited for.
///
/// # Panics
///
/// Where the kernel gives no descriptors for a poller, without which nothing can be done.
pub fn on_this_thread<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a fresh process can poll");
    let done = runtime.block_on(work);
    runtime.shutdown_background();
    done
}
