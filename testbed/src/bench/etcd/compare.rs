//! Medians, ratios, and the tables of them.

use std::collections::BTreeMap;

use comfy_table::Table;
use comfy_table::presets::ASCII_MARKDOWN;

use crate::bench::etcd::rows::{Bar, Metric, Row};
use crate::bench::etcd::servers::System;
use crate::bench::figures::median;

/// Whoever is measured, by name.
const OURS: &str = "ours";
const LIMIT: &str = "limit";

/// What was measured, of whom.
#[derive(Debug)]
pub(super) struct Samples {
    peers: Vec<String>,
    taken: BTreeMap<(&'static str, Metric, String), Vec<f64>>,
}

impl Samples {
    /// None yet.
    pub(super) fn new(systems: &[System]) -> Self {
        let peers = systems.iter().filter(|system| matches!(system, System::Peer { .. }));
        Self { peers: peers.map(System::name).collect(), taken: BTreeMap::new() }
    }

    /// Adds what one piece of work came to.
    pub(super) fn add(&mut self, row: &Row, system: &System, sample: &[(Metric, f64)]) {
        for (metric, value) in sample {
            self.take(row.name, *metric, &system.name(), *value);
        }
    }

    fn take(&mut self, row: &'static str, metric: Metric, whose: &str, value: f64) {
        self.taken.entry((row, metric, whose.to_owned())).or_default().push(value);
    }

    fn median(&self, row: &Row, metric: Metric, whose: &str) -> Option<f64> {
        self.taken.get(&(row.name, metric, whose.to_owned())).map(|values| median(values))
    }

    /// Ours beside the peers; below, how near to the limit ours are.
    pub(super) fn table(&self, rows: &[Row]) -> String {
        let beside = self.beside_peers(rows);
        let limit = self.beside_limit(rows);
        if limit.is_empty() { beside.to_string() } else { format!("{beside}\n\n{limit}") }
    }

    fn beside_peers(&self, rows: &[Row]) -> Table {
        let mut table = Table::new();
        let mut head = vec!["ROW".to_owned(), "WORK".to_owned(), "FIGURE".to_owned()];
        head.push("OURS".to_owned());
        head.extend(self.peers.iter().map(|peer| peer.to_uppercase()));
        head.extend(["RATIO", "BAR", "AIM", "REACHED"].map(str::to_owned));
        table.load_preset(ASCII_MARKDOWN).set_header(head);
        for row in rows {
            for bar in row.bars {
                table.add_row(self.promised(row, bar));
            }
            for metric in row.beside {
                let (mut line, _) = self.line(row, *metric);
                line.extend([missing(), missing(), missing()]);
                table.add_row(line);
            }
        }
        table
    }

    fn promised(&self, row: &Row, bar: &Bar) -> Vec<String> {
        let (mut line, ratio) = self.line(row, bar.metric);
        line.extend([bar.must.to_string(), bar.should.to_string()]);
        line.push(ratio.map_or_else(missing, |ratio| verdict(bar, ratio).to_owned()));
        line
    }

    /// The figures of one metric, and what ours is of the better peer's.
    fn line(&self, row: &Row, metric: Metric) -> (Vec<String>, Option<f64>) {
        let ours = self.median(row, metric, OURS);
        let peers: Vec<_> = self.peers.iter().map(|peer| self.median(row, metric, peer)).collect();
        let best = peers.iter().flatten().copied().reduce(|one, two| metric.better(one, two));
        let ratio = ours.zip(best).map(|(ours, best)| ours / best);
        let mut line = vec![row.name.to_owned(), row.about.to_owned()];
        line.push(metric.name().to_owned());
        line.extend(std::iter::once(ours).chain(peers).map(maybe));
        line.push(ratio.map_or_else(missing, |ratio| format!("{ratio:.2}")));
        (line, ratio)
    }

    fn beside_limit(&self, rows: &[Row]) -> Table {
        let mut table = Table::new();
        let head = ["ROW", "WORK", "OURS, 1/s", "LIMIT, 1/s", "PART", "GOAL"];
        table.load_preset(ASCII_MARKDOWN).set_header(head);
        for row in rows {
            let Some(goal) = row.of_limit else { continue };
            let ours = self.median(row, Metric::Rate, OURS);
            let limit = self.median(row, Metric::Rate, LIMIT);
            let part = ours.zip(limit).map(|(ours, limit)| format!("{:.2}", ours / limit));
            table.add_row([
                row.name.to_owned(),
                row.about.to_owned(),
                maybe(ours),
                maybe(limit),
                part.unwrap_or_else(missing),
                goal.to_string(),
            ]);
        }
        table
    }
}

fn verdict(bar: &Bar, ratio: f64) -> &'static str {
    if bar.metric.reaches(ratio, bar.should) {
        "aim"
    } else if bar.metric.reaches(ratio, bar.must) {
        "bar"
    } else {
        "no"
    }
}

fn maybe(value: Option<f64>) -> String {
    value.map_or_else(missing, shown)
}

/// What stands where nothing was measured.
fn missing() -> String {
    "-".to_owned()
}

/// A figure with as many digits as mean something.
pub(super) fn shown(value: f64) -> String {
    match value {
        value if value >= 1000.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::etcd::rows::named;

    fn samples(row: &Row, all: &[(Metric, &str, f64)]) -> Samples {
        let peers = ["etcd 3.4", "etcd 3.5"].map(str::to_owned).to_vec();
        let mut samples = Samples { peers, taken: BTreeMap::new() };
        for (metric, whose, value) in all {
            samples.take(row.name, *metric, whose, *value);
        }
        samples
    }

    /// The cells of a table's rows, without its head.
    fn cells(table: &Table) -> Vec<Vec<String>> {
        let text = table.to_string();
        let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect();
        text.lines().skip(2).map(cells).collect()
    }

    #[test]
    fn ours_is_compared_with_the_better_peer() {
        let row = named("put-64").unwrap();
        let rate = |whose, value| (Metric::Rate, whose, value);
        let cpu = |whose, value| (Metric::Cpu, whose, value);
        let samples = samples(
            &row,
            &[
                rate("ours", 30_000.0),
                rate("ours", 34_000.0),
                rate("ours", 50_000.0),
                rate("etcd 3.4", 10_000.0),
                rate("etcd 3.5", 20_000.0),
                cpu("ours", 20.0),
                cpu("etcd 3.4", 40.0),
                cpu("etcd 3.5", 80.0),
            ],
        );
        let cells = cells(&samples.beside_peers(&[row]));
        assert_eq!(cells[0][4..10], ["34000", "10000", "20000", "1.70", "1.6", "2.2"]);
        assert_eq!(cells[0][10], "bar");
        assert_eq!(cells[1][4..10], ["20.0", "40.0", "80.0", "0.50", "0.45", "0.3"]);
        assert_eq!(cells[1][10], "no");
    }

    #[test]
    fn what_was_not_measured_is_not_made_up() {
        let row = named("put-1").unwrap();
        let cells = cells(&samples(&row, &[(Metric::Median, "ours", 0.3)]).beside_peers(&[row]));
        assert_eq!(cells[0][4..8], ["0.30", "-", "-", "-"]);
        assert_eq!(cells[0][10], "-");
    }

    #[test]
    fn what_is_shown_beside_has_a_ratio_and_no_verdict() {
        let row = named("put-1").unwrap();
        let p99 = |whose, value| (Metric::P99, whose, value);
        let samples = samples(&row, &[p99("ours", 1.0), p99("etcd 3.4", 4.0)]);
        let cells = cells(&samples.beside_peers(&[row]));
        let shown = cells.iter().find(|cells| cells[3] == "p99, ms").unwrap();
        assert_eq!(shown[4..11], ["1.00", "4.00", "-", "0.25", "-", "-", "-"]);
    }

    #[test]
    fn the_limit_has_a_table_of_its_own() {
        let row = named("get-64").unwrap();
        let rate = |whose, value| (Metric::Rate, whose, value);
        let samples = samples(&row, &[rate("ours", 60_000.0), rate("limit", 80_000.0)]);
        let cells = cells(&samples.beside_limit(&[row]));
        assert_eq!(cells[0][3..7], ["60000", "80000", "0.75", "0.8"]);
    }
}
