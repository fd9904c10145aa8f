//! The order of the items of each row, with few crossings of arrows.

use super::{Link, Row, index_in};

/// Rounds up and down from each start.
const ROUNDS: usize = 8;
/// Number of orders to start from. Graphs of some dozens of crates need no more.
const STARTS: usize = 40;

/// Orders each row so that few arrows cross: by the mean position of an item's neighbours, then by
/// exchanging neighbours of a row as long as that reduces crossings, from several start orders. The
/// same rows and links give the same order.
pub(super) fn untangle(rows: &mut Vec<Row>, links: &[Link]) {
    let mut best = (crossings(rows, links), rows.clone());
    let mut start = rows.clone();
    let mut random = 1_u32;
    for _ in 0..STARTS {
        let mut order = start.clone();
        for round in 0..ROUNDS {
            let downwards = round % 2 == 0;
            for step in 1..order.len() {
                let row = if downwards { step } else { order.len() - 1 - step };
                sort_row(&mut order, links, row, downwards);
            }
            let mut exchanged = order.clone();
            let found = exchange(&mut exchanged, links);
            if found < best.0 {
                best = (found, exchanged);
            }
        }
        start.iter_mut().for_each(|row| shuffle(row, &mut random));
    }
    *rows = best.1;
}

/// Shuffles a row, with a linear congruential generator.
fn shuffle(row: &mut Row, random: &mut u32) {
    for index in (1..row.len()).rev() {
        *random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        row.swap(index, (*random >> 16) as usize % (index + 1));
    }
}

/// Sorts a row by the mean position of its items' neighbours in the row above or below. An item
/// without neighbours keeps its position, relative to its row's length.
fn sort_row(rows: &mut [Row], links: &[Link], row: usize, by_the_row_above: bool) {
    let beside = if by_the_row_above { row - 1 } else { row + 1 };
    let relative = |row: &Row, index: usize| (index as f64 + 0.5) / row.len() as f64;
    let key = |index: usize| {
        let item = rows[row][index];
        let neighbours = links.iter().filter_map(|link| {
            let (own, other) =
                if by_the_row_above { (link.lower, link.upper) } else { (link.upper, link.lower) };
            let joins = link.row == row.min(beside) && own == item;
            joins.then(|| relative(&rows[beside], index_in(&rows[beside], other)))
        });
        let positions: Vec<f64> = neighbours.collect();
        match positions.len() {
            0 => relative(&rows[row], index),
            count => positions.iter().sum::<f64>() / count as f64,
        }
    };
    let mut keyed: Vec<(f64, usize)> =
        (0..rows[row].len()).map(|index| (key(index), index)).collect();
    keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
    rows[row] = keyed.into_iter().map(|(_, index)| rows[row][index]).collect();
}

/// Exchanges neighbours as long as that reduces the number of crossings, and returns that number.
fn exchange(rows: &mut [Row], links: &[Link]) -> usize {
    let mut count = crossings(rows, links);
    let mut improved = true;
    while improved && count > 0 {
        improved = false;
        for row in 0..rows.len() {
            for index in 1..rows[row].len() {
                rows[row].swap(index - 1, index);
                let found = crossings(rows, links);
                if found < count {
                    (count, improved) = (found, true);
                } else {
                    rows[row].swap(index - 1, index);
                }
            }
        }
    }
    count
}

/// Returns the number of pairs of links that cross.
fn crossings(rows: &[Row], links: &[Link]) -> usize {
    let ends = |link: &Link| {
        (index_in(&rows[link.row], link.upper), index_in(&rows[link.row + 1], link.lower))
    };
    let ends: Vec<(usize, usize, usize)> =
        links.iter().map(|link| (link.row, ends(link).0, ends(link).1)).collect();
    let cross = |a: &(usize, usize, usize), b: &(usize, usize, usize)| {
        a.0 == b.0 && (a.1 < b.1 && a.2 > b.2 || a.1 > b.1 && a.2 < b.2)
    };
    ends.iter()
        .enumerate()
        .map(|(at, a)| ends[at + 1..].iter().filter(|b| cross(a, b)).count())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::super::Item;
    use super::*;

    #[test]
    fn test_untangle_finds_the_order_without_crossings() {
        let crates = |ids: &[usize]| ids.iter().map(|id| Item::Crate(*id)).collect::<Row>();
        let mut rows = vec![crates(&[0, 1, 2]), crates(&[3, 4, 5]), crates(&[6])];
        let link =
            |row, upper, lower| Link { row, upper: Item::Crate(upper), lower: Item::Crate(lower) };
        let links = [link(0, 0, 5), link(0, 1, 4), link(0, 2, 3), link(1, 3, 6), link(1, 5, 6)];
        assert_eq!(crossings(&rows, &links), 3);
        untangle(&mut rows, &links);
        assert_eq!(crossings(&rows, &links), 0, "{rows:?}");
        let mut lengths: Vec<usize> = rows.iter().map(Row::len).collect();
        lengths.sort_unstable();
        assert_eq!(lengths, [1, 3, 3], "no item may be lost");
    }
}
