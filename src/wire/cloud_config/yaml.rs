//! YAML as a tree that knows its lines.
//!
//! Scalars keep the text they were written as, so that `0744`, `off` and `1.10` stay what people
//! meant; what a plain scalar could also be is asked for with [`simple`].

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};

/// Deepest nesting: a cloud-config needs six levels.
pub const DEPTH_MAX: usize = 32;

/// Most nodes, counting what aliases repeat: a config of the largest size has fewer.
pub const NODES_MAX: usize = 500_000;

/// The text is not YAML, or too much of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct YamlError {
    /// The line, counted from 1.
    pub line: usize,
    /// What the parser says.
    pub message: String,
}

/// A value and the line it begins on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The line, counted from 1.
    pub line: usize,
    /// The value.
    pub value: Value,
}

/// What a node holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Nothing.
    Null,
    /// A scalar without quotes.
    Plain(String),
    /// A scalar that can only be text.
    Quoted(String),
    /// A `!!binary`, decoded.
    Binary(Vec<u8>),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order in which it was written.
    Map(Vec<Entry>),
}

/// One key of a mapping and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key as it was written.
    pub key: String,
    /// The key's line, counted from 1.
    pub line: usize,
    /// What it holds.
    pub node: Node,
}

impl Entry {
    /// Tells whether the key is `name`, which is written with underscores.
    pub fn is(&self, name: &str) -> bool {
        self.key.len() == name.len()
            && self.key.chars().zip(name.chars()).all(|(a, b)| a == b || (a == '-' && b == '_'))
    }
}

impl Node {
    /// Returns the last entry of a mapping with that key.
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        match &self.value {
            Value::Map(entries) => entries.iter().rev().find(|entry| entry.is(name)),
            Value::Null
            | Value::Plain(_)
            | Value::Quoted(_)
            | Value::Binary(_)
            | Value::List(_) => None,
        }
    }

    /// Returns what a mapping holds under that key.
    pub fn get(&self, name: &str) -> Option<&Self> {
        self.entry(name).map(|entry| &entry.node)
    }

    /// Returns the elements, none if this is no sequence.
    pub fn elements(&self) -> &[Self] {
        match &self.value {
            Value::List(list) => list,
            Value::Null | Value::Plain(_) | Value::Quoted(_) | Value::Binary(_) | Value::Map(_) => {
                &[]
            }
        }
    }

    /// Returns the entries, none if this is no mapping.
    pub fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            Value::Null
            | Value::Plain(_)
            | Value::Quoted(_)
            | Value::Binary(_)
            | Value::List(_) => &[],
        }
    }

    /// Returns the text of a scalar; empty text for nothing, `None` for a collection.
    pub fn text(&self) -> Option<String> {
        match &self.value {
            Value::Null => Some(String::new()),
            Value::Plain(text) | Value::Quoted(text) => Some(text.clone()),
            Value::Binary(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            Value::List(_) | Value::Map(_) => None,
        }
    }

    /// Returns the bytes of a scalar; none for nothing, `None` for a collection.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        match &self.value {
            Value::Binary(bytes) => Some(bytes.clone()),
            Value::Null | Value::Plain(_) | Value::Quoted(_) | Value::List(_) | Value::Map(_) => {
                self.text().map(String::into_bytes)
            }
        }
    }
}

/// What a plain scalar is besides its text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Simple {
    /// Nothing.
    Null,
    /// A YAML 1.1 truth value: `yes` and `off` count.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// Another number.
    Float(f64),
    /// Only text.
    Text,
}

/// Tells what a plain scalar could be, by the rules that cloud-configs were written for.
pub fn simple(text: &str) -> Simple {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Simple::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Simple::Bool(true);
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Simple::Bool(false);
        }
        _ => {}
    }
    if let Some(integer) = integer(text) {
        return Simple::Integer(integer);
    }
    let number_like = text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c))
        && text.contains(|c: char| c.is_ascii_digit());
    match text.parse::<f64>() {
        Ok(float) if number_like && float.is_finite() => Simple::Float(float),
        Ok(_) | Err(_) => Simple::Text,
    }
}

/// Reads a whole number: decimal, `0x`, `0o`, `0b` or, as YAML 1.1 had it, octal after a `0`.
fn integer(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let digits = digits.replace('_', "");
    let (radix, digits) = match digits.get(..2) {
        Some("0x") => (16, &digits[2..]),
        Some("0o") => (8, &digits[2..]),
        Some("0b") => (2, &digits[2..]),
        Some(two) if two.starts_with('0') && digits.bytes().all(|b| (b'0'..=b'7').contains(&b)) => {
            (8, &digits[1..])
        }
        _ => (10, &digits[..]),
    };
    let sign = if negative { "-" } else { "" };
    i64::from_str_radix(&format!("{sign}{digits}"), radix).ok()
}

/// Parses the first document of `text`; an empty one is [`Value::Null`].
pub fn parse(text: &str) -> Result<Node, YamlError> {
    if let Some(line) = lone_tab(text) {
        let message = "found character that cannot start any token".to_owned();
        return Err(YamlError { line, message });
    }
    Builder { text, parser: Parser::new_from_str(text), anchors: Vec::new(), nodes: 0 }.document()
}

/// Returns the line of a tab in a text that has nothing else.
fn lone_tab(text: &str) -> Option<usize> {
    let blank = text.chars().all(char::is_whitespace);
    blank.then(|| text.lines().position(|line| line.contains('\t')).map(|at| at + 1)).flatten()
}

struct Builder<'a> {
    text: &'a str,
    parser: Parser<'a, StrInput<'a>>,
    /// Anchored nodes by the parser's number, with how many nodes each is.
    anchors: Vec<(usize, Node, usize)>,
    nodes: usize,
}

impl<'a> Builder<'a> {
    fn document(mut self) -> Result<Node, YamlError> {
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamStart | Event::DocumentStart(_) | Event::Nothing => {}
                Event::StreamEnd | Event::DocumentEnd => {
                    return Ok(Node { line: 1, value: Value::Null });
                }
                other @ (Event::Alias(_)
                | Event::Scalar(..)
                | Event::SequenceStart(..)
                | Event::SequenceEnd
                | Event::MappingStart(..)
                | Event::MappingEnd) => {
                    let node = self.node(other, span, DEPTH_MAX)?;
                    // What comes after the first node may still be a mistake.
                    self.next()?;
                    return Ok(node);
                }
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), YamlError> {
        match self.parser.next_event() {
            Some(Ok(got)) => Ok(got),
            Some(Err(error)) => Err(reworded(&error, self.text)),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, YamlError> {
        let line = span.start.line();
        self.count(1, line)?;
        if depth == 0 {
            let message = format!("nested deeper than {DEPTH_MAX} levels");
            return Err(YamlError { line, message });
        }
        let before = self.nodes;
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                (scalar(text.into_owned(), style, tag.as_deref(), line)?, anchor)
            }
            Event::SequenceStart(anchor, _) => (self.list(depth)?, anchor),
            Event::MappingStart(anchor, _) => (self.map(depth)?, anchor),
            Event::Alias(number) => return self.repeat(number, line),
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::SequenceEnd
            | Event::MappingEnd => (Value::Null, 0),
        };
        let node = Node { line, value };
        if anchor > 0 {
            self.anchors.push((anchor, node.clone(), self.nodes - before + 1));
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Value, YamlError> {
        let mut list = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::SequenceEnd | Event::StreamEnd) {
                return Ok(Value::List(list));
            }
            list.push(self.node(event, span, depth - 1)?);
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value, YamlError> {
        let mut entries = Vec::new();
        let mut merged = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::MappingEnd | Event::StreamEnd) {
                break;
            }
            let key = self.node(event, span, depth - 1)?;
            let (event, span) = self.next()?;
            let node = self.node(event, span, depth - 1)?;
            match (key.value, node.value) {
                (Value::Plain(merge), Value::Map(from)) if merge == "<<" => merged.extend(from),
                (Value::Plain(merge), Value::List(from)) if merge == "<<" => {
                    merged.extend(from.iter().flat_map(|map| map.entries().to_vec()));
                }
                (Value::Plain(text) | Value::Quoted(text), value) => {
                    let node = Node { line: node.line, value };
                    entries.push(Entry { key: text, line: key.line, node });
                }
                (Value::Null | Value::Binary(_) | Value::List(_) | Value::Map(_), _) => {
                    let message = "a key must be a word".to_owned();
                    return Err(YamlError { line: key.line, message });
                }
            }
        }
        // What a mapping says itself comes last, and wins.
        merged.reverse();
        merged.extend(entries);
        Ok(Value::Map(merged))
    }

    fn repeat(&mut self, number: usize, line: usize) -> Result<Node, YamlError> {
        let found = self.anchors.iter().rev().find(|(anchor, _, _)| *anchor == number);
        let Some((_, node, size)) = found.cloned() else {
            let message = "an alias to what is not complete here".to_owned();
            return Err(YamlError { line, message });
        };
        self.count(size, line)?;
        Ok(node)
    }

    fn count(&mut self, more: usize, line: usize) -> Result<(), YamlError> {
        self.nodes += more;
        if self.nodes > NODES_MAX {
            let message = format!("more than {NODES_MAX} values, counting what aliases repeat");
            return Err(YamlError { line, message });
        }
        Ok(())
    }
}

fn scalar(
    text: String,
    style: ScalarStyle,
    tag: Option<&Tag>,
    line: usize,
) -> Result<Value, YamlError> {
    let core = tag.filter(|tag| tag.is_yaml_core_schema()).map(|tag| tag.suffix.as_str());
    if core == Some("binary") {
        let engine = GeneralPurpose::new(
            &alphabet::STANDARD,
            GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
        );
        let letters: String = text.split_whitespace().collect();
        let bytes = engine.decode(letters).map_err(|error| YamlError {
            line,
            message: format!("`!!binary` that is no base64: {error}"),
        })?;
        return Ok(Value::Binary(bytes));
    }
    let plain = style == ScalarStyle::Plain && core != Some("str");
    Ok(match plain {
        true if simple(&text) == Simple::Null => Value::Null,
        true => Value::Plain(text),
        false => Value::Quoted(text),
    })
}

/// The parser's words and line, except where a word stands without its colon: the parser sees
/// that only when it is past the word.
fn reworded(error: &ScanError, text: &str) -> YamlError {
    let (line, column) = (error.marker().line(), error.marker().col());
    if !error.info().starts_with("simple key expect") || column > SIMPLE_KEY_MAX {
        return YamlError { line, message: error.info().to_owned() };
    }
    let before = text.lines().take(line.saturating_sub(1)).collect::<Vec<_>>();
    let says_something = |line: &&str| !line.trim().is_empty() && !line.trim().starts_with('#');
    let line = before.iter().rposition(says_something).map_or(line, |at| at + 1);
    YamlError { line, message: "could not find expected ':'".to_owned() }
}

/// Longest key, in letters, that YAML knows without a `?`.
const SIMPLE_KEY_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    fn fails(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn a_key_may_be_written_with_hyphens() {
        let node = parse("reboot-strategy: off\n").unwrap();
        assert_eq!(node.get("reboot_strategy").unwrap().text().unwrap(), "off");
        assert_eq!(node.get("reboot_strateg"), None);
    }

    #[test]
    fn of_a_key_given_twice_the_last_counts_and_a_merge_counts_least() {
        let text = "base: &b {x: 1, y: 1}\nuse:\n  y: 2\n  <<: *b\n  z: 3\n  z: 4\n";
        let node = parse(text).unwrap();
        let used = node.get("use").unwrap();
        let texts = ["x", "y", "z"].map(|key| used.get(key).unwrap().text().unwrap());
        assert_eq!(texts, ["1", "2", "4"]);
    }

    #[test]
    fn a_scalar_keeps_its_text_and_its_line() {
        let node = parse("\n# a comment\nmode: 0744\n").unwrap();
        let entry = node.entry("mode").unwrap();
        assert_eq!((entry.line, entry.node.value.clone()), (3, Value::Plain("0744".to_owned())));
        assert_eq!(simple("0744"), Simple::Integer(0o744));
        assert_eq!(simple("0x10"), Simple::Integer(16));
        assert_eq!(simple("-1.5"), Simple::Float(-1.5));
        assert_eq!(simple("off"), Simple::Bool(false));
        assert_eq!(simple("inf"), Simple::Text);
        assert_eq!(simple("09"), Simple::Integer(9));
    }

    #[test]
    fn binary_is_decoded() {
        let node = parse("a: !!binary aGVsbG8=\nb: !!binary |\n  aGVs\n  bG8\n").unwrap();
        assert_eq!(node.get("a").unwrap().value, Value::Binary(b"hello".to_vec()));
        assert_eq!(node.get("b").unwrap().value, Value::Binary(b"hello".to_vec()));
        assert!(fails("\na: !!binary '???'").starts_with("line 2: `!!binary` that is no base64"));
    }

    #[test]
    fn mistakes_have_the_line_they_are_on() {
        assert_eq!(fails("a:\na"), "line 2: could not find expected ':'");
        assert_eq!(fails("#hello\na:\na"), "line 3: could not find expected ':'");
        assert_eq!(fails("a: 1\nb\n\n# c\nc: 1\n"), "line 2: could not find expected ':'");
        assert!(fails("\t").starts_with("line 1: "));
        assert!(fails("a: 1\n  b: 2\n").starts_with("line 2: "));
        assert!(fails("a: [1,\nb: }\n").starts_with("line 2: "));
        assert!(fails("a: b\n[x]: 1\n").contains("a key must be a word"));
    }

    #[test]
    fn aliases_cannot_blow_up_and_nesting_ends() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..10 {
            let below = format!("*a{}, ", level - 1).repeat(10);
            writeln!(text, "a{level}: &a{level} [{below}]").unwrap();
        }
        assert!(fails(&text).contains("counting what aliases repeat"));
        assert!(fails(&"[".repeat(100)).contains("nested deeper"));
    }

    #[test]
    fn nothing_is_an_empty_document() {
        for text in ["", "\n", "# only\n", "---\n"] {
            assert_eq!(parse(text).unwrap().value, Value::Null, "{text:?}");
        }
    }
}
