//! A list that grows with its elements, and hardly ahead of them.

/// Fewest and most elements of a segment after the first.
const SEGMENT: std::ops::RangeInclusive<usize> = 32..=128;

/// A list of unknown length. It grows by segments, so that it never has more than one small segment
/// beyond its elements and never moves them; once complete it is joined into one piece of exactly
/// their size. An emptied list keeps that piece, and allocates no memory while the piece is large
/// enough.
#[derive(Debug)]
pub(crate) struct Segments<T> {
    /// Full segments, in order. Empty once joined.
    full: Vec<Vec<T>>,
    /// The number of elements in `full`.
    full_len: usize,
    /// The elements after those of `full`. All elements, once joined.
    open: Vec<T>,
}

impl<T: Copy> Segments<T> {
    pub(crate) const fn new() -> Self {
        Self { full: Vec::new(), full_len: 0, open: Vec::new() }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.full_len.wrapping_add(self.open.len())
    }

    /// Returns the elements of a joined list.
    #[inline]
    pub(crate) fn joined(&self) -> &[T] {
        &self.open
    }

    /// Returns all elements, joined or not.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.full.iter().flatten().chain(&self.open)
    }

    /// Adds one element.
    #[inline]
    pub(crate) fn push(&mut self, element: T) {
        self.open(1).push(element);
    }

    /// Returns the growing segment, with the last element in it and space for at least one more.
    /// `expected` elements are about to be added.
    #[inline]
    pub(crate) fn open(&mut self, expected: usize) -> &mut Vec<T> {
        if self.open.len() == self.open.capacity() {
            self.next_segment(expected);
        }
        &mut self.open
    }

    #[cold]
    fn next_segment(&mut self, expected: usize) {
        let Some(last) = self.open.pop() else {
            self.open.reserve_exact(expected.max(1));
            return;
        };
        let mut next = Vec::with_capacity(self.len().clamp(*SEGMENT.start(), *SEGMENT.end()));
        next.push(last);
        let full = std::mem::replace(&mut self.open, next);
        self.full_len = self.full_len.wrapping_add(full.len());
        self.full.push(full);
    }

    /// Moves all elements into one piece.
    #[inline]
    pub(crate) fn join(&mut self) {
        if !self.full.is_empty() {
            self.join_segments();
        }
    }

    #[inline(never)]
    fn join_segments(&mut self) {
        let spare = self.open.capacity().wrapping_sub(self.open.len());
        if self.full_len <= spare {
            // A short list. Its last segment is kept for the next list, which then has space for
            // pages that only make the last run longer.
            let last = self.open.len();
            for segment in self.full.drain(..) {
                self.open.extend_from_slice(&segment);
            }
            self.open.rotate_left(last);
            (self.full, self.full_len) = (Vec::new(), 0);
            return;
        }
        let mut all = Vec::with_capacity(self.len());
        for segment in self.full.drain(..) {
            all.extend_from_slice(&segment);
        }
        all.extend_from_slice(&self.open);
        (self.full, self.full_len, self.open) = (Vec::new(), 0, all);
    }

    /// Empties the list and keeps the memory of its last segment: all of it, once joined.
    pub(crate) fn clear(&mut self) {
        self.full.clear();
        self.full_len = 0;
        self.open.clear();
    }

    /// Frees the memory that a joined list does not need.
    pub(crate) fn shrink(&mut self) {
        self.open.shrink_to_fit();
    }

    /// Returns the heap bytes.
    pub(crate) fn heap_bytes(&self) -> usize {
        let elements = self
            .full
            .iter()
            .fold(self.open.capacity(), |sum, full| sum.wrapping_add(full.capacity()));
        let segments = self.full.capacity().wrapping_mul(size_of::<Vec<T>>());
        elements.wrapping_mul(size_of::<T>()).wrapping_add(segments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_segments_join_to_what_was_added_and_changed() {
        for expected in [1, 2, 27, 200] {
            let mut list = Segments::new();
            for count in [0, 1, 27, 3000, 500] {
                list.clear();
                let mut model = Vec::new();
                for n in 0..count {
                    if let Some(last) = list.open(expected).last_mut() {
                        *last += 1000;
                        *model.last_mut().unwrap() += 1000;
                    }
                    list.push(n);
                    model.push(n);
                    assert_eq!(list.len(), model.len());
                }
                assert!(list.iter().eq(&model));
                list.join();
                assert_eq!(list.joined(), model);
            }
        }
    }

    #[test]
    fn test_segments_never_hold_more_than_a_segment_beyond_their_elements() {
        let mut list = Segments::new();
        for n in 0..10_000_u64 {
            list.push(n);
            let spare =
                list.heap_bytes() - list.full.capacity() * size_of::<Vec<u64>>() - 8 * list.len();
            // The slot of an element that was moved to the next segment stays empty.
            assert!(spare < 8 * (SEGMENT.end() + list.full.len()), "{spare} bytes at {n}");
        }
        list.join();
        assert_eq!(list.heap_bytes(), 80_000);
    }

    /// As a list of two runs of pages, of which the second grows.
    #[test]
    fn test_short_list_whose_last_element_changes_allocates_nothing_again() {
        let mut list = Segments::new();
        let mut fill = || {
            list.clear();
            list.push(1);
            list.push(2);
            for _ in 0..15 {
                *list.open(1).last_mut().unwrap() += 1;
            }
            list.join();
            assert_eq!(list.joined(), [1, 17]);
            list.joined().as_ptr()
        };
        let first = fill();
        assert_eq!((fill(), fill()), (first, first));
    }

    #[test]
    fn test_segments_filled_again_allocate_nothing() {
        let mut list = Segments::new();
        (0..1000).for_each(|n| list.push(n));
        list.join();
        let place = list.joined().as_ptr();
        list.clear();
        (0..1000).for_each(|n| list.push(n));
        list.join();
        assert_eq!((list.joined().as_ptr(), list.heap_bytes()), (place, 4000));
    }
}
