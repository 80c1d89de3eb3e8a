//! What a kube-apiserver asks next: a mix of requests, from a seed. Pure.
//!
//! It knows the keys and their revisions from the answers that it is told of, as an apiserver does
//! from its cache, and is wrong about them now and then, as that is.

use std::collections::BTreeMap;

use corebox::foundation::random::Random;

use crate::trace::checker::ResourceId;

/// Below this are all keys of a trace, and nothing else should be.
const ROOT: &str = "/corebox-trace";
/// How many keys are bound to one lease before the next is granted.
const KEYS_OF_A_LEASE: u32 = 200;
/// One in so many changes is on a revision that the key no longer has.
const STALE: u64 = 50;
/// One in so many reads of a key is of one that is not there.
const ABSENT: u64 = 20;

/// One resource of the trace.
#[derive(Debug, Clone, Copy)]
struct Kind {
    name: &'static str,
    /// Below so many keys a change creates one.
    least: usize,
    /// Above so many a creation deletes one instead.
    most: usize,
    value_bytes: usize,
}

const fn kind(name: &'static str, least: usize, most: usize, value_bytes: usize) -> Kind {
    Kind { name, least, most, value_bytes }
}

const PODS: usize = 0;
const LEASES: usize = 1;
const NODES: usize = 2;
const CONFIG: usize = 3;
const SLICES: usize = 4;
const EVENTS: usize = 5;

/// About the numbers and sizes of a cluster of a hundred nodes.
const KINDS: [Kind; 6] = [
    kind("pods", 150, 300, 2500),
    kind("leases", 100, 100, 400),
    kind("nodes", 100, 100, 4000),
    kind("configmaps", 60, 120, 1500),
    kind("endpointslices", 80, 120, 1000),
    kind("events", 0, usize::MAX, 700),
];

/// One kind of request.
#[derive(Debug, Clone, Copy)]
enum What {
    Update(usize),
    Create(usize),
    Delete(usize),
    Event,
    Get,
    List,
    Count,
    Status,
    Health,
}

/// Of a thousand requests.
const MIX: &[(u64, What)] = &[
    (200, What::Update(LEASES)),
    (170, What::Update(PODS)),
    (40, What::Update(NODES)),
    (50, What::Update(SLICES)),
    (30, What::Update(CONFIG)),
    (60, What::Create(PODS)),
    (60, What::Delete(PODS)),
    (20, What::Create(CONFIG)),
    (20, What::Delete(CONFIG)),
    (90, What::Event),
    (160, What::Get),
    (60, What::List),
    (20, What::Count),
    (10, What::Status),
    (10, What::Health),
];

/// What to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Read a key.
    Get(ResourceId, String),
    /// Read a resource, page by page, all of one revision.
    List(ResourceId),
    /// Count a resource's keys.
    Count(ResourceId),
    /// Put or delete a key if it still has a revision, 0 for none; else read it.
    Change(Change),
    /// Grant a lease for events.
    Grant,
    /// Ask a member for its status.
    Status,
    /// Ask a member whether it is healthy.
    Health,
}

/// A change of a key that is made if nobody else made one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Of which resource.
    pub resource: ResourceId,
    /// The key.
    pub key: String,
    /// The revision that it must have.
    pub base: i64,
    /// The value; none deletes the key.
    pub value: Option<Vec<u8>>,
    /// The lease, or 0.
    pub lease: i64,
}

/// What is asked, and known, so far.
#[derive(Debug)]
pub struct Mix {
    random: Random,
    /// The revision of each key of each resource.
    known: Vec<BTreeMap<String, i64>>,
    /// Numbers the keys.
    keys: u64,
    /// Numbers the values, so that no two are the same.
    values: u64,
    lease: i64,
    lease_keys_left: u32,
}

impl Mix {
    /// Begins without any key.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let known = vec![BTreeMap::new(); KINDS.len()];
        let random = Random::seeded(seed);
        Self { random, known, keys: 0, values: 0, lease: 0, lease_keys_left: 0 }
    }

    /// The prefixes of all resources, in the order of their ids.
    pub fn prefixes() -> impl Iterator<Item = String> {
        KINDS.iter().map(|kind| format!("{ROOT}/{}/", kind.name))
    }

    /// The key by which compactors agree: none of the resources has it.
    #[must_use]
    pub fn compactors_key() -> String {
        format!("{ROOT}-compact_rev_key")
    }

    /// A key has this revision, or is not there.
    pub fn learned(&mut self, resource: ResourceId, key: &str, revision: Option<i64>) {
        let known = &mut self.known[resource.0];
        match revision {
            // Answers overtake each other.
            Some(revision) => {
                let latest = known.entry(key.to_owned()).or_insert(revision);
                *latest = revision.max(*latest);
            }
            None => drop(known.remove(key)),
        }
    }

    /// A lease was granted, or not.
    pub fn granted(&mut self, lease: Option<i64>) {
        self.lease = lease.unwrap_or(self.lease);
        self.lease_keys_left = lease.map_or(0, |_| KEYS_OF_A_LEASE);
    }

    /// What to ask next.
    pub fn next_ask(&mut self) -> Ask {
        let mut drawn = self.random.below(MIX.iter().map(|(weight, _)| weight).sum());
        let chosen = MIX.iter().find(|(weight, _)| {
            let here = drawn < *weight;
            drawn = drawn.saturating_sub(*weight);
            here
        });
        match chosen.map_or(What::Get, |(_, what)| *what) {
            What::Update(of) => self.update(of),
            What::Create(of) if self.known[of].len() < KINDS[of].most => self.create(of, 0),
            What::Create(of) | What::Delete(of) => self.delete(of),
            What::Event => self.event(),
            What::Get => self.get(),
            What::List => Ask::List(self.any()),
            What::Count => Ask::Count(self.any()),
            What::Status => Ask::Status,
            What::Health => Ask::Health,
        }
    }

    fn any(&self) -> ResourceId {
        let count = u64::try_from(KINDS.len()).unwrap_or(u64::MAX);
        ResourceId(usize::try_from(self.random.below(count)).unwrap_or(0))
    }

    /// One of the keys that are known, with its revision.
    fn known(&self, of: usize) -> Option<(String, i64)> {
        let known = &self.known[of];
        let at = self.random.below(u64::try_from(known.len()).unwrap_or(u64::MAX));
        let (key, revision) = known.iter().nth(usize::try_from(at).ok()?)?;
        Some((key.clone(), *revision))
    }

    fn get(&self) -> Ask {
        let of = self.any();
        let missing = || format!("{ROOT}/{}/nobody", KINDS[of.0].name);
        let known = if self.random.one_in(ABSENT) { None } else { self.known(of.0) };
        Ask::Get(of, known.map_or_else(missing, |(key, _)| key))
    }

    fn update(&mut self, of: usize) -> Ask {
        if self.known[of].len() < KINDS[of].least {
            return self.create(of, 0);
        }
        let Some((key, revision)) = self.known(of) else { return self.create(of, 0) };
        self.change(of, key, revision, 0)
    }

    fn create(&mut self, of: usize, lease: i64) -> Ask {
        self.keys += 1;
        let key = format!("{ROOT}/{}/{:08}", KINDS[of].name, self.keys);
        let value = Some(self.value(of));
        Ask::Change(Change { resource: ResourceId(of), key, base: 0, value, lease })
    }

    fn delete(&mut self, of: usize) -> Ask {
        let few = self.known[of].len() <= KINDS[of].least;
        match self.known(of) {
            Some((key, revision)) if !few => {
                let Ask::Change(change) = self.change(of, key, revision, 0) else {
                    return self.get();
                };
                Ask::Change(Change { value: None, ..change })
            }
            _ => self.create(of, 0),
        }
    }

    fn change(&mut self, of: usize, key: String, revision: i64, lease: i64) -> Ask {
        let base = if self.random.one_in(STALE) { revision - 1 } else { revision };
        let value = Some(self.value(of));
        Ask::Change(Change { resource: ResourceId(of), key, base, value, lease })
    }

    fn event(&mut self) -> Ask {
        if self.lease_keys_left == 0 {
            // Until it is granted, events go on with the one before, if there is one.
            self.lease_keys_left = KEYS_OF_A_LEASE;
            return Ask::Grant;
        }
        self.lease_keys_left -= 1;
        self.create(EVENTS, self.lease)
    }

    fn value(&mut self, of: usize) -> Vec<u8> {
        self.values += 1;
        let mut value = format!("{{\"kind\":\"{}\",\"n\":{}}}", KINDS[of].name, self.values);
        value.extend(std::iter::repeat_n(' ', KINDS[of].value_bytes.saturating_sub(value.len())));
        value.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks so often, with a store that does what it is asked.
    fn asked(seed: u64, count: i64) -> Vec<Ask> {
        let mut mix = Mix::new(seed);
        let mut asked = Vec::new();
        for revision in 2..count + 2 {
            let ask = mix.next_ask();
            if let Ask::Change(change) = &ask {
                let now = change.value.as_ref().map(|_| revision);
                mix.learned(change.resource, &change.key, now);
            } else if ask == Ask::Grant {
                mix.granted(Some(revision));
            }
            asked.push(ask);
        }
        asked
    }

    fn change(ask: &Ask) -> Option<&Change> {
        if let Ask::Change(change) = ask { Some(change) } else { None }
    }

    #[test]
    fn a_seed_always_asks_the_same() {
        assert_eq!(asked(7, 500), asked(7, 500));
        assert_ne!(asked(7, 500), asked(8, 500));
    }

    #[test]
    fn everything_is_asked() {
        let all = asked(1, 20_000);
        let changes = || all.iter().filter_map(change);
        assert!(changes().any(|change| change.base == 0 && change.lease == 0));
        assert!(changes().any(|change| change.base > 0 && change.value.is_some()));
        assert!(changes().any(|change| change.base > 0 && change.value.is_none()));
        assert!(changes().filter(|change| change.lease != 0).count() > 1000);
        for ask in [Ask::Grant, Ask::Status, Ask::Health] {
            assert!(all.contains(&ask), "{ask:?}");
        }
        for at in 0..KINDS.len() {
            assert!(all.contains(&Ask::List(ResourceId(at))));
            assert!(all.contains(&Ask::Count(ResourceId(at))));
            assert!(all.iter().any(|ask| matches!(ask, Ask::Get(of, _) if of.0 == at)));
        }
    }

    #[test]
    fn no_two_values_are_the_same() {
        let mut values: Vec<_> =
            asked(3, 2000).iter().filter_map(|ask| change(ask)?.value.clone()).collect();
        let count = values.len();
        assert!(count > 1000);
        values.sort();
        values.dedup();
        assert_eq!(values.len(), count);
    }

    #[test]
    fn an_answer_that_was_overtaken_teaches_nothing() {
        let mut mix = Mix::new(1);
        let nodes = ResourceId(NODES);
        mix.learned(nodes, "k", Some(9));
        mix.learned(nodes, "k", Some(8));
        assert_eq!(mix.known(NODES), Some(("k".to_owned(), 9)));
        mix.learned(nodes, "k", None);
        assert_eq!(mix.known(NODES), None);
    }
}
