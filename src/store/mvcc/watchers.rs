//! Who watches what: which watchers a batch of events concerns.
//!
//! Watchers of one key are found by the key. Those of ranges are in a tree of intervals that is laid
//! out in a list: the middle of a list is its root, and each entry knows which interval below it
//! reaches furthest. The list is made again when it is asked after a change.

use std::collections::{BTreeMap, BTreeSet};

use crate::store::mvcc::key_range::KeyRange;

type Interval = KeyRange<Box<[u8]>>;

/// Watchers by what they watch. `I` names a watcher, or a stream of several.
#[derive(Debug, Clone)]
pub struct Watchers<I> {
    keys: BTreeMap<Box<[u8]>, BTreeSet<I>>,
    ranges: BTreeMap<Interval, BTreeSet<I>>,
    /// `None` after a change.
    tree: Option<Vec<Node>>,
}

#[derive(Debug, Clone)]
struct Node {
    interval: Interval,
    /// Where in the list the interval is that reaches furthest, of this one and those below it.
    furthest: usize,
}

impl<I> Default for Watchers<I> {
    fn default() -> Self {
        Self { keys: BTreeMap::new(), ranges: BTreeMap::new(), tree: None }
    }
}

impl<I: Copy + Ord> Watchers<I> {
    /// Adds a watcher of a range.
    pub fn add(&mut self, range: &KeyRange<impl AsRef<[u8]>>, id: I) {
        if let KeyRange::One(key) = range {
            self.keys.entry(key.as_ref().into()).or_default().insert(id);
            return;
        }
        let ids = self.ranges.entry(range.to_owned()).or_insert_with(|| {
            self.tree = None;
            BTreeSet::new()
        });
        ids.insert(id);
    }

    /// Removes a watcher of a range; tells whether it was there.
    pub fn remove(&mut self, range: &KeyRange<impl AsRef<[u8]>>, id: I) -> bool {
        if let KeyRange::One(key) = range {
            return remove_from(&mut self.keys, &Box::from(key.as_ref()), &id);
        }
        let range = range.to_owned();
        let removed = remove_from(&mut self.ranges, &range, &id);
        if !self.ranges.contains_key(&range) {
            self.tree = None;
        }
        removed
    }

    /// Returns all whose range has one of the keys: those of a batch's events.
    pub fn concerned(&mut self, keys: &BTreeSet<&[u8]>) -> BTreeSet<I> {
        let tree = self.tree.get_or_insert_with(|| layout(&self.ranges));
        let mut found = BTreeSet::new();
        for key in keys {
            found.extend(self.keys.get(*key).into_iter().flatten());
            stab(tree, (0, tree.len()), key, &mut |interval| {
                found.extend(self.ranges.get(interval).into_iter().flatten());
            });
        }
        found
    }
}

fn remove_from<K: Ord, I: Ord>(map: &mut BTreeMap<K, BTreeSet<I>>, key: &K, id: &I) -> bool {
    let Some(ids) = map.get_mut(key) else { return false };
    let removed = ids.remove(id);
    if ids.is_empty() {
        map.remove(key);
    }
    removed
}

fn layout<I>(ranges: &BTreeMap<Interval, BTreeSet<I>>) -> Vec<Node> {
    let mut nodes: Vec<Node> = ranges
        .keys()
        .filter(|interval| !interval.is_empty())
        .map(|interval| Node { interval: interval.clone(), furthest: 0 })
        .collect();
    nodes.sort_by(|left, right| left.interval.start().cmp(right.interval.start()));
    mark_furthest(&mut nodes, 0);
    nodes
}

/// Marks the furthest intervals of the tree in `nodes`, which begin at `base` in the whole list, and
/// returns that of its root.
fn mark_furthest(nodes: &mut [Node], base: usize) -> Option<usize> {
    let middle = nodes.len() / 2;
    if nodes.is_empty() {
        return None;
    }
    let left = mark_furthest(&mut nodes[..middle], base);
    let right = mark_furthest(&mut nodes[middle + 1..], base + middle + 1);
    let furthest = [left, right].into_iter().flatten().fold(base + middle, |best, other| {
        let (best_end, other_end) = (&nodes[best - base].interval, &nodes[other - base].interval);
        if reaches_further(other_end, best_end) { other } else { best }
    });
    nodes[middle].furthest = furthest;
    Some(furthest)
}

fn reaches_further(one: &Interval, other: &Interval) -> bool {
    match (one, other) {
        (_, KeyRange::From(_)) => false,
        (KeyRange::From(_), _) => true,
        (KeyRange::Span { to: one, .. }, KeyRange::Span { to: other, .. }) => one > other,
        (KeyRange::One(_), _) | (_, KeyRange::One(_)) => {
            unreachable!("one key is not in the tree of ranges")
        }
    }
}

/// Calls `found` with every interval that has the key, in the tree from `low` to before `high`.
fn stab(
    nodes: &[Node],
    (low, high): (usize, usize),
    key: &[u8],
    found: &mut impl FnMut(&Interval),
) {
    let middle = usize::midpoint(low, high);
    if low >= high || !nodes[nodes[middle].furthest].interval.reaches(key) {
        return;
    }
    stab(nodes, (low, middle), key, found);
    let interval = &nodes[middle].interval;
    if interval.start() <= key {
        if interval.reaches(key) {
            found(interval);
        }
        stab(nodes, (middle + 1, high), key, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(0_u8..3, 1..4)
    }

    fn range() -> impl Strategy<Value = KeyRange<Vec<u8>>> {
        prop_oneof![
            bytes().prop_map(KeyRange::One),
            bytes().prop_map(KeyRange::From),
            (bytes(), bytes()).prop_map(|(from, to)| KeyRange::Span { from, to }),
        ]
    }

    proptest! {
        #[test]
        fn exactly_those_are_found_whose_range_has_a_key(
            steps in proptest::collection::vec((range(), 0_u32..20, any::<bool>()), 1..60),
            keys in proptest::collection::vec(bytes(), 1..4),
        ) {
            let mut watchers = Watchers::default();
            let mut plain = BTreeSet::new();
            for (range, id, add) in steps {
                if add {
                    watchers.add(&range, id);
                    plain.insert((range, id));
                } else {
                    let known = plain.iter().find(|(_, known)| *known == id).cloned();
                    let (range, id) = known.unwrap_or((range, id));
                    prop_assert_eq!(watchers.remove(&range, id), plain.remove(&(range, id)));
                }
                let expected: BTreeSet<u32> = plain
                    .iter()
                    .filter(|(range, _)| keys.iter().any(|key| range.contains(key)))
                    .map(|(_, id)| *id)
                    .collect();
                let keys = keys.iter().map(Vec::as_slice).collect();
                prop_assert_eq!(watchers.concerned(&keys), expected);
            }
        }
    }
}
