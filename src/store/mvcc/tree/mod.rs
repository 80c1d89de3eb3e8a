//! A persistent B+tree: a copy of it is one pointer, and neither sees what the other then does.
//!
//! ```text
//!              Branch  separators, children, what is live in each child
//!             ╱      ╲
//!         Leaf        Leaf   entries in the order of their keys
//! ```
//! A write copies the nodes from the root to the leaf that another copy of the tree still has, and
//! changes the others in place: a batch of writes copies each node once. The counts answer "how
//! many live entries are before this key, and how long are they" in the time of one look-up.
//!
//! Files: `node` splits and merges, `change` writes, `build` makes a tree of what is sorted.

mod build;
mod change;
mod node;

use std::iter::Sum;
use std::ops::{Add, Sub};
use std::sync::Arc;

use node::{Child, Node};

/// What a tree holds: something with a key.
pub(crate) trait Entry: Clone {
    /// Returns the key that it is ordered by.
    fn key(&self) -> &[u8];

    /// Tells whether it counts.
    fn is_live(&self) -> bool {
        true
    }

    /// Returns how many bytes it has, where anybody wants to know it.
    fn bytes(&self) -> usize {
        0
    }

    /// Returns what it counts for.
    fn counted(&self) -> Live {
        if self.is_live() { Live { count: 1, bytes: self.bytes() } } else { Live::default() }
    }
}

/// How many live entries there are, and how many bytes they have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Live {
    /// How many.
    pub(crate) count: usize,
    /// Their bytes.
    pub(crate) bytes: usize,
}

impl Add for Live {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { count: self.count + other.count, bytes: self.bytes + other.bytes }
    }
}

impl Sub for Live {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self { count: self.count - other.count, bytes: self.bytes - other.bytes }
    }
}

impl Sum for Live {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Self::add)
    }
}

/// Entries in the order of their keys.
#[derive(Debug, Clone)]
pub(crate) struct Tree<E> {
    root: Arc<Node<E>>,
    live: Live,
}

impl<E> Default for Tree<E> {
    fn default() -> Self {
        Self { root: Arc::new(Node::Leaf(Vec::new())), live: Live::default() }
    }
}

impl<E: Entry> Tree<E> {
    /// Returns what is live of it.
    pub(crate) fn live(&self) -> Live {
        self.live
    }

    /// Returns the entry with a key.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&E> {
        let mut node = &*self.root;
        loop {
            match node {
                Node::Branch(branch) => node = &branch.child_of(key).node,
                Node::Leaf(entries) => {
                    let at = entries.binary_search_by(|entry| entry.key().cmp(key)).ok()?;
                    return Some(&entries[at]);
                }
            }
        }
    }

    /// Returns what is live of the entries with a key before `key`.
    pub(crate) fn live_before(&self, key: &[u8]) -> Live {
        let mut node = &*self.root;
        let mut before = Live::default();
        loop {
            match node {
                Node::Branch(branch) => {
                    let at = branch.separators.child_of(key);
                    before =
                        before + branch.children[..at].iter().map(|child| child.live).sum::<Live>();
                    node = &branch.children[at].node;
                }
                Node::Leaf(entries) => {
                    let at = entries.partition_point(|entry| entry.key() < key);
                    return before + entries[..at].iter().map(Entry::counted).sum::<Live>();
                }
            }
        }
    }

    /// Walks the entries from the first whose key is not before `key`.
    pub(crate) fn iter_from(&self, key: &[u8]) -> Iter<'_, E> {
        let mut node = &*self.root;
        let mut path = Vec::new();
        loop {
            match node {
                Node::Branch(branch) => {
                    let at = branch.separators.child_of(key);
                    path.push(branch.children[at + 1..].iter());
                    node = &branch.children[at].node;
                }
                Node::Leaf(entries) => {
                    let at = entries.partition_point(|entry| entry.key() < key);
                    return Iter { path, leaf: entries[at..].iter() };
                }
            }
        }
    }

    /// Walks all entries.
    pub(crate) fn iter(&self) -> Iter<'_, E> {
        self.iter_from(b"")
    }
}

/// A walk over entries.
#[derive(Debug)]
pub(crate) struct Iter<'a, E> {
    /// What is still to be walked of each branch above the leaf, the root first.
    path: Vec<std::slice::Iter<'a, Child<E>>>,
    leaf: std::slice::Iter<'a, E>,
}

impl<'a, E> Iterator for Iter<'a, E> {
    type Item = &'a E;

    fn next(&mut self) -> Option<&'a E> {
        loop {
            if let Some(entry) = self.leaf.next() {
                return Some(entry);
            }
            let Some(child) = self.path.last_mut()?.next() else {
                self.path.pop();
                continue;
            };
            match &*child.node {
                Node::Branch(branch) => self.path.push(branch.children.iter()),
                Node::Leaf(entries) => self.leaf = entries.iter(),
            }
        }
    }
}

#[cfg(test)]
mod tests;
