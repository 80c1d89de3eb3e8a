//! Flags as Go's flag package reads them, so that what was typed in 2015 still works.
//!
//! `-name` is `--name`, and a flag without a value may be given one: `--debug=true`. Only words
//! that are flags of the command are touched, and nothing after `--`.

use std::ffi::OsString;
use std::time::Duration;

use clap::{Arg, ArgAction, Command};

/// Rewrites `args`, whose first is the program's name, into what `command` reads.
pub fn rewrite(command: &Command, args: &[OsString]) -> Vec<OsString> {
    let mut flags: Vec<&Arg> = command.get_arguments().collect();
    let mut command = command;
    let mut rest = args.iter();
    let mut words: Vec<OsString> = rest.next().cloned().into_iter().collect();
    while let Some(word) = rest.next() {
        if word == "--" {
            words.push(word.clone());
            words.extend(rest.cloned());
            break;
        }
        if let Some(deeper) = word.to_str().and_then(|name| command.find_subcommand(name)) {
            command = deeper;
            flags.extend(command.get_arguments());
        }
        words.extend(rewritten(&flags, word));
    }
    words
}

/// Rewrites one word; a flag that is told to be off is left out.
fn rewritten(flags: &[&Arg], word: &OsString) -> Option<OsString> {
    let same = || Some(word.clone());
    let Some(text) = word.to_str() else { return same() };
    let Some(dashed) = text.strip_prefix('-') else { return same() };
    let name_and_value = dashed.strip_prefix('-').unwrap_or(dashed);
    let (name, value) = match name_and_value.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (name_and_value, None),
    };
    let Some(flag) = flags.iter().find(|flag| has_name(flag, name)) else { return same() };
    let is_switch = matches!(flag.get_action(), ArgAction::SetTrue);
    match value {
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") if is_switch => {
            Some(format!("--{name}").into())
        }
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") if is_switch => None,
        _ => Some(format!("--{name_and_value}").into()),
    }
}

fn has_name(flag: &Arg, name: &str) -> bool {
    let aliases = flag.get_all_aliases().unwrap_or_default();
    name.len() > 1 && (flag.get_long() == Some(name) || aliases.contains(&name))
}

/// Reads a duration as Go writes it: `1s`, `1m30s`, `500ms`; zero may have no unit.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "write a time such as `5s`, `500ms` or `1m30s`".to_owned();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let number: f64 = number.parse().map_err(|_| wrong())?;
        let secs = number * unit_secs(unit).ok_or_else(wrong)?;
        total += Duration::try_from_secs_f64(secs).map_err(|_| wrong())?;
        rest = after;
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
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

    fn check(typed: &str, read: &str) {
        let switch = |name| Arg::new(name).long(name).action(ArgAction::SetTrue);
        let ls = Command::new("ls").arg(switch("recursive")).arg(Arg::new("key"));
        let command = Command::new("ctl")
            .arg(switch("debug"))
            .arg(Arg::new("peers").long("peers").short('C'))
            .subcommand(ls)
            .subcommand(Command::new("get").arg(Arg::new("key")));
        let args: Vec<OsString> = typed.split(' ').map(OsString::from).collect();
        let rewritten: Vec<String> =
            rewrite(&command, &args).into_iter().map(|word| word.into_string().unwrap()).collect();
        assert_eq!(rewritten.join(" "), read);
    }

    #[test]
    fn one_dash_is_as_good_as_two() {
        check(
            "ctl -debug -peers=http://a ls -recursive",
            "ctl --debug --peers=http://a ls --recursive",
        );
        check(
            "ctl --debug -C http://a ls / --recursive",
            "ctl --debug -C http://a ls / --recursive",
        );
    }

    #[test]
    fn a_switch_may_be_told_on_or_off() {
        check("ctl --debug=true ls --recursive=false /", "ctl --debug ls /");
    }

    #[test]
    fn what_is_no_flag_of_the_command_stays() {
        check("ctl get -recursive", "ctl get -recursive");
        check("ctl ls -- -recursive", "ctl ls -- -recursive");
        check("ctl get -5", "ctl get -5");
    }

    #[test]
    fn durations_are_read_as_go_writes_them() {
        let read = |text| duration(text).map(|read| read.as_millis());
        assert_eq!(read("1s"), Ok(1_000));
        assert_eq!(read("1m30s"), Ok(90_000));
        assert_eq!(read("1.5s"), Ok(1_500));
        assert_eq!(read("0"), Ok(0));
        for wrong in ["", "5", "s", "-1s", "1d", "1s2"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
