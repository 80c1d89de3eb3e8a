//! The histograms of the consensus library, in half a kilobyte each.
//!
//! openraft counts batch sizes in histograms of the crate `base2histogram` and shows them only with
//! its feature `runtime-stats`, which is off here. The crate's first histogram builds tables for all
//! sixteen resolutions: 27 MiB, and most of the time that an empty member takes to start. This stands
//! in for it, as far as openraft uses it, with a bucket for each power of two
//! (docs/adr/0012-histograms-without-tables.md).

use std::fmt;
use std::marker::PhantomData;

/// One bucket for zero, and one for each bit that may be a value's highest.
const BUCKETS: usize = 65;

/// Counts values by their highest bit.
///
/// `T` is what the original can note beside each slot; nothing is noted here.
#[derive(Clone, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    counts: [u64; BUCKETS],
    noted: PhantomData<T>,
}

impl<T> Histogram<T> {
    /// Returns one that has counted nothing.
    pub const fn new() -> Self {
        Self { counts: [0; BUCKETS], noted: PhantomData }
    }

    /// Counts `value` once.
    pub const fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts `value` `times` times; a count that is full stays so.
    pub const fn record_n(&mut self, value: u64, times: u64) {
        let bucket = &mut self.counts[bucket(value)];
        *bucket = bucket.saturating_add(times);
    }

    /// Returns how many values were counted.
    pub fn total(&self) -> u64 {
        self.counts.iter().fold(0, |total, count| total.saturating_add(*count))
    }

    /// Returns the least value that could be at the place of `permille` of all that were counted:
    /// at most half too low. Zero of nothing.
    fn percentile(&self, permille: u64) -> u64 {
        let total = u128::from(self.total());
        // Counted from one; never past the last.
        let place = (total * u128::from(permille)).div_ceil(1_000).max(1);
        let mut passed = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            passed += u128::from(*count);
            if passed >= place {
                return least(bucket);
            }
        }
        0
    }

    /// Returns how the values are spread.
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: self.total(),
            p0_1: self.percentile(1),
            p1: self.percentile(10),
            p5: self.percentile(50),
            p10: self.percentile(100),
            p50: self.percentile(500),
            p90: self.percentile(900),
            p99: self.percentile(990),
            p99_9: self.percentile(999),
        }
    }
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for Histogram<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.percentile_stats().fmt(out)
    }
}

/// Returns the bucket of `value`.
const fn bucket(value: u64) -> usize {
    (u64::BITS - value.leading_zeros()) as usize
}

/// Returns the least value of `bucket`.
const fn least(bucket: usize) -> u64 {
    if bucket == 0 { 0 } else { 1 << (bucket - 1) }
}

/// How values are spread: `p50` is what half of them do not exceed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the percentile that its name has")]
pub struct PercentileStats {
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { samples, p50, p90, p99, .. } = self;
        write!(out, "{samples} values, p50 {p50}, p90 {p90}, p99 {p99}")
    }
}

/// Histograms one below the other, a line each.
#[derive(Debug, Default)]
pub struct AsciiChart {
    lines: Vec<(String, PercentileStats)>,
}

impl AsciiChart {
    /// Returns one without lines.
    pub const fn new() -> Self {
        Self { lines: Vec::new() }
    }

    /// Adds a line.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "the signature is the original's")]
    pub fn add(mut self, name: impl Into<String>, histogram: Histogram) -> Self {
        self.lines.push((name.into(), histogram.percentile_stats()));
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, stats) in &self.lines {
            writeln!(out, "{name}: {stats}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_the_least_value_of_their_power_of_two() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!(histogram.percentile_stats(), PercentileStats::default());
        (1..=1_000).for_each(|value| histogram.record(value));
        let stats = histogram.percentile_stats();
        assert_eq!((stats.samples, stats.p0_1, stats.p1, stats.p50), (1_000, 1, 8, 256));
        assert_eq!((stats.p90, stats.p99, stats.p99_9), (512, 512, 512));
    }

    #[test]
    fn the_least_and_the_greatest_value_have_a_bucket() {
        let mut histogram = Histogram::<()>::new();
        histogram.record(0);
        histogram.record_n(u64::MAX, u64::MAX);
        histogram.record(u64::MAX);
        assert_eq!(histogram.counts[0], 1);
        assert_eq!(histogram.counts[64], u64::MAX);
        assert_eq!(histogram.total(), u64::MAX);
        assert_eq!(histogram.percentile_stats().p50, 1 << 63);
    }

    #[test]
    fn a_chart_has_a_line_for_each_histogram() {
        let chart = AsciiChart::new().add("one", Histogram::new()).add("two", Histogram::new());
        assert_eq!(chart.to_string().lines().count(), 2);
    }
}
