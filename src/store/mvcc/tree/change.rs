//! Writing to the tree. Each write goes down by recursion, and puts the counts right on its way up.

use std::sync::Arc;

use super::node::{Branch, Child, LEAF_ROOM, Node, Place, Separators, Split};
use super::{Entry, Live, Tree};

/// What an insertion did to a node.
struct Inserted<E> {
    replaced: Option<E>,
    gained: Gained,
    split: Option<Split<E>>,
}

/// What was live of an entry, and what is.
#[derive(Debug, Clone, Copy)]
struct Gained {
    before: Live,
    now: Live,
}

impl Gained {
    fn add_to(self, live: &mut Live) {
        *live = *live + self.now - self.before;
    }
}

impl<E: Entry> Tree<E> {
    /// Puts an entry in and returns the one with the same key that it replaces.
    pub(crate) fn insert(&mut self, entry: E) -> Option<E> {
        let done = insert_in(&mut self.root, entry);
        done.gained.add_to(&mut self.live);
        if let Some(split) = done.split {
            let live = self.live - split.right.live;
            let mut separators = Separators::default();
            separators.insert(0, &split.separator);
            let left = Child { node: Arc::clone(&self.root), live };
            let branch = Branch { separators, children: vec![left, split.right] };
            self.root = Arc::new(Node::Branch(Box::new(branch)));
        }
        done.replaced
    }

    /// Lets `change` change the entry with a key, but not its key; returns what that returns.
    pub(crate) fn update<R>(&mut self, key: &[u8], change: impl FnOnce(&mut E) -> R) -> Option<R> {
        let (result, gained) = update_in(&mut self.root, key, change)?;
        gained.add_to(&mut self.live);
        Some(result)
    }

    /// Lets `change` change entries that are next to each other, among them the one with a key if there
    /// is one; but neither their keys nor whether they are live and how long. Returns what that returns.
    pub(crate) fn change_leaf<R>(&mut self, key: &[u8], change: impl FnOnce(&mut [E]) -> R) -> R {
        let mut node = &mut self.root;
        loop {
            match Arc::make_mut(node) {
                Node::Branch(branch) => {
                    let at = branch.separators.child_of(key);
                    node = &mut branch.children[at].node;
                }
                Node::Leaf(entries) => return change(entries),
            }
        }
    }

    /// Takes the entry with a key out.
    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<E> {
        self.get(key)?;
        let removed = remove_in(&mut self.root, key)?;
        self.live = self.live - removed.counted();
        if let Node::Branch(branch) = &*self.root
            && let [only] = branch.children.as_slice()
        {
            self.root = Arc::clone(&only.node);
        }
        Some(removed)
    }
}

fn insert_in<E: Entry>(node: &mut Arc<Node<E>>, entry: E) -> Inserted<E> {
    let node = Arc::make_mut(node);
    let (replaced, gained, at) = match node {
        Node::Leaf(entries) => {
            let now = entry.counted();
            match entries.binary_search_by(|found| found.key().cmp(entry.key())) {
                Ok(at) => {
                    let replaced = std::mem::replace(&mut entries[at], entry);
                    let gained = Gained { before: replaced.counted(), now };
                    (Some(replaced), gained, at)
                }
                Err(at) => {
                    entries.reserve_exact(LEAF_ROOM.saturating_sub(entries.len()));
                    entries.insert(at, entry);
                    (None, Gained { before: Live::default(), now }, at)
                }
            }
        }
        Node::Branch(branch) => {
            let at = branch.separators.child_of(entry.key());
            let child = &mut branch.children[at];
            let done = insert_in(&mut child.node, entry);
            done.gained.add_to(&mut child.live);
            let last_changed = at + usize::from(done.split.is_some());
            branch.take_split(at, done.split);
            (done.replaced, done.gained, last_changed)
        }
    };
    let place = if at + 1 == node.len() { Place::End } else { Place::Within };
    Inserted { replaced, gained, split: node.split_if_long(place) }
}

fn update_in<E: Entry, R>(
    node: &mut Arc<Node<E>>,
    key: &[u8],
    change: impl FnOnce(&mut E) -> R,
) -> Option<(R, Gained)> {
    match Arc::make_mut(node) {
        Node::Leaf(entries) => {
            let at = entries.binary_search_by(|entry| entry.key().cmp(key)).ok()?;
            let before = entries[at].counted();
            let result = change(&mut entries[at]);
            Some((result, Gained { before, now: entries[at].counted() }))
        }
        Node::Branch(branch) => {
            let at = branch.separators.child_of(key);
            let child = &mut branch.children[at];
            let (result, gained) = update_in(&mut child.node, key, change)?;
            gained.add_to(&mut child.live);
            Some((result, gained))
        }
    }
}

fn remove_in<E: Entry>(node: &mut Arc<Node<E>>, key: &[u8]) -> Option<E> {
    match Arc::make_mut(node) {
        Node::Leaf(entries) => {
            let at = entries.binary_search_by(|entry| entry.key().cmp(key)).ok()?;
            Some(entries.remove(at))
        }
        Node::Branch(branch) => {
            let at = branch.separators.child_of(key);
            let child = &mut branch.children[at];
            let removed = remove_in(&mut child.node, key)?;
            child.live = child.live - removed.counted();
            if child.node.len() < child.node.min() {
                branch.mend(at);
            }
            Some(removed)
        }
    }
}

impl<E: Entry> Branch<E> {
    /// Takes in the right part of the child at `at`, if it was split.
    fn take_split(&mut self, at: usize, split: Option<Split<E>>) {
        if let Some(split) = split {
            self.children[at].live = self.children[at].live - split.right.live;
            self.separators.insert(at, &split.separator);
            self.children.insert(at + 1, split.right);
        }
    }

    /// Merges a child that is too short with a neighbour; both get half if one would be too long.
    fn mend(&mut self, at: usize) {
        if self.children.len() < 2 {
            return;
        }
        let left = at.saturating_sub(1);
        let right = self.children.remove(left + 1);
        let separator = self.separators.remove(left);
        let child = &mut self.children[left];
        let node = Arc::make_mut(&mut child.node);
        node.absorb(&separator, Arc::unwrap_or_clone(right.node));
        child.live = child.live + right.live;
        let split = node.split_if_long(Place::Within);
        self.take_split(left, split);
    }
}
