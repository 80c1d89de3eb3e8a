//! Who owns the tasks of a client's connection of HTTP/2.

use hyper::rt::Executor;

use crate::foundation::tasks::Tasks;

/// Runs what a connection's streams need, in tasks of this set.
#[derive(Debug, Clone)]
pub struct Streams(pub Tasks);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, work: F) {
        self.0.spawn_short(work);
    }
}
