//! Words that a field accepts.

/// Tells whether a text is one that the field accepts.
pub type Accepts = fn(&str) -> bool;

/// `on`, `off`, `readonly`.
pub fn proxy(text: &str) -> bool {
    ["on", "off", "readonly"].contains(&text)
}

/// `etcd-lock`, `reboot`, `off`.
pub fn reboot_strategy(text: &str) -> bool {
    ["etcd-lock", "reboot", "off"].contains(&text)
}

/// What can be asked of a unit.
pub fn command(text: &str) -> bool {
    [
        "start",
        "stop",
        "restart",
        "reload",
        "try-restart",
        "reload-or-restart",
        "reload-or-try-restart",
    ]
    .contains(&text)
}

/// Three or four octal digits, and a zero in front if you like.
pub fn permissions(text: &str) -> bool {
    (3..=5).contains(&text.len())
        && text.bytes().all(|digit| (b'0'..=b'7').contains(&digit))
        && (text.len() < 5 || text.starts_with('0'))
}

/// An optional day and a time: `Thu 04:00`.
pub fn window_start(text: &str) -> bool {
    let time = match text.split_once(' ') {
        None => text,
        Some((day, time)) => {
            let days = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
            if !days.contains(&day.to_ascii_lowercase().as_str()) {
                return false;
            }
            time
        }
    };
    time.split_once(':').is_some_and(|(hour, minute)| below(hour, 24) && below(minute, 60))
}

fn below(digits: &str, limit: u32) -> bool {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return false;
    }
    let significant = digits.trim_start_matches('0');
    significant.is_empty() || significant.parse::<u32>().is_ok_and(|number| number < limit)
}

/// A sign if you like, then numbers with units: `1h30m`.
pub fn window_length(text: &str) -> bool {
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let unit = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let number = &rest[..rest.len() - unit.len()];
        let next = unit.trim_start_matches(|c: char| c.is_ascii_lowercase());
        let whole = number.bytes().any(|byte| byte.is_ascii_digit());
        if !whole || number.matches('.').count() > 1 || next.len() == unit.len() {
            return false;
        }
        rest = next;
    }
    true
}

/// An address that discovery can be asked at.
pub fn discovery_url(text: &str) -> bool {
    let host = ["http://", "https://"].iter().find_map(|scheme| text.strip_prefix(scheme));
    host.is_some_and(|rest| {
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        !host.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(accepts: Accepts, good: &[&str], bad: &[&str]) {
        for text in good {
            assert!(accepts(text), "{text}");
        }
        for text in bad {
            assert!(!accepts(text), "{text}");
        }
    }

    #[test]
    fn permissions_are_three_or_four_octal_digits() {
        let good = ["0744", "744", "1777", "01777", "0000"];
        check(permissions, &good, &["pants", "07", "7", "999", "0999", "77777", "0o744", ""]);
    }

    #[test]
    fn a_reboot_window_starts_on_a_day_or_any_day() {
        let good = ["Thu 04:00", "sun 4:0", "SAT 23:59", "00:00", "0:0", "023:059", "9:30"];
        let bad = ["", "Thursday 04:00", "24:00", "4:60", "4", "Thu", "4:00 ", "Thu  4:00", ":0"];
        check(window_start, &good, &bad);
    }

    #[test]
    fn a_reboot_window_lasts_a_duration() {
        let good = ["1h", "1d", "0d", "0.5h", "1h30m", "-1h", "+1h", "90m", "10s"];
        check(window_length, &good, &["", "1", "h", "1.5.5h", "1h30", "1 h", "-", "1H"]);
    }

    #[test]
    fn commands_and_strategies_are_lists_of_words() {
        let commands = [
            "start",
            "stop",
            "restart",
            "reload",
            "try-restart",
            "reload-or-restart",
            "reload-or-try-restart",
        ];
        check(command, &commands, &["tryrestart", "unknown", "Start", ""]);
        check(reboot_strategy, &["etcd-lock", "reboot", "off"], &["best-effort", "false", ""]);
        check(proxy, &["on", "off", "readonly"], &["true", "hi"]);
    }

    #[test]
    fn discovery_is_asked_over_http() {
        let token = "https://discovery.etcd.io/00000000000000000000000000000000";
        check(discovery_url, &[token, "http://custom.domain/mytoken"], &["disco", "http://", ""]);
    }
}
