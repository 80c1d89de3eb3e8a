//! The nodes of the tree: how they are searched, split and merged.

use std::sync::Arc;

use super::{Entry, Live};

/// Most entries of a leaf. A write copies a leaf and touches the counter of each entry, which is
/// not in the processor's cache: so a leaf is small.
pub(super) const LEAF_MAX: usize = 15;

/// Room of a leaf that is written to: one more than it may have, since it is split after that. All have
/// the same, so that leaves, which stay, do not lie between versions of all sizes, which go with the next
/// checkpoint: one that stays holds a page of the allocator. With records of 24 bytes it is a size that
/// the allocator has.
pub(super) const LEAF_ROOM: usize = LEAF_MAX + 1;

/// Most children of a branch.
pub(super) const BRANCH_MAX: usize = 32;

#[derive(Debug)]
pub(super) enum Node<E> {
    Leaf(Vec<E>),
    Branch(Box<Branch<E>>),
}

#[derive(Debug, Clone)]
pub(super) struct Branch<E> {
    /// One less than there are children.
    pub(super) separators: Separators,
    pub(super) children: Vec<Child<E>>,
}

#[derive(Debug)]
pub(super) struct Child<E> {
    pub(super) node: Arc<Node<E>>,
    /// What is live of it.
    pub(super) live: Live,
}

/// The right part of a node that was split.
#[derive(Debug)]
pub(super) struct Split<E> {
    /// Not before any key of the left part, and not after any of the right one.
    pub(super) separator: Vec<u8>,
    pub(super) right: Child<E>,
}

impl<E> Clone for Child<E> {
    fn clone(&self) -> Self {
        Self { node: Arc::clone(&self.node), live: self.live }
    }
}

impl<E: Clone> Clone for Node<E> {
    fn clone(&self) -> Self {
        match self {
            Self::Branch(branch) => Self::Branch(branch.clone()),
            Self::Leaf(entries) => {
                // It is copied to be written to.
                let mut copy = Vec::with_capacity(LEAF_ROOM);
                copy.extend_from_slice(entries);
                Self::Leaf(copy)
            }
        }
    }
}

impl<E> Branch<E> {
    pub(super) fn child_of(&self, key: &[u8]) -> &Child<E> {
        &self.children[self.separators.child_of(key)]
    }
}

/// Where something was put into a node that may have to be split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// At its end: so keys may well be written in their order, and the left part stays as it is.
    End,
    Within,
}

impl<E> Node<E> {
    /// Returns the most it may have.
    pub(super) fn max(&self) -> usize {
        match self {
            Self::Leaf(_) => LEAF_MAX,
            Self::Branch(_) => BRANCH_MAX,
        }
    }

    /// Returns the least it may have, but for the root: with less it is merged with its neighbour.
    pub(super) fn min(&self) -> usize {
        self.max() / 4
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Leaf(entries) => entries.len(),
            Self::Branch(branch) => branch.children.len(),
        }
    }
}

impl<E: Entry> Node<E> {
    /// Counts what is live of it from what is right below it.
    pub(super) fn count_live(&self) -> Live {
        match self {
            Self::Leaf(entries) => entries.iter().map(Entry::counted).sum(),
            Self::Branch(branch) => branch.children.iter().map(|child| child.live).sum(),
        }
    }

    /// Gives its right part away if it is too long.
    pub(super) fn split_if_long(&mut self, place: Place) -> Option<Split<E>> {
        if self.len() <= self.max() {
            return None;
        }
        let middle = match place {
            Place::End => self.max() - self.min(),
            Place::Within => self.len() / 2,
        };
        let (separator, right) = match self {
            Self::Leaf(entries) => {
                let mut right = Vec::with_capacity(LEAF_ROOM);
                right.extend(entries.drain(middle..));
                entries.shrink_to(LEAF_ROOM);
                (separator(entries[middle - 1].key(), right[0].key()), Self::Leaf(right))
            }
            Self::Branch(branch) => {
                let children = branch.children.split_off(middle);
                let separators = branch.separators.split_off(middle);
                let separator = branch.separators.remove(middle - 1);
                (separator, Self::Branch(Box::new(Branch { separators, children })))
            }
        };
        let live = right.count_live();
        Some(Split { separator, right: Child { node: Arc::new(right), live } })
    }

    /// Takes in its right neighbour.
    pub(super) fn absorb(&mut self, separator: &[u8], right: Self) {
        match (self, right) {
            (Self::Leaf(left), Self::Leaf(right)) => {
                left.reserve_exact(LEAF_ROOM.saturating_sub(left.len()).max(right.len()));
                left.extend(right);
            }
            (Self::Branch(left), Self::Branch(right)) => {
                left.separators.insert(left.separators.len(), separator);
                left.separators.append(&right.separators);
                left.children.extend(right.children);
            }
            (Self::Leaf(_), Self::Branch(_)) | (Self::Branch(_), Self::Leaf(_)) => {
                unreachable!("neighbours are of one height")
            }
        }
    }
}

/// Returns the shortest key that is after `left` and not after `right`.
pub(super) fn separator(left: &[u8], right: &[u8]) -> Vec<u8> {
    let common = left.iter().zip(right).take_while(|(left, right)| left == right).count();
    right[..right.len().min(common + 1)].to_vec()
}

/// Keys in order, in one piece of memory.
#[derive(Debug, Clone, Default)]
pub(super) struct Separators {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl Separators {
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn get(&self, at: usize) -> &[u8] {
        &self.bytes[self.start(at)..self.ends[at] as usize]
    }

    /// Returns which child a key is in: how many separators are not after it.
    pub(super) fn child_of(&self, key: &[u8]) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.get(middle) <= key {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    pub(super) fn insert(&mut self, at: usize, key: &[u8]) {
        let start = self.start(at);
        drop(self.bytes.splice(start..start, key.iter().copied()));
        self.ends.insert(at, offset(start));
        for end in &mut self.ends[at..] {
            *end += offset(key.len());
        }
    }

    pub(super) fn remove(&mut self, at: usize) -> Vec<u8> {
        let range = self.start(at)..self.ends[at] as usize;
        let key: Vec<u8> = self.bytes.drain(range).collect();
        self.ends.remove(at);
        for end in &mut self.ends[at..] {
            *end -= offset(key.len());
        }
        key
    }

    fn split_off(&mut self, at: usize) -> Self {
        let mut right = Self::default();
        for index in at..self.len() {
            right.insert(right.len(), self.get(index));
        }
        self.bytes.truncate(self.start(at));
        self.ends.truncate(at);
        right
    }

    fn append(&mut self, right: &Self) {
        for index in 0..right.len() {
            self.insert(self.len(), right.get(index));
        }
    }

    fn start(&self, at: usize) -> usize {
        at.checked_sub(1).map_or(0, |before| self.ends[before] as usize)
    }
}

/// A node's separators are less than [`BRANCH_MAX`] keys, each smaller than a request.
fn offset(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("the separators of a node are smaller than 4 GiB")
}
