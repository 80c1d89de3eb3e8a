//! Columns as `fleetctl` has always written them: filled up with tabs of eight, so that `cut`
//! and `awk` keep working.

/// The distance of tab stops.
const TAB: usize = 8;

/// Writes rows of equally many cells; the last cell of a row is not filled up.
pub(super) fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..columns)
        .map(|column| rows.iter().map(|row| filled(&row[column])).max())
        .map(Option::unwrap_or_default)
        .collect();
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            text.push_str(cell);
            if column + 1 < columns {
                let missing = widths[column] - cell.chars().count();
                text.push_str(&"\t".repeat(missing.div_ceil(TAB)));
            }
        }
        text.push('\n');
    }
    text
}

/// Returns how wide a cell is with at least one blank, up to the next tab stop.
fn filled(cell: &str) -> usize {
    (cell.chars().count() + 1).next_multiple_of(TAB)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rows: &[&[&str]], expected: &str) {
        let rows: Vec<Vec<String>> =
            rows.iter().map(|row| row.iter().map(|cell| (*cell).to_owned()).collect()).collect();
        assert_eq!(aligned(&rows), expected);
    }

    #[test]
    fn a_column_is_as_wide_as_its_widest_cell_and_one_more() {
        check(&[&["UNIT", "SUB"], &["1234567", "x"], &["a", "y"]], "UNIT\tSUB\n1234567\tx\na\ty\n");
        check(&[&["UNIT", "SUB"], &["12345678", "x"]], "UNIT\t\tSUB\n12345678\tx\n");
        check(
            &[&["ä", "", "-"], &["123456789012345", "b", "-"]],
            "ä\t\t\t-\n123456789012345\tb\t-\n",
        );
    }

    #[test]
    fn one_column_has_no_tabs() {
        check(&[&["UNIT"], &["hello.service"]], "UNIT\nhello.service\n");
        check(&[], "");
    }
}
