//! What the tasks of a trace share: what is known, and whom they ask.

use std::net::SocketAddrV4;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;
use tonic::{Code, Response, Status};

use crate::etcd::ANSWER;
use crate::etcd_v3::Client;
use crate::trace::checker::Checker;
use crate::trace::mix::Mix;
use crate::trace::report::{Report, Request};
use crate::trace::run::Trouble;
use crate::trace::violation::Violation;

/// What is known so far.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) mix: Mix,
    pub(super) checker: Checker,
    pub(super) report: Report,
    trouble: Trouble,
}

impl Known {
    /// Takes note of what the checker found.
    pub(super) fn judge(&mut self, checked: Result<(), Violation>) {
        if let Err(violation) = checked {
            self.report.violation.get_or_insert(violation);
        }
    }

    /// A request failed: that is a broken promise, unless members may die and this says so.
    pub(super) fn failed(&mut self, kind: Request, status: &Status) {
        let why = format!("{:?}: {}", status.code(), status.message());
        self.report.failed(kind, &why);
        if self.trouble == Trouble::None || !is_of_the_dead(status.code()) {
            let what = format!("{kind:?}");
            self.judge(Err(Violation::Refused { what, why }));
        }
    }

    /// A stream of watches ended.
    pub(super) fn ended(&mut self, watch: String, status: &Status) {
        if self.trouble == Trouble::None || !is_of_the_dead(status.code()) {
            let why = format!("{:?}: {}", status.code(), status.message());
            self.judge(Err(Violation::Ended { watch, why }));
        }
    }
}

/// Tells whether a failure may come from a member that dies, or has no leader.
fn is_of_the_dead(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Unknown
            | Code::Cancelled
            | Code::Internal
    )
}

/// One apiserver. Clones are the same one.
#[derive(Debug, Clone)]
pub(super) struct ApiServer {
    /// Its name.
    pub(super) name: String,
    members: Arc<Vec<(SocketAddrV4, Client)>>,
    /// Which member it asks.
    at: Arc<AtomicUsize>,
    known: Arc<Mutex<Known>>,
}

impl ApiServer {
    /// Makes apiservers that begin with another member each.
    pub(super) fn all(
        members: &[SocketAddrV4],
        count: usize,
        mix: Mix,
        trouble: Trouble,
    ) -> Vec<Self> {
        let (checker, report) = (Checker::default(), Report::default());
        let known = Arc::new(Mutex::new(Known { mix, checker, report, trouble }));
        let one = |number: usize| {
            let members = members.iter().map(|member| (*member, Client::new(*member))).collect();
            Self {
                name: format!("apiserver {number}"),
                members: Arc::new(members),
                at: Arc::new(AtomicUsize::new(number)),
                known: known.clone(),
            }
        };
        (0..count).map(one).collect()
    }

    /// What all of them know.
    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells whether a promise was broken.
    pub(super) fn is_over(&self) -> bool {
        self.known().report.violation.is_some()
    }

    /// The member that it asks, and a number to leave it by.
    pub(super) fn member(&self) -> (usize, SocketAddrV4, Client) {
        let at = self.at.load(Ordering::Relaxed);
        let (address, client) = &self.members[at % self.members.len()];
        (at, *address, client.clone())
    }

    /// Asks the next member from now on, unless it does already.
    pub(super) fn leave(&self, at: usize) {
        self.at.compare_exchange(at, at + 1, Ordering::Relaxed, Ordering::Relaxed).ok();
    }

    /// Asks the member something that was due at some time. Nothing, where it failed.
    pub(super) async fn call<T, W>(
        &self,
        kind: Request,
        due: Instant,
        ask: impl FnOnce(Client) -> W,
    ) -> Option<T>
    where
        W: Future<Output = Result<Response<T>, Status>>,
    {
        let (at, _, client) = self.member();
        let late = |_| Err(Status::deadline_exceeded("no answer"));
        let answer = tokio::time::timeout(ANSWER, ask(client)).await.unwrap_or_else(late);
        match answer {
            Ok(answer) => {
                self.known().report.answered(kind, due.elapsed());
                Some(answer.into_inner())
            }
            Err(status) => {
                self.known().failed(kind, &status);
                self.leave(at);
                None
            }
        }
    }
}
