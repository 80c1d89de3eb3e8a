//! Durations as Go writes them, which is how the settings of the programs of 2015 have them.

use std::time::Duration;

/// Reads a duration such as `1s`, `1m30s`, `1.5h` or `500ms`; zero may have no unit. `None` if it is
/// none, or below zero.
pub fn parse(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let secs = number.parse::<f64>().ok()? * unit_secs(unit)?;
        total = total.checked_add(Duration::try_from_secs_f64(secs).ok()?)?;
        rest = after;
    }
    (!text.is_empty()).then_some(total)
}

fn unit_secs(unit: &str) -> Option<f64> {
    Some(match unit {
        "ns" => 1e-9,
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, millis) in [
            ("1s", 1_000),
            ("1m30s", 90_000),
            ("1.5s", 1_500),
            ("1h1m", 3_660_000),
            ("300ms", 300),
            ("0", 0),
        ] {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for wrong in ["", "5", "s", "-1s", "1d", "1s2", "5x", "5 s"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
