//! Named samples, their medians, and a table of them.

use comfy_table::Table;
use comfy_table::presets::ASCII_MARKDOWN;

/// Named samples in the order in which the names came.
#[derive(Debug, Default)]
pub(super) struct Figures(Vec<(Figure, Vec<f64>)>);

/// One row of the table.
#[derive(Debug, Clone, PartialEq)]
struct Figure {
    name: String,
    unit: &'static str,
    /// What it is to stay below, where something was promised.
    bar: Option<f64>,
}

impl Figures {
    /// Adds a sample; `bar` is what its median is to stay below.
    pub(super) fn add(&mut self, name: &str, unit: &'static str, bar: Option<f64>, value: f64) {
        match self.0.iter_mut().find(|(figure, _)| figure.name == name) {
            Some((_, values)) => values.push(value),
            None => self.0.push((Figure { name: name.to_owned(), unit, bar }, vec![value])),
        }
    }

    /// A row for each name.
    pub(super) fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_preset(ASCII_MARKDOWN).set_header(["FIGURE", "MEDIAN", "ALL", "BAR"]);
        for (figure, values) in &self.0 {
            let shown = |value: &f64| format!("{value:.1}");
            let all: Vec<_> = values.iter().map(shown).collect();
            let bar = figure.bar.map_or_else(String::new, |bar| format!("{bar} {}", figure.unit));
            let median = format!("{:.1} {}", median(values), figure.unit);
            table.add_row([figure.name.clone(), median, all.join(" "), bar]);
        }
        table
    }
}

/// The middle one, or the mean of the two in the middle.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
    }

    #[test]
    fn a_row_has_all_its_samples_and_its_bar() {
        let mut figures = Figures::default();
        figures.add("a boot", "s", Some(20.0), 12.34);
        figures.add("a boot", "s", Some(20.0), 14.0);
        let table = figures.table().to_string();
        assert!(table.contains("| a boot | 13.2 s | 12.3 14.0 | 20 s |"), "{table}");
    }
}
