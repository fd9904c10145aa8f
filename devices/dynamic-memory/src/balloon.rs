//! The pages that the guest gave, and those of them that the host has back.

use thiserror::Error;

use crate::page_set::PageSet;
use crate::protocol::PageRange;

/// The balloon's books. They make no system call.
#[derive(Clone, Debug)]
pub(crate) struct Balloon {
    /// Pages that the guest gave.
    given: PageSet,
    /// Pages of `given` that the host has back.
    returned: PageSet,
    /// Pages of a page of the host's file, which are returned together; a power of two.
    unit: u64,
}

/// The reason to ignore a range that the guest gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum GiveError {
    /// It is not RAM as a whole, or has no page.
    #[error("{0} are not guest RAM")]
    NotRam(PageRange),
    /// A page of it is in the balloon already.
    #[error("{0}: some are in the balloon already")]
    Twice(PageRange),
}

impl Balloon {
    /// Returns an empty balloon for the pages of `regions`. `unit`: pages of a page of the host's
    /// file, a power of two; regions must begin at a multiple of it.
    pub(crate) fn new(regions: &[PageRange], unit: u64) -> Self {
        let set = || PageSet::new(regions.iter().copied());
        Self { given: set(), returned: set(), unit: unit.max(1) }
    }

    /// Returns the number of pages in the balloon.
    pub(crate) fn pages(&self) -> u64 {
        self.given.len()
    }

    /// Returns the number of these pages that the host has back.
    pub(crate) fn returned(&self) -> u64 {
        self.returned.len()
    }

    /// Returns whether all pages of `range`, at least one, are RAM. `absent`: pages that are not
    /// plugged.
    pub(crate) fn is_ram(&self, range: PageRange, absent: PageRange) -> bool {
        self.given.covers(range) && (range.end() <= absent.first || absent.end() <= range.first)
    }

    /// Adds pages that the guest gives. `absent`: pages that are not plugged.
    ///
    /// # Errors
    /// [`GiveError`]: none of them was added.
    pub(crate) fn give(&mut self, range: PageRange, absent: PageRange) -> Result<(), GiveError> {
        if !self.is_ram(range, absent) {
            return Err(GiveError::NotRam(range));
        }
        if self.given.count(range) > 0 {
            return Err(GiveError::Twice(range));
        }
        self.given.insert(range);
        Ok(())
    }

    /// Returns the pages of the host's file that have a page of `range` and that the guest gave as
    /// a whole, with neighbours joined. They can be returned to the host.
    pub(crate) fn whole_units(&mut self, range: PageRange) -> Vec<PageRange> {
        if self.unit == 1 {
            return vec![range];
        }
        let mut whole: Vec<PageRange> = Vec::new();
        let mut first = range.first / self.unit * self.unit;
        while first < range.end() {
            let unit = PageRange::new(first, self.unit);
            if self.given.count(unit) == self.unit && self.returned.count(unit) == 0 {
                match whole.last_mut() {
                    Some(last) if last.end() == first => last.pages += self.unit,
                    _ => whole.push(unit),
                }
            }
            first += self.unit;
        }
        whole
    }

    /// Notes that the host has the pages of `range` back.
    pub(crate) fn set_returned(&mut self, range: PageRange) {
        self.returned.insert(range);
    }

    /// Chooses ranges to give back to the guest: at most `pages` pages in `ranges` ranges. They
    /// stay in the balloon until [`Balloon::take`].
    pub(crate) fn choose(&self, pages: u64, ranges: usize) -> Vec<PageRange> {
        let mut left = pages;
        let mut chosen = Vec::new();
        for range in self.given.ranges_down(PageRange::MAX_PAGES).take(ranges) {
            if left == 0 {
                break;
            }
            let pages = range.pages.min(left);
            // The higher end, so that the next choice continues below.
            chosen.push(PageRange::new(range.end() - pages, pages));
            left -= pages;
        }
        chosen
    }

    /// Returns the pages of the host's file that have a page of `range` and that the host has.
    pub(crate) fn returned_units(&mut self, range: PageRange) -> Vec<PageRange> {
        let mut units = Vec::new();
        let mut first = range.first / self.unit * self.unit;
        while first < range.end() {
            let unit = PageRange::new(first, self.unit);
            if self.returned.count(unit) > 0 {
                units.push(unit);
            }
            first += self.unit;
        }
        units
    }

    /// Removes pages, which belong to the guest again. The host's pages that they are in are the
    /// guest's, too, as soon as it writes to them.
    pub(crate) fn take(&mut self, range: PageRange) {
        self.given.remove(range);
        let first = range.first / self.unit * self.unit;
        let end = range.end().next_multiple_of(self.unit);
        self.returned.remove(PageRange::new(first, end - first));
    }

    /// Forgets everything: the pages belong to the guest.
    pub(crate) fn clear(&mut self) {
        self.given.clear();
        self.returned.clear();
    }

    /// Returns all pages of the balloon, for saved states.
    pub(crate) fn ranges(&self) -> Vec<PageRange> {
        self.given.ranges_down(u64::MAX).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No page is absent.
    const NONE: PageRange = PageRange::new(u64::MAX, 0);

    fn range(first: u64, pages: u64) -> PageRange {
        PageRange::new(first, pages)
    }

    #[test]
    fn test_balloon_refuses_pages_that_are_no_ram_or_that_it_has() {
        let mut balloon = Balloon::new(&[range(0, 100), range(512, 100)], 1);
        balloon.give(range(10, 20), NONE).unwrap();
        for wrong in [range(100, 1), range(90, 20), range(511, 2), range(5, 0), range(1 << 39, 9)] {
            assert_eq!(balloon.give(wrong, NONE), Err(GiveError::NotRam(wrong)));
        }
        for twice in [range(10, 20), range(29, 1), range(0, 100), range(29, 2)] {
            assert_eq!(balloon.give(twice, NONE), Err(GiveError::Twice(twice)));
        }
        assert_eq!(balloon.pages(), 20);
        let absent = range(550, 62);
        assert_eq!(balloon.give(range(540, 11), absent), Err(GiveError::NotRam(range(540, 11))));
        assert_eq!(balloon.give(range(540, 10), absent), Ok(()));
    }

    #[test]
    fn test_balloon_of_large_pages_returns_only_whole_ones_once() {
        let mut balloon = Balloon::new(&[range(0, 2048)], 512);
        balloon.give(range(0, 511), NONE).unwrap();
        assert_eq!(balloon.whole_units(range(0, 511)), []);
        balloon.give(range(511, 514), NONE).unwrap();
        assert_eq!(balloon.whole_units(range(511, 514)), [range(0, 1024)]);
        balloon.set_returned(range(0, 1024));
        assert_eq!(balloon.whole_units(range(511, 514)), []);
        assert_eq!((balloon.pages(), balloon.returned()), (1025, 1024));
        // One small page goes back: its large page is the guest's again.
        assert_eq!(balloon.returned_units(range(600, 1)), [range(512, 512)]);
        balloon.take(range(600, 1));
        assert_eq!((balloon.pages(), balloon.returned()), (1024, 512));
        assert_eq!(balloon.returned_units(range(601, 424)), []);
    }

    #[test]
    fn test_balloon_chooses_no_more_than_asked_and_never_the_same_twice() {
        let mut balloon = Balloon::new(&[range(0, 1000)], 1);
        for first in (0..1000).step_by(10) {
            balloon.give(range(first, 5), NONE).unwrap();
        }
        let mut pages = 0;
        while balloon.pages() > 0 {
            let chosen = balloon.choose(17, 3);
            assert!(chosen.len() <= 3);
            for one in chosen {
                pages += one.pages;
                balloon.take(one);
                balloon.give(one, NONE).unwrap();
                balloon.take(one);
            }
        }
        assert_eq!(pages, 500);
    }
}
