//! The tree against the standard library's map, and its shape after every step.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::node::{LEAF_ROOM, Node};
use super::{Entry, Live, Tree};

#[derive(Debug, Clone, PartialEq, Eq)]
struct Item {
    key: Vec<u8>,
    /// How many bytes it has, if it is live.
    live: Option<u8>,
}

impl Entry for Item {
    fn key(&self) -> &[u8] {
        &self.key
    }

    fn is_live(&self) -> bool {
        self.live.is_some()
    }

    fn bytes(&self) -> usize {
        self.live.unwrap_or_default().into()
    }
}

/// Counts what is live of keys.
fn live<'a>(keys: impl Iterator<Item = (&'a Vec<u8>, &'a Option<u8>)>) -> Live {
    let live = keys.filter_map(|(_, live)| *live);
    live.map(|bytes| Live { count: 1, bytes: bytes.into() }).sum()
}

/// Checks order, counts and fill of a node and all below it; returns its height.
fn check(node: &Arc<Node<Item>>, low: &[u8], high: Option<&[u8]>, is_root: bool) -> usize {
    assert!(node.len() <= node.max(), "{} in a node", node.len());
    assert!(is_root || node.len() >= node.min(), "{} in a node", node.len());
    match &**node {
        Node::Leaf(entries) => {
            assert!(entries.is_sorted_by(|left, right| left.key < right.key));
            assert!(entries.iter().all(|entry| entry.key() >= low));
            assert!(entries.iter().all(|entry| high.is_none_or(|high| entry.key() < high)));
            0
        }
        Node::Branch(branch) => {
            assert_eq!(branch.separators.len() + 1, branch.children.len());
            let mut heights = Vec::new();
            for (at, child) in branch.children.iter().enumerate() {
                let low = at.checked_sub(1).map_or(low, |at| branch.separators.get(at));
                let last = at == branch.separators.len();
                let high = if last { high } else { Some(branch.separators.get(at)) };
                assert_eq!(child.live, child.node.count_live());
                heights.push(check(&child.node, low, high, false));
            }
            assert!(heights.iter().all(|height| *height == heights[0]), "{heights:?}");
            heights[0] + 1
        }
    }
}

fn check_whole(tree: &Tree<Item>, plain: &BTreeMap<Vec<u8>, Option<u8>>) {
    check(&tree.root, b"", None, true);
    let found = tree.iter().map(|item| (&item.key, &item.live));
    assert!(found.eq(plain.iter()));
    assert_eq!(tree.live(), live(plain.iter()));
}

fn check_around(tree: &Tree<Item>, plain: &BTreeMap<Vec<u8>, Option<u8>>, key: &[u8]) {
    assert_eq!(tree.get(key).map(|item| item.live), plain.get(key).copied());
    let before = live(plain.range(..key.to_vec()));
    assert_eq!(tree.live_before(key), before);
    let first = tree.iter_from(key).next().map(|item| &item.key);
    assert_eq!(first, plain.range(key.to_vec()..).next().map(|(key, _)| key));
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(0_u8..4, 1..6),
        (0_u16..2000).prop_map(|number| format!("key/{number:05}").into_bytes()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn it_does_what_a_sorted_map_does(
        built in proptest::collection::btree_map(key(), any::<Option<u8>>(), 0..800),
        steps in proptest::collection::vec((0_u8..5, key(), any::<Option<u8>>()), 1..900),
        shrink in any::<bool>(),
    ) {
        let items = built.iter().map(|(key, live)| Item { key: key.clone(), live: *live });
        let mut tree = Tree::from_sorted(items.collect());
        let mut plain = built;
        check_whole(&tree, &plain);
        let (old_tree, old_plain) = (tree.clone(), plain.clone());
        for (at, (what, key, live)) in steps.into_iter().enumerate() {
            match (what, shrink) {
                (0..=1, _) | (2, false) => {
                    let item = Item { key: key.clone(), live };
                    let replaced = tree.insert(item).map(|item| item.live);
                    prop_assert_eq!(replaced, plain.insert(key.clone(), live));
                }
                (3, false) => {
                    let seen = tree.update(&key, |item| std::mem::replace(&mut item.live, live));
                    prop_assert_eq!(seen, plain.get_mut(&key).map(|old| std::mem::replace(old, live)));
                }
                _ => {
                    // The neighbour, so that most removals find something.
                    let near = plain.range(key.clone()..).next().map(|(key, _)| key.clone());
                    let gone = near.unwrap_or_else(|| key.clone());
                    let removed = tree.remove(&gone).map(|item| item.live);
                    prop_assert_eq!(removed, plain.remove(&gone));
                }
            }
            check_around(&tree, &plain, &key);
            if at % 50 == 0 {
                check_whole(&tree, &plain);
            }
        }
        check_whole(&tree, &plain);
        check_whole(&old_tree, &old_plain);
    }
}

/// Calls `look` with each leaf below a node.
fn leaves(node: &Node<Item>, look: &mut impl FnMut(&Vec<Item>)) {
    match node {
        Node::Leaf(entries) => look(entries),
        Node::Branch(branch) => {
            branch.children.iter().for_each(|child| leaves(&child.node, look));
        }
    }
}

#[test]
fn leaves_that_are_written_to_have_one_size_and_are_full_where_keys_come_in_order() {
    let item = |number: u32| Item { key: number.to_be_bytes().to_vec(), live: Some(1) };
    for spread in [1, 0x9E37_79B1] {
        let mut tree = Tree::default();
        for number in 0..4000_u32 {
            tree.insert(item(number.wrapping_mul(spread)));
            if number == 2000 {
                // What is copied to be written to is no other.
                let copy = tree.clone();
                tree.change_leaf(b"", |_| ());
                drop(copy);
            }
        }
        let (mut count, mut entries) = (0, 0);
        leaves(&tree.root, &mut |leaf| {
            assert_eq!(leaf.capacity(), LEAF_ROOM);
            count += 1;
            entries += leaf.len();
        });
        let least = if spread == 1 { LEAF_ROOM * 3 / 4 } else { LEAF_ROOM / 2 };
        assert!(entries >= count * least - LEAF_ROOM, "{entries} in {count} leaves");
        for number in (0..4000_u32).filter(|number| number % 7 > 1) {
            tree.remove(item(number.wrapping_mul(spread)).key()).unwrap();
        }
        leaves(&tree.root, &mut |leaf| assert_eq!(leaf.capacity(), LEAF_ROOM));
    }
}

#[test]
fn a_tree_can_be_emptied_and_filled_again() {
    let mut tree = Tree::default();
    let mut plain = BTreeMap::new();
    for round in 0..3_u32 {
        for number in 0..3000_u32 {
            let key = number.to_be_bytes().to_vec();
            tree.insert(Item { key: key.clone(), live: (number % 3 != round).then_some(1) });
            plain.insert(key, (number % 3 != round).then_some(1));
        }
        check_whole(&tree, &plain);
        for number in (0..3000_u32).rev() {
            let key = (number.wrapping_mul(1777) % 3000).to_be_bytes();
            assert!(tree.remove(&key).is_some());
        }
        plain.clear();
        check_whole(&tree, &plain);
    }
}

#[test]
fn a_write_copies_only_what_another_copy_has() {
    let entry = |number: u32| Item { key: number.to_be_bytes().to_vec(), live: Some(1) };
    let mut tree = Tree::from_sorted((0..10_000).map(entry).collect());
    let copy = tree.clone();
    tree.update(&7_u32.to_be_bytes(), |item| item.live = None);
    let (Node::Branch(new), Node::Branch(old)) = (&*tree.root, &*copy.root) else {
        panic!("ten thousand entries in one leaf");
    };
    assert!(!Arc::ptr_eq(&new.children[0].node, &old.children[0].node));
    for (new, old) in new.children.iter().zip(&old.children).skip(1) {
        assert!(Arc::ptr_eq(&new.node, &old.node));
    }
    let root = Arc::as_ptr(&tree.root);
    drop(copy);
    tree.update(&9_u32.to_be_bytes(), |item| item.live = None);
    assert_eq!(Arc::as_ptr(&tree.root), root, "what nobody else has is changed in place");
}
