//! What may be typed after `etcdctl`, and what it asks for. Pure.

use std::io;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};
use http::Method;

use crate::cli::etcdctl::args::{flag, root, value, verb};
use crate::cli::etcdctl::v2::render::{Format, Show};
use crate::cli::go_flags::duration;
use crate::rpc::client::keys::Read;
use crate::rpc::client::keys_http::Ask;

/// Which version of the store's API we are to clients, as `/version` says.
const VERSION: &str = "version: 3.5.30\nAPI version: 2";

/// Verbs that only the v2 API has, so that nobody needs to say which API is meant.
pub(in crate::cli::etcdctl) const ONLY_HERE: &[&str] = &[
    "backup",
    "cluster-health",
    "exec-watch",
    "import",
    "ls",
    "mk",
    "mkdir",
    "rm",
    "rmdir",
    "set",
    "setdir",
    "update",
    "updatedir",
];
/// Verbs of the v2 API that are not there yet.
const LATER: &[&str] = &["auth", "backup", "import", "role", "user"];
/// Verbs that only the v3 API has.
const OF_V3: &[&str] = &[
    "alarm",
    "check",
    "compact",
    "compaction",
    "defrag",
    "del",
    "downgrade",
    "elect",
    "endpoint",
    "lease",
    "lock",
    "make-mirror",
    "migrate",
    "move-leader",
    "put",
    "snapshot",
    "txn",
    "version",
];

/// What is to be done, once the store has been found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Job {
    /// One request, whose answer is shown.
    Keys(Ask, Show),
    /// Wait for changes.
    Watch {
        /// What to watch.
        what: Watched,
        /// Not only for the first.
        forever: bool,
    },
    /// Run a program at every change.
    ExecWatch {
        /// What to watch.
        what: Watched,
        /// The program and its arguments.
        program: Vec<String>,
    },
    /// Show the members.
    MemberList,
    /// Ask every member how it fares.
    ClusterHealth {
        /// Every ten seconds, without an end.
        forever: bool,
    },
}

/// What a watch is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Watched {
    /// The key.
    pub(super) key: String,
    /// Everything below it too.
    pub(super) recursive: bool,
    /// The first index that counts; from now on if zero.
    pub(super) from: u64,
}

/// Why nothing is done. The text says what to type instead.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// Only the v3 API has it.
    #[error("`{verb}` is a verb of the v3 API; type `ETCDCTL_API=3 etcdctl {verb} …`")]
    OnlyV3 {
        /// The verb.
        verb: String,
    },
    /// Not there yet.
    #[error("`{verb}` comes later; `etcdctl --help` names what is there")]
    Later {
        /// The verb, or the flag.
        verb: String,
    },
    /// Nobody knows it.
    #[error("no verb `{verb}`; `etcdctl --help` names what is there")]
    Unknown {
        /// The verb.
        verb: String,
    },
    /// Neither an argument nor something to read.
    #[error("value required")]
    NoValue,
}

fn number(name: &'static str, help: &'static str) -> Arg {
    value(name, "NUMBER", help).value_parser(clap::value_parser!(u64)).default_value("0")
}

fn ttl() -> Arg {
    let seconds = value("ttl", "SECONDS", "Let it live this long; for ever if 0");
    seconds.value_parser(clap::value_parser!(u64)).default_value("0")
}

fn key() -> Arg {
    Arg::new("key").value_name("KEY").help("The key, such as `/message`").required(true)
}

fn new_value() -> Arg {
    Arg::new("value").value_name("VALUE").help("The value; standard input if it is left out")
}

/// Describes the whole command line of those who say `ETCDCTL_API=2`.
pub(in crate::cli::etcdctl) fn command() -> Command {
    root("version", VERSION)
        .arg(flag("debug", "Print each request as a curl command").global(true))
        .arg(
            value(
                "endpoints",
                "URLS",
                "Where the members serve, separated by commas [env: ETCDCTL_ENDPOINTS]",
            )
            .aliases(["endpoint", "peers"])
            .short('C')
            .global(true),
        )
        .arg(later("discovery-srv").short('D'))
        .args(flags_only_here())
        .subcommands(verbs())
}

/// Flags for every verb that the v3 API does not have.
pub(in crate::cli::etcdctl) fn flags_only_here() -> [Arg; 8] {
    let time = |name, default: &'static str, help| {
        value(name, "TIME", help).value_parser(duration).default_value(default).global(true)
    };
    [
        flag("no-sync", "Ask the given endpoints, not those that the members publish").global(true),
        value("output", "FORMAT", "Write answers as `simple`, `extended` or `json`")
            .short('o')
            .value_parser(Format::parse)
            .default_value("simple")
            .global(true),
        time("timeout", "1s", "Give each endpoint this long"),
        time("total-timeout", "5s", "Give all of it this long; watches have no end"),
        later("username").short('u'),
        later("cert-file"),
        later("key-file"),
        later("ca-file"),
    ]
}

fn later(name: &'static str) -> Arg {
    Arg::new(name).long(name).global(true).hide(true)
}

/// Every verb that is there.
pub(in crate::cli::etcdctl) fn verbs() -> Vec<Command> {
    let mut verbs = reading_verbs().to_vec();
    verbs.extend(writing_verbs());
    verbs.extend(watching_verbs());
    verbs.extend(cluster_verbs());
    verbs
}

fn reading_verbs() -> [Command; 2] {
    let quorum = || flag("quorum", "Read nothing older than the last acknowledged write");
    let slashes = Arg::new("p").short('p').help("Append `/` to directories");
    let slashes = slashes.action(ArgAction::SetTrue);
    [
        verb("get", "Print a key's value").args([
            key(),
            flag("sort", "Sort what is in a directory"),
            quorum(),
        ]),
        verb("ls", "List a directory")
            .arg(key().required(false).default_value("/"))
            .args([flag("sort", "Sort by key"), flag("recursive", "List everything below too")])
            .args([slashes, quorum()]),
    ]
}

fn writing_verbs() -> [Command; 8] {
    let compare = |name, index| {
        [
            value(name, "VALUE", "Only if this is its value"),
            number(index, "Only if it last changed at this index"),
        ]
    };
    [
        verb("set", "Write a key")
            .args([key(), new_value(), ttl()])
            .args(compare("swap-with-value", "swap-with-index")),
        verb("mk", "Make a key that is not there yet")
            .args([key(), new_value(), ttl()])
            .arg(flag("in-order", "Make a key in this directory, named by the next index")),
        verb("update", "Write a key that is there").args([key(), new_value(), ttl()]),
        verb("mkdir", "Make a directory that is not there yet").args([key(), ttl()]),
        verb("setdir", "Make a directory, or give it a new time to live").args([key(), ttl()]),
        verb("updatedir", "Give a directory a new time to live").args([key(), ttl()]),
        verb("rm", "Remove a key or a directory")
            .args([key(), flag("dir", "Remove an empty directory too")])
            .arg(flag("recursive", "Remove a directory with everything in it"))
            .args(compare("with-value", "with-index")),
        verb("rmdir", "Remove an empty directory").arg(key()),
    ]
}

fn watching_verbs() -> [Command; 2] {
    let about_it = || {
        [
            flag("recursive", "Watch everything below too"),
            number("after-index", "Begin after this index; from now on if 0"),
        ]
    };
    [
        verb("watch", "Print a key's next change")
            .arg(key())
            .args(about_it())
            .arg(flag("forever", "Go on with the changes after it")),
        verb("exec-watch", "Run a program at every change of a key")
            .arg(key())
            .args(about_it())
            .arg(
                Arg::new("program")
                    .value_name("PROGRAM")
                    .help("The program and its arguments, after `--`; it finds ETCD_WATCH_ACTION, _KEY, _VALUE and _MODIFIED_INDEX in its environment")
                    .num_args(1..)
                    .required(true)
                    .trailing_var_arg(true)
                    .allow_hyphen_values(true),
            ),
    ]
}

fn cluster_verbs() -> [Command; 2] {
    [
        verb("member", "Show who the members are")
            .subcommand_required(true)
            .arg_required_else_help(true)
            .allow_external_subcommands(true)
            .subcommand(verb("list", "List the members")),
        verb("cluster-health", "Ask every member how it fares")
            .arg(flag("forever", "Ask again every ten seconds")),
    ]
}

/// Decides what the words ask for.
pub(super) fn job(
    matches: &ArgMatches,
    stdin: impl FnOnce() -> io::Result<String>,
) -> Result<Job, Refusal> {
    for flag in ["discovery-srv", "username", "cert-file", "key-file", "ca-file"] {
        if matches.get_one::<String>(flag).is_some() {
            return Err(Refusal::Later { verb: format!("--{flag}") });
        }
    }
    let Some((verb, words)) = matches.subcommand() else {
        return Err(Refusal::Unknown { verb: String::new() });
    };
    let key = || text(words, "key").unwrap_or_default();
    let forever = || words.get_flag("forever");
    Ok(match verb {
        "get" | "ls" => reading(verb, words, &key()),
        "set" | "mk" | "update" => {
            let new = match text(words, "value") {
                Some(value) => value,
                None => stdin().ok().filter(|read| !read.is_empty()).ok_or(Refusal::NoValue)?,
            };
            Job::Keys(writing(verb, words, &key(), &new), Show::Written)
        }
        "mkdir" | "setdir" | "updatedir" => {
            Job::Keys(directory(verb, words, &key()), Show::Directory)
        }
        "rm" => Job::Keys(removal(words, &key()), Show::Removed),
        "rmdir" => Job::Keys(Ask::new(Method::DELETE, &key()).query("dir", "true"), Show::Removed),
        "watch" => Job::Watch { what: watched(words), forever: forever() },
        "exec-watch" => {
            let program = words.get_many::<String>("program").unwrap_or_default();
            Job::ExecWatch { what: watched(words), program: program.cloned().collect() }
        }
        "member" => member(words)?,
        "cluster-health" => Job::ClusterHealth { forever: forever() },
        verb => return Err(absent(verb)),
    })
}

fn text(words: &ArgMatches, name: &str) -> Option<String> {
    words.get_one::<String>(name).cloned()
}

fn index(words: &ArgMatches, name: &str) -> u64 {
    words.get_one::<u64>(name).copied().unwrap_or_default()
}

/// A time to live of zero is none, as it always was here.
fn time_to_live(words: &ArgMatches) -> Option<Duration> {
    let seconds = index(words, "ttl");
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

fn reading(verb: &str, words: &ArgMatches, key: &str) -> Job {
    let lists = verb == "ls";
    let read = Read {
        recursive: lists && words.get_flag("recursive"),
        sorted: words.get_flag("sort"),
        quorum: words.get_flag("quorum"),
    };
    let show = if lists { Show::Listing { slashes: words.get_flag("p") } } else { Show::Key };
    Job::Keys(Ask::read(key, read), show)
}

fn writing(verb: &str, words: &ArgMatches, key: &str, new: &str) -> Ask {
    let in_order = verb == "mk" && words.get_flag("in-order");
    let method = if in_order { Method::POST } else { Method::PUT };
    let ask = Ask::new(method, key).form("value", new).ttl(time_to_live(words));
    match verb {
        "mk" if in_order => ask,
        "mk" => ask.query("prevExist", "false"),
        "update" => ask.query("prevExist", "true"),
        _ => compared(ask, words, "swap-with-value", "swap-with-index"),
    }
}

fn directory(verb: &str, words: &ArgMatches, key: &str) -> Ask {
    let ask = Ask::new(Method::PUT, key).query("dir", "true").ttl(time_to_live(words));
    match verb {
        "mkdir" => ask.query("prevExist", "false"),
        "updatedir" => ask.query("prevExist", "true"),
        _ => ask,
    }
}

fn removal(words: &ArgMatches, key: &str) -> Ask {
    let ask = Ask::new(Method::DELETE, key)
        .query_if(words.get_flag("recursive"), "recursive")
        .query_if(words.get_flag("dir"), "dir");
    compared(ask, words, "with-value", "with-index")
}

fn compared(ask: Ask, words: &ArgMatches, value: &str, at: &str) -> Ask {
    let ask = match text(words, value).filter(|value| !value.is_empty()) {
        Some(value) => ask.query("prevValue", value),
        None => ask,
    };
    match index(words, at) {
        0 => ask,
        index => ask.query("prevIndex", index.to_string()),
    }
}

fn watched(words: &ArgMatches) -> Watched {
    let after = index(words, "after-index");
    Watched {
        key: text(words, "key").unwrap_or_default(),
        recursive: words.get_flag("recursive"),
        from: if after == 0 { 0 } else { after + 1 },
    }
}

fn member(words: &ArgMatches) -> Result<Job, Refusal> {
    match words.subcommand_name() {
        Some("list") => Ok(Job::MemberList),
        Some(verb @ ("add" | "remove" | "update")) => {
            Err(Refusal::Later { verb: format!("member {verb}") })
        }
        other => {
            let verb = format!("member {}", other.unwrap_or_default());
            Err(Refusal::Unknown { verb })
        }
    }
}

fn absent(verb: &str) -> Refusal {
    let name = verb.to_owned();
    if LATER.contains(&verb) {
        Refusal::Later { verb: name }
    } else if OF_V3.contains(&verb) {
        Refusal::OnlyV3 { verb: name }
    } else {
        Refusal::Unknown { verb: name }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(line: &str) -> Result<Job, Refusal> {
        let words = line.split(' ').map(|word| if word == "''" { "" } else { word });
        let matches = command().try_get_matches_from(words).unwrap();
        job(&matches, || Ok(String::new()))
    }

    /// Checks which request a line makes.
    fn check(line: &str, request: &str) {
        let Ok(Job::Keys(ask, _)) = typed(line) else { panic!("`{line}` makes no request") };
        assert_eq!(ask.curl(&"http://a".parse().unwrap()), format!("curl -X {request}"));
    }

    #[test]
    fn reads_become_requests() {
        check("etcdctl get /a", "GET http://a/v2/keys/a");
        check("etcdctl get a --quorum", "GET http://a/v2/keys/a?quorum=true");
        check("etcdctl ls", "GET http://a/v2/keys/");
        check("etcdctl ls / --recursive -p", "GET http://a/v2/keys/?recursive=true");
        check("etcdctl --no-sync -o json ls --sort /a", "GET http://a/v2/keys/a?sorted=true");
    }

    #[test]
    fn writes_become_requests() {
        check("etcdctl set /a 1", r#"PUT http://a/v2/keys/a -d "value=1""#);
        check("etcdctl set /a ''", r#"PUT http://a/v2/keys/a -d "value=""#);
        check("etcdctl set --ttl 5 /a 1", r#"PUT http://a/v2/keys/a -d "value=1&ttl=5""#);
        check("etcdctl set --ttl 0 -- /a -1", r#"PUT http://a/v2/keys/a -d "value=-1""#);
        check(
            "etcdctl set /a 2 --swap-with-value 1 --swap-with-index 7",
            r#"PUT http://a/v2/keys/a?prevValue=1&prevIndex=7 -d "value=2""#,
        );
        check("etcdctl mk /a 1", r#"PUT http://a/v2/keys/a?prevExist=false -d "value=1""#);
        check("etcdctl mk --in-order /a 1", r#"POST http://a/v2/keys/a -d "value=1""#);
        check("etcdctl update /a 1", r#"PUT http://a/v2/keys/a?prevExist=true -d "value=1""#);
    }

    #[test]
    fn directories_become_requests() {
        check("etcdctl mkdir /a", "PUT http://a/v2/keys/a?dir=true&prevExist=false");
        check("etcdctl setdir /a --ttl 9", r#"PUT http://a/v2/keys/a?dir=true -d "ttl=9""#);
        check("etcdctl updatedir /a", "PUT http://a/v2/keys/a?dir=true&prevExist=true");
        check("etcdctl rmdir /a", "DELETE http://a/v2/keys/a?dir=true");
        check("etcdctl rm /a --recursive", "DELETE http://a/v2/keys/a?recursive=true");
        check("etcdctl rm /a --with-value 1", "DELETE http://a/v2/keys/a?prevValue=1");
    }

    #[test]
    fn a_program_to_run_keeps_its_own_flags() {
        let what = Watched { key: "/a".into(), recursive: true, from: 8 };
        let program = ["sh", "-c", "env"].map(String::from).to_vec();
        let job = Job::ExecWatch { what, program };
        assert_eq!(
            typed("etcdctl exec-watch --recursive --after-index 7 /a -- sh -c env"),
            Ok(job)
        );
    }

    #[test]
    fn a_missing_value_is_read() {
        let matches = command().try_get_matches_from(["etcdctl", "set", "/a"]).unwrap();
        let Ok(Job::Keys(ask, _)) = job(&matches, || Ok("read\n".into())) else {
            panic!("a request")
        };
        assert_eq!(ask.form, [("value", "read\n".to_owned())]);
        assert_eq!(job(&matches, || Ok(String::new())), Err(Refusal::NoValue));
    }

    #[test]
    fn what_is_not_there_is_refused_by_name() {
        let refused = |line| {
            let matches = command().try_get_matches_from(str::split(line, ' ')).unwrap();
            job(&matches, || Ok(String::new())).unwrap_err().to_string()
        };
        let later = "comes later; `etcdctl --help` names what is there";
        assert_eq!(refused("etcdctl member add a b"), format!("`member add` {later}"));
        assert_eq!(refused("etcdctl backup --data-dir x"), format!("`backup` {later}"));
        assert_eq!(refused("etcdctl --ca-file x ls"), format!("`--ca-file` {later}"));
        assert_eq!(
            refused("etcdctl put a b"),
            "`put` is a verb of the v3 API; type `ETCDCTL_API=3 etcdctl put …`",
        );
        assert!(refused("etcdctl frobnicate").starts_with("no verb `frobnicate`"));
    }
}
