//! What goes wrong in a world, and how it is repaired.

use std::net::IpAddr;
use std::sync::atomic::Ordering;

use corebox::consensus::Member;
use corebox::platform::disk::DiskError;

use crate::sim::world::{World, ip};

/// How long a member may go on after its disk has refused something, in milliseconds: a writer
/// may be within a slow sync.
const STOP_MS_MAX: u64 = 2_000;

/// What is broken between a member and others.
pub(super) struct Broken {
    pub(super) name: &'static str,
    pub(super) at: IpAddr,
    pub(super) other: IpAddr,
}

/// A crash that waits for a sync.
pub(super) struct Aim {
    member: u64,
    /// When it is given up.
    until: u64,
    /// When the member starts again.
    down_until: u64,
}

impl World {
    pub(super) fn fault(&mut self) {
        let number = self.some_member();
        let other = self.some_member();
        let until = self.now_ms + self.random.between(50, 2000);
        let name = match self.random.below(100) {
            0..14 => "cut off from the members",
            14..18 => "cut off from everyone",
            18..27 => "cannot send to another",
            27..32 => "paused",
            32..46 => "crash",
            46..60 => "crash in a sync",
            60..64 => "crash of all",
            64..72 => "disk error",
            72..78 => "slow disk",
            78..86 => "move the leader",
            86..95 => "checkpoint",
            _ => "heal",
        };
        self.record.note(number, format_args!("fault: {name}, other {other}, until {until}"));
        match name {
            "crash" => return self.crash(number, until),
            "crash in a sync" => {
                let down_until = until + self.random.between(50, 2000);
                self.aim = Some(Aim { member: number, until, down_until });
                return;
            }
            "crash of all" => {
                return (1..=self.members).for_each(|number| self.crash(number, until));
            }
            "disk error" => return self.break_disk(number),
            "slow disk" => {
                return self.hosts[&number].disk.set_sync_ms_max(self.random.between(0, 400));
            }
            "move the leader" => return self.move_leader(other),
            "checkpoint" => return self.checkpoint(),
            _ => {}
        }
        self.broken = Broken { name, at: ip(number), other: ip(other) };
        self.heal_at = Some(until);
        self.set_links();
    }

    /// Makes every link work, delivers what was held, and breaks again what is to be broken.
    fn set_links(&self) {
        let everyone = self.everyone();
        for (at, a) in everyone.iter().enumerate() {
            for b in &everyone[at + 1..] {
                self.sim.release(*a, *b);
            }
        }
        let Broken { name, at, other } = self.broken;
        for to in everyone.into_iter().filter(|to| *to != at) {
            match name {
                "cut off from the members" if to <= ip(self.members) => self.sim.partition(at, to),
                "cut off from everyone" => self.sim.partition(at, to),
                "cannot send to another" if to == other => self.sim.partition_oneway(at, to),
                "paused" => self.sim.hold(at, to),
                _ => {}
            }
        }
    }

    fn heal(&mut self) {
        self.heal_at = None;
        self.broken.name = "";
        self.set_links();
    }

    /// The power of a member fails: nothing more leaves it, and its disk keeps what was synced.
    fn crash(&mut self, number: u64, until: u64) {
        if self.hosts[&number].down_until.is_some() {
            return;
        }
        // Dropping a simulated stream says goodbye to the other end. A power failure does not.
        let me = ip(number);
        for to in self.everyone().into_iter().filter(|to| *to != me) {
            self.sim.partition(me, to);
        }
        self.end(number, until);
        self.set_links();
        let host = &self.hosts[&number];
        host.disk.heal();
        let unsynced = host.disk.crash();
        self.crashes += 1;
        self.record.note(number, format_args!("crashed with {unsynced} unsynced operations"));
    }

    /// Ends a member's process.
    fn end(&mut self, number: u64, until: u64) {
        let host = self.hosts.get_mut(&number).expect("a member");
        host.down_until = Some(until);
        host.refused_at = None;
        *host.member() = None;
        *host.failed() = None;
        self.sim.crash(host.ip);
        self.invariants.crashed(number);
        *self.record.inner().lives.entry(number).or_default() += 1;
    }

    /// Lets a member's disk fail soon. One that has refused something stays as it is: why the member
    /// stops must not be forgotten.
    fn break_disk(&mut self, number: u64) {
        if self.hosts[&number].disk.has_refused() {
            return;
        }
        let error = if self.random.one_in(2) { DiskError::Broken } else { DiskError::Full };
        let operations = self.random.below(30);
        self.hosts[&number].disk.fail_after(operations, error);
        self.record.note(number, format_args!("{error:?} disk after {operations} operations"));
    }

    /// Ends members whose disk has refused something once they have stopped by themselves, which
    /// they must, and soon. Some lose power too.
    pub(super) fn end_refused(&mut self) -> Result<(), String> {
        for number in 1..=self.members {
            let host = self.hosts.get_mut(&number).expect("a member");
            if host.down_until.is_some() {
                continue;
            }
            let stopped = host.member().as_ref().and_then(|member| member.status().failed);
            let stopped = stopped.or_else(|| host.failed().clone());
            let refused = host.disk.has_refused();
            let at = *host.refused_at.get_or_insert(self.now_ms);
            if !refused {
                host.refused_at = None;
            }
            match stopped {
                Some(why) if !refused => return Err(format!("member {number} stopped: {why}")),
                Some(why) => {
                    self.record.note(number, format_args!("ends: {why}"));
                    let until = self.now_ms + self.random.between(50, 2000);
                    self.disk_errors += 1;
                    if self.random.one_in(2) {
                        self.crash(number, until);
                    } else {
                        self.end(number, until);
                        self.hosts[&number].disk.heal();
                    }
                }
                None if refused && self.now_ms > at + STOP_MS_MAX => {
                    return Err(format!("member {number} goes on with a disk that failed"));
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Crashes a member that is within a sync, if one is aimed at.
    pub(super) fn crash_in_sync(&mut self) {
        let now = self.now_ms;
        let Some(aim) =
            self.aim.take_if(|aim| aim.until < now || self.hosts[&aim.member].disk.is_syncing())
        else {
            return;
        };
        let host = &self.hosts[&aim.member];
        if host.disk.is_syncing() && host.down_until.is_none() {
            self.crashes_in_sync += 1;
            self.crash(aim.member, aim.down_until);
        }
    }

    pub(super) fn restart_due(&mut self) {
        if self.heal_at.is_some_and(|at| at <= self.now_ms) {
            self.heal();
        }
        for (number, host) in &mut self.hosts {
            if host.down_until.is_some_and(|at| at <= self.now_ms) {
                host.down_until = None;
                self.record.note(*number, format_args!("starts again"));
                self.sim.bounce(host.ip);
            }
        }
    }

    pub(super) fn repair(&mut self) {
        self.record.note(0, format_args!("everything is repaired"));
        self.heal();
        self.aim = None;
        for host in self.hosts.values_mut() {
            host.disk.set_sync_ms_max(5);
            if !host.disk.has_refused() {
                host.disk.heal();
            }
            host.down_until = host.down_until.map(|_| 0);
        }
        self.restart_due();
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Asks whoever leads to hand leadership to another.
    fn move_leader(&self, to: u64) {
        let target = self.hosts[&to].member().as_ref().map(Member::id);
        let Some(target) = target else { return };
        for host in self.hosts.values() {
            let Some(member) = host.member().clone() else { continue };
            let (raft, ..) = member.parts();
            if raft.is_leader() && member.id() != target {
                // The call only puts a message in a queue, so it is ready at the first poll.
                let trigger = raft.trigger();
                let moved = trigger.transfer_leader(target);
                futures_util::FutureExt::now_or_never(moved);
            }
        }
    }

    /// Asks every member that runs for a checkpoint.
    fn checkpoint(&self) {
        for host in self.hosts.values() {
            let Some(member) = host.member().clone() else { continue };
            let (raft, ..) = member.parts();
            futures_util::FutureExt::now_or_never(raft.trigger().snapshot());
        }
    }

    fn some_member(&self) -> u64 {
        self.random.between(1, self.members)
    }
}
