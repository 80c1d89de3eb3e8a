//! A timer for deadlines that are nearly always met: one alarm of a connection, which is not set anew
//! for each of its requests.
//!
//! ```text
//!  alarm      ├───────────────────────────▶ rings, finds that there is time left, and is set anew
//!  deadlines      ├─ met   ├─ met   ├───────────────────────────▶
//! ```
//! Each deadline is as long as those before it, so the alarm never rings too late. Setting one takes
//! the lock of all timers, twice for each request.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::{Sleep, Timer};
use tokio::time::Instant;

/// Makes deadlines of a connection, all equally long. Clones share the alarm.
#[derive(Debug, Clone, Default)]
pub(super) struct Deadlines {
    rings: Arc<Mutex<Option<Pin<Box<tokio::time::Sleep>>>>>,
}

/// One deadline.
#[derive(Debug)]
struct Deadline {
    at: Instant,
    alarm: Deadlines,
}

#[expect(
    clippy::disallowed_types,
    reason = "it is the library's; all that is told comes from tokio's"
)]
impl Timer for Deadlines {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        Box::pin(Deadline { at: Instant::now() + duration, alarm: self.clone() })
    }

    fn sleep_until(&self, deadline: std::time::Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(Deadline { at: deadline.into(), alarm: self.clone() })
    }

    fn now(&self) -> std::time::Instant {
        Instant::now().into()
    }
}

impl Sleep for Deadline {}

impl Future for Deadline {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut rings = self.alarm.rings.lock().unwrap_or_else(PoisonError::into_inner);
        let rings = rings.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(self.at)));
        loop {
            ready!(rings.as_mut().poll(context));
            if rings.deadline() >= self.at {
                return Poll::Ready(());
            }
            rings.as_mut().reset(self.at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_mins(1);
    const SHORT: Duration = Duration::from_secs(25);

    #[tokio::test(start_paused = true)]
    async fn a_deadline_is_kept_however_many_were_met_before_it() {
        let alarm = Deadlines::default();
        for _ in 0..5 {
            tokio::time::timeout(SHORT, alarm.sleep(LONG)).await.unwrap_err();
        }
        let begun = Instant::now();
        alarm.sleep_until((begun + LONG).into()).await;
        assert_eq!(begun.elapsed(), LONG);
        alarm.sleep(LONG).await;
        assert_eq!(begun.elapsed(), 2 * LONG);
    }
}
