//! Flags as Go programs take them: `-name X`, `-name=X`, `--name X` and `--name=X` are the same.
//!
//! Old unit files and scripts write one dash; our command lines know two. Pure: arguments in,
//! arguments out.

use std::ffi::{OsStr, OsString};

use clap::{Arg, Command};

/// Writes every long flag of `command` with two dashes, and its value behind `=`.
///
/// Values stay as they are, and so does everything from the first argument that is no flag, and
/// after `--`. A switch may be given as `-name=true` or `-name=false`.
pub fn rewrite(command: &Command, args: &[OsString]) -> Vec<OsString> {
    let mut written: Vec<OsString> = args.iter().take(1).cloned().collect();
    let mut rest = args.iter().skip(1);
    while let Some(arg) = rest.next() {
        match read(command, arg) {
            Read::Flag { name, takes: Takes::Value, value: None } => {
                written.push(match rest.next() {
                    Some(value) => joined(name, value),
                    None => long(name),
                });
            }
            Read::Flag { name, takes: Takes::Nothing, value: Some(value) } => match truth(value) {
                Some(true) => written.push(long(name)),
                Some(false) => {}
                None => written.push(joined(name, OsStr::new(value))),
            },
            Read::Flag { name, value: Some(value), .. } => {
                written.push(joined(name, OsStr::new(value)));
            }
            Read::Flag { name, value: None, .. } => written.push(long(name)),
            Read::ShortWithValue => {
                written.push(arg.clone());
                written.extend(rest.next().cloned());
            }
            Read::Unknown => {
                let mut word = OsString::from("-");
                word.push(arg);
                written.push(word);
            }
            Read::Other => written.push(arg.clone()),
            Read::End => {
                written.push(arg.clone());
                break;
            }
        }
    }
    written.extend(rest.cloned());
    written
}

/// What an argument is.
enum Read<'a> {
    /// A long flag of the command.
    Flag { name: &'a str, takes: Takes, value: Option<&'a str> },
    /// A flag of one letter whose value is the next argument.
    ShortWithValue,
    /// A word behind one dash that is no flag of the command.
    Unknown,
    /// Some other flag.
    Other,
    /// The first that is no flag, or `--`.
    End,
}

/// What follows a flag.
#[derive(Clone, Copy)]
enum Takes {
    Nothing,
    Value,
    /// None, one or many: only clap can tell.
    Perhaps,
}

fn read<'a>(command: &Command, arg: &'a OsStr) -> Read<'a> {
    let Some(text) = arg.to_str() else { return Read::Other };
    let Some(word) = text.strip_prefix('-').filter(|word| !word.is_empty() && *word != "-") else {
        return Read::End;
    };
    let word = word.strip_prefix('-').unwrap_or(word);
    let (name, value) =
        word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
    if let Some(takes) = long_flag(command, name) {
        return Read::Flag { name, takes, value };
    }
    let letters = text.strip_prefix('-').unwrap_or_default();
    let short = |arg: &&Arg| arg.get_short().is_some_and(|letter| letters.starts_with(letter));
    match command.get_arguments().find(short).map(takes) {
        Some(Takes::Value) if letters.chars().count() == 1 => Read::ShortWithValue,
        None if is_unknown_word(letters) => Read::Unknown,
        Some(_) | None => Read::Other,
    }
}

/// A word that is no flag of ours: refused by all of it, not by its first letter.
fn is_unknown_word(letters: &str) -> bool {
    letters.starts_with(|c: char| c.is_ascii_alphabetic())
        && letters.len() > 1
        && !["h", "V"].iter().any(|built_in| letters.starts_with(built_in))
}

fn long_flag(command: &Command, name: &str) -> Option<Takes> {
    let named = |arg: &&Arg| {
        arg.get_long() == Some(name)
            || arg.get_all_aliases().is_some_and(|aliases| aliases.contains(&name))
    };
    let own = command.get_arguments().find(named).map(takes);
    own.or_else(|| ["help", "version"].contains(&name).then_some(Takes::Nothing))
}

fn takes(arg: &Arg) -> Takes {
    if !arg.get_action().takes_values() {
        return Takes::Nothing;
    }
    match arg.get_num_args() {
        Some(range) if range.min_values() != 1 || range.max_values() != 1 => Takes::Perhaps,
        Some(_) | None => Takes::Value,
    }
}

fn long(name: &str) -> OsString {
    format!("--{name}").into()
}

fn joined(name: &str, value: &OsStr) -> OsString {
    let mut flag = long(name);
    flag.push("=");
    flag.push(value);
    flag
}

/// Reads a truth value by Go's own list.
fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use clap::ArgAction;

    use super::*;

    fn command() -> Command {
        Command::new("p")
            .args_override_self(true)
            .arg(Arg::new("file").long("from-file").action(ArgAction::Append))
            .arg(Arg::new("check").long("validate").action(ArgAction::SetTrue))
            .arg(Arg::new("endpoint").short('e').long("endpoint"))
            .arg(Arg::new("colour").long("colour").num_args(0..=1))
            .arg(Arg::new("rest").num_args(0..))
    }

    fn check(args: &[&str], expected: &[&str]) {
        let args: Vec<_> = ["p"].iter().chain(args).map(OsString::from).collect();
        let written = rewrite(&command(), &args);
        assert_eq!(written[1..], expected.iter().map(OsString::from).collect::<Vec<_>>());
        command().try_get_matches_from(written).unwrap();
    }

    #[test]
    fn one_dash_and_two_are_the_same() {
        for args in
            [&["-from-file", "X"][..], &["--from-file", "X"], &["-from-file=X"], &["--from-file=X"]]
        {
            check(args, &["--from-file=X"]);
        }
    }

    #[test]
    fn a_value_stays_as_it_is_whatever_it_looks_like() {
        check(&["-from-file", "-from-file"], &["--from-file=-from-file"]);
        check(&["-from-file", "--", "-validate"], &["--from-file=--", "--validate"]);
        check(&["-from-file=a=b"], &["--from-file=a=b"]);
        check(&["-from-file="], &["--from-file="]);
        check(&["-e", "x", "-validate"], &["-e", "x", "--validate"]);
    }

    #[test]
    fn nothing_is_rewritten_from_the_first_argument_that_is_no_flag() {
        check(&["-validate", "--", "-validate"], &["--validate", "--", "-validate"]);
        check(&["-validate", "word", "--validate"], &["--validate", "word", "--validate"]);
        check(&["-"], &["-"]);
    }

    #[test]
    fn a_switch_can_be_given_a_truth_value() {
        check(&["-validate=true"], &["--validate"]);
        check(&["--validate=0"], &[]);
        check(&["-validate=F", "-validate"], &["--validate"]);
    }

    #[test]
    fn a_flag_whose_value_is_optional_keeps_its_shape() {
        check(&["-colour", "-validate"], &["--colour", "--validate"]);
        check(&["-colour=always"], &["--colour=always"]);
    }

    #[test]
    fn help_has_one_dash_too_and_unknown_flags_are_left_to_be_refused() {
        let of = |arg: &str| rewrite(&command(), &["p".into(), arg.into()])[1].clone();
        assert_eq!(of("-help"), "--help");
        assert_eq!(of("-h"), "-h");
        assert_eq!(of("-nonsense=1"), "--nonsense=1");
        assert_eq!(of("-ehttp://a"), "-ehttp://a");
        assert_eq!(of("-5"), "-5");
    }
}
