//! Figures about a running program: counters, histograms, and the page that shows them in the text
//! format of Prometheus.
//!
//! **Not here:** a registry. Whoever has figures writes them on the page when somebody asks for it.

use std::fmt::{self, Display, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A number that only grows. Reading it says nothing about other numbers.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// Returns it.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How many there are of something just now. Clones are the same gauge.
#[derive(Debug, Clone, Default)]
pub struct Gauge(Arc<AtomicU64>);

impl Gauge {
    /// Counts one more until the guard is dropped.
    pub fn enter(&self) -> Inside {
        self.0.fetch_add(1, Ordering::Relaxed);
        Inside(self.clone())
    }

    /// Returns it.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One that is counted by a [`Gauge`].
#[derive(Debug)]
pub struct Inside(Gauge);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How many buckets a histogram has: from its first bound on, each is twice as wide.
const BUCKETS: usize = 16;

/// How long things took.
#[derive(Debug)]
pub struct Histogram {
    /// The first bucket's upper bound.
    first: Duration,
    /// How many fell into each bucket, and at last those beyond all.
    counts: [AtomicU64; BUCKETS + 1],
    nanos: AtomicU64,
}

impl Histogram {
    /// Makes an empty one.
    pub fn new(first: Duration) -> Self {
        Self { first, counts: Default::default(), nanos: AtomicU64::default() }
    }

    /// Counts one.
    pub fn observe(&self, took: Duration) {
        let at = self.bounds().position(|bound| took <= bound).unwrap_or(BUCKETS);
        self.counts[at].fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    fn bounds(&self) -> impl Iterator<Item = Duration> {
        (0..BUCKETS).map(|at| self.first * 2_u32.pow(u32::try_from(at).unwrap_or(0)))
    }
}

/// What a family of samples is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, until the program starts anew.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// A page of figures, in the order in which they are written.
#[derive(Debug, Default)]
pub struct Page(String);

impl Page {
    /// Writes a family with one sample.
    pub fn one(&mut self, kind: Kind, name: &str, about: &str, value: impl Display) {
        self.family(kind, name, about, [("", value)]);
    }

    /// Writes a family whose samples have labels, such as `To="a1"`.
    pub fn family<L: Display, V: Display>(
        &mut self,
        kind: Kind,
        name: &str,
        about: &str,
        samples: impl IntoIterator<Item = (L, V)>,
    ) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        self.head(name, about, kind);
        for (labels, value) in samples {
            let labels = labels.to_string();
            if labels.is_empty() {
                self.line(format_args!("{name} {value}"));
            } else {
                self.line(format_args!("{name}{{{labels}}} {value}"));
            }
        }
    }

    /// Writes a family of histograms.
    pub fn histograms<L: Display>(&mut self, name: &str, about: &str, samples: &[(L, &Histogram)]) {
        self.head(name, about, "histogram");
        for (labels, histogram) in samples {
            let labels = labels.to_string();
            let comma = if labels.is_empty() { "" } else { "," };
            let braced = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
            let mut total = 0;
            for (bound, count) in histogram.bounds().zip(&histogram.counts) {
                total += count.load(Ordering::Relaxed);
                let bound = bound.as_secs_f64();
                self.line(format_args!("{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {total}"));
            }
            total += histogram.counts[BUCKETS].load(Ordering::Relaxed);
            let sum = Duration::from_nanos(histogram.nanos.load(Ordering::Relaxed)).as_secs_f64();
            self.line(format_args!("{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {total}"));
            self.line(format_args!("{name}_sum{braced} {sum}"));
            self.line(format_args!("{name}_count{braced} {total}"));
        }
    }

    /// Returns the text.
    pub fn into_text(self) -> String {
        self.0
    }

    fn head(&mut self, name: &str, about: &str, kind: &str) {
        self.line(format_args!("# HELP {name} {about}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    fn line(&mut self, text: fmt::Arguments<'_>) {
        writeln!(self.0, "{text}").expect("a string takes all");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_written_as_prometheus_reads_it() {
        let mut page = Page::default();
        page.one(Kind::Gauge, "up", "Whether it is up.", 1);
        page.family(
            Kind::Counter,
            "asked_total",
            "Requests.",
            [("kind=\"get\"", 2), ("kind=\"put\"", 3)],
        );
        assert_eq!(
            page.into_text(),
            "# HELP up Whether it is up.\n# TYPE up gauge\nup 1\n\
             # HELP asked_total Requests.\n# TYPE asked_total counter\n\
             asked_total{kind=\"get\"} 2\nasked_total{kind=\"put\"} 3\n",
        );
    }

    #[test]
    fn a_histogram_counts_each_time_in_every_bucket_that_reaches_it() {
        let histogram = Histogram::new(Duration::from_millis(1));
        for millis in [1, 2, 3, 100_000] {
            histogram.observe(Duration::from_millis(millis));
        }
        let mut page = Page::default();
        page.histograms("took_seconds", "How long.", &[("", &histogram)]);
        let text = page.into_text();
        for line in [
            "took_seconds_bucket{le=\"0.001\"} 1",
            "took_seconds_bucket{le=\"0.002\"} 2",
            "took_seconds_bucket{le=\"0.004\"} 3",
            "took_seconds_bucket{le=\"32.768\"} 3",
            "took_seconds_bucket{le=\"+Inf\"} 4",
            "took_seconds_sum 100.006",
            "took_seconds_count 4",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in {text}");
        }
    }

    #[test]
    fn what_is_inside_is_counted_until_it_leaves() {
        let gauge = Gauge::default();
        let (first, second) = (gauge.enter(), gauge.enter());
        assert_eq!(gauge.get(), 2);
        drop(first);
        assert_eq!(gauge.get(), 1);
        drop(second);
        assert_eq!(gauge.get(), 0);
    }
}
