//! `watch`: what happens to keys, as it happens.
//!
//! A stream that breaks is taken up again at the next endpoint, after the last revision that was
//! seen: nothing is missed and nothing is told twice.

use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};
use tonic::Status;

use crate::cli::environment;
use crate::cli::etcdctl::args::{flag, verb};
use crate::cli::etcdctl::program;
use crate::cli::etcdctl::v3::keys::{KEY, number, prefix_range, word};
use crate::cli::etcdctl::v3::{Failed, Lines, Session, Step, go_text};
use crate::foundation::backoff::Backoff;
use crate::rpc::client::v3::{self, ClientError, is_broken};
use crate::wire::etcd::v3::etcdserverpb as pb;
use crate::wire::etcd::v3::etcdserverpb::watch_request::RequestUnion;
use crate::wire::etcd::v3::mvccpb::Event;

/// How long to wait before a stream is taken up again, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Describes the verb.
pub(super) fn verb_watch() -> Command {
    verb("watch", "Print what happens to a key, or a range of keys").args([
        word(KEY, "KEY", "The key [env: ETCDCTL_WATCH_KEY]"),
        word("range-end", "RANGE_END", "Where a range ends that begins with the key [env: ETCDCTL_WATCH_RANGE_END]"),
        Arg::new("interactive")
            .short('i')
            .long("interactive")
            .help("Read `watch …` and `progress` from standard input, line by line")
            .action(ArgAction::SetTrue),
        flag("prefix", "Every key that begins with this one"),
        number("rev", "From this revision on; from now on if 0"),
        flag("prev-kv", "Print what was there before"),
        flag("progress-notify", "Have the server tell its revision now and then"),
        Arg::new("program")
            .value_name("PROGRAM")
            .help("A program to run at every event, after `--`; it finds ETCD_WATCH_REVISION, _EVENT_TYPE, _KEY and _VALUE in its environment")
            .num_args(1..)
            .last(true),
    ])
}

/// One watch: what is asked for next, and what is run at every event.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Watch {
    create: pb::WatchCreateRequest,
    program: Vec<String>,
}

impl Watch {
    /// Reads the words of one, where the environment may have the key.
    fn parse(words: &ArgMatches, variable: impl Fn(&str) -> Option<String>) -> Step<Self> {
        let text = |name: &str, other: &str| {
            words.get_one::<String>(name).cloned().or_else(|| variable(other))
        };
        let key = text(KEY, "ETCDCTL_WATCH_KEY").ok_or_else(|| {
            Failed::arguments(
                "watch in non-interactive mode requires an argument or environment key",
            )
        })?;
        let end = text("range-end", "ETCDCTL_WATCH_RANGE_END").map(String::into_bytes);
        let (key, range_end) = match (end, words.get_flag("prefix")) {
            (Some(_), true) => {
                return Err(Failed::arguments("`range_end` and `--prefix` are mutually exclusive"));
            }
            (None, true) => prefix_range(key.into_bytes()),
            (end, false) => (key.into_bytes(), end.unwrap_or_default()),
        };
        let program = words.get_many::<String>("program").unwrap_or_default();
        Ok(Self {
            create: pb::WatchCreateRequest {
                key,
                range_end,
                start_revision: words.get_one::<i64>("rev").copied().unwrap_or_default(),
                progress_notify: words.get_flag("progress-notify"),
                prev_kv: words.get_flag("prev-kv"),
                ..Default::default()
            },
            program: program.cloned().collect(),
        })
    }

    /// Takes note of what was seen, so that a next stream goes on after it.
    fn saw(&mut self, answer: &pb::WatchResponse) {
        let told = answer.events.iter().filter_map(|event| Some(event.kv.as_ref()?.mod_revision));
        let told = told.max().or_else(|| answer.header.map(|header| header.revision));
        // A watch that begins at a revision is created before it has anything to tell.
        if !answer.created || self.create.start_revision == 0 {
            let next = told.map_or(0, |revision| revision + 1);
            self.create.start_revision = self.create.start_revision.max(next);
        }
    }
}

/// What a line of standard input asks for.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Watch(Watch),
    Progress,
    Nothing,
}

/// The stream of every watch of this run; the id of one is its place plus one.
type Stream = v3::Stream<pb::WatchRequest, pb::WatchResponse>;

impl Session {
    pub(super) async fn watch(&mut self, words: &ArgMatches) -> Step<()> {
        if words.get_flag("interactive") {
            let mut lines = Some(self.lines());
            return self.follow(Vec::new(), &mut lines).await;
        }
        let watch = Watch::parse(words, environment::variable)?;
        self.follow(vec![watch], &mut None).await
    }

    /// Prints what happens until a watch ends, or the input does where lines come from there.
    async fn follow(&mut self, mut watches: Vec<Watch>, lines: &mut Option<Lines>) -> Step<()> {
        let mut retry = Backoff::new(RETRY.0, RETRY.1);
        let mut stream = None;
        loop {
            if stream.is_none() && !watches.is_empty() {
                stream = Some(self.client.watch(creates(&watches)).await?);
            }
            let answer = tokio::select! {
                biased;
                line = next_line(lines) => {
                    let Some(line) = line? else {
                        return Err(Failed::input("Error reading watch request line: EOF"));
                    };
                    self.typed(&line, &mut watches, stream.as_ref()).await;
                    continue;
                }
                answer = next_answer(&mut stream) => answer,
            };
            match answer {
                Ok(Some(answer)) => {
                    retry.reset();
                    self.told(&answer, &mut watches, lines.is_some()).await?;
                }
                Err(status) if !is_broken(&status) => {
                    return Err(ClientError::Refused { status }.into());
                }
                Ok(None) | Err(_) => stream = Some(self.again(&watches, &mut retry).await),
            }
        }
    }

    /// Takes every watch up again, as soon as somebody can be reached.
    async fn again(&self, watches: &[Watch], retry: &mut Backoff) -> Stream {
        loop {
            self.client.forget();
            tokio::time::sleep(retry.next_wait()).await;
            if let Ok(stream) = self.client.watch(creates(watches)).await {
                return stream;
            }
        }
    }

    /// Does what a line of standard input asks for; a line that makes no sense is refused.
    async fn typed(&mut self, line: &str, watches: &mut Vec<Watch>, stream: Option<&Stream>) {
        let request = match parse(line) {
            Ok(Line::Nothing) => return,
            Ok(Line::Progress) => {
                request(RequestUnion::ProgressRequest(pb::WatchProgressRequest {}))
            }
            Ok(Line::Watch(watch)) => {
                watches.push(watch);
                create(watches.len() - 1, watches)
            }
            Err(failed) => return self.output.complain(failed.text),
        };
        if let Some((requests, _)) = stream {
            // Where the stream has ended, every watch is taken up again.
            drop(requests.send(request).await);
        }
    }

    async fn told(
        &mut self,
        answer: &pb::WatchResponse,
        watches: &mut [Watch],
        goes_on: bool,
    ) -> Step<()> {
        if answer.canceled {
            let why = cancelled(answer);
            self.output.complain(format_args!("watch was canceled ({why})"));
            let end = Failed::interrupted("watch is canceled by the server");
            return if goes_on { Ok(()) } else { Err(end) };
        }
        let place = usize::try_from(answer.watch_id - 1).ok();
        let watch = place.and_then(|place| watches.get_mut(place));
        if answer.events.is_empty() && !answer.created {
            let revision = answer.header.map_or(0, |header| header.revision);
            self.output.line(format_args!("progress notify: {revision}"));
        }
        let Some(watch) = watch else { return Ok(()) };
        watch.saw(answer);
        if answer.created {
            return Ok(());
        }
        let program = watch.program.clone();
        self.show(answer)?;
        for event in &answer.events {
            run(&program, answer, event).await?;
        }
        Ok(())
    }
}

async fn next_line(lines: &mut Option<Lines>) -> Step<Option<String>> {
    let Some(lines) = lines else { return std::future::pending().await };
    let line = lines.next_line().await;
    line.map_err(|why| Failed::io(format_args!("cannot read which keys to watch: {why}")))
}

async fn next_answer(stream: &mut Option<Stream>) -> Result<Option<pb::WatchResponse>, Status> {
    match stream {
        Some((_, answers)) => answers.message().await,
        None => std::future::pending().await,
    }
}

/// Reads a line such as `watch --prefix key -- program` or `progress`.
fn parse(line: &str) -> Step<Line> {
    let invalid =
        || Failed::input(format_args!("Invalid command: {line}; type `watch …` or `progress`"));
    let words = go_text::words(line).ok_or_else(invalid)?;
    match words.first().map(String::as_str) {
        None => Ok(Line::Nothing),
        Some("progress") => Ok(Line::Progress),
        Some("watch") => {
            let matches = verb_watch().try_get_matches_from(words).map_err(|_| invalid())?;
            Ok(Line::Watch(Watch::parse(&matches, |_| None)?))
        }
        Some(_) => Err(invalid()),
    }
}

fn request(union: RequestUnion) -> pb::WatchRequest {
    pb::WatchRequest { request_union: Some(union) }
}

fn creates(watches: &[Watch]) -> Vec<pb::WatchRequest> {
    (0..watches.len()).map(|place| create(place, watches)).collect()
}

fn create(place: usize, watches: &[Watch]) -> pb::WatchRequest {
    let watch_id = i64::try_from(place).map_or(i64::MAX, |place| place + 1);
    request(RequestUnion::CreateRequest(pb::WatchCreateRequest {
        watch_id,
        ..watches[place].create.clone()
    }))
}

/// Says why the server ended a watch.
fn cancelled(answer: &pb::WatchResponse) -> String {
    if answer.compact_revision > 0 {
        return "etcdserver: mvcc: required revision has been compacted".to_owned();
    }
    match answer.cancel_reason.as_str() {
        "" => "the server gave no reason".to_owned(),
        reason => reason.to_owned(),
    }
}

/// Runs the program, if there is one, and waits until it has ended well.
async fn run(words: &[String], answer: &pb::WatchResponse, event: &Event) -> Step<()> {
    let Some((name, arguments)) = words.split_first() else { return Ok(()) };
    let ended =
        program::command(name).args(arguments).envs(variables(answer, event)).status().await;
    let failed = |why: &dyn std::fmt::Display| {
        Failed::error(format_args!("command `{}` failed: {why}", words.join(" ")))
    };
    match ended {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(failed(&status)),
        Err(why) => Err(failed(&why)),
    }
}

fn variables(answer: &pb::WatchResponse, event: &Event) -> [(&'static str, String); 4] {
    let kv = event.kv.clone().unwrap_or_default();
    let revision = answer.header.map_or(0, |header| header.revision);
    [
        ("ETCD_WATCH_REVISION", revision.to_string()),
        ("ETCD_WATCH_EVENT_TYPE", go_text::quoted(event.r#type().as_str_name().as_bytes())),
        ("ETCD_WATCH_KEY", go_text::quoted(&kv.key)),
        ("ETCD_WATCH_VALUE", go_text::quoted(&kv.value)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::etcd::v3::mvccpb::KeyValue;

    fn watch(line: &str) -> Watch {
        let Ok(Line::Watch(watch)) = parse(line) else { panic!("`{line}` is a watch") };
        watch
    }

    fn answer(revision: i64, created: bool, told: &[i64]) -> pb::WatchResponse {
        let event = |revision: &i64| Event {
            kv: Some(KeyValue { mod_revision: *revision, ..Default::default() }),
            ..Default::default()
        };
        pb::WatchResponse {
            header: Some(pb::ResponseHeader { revision, ..Default::default() }),
            created,
            events: told.iter().map(event).collect(),
            ..Default::default()
        }
    }

    #[test]
    fn a_line_asks_for_a_watch_or_for_progress() {
        let found = watch(r#"watch --prefix "a b" --rev 7 --prev-kv -- echo -n x"#);
        assert_eq!(
            (found.create.key.as_slice(), found.create.range_end.as_slice()),
            (&b"a b"[..], &b"a c"[..])
        );
        assert_eq!((found.create.start_revision, found.create.prev_kv), (7, true));
        assert_eq!(found.program, ["echo", "-n", "x"]);
        assert_eq!(parse(" progress "), Ok(Line::Progress));
        assert_eq!(parse(""), Ok(Line::Nothing));
        assert!(parse("put a b").unwrap_err().text.starts_with("Invalid command: put a b"));
    }

    #[test]
    fn the_environment_may_have_the_key() {
        let matches = verb_watch().try_get_matches_from(["watch", "--", "true"]).unwrap();
        let variable = |name: &str| (name == "ETCDCTL_WATCH_KEY").then(|| "k".to_owned());
        assert_eq!(Watch::parse(&matches, variable).unwrap().create.key, b"k");
        assert_eq!(Watch::parse(&matches, |_| None).unwrap_err().exit.code(), 128);
    }

    #[test]
    fn a_stream_that_breaks_goes_on_after_what_was_seen() {
        let check = |line: &str, seen: &[pb::WatchResponse], next: i64| {
            let mut watch = watch(line);
            for answer in seen {
                watch.saw(answer);
            }
            assert_eq!(watch.create.start_revision, next, "{line}");
        };
        check("watch a", &[answer(5, true, &[])], 6);
        check("watch a", &[answer(5, true, &[]), answer(9, false, &[7, 8])], 9);
        check("watch a --rev 3", &[answer(5, true, &[])], 3);
        check("watch a --rev 3", &[answer(5, true, &[]), answer(5, false, &[])], 6);
        check("watch a --rev 9", &[answer(5, true, &[]), answer(6, false, &[])], 9);
    }

    #[tokio::test]
    async fn a_program_finds_the_event_in_its_environment() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("seen");
        let script = format!(
            "echo $ETCD_WATCH_REVISION $ETCD_WATCH_EVENT_TYPE $ETCD_WATCH_KEY $ETCD_WATCH_VALUE > {}",
            file.display(),
        );
        let program = ["sh", "-c", &script].map(String::from);
        let kv = KeyValue { key: "k".into(), value: "a \"b\"".into(), ..Default::default() };
        let event = Event { kv: Some(kv), ..Default::default() };
        run(&program, &answer(7, false, &[]), &event).await.unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "7 \"PUT\" \"k\" \"a \\\"b\\\"\"\n");
        let failed = run(&["false".to_owned()], &answer(7, false, &[]), &event).await;
        assert!(failed.unwrap_err().text.starts_with("command `false` failed: "));
    }
}
