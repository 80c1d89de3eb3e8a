//! How often each kind of request to the v2 keys succeeded and failed, since this process started.
//!
//! Not part of the state: each member counts what it served and what it applied.

use crate::foundation::metrics::{Counter, Gauge};
use crate::store::command::{Command, Expect};
use crate::store::event::Outcome;

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// A read.
    Get,
    /// A write of whatever is there.
    Set,
    /// A removal.
    Delete,
    /// A change of what is there.
    Update,
    /// A write of what is not there.
    Create,
    /// A change of what is as expected.
    CompareAndSwap,
    /// A removal of what is as expected.
    CompareAndDelete,
}

/// How often one kind of request succeeded and failed.
#[derive(Debug, Default)]
pub struct Counts {
    /// It was done.
    pub success: Counter,
    /// It was refused.
    pub fail: Counter,
}

/// All counts.
#[derive(Debug, Default)]
pub struct Tally {
    counts: [Counts; 7],
    /// Keys that expired.
    pub expired: Counter,
    /// Requests to be told of changes.
    pub watches: Counter,
    /// Who waits for changes now.
    pub watchers: Gauge,
}

impl Tally {
    /// Returns the counts of one kind.
    pub fn of(&self, deed: Deed) -> &Counts {
        &self.counts[deed as usize]
    }

    /// Counts one request.
    pub fn count(&self, deed: Deed, done: bool) {
        let counts = self.of(deed);
        if done { counts.success.add(1) } else { counts.fail.add(1) }
    }

    /// Counts what a batch did that moved the index of the keys on by `moved`: what no command of
    /// the batch accounts for has expired.
    pub fn applied(&self, commands: &[Command], outcomes: &[Outcome], moved: u64) {
        let mut accounted = 0;
        for (command, outcome) in commands.iter().zip(outcomes) {
            let Some(deed) = deed(command) else { continue };
            let done = matches!(outcome, Outcome::Event(_));
            accounted += u64::from(done);
            self.count(deed, done);
        }
        self.expired.add(moved.saturating_sub(accounted));
    }
}

fn deed(command: &Command) -> Option<Deed> {
    Some(match command {
        Command::Put(put) => match put.expect {
            Expect::Anything => Deed::Set,
            Expect::Present => Deed::Update,
            Expect::Absent => Deed::Create,
            Expect::Equal(_) => Deed::CompareAndSwap,
        },
        Command::Append { .. } => Deed::Create,
        Command::Delete(delete) if delete.compare.is_empty() => Deed::Delete,
        Command::Delete(_) => Deed::CompareAndDelete,
        Command::Expire | Command::Publish { .. } | Command::V3(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::foundation::clock::Timestamp;
    use crate::store::command::{Batch, Compare, Delete, Put};
    use crate::store::machine::Machine;

    fn put(path: &str, ttl: Option<u64>, expect: Expect) -> Command {
        let (path, value) = (path.to_owned(), "1".to_owned());
        Command::Put(Put { path, value, dir: false, ttl, expect, refresh: false })
    }

    #[test]
    fn every_command_is_counted_as_what_it_asked_for_and_the_rest_has_expired() {
        let (tally, mut machine) = (Tally::default(), Machine::default());
        let compare = Compare { value: "2".to_owned(), index: 0 };
        let delete = |compare| {
            Command::Delete(Delete { path: "/a".into(), dir: false, recursive: false, compare })
        };
        let mut apply = |secs, commands: Vec<Command>| {
            let before = machine.keys.index();
            let outcomes = machine.apply(&Batch {
                time: Timestamp::from_secs(secs),
                commands: commands.clone().into(),
            });
            tally.applied(&commands, &outcomes, machine.keys.index() - before);
        };
        apply(100, vec![put("/t", Some(1), Expect::Anything), put("/u", Some(1), Expect::Absent)]);
        apply(200, vec![put("/a", None, Expect::Anything), Command::Expire]);
        apply(
            300,
            vec![
                put("/none", None, Expect::Present),
                put("/a", None, Expect::Equal(compare.clone())),
                delete(compare),
                delete(Compare::default()),
            ],
        );
        let counted = |deed| (tally.of(deed).success.get(), tally.of(deed).fail.get());
        assert_eq!(counted(Deed::Set), (2, 0));
        assert_eq!(counted(Deed::Create), (1, 0));
        assert_eq!(counted(Deed::Update), (0, 1));
        assert_eq!(counted(Deed::CompareAndSwap), (0, 1));
        assert_eq!(counted(Deed::CompareAndDelete), (0, 1));
        assert_eq!(counted(Deed::Delete), (1, 0));
        assert_eq!(tally.expired.get(), 2);
    }
}
