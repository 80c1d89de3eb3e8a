//! Waiting until the cluster has done what was asked of it, and saying why it has not.

use std::time::Duration;

use tokio::time::Instant;

use crate::cli::fleetctl::columns::{self, Ids, full_legend};
use crate::cli::fleetctl::session::{Session, Step, explained};
use crate::cli::fleetctl::words::Patience;
use crate::foundation::exit::Exit;
use crate::rpc::client::fleet::{FleetError, Of};
use crate::wire::fleet::JobState;
use crate::wire::fleet::api::{Placement, Unit, UnitState};

/// How often the cluster is asked.
const POLL: Duration = Duration::from_millis(250);
/// How long to wait before saying what stands in the way: the engine needs less.
const QUIET: Duration = Duration::from_secs(2);

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    /// The units are in this state.
    State(JobState),
    /// The units are no more.
    Gone,
}

/// Tells whether a unit is where it shall be.
pub(super) fn reached(wanted: JobState, unit: &Unit, states: &[UnitState]) -> bool {
    if unit.current_state.unwrap_or_default() != wanted {
        return false;
    }
    let hash = columns::file(unit).hash().to_string();
    let runs = |state: &UnitState| {
        state.machine_id == unit.machine_id
            && state.systemd_load_state == "loaded"
            && state.systemd_active_state == "active"
            && (state.hash.is_empty() || state.hash == hash)
    };
    wanted != JobState::Launched || states.iter().any(runs)
}

/// Says, machine by machine, why a unit is nowhere.
pub(super) fn nowhere(placement: &Placement) -> Vec<String> {
    if placement.machines.is_empty() {
        return vec![format!("Unit {} is on no machine: the cluster has none", placement.unit)];
    }
    let verdict = |it: &crate::wire::fleet::api::MachineVerdict| {
        let machine = full_legend(&it.machine_id, &it.primary_ip, Ids::Short);
        format!("  {machine}: {}", it.reason)
    };
    let head = format!("Unit {} is on no machine yet:", placement.unit);
    std::iter::once(head).chain(placement.machines.iter().map(verdict)).collect()
}

/// Says how a unit fares on the machine that it is on.
pub(super) fn not_yet(unit: &Unit, machine: &str, states: &[UnitState]) -> String {
    let name = &unit.name;
    match states.iter().find(|state| state.machine_id == unit.machine_id) {
        None => format!("Unit {name} is on {machine}, which has not told how it fares"),
        Some(state) => format!(
            "Unit {name} on {machine} is {} {} {}",
            state.systemd_load_state, state.systemd_active_state, state.systemd_sub_state,
        ),
    }
}

impl Session {
    /// Waits until the goal is reached, as long as patience lasts. Without any it only tells
    /// that `action` was asked for.
    pub(super) async fn wait_for(
        &mut self,
        mut names: Vec<String>,
        goal: Goal,
        action: &str,
        patience: Patience,
    ) -> Step {
        let until = match patience {
            Patience::None => {
                for name in names {
                    self.output.line(format_args!("Triggered unit {name} {action}"));
                }
                return Ok(());
            }
            Patience::AtMost(time) => Some(Instant::now() + time),
            Patience::Endless => None,
        };
        let quiet_until = Instant::now() + QUIET;
        let mut told = false;
        let mut trouble = String::new();
        loop {
            let mut left = Vec::new();
            for name in names {
                match self.is_there(&name, goal).await {
                    Ok(true) => {}
                    Ok(false) => left.push(name),
                    Err(error) => {
                        self.tell_once(
                            &mut trouble,
                            format!("Error retrieving Unit({name}): {}", explained(&error)),
                        );
                        left.push(name);
                    }
                }
            }
            names = left;
            if names.is_empty() {
                return Ok(());
            }
            if !told && Instant::now() >= quiet_until {
                told = true;
                self.tell_what_hinders(&names, goal).await;
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                return self.give_up(&names, goal);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Looks whether a unit has reached the goal, and says so if it has.
    async fn is_there(&mut self, name: &str, goal: Goal) -> Result<bool, FleetError> {
        let unit = self.client.unit(name).await?;
        let (wanted, unit) = match (goal, unit) {
            (Goal::Gone, unit) => return Ok(unit.is_none()),
            (Goal::State(_), None) => return Ok(false),
            (Goal::State(wanted), Some(unit)) => (wanted, unit),
        };
        let states = match wanted {
            JobState::Launched => self.client.states(Of::Unit(name)).await?,
            JobState::Inactive | JobState::Loaded => Vec::new(),
        };
        if !reached(wanted, &unit, &states) {
            return Ok(false);
        }
        let place = match self.legend(&unit.machine_id).await {
            Some(machine) => format!(" on {machine}"),
            None => String::new(),
        };
        self.output.line(format_args!("Unit {name} {wanted}{place}"));
        Ok(true)
    }

    async fn tell_what_hinders(&mut self, names: &[String], goal: Goal) {
        if goal == Goal::Gone || goal == Goal::State(JobState::Inactive) {
            return;
        }
        for name in names {
            // Whoever cannot be asked now is asked again by the wait, which tells of it.
            if let Ok(lines) = self.what_hinders(name).await {
                for line in lines {
                    self.output.complain(line);
                }
            }
        }
    }

    async fn what_hinders(&mut self, name: &str) -> Result<Vec<String>, FleetError> {
        let Some(unit) = self.client.unit(name).await? else {
            return Ok(vec![format!("Unit {name} is not in the registry any more")]);
        };
        if unit.machine_id.is_empty() {
            let placement = self.client.placement(name).await?;
            return Ok(placement.as_ref().map(nowhere).unwrap_or_default());
        }
        let states = self.client.states(Of::Unit(name)).await?;
        let machine = self.legend(&unit.machine_id).await;
        let machine = machine.unwrap_or_else(|| full_legend(&unit.machine_id, "", Ids::Short));
        Ok(vec![not_yet(&unit, &machine, &states)])
    }

    fn tell_once(&mut self, last: &mut String, trouble: String) {
        if *last != trouble {
            self.output.complain(&trouble);
            *last = trouble;
        }
    }

    fn give_up(&mut self, names: &[String], goal: Goal) -> Step {
        let goal = match goal {
            Goal::State(state) => format!("to report state {state}"),
            Goal::Gone => "to be gone".to_owned(),
        };
        for name in names {
            self.output.complain(format_args!(
                "Error waiting for units: timed out waiting for unit {name} {goal}"
            ));
        }
        Err(Exit::Failure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::fleet::api::MachineVerdict;

    fn unit(current: Option<JobState>) -> Unit {
        Unit { current_state: current, machine_id: "m1".into(), ..Unit::default() }
    }

    fn state(machine: &str, load: &str, active: &str, hash: &str) -> UnitState {
        UnitState {
            name: "a.service".into(),
            hash: hash.into(),
            machine_id: machine.into(),
            systemd_load_state: load.into(),
            systemd_active_state: active.into(),
            systemd_sub_state: "x".into(),
        }
    }

    #[test]
    fn launched_means_that_systemd_runs_this_very_text() {
        let launched = unit(Some(JobState::Launched));
        let hash = columns::file(&launched).hash().to_string();
        let runs = |state: UnitState| reached(JobState::Launched, &launched, &[state]);
        assert!(runs(state("m1", "loaded", "active", &hash)));
        assert!(runs(state("m1", "loaded", "active", "")));
        assert!(!runs(state("m1", "loaded", "active", "another")));
        assert!(!runs(state("m2", "loaded", "active", &hash)));
        assert!(!runs(state("m1", "loaded", "activating", &hash)));
        assert!(!runs(state("m1", "not-found", "active", &hash)));
        assert!(!reached(JobState::Launched, &launched, &[]));
        assert!(!reached(JobState::Launched, &unit(Some(JobState::Loaded)), &[]));
    }

    #[test]
    fn other_states_are_what_fleet_says() {
        assert!(reached(JobState::Loaded, &unit(Some(JobState::Loaded)), &[]));
        assert!(!reached(JobState::Loaded, &unit(Some(JobState::Launched)), &[]));
        assert!(reached(JobState::Inactive, &unit(None), &[]));
    }

    #[test]
    fn what_hinders_a_unit_is_told_machine_by_machine() {
        let verdict = |id: &str, reason: &str| MachineVerdict {
            machine_id: id.into(),
            primary_ip: "10.0.0.1".into(),
            ok: false,
            reason: reason.into(),
        };
        let machines = vec![verdict("0123456789", "disk is not ssd"), verdict("1123456789", "b")];
        let placement = Placement { unit: "a.service".into(), machines };
        assert_eq!(
            nowhere(&placement),
            [
                "Unit a.service is on no machine yet:",
                "  01234567.../10.0.0.1: disk is not ssd",
                "  11234567.../10.0.0.1: b",
            ]
        );
        let none = Placement { unit: "a.service".into(), machines: vec![] };
        assert_eq!(nowhere(&none), ["Unit a.service is on no machine: the cluster has none"]);
        let failed = state("m1", "loaded", "failed", "");
        let named = Unit { name: "a.service".into(), ..unit(None) };
        assert_eq!(
            not_yet(&named, "m1...", &[failed]),
            "Unit a.service on m1... is loaded failed x"
        );
    }
}
