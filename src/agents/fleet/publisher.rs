//! Tells the registry what this machine's units do: states, and the heartbeat of those launched.
//!
//! A state is read when systemd says that it may have changed, published when it has, and
//! published again before its time runs out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _, stream};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::agents::fleet::agent::Managed;
use crate::agents::fleet::plan::Here;
use crate::agents::fleet::registry::Store;
use crate::agents::fleet::view::View;
use crate::foundation::exit::chain;
use crate::platform::systemd::{Change, Changes, Systemd, SystemdError, UnitName, UnitState};
use crate::rpc::client::keys::KeysFailure;
use crate::wire::fleet::registry::{MachineObject, StateObject};

/// How many writes are under way at a time.
const PARALLEL: usize = 5;
/// How long to wait after something failed.
const RETRY: Duration = Duration::from_secs(1);
/// How often all states are read even if nothing seems to have happened.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Below this, a time to live is too short for the longer rhythm.
const SHORT_TTL: Duration = Duration::from_secs(10);

/// Returns how often what has not changed is published again.
pub fn refresh(ttl: Duration) -> Duration {
    if ttl > SHORT_TTL { ttl * 4 / 5 } else { ttl / 2 }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Published {
    state: StateObject,
    launched: bool,
    at: Instant,
}

/// One unit's news.
#[derive(Debug)]
struct News {
    unit: String,
    here: Option<(Here, StateObject)>,
    /// What was published before, if that is known.
    before: Option<Published>,
}

/// Publishes states and heartbeats.
#[derive(Debug)]
pub struct Publisher {
    machine: String,
    store: Store,
    view: Arc<View>,
    systemd: Arc<dyn Systemd>,
    ttl: Duration,
    managed: watch::Receiver<Managed>,
    published: BTreeMap<String, Published>,
    dirty: BTreeSet<String>,
}

impl Publisher {
    /// Makes a publisher for the machine of that id.
    pub fn new(
        machine: &str,
        (store, view): (Store, Arc<View>),
        systemd: Arc<dyn Systemd>,
        ttl: Duration,
        managed: watch::Receiver<Managed>,
    ) -> Self {
        Self {
            machine: machine.to_owned(),
            store,
            view,
            systemd,
            ttl,
            managed,
            published: BTreeMap::new(),
            dirty: BTreeSet::new(),
        }
    }

    /// Publishes until told to stop.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut health = self.view.health();
        let mut every = tokio::time::interval(LOOK_EVERY);
        let mut changes: Option<Changes> = None;
        let mut retry: Option<Instant> = None;
        loop {
            if changes.is_none() {
                changes = self.systemd.changes().await.ok();
                self.all_are_dirty();
            }
            let live = health.borrow().live();
            let wake = retry.or_else(|| self.next_refresh().filter(|_| live));
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Ok(()) = health.changed() => self.all_are_due(),
                Ok(()) = self.managed.changed() => {}
                change = next(&mut changes) => self.take_in(change, &mut changes),
                () = tokio::time::sleep_until(wake.unwrap_or_else(|| Instant::now() + LOOK_EVERY)) => {}
                _ = every.tick() => self.all_are_dirty(),
            }
            retry = None;
            if health.borrow().live()
                && let Err(error) = self.publish().await
            {
                tracing::debug!(why = %error, "states not published; they will be");
                retry = Some(Instant::now() + RETRY);
            }
            if changes.is_none() {
                retry = Some(Instant::now() + RETRY);
            }
        }
    }

    /// Takes in a change of a unit, and all that came with it.
    fn take_in(&mut self, first: Option<Change>, changes: &mut Option<Changes>) {
        let mut change = first;
        loop {
            match change {
                None => {
                    *changes = None;
                    return;
                }
                Some(Change::Unit(unit)) => drop(self.dirty.insert(unit)),
                Some(Change::Overrun) => self.all_are_dirty(),
            }
            let Some(Some(more)) = next(changes).now_or_never() else { return };
            change = Some(more);
        }
    }

    /// What was published may have expired while the store was away.
    fn all_are_due(&mut self) {
        let now = Instant::now();
        let past = now.checked_sub(self.ttl).unwrap_or(now);
        self.published.values_mut().for_each(|published| published.at = past);
    }

    fn all_are_dirty(&mut self) {
        self.dirty.extend(self.managed.borrow().keys().cloned());
    }

    fn next_refresh(&self) -> Option<Instant> {
        self.published.values().map(|published| published.at + refresh(self.ttl)).min()
    }

    async fn publish(&mut self) -> Result<(), PublishError> {
        let managed = self.managed.borrow_and_update().clone();
        let now = Instant::now();
        let stale = |(unit, here): (&String, &Here)| {
            let Some(published) = self.published.get(unit) else { return true };
            published.launched != here.launched
                || published.state.unit_hash != here.hash.to_string()
                || published.at + refresh(self.ttl) <= now
        };
        let look: Vec<String> = managed
            .iter()
            .filter(|(unit, here)| self.dirty.contains(*unit) || stale((unit, here)))
            .map(|(unit, _)| unit.clone())
            .collect();
        self.dirty.clear();
        let states = self.states(&look).await.map_err(|source| {
            self.dirty.extend(look.iter().cloned());
            PublishError::States { source }
        })?;
        let news = self.news(&managed, &states, now);
        self.write(news, now).await
    }

    async fn states(
        &self,
        units: &[String],
    ) -> Result<BTreeMap<UnitName, UnitState>, SystemdError> {
        let names: Vec<UnitName> =
            units.iter().filter_map(|unit| UnitName::parse(unit).ok()).collect();
        if names.is_empty() {
            return Ok(BTreeMap::new());
        }
        self.systemd.states(&names).await
    }

    /// Returns what is to be written: what has changed, is due, or is gone.
    fn news(
        &self,
        managed: &Managed,
        states: &BTreeMap<UnitName, UnitState>,
        now: Instant,
    ) -> Vec<News> {
        let gone = self.published.iter().filter(|(unit, _)| !managed.contains_key(*unit));
        let gone = gone.map(|(unit, published)| News {
            unit: unit.clone(),
            here: None,
            before: Some(published.clone()),
        });
        let changed = states.iter().filter_map(|(unit, state)| {
            let here = *managed.get(unit.as_str())?;
            let object = self.object(&here, state);
            let before = self.published.get(unit.as_str());
            let same = before.is_some_and(|before| {
                before.state == object
                    && before.launched == here.launched
                    && before.at + refresh(self.ttl) > now
            });
            (!same).then(|| News {
                unit: unit.to_string(),
                here: Some((here, object)),
                before: before.cloned(),
            })
        });
        gone.chain(changed).collect()
    }

    fn object(&self, here: &Here, state: &UnitState) -> StateObject {
        StateObject {
            load_state: state.load.clone(),
            active_state: state.active.clone(),
            sub_state: state.sub.clone(),
            machine_state: MachineObject { id: self.machine.clone(), ..MachineObject::default() },
            unit_hash: here.hash.to_string(),
        }
    }

    async fn write(&mut self, news: Vec<News>, now: Instant) -> Result<(), PublishError> {
        let this = &*self;
        let writes = stream::iter(news)
            .map(|news| async move {
                let written = this.write_one(&news, now).await;
                (news, written)
            })
            .buffer_unordered(PARALLEL);
        let written: Vec<(News, Result<(), KeysFailure>)> = writes.collect().await;
        let mut failure = None;
        for (news, result) in written {
            match (result, news.here) {
                (Err(error), here) => {
                    if here.is_some() {
                        self.dirty.insert(news.unit);
                    }
                    failure = Some(error);
                }
                (Ok(()), None) => drop(self.published.remove(&news.unit)),
                (Ok(()), Some((here, state))) => {
                    let published = Published { state, launched: here.launched, at: now };
                    self.published.insert(news.unit, published);
                }
            }
        }
        failure.map_or(Ok(()), |source| Err(PublishError::Store { source }))
    }

    async fn write_one(&self, news: &News, now: Instant) -> Result<(), KeysFailure> {
        let Some((here, state)) = &news.here else {
            self.store.clear_heartbeat(&news.unit, &self.machine).await?;
            return self.store.remove_state(&news.unit, &self.machine).await;
        };
        let was_launched = news.before.as_ref().map(|before| before.launched);
        let due = news.before.as_ref().is_none_or(|it| it.at + refresh(self.ttl) <= now);
        if here.launched && (due || was_launched != Some(true)) {
            self.store.heartbeat(&news.unit, &self.machine, self.ttl).await?;
        } else if !here.launched && was_launched != Some(false) {
            self.store.clear_heartbeat(&news.unit, &self.machine).await?;
        }
        if due || news.before.as_ref().is_none_or(|before| before.state != *state) {
            self.store.save_state(&news.unit, state, self.ttl).await?;
        }
        Ok(())
    }
}

/// States could not be published.
#[derive(Debug)]
enum PublishError {
    States { source: SystemdError },
    Store { source: KeysFailure },
}

impl std::fmt::Display for PublishError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::States { source } => f.write_str(&chain(source)),
            Self::Store { source } => f.write_str(&chain(source)),
        }
    }
}

async fn next(changes: &mut Option<Changes>) -> Option<Change> {
    match changes {
        Some(changes) => changes.next().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rhythm_follows_the_time_to_live() {
        assert_eq!(refresh(Duration::from_secs(30)), Duration::from_secs(24));
        assert_eq!(refresh(Duration::from_secs(10)), Duration::from_secs(5));
        assert_eq!(refresh(Duration::from_secs(3)), Duration::from_millis(1500));
    }
}
