//! What a trace came to: figures for each kind of request, and the first promise that was broken.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use comfy_table::Table;
use comfy_table::presets::ASCII_MARKDOWN;

use crate::latencies::Latencies;
use crate::trace::mix::Change;
use crate::trace::violation::Violation;

/// What 99 of 100 requests may take at most, in milliseconds.
pub const P99_MS_MAX: f64 = 50.0;
/// Fewer requests than that have no last hundredth to speak of.
const FEW: usize = 100;

/// A kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Request {
    /// Range of one key.
    Get,
    /// Range of one page.
    List,
    /// Range that counts.
    Count,
    /// Transaction that puts a new key.
    Create,
    /// Transaction that puts a key on a revision.
    Update,
    /// Transaction that deletes a key on a revision.
    Delete,
    /// Transaction that puts a new key with a lease.
    Event,
    /// A lease for events.
    Grant,
    /// Transaction by which compactors agree.
    Agree,
    /// Compaction.
    Compact,
    /// From asking a stream for its progress until it is told.
    Progress,
    /// Status of a member.
    Status,
    /// `GET /health`.
    Health,
}

impl Request {
    /// The kind of a change.
    pub(super) fn of(change: &Change) -> Self {
        match change {
            Change { value: None, .. } => Self::Delete,
            Change { base: 0, lease: 0, .. } => Self::Create,
            Change { base: 0, .. } => Self::Event,
            Change { .. } => Self::Update,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list, a page",
            Self::Count => "count",
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Event => "create, leased",
            Self::Grant => "grant a lease",
            Self::Agree => "agree on a compaction",
            Self::Compact => "compact",
            Self::Progress => "progress of watches",
            Self::Status => "status",
            Self::Health => "health",
        }
    }
}

#[derive(Debug, Default)]
struct Row {
    micros: Vec<u32>,
    errors: usize,
}

/// What a trace came to.
#[derive(Debug, Default)]
pub struct Report {
    rows: BTreeMap<Request, Row>,
    /// Events that all watches together were told of.
    pub events: usize,
    /// Bookmarks of all watches.
    pub bookmarks: usize,
    /// How often a stream of watches was opened behind what it had.
    pub resumed: usize,
    /// Changes that were refused since the key had another revision.
    pub conflicts: usize,
    /// The versions that members say they have.
    pub versions: BTreeSet<String>,
    /// The first promise that was broken.
    pub violation: Option<Violation>,
    /// The first request that failed, where that is allowed.
    pub first_error: Option<String>,
}

impl Report {
    pub(super) fn answered(&mut self, kind: Request, took: Duration) {
        let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        self.rows.entry(kind).or_default().micros.push(micros);
    }

    pub(super) fn failed(&mut self, kind: Request, why: &str) {
        self.rows.entry(kind).or_default().errors += 1;
        self.first_error.get_or_insert_with(|| format!("{}: {why}", kind.name()));
    }

    /// How many requests were answered.
    #[must_use]
    pub fn answers(&self) -> usize {
        self.rows.values().map(|row| row.micros.len()).sum()
    }

    /// How many requests of a kind were answered.
    #[must_use]
    pub fn answers_of(&self, kind: Request) -> usize {
        self.rows.get(&kind).map_or(0, |row| row.micros.len())
    }

    /// How many requests failed.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.rows.values().map(|row| row.errors).sum()
    }

    /// The kinds of request of which 99 of 100 took longer than they may, with what they took.
    #[must_use]
    pub fn too_slow(&self) -> Vec<(&'static str, f64)> {
        let all = self.all();
        let rows = self.rows.iter().map(|(kind, row)| (kind.name(), row.micros.clone()));
        let judged = rows.chain([("all", all)]).filter(|(_, micros)| micros.len() >= FEW);
        let p99 = |(name, micros)| Some((name, Latencies::new(micros).per_mille(990).ok()?));
        judged.filter_map(p99).filter(|(_, p99)| *p99 > P99_MS_MAX).collect()
    }

    fn all(&self) -> Vec<u32> {
        self.rows.values().flat_map(|row| row.micros.iter().copied()).collect()
    }

    /// A row for each kind of request, and one for all.
    #[must_use]
    pub fn table(&self) -> Table {
        let mut table = Table::new();
        let header = ["REQUEST", "ANSWERED", "ERRORS", "P50, ms", "P99, ms", "LONGEST, ms"];
        table.load_preset(ASCII_MARKDOWN).set_header(header);
        for (kind, row) in &self.rows {
            table.add_row(shown(kind.name(), row.micros.clone(), row.errors));
        }
        table.add_row(shown("all", self.all(), self.errors()));
        table
    }
}

fn shown(name: &str, micros: Vec<u32>, errors: usize) -> [String; 6] {
    let latencies = Latencies::new(micros);
    let part =
        |part| latencies.per_mille(part).map_or_else(|_| "-".to_owned(), |ms| format!("{ms:.1}"));
    let count = latencies.count().to_string();
    [name.to_owned(), count, errors.to_string(), part(500), part(990), part(1000)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_slow_is_named_unless_there_is_little_of_it() {
        let mut report = Report::default();
        for _ in 0..2000 {
            report.answered(Request::Get, Duration::from_millis(2));
        }
        for _ in 0..5 {
            report.answered(Request::Compact, Duration::from_millis(900));
        }
        assert_eq!(report.too_slow(), []);
        for _ in 0..200 {
            report.answered(Request::List, Duration::from_millis(51));
        }
        let names: Vec<_> = report.too_slow().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["list, a page", "all"]);
        report.failed(Request::Get, "no");
        report.failed(Request::Get, "never");
        assert_eq!((report.answers(), report.errors()), (2205, 2));
        assert_eq!(report.first_error.as_deref(), Some("get: no"));
        let table = report.table().to_string();
        let words: Vec<_> = table.lines().nth(2).unwrap_or_default().split_whitespace().collect();
        let expected = ["|", "get", "|", "2000", "|", "2", "|", "2.0", "|", "2.0", "|", "2.0", "|"];
        assert_eq!(words, expected, "{table}");
    }
}
