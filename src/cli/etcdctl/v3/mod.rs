//! The v3 API's verbs: keys with their history, leases and members by hand.
//!
//! ```text
//!   words ─▶ a verb of keys, txn, watch, lease, cluster, perf ─▶ rpc::client::v3 ─▶ show ─▶ output
//! ```
//! Exit codes are the original's: 0 well, 1 an error, 2 the connection, 3 the input, 4 what we
//! cannot do, 5 interrupted, 6 reading or writing, 128 the arguments. A refusal is one line on
//! standard error, `Error: …`.
//!
//! **Not here yet:** TLS, users and roles, changing the members, snapshots, elections and locks,
//! mirrors. Who asks for them is told so.

use std::sync::Arc;
use std::time::Duration;

use clap::ArgMatches;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, BufReader};

use crate::cli::etcdctl::v3::settings::{Endpoint, Settings};
use crate::cli::etcdctl::v3::show::Answer;
use crate::cli::output::Output;
use crate::cli::runtime;
use crate::foundation::exit::Exit;
use crate::foundation::tasks::Tasks;
use crate::platform::net::TokioNet;
use crate::rpc::client::v3::{Client, ClientError};

mod cluster;
mod go_text;
mod keys;
mod lease;
mod perf;
#[cfg(test)]
mod replay;
mod settings;
mod show;
mod txn;
mod watch;
pub(super) mod words;

/// How long connections may take to close: nobody waits for what they carry.
const GOODBYE: Duration = Duration::from_millis(100);

/// Why a verb was not done: a line for standard error, and how the process ends.
#[derive(Debug, PartialEq, Eq)]
struct Failed {
    exit: Exit,
    text: String,
}

impl Failed {
    #[expect(clippy::needless_pass_by_value, reason = "a text is made where it is given away")]
    fn new(code: u8, text: impl ToString) -> Self {
        Self { exit: Exit::Code(code), text: text.to_string() }
    }

    /// The store, or what lies on the way to it.
    fn error(text: impl ToString) -> Self {
        Self::new(1, text)
    }

    /// What was read is not what is expected.
    fn input(text: impl ToString) -> Self {
        Self::new(3, text)
    }

    /// We cannot do it.
    fn feature(text: impl ToString) -> Self {
        Self::new(4, text)
    }

    /// Somebody ended it from outside.
    fn interrupted(text: impl ToString) -> Self {
        Self::new(5, text)
    }

    /// Standard input or a program's.
    fn io(text: impl ToString) -> Self {
        Self::new(6, text)
    }

    /// The arguments make no sense.
    fn arguments(text: impl ToString) -> Self {
        Self::new(128, text)
    }
}

impl From<ClientError> for Failed {
    fn from(error: ClientError) -> Self {
        match &error {
            ClientError::Unreachable { .. } => Self::new(2, &error),
            ClientError::Late | ClientError::Refused { .. } => Self::error(&error),
        }
    }
}

/// How a verb ends.
type Step<T> = Result<T, Failed>;

/// Where values, transactions and watches are typed.
type Input = Box<dyn AsyncBufRead + Unpin>;
/// The same, line by line.
type Lines = tokio::io::Lines<Input>;

/// One run.
struct Session {
    client: Client,
    settings: Settings,
    input: Input,
    output: Output,
}

impl Session {
    /// Does what was typed and returns how the process ends.
    async fn carry_out(&mut self, matches: &ArgMatches) -> Exit {
        if self.settings.debug {
            let names: Vec<&str> = self.settings.endpoints.iter().map(Endpoint::name).collect();
            self.output.complain(format_args!("endpoints: {}", names.join(", ")));
        }
        match Box::pin(self.verb(matches)).await {
            Ok(()) => Exit::Ok,
            Err(failed) => self.fail(&failed),
        }
    }

    async fn verb(&mut self, matches: &ArgMatches) -> Step<()> {
        let Some((verb, words)) = matches.subcommand() else { return Err(words::unknown("")) };
        match verb {
            "get" => self.get(words).await,
            "put" => self.put(words).await,
            "del" => self.del(words).await,
            "compaction" => self.compact(words).await,
            "txn" => self.txn(words).await,
            "watch" => self.watch(words).await,
            "lease" => self.lease(words).await,
            "member" => self.member(words).await,
            "endpoint" => self.endpoint(words).await,
            "alarm" => self.alarm(words).await,
            "defrag" => self.defrag(words).await,
            "move-leader" => self.move_leader(words).await,
            "check" => self.check(words).await,
            "version" => {
                self.output.line(format_args!("etcdctl {}", words::VERSION));
                Ok(())
            }
            verb => Err(words::absent(verb)),
        }
    }

    /// Gives the input away, to be read line by line.
    fn lines(&mut self) -> Lines {
        std::mem::replace(&mut self.input, Box::new(tokio::io::empty())).lines()
    }

    fn show(&mut self, answer: &impl Answer) -> Step<()> {
        let shown = self.settings.show.render(answer)?;
        self.output.bytes(&shown);
        Ok(())
    }

    fn fail(&mut self, failed: &Failed) -> Exit {
        self.output.complain(format_args!("Error: {}", failed.text));
        failed.exit
    }
}

/// Does what was typed.
pub(super) fn run(matches: &ArgMatches) -> Exit {
    let mut output = Output::of_process();
    let settings = match Settings::read(matches) {
        Ok(settings) => settings,
        Err(failed) => {
            output.complain(format_args!("Error: {}", failed.text));
            return failed.exit;
        }
    };
    runtime::on_this_thread(async {
        let tasks = Tasks::default();
        let net = Arc::new(TokioNet::default());
        let client = Client::new(net, tasks.clone(), settings.client.clone());
        let input = Box::new(BufReader::new(tokio::io::stdin()));
        let mut session = Session { client, settings, input, output };
        let exit = tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c() => Exit::Code(5),
            exit = session.carry_out(matches) => exit,
        };
        drop(session);
        // What still runs ends with the process.
        drop(tasks.drain(GOODBYE).await);
        exit
    })
}
