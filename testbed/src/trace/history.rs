//! What the keys of one resource were at every revision, as watches have told it.

use std::collections::BTreeMap;
use std::ops::Bound;

/// A value, as far as two of them are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Value {
    bytes: usize,
    crc: u32,
}

impl Value {
    /// What is compared of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self { bytes: bytes.len(), crc: crc32c::crc32c(bytes) }
    }
}

/// What a key was after one change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The revision that created the key.
    pub created: i64,
    /// The revision of the change.
    pub modified: i64,
    /// How many changes there were since the key was created.
    pub version: i64,
    /// The lease that it is bound to, or 0.
    pub lease: i64,
    /// Its value.
    pub value: Value,
}

/// One change of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The key.
    pub key: String,
    /// The revision.
    pub revision: i64,
    /// What the key is since then; nothing if it is deleted.
    pub now: Option<Version>,
    /// What it was before.
    pub before: Option<Version>,
}

/// All that is known to have happened to the keys of one resource.
#[derive(Debug, Default)]
pub struct History {
    events: BTreeMap<i64, Event>,
    keys: BTreeMap<String, BTreeMap<i64, Option<Version>>>,
}

impl History {
    /// Begins with what a listing found.
    #[must_use]
    pub fn from(found: Vec<(String, Version)>) -> Self {
        let mut history = Self::default();
        for (key, version) in found {
            history.keys.entry(key).or_default().insert(version.modified, Some(version));
        }
        history
    }

    /// Adds what happened.
    pub fn add(&mut self, event: Event) {
        let versions = self.keys.entry(event.key.clone()).or_default();
        versions.insert(event.revision, event.now.clone());
        self.events.insert(event.revision, event);
    }

    /// What happened at a revision.
    #[must_use]
    pub fn event(&self, revision: i64) -> Option<&Event> {
        self.events.get(&revision)
    }

    /// The first revision behind `after` and before `before` at which something happened.
    #[must_use]
    pub fn between(&self, after: i64, before: i64) -> Option<i64> {
        first_between(&self.events, after, before)
    }

    /// What a key was at a revision.
    #[must_use]
    pub fn at(&self, key: &str, revision: i64) -> Option<&Version> {
        self.keys.get(key)?.range(..=revision).next_back()?.1.as_ref()
    }

    /// What all keys were at a revision, in the order of the keys.
    pub fn all(&self, revision: i64) -> impl Iterator<Item = (&str, &Version)> {
        let at = move |key: &str| self.at(key, revision);
        self.keys.keys().filter_map(move |key| Some((key.as_str(), at(key)?)))
    }
}

/// The first number of a map behind `after` and before `before`.
pub(super) fn first_between<T>(map: &BTreeMap<i64, T>, after: i64, before: i64) -> Option<i64> {
    if before <= after + 1 {
        return None;
    }
    let range = (Bound::Excluded(after), Bound::Excluded(before));
    map.range(range).next().map(|(revision, _)| *revision)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_moment_is_remembered() {
        let version = |created, modified, version| {
            let (lease, value) = (0, Value::of(b"x"));
            Version { created, modified, version, lease, value }
        };
        let mut history = History::from(vec![("a".to_owned(), version(3, 3, 1))]);
        let event = |key: &str, revision, now| {
            let key = key.to_owned();
            Event { key, revision, now, before: None }
        };
        history.add(event("b", 7, Some(version(7, 7, 1))));
        history.add(event("a", 8, None));
        history.add(event("a", 10, Some(version(10, 10, 1))));
        let keys = |revision| history.all(revision).map(|(key, _)| key).collect::<Vec<_>>();
        assert_eq!(keys(2), [""; 0]);
        assert_eq!(keys(6), ["a"]);
        assert_eq!(keys(7), ["a", "b"]);
        assert_eq!(keys(9), ["b"]);
        assert_eq!(history.at("a", 99).map(|version| version.modified), Some(10));
        assert_eq!((history.between(7, 10), history.between(8, 10)), (Some(8), None));
        assert_eq!((history.between(8, 8), history.between(8, 9)), (None, None));
    }
}
