//! `put`, `get`, `del` and `compaction`.

use clap::{Arg, ArgMatches, Command};
use tokio::io::AsyncReadExt as _;

use crate::cli::etcdctl::args::{flag, value, verb};
use crate::cli::etcdctl::v3::show::Format;
use crate::cli::etcdctl::v3::{Failed, Session, Step, go_text};
use crate::wire::etcd::v3::etcdserverpb as pb;
use crate::wire::etcd::v3::etcdserverpb::range_request::{SortOrder, SortTarget};

/// As a range's end: everything from its key on. As a key: the smallest.
const EVERYTHING: &[u8] = b"\0";

/// The name of the argument that is a key: `key` is a flag's.
pub(super) const KEY: &str = "name";

/// Describes the verbs.
pub(super) fn verbs() -> [Command; 4] {
    [verb_get(), verb_put(), verb_del(), verb_compaction()]
}

/// Makes an argument that may be missing, so that the refusal is ours.
pub(super) fn word(name: &'static str, value_name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).value_name(value_name).help(help)
}

/// Makes a flag whose value is a number.
pub(super) fn number(name: &'static str, help: &'static str) -> Arg {
    let number = value(name, "NUMBER", help).value_parser(clap::value_parser!(i64));
    number.default_value("0").allow_negative_numbers(true)
}

/// Makes the arguments and flags of what is about one key or many.
pub(super) fn of_range() -> [Arg; 3] {
    [
        word(KEY, "KEY", "The key"),
        word("range-end", "RANGE_END", "Where a range ends that begins with the key"),
        flag("prefix", "Every key that begins with this one"),
    ]
}

fn from_key() -> Arg {
    flag("from-key", "This key and every one that is greater")
}

/// Describes `get`.
pub(super) fn verb_get() -> Command {
    verb("get", "Print a key, or a range of keys")
        .args(of_range())
        .arg(from_key())
        .args([
            number("limit", "At most so many; all if 0"),
            number("rev", "As they were at this revision; now if 0"),
            value("order", "ORDER", "Sort `ASCEND` or `DESCEND`"),
            value("sort-by", "TARGET", "Sort by `CREATE`, `KEY`, `MODIFY`, `VALUE` or `VERSION`"),
            value("consistency", "LEVEL", "Read linearizable (`l`) or serializable (`s`)")
                .default_value("l"),
        ])
        .args([
            flag("keys-only", "Print no values"),
            flag("count-only", "Print how many there are, with `--write-out=fields`"),
            flag("print-value-only", "Print values only"),
        ])
        .args([
            number("min-create-rev", "Only those created at this revision or later"),
            number("max-create-rev", "Only those created at this revision or before"),
            number("min-mod-rev", "Only those changed at this revision or later"),
            number("max-mod-rev", "Only those changed at this revision or before"),
        ])
}

/// Describes `put`.
pub(super) fn verb_put() -> Command {
    verb("put", "Write a key").args([
        word(KEY, "KEY", "The key"),
        word("value", "VALUE", "The value; standard input if it is left out"),
        value("lease", "LEASE", "The lease that it lives with, in hex").default_value("0"),
        flag("prev-kv", "Print what was there before"),
        flag("ignore-value", "Keep the value that is there"),
        flag("ignore-lease", "Keep the lease that is there"),
    ])
}

/// Describes `del`.
pub(super) fn verb_del() -> Command {
    verb("del", "Remove a key, or a range of keys").args(of_range()).args([
        from_key(),
        flag("range", "The keys from the first to before the second"),
        flag("prev-kv", "Print what was there before"),
    ])
}

fn verb_compaction() -> Command {
    verb("compaction", "Forget what happened before a revision").alias("compact").args([
        word("revision", "REVISION", "The revision"),
        flag("physical", "Wait until it is done on disk"),
    ])
}

impl Session {
    pub(super) async fn get(&mut self, words: &ArgMatches) -> Step<()> {
        let request = range(words)?;
        let format = self.settings.show.format;
        if request.count_only && format != Format::Fields {
            return Err(Failed::arguments("--count-only is only for `--write-out=fields`"));
        }
        if words.get_flag("print-value-only") {
            if format != Format::Simple {
                let text = "print-value-only is only for `--write-out=simple`";
                return Err(Failed::arguments(text));
            }
            self.settings.show.value_only = true;
        }
        let got = self.client.read(|mut services| {
            let request = request.clone();
            async move { services.kv.range(request).await }
        });
        let got = got.await?;
        self.show(&got)
    }

    pub(super) async fn put(&mut self, words: &ArgMatches) -> Step<()> {
        let value = if value_is_read(words) { Some(self.value().await?) } else { None };
        let request = put(words, value)?;
        self.client.fits(&request)?;
        let done = self.client.write(|mut services| async move { services.kv.put(request).await });
        let done = done.await?;
        self.show(&done)
    }

    /// Reads a value from the input.
    async fn value(&mut self) -> Step<Vec<u8>> {
        let mut value = Vec::new();
        let read = self.input.read_to_end(&mut value).await;
        read.map_err(|why| Failed::io(format_args!("cannot read the value: {why}")))?;
        Ok(value)
    }

    pub(super) async fn del(&mut self, words: &ArgMatches) -> Step<()> {
        let request = delete(words)?;
        let done = self
            .client
            .write(|mut services| async move { services.kv.delete_range(request).await });
        let done = done.await?;
        self.show(&done)
    }

    pub(super) async fn compact(&mut self, words: &ArgMatches) -> Step<()> {
        let Some(text) = words.get_one::<String>("revision") else {
            return Err(Failed::arguments("compaction command needs 1 argument"));
        };
        let revision: i64 = text
            .parse()
            .map_err(|_| Failed::error(format_args!("`{text}` is no revision; write a number")))?;
        let request = pb::CompactionRequest { revision, physical: words.get_flag("physical") };
        self.client.write(|mut services| async move { services.kv.compact(request).await }).await?;
        self.output.line(format_args!("compacted revision {revision}"));
        Ok(())
    }
}

/// Decides what `get` asks for.
pub(super) fn range(words: &ArgMatches) -> Step<pb::RangeRequest> {
    let needs = "get command needs one argument as key and an optional argument as range_end";
    let (key, range_end) = key_and_end(words, needs)?;
    if words.get_flag("keys-only") && words.get_flag("count-only") {
        let text = "`--keys-only` and `--count-only` cannot be set at the same time, choose one";
        return Err(Failed::arguments(text));
    }
    let number = |name: &str| words.get_one::<i64>(name).copied().unwrap_or_default();
    Ok(pb::RangeRequest {
        key,
        range_end,
        limit: number("limit"),
        revision: number("rev").max(0),
        sort_order: sort_order(words)?.into(),
        sort_target: sort_target(words)?.into(),
        serializable: is_serializable(words)?,
        keys_only: words.get_flag("keys-only"),
        count_only: words.get_flag("count-only"),
        min_mod_revision: number("min-mod-rev"),
        max_mod_revision: number("max-mod-rev"),
        min_create_revision: number("min-create-rev"),
        max_create_revision: number("max-create-rev"),
    })
}

fn typed<'a>(words: &'a ArgMatches, name: &str) -> &'a str {
    words.get_one::<String>(name).map_or("", String::as_str)
}

fn sort_order(words: &ArgMatches) -> Step<SortOrder> {
    let order = typed(words, "order");
    match order.to_uppercase().as_str() {
        "" => Ok(SortOrder::None),
        "ASCEND" => Ok(SortOrder::Ascend),
        "DESCEND" => Ok(SortOrder::Descend),
        _ => Err(Failed::feature(format_args!("bad sort order {order}"))),
    }
}

fn sort_target(words: &ArgMatches) -> Step<SortTarget> {
    let target = typed(words, "sort-by");
    match target.to_uppercase().as_str() {
        "" | "KEY" => Ok(SortTarget::Key),
        "CREATE" => Ok(SortTarget::Create),
        "MODIFY" => Ok(SortTarget::Mod),
        "VALUE" => Ok(SortTarget::Value),
        "VERSION" => Ok(SortTarget::Version),
        _ => Err(Failed::feature(format_args!("bad sort target {target}"))),
    }
}

fn is_serializable(words: &ArgMatches) -> Step<bool> {
    match typed(words, "consistency") {
        "l" => Ok(false),
        "s" => Ok(true),
        other => Err(Failed::feature(format_args!("unknown consistency flag {other:?}"))),
    }
}

/// Decides which keys are meant: a key and where its range ends.
fn key_and_end(words: &ArgMatches, needs: &str) -> Step<(Vec<u8>, Vec<u8>)> {
    let key = words.get_one::<String>(KEY).ok_or_else(|| Failed::arguments(needs))?;
    let end = words.get_one::<String>("range-end");
    let (prefix, from_key) = (words.get_flag("prefix"), words.get_flag("from-key"));
    if prefix && from_key {
        let text = "`--prefix` and `--from-key` cannot be set at the same time, choose one";
        return Err(Failed::arguments(text));
    }
    if end.is_some() && (prefix || from_key) {
        let text =
            "too many arguments, only accept one argument when `--prefix` or `--from-key` is set";
        return Err(Failed::arguments(text));
    }
    let key = key.as_bytes().to_vec();
    Ok(match end {
        Some(end) => (key, end.as_bytes().to_vec()),
        None if (prefix || from_key) && key.is_empty() => (EVERYTHING.into(), EVERYTHING.into()),
        None if from_key => (key, EVERYTHING.into()),
        None if prefix => prefix_range(key),
        None => (key, Vec::new()),
    })
}

/// Returns the range of all keys that begin with `key`.
pub(super) fn prefix_range(key: Vec<u8>) -> (Vec<u8>, Vec<u8>) {
    if key.is_empty() {
        return (EVERYTHING.into(), EVERYTHING.into());
    }
    let mut end = key.clone();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return (key, end);
        }
    }
    (key, EVERYTHING.into())
}

/// Tells whether the input has the value.
fn value_is_read(words: &ArgMatches) -> bool {
    let has = |name| words.get_one::<String>(name).is_some();
    has(KEY) && !has("value") && !words.get_flag("ignore-value")
}

/// Decides what `put` asks for; a value that is not among the words is the one that was read.
pub(super) fn put(words: &ArgMatches, read: Option<Vec<u8>>) -> Step<pb::PutRequest> {
    let needs = || {
        let text = "put command needs 1 argument and input from stdin or 2 arguments";
        Failed::arguments(text)
    };
    let key = words.get_one::<String>(KEY).ok_or_else(needs)?;
    let ignore_value = words.get_flag("ignore-value");
    let value = match words.get_one::<String>("value") {
        Some(_) if ignore_value => {
            let text = "put command needs only 1 argument when 'ignore-value' is set";
            return Err(Failed::arguments(text));
        }
        Some(value) => value.as_bytes().to_vec(),
        None if ignore_value => Vec::new(),
        None => read.ok_or_else(needs)?,
    };
    Ok(pb::PutRequest {
        key: key.as_bytes().to_vec(),
        value,
        lease: lease_id(typed(words, "lease"))?,
        prev_kv: words.get_flag("prev-kv"),
        ignore_value,
        ignore_lease: words.get_flag("ignore-lease"),
    })
}

/// Reads a lease's id.
pub(super) fn lease_id(text: &str) -> Step<i64> {
    let id = go_text::integer(text, 16);
    id.map_err(|why| Failed::arguments(format_args!("bad lease ID ({why}), expecting ID in Hex")))
}

/// Decides what `del` asks for.
pub(super) fn delete(words: &ArgMatches) -> Step<pb::DeleteRangeRequest> {
    let needs = "del command needs one argument as key and an optional argument as range_end";
    let (key, range_end) = key_and_end(words, needs)?;
    if words.get_flag("range") && words.get_one::<String>("range-end").is_none() {
        return Err(Failed::arguments("`--range` needs a key and a range_end"));
    }
    Ok(pb::DeleteRangeRequest { key, range_end, prev_kv: words.get_flag("prev-kv") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(command: Command, line: &str) -> ArgMatches {
        let words = line.split(' ').map(|word| if word == "''" { "" } else { word });
        command.no_binary_name(false).try_get_matches_from(words).unwrap()
    }

    #[test]
    fn a_prefix_ends_where_its_last_byte_that_can_grow_has_grown() {
        let check = |key: &[u8], end: &[u8]| {
            assert_eq!(prefix_range(key.to_vec()), (key.to_vec(), end.to_vec()));
        };
        check(b"a", b"b");
        check(b"a/", b"a0");
        check(b"a\xff\xff", b"b");
        check(b"\xff\xff", b"\0");
        assert_eq!(prefix_range(Vec::new()), (b"\0".to_vec(), b"\0".to_vec()));
    }

    #[test]
    fn a_range_is_one_key_two_a_prefix_or_all_from_one_on() {
        let check = |line: &str, key: &[u8], end: &[u8]| {
            let request = range(&words(verb_get(), line)).unwrap();
            assert_eq!(
                (request.key.as_slice(), request.range_end.as_slice()),
                (key, end),
                "{line}"
            );
            let request = delete(&words(verb_del(), line)).unwrap();
            assert_eq!(
                (request.key.as_slice(), request.range_end.as_slice()),
                (key, end),
                "{line}"
            );
        };
        check("get a", b"a", b"");
        check("get a b", b"a", b"b");
        check("get --prefix a", b"a", b"b");
        check("get '' --prefix", b"\0", b"\0");
        check("get --from-key a", b"a", b"\0");
        check("get '' --from-key", b"\0", b"\0");
        check("get ''", b"", b"");
    }

    #[test]
    fn what_get_is_told_is_asked_for() {
        let line = "get a --limit 3 --rev 9 --order descend --sort-by modify --consistency s \
                    --keys-only --min-mod-rev 1 --max-mod-rev 2 --min-create-rev 3 --max-create-rev 4";
        let asked = range(&words(verb_get(), line)).unwrap();
        let expected = pb::RangeRequest {
            key: b"a".to_vec(),
            range_end: Vec::new(),
            limit: 3,
            revision: 9,
            sort_order: SortOrder::Descend.into(),
            sort_target: SortTarget::Mod.into(),
            serializable: true,
            keys_only: true,
            count_only: false,
            min_mod_revision: 1,
            max_mod_revision: 2,
            min_create_revision: 3,
            max_create_revision: 4,
        };
        assert_eq!(asked, expected);
    }

    #[test]
    fn words_that_contradict_each_other_are_refused() {
        let check = |line: &str, code: u8, start: &str| {
            let refused = range(&words(verb_get(), line)).unwrap_err();
            assert_eq!(refused.exit.code(), code, "{line}");
            assert!(refused.text.starts_with(start), "{line}: {}", refused.text);
        };
        check("get", 128, "get command needs one argument as key");
        check("get a --prefix --from-key", 128, "`--prefix` and `--from-key` cannot");
        check("get a b --prefix", 128, "too many arguments");
        check("get a --keys-only --count-only", 128, "`--keys-only` and `--count-only` cannot");
        check("get a --order up", 4, "bad sort order up");
        check("get a --sort-by colour", 4, "bad sort target colour");
        check("get a --consistency x", 4, "unknown consistency flag \"x\"");
    }

    #[test]
    fn a_value_that_is_left_out_is_read() {
        let asked = |line: &str| {
            let words = words(verb_put(), line);
            put(&words, value_is_read(&words).then(|| b"read\n".to_vec())).unwrap()
        };
        assert_eq!(asked("put a").value, b"read\n");
        assert_eq!(asked("put a ''").value, b"");
        assert_eq!(asked("put a --ignore-value").value, b"");
        let all = asked("put a 1 --lease 7f --prev-kv --ignore-lease");
        assert_eq!((all.lease, all.prev_kv, all.ignore_lease), (0x7f, true, true));
        let refused = put(&words(verb_put(), "put a 1 --lease x"), None).unwrap_err();
        assert!(refused.text.starts_with("bad lease ID ("), "{}", refused.text);
        let refused = put(&words(verb_put(), "put a"), None).unwrap_err();
        assert!(refused.text.starts_with("put command needs 1 argument"), "{}", refused.text);
    }
}
