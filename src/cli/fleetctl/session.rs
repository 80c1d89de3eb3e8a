//! One run of `fleetctl`: asks, says what came of it, and how the process ends.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use crate::cli::fleetctl::columns::{
    self, Ids, Picked, Surroundings, full_legend, is_global, listed,
};
use crate::cli::fleetctl::content::{self, FileError, Offer};
use crate::cli::fleetctl::waiting::Goal;
use crate::cli::fleetctl::words::{Job, Look, Patience, Replace};
use crate::cli::output::{Format, Listing, Output};
use crate::foundation::exit::{Exit, chain};
use crate::rpc::client::fleet::{FleetClient, FleetError, Of};
use crate::wire::fleet::api::{Machine, Unit, UnitState};
use crate::wire::fleet::names::{NameError, mangle};
use crate::wire::fleet::requirements::unknown_keys;
use crate::wire::fleet::unit_file::FLEET_SECTION;
use crate::wire::fleet::{JobState, UnitFile, UnitName};

/// A step, or how everything ends with it.
pub(super) type Step<T = ()> = Result<T, Exit>;

/// One run.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) client: FleetClient,
    pub(super) output: Output,
    machines: BTreeMap<String, Machine>,
}

/// Why a unit cannot be stored or moved.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("{}", explained(.0))]
    Fleet(FleetError),
    #[error("unable to find Unit({0}) in Registry or on filesystem")]
    Unknown(String),
    #[error("{}", chain(.0))]
    File(FileError),
    #[error("{0}")]
    Name(NameError),
}

/// What became of a unit that was to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stored {
    /// Nothing changed.
    Before,
    /// It is new, or its text is.
    Now,
}

/// What taking a unit back means for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Retreat {
    /// It cannot be stopped: it is on no machine.
    Impossible,
    /// It is back already.
    Done,
    /// It has to be told.
    Tell,
}

/// Says in one sentence what went wrong and what to do.
pub(super) fn explained(error: &FleetError) -> String {
    let said = chain(error);
    match error {
        FleetError::Unreachable { .. } => {
            format!(
                "{said}; see `systemctl status fleet.service` there, or give another `--endpoint`"
            )
        }
        FleetError::Silent { .. } => format!("{said}; see `systemctl status fleet.service` there"),
        FleetError::Refused { .. }
        | FleetError::Unaskable { .. }
        | FleetError::Nonsense { .. }
        | FleetError::Endless { .. } => said,
    }
}

fn retreat(unit: &Unit, to: JobState) -> Retreat {
    let current = unit.current_state.unwrap_or_default();
    let desired = unit.desired_state.unwrap_or_default();
    if is_global(unit) {
        Retreat::Tell
    } else if to == JobState::Loaded && current == JobState::Inactive {
        Retreat::Impossible
    } else if current == to && desired <= to {
        Retreat::Done
    } else {
        Retreat::Tell
    }
}

const fn noun(to: JobState) -> (&'static str, &'static str) {
    match to {
        JobState::Inactive => ("submit", "submitting"),
        JobState::Loaded => ("load", "loading"),
        JobState::Launched => ("start", "starting"),
    }
}

impl Session {
    pub(super) const fn new(client: FleetClient, output: Output) -> Self {
        Self { client, output, machines: BTreeMap::new() }
    }

    /// Does the job and returns how the process ends.
    pub(super) async fn carry_out(&mut self, job: Job) -> Exit {
        let done = match job {
            Job::ListMachines(columns, look) => self.list_machines(&columns, look).await,
            Job::ListUnits(columns, look) => self.list_units(&columns, look).await,
            Job::ListUnitFiles(columns, look) => self.list_unit_files(&columns, look).await,
            Job::Cat { units } => self.cat(&units).await,
            Job::Bring { units, .. }
            | Job::TakeBack { units, .. }
            | Job::Restart { units, .. }
            | Job::Destroy { units, .. }
                if units.is_empty() =>
            {
                self.output.complain("No units given");
                Ok(())
            }
            Job::Bring { units, to, replace, patience } => {
                self.bring(&units, to, replace, patience).await
            }
            Job::TakeBack { units, to, patience } => self.take_back(&units, to, patience).await,
            Job::Restart { units, patience } => self.restart(&units, patience).await,
            Job::Destroy { units, patience } => self.destroy(&units, patience).await,
        };
        done.err().unwrap_or(Exit::Ok)
    }

    async fn list_machines(&mut self, columns: &Picked<Machine>, look: Look) -> Step {
        let machines = match self.client.machines().await {
            Ok(machines) => machines,
            Err(error) => {
                let exit =
                    self.failed("Error retrieving list of active machines", explained(&error));
                self.output.complain("Check that fleet runs: `systemctl status fleet.service`");
                self.output.complain("Check that the store is healthy: `etcdctl cluster-health`");
                return Err(exit);
            }
        };
        let around = Surroundings { machines: BTreeMap::new(), ids: look.ids };
        self.show(columns, &machines, &around, look);
        Ok(())
    }

    async fn list_units(&mut self, columns: &Picked<UnitState>, look: Look) -> Step {
        let asked =
            async { Ok((self.client.states(Of::All).await?, self.client.machines().await?)) };
        let (mut states, machines) = match asked.await {
            Ok(answers) => answers,
            Err(error) => {
                return Err(self.failed("Error retrieving list of units", explained(&error)));
            }
        };
        states.sort_by(|a, b| (&a.name, &a.machine_id).cmp(&(&b.name, &b.machine_id)));
        self.show(
            columns,
            &states,
            &Surroundings { machines: by_id(machines), ids: look.ids },
            look,
        );
        Ok(())
    }

    async fn list_unit_files(&mut self, columns: &Picked<Unit>, look: Look) -> Step {
        let asked = async { Ok((self.client.units().await?, self.client.machines().await?)) };
        let (mut units, machines) = match asked.await {
            Ok(answers) => answers,
            Err(error) => {
                let what = "Error retrieving list of units from repository";
                return Err(self.failed(what, explained(&error)));
            }
        };
        units.sort_by(|a, b| a.name.cmp(&b.name));
        self.show(
            columns,
            &units,
            &Surroundings { machines: by_id(machines), ids: look.ids },
            look,
        );
        Ok(())
    }

    fn show<T: serde::Serialize>(
        &mut self,
        columns: &Picked<T>,
        rows: &[T],
        around: &Surroundings,
        look: Look,
    ) {
        match look.format {
            Format::Table => self.output.text(listed(columns, rows, around, look.legend)),
            Format::Json | Format::Yaml => {
                let listing = Listing { headers: &[], rows, cells: |_| Vec::new() };
                self.output.listing(look.format, &listing);
            }
        }
    }

    async fn cat(&mut self, units: &[String]) -> Step {
        let [typed] = units else {
            self.output.complain("One unit file must be provided");
            return Err(Exit::Failure);
        };
        let name = mangle(typed);
        match self.client.unit(&name).await {
            Ok(Some(unit)) => {
                self.output.text(columns::file(&unit).canonical());
                Ok(())
            }
            Ok(None) => {
                self.output.complain(format_args!("Unit {name} not found"));
                Err(Exit::Failure)
            }
            Err(error) => {
                Err(self.failed(&format!("Error retrieving Unit {name}"), explained(&error)))
            }
        }
    }

    async fn bring(
        &mut self,
        units: &[String],
        to: JobState,
        replace: Replace,
        patience: Patience,
    ) -> Step {
        let mut fresh = BTreeSet::new();
        for typed in units {
            match self.store(typed, to, replace).await {
                Ok(Stored::Before) => {}
                Ok(Stored::Now) => {
                    fresh.insert(mangle(typed));
                }
                Err(trouble) => return Err(self.failed("Error creating units", trouble)),
            }
        }
        if to == JobState::Inactive {
            return Ok(());
        }
        let (verb, doing) = noun(to);
        let mut waiting = Vec::new();
        for name in names(units) {
            match self.aim(&name, to, fresh.contains(&name)).await {
                Err(trouble) => return Err(self.failed(&format!("Error {doing} units"), trouble)),
                Ok(None) => {}
                Ok(Some(unit)) if is_global(&unit) => {
                    self.output.line(format_args!("Triggered global unit {name} {verb}"));
                }
                Ok(Some(_)) => waiting.push(name),
            }
        }
        self.wait_for(waiting, Goal::State(to), verb, patience).await
    }

    /// Says what a unit shall be; `None` where nothing is left to be done.
    async fn aim(&self, name: &str, to: JobState, fresh: bool) -> Result<Option<Unit>, Trouble> {
        let unit = self.client.unit(name).await.map_err(Trouble::Fleet)?;
        let unit = unit.ok_or_else(|| Trouble::Unknown(name.to_owned()))?;
        if unit.desired_state == Some(to) && !fresh {
            let is_there = is_global(&unit) || unit.current_state == Some(to);
            return Ok(Some(unit).filter(|_| !is_there));
        }
        self.client.set_desired(name, to).await.map_err(Trouble::Fleet)?;
        Ok(Some(unit))
    }

    /// Sees to it that a unit is stored.
    async fn store(
        &mut self,
        typed: &str,
        to: JobState,
        replace: Replace,
    ) -> Result<Stored, Trouble> {
        let name = mangle(typed);
        let stored = self.client.unit(&name).await.map_err(Trouble::Fleet)?;
        let mut offer = content::read(content::path_of(typed)).map_err(Trouble::File)?;
        if offer.is_none() && (stored.is_none() || replace == Replace::Allowed) {
            offer = self.template(&name, typed).await?;
        }
        match content::decide(stored.as_ref(), offer, to, replace) {
            content::Step::Keep => {}
            content::Step::KeepDespite(path) => self.output.complain(format_args!(
                "WARNING: Unit {name} in registry differs from local unit file {path}. Add --replace to override."
            )),
            content::Step::Same => self
                .output
                .complain(format_args!("Found same Unit({name}) in Registry, nothing to do")),
            content::Step::NothingToTake => self.output.complain(format_args!(
                "WARNING: no local file to replace Unit({name}) by; the one in the registry stays"
            )),
            content::Step::Forbidden(state) => self.output.complain(format_args!(
                "WARNING: can not replace Unit({name}) in state '{state}', use the appropriate command"
            )),
            content::Step::Unknown => return Err(Trouble::Unknown(name)),
            content::Step::Write(file, desired) => {
                self.write(name, &file, desired).await?;
                return Ok(Stored::Now);
            }
        }
        Ok(Stored::Before)
    }

    async fn write(
        &mut self,
        name: String,
        file: &UnitFile,
        desired: JobState,
    ) -> Result<(), Trouble> {
        for key in unknown_keys(file) {
            self.output.complain(format_args!(
                "WARNING: Unit {name}: unrecognized requirement in [{FLEET_SECTION}] section: {key:?}"
            ));
        }
        let options = file.options().to_vec();
        let unit = Unit { name, options, desired_state: Some(desired), ..Unit::default() };
        self.client.put_unit(&unit).await.map_err(Trouble::Fleet)?;
        if desired == JobState::Inactive {
            self.output.line(format_args!("Unit {} {desired}", unit.name));
        }
        Ok(())
    }

    /// Finds the template of an instance: the stored one, else the file beside `typed`.
    async fn template(&self, name: &str, typed: &str) -> Result<Option<Offer>, Trouble> {
        let name = UnitName::parse(name).map_err(Trouble::Name)?;
        let Some(template) = name.instance().and_then(|_| name.template()) else { return Ok(None) };
        let stored = self.client.unit(template.as_str()).await.map_err(Trouble::Fleet)?;
        if let Some(unit) = stored {
            return Ok(Some(Offer { from: template.to_string(), file: columns::file(&unit) }));
        }
        content::read(content::path_of(typed).with_file_name(template.as_str()))
            .map_err(Trouble::File)
    }

    async fn take_back(&mut self, units: &[String], to: JobState, patience: Patience) -> Step {
        let (verb, done) = match to {
            JobState::Inactive => ("unload", "unloaded"),
            JobState::Loaded | JobState::Launched => ("stop", "stopped"),
        };
        let found = self.found(units).await?;
        if found.is_empty() {
            return Ok(());
        }
        let mut waiting = Vec::new();
        for unit in found {
            match retreat(&unit, to) {
                Retreat::Impossible => {
                    let (name, state) = (&unit.name, JobState::Inactive);
                    self.output
                        .complain(format_args!("Unable to {verb} unit {name} in state {state}"));
                    return Err(Exit::Failure);
                }
                Retreat::Done => continue,
                Retreat::Tell => {}
            }
            if let Err(error) = self.client.set_desired(&unit.name, to).await {
                return Err(
                    self.failed(&format!("Error: cannot {verb} {}", unit.name), explained(&error))
                );
            }
            if is_global(&unit) {
                self.output.line(format_args!("Triggered global unit {} {verb}", unit.name));
            } else {
                waiting.push(unit.name);
            }
        }
        let list = waiting.join(" ");
        let waited = self.wait_for(waiting, Goal::State(to), verb, patience).await;
        self.output.complain(match waited {
            Ok(()) => format!("Successfully {done} units [{list}]."),
            Err(exit) => format!("Failed to {verb} units [{list}]. exitVal: {}", exit.code()),
        });
        waited
    }

    async fn restart(&mut self, units: &[String], patience: Patience) -> Step {
        let mut restarting = Vec::new();
        for name in names(units) {
            let unit = match self.client.unit(&name).await {
                Ok(Some(unit)) => unit,
                Ok(None) => {
                    return Err(self.failed("Error restarting units", Trouble::Unknown(name)));
                }
                Err(error) => return Err(self.failed("Error restarting units", explained(&error))),
            };
            if is_global(&unit) {
                let what = "is global; run `systemctl restart` on its machines";
                return Err(self.failed("Error restarting units", format!("{name} {what}")));
            }
            if unit.current_state.unwrap_or_default() == JobState::Inactive {
                self.output
                    .complain(format_args!("Unable to restart unit {name} in state inactive"));
            } else {
                restarting.push(name);
            }
        }
        for (to, verb) in [(JobState::Loaded, "stop"), (JobState::Launched, "start")] {
            for name in &restarting {
                if let Err(error) = self.client.set_desired(name, to).await {
                    return Err(self.failed("Error restarting units", explained(&error)));
                }
            }
            self.wait_for(restarting.clone(), Goal::State(to), verb, patience).await?;
        }
        Ok(())
    }

    async fn destroy(&mut self, units: &[String], patience: Patience) -> Step {
        let mut ended = Ok(());
        for unit in self.found(units).await? {
            let name = unit.name;
            match self.client.destroy(&name).await {
                Ok(false) => continue,
                Ok(true) => {}
                Err(error) => {
                    ended = Err(self.failed("Error destroying units", explained(&error)));
                    continue;
                }
            }
            if patience != Patience::None
                && let Err(exit) =
                    self.wait_for(vec![name.clone()], Goal::Gone, "destroy", patience).await
            {
                ended = Err(exit);
                continue;
            }
            self.output.line(format_args!("Destroyed {name}"));
        }
        ended
    }

    /// Returns those of the units that are stored, and says so if none is.
    async fn found(&mut self, units: &[String]) -> Step<Vec<Unit>> {
        let mut found = Vec::new();
        for name in names(units) {
            match self.client.unit(&name).await {
                Ok(unit) => found.extend(unit),
                Err(error) => {
                    let what = format!("Error retrieving Unit {name}");
                    return Err(self.failed(&what, explained(&error)));
                }
            }
        }
        if found.is_empty() {
            self.output.complain("Units not found in registry");
        }
        Ok(found)
    }

    /// Returns a machine as messages name it, if it is known.
    pub(super) async fn legend(&mut self, id: &str) -> Option<String> {
        if id.is_empty() {
            return None;
        }
        if !self.machines.contains_key(id) {
            // A name is not worth failing for: the message goes without it.
            self.machines = by_id(self.client.machines().await.unwrap_or_default());
        }
        self.machines.get(id).map(|machine| full_legend(id, &machine.primary_ip, Ids::Short))
    }

    fn failed(&mut self, what: &str, why: impl Display) -> Exit {
        self.output.complain(format_args!("{what}: {why}"));
        Exit::Failure
    }
}

fn by_id(machines: Vec<Machine>) -> BTreeMap<String, Machine> {
    machines.into_iter().map(|machine| (machine.id.clone(), machine)).collect()
}

/// Returns the names that are meant, each once, in the order in which they were typed.
fn names(typed: &[String]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    typed.iter().map(|typed| mangle(typed)).filter(|name| seen.insert(name.clone())).collect()
}
