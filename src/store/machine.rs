//! The whole replicated state of a member: what applying the log's batches makes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::foundation::clock::Timestamp;
use crate::store::command::{Batch, Command};
use crate::store::event::Outcome;
use crate::store::keys_v3::KeysV3;
use crate::store::tree_v2::TreeV2;

/// Where a member serves its clients, as it said itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// The member's name.
    pub name: String,
    /// Its client URLs.
    pub client_urls: Vec<String>,
}

/// The replicated state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The v2 keys.
    pub keys: TreeV2,
    /// The members that have said where they serve.
    pub published: BTreeMap<u64, Published>,
    /// The time of the last batch.
    pub time: Timestamp,
    /// The v3 keys. A checkpoint has them after the rest, in their own format.
    #[serde(skip)]
    pub keys_v3: KeysV3,
}

impl Machine {
    /// Applies one batch; the outcomes are in the order of its commands.
    pub fn apply(&mut self, batch: &Batch) -> Vec<Outcome> {
        // A leader's clock may be behind that of the leader before it.
        self.time = self.time.max(batch.time);
        let now = self.time;
        batch.commands.iter().map(|command| self.apply_one(command, now)).collect()
    }

    fn apply_one(&mut self, command: &Command, now: Timestamp) -> Outcome {
        match command {
            Command::Publish { member, name, client_urls } => {
                let published = Published { name: name.clone(), client_urls: client_urls.clone() };
                self.published.insert(*member, published);
                Outcome::Done
            }
            Command::V3(change) => Outcome::V3(self.keys_v3.apply(change)),
            Command::Put(_) | Command::Append { .. } | Command::Delete(_) | Command::Expire => {
                self.keys.apply(command, now)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::command::{Expect, Put};

    #[test]
    fn time_never_goes_backwards() {
        let put = Put {
            path: "/k".into(),
            value: String::new(),
            dir: false,
            ttl: Some(10),
            expect: Expect::Anything,
            refresh: false,
        };
        let batch =
            |secs, command| Batch { time: Timestamp::from_secs(secs), commands: [command].into() };
        let mut machine = Machine::default();
        machine.apply(&batch(100, Command::Expire));
        machine.apply(&batch(50, Command::Put(put)));
        assert_eq!(machine.keys.next_expiry(), Some(Timestamp::from_secs(110)));
    }
}
