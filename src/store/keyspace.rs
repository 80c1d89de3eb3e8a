//! The engine under an API's view: an ordered map of paths.
//!
//! Paths are text such as `/a/b`. What is below a path stands together in the order of bytes, so
//! that a listing is one walk and its children are found by skipping.
//!
//! **Not here yet:** old revisions of a record.

use std::collections::BTreeMap;
use std::ops::Bound;

use serde::{Deserialize, Serialize};

/// Records by path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keyspace<R> {
    records: BTreeMap<String, R>,
}

impl<R> Default for Keyspace<R> {
    fn default() -> Self {
        Self { records: BTreeMap::new() }
    }
}

/// The byte after `/`, with which a walk skips everything below a path.
const AFTER_SLASH: char = '0';

impl<R> Keyspace<R> {
    /// Returns how many records there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Tells whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Returns the record at exactly this path.
    pub fn get(&self, path: &str) -> Option<&R> {
        self.records.get(path)
    }

    /// Returns the record at exactly this path, to change it.
    pub fn get_mut(&mut self, path: &str) -> Option<&mut R> {
        self.records.get_mut(path)
    }

    /// Puts a record at a path and returns what was there.
    pub fn insert(&mut self, path: String, record: R) -> Option<R> {
        self.records.insert(path, record)
    }

    /// Takes the record at exactly this path away.
    pub fn remove(&mut self, path: &str) -> Option<R> {
        self.records.remove(path)
    }

    /// Walks everything below a path (not the path itself), in the order of bytes.
    pub fn below<'a>(&'a self, path: &str) -> impl Iterator<Item = (&'a str, &'a R)> {
        let start = below_start(path);
        let within = start.clone();
        self.records
            .range(start..)
            .take_while(move |(found, _)| found.starts_with(&within))
            .map(|(found, record)| (found.as_str(), record))
    }

    /// Walks the direct children of a path, in the order of bytes.
    pub fn children<'a>(&'a self, path: &str) -> impl Iterator<Item = (&'a str, &'a R)> {
        let within = below_start(path);
        let mut from = within.clone();
        std::iter::from_fn(move || {
            let from_here = (Bound::Included(from.as_str()), Bound::Unbounded);
            let (found, record) = self.records.range::<str, _>(from_here).next()?;
            if !found.starts_with(&within) {
                return None;
            }
            from.clear();
            from.push_str(found);
            // A sibling such as `/a-b` sorts between `/a` and `/a/b`: go on right after the path
            // itself, and skip what is below it where it comes up.
            let Some(at) = found[within.len()..].find('/') else {
                from.push('\0');
                return Some(Some((found.as_str(), record)));
            };
            from.truncate(within.len() + at);
            from.push(AFTER_SLASH);
            Some(None)
        })
        .flatten()
    }

    /// Takes everything below a path away and returns the paths.
    pub fn remove_below(&mut self, path: &str) -> Vec<(String, R)> {
        let start = below_start(path);
        let mut rest = self.records.split_off(&start);
        let mut end = start;
        end.pop();
        end.push(AFTER_SLASH);
        let mut after = rest.split_off(&end);
        self.records.append(&mut after);
        rest.into_iter().collect()
    }
}

fn below_start(path: &str) -> String {
    if path == "/" { "/".to_owned() } else { format!("{path}/") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keyspace(paths: &[&str]) -> Keyspace<()> {
        let records = paths.iter().map(|path| ((*path).to_owned(), ())).collect();
        Keyspace { records }
    }

    #[test]
    fn children_are_found_among_siblings_that_sort_in_between() {
        let space = keyspace(&["/a", "/a-b", "/a-b/c", "/a/b", "/a/b/c", "/a/b-c", "/b"]);
        let children = |path| space.children(path).map(|(path, ())| path).collect::<Vec<_>>();
        assert_eq!(children("/"), ["/a", "/a-b", "/b"]);
        assert_eq!(children("/a"), ["/a/b", "/a/b-c"]);
        assert_eq!(children("/b"), [""; 0]);
    }

    proptest! {
        #[test]
        fn children_and_removal_agree_with_the_plain_definition(
            paths in proptest::collection::btree_set("(/[ab.0-]{1,2}){1,3}", 0..30),
            at in "(/[ab.0-]{1,2}){1,2}",
        ) {
            let list: Vec<&str> = paths.iter().map(String::as_str).collect();
            let mut space = keyspace(&list);
            let below = |path: &str| path.strip_prefix(&at).is_some_and(|rest| rest.starts_with('/'));
            let direct = |path: &str| below(path) && !path[at.len() + 1..].contains('/');
            let expected: Vec<&str> = list.iter().copied().filter(|path| direct(path)).collect();
            let found: Vec<&str> = space.children(&at).map(|(path, ())| path).collect();
            prop_assert_eq!(found, expected);
            let removed: Vec<String> =
                space.remove_below(&at).into_iter().map(|(path, ())| path).collect();
            let expected: Vec<&str> = list.iter().copied().filter(|path| below(path)).collect();
            prop_assert_eq!(removed, expected);
            prop_assert_eq!(space.len(), list.iter().filter(|path| !below(path)).count());
        }
    }
}
