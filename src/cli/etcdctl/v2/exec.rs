//! The programs of `exec-watch`, one for each change, side by side.

use std::io;
use std::process::ExitStatus;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use crate::cli::etcdctl::program;
use crate::cli::etcdctl::v2::render::action_name;
use crate::wire::etcd::keys_v2::{Action, Node};

/// Programs that run at a time: a burst of changes must not fill the machine.
const CHILDREN_MAX: usize = 64;

/// Why a program could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start `{program}`: {why}")]
pub(super) struct StartError {
    program: String,
    why: io::Error,
}

type Ending = std::pin::Pin<Box<dyn Future<Output = io::Result<ExitStatus>>>>;

/// The programs that run.
#[derive(Default)]
pub(super) struct Children {
    running: FuturesUnordered<Ending>,
}

impl Children {
    /// Waits until one of them has ended; for ever if none runs. Cancel safe.
    pub(super) async fn one_ended(&mut self) {
        // How it ended is its own matter: it shares our standard error.
        if self.running.next().await.is_none() {
            std::future::pending::<()>().await;
        }
    }

    /// Starts the program for one change, as soon as not too many run.
    pub(super) async fn start(
        &mut self,
        words: &[String],
        action: Action,
        node: &Node,
    ) -> Result<(), StartError> {
        while self.running.len() >= CHILDREN_MAX {
            self.one_ended().await;
        }
        let Some((name, arguments)) = words.split_first() else { return Ok(()) };
        let mut command = program::command(name);
        command.args(arguments).envs(variables(action, node));
        let started = command.spawn();
        let mut child = started.map_err(|why| StartError { program: name.clone(), why })?;
        self.running.push(Box::pin(async move { child.wait().await }));
        Ok(())
    }
}

fn variables(action: Action, node: &Node) -> [(&'static str, String); 4] {
    [
        ("ETCD_WATCH_ACTION", action_name(action).to_owned()),
        ("ETCD_WATCH_MODIFIED_INDEX", node.modified_index.to_string()),
        ("ETCD_WATCH_KEY", node.key.clone()),
        ("ETCD_WATCH_VALUE", node.value.clone().unwrap_or_default()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_finds_the_change_in_its_environment() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("seen");
        let script = format!(
            "echo $ETCD_WATCH_ACTION $ETCD_WATCH_KEY $ETCD_WATCH_VALUE $ETCD_WATCH_MODIFIED_INDEX > {}",
            file.display(),
        );
        let program = ["sh", "-c", &script].map(String::from);
        let node = Node {
            key: "/a".into(),
            value: Some("1".into()),
            modified_index: 7,
            ..Node::default()
        };
        let mut children = Children::default();
        children.start(&program, Action::Set, &node).await.unwrap();
        children.one_ended().await;
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "set /a 1 7\n");
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_named() {
        let program = ["/no/such/program".to_owned()];
        let started = Children::default().start(&program, Action::Set, &Node::default()).await;
        let why = started.unwrap_err().to_string();
        assert!(why.starts_with("cannot start `/no/such/program`: "), "{why}");
    }
}
