//! Flags as Go's flag package reads them, so that what was typed in 2015 still works.
//!
//! `-name` is `--name`, and a flag without a value may be given one: `--debug=true`. Only words
//! that are flags of the command are touched: no values, and nothing after `--`. What follows a
//! flag that takes a value is its value, even where it begins with a dash.

use std::ffi::{OsStr, OsString};
use std::time::Duration;

use clap::builder::ValueRange;
use clap::{Arg, ArgAction, Command};

use crate::foundation::go_duration;

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
        let takes_next = flags.iter().any(|flag| takes_next(flag, word));
        words.extend(rewritten(&flags, word));
        if takes_next {
            take_value(&mut words, rest.next());
        }
    }
    words
}

/// Tells whether `word` is this flag and its value is the next word.
fn takes_next(flag: &Arg, word: &OsStr) -> bool {
    let Some(dashed) = word.to_str().and_then(|text| text.strip_prefix('-')) else { return false };
    let is_short = flag.get_short().is_some_and(|letter| dashed == letter.to_string());
    let is_it = is_short || has_name(flag, dashed.strip_prefix('-').unwrap_or(dashed));
    let one = flag.get_num_args().is_none_or(|count| count == ValueRange::SINGLE);
    is_it && one && flag.get_action().takes_values()
}

/// Adds the value of the last word, so that no dash makes a flag of it.
fn take_value(words: &mut Vec<OsString>, value: Option<&OsString>) {
    match (words.last_mut(), value) {
        (Some(flag), Some(value)) if value.as_encoded_bytes().starts_with(b"-") => {
            flag.push("=");
            flag.push(value);
        }
        (_, value) => words.extend(value.cloned()),
    }
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
    go_duration::parse(text)
        .ok_or_else(|| "write a time such as `5s`, `500ms` or `1m30s`".to_owned())
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
    fn a_value_is_never_rewritten_whatever_it_looks_like() {
        check("ctl -peers -debug ls", "ctl --peers=-debug ls");
        check("ctl -peers -- -debug", "ctl --peers=-- --debug");
        check("ctl -peers=-debug ls", "ctl --peers=-debug ls");
        check("ctl -C -debug -debug", "ctl -C=-debug --debug");
        check("ctl -peers ls -debug=false get", "ctl --peers ls get");
        check("ctl -peers", "ctl --peers");
        check("ctl - -debug", "ctl - --debug");
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
}
