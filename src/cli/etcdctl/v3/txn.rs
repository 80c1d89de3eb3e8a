//! `txn`: conditions, and what is done if they hold and if not, read from standard input.
//!
//! ```text
//!   mod("key") > "0"        conditions, then an empty line
//!   put key "a value"       done where all hold, then an empty line
//!   get key                 done where one does not, then an empty line
//! ```

use clap::{ArgAction, ArgMatches, Command};

use crate::cli::etcdctl::args::verb;
use crate::cli::etcdctl::v3::{Failed, Lines, Session, Step, go_text, keys};
use crate::wire::etcd::v3::etcdserverpb as pb;
use crate::wire::etcd::v3::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::wire::etcd::v3::etcdserverpb::request_op::Request;

/// What standard input says.
const GRAMMAR: &str = "\
Standard input has three lists, each ended by an empty line: conditions, what is done where all of
them hold, what is done where one does not. For example

  mod(\"key\") > \"0\"

  put key \"a value\"
  get key

  del --prefix other

A condition names `mod`, `create`, `version`, `value` or `lease` of a key, a sign (`=`, `!=`, `>`,
`<`), and what it is compared with. No condition holds always.";

/// Describes the verb.
pub(super) fn verb_txn() -> Command {
    let interactive = clap::Arg::new("interactive")
        .short('i')
        .long("interactive")
        .help("Say which lines are expected")
        .action(ArgAction::SetTrue);
    verb("txn", "Do several things at once if conditions hold, as standard input says")
        .arg(interactive)
        .after_help(GRAMMAR)
}

impl Session {
    pub(super) async fn txn(&mut self, words: &ArgMatches) -> Step<()> {
        let lines = self.lines();
        let output = &mut self.output;
        let prompt = |text: &str| {
            if words.get_flag("interactive") {
                output.line(text);
            }
        };
        let request = read(lines, prompt).await?;
        self.client.fits(&request)?;
        let done = self.client.write(|mut services| async move { services.kv.txn(request).await });
        let done = done.await?;
        self.show(&done)
    }
}

/// Reads a transaction, three lists of lines that each end with an empty one.
async fn read(mut lines: Lines, mut prompt: impl FnMut(&str)) -> Step<pb::TxnRequest> {
    prompt("compares:");
    let compare = list(&mut lines, compare).await?;
    prompt("success requests (get, put, del):");
    let success = list(&mut lines, operation).await?;
    prompt("failure requests (get, put, del):");
    let failure = list(&mut lines, operation).await?;
    Ok(pb::TxnRequest { compare, success, failure })
}

async fn list<T>(lines: &mut Lines, parse: impl Fn(&str) -> Step<T>) -> Step<Vec<T>> {
    let mut found = Vec::new();
    loop {
        let line = lines.next_line().await;
        let line =
            line.map_err(|why| Failed::input(format_args!("cannot read the transaction: {why}")))?;
        let Some(line) = line else {
            let text =
                "the transaction is not complete: each of its three lists ends with an empty line";
            return Err(Failed::input(text));
        };
        match line.trim() {
            "" => return Ok(found),
            line => found.push(parse(line)?),
        }
    }
}

/// Reads a condition such as `mod("key") > "0"`.
fn compare(line: &str) -> Step<pb::Compare> {
    let malformed = |why: &str| {
        Failed::input(format_args!(
            "malformed comparison: {line} ({why}); write it like `mod(\"key\") > \"0\"`"
        ))
    };
    let (target, rest) = line.split_once('(').ok_or_else(|| malformed("no parenthesis"))?;
    let (key, rest) =
        go_text::unquote(rest).ok_or_else(|| malformed("the key is not in quotes"))?;
    let rest = rest.strip_prefix(')').ok_or_else(|| malformed("no parenthesis after the key"))?;
    let (sign, rest) =
        rest.trim_start().split_once(' ').ok_or_else(|| malformed("no value after the sign"))?;
    let result = match sign {
        "=" => CompareResult::Equal,
        "!=" => CompareResult::NotEqual,
        ">" => CompareResult::Greater,
        "<" => CompareResult::Less,
        _ => return Err(malformed("the sign is none of =, !=, > and <")),
    };
    let (value, rest) = go_text::unquote(rest.trim_start())
        .ok_or_else(|| malformed("the value is not in quotes"))?;
    if !rest.trim().is_empty() {
        return Err(malformed("something follows the value"));
    }
    let number = |radix| {
        let text = std::str::from_utf8(&value).ok();
        text.and_then(|text| i64::from_str_radix(text, radix).ok())
            .ok_or_else(|| malformed("the value is no number"))
    };
    let (target, union) = match target.trim() {
        "ver" | "version" => (CompareTarget::Version, TargetUnion::Version(number(10)?)),
        "c" | "create" => (CompareTarget::Create, TargetUnion::CreateRevision(number(10)?)),
        "m" | "mod" => (CompareTarget::Mod, TargetUnion::ModRevision(number(10)?)),
        "lease" => (CompareTarget::Lease, TargetUnion::Lease(number(16)?)),
        "val" | "value" => (CompareTarget::Value, TargetUnion::Value(value)),
        _ => return Err(malformed("unknown target")),
    };
    Ok(pb::Compare {
        result: result.into(),
        target: target.into(),
        key,
        range_end: Vec::new(),
        target_union: Some(union),
    })
}

/// Reads a line such as `put key value`, with the flags of the verb.
fn operation(line: &str) -> Step<pb::RequestOp> {
    let invalid = |why: &str| Failed::input(format_args!("invalid txn request: {line} ({why})"));
    let words = go_text::words(line).ok_or_else(|| invalid("a quote has no end"))?;
    let read = |command: Command| {
        let matched = command.no_binary_name(true).try_get_matches_from(&words[1..]);
        matched.map_err(|why| invalid(why.kind().as_str().unwrap_or("its words make no sense")))
    };
    let request = match words.first().map(String::as_str) {
        Some("put") => Request::RequestPut(keys::put(&read(keys::verb_put())?, None)?),
        Some("get") => Request::RequestRange(keys::range(&read(keys::verb_get())?)?),
        Some("del") => Request::RequestDeleteRange(keys::delete(&read(keys::verb_del())?)?),
        _ => return Err(invalid("write `put`, `get` or `del`")),
    };
    Ok(pb::RequestOp { request: Some(request) })
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::io::AsyncBufReadExt as _;

    use super::*;
    use crate::cli::etcdctl::v3::Input;

    fn parsed(text: &'static str) -> Step<pb::TxnRequest> {
        let lines: Lines = (Box::new(text.as_bytes()) as Input).lines();
        read(lines, |_| {}).now_or_never().expect("nothing is waited for")
    }

    #[test]
    fn conditions_name_a_target_a_key_a_sign_and_a_value() {
        let check = |line: &str, key: &str, result: CompareResult, union: TargetUnion| {
            let found = compare(line).unwrap();
            assert_eq!(found.key, key.as_bytes(), "{line}");
            assert_eq!((found.result(), found.target_union), (result, Some(union)), "{line}");
        };
        check(r#"mod("k") > "0""#, "k", CompareResult::Greater, TargetUnion::ModRevision(0));
        check(r#"m("k") < "-1""#, "k", CompareResult::Less, TargetUnion::ModRevision(-1));
        check(r#"create("k") = "5""#, "k", CompareResult::Equal, TargetUnion::CreateRevision(5));
        check(r#"ver("k") != "2""#, "k", CompareResult::NotEqual, TargetUnion::Version(2));
        check(r#"lease("k") = "7f""#, "k", CompareResult::Equal, TargetUnion::Lease(0x7f));
        let value = TargetUnion::Value(b"a b\"".to_vec());
        check(r#"value("a(b)") = "a b\"""#, "a(b)", CompareResult::Equal, value.clone());
        check("val(`k`)  =  `a b\"`", "k", CompareResult::Equal, value);
    }

    #[test]
    fn a_line_that_is_no_condition_or_request_is_refused_with_its_text() {
        let check = |parsed: Option<Failed>, text: &str| {
            let refused = parsed.unwrap();
            assert_eq!(refused.exit.code(), 3);
            assert!(refused.text.contains(text), "{}", refused.text);
        };
        check(compare("mod k > 0").err(), "malformed comparison: mod k > 0 (no parenthesis)");
        check(compare(r#"mod(k) > "0""#).err(), "the key is not in quotes");
        check(compare(r#"mod("k") >= "0""#).err(), "the sign is none of");
        check(compare(r#"mod("k") > "x""#).err(), "the value is no number");
        check(compare(r#"age("k") > "1""#).err(), "unknown target");
        check(operation("move a b").err(), "invalid txn request: move a b (write `put`");
        check(operation("put \"a").err(), "a quote has no end");
        check(operation("get a --frob").err(), "invalid txn request: get a --frob");
        check(parsed("\nput a 1\n\nget b\n").err(), "the transaction is not complete");
    }

    #[test]
    fn a_transaction_is_three_lists() {
        let found =
            parsed("mod(\"k\") > \"0\"\n\nput k \"a b\"\nget --prefix k\n\ndel k --prev-kv\n\n");
        let found = found.unwrap();
        assert_eq!((found.compare.len(), found.success.len(), found.failure.len()), (1, 2, 1));
        let Some(Request::RequestPut(put)) = &found.success[0].request else { panic!("a put") };
        assert_eq!(put.value, b"a b");
        let Some(Request::RequestRange(get)) = &found.success[1].request else { panic!("a get") };
        assert_eq!(get.range_end, b"l");
        let Some(Request::RequestDeleteRange(del)) = &found.failure[0].request else {
            panic!("a del")
        };
        assert!(del.prev_kv);
        assert_eq!(parsed("\n\n\n").unwrap(), pb::TxnRequest::default());
    }
}
