//! What people and scripts read: standard output and standard error belong to this file.
//!
//! A reader that went away (`| head`) is no error: what is left is not written.

use std::fmt;
use std::io::{self, IsTerminal as _, Write};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::cli::environment;

/// How a listing is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// JSON for programs.
    Json,
    /// YAML for programs that people read too.
    Yaml,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "table" => Ok(Self::Table),
            "json" => Ok(Self::Json),
            "yaml" => Ok(Self::Yaml),
            _ => Err("write `table`, `json` or `yaml`".to_owned()),
        }
    }
}

/// Makes the argument `--output table|json|yaml`.
pub fn format_argument() -> clap::Arg {
    clap::Arg::new("output")
        .long("output")
        .value_name("FORMAT")
        .help("Write as `table`, `json` or `yaml`")
        .value_parser(Format::from_str)
        .default_value("table")
}

/// A listing: the same rows for people and for programs.
#[derive(Debug, Clone)]
pub struct Listing<'a, T> {
    /// The columns' names.
    pub headers: &'a [&'a str],
    /// What programs read.
    pub rows: &'a [T],
    /// A row's cells, as many as there are columns.
    pub cells: fn(&T) -> Vec<String>,
}

/// Where a program of ours writes to.
pub struct Output {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    /// The terminal's columns; `None` where nobody looks and lines may be as long as they are.
    columns: Option<u16>,
    colours: Colours,
}

/// Whether colours help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colours {
    /// A person reads it.
    On,
    /// A program does, or the person said no (`NO_COLOR`).
    Off,
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").field("columns", &self.columns).finish_non_exhaustive()
    }
}

impl Output {
    /// Makes an output on this process's own streams.
    pub fn of_process() -> Self {
        let out = io::stdout();
        let terminal = out.is_terminal();
        let plain = environment::variable("NO_COLOR").is_some();
        Self {
            columns: if terminal { columns_of(&out) } else { None },
            colours: if terminal && !plain { Colours::On } else { Colours::Off },
            out: Box::new(out),
            err: Box::new(io::stderr()),
        }
    }

    /// Makes an output that is kept, for tests.
    pub fn kept() -> (Self, Kept) {
        let kept = Kept::default();
        let (out, err) = (Box::new(kept.out.clone()), Box::new(kept.err.clone()));
        (Self { out, err, columns: None, colours: Colours::Off }, kept)
    }

    /// Tells whether colours help.
    pub const fn colours(&self) -> Colours {
        self.colours
    }

    /// Writes a line to standard output.
    pub fn line(&mut self, text: impl fmt::Display) {
        ignore_closed(writeln!(self.out, "{text}"));
    }

    /// Writes text that ends its own lines to standard output.
    pub fn text(&mut self, text: impl fmt::Display) {
        ignore_closed(write!(self.out, "{text}").and_then(|()| self.out.flush()));
    }

    /// Writes bytes, text or not, to standard output.
    pub fn bytes(&mut self, bytes: &[u8]) {
        ignore_closed(self.out.write_all(bytes).and_then(|()| self.out.flush()));
    }

    /// Writes a line to standard error.
    pub fn complain(&mut self, text: impl fmt::Display) {
        ignore_closed(writeln!(self.err, "{text}"));
    }

    /// Writes a listing.
    ///
    /// # Panics
    ///
    /// Where a row has a map whose keys are no strings.
    pub fn listing<T: Serialize>(&mut self, format: Format, listing: &Listing<'_, T>) {
        let text = match format {
            Format::Table => table(listing, self.columns),
            Format::Json => serde_json::to_string_pretty(listing.rows)
                .expect("a row's keys are strings, so that it can be written"),
            Format::Yaml => serde_yaml::to_string(listing.rows)
                .expect("a row's keys are strings, so that it can be written")
                .trim_end()
                .to_owned(),
        };
        self.line(text);
    }
}

/// A line that nobody reads any more is not written; there is nobody to tell.
fn ignore_closed(written: io::Result<()>) {
    drop(written);
}

fn columns_of(out: &io::Stdout) -> Option<u16> {
    let size = rustix::termios::tcgetwinsize(out).ok()?;
    (size.ws_col > 0).then_some(size.ws_col)
}

fn table<T>(listing: &Listing<'_, T>, columns: Option<u16>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(listing.headers.iter().copied());
    table.add_rows(listing.rows.iter().map(listing.cells));
    if let Some(columns) = columns {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(columns);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// What was written to an output that is kept.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    out: Buffer,
    err: Buffer,
}

impl Kept {
    /// Returns what went to standard output.
    pub fn out(&self) -> String {
        self.out.text()
    }

    /// Returns what went to standard error.
    pub fn err(&self) -> String {
        self.err.text()
    }
}

#[derive(Debug, Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Buffer {
    fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Row {
        unit: &'static str,
        state: &'static str,
    }

    const ROWS: &[Row] = &[
        Row { unit: "a.service", state: "active" },
        Row { unit: "longer.service", state: "failed because the disk is full" },
    ];

    fn listing() -> Listing<'static, Row> {
        Listing {
            headers: &["UNIT", "STATE"],
            rows: ROWS,
            cells: |row| vec![row.unit.to_owned(), row.state.to_owned()],
        }
    }

    fn written(format: Format) -> String {
        let (mut output, kept) = Output::kept();
        output.listing(format, &listing());
        kept.out()
    }

    #[test]
    fn a_table_has_columns_and_no_lines_around_them() {
        assert_eq!(
            written(Format::Table),
            "UNIT            STATE\n\
             a.service       active\n\
             longer.service  failed because the disk is full\n",
        );
    }

    #[test]
    fn a_table_fits_the_terminal() {
        let text = table(&listing(), Some(32));
        assert!(text.lines().all(|line| line.chars().count() <= 32), "{text}");
        assert!(text.contains("longer.service"), "{text}");
    }

    #[test]
    fn programs_read_the_same_rows() {
        assert!(written(Format::Json).starts_with("[\n  {\n    \"unit\": \"a.service\""));
        assert!(written(Format::Yaml).starts_with("- unit: a.service\n  state: active\n"));
    }
}
