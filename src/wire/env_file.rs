//! Files of `KEY=value` lines that others write too, such as `/etc/environment`.
//!
//! Pure. What is not ours (other lines, their order, comments) stays as it is.

use std::collections::{BTreeMap, BTreeSet};

/// A variable cannot be written as one line.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvFileError {
    /// Its name is none.
    #[error("`{name}` is not a name of letters, digits and `_` that begins with no digit")]
    BadName {
        /// What was given.
        name: String,
    },
    /// Its value does not fit on a line.
    #[error("the value of `{name}` has a line break or a NUL")]
    BadValue {
        /// The variable's name.
        name: String,
    },
}

/// Sets variables in the text of a file; `None` where all are set already.
///
/// A line that sets one of them is replaced where it stands, the others come at the end, sorted
/// by name. DOS line ends become Unix ones, but only where there is something to change.
pub fn merge(
    existing: &[u8],
    values: &BTreeMap<String, String>,
) -> Result<Option<Vec<u8>>, EnvFileError> {
    values.iter().try_for_each(|(name, value)| check(name, value))?;
    let mut merged = Vec::with_capacity(existing.len());
    let mut set = BTreeSet::new();
    let mut changed = false;
    for line in lines(existing) {
        match values.get_key_value(name_of(line)) {
            Some((name, value)) => {
                let wanted = format!("{name}={value}");
                changed |= line != wanted.as_bytes();
                set.insert(name);
                merged.extend(wanted.as_bytes());
            }
            None => merged.extend(line),
        }
        merged.push(b'\n');
    }
    for (name, value) in values.iter().filter(|(name, _)| !set.contains(name)) {
        changed = true;
        merged.extend(format!("{name}={value}\n").as_bytes());
    }
    Ok(changed.then_some(merged))
}

/// Returns the variables of a file as `EnvironmentFile=` of systemd would for plain values:
/// comments are skipped, one pair of quotes around a value is taken off, the last line wins.
pub fn parse(text: &[u8]) -> BTreeMap<String, String> {
    let pair = |line| {
        let line = std::str::from_utf8(line).ok()?.trim();
        let (name, value) = line.split_once('=')?;
        check(name, "").ok()?;
        Some((name.to_owned(), unquoted(value.trim()).to_owned()))
    };
    lines(text).filter_map(pair).collect()
}

fn unquoted(value: &str) -> &str {
    let within = |quote| value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    within('"').or_else(|| within('\'')).unwrap_or(value)
}

/// Returns the lines without their ends; what follows the last line break counts if it is there.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = text.split_inclusive(|byte| *byte == b'\n');
    lines.map(|line| {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        line.strip_suffix(b"\r").unwrap_or(line)
    })
}

/// Returns the name of the variable that a line sets; empty if it sets none.
fn name_of(line: &[u8]) -> &str {
    let end = line.iter().position(|byte| *byte == b'=').unwrap_or(0);
    std::str::from_utf8(&line[..end]).unwrap_or_default()
}

fn check(name: &str, value: &str) -> Result<(), EnvFileError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty()
        || name.starts_with(|c: char| c.is_ascii_digit())
        || !name.chars().all(allowed)
    {
        return Err(EnvFileError::BadName { name: name.to_owned() });
    }
    if value.contains(['\n', '\r', '\0']) {
        return Err(EnvFileError::BadValue { name: name.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn check_merge(existing: &str, pairs: &[(&str, &str)], wanted: Option<&str>) {
        let merged = merge(existing.as_bytes(), &values(pairs)).unwrap();
        let merged = merged.map(|text| String::from_utf8(text).unwrap());
        assert_eq!(merged.as_deref(), wanted, "{existing:?} with {pairs:?}");
    }

    #[test]
    fn other_lines_their_order_and_comments_are_kept() {
        let old = "# hand-made\nB=1\n\nA=2\nnot a variable\n";
        check_merge(old, &[("A", "3")], Some("# hand-made\nB=1\n\nA=3\nnot a variable\n"));
    }

    #[test]
    fn new_names_come_at_the_end_sorted() {
        check_merge("Z=0\n", &[("Y", "2"), ("X", "1")], Some("Z=0\nX=1\nY=2\n"));
        check_merge("", &[("A", "1")], Some("A=1\n"));
    }

    #[test]
    fn a_missing_final_line_break_is_added() {
        check_merge("A=1", &[("B", "2")], Some("A=1\nB=2\n"));
    }

    #[test]
    fn nothing_to_change_is_no_new_text_not_even_for_dos_line_ends() {
        check_merge("A=1\nB=2", &[("A", "1")], None);
        check_merge("A=1\r\nB=2\r\n", &[("A", "1")], None);
        check_merge("", &[], None);
    }

    #[test]
    fn dos_line_ends_become_unix_ones_on_a_change() {
        check_merge("A=1\r\nB=2\r\n", &[("A", "3")], Some("A=3\nB=2\n"));
    }

    #[test]
    fn every_line_that_sets_a_name_is_set() {
        check_merge("A=1\nA=2\n", &[("A", "3")], Some("A=3\nA=3\n"));
    }

    #[test]
    fn a_name_or_value_that_would_break_the_file_is_refused() {
        for bad in ["", "a b", "A-B", "1A", "A=B", "Ä"] {
            let refused = merge(b"", &values(&[(bad, "x")])).unwrap_err();
            assert_eq!(refused, EnvFileError::BadName { name: bad.to_owned() });
        }
        let refused = merge(b"", &values(&[("A", "x\nB=1")])).unwrap_err();
        assert_eq!(refused, EnvFileError::BadValue { name: "A".to_owned() });
    }

    #[test]
    fn variables_are_read_without_comments_and_quotes() {
        let text = b"# A=0\nA=1\r\nB=\"two words\"\n C='3' \nnonsense\nA=4\n";
        assert_eq!(parse(text), values(&[("A", "4"), ("B", "two words"), ("C", "3")]));
    }

    proptest! {
        #[test]
        fn what_was_merged_is_read_back_and_merging_again_changes_nothing(
            existing in "([A-C]=[a-z]{0,3}\r?\n|# [a-z]{0,5}\n){0,6}",
            pairs in prop::collection::btree_map("[A-E]", "[a-z0-9.:]{0,8}", 0..5),
        ) {
            let merged = merge(existing.as_bytes(), &pairs).unwrap();
            let text = merged.unwrap_or_else(|| existing.into_bytes());
            let found = parse(&text);
            for (name, value) in &pairs {
                prop_assert_eq!(found.get(name), Some(value));
            }
            prop_assert_eq!(merge(&text, &pairs).unwrap(), None);
        }
    }
}
