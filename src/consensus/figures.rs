//! What a member counts about itself since it started: for `/v2/stats` and `/metrics`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::foundation::clock::Timestamp;
use crate::foundation::metrics::{Counter, Gauge, Histogram};
use crate::store::tally::Tally;

/// Messages over which a rate is told, as etcd.
const RATED: usize = 200;
/// How old the newest of them may be, as etcd.
const RATE_FRESH: Duration = Duration::from_secs(1);
/// The narrowest bucket for syncs and checkpoints, as etcd.
const DISK_BUCKET: Duration = Duration::from_millis(1);
/// The narrowest bucket for round trips, as etcd.
const TRIP_BUCKET: Duration = Duration::from_micros(100);

/// All figures of a member.
#[derive(Debug)]
pub struct Figures {
    /// When the member started.
    pub started: Timestamp,
    /// Requests to the v2 keys.
    pub keys: Tally,
    /// Commands that wait to be applied.
    pub pending: Gauge,
    /// Proposals that were not done, or perhaps not.
    pub failed: Counter,
    /// Reads that nobody could confirm in time.
    pub reads_failed: Counter,
    /// How long the log took to sync.
    pub wal_sync: Histogram,
    /// Bytes written to the log.
    pub wal_bytes: Counter,
    /// How long checkpoints took to save.
    pub checkpoints: Histogram,
    leadership: Mutex<Leadership>,
    sent: Mutex<Traffic>,
    received: Mutex<Traffic>,
    followers: Mutex<BTreeMap<u64, Arc<Follower>>>,
}

/// Who leads, as far as this member saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Leadership {
    /// The leader.
    pub leader: Option<u64>,
    /// When this member saw it lead first.
    pub since: Timestamp,
    /// How often it saw another leader than before.
    pub changes: u64,
}

/// Appends that went one way.
#[derive(Debug, Default)]
struct Traffic {
    count: u64,
    last: VecDeque<(Instant, usize)>,
}

/// What is told of the traffic with a member.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rate {
    /// How many appends there were.
    pub count: u64,
    /// How many in a second lately.
    pub appends: f64,
    /// How many bytes in a second lately.
    pub bytes: f64,
}

impl Traffic {
    fn add(&mut self, now: Instant, bytes: usize) {
        self.count += 1;
        if self.last.len() == RATED {
            self.last.pop_front();
        }
        self.last.push_back((now, bytes));
    }

    fn rate(&self, now: Instant) -> Rate {
        let none = Rate { count: self.count, ..Rate::default() };
        let (Some((first, _)), Some((last, _))) = (self.last.front(), self.last.back()) else {
            return none;
        };
        let span = last.duration_since(*first);
        if now.duration_since(*last) > RATE_FRESH || span.is_zero() {
            return none;
        }
        let bytes: usize = self.last.iter().map(|(_, bytes)| bytes).sum();
        let in_a_second = |number: usize| to_f64(number as u64) / span.as_secs_f64();
        Rate { appends: in_a_second(self.last.len()), bytes: in_a_second(bytes), ..none }
    }
}

/// How the appends to one follower went.
#[derive(Debug)]
pub struct Follower {
    /// Appends that it did not answer.
    pub fail: Counter,
    /// How long it took to answer.
    pub trips: Histogram,
    latency: Mutex<Latency>,
}

/// How long a follower took to answer, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Latency {
    /// How many answers there were.
    pub count: u64,
    /// The last.
    pub current: f64,
    /// The mean.
    pub average: f64,
    /// The shortest.
    pub minimum: f64,
    /// The longest.
    pub maximum: f64,
    squares: f64,
}

impl Latency {
    fn add(&mut self, took: Duration) {
        let millis = took.as_secs_f64() * 1_000.0;
        let before = to_f64(self.count);
        self.count += 1;
        let mean = |average: f64, next: f64| (average * before + next) / (before + 1.0);
        self.current = millis;
        self.average = mean(self.average, millis);
        self.squares = mean(self.squares, millis * millis);
        self.minimum = if self.count == 1 { millis } else { self.minimum.min(millis) };
        self.maximum = self.maximum.max(millis);
    }

    /// Returns how far answers are from the mean.
    pub fn deviation(&self) -> f64 {
        self.average.mul_add(-self.average, self.squares).max(0.0).sqrt()
    }
}

#[expect(clippy::cast_precision_loss, reason = "2^53 of anything is not counted here")]
fn to_f64(number: u64) -> f64 {
    number as f64
}

impl Follower {
    /// Returns how long it took to answer.
    pub fn latency(&self) -> Latency {
        *locked(&self.latency)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Figures {
    /// Makes the figures of a member that starts now.
    pub fn new(started: Timestamp) -> Self {
        Self {
            started,
            keys: Tally::default(),
            pending: Gauge::default(),
            failed: Counter::default(),
            reads_failed: Counter::default(),
            wal_sync: Histogram::new(DISK_BUCKET),
            wal_bytes: Counter::default(),
            checkpoints: Histogram::new(DISK_BUCKET),
            leadership: Mutex::default(),
            sent: Mutex::default(),
            received: Mutex::default(),
            followers: Mutex::default(),
        }
    }

    /// Returns who leads.
    pub fn leadership(&self) -> Leadership {
        *locked(&self.leadership)
    }

    /// Takes note of who leads at `now`.
    pub fn led_by(&self, leader: Option<u64>, now: Timestamp) {
        let mut known = locked(&self.leadership);
        if leader == known.leader {
            return;
        }
        let changes = known.changes + u64::from(leader.is_some());
        *known = Leadership { leader, since: now, changes };
    }

    /// Counts an append that was sent.
    pub fn sent(&self, bytes: usize) {
        locked(&self.sent).add(Instant::now(), bytes);
    }

    /// Counts an append that was received.
    pub fn received(&self, bytes: usize) {
        locked(&self.received).add(Instant::now(), bytes);
    }

    /// Returns what was sent and what was received.
    pub fn traffic(&self) -> (Rate, Rate) {
        let now = Instant::now();
        (locked(&self.sent).rate(now), locked(&self.received).rate(now))
    }

    /// Counts how an append to a follower went: how long it took to answer, if it did.
    pub fn appended(&self, follower: u64, took: Option<Duration>) {
        let follower = locked(&self.followers).entry(follower).or_default().clone();
        match took {
            Some(took) => {
                follower.trips.observe(took);
                locked(&follower.latency).add(took);
            }
            None => follower.fail.add(1),
        }
    }

    /// Returns all to whom appends were sent.
    pub fn followers(&self) -> BTreeMap<u64, Arc<Follower>> {
        locked(&self.followers).clone()
    }
}

impl Default for Follower {
    fn default() -> Self {
        Self {
            fail: Counter::default(),
            trips: Histogram::new(TRIP_BUCKET),
            latency: Mutex::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_counts_once_however_often_it_is_seen() {
        let figures = Figures::new(Timestamp::EPOCH);
        let at = Timestamp::from_secs;
        for (leader, secs) in [(None, 1), (Some(7), 2), (Some(7), 3), (None, 4), (Some(7), 5)] {
            figures.led_by(leader, at(secs));
        }
        let expected = Leadership { leader: Some(7), since: at(5), changes: 2 };
        assert_eq!(figures.leadership(), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_that_of_the_last_messages_and_is_gone_when_there_are_none() {
        let figures = Figures::new(Timestamp::EPOCH);
        for _ in 0..=RATED {
            figures.sent(50);
            tokio::time::advance(Duration::from_millis(10)).await;
        }
        let (sent, received) = figures.traffic();
        assert_eq!((sent.count, received), (201, Rate::default()));
        // 200 messages in 199 steps of 10 ms.
        assert!((sent.appends - 100.5).abs() < 0.1, "{sent:?}");
        assert!((sent.bytes - 5_025.0).abs() < 5.0, "{sent:?}");
        tokio::time::advance(RATE_FRESH).await;
        assert_eq!(figures.traffic().0, Rate { count: 201, ..Rate::default() });
    }

    #[test]
    fn the_latency_of_a_follower_is_summed_up() {
        let figures = Figures::new(Timestamp::EPOCH);
        for millis in [2, 4, 6] {
            figures.appended(9, Some(Duration::from_millis(millis)));
        }
        figures.appended(9, None);
        let follower = figures.followers()[&9].clone();
        let latency = follower.latency();
        assert_eq!((latency.count, follower.fail.get()), (3, 1));
        let close = |value: f64, expected: f64| (value - expected).abs() < 1e-6;
        assert!(close(latency.average, 4.0) && close(latency.current, 6.0), "{latency:?}");
        assert!(close(latency.minimum, 2.0) && close(latency.maximum, 6.0), "{latency:?}");
        assert!(close(latency.deviation(), (8.0_f64 / 3.0).sqrt()), "{latency:?}");
    }
}
