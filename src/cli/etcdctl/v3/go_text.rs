//! Texts as Go's library writes and reads them, since scripts know the original's.

use std::fmt::Write as _;
use std::num::IntErrorKind;
use std::time::Duration;

/// Quotes bytes, with escapes for what cannot be printed.
pub(super) fn quoted(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        chunk.valid().chars().for_each(|letter| escape(&mut text, letter));
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text.push('"');
    text
}

fn escape(text: &mut String, letter: char) {
    match letter {
        '"' | '\\' => text.extend(['\\', letter]),
        '\x07' => text.push_str("\\a"),
        '\x08' => text.push_str("\\b"),
        '\x0c' => text.push_str("\\f"),
        '\n' => text.push_str("\\n"),
        '\r' => text.push_str("\\r"),
        '\t' => text.push_str("\\t"),
        '\x0b' => text.push_str("\\v"),
        letter if letter.is_ascii_control() => {
            let _ = write!(text, "\\x{:02x}", u32::from(letter));
        }
        letter if letter.is_control() => {
            let _ = write!(text, "\\u{:04x}", u32::from(letter));
        }
        letter => text.push(letter),
    }
}

/// Reads what stands in double quotes or backquotes at the start of `text`; returns its bytes and
/// the rest.
pub(super) fn unquote(text: &str) -> Option<(Vec<u8>, &str)> {
    if let Some(raw) = text.strip_prefix('`') {
        let (inside, rest) = raw.split_once('`')?;
        return Some((inside.as_bytes().to_vec(), rest));
    }
    let mut rest = text.strip_prefix('"')?;
    let mut bytes = Vec::new();
    loop {
        let letter = rest.chars().next()?;
        rest = &rest[letter.len_utf8()..];
        match letter {
            '"' => return Some((bytes, rest)),
            '\\' => rest = unescape(rest, &mut bytes)?,
            letter => bytes.extend(letter.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

/// Reads what follows a backslash; returns the rest.
fn unescape<'a>(text: &'a str, bytes: &mut Vec<u8>) -> Option<&'a str> {
    let kind = text.chars().next()?;
    let rest = &text[kind.len_utf8()..];
    let byte = match kind {
        'a' => 0x07,
        'b' => 0x08,
        'f' => 0x0c,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 0x0b,
        '\\' | '"' | '\'' => u8::try_from(kind).ok()?,
        'x' => {
            bytes.push(u8::from_str_radix(rest.get(..2)?, 16).ok()?);
            return Some(&rest[2..]);
        }
        '0'..='7' => {
            bytes.push(u8::from_str_radix(text.get(..3)?, 8).ok()?);
            return Some(&text[3..]);
        }
        'u' | 'U' => {
            let digits = if kind == 'u' { 4 } else { 8 };
            let letter = u32::from_str_radix(rest.get(..digits)?, 16).ok()?;
            bytes.extend(char::from_u32(letter)?.encode_utf8(&mut [0; 4]).as_bytes());
            return Some(&rest[digits..]);
        }
        _ => return None,
    };
    bytes.push(byte);
    Some(rest)
}

/// Splits a line into words, at spaces outside quotes; `None` where a quote has no end.
pub(super) fn words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let mut word = Vec::new();
        while let Some(letter) = rest.chars().next().filter(|letter| !letter.is_whitespace()) {
            match letter {
                '"' => {
                    let (inside, after) = unquote(rest)?;
                    word.extend(inside);
                    rest = after;
                }
                '\'' => {
                    let (inside, after) = rest[1..].split_once('\'')?;
                    word.extend(inside.as_bytes());
                    rest = after;
                }
                letter => {
                    word.extend(letter.encode_utf8(&mut [0; 4]).as_bytes());
                    rest = &rest[letter.len_utf8()..];
                }
            }
        }
        words.push(String::from_utf8(word).ok()?);
        rest = rest.trim_start();
    }
    Some(words)
}

/// Reads a number, and refuses what is none in the words that scripts know.
pub(super) fn integer(text: &str, radix: u32) -> Result<i64, String> {
    i64::from_str_radix(text, radix).map_err(|why| {
        let too_large = [IntErrorKind::PosOverflow, IntErrorKind::NegOverflow].contains(why.kind());
        let why = if too_large { "value out of range" } else { "invalid syntax" };
        format!("strconv.ParseInt: parsing {}: {why}", quoted(text.as_bytes()))
    })
}

/// Writes a time as Go does: `1.5ms`, `2m3s`.
pub(super) fn duration(time: Duration) -> String {
    let nanos = time.as_nanos();
    let decimal = |unit: u128, name: &str| {
        let (whole, part) = (nanos / unit, nanos % unit);
        let digits = unit.ilog10() as usize;
        let part = format!("{part:0digits$}");
        match part.trim_end_matches('0') {
            "" => format!("{whole}{name}"),
            part => format!("{whole}.{part}{name}"),
        }
    };
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => decimal(1_000, "µs"),
        1_000_000..1_000_000_000 => decimal(1_000_000, "ms"),
        1_000_000_000..60_000_000_000 => decimal(1_000_000_000, "s"),
        _ => {
            let secs = time.as_secs();
            let hours = if secs >= 3_600 { format!("{}h", secs / 3_600) } else { String::new() };
            let rest = Duration::new(secs % 60, time.subsec_nanos());
            format!("{hours}{}m{}", secs % 3_600 / 60, duration(rest))
        }
    }
}

/// Writes a number of bytes in a unit that one can read: `20 kB`.
pub(super) fn size(bytes: i64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let bytes = u64::try_from(bytes).unwrap_or_default();
    let mut unit = 1;
    let mut name = 0;
    while bytes / unit >= 1_000 {
        unit *= 1_000;
        name += 1;
    }
    let tenths = (u128::from(bytes) * 10 + u128::from(unit) / 2) / u128::from(unit);
    if name == 0 {
        format!("{bytes} B")
    } else if tenths < 100 {
        format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[name])
    } else {
        // Half a unit goes to the even one, as in the original.
        let (whole, rest) = (tenths / 10, tenths % 10);
        let up = rest > 5 || (rest == 5 && whole % 2 == 1);
        format!("{} {}", whole + u128::from(up), UNITS[name])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_quoted_can_be_read_back(bytes: Vec<u8>) {
            let text = quoted(&bytes);
            prop_assert_eq!(unquote(&text), Some((bytes, "")));
        }

        #[test]
        fn no_line_is_too_strange_to_be_split(line in ".*") {
            drop(words(&line));
        }
    }

    #[test]
    fn bytes_that_cannot_be_printed_are_escaped() {
        assert_eq!(quoted(b"a\"\n\xff\x00"), r#""a\"\n\xff\x00""#);
        assert_eq!(quoted("ü\u{85}".as_bytes()), r#""ü\u0085""#);
        assert_eq!(unquote(r"`a\n` rest"), Some((br"a\n".to_vec(), " rest")));
        assert_eq!(unquote(r#""\x41\102\u00fc""#), Some(("ABü".into(), "")));
        assert_eq!(unquote(r#""no end"#), None);
    }

    #[test]
    fn a_line_is_split_at_spaces_outside_quotes() {
        let check = |line: &str, expected: &[&str]| {
            assert_eq!(words(line).unwrap(), expected, "{line}");
        };
        check(r#"put  key "a b\n" "#, &["put", "key", "a b\n"]);
        check("put 'a \"b' ''", &["put", "a \"b", ""]);
        check("  ", &[]);
        assert_eq!(words("put \"a"), None);
    }

    #[test]
    fn what_is_no_number_is_refused_in_known_words() {
        assert_eq!(integer("-7f", 16), Ok(-0x7f));
        let refused = |text, radix| integer(text, radix).unwrap_err();
        assert_eq!(refused("xyz", 16), r#"strconv.ParseInt: parsing "xyz": invalid syntax"#);
        assert_eq!(
            refused("9223372036854775808", 10),
            r#"strconv.ParseInt: parsing "9223372036854775808": value out of range"#
        );
    }

    #[test]
    fn times_and_sizes_are_written_as_in_the_original() {
        let check =
            |nanos: u64, text: &str| assert_eq!(duration(Duration::from_nanos(nanos)), text);
        check(0, "0s");
        check(999, "999ns");
        check(1_500, "1.5µs");
        check(2_345_678, "2.345678ms");
        check(1_000_000_000, "1s");
        check(61_500_000_000, "1m1.5s");
        check(3_600_000_000_000, "1h0m0s");
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (20_480, "20 kB"),
            (9_960, "10 kB"),
            (25_600_000, "26 MB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
