//! What is refused for lack of room or of agreement, and how alarms are shown.

use tonic::{Code, Status};

use crate::rpc::server::v3::{Service, errors};
use crate::store::keys_v3::{Alarm, Answer, Change, Raised, Refused, cost};
use crate::wire::etcd::v3::etcdserverpb as pb;

/// Returns the number of an alarm on the wire.
pub(super) fn wire(alarm: Alarm) -> i32 {
    match alarm {
        Alarm::NoSpace => pb::AlarmType::Nospace.into(),
        Alarm::Corrupt => pb::AlarmType::Corrupt.into(),
    }
}

/// Reads an alarm's number; 0 is none.
pub(super) fn read(number: i32) -> Result<Option<Alarm>, Status> {
    match pb::AlarmType::try_from(number) {
        Ok(pb::AlarmType::None) => Ok(None),
        Ok(pb::AlarmType::Nospace) => Ok(Some(Alarm::NoSpace)),
        Ok(pb::AlarmType::Corrupt) => Ok(Some(Alarm::Corrupt)),
        Err(_) => Err(errors::said(Code::InvalidArgument, "there is no such alarm")),
    }
}

/// Shows an alarm.
pub(super) fn member(raised: Raised) -> pb::AlarmMember {
    pb::AlarmMember { member_id: raised.member, alarm: wire(raised.alarm) }
}

/// Shows an alarm as the errors of a status have it, with etcd's space behind it.
pub(super) fn shown(raised: Raised) -> String {
    format!("memberID:{} alarm:{} ", raised.member, name(raised.alarm))
}

/// Returns the name that people see.
pub fn name(alarm: Alarm) -> &'static str {
    match alarm {
        Alarm::NoSpace => "NOSPACE",
        Alarm::Corrupt => "CORRUPT",
    }
}

impl Service {
    /// Returns the alarms as of what this member has applied.
    pub(super) fn alarms(&self) -> Vec<Raised> {
        self.member.read(|machine| machine.keys_v3.alarms().iter().collect())
    }

    /// Raises an alarm or takes it back; returns those that it was about.
    pub(super) async fn alarmed(&self, change: Change) -> Result<Vec<Raised>, Status> {
        match self.change(change).await? {
            Answer::Alarms(alarms) => Ok(alarms),
            Answer::Op(_) | Answer::Done { .. } => Err(errors::no_answer()),
        }
    }

    /// Refuses what would not fit, and has all members know it. What slips through, since several
    /// are on their way at a time, is noticed when it is applied.
    pub(super) async fn admit(&self, change: &Change) -> Result<(), Status> {
        let cost = cost::of(change);
        let space = self.member.space();
        if cost == 0 || space.has_room(cost) {
            return Ok(());
        }
        if let Err(error) = space.raise(self.deadline).await {
            tracing::debug!(%error, "there is no space left, and the others could not be told");
        }
        Err(errors::of_store(&Refused::NoSpace))
    }

    /// Refuses reads where members are known to differ.
    pub(super) fn check_agreed(&self) -> Result<(), Status> {
        let differ = self.member.read(|machine| machine.keys_v3.alarms().any(Alarm::Corrupt));
        if differ { Err(errors::of_store(&Refused::Corrupt)) } else { Ok(()) }
    }
}
