//! Making a tree of entries that are sorted already, in linear time.

use std::sync::Arc;

use super::node::{BRANCH_MAX, Branch, Child, LEAF_MAX, Node, Separators, separator};
use super::{Entry, Tree};

/// A node of the level that was made last, and what separates it from the one before it.
struct Made<E> {
    separator: Vec<u8>,
    child: Child<E>,
}

impl<E: Entry> Tree<E> {
    /// Makes a tree; the keys must go up.
    pub(crate) fn from_sorted(entries: Vec<E>) -> Self {
        let mut last_key = Vec::new();
        let mut level: Vec<Made<E>> = groups(entries, fill(LEAF_MAX))
            .map(|group| {
                let separator = separator(&last_key, group[0].key());
                last_key.clear();
                last_key.extend_from_slice(group[group.len() - 1].key());
                made(separator, Node::Leaf(group))
            })
            .collect();
        while level.len() > 1 {
            level = groups(level, fill(BRANCH_MAX)).map(join).collect();
        }
        let Some(root) = level.pop() else { return Self::default() };
        Self { root: root.child.node, live: root.child.live }
    }
}

fn join<E: Entry>(group: Vec<Made<E>>) -> Made<E> {
    let mut separators = Separators::default();
    let mut first = None;
    let mut children = Vec::with_capacity(group.len());
    for Made { separator, child } in group {
        match first {
            None => first = Some(separator),
            Some(_) => separators.insert(separators.len(), &separator),
        }
        children.push(child);
    }
    let branch = Branch { separators, children };
    made(first.unwrap_or_default(), Node::Branch(Box::new(branch)))
}

fn made<E: Entry>(separator: Vec<u8>, node: Node<E>) -> Made<E> {
    let live = node.count_live();
    Made { separator, child: Child { node: Arc::new(node), live } }
}

/// How full nodes are made: with room for what is written next.
const fn fill(max: usize) -> usize {
    max * 3 / 4
}

/// Cuts a list into groups of nearly one size.
fn groups<T>(elements: Vec<T>, size_max: usize) -> impl Iterator<Item = Vec<T>> {
    let count = elements.len().div_ceil(size_max);
    let (size, longer) = (elements.len() / count.max(1), elements.len() % count.max(1));
    let mut rest = elements.into_iter();
    (0..count).map(move |at| {
        let size = size + usize::from(at < longer);
        let mut group = Vec::with_capacity(size);
        group.extend(rest.by_ref().take(size));
        group
    })
}
