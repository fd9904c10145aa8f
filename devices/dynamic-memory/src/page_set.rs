//! A set of guest pages: a bit for each page of RAM, so that no guest can make it larger.

use crate::protocol::PageRange;

const BITS: u64 = 64;

/// A set of pages within fixed regions.
#[derive(Clone, Debug, Default)]
pub(crate) struct PageSet {
    /// In the order of addresses, never overlapping.
    regions: Vec<Region>,
    len: u64,
}

#[derive(Clone, Debug)]
struct Region {
    range: PageRange,
    words: Vec<u64>,
}

impl Region {
    /// Calls `change` with each word that has bits of `range`, and the mask of these bits.
    fn each_word(&mut self, range: PageRange, mut change: impl FnMut(&mut u64, u64)) {
        let mut offset = range.first.saturating_sub(self.range.first);
        let end = range.end().saturating_sub(self.range.first).min(self.range.pages);
        while offset < end {
            let bit = offset % BITS;
            let count = (end - offset).min(BITS - bit);
            let mask = (u64::MAX >> (BITS - count)) << bit;
            let word = usize::try_from(offset / BITS).ok();
            if let Some(word) = word.and_then(|index| self.words.get_mut(index)) {
                change(word, mask);
            }
            offset += count;
        }
    }
}

impl PageSet {
    /// Returns an empty set that can hold the pages of `regions`, which do not overlap.
    pub(crate) fn new(regions: impl IntoIterator<Item = PageRange>) -> Self {
        let region = |range: PageRange| {
            let words = usize::try_from(range.pages.div_ceil(BITS)).unwrap_or_default();
            Region { range, words: vec![0; words] }
        };
        let mut regions: Vec<_> = regions.into_iter().map(region).collect();
        regions.sort_by_key(|region| region.range.first);
        Self { regions, len: 0 }
    }

    /// Returns the number of pages in the set.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Returns whether all pages of `range` can be in the set: they lie in one region.
    pub(crate) fn covers(&self, range: PageRange) -> bool {
        range.pages > 0
            && self.regions.iter().any(|region| {
                region.range.first <= range.first && range.end() <= region.range.end()
            })
    }

    /// Returns the number of pages of `range` that are in the set.
    pub(crate) fn count(&mut self, range: PageRange) -> u64 {
        let mut count = 0;
        for region in &mut self.regions {
            region.each_word(range, |word, mask| count += u64::from((*word & mask).count_ones()));
        }
        count
    }

    /// Adds the pages of `range` that regions cover. Returns the number of new ones.
    pub(crate) fn insert(&mut self, range: PageRange) -> u64 {
        let mut added = 0;
        for region in &mut self.regions {
            region.each_word(range, |word, mask| {
                added += u64::from((mask & !*word).count_ones());
                *word |= mask;
            });
        }
        self.len += added;
        added
    }

    /// Removes the pages of `range`. Returns the number of those that were in the set.
    pub(crate) fn remove(&mut self, range: PageRange) -> u64 {
        let mut removed = 0;
        for region in &mut self.regions {
            region.each_word(range, |word, mask| {
                removed += u64::from((mask & *word).count_ones());
                *word &= !mask;
            });
        }
        self.len -= removed;
        removed
    }

    /// Empties the set.
    pub(crate) fn clear(&mut self) {
        for region in &mut self.regions {
            region.words.fill(0);
        }
        self.len = 0;
    }

    /// Returns the pages of the set as ranges of at most `longest` pages, from the highest address
    /// down.
    pub(crate) fn ranges_down(&self, longest: u64) -> RangesDown<'_> {
        RangesDown { regions: &self.regions, offset: None, longest: longest.max(1) }
    }
}

/// The pages of a set from the highest address down.
#[derive(Debug)]
pub(crate) struct RangesDown<'a> {
    /// The last is being searched.
    regions: &'a [Region],
    /// One past the next page to look at, from the last region's first. `None`: its end.
    offset: Option<u64>,
    longest: u64,
}

impl Region {
    /// Returns the last page below `offset` whose bit is `wanted`, as an offset.
    fn last_below(&self, offset: u64, wanted: bool) -> Option<u64> {
        let mut offset = offset;
        while offset > 0 {
            let index = usize::try_from((offset - 1) / BITS).ok()?;
            let word = self.words.get(index)?;
            let word = if wanted { *word } else { !*word };
            let used = (offset - 1) % BITS + 1;
            let masked = word << (BITS - used);
            if masked != 0 {
                return Some(offset - 1 - u64::from(masked.leading_zeros()));
            }
            offset -= used;
        }
        None
    }
}

impl Iterator for RangesDown<'_> {
    type Item = PageRange;

    fn next(&mut self) -> Option<PageRange> {
        while let Some((region, before)) = self.regions.split_last() {
            let offset = self.offset.unwrap_or(region.range.pages);
            if let Some(last) = region.last_below(offset, true) {
                let first = region.last_below(last, false).map_or(0, |gap| gap + 1);
                let first = first.max((last + 1).saturating_sub(self.longest));
                self.offset = Some(first);
                return Some(PageRange::new(region.range.first + first, last + 1 - first));
            }
            self.regions = before;
            self.offset = None;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn set() -> PageSet {
        PageSet::new([PageRange::new(1000, 70), PageRange::new(0, 130)])
    }

    #[test]
    fn test_set_covers_ranges_within_one_region_only() {
        let set = set();
        for (first, pages, inside) in [
            (0, 130, true),
            (0, 131, false),
            (129, 1, true),
            (130, 1, false),
            (999, 2, false),
            (1000, 70, true),
            (1069, 2, false),
            (5, 0, false),
            (u64::MAX, 2, false),
        ] {
            assert_eq!(set.covers(PageRange::new(first, pages)), inside, "{first} {pages}");
        }
    }

    #[test]
    fn test_set_splits_long_ranges_from_the_top_down() {
        let mut set = set();
        set.insert(PageRange::new(3, 100));
        set.insert(PageRange::new(1000, 70));
        let ranges: Vec<_> = set.ranges_down(60).map(<[u64; 2]>::from).collect();
        assert_eq!(ranges, [[1010, 60], [1000, 10], [43, 60], [3, 40]]);
    }

    proptest! {
        #[test]
        fn test_set_behaves_like_a_set_of_numbers(
            steps in prop::collection::vec((any::<bool>(), 0_u64..1100, 0_u64..200), 0..40),
            longest in 1_u64..100,
        ) {
            let (mut set, mut model) = (set(), BTreeSet::new());
            for (is_insert, first, pages) in steps {
                let range = PageRange::new(first, pages);
                let known = (first..first + pages)
                    .filter(|page| *page < 130 || (1000..1070).contains(page));
                let present = known.clone().filter(|page| model.contains(page)).count() as u64;
                prop_assert_eq!(set.count(range), present);
                if is_insert {
                    let new = known.filter(|page| model.insert(*page)).count() as u64;
                    prop_assert_eq!(set.insert(range), new);
                } else {
                    let gone = known.filter(|page| model.remove(page)).count() as u64;
                    prop_assert_eq!(set.remove(range), gone);
                }
                prop_assert_eq!(set.len(), model.len() as u64);
            }
            let ranges: Vec<_> = set.ranges_down(longest).collect();
            prop_assert!(ranges.iter().all(|range| range.pages <= longest));
            let listed = ranges.iter().rev().flat_map(|range| range.first..range.end());
            prop_assert!(listed.eq(model.iter().copied()));
            let has = |set: &mut PageSet, page| set.count(PageRange::new(page, 1)) == 1;
            prop_assert!((0..1100).all(|page| has(&mut set, page) == model.contains(&page)));
        }
    }
}
