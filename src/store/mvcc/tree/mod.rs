//! A persistent B+tree: a copy of it is one pointer, and neither sees what the other then does.
//!
//! ```text
//!              Branch  separators, children, how many live entries each child has
//!             ╱      ╲
//!         Leaf        Leaf   entries in the order of their keys
//! ```
//! A write copies the nodes from the root to the leaf that another copy of the tree still has, and
//! changes the others in place: a batch of writes copies each node once. The counts answer "how
//! many live entries are before this key" in the time of one look-up.
//!
//! Files: `node` splits and merges, `change` writes, `build` makes a tree of what is sorted.

mod build;
mod change;
mod node;

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
}

/// Entries in the order of their keys.
#[derive(Debug, Clone)]
pub(crate) struct Tree<E> {
    root: Arc<Node<E>>,
    live: usize,
}

impl<E> Default for Tree<E> {
    fn default() -> Self {
        Self { root: Arc::new(Node::Leaf(Vec::new())), live: 0 }
    }
}

impl<E: Entry> Tree<E> {
    /// Returns how many live entries there are.
    pub(crate) fn live(&self) -> usize {
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

    /// Returns how many live entries have a key before `key`.
    pub(crate) fn live_before(&self, key: &[u8]) -> usize {
        let mut node = &*self.root;
        let mut before = 0;
        loop {
            match node {
                Node::Branch(branch) => {
                    let at = branch.separators.child_of(key);
                    before += branch.children[..at].iter().map(|child| child.live).sum::<usize>();
                    node = &branch.children[at].node;
                }
                Node::Leaf(entries) => {
                    let at = entries.partition_point(|entry| entry.key() < key);
                    return before + entries[..at].iter().filter(|entry| entry.is_live()).count();
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
