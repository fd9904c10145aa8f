//! Areas of the canvas that have moved up or down, as text does that is scrolled.
//!
//! Rows are compared by a hash to guess the distance, then pixel by pixel: a move that is found is
//! one.

use std::ops::Range;

use super::{Canvas, PIXELS};
use crate::protocol::Area;
use crate::segments::{Move, SegmentSet};

/// Segments that must have changed, and that a move must save: below, it does not pay.
const MIN_SEGMENTS: usize = 128;

/// Rows of the lowest area that is moved.
const MIN_ROWS: usize = 8;

/// Rows that must have the same distance.
const MIN_VOTES: usize = 4;

/// Segments of a row that are hashed.
const MAX_HASHED: usize = 16;

/// Areas of a refresh that are moved.
const MAX_MOVES: usize = 16;

/// Returns the areas that have moved in the canvas's last refresh, which has changed `changed`, in
/// the order in which they can be moved one after the other.
pub(super) fn find(canvas: &Canvas, changed: &SegmentSet) -> Vec<Move> {
    if changed.count() < MIN_SEGMENTS {
        return Vec::new();
    }
    let counts = count_rows(changed);
    let Some(columns) = columns(&counts) else { return Vec::new() };
    let pixels = |columns: Range<usize>| {
        columns.start * PIXELS..(columns.end * PIXELS).min(canvas.width.into())
    };
    let hashed = pixels(hashed(&counts, columns.clone()));
    let pixels = pixels(columns.clone());
    let has_changed = |row: &usize| canvas.has_row_changed(*row) && changed.has_any(*row, &columns);
    let Some(first) = (0..changed.rows()).find(has_changed) else { return Vec::new() };
    let last = (first..changed.rows()).rev().find(has_changed).unwrap_or(first);
    let rows = first..last + 1;
    let Some(distance) = distance(canvas, rows.clone(), &hashed, has_changed) else {
        return Vec::new();
    };
    let has_moved = |row: usize| {
        row.checked_add_signed(distance).filter(|from| rows.contains(from)).is_some_and(|from| {
            canvas.row(row, pixels.clone()) == canvas.previous_row(from, pixels.clone())
        })
    };
    let mut moves = Vec::new();
    let mut next = rows.start;
    while let Some(start) = (next..rows.end).find(|row| has_moved(*row)) {
        let end = (start..rows.end).find(|row| !has_moved(*row)).unwrap_or(rows.end);
        next = end + 1;
        let is_short = (start..end).filter(has_changed).count() < MIN_ROWS;
        if !is_short && moves.len() < MAX_MOVES {
            moves.extend(moved(&pixels, start..end, distance));
        }
    }
    // A source lies beside its destination, so it is behind all destinations before it.
    if distance < 0 {
        moves.reverse();
    }
    let saved: usize = moves.iter().map(|one| changed.count_area(one.area)).sum();
    if saved < MIN_SEGMENTS { Vec::new() } else { moves }
}

/// Returns in how many rows each column of segments has changed.
fn count_rows(changed: &SegmentSet) -> Vec<u32> {
    let mut counts = vec![0_u32; changed.columns()];
    for row in 0..changed.rows() {
        changed.row(row).for_each(|column| counts[column] += 1);
    }
    counts
}

/// Returns the columns of segments that have changed in many rows.
fn columns(counts: &[u32]) -> Option<Range<usize>> {
    let many = counts.iter().max()?.div_ceil(4).max(1);
    let is_many = |count: &u32| *count >= many;
    let first = counts.iter().position(is_many)?;
    Some(first..counts.iter().rposition(is_many)? + 1)
}

/// Returns those of the columns whose pixels are hashed: side by side, where most has changed.
fn hashed(counts: &[u32], columns: Range<usize>) -> Range<usize> {
    let length = columns.len().min(MAX_HASHED);
    let starts = columns.start..=columns.end - length;
    let changes = |start: &usize| counts[*start..*start + length].iter().sum::<u32>();
    let start = starts.max_by_key(changes).unwrap_or(columns.start);
    start..start + length
}

/// Returns by how many rows most rows have moved: where they were, less where they are.
fn distance(
    canvas: &Canvas,
    rows: Range<usize>,
    pixels: &Range<usize>,
    has_changed: impl Fn(&usize) -> bool,
) -> Option<isize> {
    let hashes = rows.clone().map(|row| (hash(canvas.previous_row(row, pixels.clone())), row));
    let mut hashes: Vec<(u64, usize)> = hashes.collect();
    hashes.sort_unstable();
    // A row that is there several times, such as a blank one, says nothing.
    let is_same = |one: &(u64, usize), next: &(u64, usize)| one.0 == next.0;
    let unique: Vec<(u64, usize)> =
        hashes.chunk_by(is_same).filter(|same| same.len() == 1).map(|same| same[0]).collect();
    let mut distances: Vec<isize> = rows
        .filter(has_changed)
        .filter_map(|row| {
            let hash = hash(canvas.row(row, pixels.clone()));
            let at = unique.binary_search_by_key(&hash, |one| one.0).ok()?;
            Some(unique[at].1.cast_signed() - row.cast_signed())
        })
        .filter(|distance| *distance != 0)
        .collect();
    distances.sort_unstable();
    let most = distances.chunk_by(|one, next| one == next).max_by_key(|same| same.len())?;
    (most.len() >= MIN_VOTES).then(|| most[0])
}

/// Returns a number that is likely to differ if pixels do.
fn hash(pixels: &[u32]) -> u64 {
    const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;
    // Lanes, as a multiplication takes its time.
    let mut lanes = [FACTOR; 4];
    let (groups, rest) = pixels.as_chunks::<8>();
    for group in groups {
        let (pairs, _) = group.as_chunks::<2>();
        for (lane, [low, high]) in lanes.iter_mut().zip(pairs) {
            let pair = u64::from(*low) | u64::from(*high) << 32;
            *lane = (*lane ^ pair).wrapping_mul(FACTOR).rotate_left(29);
        }
    }
    let words = lanes.into_iter().chain(rest.iter().map(|pixel| u64::from(*pixel)));
    words.fold(0, |hash, word| (hash ^ word).wrapping_mul(FACTOR).rotate_left(29))
}

fn moved(pixels: &Range<usize>, rows: Range<usize>, distance: isize) -> Option<Move> {
    let half = |number: usize| u16::try_from(number).ok();
    let area = Area {
        x: half(pixels.start)?,
        y: half(rows.start)?,
        width: half(pixels.len())?,
        height: half(rows.len())?,
    };
    Some(Move { area, from: half(rows.start.checked_add_signed(distance)?)? })
}
