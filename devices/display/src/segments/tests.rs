//! Tests of sets of segments.

use super::cover::MAX_RECTANGLE_PIXELS;
use super::*;

fn area(x: u16, y: u16, width: u16, height: u16) -> Area {
    Area { x, y, width, height }
}

#[test]
fn test_area_adds_the_segments_that_it_touches() {
    let mut set = SegmentSet::new(100, 50);
    set.add_area(area(15, 16, 2, 3));
    assert_eq!(set.count(), 6);
    assert_eq!(set.into_areas(100, 50, Cover::Exact), [area(0, 16, 32, 3)]);
}

#[test]
fn test_areas_at_the_edge_are_clipped_to_the_screen() {
    for cover in [Cover::Exact, Cover::Few] {
        let mut set = SegmentSet::new(100, 50);
        set.add_area(area(0, 0, u16::MAX, u16::MAX));
        assert_eq!(set.into_areas(100, 50, cover), [area(0, 0, 100, 50)]);
    }
}

#[test]
fn test_empty_and_distant_areas_touch_no_segment() {
    let mut set = SegmentSet::new(100, 50);
    for one in [area(20, 20, 0, 5), area(20, 20, 5, 0), area(200, 0, 5, 5), area(0, 64, 9, 9)] {
        set.add_area(one);
    }
    assert_eq!(set.count(), 0);
}

#[test]
fn test_take_area_leaves_the_other_segments() {
    let mut set = SegmentSet::new(64, 64);
    set.add_area(area(0, 0, 64, 64));
    assert_eq!(set.count_area(area(0, 0, 32, 64)), 128);
    let taken = set.take_area(area(0, 0, 64, 20));
    assert_eq!((taken.count(), set.count()), (80, 176));
    assert_eq!(set.into_areas(64, 64, Cover::Exact), [area(0, 20, 64, 44)]);
}

#[test]
fn test_no_rectangle_has_more_pixels_than_the_limit() {
    for cover in [Cover::Exact, Cover::Few] {
        let areas = SegmentSet::full(3840, 2160).into_areas(3840, 2160, cover);
        assert!(areas.iter().all(|one| one.pixels() <= MAX_RECTANGLE_PIXELS));
        assert_eq!(areas.iter().map(|one| one.pixels()).sum::<usize>(), 3840 * 2160);
    }
}

#[test]
fn test_many_rectangles_become_coarser_ones() {
    let mut set = SegmentSet::new(1024, 1024);
    for row in 0..1024 {
        (0..64).filter(|column| (row / 16 + column) % 2 == 0).for_each(|one| set.add(one, row));
    }
    assert!(set.clone().into_areas(1024, 1024, Cover::Few).len() <= 4);
    assert!(set.into_areas(1024, 1024, Cover::Exact).len() <= 4);
}

#[test]
fn test_few_rectangles_have_no_rows_and_columns_without_a_segment_at_their_edges() {
    let mut set = SegmentSet::new(2048, 100);
    set.add_area(area(1008, 19, 32, 10));
    assert_eq!(set.clone().into_areas(2048, 100, Cover::Few), [area(1008, 19, 32, 10)]);
    set.add_area(area(0, 33, 16, 1));
    let areas = set.into_areas(2048, 100, Cover::Few);
    assert_eq!(areas, [area(1008, 19, 32, 10), area(0, 33, 16, 1)]);
}

#[test]
fn test_rectangles_cover_each_segment_of_random_sets() {
    let mut random = 1_u32;
    let mut below = |limit: u16| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 16) as u16 % limit
    };
    for _ in 0..300 {
        let (width, height) = (1 + below(1200), 1 + below(200));
        let mut set = SegmentSet::new(width, height);
        for _ in 0..below(60) {
            set.add_area(area(below(width), below(height), 1 + below(200), 1 + below(20)));
        }
        let exact = set.clone().into_areas(width, height, Cover::Exact);
        let few = set.clone().into_areas(width, height, Cover::Few);
        let covered = |areas: &[Area]| {
            let mut covered = SegmentSet::new(width, height);
            areas.iter().for_each(|one| covered.add_area(*one));
            covered
        };
        assert_eq!(covered(&exact), set);
        let mut both = covered(&few);
        both.add_all(&set);
        assert_eq!(both, covered(&few));
    }
}

#[test]
fn test_move_gives_the_destination_the_segments_of_the_source() {
    for (from, y) in [(3, 0), (0, 3)] {
        let mut set = SegmentSet::new(1600, 20);
        let mut rows: Vec<bool> = (0..20).map(|row| row % 3 == 0 || row == 8).collect();
        for (row, _) in rows.iter().enumerate().filter(|(_, is_in)| **is_in) {
            set.add_area(area(0, row as u16, 1600, 1));
        }
        set.apply(Move { area: area(992, y, 64, 12), from });
        rows.copy_within(usize::from(from)..usize::from(from) + 12, y.into());
        for (row, is_in) in rows.iter().enumerate() {
            assert_eq!(set.has_any(row, &(62..66)), *is_in, "{from} to {y}, row {row}");
            assert_eq!(set.has_any(row, &(61..62)), row % 3 == 0 || row == 8);
            assert_eq!(set.has_any(row, &(66..67)), row % 3 == 0 || row == 8);
        }
    }
}
