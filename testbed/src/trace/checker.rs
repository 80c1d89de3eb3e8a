//! Holds a store to its promises: is told what clients were answered and what watches were told,
//! and says the first promise that is broken. Pure.
//!
//! A watch has a position, which its events and bookmarks move. Whatever is known to have happened
//! before it, from another watch or from the answer to a write, the watch must have been told. A
//! read waits until some watch has come to its revision, and is then compared with the history.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::trace::history::{Event, History, Value, Version, first_between};
use crate::trace::violation::Violation;

/// A resource of the trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ResourceId(pub usize);

/// A watch of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct WatchId(usize);

/// A write that was acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The key.
    pub key: String,
    /// The revision that the key had to have, 0 if it was to be new.
    pub base: i64,
    /// The value and the lease; nothing if the key was deleted.
    pub value: Option<(Value, i64)>,
}

impl fmt::Display for Written {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, base, value } = self;
        write!(out, "`{key}` on {base} with {value:?}")
    }
}

/// A read that was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// The least revision that it had to be of.
    pub floor: i64,
    /// The revision that it is of.
    pub revision: i64,
    /// What it found.
    pub found: Found,
}

/// What a read found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// One key.
    Key(String, Option<Version>),
    /// All keys of a resource.
    All(Vec<(String, Version)>),
    /// How many keys a resource has.
    Count(i64),
}

#[derive(Debug)]
struct Resource {
    prefix: String,
    history: History,
    written: BTreeMap<i64, Written>,
    /// Reads that wait for a watch to come as far, by their revision.
    reads: BTreeMap<i64, Vec<Found>>,
}

#[derive(Debug)]
struct Watch {
    name: String,
    resource: ResourceId,
    last: i64,
    bookmark: i64,
    state: BTreeMap<String, Version>,
}

impl Watch {
    fn position(&self) -> i64 {
        self.last.max(self.bookmark)
    }
}

/// All that is known of a trace.
#[derive(Debug, Default)]
pub struct Checker {
    resources: Vec<Resource>,
    watches: Vec<Watch>,
    /// The latest revision that anyone was told.
    newest: i64,
    won: BTreeSet<i64>,
}

impl Checker {
    /// Adds a resource: the keys that begin with a prefix.
    pub fn resource(&mut self, prefix: &str, found: Vec<(String, Version)>) -> ResourceId {
        let (written, reads) = (BTreeMap::new(), BTreeMap::new());
        let history = History::from(found);
        self.resources.push(Resource { prefix: prefix.to_owned(), history, written, reads });
        ResourceId(self.resources.len() - 1)
    }

    /// Adds a watch that is to be told all that happens behind `revision`.
    ///
    /// # Panics
    ///
    /// Where the resource is not this checker's.
    pub fn watch(&mut self, by: &str, resource: ResourceId, revision: i64) -> WatchId {
        let of = &self.resources[resource.0];
        let name = format!("{by}'s watch of {}", of.prefix);
        let known = of.history.all(revision);
        let state = known.map(|(key, version)| (key.to_owned(), version.clone())).collect();
        let (last, bookmark) = (revision, revision);
        self.watches.push(Watch { name, resource, last, bookmark, state });
        WatchId(self.watches.len() - 1)
    }

    /// How far a watch has come: it is resumed behind this revision.
    #[must_use]
    pub fn position(&self, watch: WatchId) -> i64 {
        self.watches[watch.0].position()
    }

    /// What a watch is called.
    #[must_use]
    pub fn name(&self, watch: WatchId) -> &str {
        &self.watches[watch.0].name
    }

    /// What a watch is of.
    #[must_use]
    pub fn watched(&self, watch: WatchId) -> &str {
        self.prefix(self.watches[watch.0].resource)
    }

    /// What a resource's keys begin with.
    #[must_use]
    pub fn prefix(&self, resource: ResourceId) -> &str {
        &self.resources[resource.0].prefix
    }

    /// The latest revision that anyone was told: what a linearizable read that begins now must have.
    #[must_use]
    pub fn newest(&self) -> i64 {
        self.newest
    }

    /// Tells whether every watch has come to a revision.
    #[must_use]
    pub fn all_at(&self, revision: i64) -> bool {
        self.watches.iter().all(|watch| watch.position() >= revision)
    }

    /// A watch was told of events.
    pub fn told(&mut self, watch: WatchId, events: Vec<Event>) -> Result<(), Violation> {
        for event in events {
            self.newest = self.newest.max(event.revision);
            self.event(watch, event)?;
        }
        self.compare_reads(self.watches[watch.0].resource)
    }

    fn event(&mut self, id: WatchId, event: Event) -> Result<(), Violation> {
        let watch = &self.watches[id.0];
        let resource = &self.resources[watch.resource.0];
        in_order(watch, resource, &event)?;
        fits(watch, &event)?;
        if let Some(other) = resource.history.event(event.revision) {
            if *other != event {
                let (watch, other) = (watch.name.clone(), Box::new(other.clone()));
                return Err(Violation::Differs { watch, event: Box::new(event), other });
            }
        } else {
            self.nobody_went_past(watch.resource, event.revision)?;
        }
        if let Some(written) = resource.written.get(&event.revision) {
            is_what_was_written(written, &event)?;
        }
        let of = watch.resource;
        let watch = &mut self.watches[id.0];
        watch.last = event.revision;
        match &event.now {
            Some(version) => watch.state.insert(event.key.clone(), version.clone()),
            None => watch.state.remove(&event.key),
        };
        self.resources[of.0].history.add(event);
        Ok(())
    }

    /// A watch was told that it has all up to a revision.
    pub fn bookmark(&mut self, id: WatchId, revision: i64) -> Result<(), Violation> {
        let watch = &self.watches[id.0];
        let resource = &self.resources[watch.resource.0];
        let after = watch.position();
        if revision < after {
            let watch = watch.name.clone();
            return Err(Violation::BookmarkBack { watch, bookmark: revision, after });
        }
        if let Some(missing) = resource.missing(after, revision + 1) {
            let watch = watch.name.clone();
            return Err(Violation::BookmarkAhead { watch, bookmark: revision, revision: missing });
        }
        let of = watch.resource;
        self.watches[id.0].bookmark = revision;
        self.newest = self.newest.max(revision);
        self.compare_reads(of)
    }

    /// A write was acknowledged.
    pub fn wrote(
        &mut self,
        id: ResourceId,
        revision: i64,
        written: Written,
    ) -> Result<(), Violation> {
        self.newest = self.newest.max(revision);
        let resource = &self.resources[id.0];
        if let Some(other) = resource.written.get(&revision) {
            let (written, other) = (written.to_string(), other.to_string());
            return Err(Violation::SameRevision { revision, written, other });
        }
        match resource.history.event(revision) {
            Some(event) => is_what_was_written(&written, event)?,
            None => self.nobody_went_past(id, revision)?,
        }
        self.resources[id.0].written.insert(revision, written);
        Ok(())
    }

    /// A read was answered.
    pub fn read(&mut self, id: ResourceId, read: Read) -> Result<(), Violation> {
        let Read { floor, revision, found } = read;
        let resource = &mut self.resources[id.0];
        if revision < floor {
            let what = resource.what(&found);
            return Err(Violation::Stale { what, revision, floor });
        }
        self.newest = self.newest.max(revision);
        resource.reads.entry(revision).or_default().push(found);
        self.compare_reads(id)
    }

    /// A change was refused, since the key did not have the revision `base`; with it came a read.
    pub fn conflict(&mut self, id: ResourceId, base: i64, read: Read) -> Result<(), Violation> {
        if let Found::Key(key, version) = &read.found
            && version.as_ref().map_or(0, |version| version.modified) == base
        {
            let (key, revision) = (key.clone(), read.revision);
            return Err(Violation::NoConflict { key, base, revision });
        }
        self.read(id, read)
    }

    /// A compactor won the round in which it compared with a version.
    pub fn compactor_won(&mut self, version: i64) -> Result<(), Violation> {
        let is_first = self.won.insert(version);
        is_first.then_some(()).ok_or(Violation::TwoCompactors { version })
    }

    /// Everything has happened, and the store is at a revision: nothing may be open any more.
    pub fn finish(&self, revision: i64) -> Result<(), Violation> {
        if let Some(watch) = self.watches.iter().find(|watch| watch.position() < revision) {
            let (watch, reached) = (watch.name.clone(), watch.position());
            return Err(Violation::Behind { watch, reached, revision });
        }
        for resource in &self.resources {
            let open = resource.reads.iter().next();
            let open = open.and_then(|(revision, found)| Some((*revision, found.first()?)));
            if let Some((revision, found)) = open {
                return Err(Violation::Unchecked { what: resource.what(found), revision });
            }
        }
        Ok(())
    }

    /// Checks, for an event that was not known, that no watch is further and was not told of it.
    fn nobody_went_past(&self, of: ResourceId, revision: i64) -> Result<(), Violation> {
        let further = |watch: &&Watch| watch.resource == of && watch.position() >= revision;
        match self.watches.iter().find(further) {
            None => Ok(()),
            Some(watch) => Err(went_past(watch, revision)),
        }
    }

    /// Compares the reads that some watch has come to with the history.
    fn compare_reads(&mut self, of: ResourceId) -> Result<(), Violation> {
        let watches = self.watches.iter().filter(|watch| watch.resource == of);
        let known = watches.map(Watch::position).max().unwrap_or(0);
        let resource = &mut self.resources[of.0];
        while let Some(entry) = resource.reads.first_entry() {
            let revision = *entry.key();
            if revision > known {
                break;
            }
            for found in entry.remove() {
                resource.compare(revision, &found)?;
            }
        }
        Ok(())
    }
}

impl Resource {
    /// The first revision behind `after` and before `before` at which something is known to have
    /// happened.
    fn missing(&self, after: i64, before: i64) -> Option<i64> {
        let told = self.history.between(after, before);
        let written = first_between(&self.written, after, before);
        told.into_iter().chain(written).min()
    }

    fn what(&self, found: &Found) -> String {
        match found {
            Found::Key(key, _) => format!("`{key}`"),
            Found::All(_) => format!("all of {}", self.prefix),
            Found::Count(_) => format!("the number of {}", self.prefix),
        }
    }

    fn compare(&self, revision: i64, found: &Found) -> Result<(), Violation> {
        let history = &self.history;
        let difference = match found {
            Found::Key(key, found) => {
                let expected = history.at(key, revision);
                (found.as_ref() != expected)
                    .then(|| (format!("{found:?}"), format!("{expected:?}")))
            }
            Found::Count(found) => {
                let expected = i64::try_from(history.all(revision).count()).unwrap_or(i64::MAX);
                (*found != expected).then(|| (found.to_string(), expected.to_string()))
            }
            Found::All(found) => difference(history, revision, found),
        };
        match difference {
            None => Ok(()),
            Some((found_text, expected)) => {
                let what = self.what(found);
                Err(Violation::WrongRead { what, revision, found: found_text, expected })
            }
        }
    }
}

/// The first key of which a listing and the history say different things, and what they say.
fn difference(
    history: &History,
    revision: i64,
    found: &[(String, Version)],
) -> Option<(String, String)> {
    let found: BTreeMap<&str, &Version> =
        found.iter().map(|(key, version)| (key.as_str(), version)).collect();
    let expected: BTreeMap<&str, &Version> = history.all(revision).collect();
    let differs = |key: &&&str| found.get(**key) != expected.get(**key);
    let key = found.keys().chain(expected.keys()).filter(differs).min()?;
    let say = |all: &BTreeMap<&str, &Version>| format!("`{key}` as {:?}", all.get(key));
    Some((say(&found), say(&expected)))
}

/// What a watch did that is further than an event of which it was not told.
fn went_past(watch: &Watch, revision: i64) -> Violation {
    let name = watch.name.clone();
    if revision <= watch.bookmark && watch.last < revision {
        Violation::BookmarkAhead { watch: name, bookmark: watch.bookmark, revision }
    } else {
        Violation::Lost { watch: name, revision, then: watch.position() }
    }
}

/// Checks that an event is the next one of a watch.
fn in_order(watch: &Watch, resource: &Resource, event: &Event) -> Result<(), Violation> {
    let (name, revision) = (watch.name.clone(), event.revision);
    if !event.key.starts_with(&resource.prefix) {
        return Err(Violation::Foreign { watch: name, key: event.key.clone() });
    }
    let position = watch.position();
    if revision <= position {
        return Err(if resource.history.event(revision).is_some() {
            Violation::Doubled { watch: name, revision }
        } else if revision <= watch.bookmark {
            Violation::BookmarkAhead { watch: name, bookmark: watch.bookmark, revision }
        } else {
            Violation::OutOfOrder { watch: name, revision, after: watch.last }
        });
    }
    match resource.missing(position, revision) {
        None => Ok(()),
        Some(missing) => Err(Violation::Lost { watch: name, revision: missing, then: revision }),
    }
}

/// Checks that an event follows from what the watch was told before.
fn fits(watch: &Watch, event: &Event) -> Result<(), Violation> {
    let (name, boxed) = (watch.name.clone(), Box::new(event.clone()));
    let Event { key, revision, now, before } = event;
    let was = watch.state.get(key);
    if was != before.as_ref() {
        let was = Box::new(was.cloned());
        return Err(Violation::WrongBefore { watch: name, event: boxed, was });
    }
    let follows = match (before, now) {
        (None, None) => false,
        (Some(_), None) => true,
        (None, Some(now)) => (now.created, now.modified, now.version) == (*revision, *revision, 1),
        (Some(before), Some(now)) => {
            let expected = (before.created, *revision, before.version + 1);
            (now.created, now.modified, now.version) == expected
        }
    };
    follows.then_some(()).ok_or(Violation::WrongNumbers { watch: name, event: boxed })
}

/// Checks an event against the write that was acknowledged at its revision.
fn is_what_was_written(written: &Written, event: &Event) -> Result<(), Violation> {
    let value = event.now.as_ref().map(|version| (version.value, version.lease));
    let base = event.before.as_ref().map_or(0, |version| version.modified);
    let same = written.key == event.key && written.base == base && written.value == value;
    same.then_some(()).ok_or_else(|| Violation::NotWhatWasWritten {
        revision: event.revision,
        written: written.to_string(),
        event: Box::new(event.clone()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PODS: &str = "/pods/";
    const ONE: WatchId = WatchId(0);
    const TWO: WatchId = WatchId(1);
    const ALL: ResourceId = ResourceId(0);

    /// Two watches of one resource, which is empty at revision 1.
    fn checker() -> Checker {
        let mut checker = Checker::default();
        let pods = checker.resource(PODS, Vec::new());
        assert_eq!([checker.watch("one", pods, 1), checker.watch("two", pods, 1)], [ONE, TWO]);
        checker
    }

    fn version(created: i64, modified: i64, version: i64) -> Version {
        Version { created, modified, version, lease: 0, value: Value::of(b"v") }
    }

    fn event(key: &str, revision: i64, now: Option<Version>, before: Option<Version>) -> Event {
        Event { key: format!("{PODS}{key}"), revision, now, before }
    }

    fn created(key: &str, revision: i64) -> Event {
        event(key, revision, Some(version(revision, revision, 1)), None)
    }

    fn deleted(key: &str, revision: i64, before: Version) -> Event {
        event(key, revision, None, Some(before))
    }

    fn written(key: &str, base: i64) -> Written {
        Written { key: format!("{PODS}{key}"), base, value: Some((Value::of(b"v"), 0)) }
    }

    fn read(revision: i64, found: Found) -> Read {
        Read { floor: 0, revision, found }
    }

    #[track_caller]
    fn broken(done: Result<(), Violation>, expected: &str) {
        let violation = done.expect_err("it was not noticed").to_string();
        assert!(violation.starts_with(expected), "{violation}");
    }

    #[test]
    fn a_store_that_keeps_its_promises_is_not_accused() {
        let mut checker = checker();
        checker.wrote(ALL, 3, written("a", 0)).unwrap();
        checker.told(ONE, vec![created("a", 3), created("b", 5)]).unwrap();
        checker.wrote(ALL, 5, written("b", 0)).unwrap();
        let all =
            vec![(format!("{PODS}a"), version(3, 3, 1)), (format!("{PODS}b"), version(5, 5, 1))];
        checker.read(ALL, read(5, Found::All(all))).unwrap();
        checker.read(ALL, read(4, Found::Count(1))).unwrap();
        let again = event("a", 7, Some(version(3, 7, 2)), Some(version(3, 3, 1)));
        checker.told(TWO, vec![created("a", 3), created("b", 5), again.clone()]).unwrap();
        checker.bookmark(TWO, 7).unwrap();
        checker.told(ONE, vec![again]).unwrap();
        let gone = deleted("a", 8, version(3, 7, 2));
        for watch in [ONE, TWO] {
            checker.told(watch, vec![gone.clone()]).unwrap();
            checker.bookmark(watch, 9).unwrap();
        }
        checker.read(ALL, read(9, Found::Key(format!("{PODS}a"), None))).unwrap();
        assert!(checker.all_at(9));
        checker.finish(9).unwrap();
    }

    #[test]
    fn an_event_that_another_watch_was_told_of_is_missed() {
        let mut checker = checker();
        checker.told(ONE, vec![created("a", 3), created("b", 4)]).unwrap();
        let told = checker.told(TWO, vec![created("b", 4)]);
        broken(told, "two's watch of /pods/ was not told of revision 3, and was told of 4");
    }

    #[test]
    fn an_event_that_the_first_watch_went_past_is_missed() {
        let mut checker = checker();
        checker.told(ONE, vec![created("b", 4)]).unwrap();
        let told = checker.told(TWO, vec![created("a", 3)]);
        broken(told, "one's watch of /pods/ was not told of revision 3, and was told of 4");
    }

    #[test]
    fn a_write_that_was_acknowledged_and_never_told_is_missed() {
        let mut first = checker();
        first.wrote(ALL, 3, written("a", 0)).unwrap();
        broken(first.told(ONE, vec![created("b", 4)]), "one's watch of /pods/ was not told of rev");
        let mut then = checker();
        then.told(ONE, vec![created("b", 4)]).unwrap();
        broken(then.wrote(ALL, 3, written("a", 0)), "one's watch of /pods/ was not told of rev");
    }

    #[test]
    fn an_event_that_comes_twice_is_noticed() {
        let mut checker = checker();
        checker.told(ONE, vec![created("a", 3)]).unwrap();
        let again = event("a", 3, Some(version(3, 3, 1)), Some(version(3, 3, 1)));
        broken(
            checker.told(ONE, vec![again]),
            "one's watch of /pods/ was told of revision 3 twice",
        );
    }

    #[test]
    fn events_out_of_order_are_noticed() {
        let told = checker().told(ONE, vec![created("b", 4), created("a", 3)]);
        broken(told, "one's watch of /pods/ was told of revision 3 after 4");
    }

    #[test]
    fn a_bookmark_ahead_of_its_events_is_noticed_whoever_tells_of_them() {
        let expected = "one's watch of /pods/ had a bookmark at 5 before it was told of revision 3";
        let mut by_itself = checker();
        by_itself.bookmark(ONE, 5).unwrap();
        broken(by_itself.told(ONE, vec![created("a", 3)]), expected);
        let mut by_another = checker();
        by_another.bookmark(ONE, 5).unwrap();
        broken(by_another.told(TWO, vec![created("a", 3)]), expected);
        let mut known = checker();
        known.told(TWO, vec![created("a", 3)]).unwrap();
        broken(known.bookmark(ONE, 5), expected);
        let mut by_a_write = checker();
        by_a_write.bookmark(ONE, 5).unwrap();
        broken(by_a_write.wrote(ALL, 3, written("a", 0)), expected);
        let mut by_a_write_before = checker();
        by_a_write_before.wrote(ALL, 3, written("a", 0)).unwrap();
        broken(by_a_write_before.bookmark(ONE, 5), expected);
    }

    #[test]
    fn a_bookmark_that_goes_back_is_noticed() {
        let mut checker = checker();
        checker.told(ONE, vec![created("a", 3)]).unwrap();
        broken(checker.bookmark(ONE, 2), "one's watch of /pods/ had a bookmark at 2 after it was");
    }

    #[test]
    fn a_former_value_that_is_not_the_one_told_is_noticed() {
        let mut wrong = checker();
        wrong.told(ONE, vec![created("a", 3)]).unwrap();
        let other = Version { value: Value::of(b"other"), ..version(3, 3, 1) };
        let told = wrong.told(ONE, vec![event("a", 4, Some(version(3, 4, 2)), Some(other))]);
        broken(told, "one's watch of /pods/: before Event");
        let mut absent = checker();
        absent.told(ONE, vec![created("a", 3)]).unwrap();
        let told = absent.told(ONE, vec![event("a", 4, Some(version(3, 4, 2)), None)]);
        broken(told, "one's watch of /pods/: before Event");
    }

    #[test]
    fn numbers_that_do_not_follow_are_noticed() {
        let before = || Some(version(3, 3, 1));
        for now in [version(3, 4, 3), version(4, 4, 2), version(3, 5, 2)] {
            let mut checker = checker();
            checker.told(ONE, vec![created("a", 3)]).unwrap();
            let told = checker.told(ONE, vec![event("a", 4, Some(now), before())]);
            broken(told, "one's watch of /pods/: the numbers do not follow in Event");
        }
        let nothing = checker().told(ONE, vec![event("a", 4, None, None)]);
        broken(nothing, "one's watch of /pods/: the numbers do not follow in Event");
    }

    #[test]
    fn watches_that_are_told_different_things_are_noticed() {
        let mut checker = checker();
        checker.told(ONE, vec![created("a", 3)]).unwrap();
        broken(checker.told(TWO, vec![created("b", 3)]), "two's watch of /pods/ was told Event");
    }

    #[test]
    fn an_event_that_is_not_what_was_written_is_noticed() {
        let lease = Written { value: Some((Value::of(b"v"), 7)), ..written("a", 0) };
        let value = Written { value: Some((Value::of(b"w"), 0)), ..written("a", 0) };
        let deletion = Written { value: None, ..written("a", 0) };
        for wrong in [written("b", 0), written("a", 2), lease, value, deletion] {
            let mut before = checker();
            before.wrote(ALL, 3, wrong.clone()).unwrap();
            broken(before.told(ONE, vec![created("a", 3)]), "revision 3 was acknowledged for");
            let mut after = checker();
            after.told(ONE, vec![created("a", 3)]).unwrap();
            broken(after.wrote(ALL, 3, wrong), "revision 3 was acknowledged for");
        }
    }

    #[test]
    fn two_writes_at_one_revision_are_noticed() {
        let mut checker = checker();
        checker.wrote(ALL, 3, written("a", 0)).unwrap();
        broken(checker.wrote(ALL, 3, written("b", 0)), "revision 3 was acknowledged for `/pods/b`");
    }

    #[test]
    fn a_key_that_is_not_watched_is_noticed() {
        let other = Event { key: "/nodes/a".to_owned(), ..created("a", 3) };
        broken(checker().told(ONE, vec![other]), "one's watch of /pods/ was told of `/nodes/a`");
    }

    #[test]
    fn a_read_of_the_past_is_noticed() {
        let mut checker = checker();
        checker.wrote(ALL, 7, written("a", 0)).unwrap();
        let stale = Read { floor: checker.newest(), revision: 6, found: Found::Count(0) };
        broken(checker.read(ALL, stale), "a read of the number of /pods/ is of revision 6, and 7");
    }

    #[test]
    fn a_read_that_does_not_agree_with_the_watches_is_noticed_before_and_after_them() {
        let key = |version| Found::Key(format!("{PODS}a"), version);
        let all = |keys: &[(&str, i64)]| {
            let one = |(key, at): &(&str, i64)| (format!("{PODS}{key}"), version(*at, *at, 1));
            Found::All(keys.iter().map(one).collect())
        };
        let wrong = [
            key(None),
            key(Some(version(3, 3, 2))),
            Found::Count(1),
            Found::Count(3),
            all(&[("a", 3)]),
            all(&[("a", 3), ("b", 5)]),
            all(&[("a", 3), ("b", 4), ("c", 4)]),
        ];
        for found in wrong {
            let events = || vec![created("a", 3), created("b", 4)];
            let mut before = checker();
            before.read(ALL, read(4, found.clone())).unwrap();
            broken(before.told(ONE, events()), "a read of ");
            let mut after = checker();
            after.told(ONE, events()).unwrap();
            broken(after.read(ALL, read(4, found)), "a read of ");
        }
        let mut right = checker();
        right.read(ALL, read(4, all(&[("a", 3), ("b", 4)]))).unwrap();
        right.told(ONE, vec![created("a", 3), created("b", 4)]).unwrap();
    }

    #[test]
    fn a_change_that_was_refused_for_nothing_is_noticed() {
        let a = |version| read(4, Found::Key(format!("{PODS}a"), version));
        let refused = checker().conflict(ALL, 3, a(Some(version(3, 3, 1))));
        broken(refused, "a change of `/pods/a` on 3 was refused at revision 4, where it has that");
        broken(checker().conflict(ALL, 0, a(None)), "a change of `/pods/a` on 0 was refused");
        checker().conflict(ALL, 2, a(Some(version(3, 3, 1)))).unwrap();
    }

    #[test]
    fn two_winners_of_one_round_are_noticed() {
        let mut checker = checker();
        checker.compactor_won(1).unwrap();
        checker.compactor_won(2).unwrap();
        broken(checker.compactor_won(1), "two compactors won the round after version 1");
    }

    #[test]
    fn what_is_open_in_the_end_is_said() {
        let mut behind = checker();
        behind.bookmark(ONE, 9).unwrap();
        broken(
            behind.finish(9),
            "two's watch of /pods/ has come to revision 1, and the store is at 9",
        );
        let mut unchecked = checker();
        unchecked.read(ALL, read(12, Found::Count(0))).unwrap();
        for watch in [ONE, TWO] {
            unchecked.bookmark(watch, 9).unwrap();
        }
        broken(unchecked.finish(9), "no watch came to revision 12, at which the number of /pods/");
    }

    #[test]
    fn a_watch_begins_with_what_was_there() {
        let mut checker = Checker::default();
        let there = vec![(format!("{PODS}a"), version(3, 3, 1))];
        let pods = checker.resource(PODS, there);
        let watch = checker.watch("late", pods, 5);
        let next = event("a", 6, Some(version(3, 6, 2)), Some(version(3, 3, 1)));
        checker.told(watch, vec![next]).unwrap();
        assert_eq!(checker.position(watch), 6);
        broken(
            checker.told(watch, vec![created("b", 4)]),
            "late's watch of /pods/ had a bookmark at 5",
        );
    }
}
