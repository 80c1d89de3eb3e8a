//! Alarms: what the members have agreed is wrong, and what is refused until somebody says that it is
//! mended.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::store::keys_v3::{Change, Refused, cost};

/// What is wrong. New kinds go to the end: the log has their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Alarm {
    /// A member's store has outgrown its quota.
    NoSpace,
    /// A member's store is not what the others have.
    Corrupt,
}

/// An alarm that a member has raised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Raised {
    /// What is wrong.
    pub alarm: Alarm,
    /// Where.
    pub member: u64,
}

/// All alarms.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarms(BTreeSet<Raised>);

impl Alarms {
    /// Adds an alarm; it may be there.
    pub fn raise(&mut self, raised: Raised) {
        self.0.insert(raised);
    }

    /// Takes an alarm back; tells whether it was there.
    pub fn clear(&mut self, raised: Raised) -> bool {
        self.0.remove(&raised)
    }

    /// Walks the alarms, by kind.
    pub fn iter(&self) -> impl Iterator<Item = Raised> {
        self.0.iter().copied()
    }

    /// Tells whether any member has raised an alarm.
    pub fn any(&self, alarm: Alarm) -> bool {
        self.0.iter().any(|raised| raised.alarm == alarm)
    }

    /// Tells whether a member has raised an alarm.
    pub fn has(&self, raised: Raised) -> bool {
        self.0.contains(&raised)
    }

    /// Refuses what may not be done while there is an alarm: nothing that takes room without any,
    /// and nothing at all where the members differ. Alarms themselves are always raised and cleared.
    pub fn check(&self, change: &Change) -> Result<(), Refused> {
        if matches!(change, Change::RaiseAlarm(_) | Change::ClearAlarm(_)) {
            return Ok(());
        }
        if self.any(Alarm::Corrupt) {
            return Err(Refused::Corrupt);
        }
        if self.any(Alarm::NoSpace) && cost::of(change) > 0 {
            return Err(Refused::NoSpace);
        }
        Ok(())
    }
}
