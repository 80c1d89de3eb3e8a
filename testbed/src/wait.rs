//! Waits for a state, never for an amount of time.
//!
//! A wait looks again and again until what it waits for is so. It looks at the state as it is now
//! (not at an event that may have passed), it has a deadline, and when that passes its error says
//! what was seen last.

use std::fmt;
use std::time::{Duration, Instant};

/// How long to rest between two looks.
const REST: Duration = Duration::from_millis(100);
/// How long to rest where the time itself is what is wanted.
const SHORT_REST: Duration = Duration::from_millis(1);

/// Something did not come true before its deadline.
#[derive(Debug, thiserror::Error)]
#[error("{what}: not so after {after:?}; last seen: {last}")]
pub struct TimedOut {
    /// What was waited for.
    pub what: String,
    /// How long.
    pub after: Duration,
    /// What was there instead.
    pub last: String,
}

/// Looks until `look` finds it. What `look` refuses with is remembered for the error.
///
/// ```
/// use std::time::Duration;
///
/// let mut looks = 0;
/// let found = testbed::wait::until("the third look", Duration::from_secs(5), || {
///     looks += 1;
///     if looks == 3 { Ok(looks) } else { Err(format!("{looks} looks")) }
/// });
/// assert_eq!(found.unwrap(), 3);
/// ```
pub fn until<T, E: fmt::Display>(
    what: &str,
    limit: Duration,
    look: impl FnMut() -> Result<T, E>,
) -> Result<T, TimedOut> {
    every(REST, what, limit, look)
}

/// The same to a millisecond, for whoever measures how long it took.
pub fn until_exactly<T, E: fmt::Display>(
    what: &str,
    limit: Duration,
    look: impl FnMut() -> Result<T, E>,
) -> Result<T, TimedOut> {
    every(SHORT_REST, what, limit, look)
}

fn every<T, E: fmt::Display>(
    pause: Duration,
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<T, E>,
) -> Result<T, TimedOut> {
    let start = Instant::now();
    loop {
        match look() {
            Ok(found) => return Ok(found),
            Err(seen) if start.elapsed() >= limit => {
                let last = seen.to_string();
                return Err(TimedOut { what: what.to_owned(), after: start.elapsed(), last });
            }
            Err(_) => rest(pause),
        }
    }
}

/// The one place that sleeps: between two looks.
pub(crate) fn rest(time: Duration) {
    std::thread::sleep(time);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_says_what_was_seen_last() {
        let error = until("water", Duration::ZERO, || Err::<(), _>("wine")).unwrap_err();
        assert_eq!(error.what, "water");
        assert_eq!(error.last, "wine");
    }

    #[test]
    fn it_looks_once_even_when_there_is_no_time() {
        assert_eq!(until("now", Duration::ZERO, || Ok::<_, &str>(7)).unwrap(), 7);
    }
}
