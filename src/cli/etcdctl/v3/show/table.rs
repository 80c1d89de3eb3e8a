//! Tables with lines around their cells.

/// Draws a table: its head in capitals and centred, its cells on the right.
pub(super) fn drawn(head: &[&str], rows: &[Vec<String>]) -> String {
    let head: Vec<String> = head.iter().map(|title| title.to_uppercase()).collect();
    let widest = |place: usize| {
        let cells = rows.iter().chain([&head]).filter_map(|row| row.get(place));
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..head.len()).map(widest).collect();
    let rule = |[left, cross, right]: [&str; 3]| {
        let lines: Vec<String> = widths.iter().map(|width| "─".repeat(width + 2)).collect();
        format!("{left}{}{right}\n", lines.join(cross))
    };
    let title = |(title, width): (&String, &usize)| format!(" {title:^width$} ");
    let cell = |(cell, width): (&String, &usize)| format!(" {cell:>width$} ");
    let titles: Vec<String> = head.iter().zip(&widths).map(title).collect();
    let mut table = rule(["┌", "┬", "┐"]) + &line(&titles) + &rule(["├", "┼", "┤"]);
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(cell).collect();
        table.push_str(&line(&cells));
    }
    table + &rule(["└", "┴", "┘"])
}

fn line(cells: &[String]) -> String {
    format!("│{}│\n", cells.join("│"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_lines_around_it_and_below_its_head() {
        let rows =
            vec![vec!["1".to_owned(), "started".to_owned()], vec!["22".to_owned(), String::new()]];
        let expected = "┌────┬─────────┐\n│ ID │ STATUS  │\n├────┼─────────┤\n│  1 │ started │\n│ 22 │         │\n└────┴─────────┘\n";
        assert_eq!(drawn(&["id", "status"], &rows), expected);
    }
}
