//! Unit files as fleet keeps them: an ordered list of options, one canonical text, one hash.
//!
//! **Not here:** what an option means; `requirements` reads the ones that are fleet's own.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha1::{Digest as _, Sha1};

/// Longest line of a unit file, in bytes without its newline: systemd's own limit of 2015.
pub const LINE_BYTES_MAX: usize = 2_048;

/// The section that is fleet's own.
pub const FLEET_SECTION: &str = "X-Fleet";

/// One line of a unit file, with the section it stands in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitOption {
    /// The section, without brackets.
    pub section: String,
    /// What stands before the `=`.
    pub name: String,
    /// What stands after it; a continued line keeps its backslash and newline.
    pub value: String,
}

impl UnitOption {
    /// Makes an option.
    pub fn new(
        section: impl Into<String>,
        name: impl Into<String>,
        value: impl Into<String>,
    ) -> Self {
        Self { section: section.into(), name: name.into(), value: value.into() }
    }
}

/// A text or a list of options is no unit file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitFileError {
    /// A line is longer than systemd reads.
    #[error("line {line}: line too long; at most {LINE_BYTES_MAX} bytes, continue it with `\\`")]
    LineTooLong {
        /// The line, counted from 1.
        line: usize,
    },
    /// A line is neither a comment nor an option.
    #[error("line {line}: `{text}` is no option; write `Name=value`")]
    NoEquals {
        /// The line, counted from 1.
        line: usize,
        /// Its text.
        text: String,
    },
    /// A section header does not end where it should.
    #[error("line {line}: `{text}` is no section header; write `[Name]` and nothing else")]
    BadHeader {
        /// The line, counted from 1.
        line: usize,
        /// Its text.
        text: String,
    },
    /// An option that came as a value cannot be written as a line.
    #[error("option `{name}` in section `{section}` cannot be written as a line of a unit file")]
    NotALine {
        /// Its section.
        section: String,
        /// Its name.
        name: String,
    },
}

/// A unit file's content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnitFile {
    options: Vec<UnitOption>,
}

impl UnitFile {
    /// Reads a unit file's text: comments, blank lines and what precedes the first section go.
    pub fn parse(text: &str) -> Result<Self, UnitFileError> {
        let mut lines = text.split('\n').enumerate().map(|(number, text)| (number + 1, text));
        let mut options = Vec::new();
        let mut section: Option<String> = None;
        while let Some((line, text)) = lines.next() {
            check_length(line, text)?;
            let trimmed = text.trim();
            if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
                continue;
            }
            if let Some(header) = trimmed.strip_prefix('[') {
                section = Some(section_name(header).ok_or_else(|| bad_header(line, trimmed))?);
            } else if let Some(section) = &section {
                let (name, first) = trimmed
                    .split_once('=')
                    .ok_or_else(|| UnitFileError::NoEquals { line, text: trimmed.to_owned() })?;
                let value = continued(first, &mut lines)?;
                options.push(UnitOption::new(section, name.trim_end(), value.trim()));
            }
        }
        Ok(Self { options })
    }

    /// Takes options as a client gave them, if they can be written as a unit file and read back.
    pub fn from_options(options: Vec<UnitOption>) -> Result<Self, UnitFileError> {
        let file = Self { options };
        let read = Self::parse(&file.canonical())?;
        let grouped = file.grouped();
        match grouped.iter().zip(&read.options).find(|(given, read)| **given != *read) {
            None if grouped.len() == read.options.len() => Ok(file),
            None => Err(not_a_line(grouped.last().copied())),
            Some((given, _)) => Err(not_a_line(Some(given))),
        }
    }

    /// Returns the options in the order in which they were given.
    pub fn options(&self) -> &[UnitOption] {
        &self.options
    }

    /// Returns the values of an option in a section, in order.
    pub fn values<'a>(&'a self, section: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.options
            .iter()
            .filter(move |option| option.section == section && option.name == name)
            .map(|option| option.value.as_str())
    }

    /// Tells whether a section has at least one option.
    pub fn has_section(&self, section: &str) -> bool {
        self.options.iter().any(|option| option.section == section)
    }

    /// Returns what `[Unit] Description=` says last, or nothing.
    pub fn description(&self) -> &str {
        self.values("Unit", "Description").last().unwrap_or_default()
    }

    /// Writes the one text that all files of the same meaning share; its hash is the file's name.
    pub fn canonical(&self) -> String {
        let mut text = String::new();
        let mut section: Option<&str> = None;
        for option in self.grouped() {
            if section != Some(option.section.as_str()) {
                if section.is_some() {
                    text.push('\n');
                }
                text.push('[');
                text.push_str(&option.section);
                text.push_str("]\n");
                section = Some(&option.section);
            }
            text.push_str(&option.name);
            text.push('=');
            text.push_str(&option.value);
            text.push('\n');
        }
        text
    }

    /// Returns the SHA-1 of the canonical text.
    pub fn hash(&self) -> UnitHash {
        UnitHash(Sha1::digest(self.canonical()).into())
    }

    /// The options, those of a section together, sections as first seen.
    fn grouped(&self) -> Vec<&UnitOption> {
        let mut sections: Vec<&str> = Vec::new();
        for option in &self.options {
            if !sections.contains(&option.section.as_str()) {
                sections.push(&option.section);
            }
        }
        let of = |section| self.options.iter().filter(move |option| option.section == section);
        sections.into_iter().flat_map(of).collect()
    }
}

fn check_length(line: usize, text: &str) -> Result<(), UnitFileError> {
    if text.len() > LINE_BYTES_MAX { Err(UnitFileError::LineTooLong { line }) } else { Ok(()) }
}

/// Takes what follows the `[`.
fn section_name(header: &str) -> Option<String> {
    let (name, rest) = header.split_once(']')?;
    rest.trim().is_empty().then(|| name.to_owned())
}

fn bad_header(line: usize, text: &str) -> UnitFileError {
    UnitFileError::BadHeader { line, text: text.to_owned() }
}

fn not_a_line(option: Option<&UnitOption>) -> UnitFileError {
    let (section, name) = option.map(|o| (o.section.clone(), o.name.clone())).unwrap_or_default();
    UnitFileError::NotALine { section, name }
}

/// Appends the lines that a backslash asks for. The file's end ends the value too.
fn continued<'a>(
    first: &'a str,
    lines: &mut impl Iterator<Item = (usize, &'a str)>,
) -> Result<String, UnitFileError> {
    let mut value = first.to_owned();
    let mut last = first;
    while last.trim_end().ends_with('\\') {
        let Some((line, next)) = lines.next() else { break };
        check_length(line, next)?;
        value.push('\n');
        value.push_str(next);
        last = next;
    }
    Ok(value)
}

/// The SHA-1 of a canonical unit file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnitHash(pub [u8; 20]);

impl UnitHash {
    /// Returns the first 7 digits, as listings show them.
    pub fn short(&self) -> String {
        self.to_string()[..7].to_owned()
    }
}

impl fmt::Display for UnitHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A text is no hash of a unit file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no unit hash; it has 40 hexadecimal digits")]
pub struct BadHash(String);

impl FromStr for UnitHash {
    type Err = BadHash;

    fn from_str(text: &str) -> Result<Self, BadHash> {
        let bad = || BadHash(text.to_owned());
        let digits: Vec<u8> = text
            .chars()
            .map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
            .collect::<Option<_>>()
            .ok_or_else(bad)?;
        let bytes: Vec<u8> = digits
            .chunks(2)
            .map(|pair| pair.iter().fold(0, |sum, digit| sum << 4 | digit))
            .collect();
        match <[u8; 20]>::try_from(bytes) {
            Ok(hash) if digits.len() == 40 => Ok(Self(hash)),
            _ => Err(bad()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_known_hashes_are_met() {
        let one =
            UnitFile::from_options(vec![UnitOption::new("Service", "ExecStart", "/bin/sleep 100")])
                .unwrap();
        assert_eq!(one.hash().to_string(), "1c6fb6f3684bafb0c173d8b8b957ceff031180c1");
        assert_eq!(one.hash().short(), "1c6fb6f");
        let none = UnitFile::default().hash().to_string();
        assert_eq!(none, "da39a3ee5e6b4b0d3255bfef95601890afd80709");
        assert_eq!(none.parse::<UnitHash>().unwrap(), UnitFile::default().hash());
    }

    #[test]
    fn what_carries_no_meaning_is_dropped() {
        let text =
            "junk\n# c\n[Unit]\n ; c\n  Description =  a b  \n\n[Service]\r\nExecStart=/x\r\n";
        let file = UnitFile::parse(text).unwrap();
        assert_eq!(file.canonical(), "[Unit]\nDescription=a b\n\n[Service]\nExecStart=/x\n");
        assert_eq!(file.description(), "a b");
    }

    #[test]
    fn sections_are_brought_together_and_repeated_names_keep_their_order() {
        let file = UnitFile::parse("[B]\nx=1\n[A]\ny=1\n[B]\nx=2\nx=\n").unwrap();
        assert_eq!(file.canonical(), "[B]\nx=1\nx=2\nx=\n\n[A]\ny=1\n");
    }

    #[test]
    fn a_continued_line_keeps_even_its_comments() {
        let file = UnitFile::parse("[S]\nE=/a \\\n# not a comment\\ \n  -b\nF=1").unwrap();
        assert_eq!(file.options()[0].value, "/a \\\n# not a comment\\ \n  -b");
        assert_eq!(file.options()[1], UnitOption::new("S", "F", "1"));
    }

    #[test]
    fn a_bad_line_is_named() {
        let bad = |text: &str| UnitFile::parse(text).unwrap_err().to_string();
        assert_eq!(bad("[S]\nfoo\n"), "line 2: `foo` is no option; write `Name=value`");
        assert!(bad("[S\n").starts_with("line 1: `[S` is no section header"));
        let long = format!("[S]\nx={}\n", "y".repeat(LINE_BYTES_MAX));
        assert!(bad(&long).contains("line too long"), "{}", bad(&long));
    }

    #[test]
    fn options_that_cannot_be_lines_are_refused() {
        for (name, value) in [("a", "b\nc=d"), ("a=b", "c"), ("#a", "b"), ("a", " b"), ("a", "b\\")]
        {
            let options =
                vec![UnitOption::new("S", name, value), UnitOption::new("S", "next", "line")];
            assert!(UnitFile::from_options(options).is_err(), "{name}={value}");
        }
    }

    fn options() -> impl Strategy<Value = Vec<UnitOption>> {
        let option =
            ("[A-C]", "[A-Za-z]{1,8}", "([!-Z^-~]([ -Z^-~]*[!-Z^-~])?(\\\\\n *[!-Z^-~]+){0,2})?");
        let option = option.prop_map(|(s, n, v)| UnitOption::new(s, n, v));
        prop::collection::vec(option, 0..12)
    }

    proptest! {
        #[test]
        fn the_canonical_text_reads_back_as_itself(options in options()) {
            let file = UnitFile::from_options(options).unwrap();
            let read = UnitFile::parse(&file.canonical()).unwrap();
            prop_assert_eq!(read.canonical(), file.canonical());
            prop_assert_eq!(read.hash(), file.hash());
            prop_assert_eq!(read.options().iter().collect::<Vec<_>>(), file.grouped());
        }

        #[test]
        fn no_text_makes_the_parser_fall_over(text in "[\\[\\]=a#;\\\\ \n]{0,60}") {
            if let Ok(file) = UnitFile::parse(&text) {
                let again = UnitFile::parse(&file.canonical());
                prop_assert!(again.is_ok() || file.canonical().contains('\\'));
            }
        }
    }
}
