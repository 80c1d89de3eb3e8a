//! A sequence that grows at its end and shrinks at its front, and whose copies share what is in it.
//!
//! ```text
//!  full [3968] [3968] …           chunks [992] [62] [31]     tail [..30]
//!  one list, copied when one     few, each larger than      copied when it is shared
//!  of them is added              the one after it           and written to
//! ```
//! A chunk that is not larger than the one after it is merged with it, so that there are few; an
//! element is moved at most as often as it takes to double from the tail to a full chunk.

use std::ops::Range;
use std::sync::Arc;

/// Longest tail: what a write after a copy has to copy again.
const TAIL_MAX: usize = 31;

/// When a chunk is full: about what one write may have to move. Together with its counters it is a little
/// less than a power of two; a little more would take a fifth more of the allocator.
const CHUNK_MAX: usize = TAIL_MAX << 7;

/// Elements in the order in which they came.
#[derive(Debug, Clone)]
pub(crate) struct Sequence<T> {
    /// `None` while it is empty: then it takes no memory.
    parts: Option<Arc<Parts<T>>>,
}

#[derive(Debug, Clone)]
struct Parts<T> {
    full: Option<Arc<Vec<Arc<[T]>>>>,
    chunks: Vec<Arc<[T]>>,
    tail: Vec<T>,
    len: usize,
}

impl<T> Default for Sequence<T> {
    fn default() -> Self {
        Self { parts: None }
    }
}

impl<T: Clone> Sequence<T> {
    /// Makes a sequence of what is there already.
    pub(crate) fn from_vec(elements: Vec<T>) -> Self {
        let mut parts = Parts { len: elements.len(), ..Parts::new() };
        let mut rest = elements.into_iter();
        while rest.len() > 0 {
            parts.chunks.push(rest.by_ref().take(CHUNK_MAX).collect());
        }
        parts.move_to_full();
        Self { parts: (parts.len > 0).then(|| Arc::new(parts)) }
    }

    /// Adds an element at the end.
    pub(crate) fn push(&mut self, element: T) {
        let parts = Arc::make_mut(self.parts.get_or_insert_with(|| Arc::new(Parts::new())));
        parts.tail.push(element);
        parts.len += 1;
        if parts.tail.len() >= TAIL_MAX {
            let sealed: Arc<[T]> = std::mem::take(&mut parts.tail).into();
            parts.add_chunk(sealed);
        }
    }

    /// Lets `change` change those of `count` elements from a place on that `is_wanted` wants; where it
    /// wants none, nothing is copied that others share.
    pub(crate) fn change(
        &mut self,
        from: usize,
        count: usize,
        is_wanted: impl Fn(&T) -> bool,
        mut change: impl FnMut(&mut T),
    ) {
        let Some(shared) = &mut self.parts else { return };
        if !shared.slices_of(from, count).any(|slice| slice.iter().any(&is_wanted)) {
            return;
        }
        let parts = Arc::make_mut(shared);
        let (mut skip, mut left) = (from, count);
        let mut each =
            |slice: &mut [T]| slice.iter_mut().filter(|one| is_wanted(one)).for_each(&mut change);
        let mut within = |chunk: &mut Arc<[T]>| {
            let range = overlap(&mut skip, &mut left, chunk.len());
            if chunk[range.clone()].iter().any(&is_wanted) {
                each(&mut Arc::make_mut(chunk)[range]);
            }
        };
        if let Some(full) = &mut parts.full {
            Arc::make_mut(full).iter_mut().for_each(&mut within);
        }
        parts.chunks.iter_mut().for_each(&mut within);
        let range = overlap(&mut skip, &mut left, parts.tail.len());
        each(&mut parts.tail[range]);
    }

    /// Takes the first `count` elements away.
    pub(crate) fn drop_front(&mut self, count: usize) {
        if count == 0 {
            return;
        }
        if count >= self.len() {
            self.parts = None;
            return;
        }
        let Some(parts) = &mut self.parts else { return };
        let parts = Arc::make_mut(parts);
        parts.len -= count;
        let mut left = count;
        if let Some(full) = &mut parts.full {
            drop_front(Arc::make_mut(full), &mut left);
        }
        drop_front(&mut parts.chunks, &mut left);
        parts.tail.drain(..left);
    }
}

/// Returns which of the next `len` elements are wanted, where `skip` are not before the first and `left`
/// are; counts both down.
fn overlap(skip: &mut usize, left: &mut usize, len: usize) -> Range<usize> {
    let begin = (*skip).min(len);
    let end = begin + (*left).min(len - begin);
    *skip -= begin;
    *left -= end - begin;
    begin..end
}

/// Takes up to `left` elements off the front of a list of chunks, and counts `left` down.
fn drop_front<T: Clone>(chunks: &mut Vec<Arc<[T]>>, left: &mut usize) {
    let whole = chunks.iter().take_while(|chunk| {
        let fits = chunk.len() <= *left;
        *left -= if fits { chunk.len() } else { 0 };
        fits
    });
    let whole = whole.count();
    chunks.drain(..whole);
    if let Some(chunk) = chunks.first_mut()
        && *left > 0
    {
        *chunk = Arc::from(&chunk[std::mem::take(left)..]);
    }
}

impl<T> Sequence<T> {
    /// Returns how many elements there are.
    pub(crate) fn len(&self) -> usize {
        self.parts.as_ref().map_or(0, |parts| parts.len)
    }

    /// Returns an element by its place.
    pub(crate) fn get(&self, at: usize) -> Option<&T> {
        self.iter_from(at).next()
    }

    /// Walks the elements from a place on.
    pub(crate) fn iter_from(&self, at: usize) -> impl Iterator<Item = &T> {
        let mut skip = at;
        let slices = self.slices().skip_while(move |slice| {
            let before = slice.len() <= skip;
            skip -= if before { slice.len() } else { 0 };
            before
        });
        // What is left to skip is known only once the first slice has been found.
        let mut first = at - self.whole_before(at);
        slices.flat_map(move |slice| &slice[std::mem::take(&mut first)..])
    }

    /// Returns the place of the first element for which `before` is false; it must be true for all
    /// elements up to one and for none after it.
    pub(crate) fn partition_point(&self, mut before: impl FnMut(&T) -> bool) -> usize {
        let Some(parts) = &self.parts else { return 0 };
        let full = parts.full();
        let whole = full.partition_point(|chunk| chunk.last().is_some_and(&mut before));
        let mut passed: usize = full[..whole].iter().map(|chunk| chunk.len()).sum();
        for slice in parts.slices().skip(whole) {
            let within = slice.partition_point(&mut before);
            passed += within;
            if within < slice.len() {
                break;
            }
        }
        passed
    }

    fn slices(&self) -> impl Iterator<Item = &[T]> {
        self.parts.iter().flat_map(|parts| parts.slices())
    }

    fn whole_before(&self, at: usize) -> usize {
        let mut passed = 0;
        for slice in self.slices() {
            if passed + slice.len() > at {
                return passed;
            }
            passed += slice.len();
        }
        at
    }
}

impl<T> Parts<T> {
    fn new() -> Self {
        Self { full: None, chunks: Vec::new(), tail: Vec::with_capacity(1), len: 0 }
    }

    fn full(&self) -> &[Arc<[T]>] {
        self.full.as_ref().map_or(&[], |full| full.as_slice())
    }

    fn slices(&self) -> impl Iterator<Item = &[T]> {
        let chunks = self.full().iter().chain(&self.chunks).map(|chunk| &**chunk);
        chunks.chain(std::iter::once(self.tail.as_slice()))
    }

    fn slices_of(&self, from: usize, count: usize) -> impl Iterator<Item = &[T]> {
        let (mut skip, mut left) = (from, count);
        self.slices().map(move |slice| &slice[overlap(&mut skip, &mut left, slice.len())])
    }

    fn move_to_full(&mut self) {
        if !self.chunks.is_empty() {
            Arc::make_mut(self.full.get_or_insert_default()).append(&mut self.chunks);
        }
    }
}

impl<T: Clone> Parts<T> {
    fn add_chunk(&mut self, mut chunk: Arc<[T]>) {
        while let Some(last) = self.chunks.last()
            && last.len() <= chunk.len()
        {
            chunk = last.iter().chain(chunk.iter()).cloned().collect();
            self.chunks.pop();
        }
        let is_full = chunk.len() >= CHUNK_MAX;
        self.chunks.push(chunk);
        if is_full {
            self.move_to_full();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn there_are_few_chunks_and_a_copy_shares_them() {
        let mut sequence = Sequence::default();
        for number in 0..100_000 {
            sequence.push(number);
        }
        let parts = sequence.parts.as_ref().unwrap();
        assert_eq!(parts.full().len(), 100_000 / CHUNK_MAX);
        assert!(parts.chunks.len() <= 7, "{}", parts.chunks.len());
        let copy = sequence.clone();
        sequence.push(1);
        let (old, new) = (copy.parts.unwrap(), sequence.parts.unwrap());
        assert!(Arc::ptr_eq(old.full.as_ref().unwrap(), new.full.as_ref().unwrap()));
        assert_eq!((old.len, new.len), (100_000, 100_001));
    }

    proptest! {
        #[test]
        fn it_does_what_a_vector_does(
            steps in proptest::collection::vec((0_usize..200, 0_usize..150), 1..30),
            built in 0_usize..5000,
        ) {
            let mut plain: Vec<usize> = (0..built).collect();
            let mut sequence = Sequence::from_vec(plain.clone());
            let mut next = built;
            for (pushed, dropped) in steps {
                let copy = sequence.clone();
                let before = plain.clone();
                for _ in 0..pushed {
                    sequence.push(next);
                    plain.push(next);
                    next += 1;
                }
                sequence.drop_front(dropped);
                plain.drain(..dropped.min(plain.len()));
                prop_assert!(copy.iter_from(0).eq(&before), "a copy changed");
                prop_assert!(sequence.iter_from(0).eq(&plain));
                prop_assert_eq!(sequence.len(), plain.len());
                let pivot = next.saturating_sub(dropped);
                let at = sequence.partition_point(|element| *element < pivot);
                prop_assert_eq!(at, plain.partition_point(|element| *element < pivot));
                prop_assert!(sequence.iter_from(at).eq(&plain[at..]));
                prop_assert_eq!(sequence.get(dropped), plain.get(dropped));
                let (mut other, from) = (sequence.clone(), dropped / 2);
                other.change(from, pushed, |one| one % 3 == 0, |one| *one += 1);
                let mut changed = plain.clone();
                let wanted = changed.iter_mut().skip(from).take(pushed);
                wanted.filter(|one| **one % 3 == 0).for_each(|one| *one += 1);
                prop_assert!(other.iter_from(0).eq(&changed));
                prop_assert!(sequence.iter_from(0).eq(&plain), "a copy changed");
            }
        }
    }
}
