//! The positions of each row's items, and of the arrows' ends.

use super::{BOX_WIDTH, GAP, Item, Link, Row, index_in};

/// Rounds: more than positions need to change by less than a pixel.
const ROUNDS: usize = 200;
/// The gap between two arrows at the same side of a box.
const PORT_GAP: f64 = 26.0;

/// Returns the centre of each item, so that arrows are short and lanes straight. The leftmost item
/// starts at 0. Rows keep their order and neighbours their distance.
pub(super) fn centres(rows: &[Row], links: &[Link]) -> Vec<Vec<f64>> {
    let mut centres: Vec<Vec<f64>> =
        rows.iter().map(|row| spread(row, &vec![(0.0, 1.0); row.len()])).collect();
    for round in 0..ROUNDS {
        for step in 0..rows.len() {
            let row = if round % 2 == 0 { step } else { rows.len() - 1 - step };
            let wanted: Vec<(f64, f64)> =
                (0..rows[row].len()).map(|index| wish(rows, links, &centres, row, index)).collect();
            centres[row] = spread(&rows[row], &wanted);
        }
    }
    straighten(rows, &mut centres);
    let left = rows
        .iter()
        .zip(&centres)
        .filter_map(|(row, centres)| Some(centres.first()? - row.first()?.width() / 2.0));
    let left = left.fold(f64::INFINITY, f64::min);
    centres.iter().map(|row| row.iter().map(|x| (x - left).round()).collect()).collect()
}

/// Returns the position of an item if it were alone in its row, in the middle of its neighbours
/// above and below, and the weight of that position. A lane has more weight than a box, because a
/// bend in it is more visible.
fn wish(
    rows: &[Row],
    links: &[Link],
    centres: &[Vec<f64>],
    row: usize,
    index: usize,
) -> (f64, f64) {
    let item = rows[row][index];
    let (mut sum, mut weights) = (0.0, 0.0);
    for link in links {
        let other = if link.row == row && link.upper == item {
            (row + 1, link.lower)
        } else if link.row + 1 == row && link.lower == item {
            (link.row, link.upper)
        } else {
            continue;
        };
        let lanes = [item, other.1].iter().filter(|item| matches!(item, Item::Lane(_))).count();
        let weight = [1.0, 2.0, 32.0][lanes];
        sum += weight * centres[other.0][index_in(&rows[other.0], other.1)];
        weights += weight;
    }
    if weights > 0.0 { (sum / weights, weights) } else { (centres[row][index], 1.0) }
}

/// Returns the centres nearest to the wanted ones, by the weighted sum of squares, at which no two
/// items of the row are too near each other. `wanted` has the centres with their weights.
fn spread(row: &Row, wanted: &[(f64, f64)]) -> Vec<f64> {
    // After subtracting the distances, the centres must only not decrease: items that would are
    // pooled at their mean.
    let mut offsets = vec![0.0];
    for two in row.windows(2) {
        let last = offsets[offsets.len() - 1];
        offsets.push(last + (two[0].width() + two[1].width()) / 2.0 + GAP);
    }
    let mut pools: Vec<(f64, f64, usize)> = Vec::new();
    for ((wanted, weight), offset) in wanted.iter().zip(&offsets) {
        let mut pool = (wanted - offset, *weight, 1);
        while let Some(before) = pools.pop_if(|before| before.0 > pool.0) {
            let weight = before.1 + pool.1;
            pool = ((before.0 * before.1 + pool.0 * pool.1) / weight, weight, before.2 + pool.2);
        }
        pools.push(pool);
    }
    let pooled = pools.iter().flat_map(|(value, _, count)| std::iter::repeat_n(*value, *count));
    pooled.zip(&offsets).map(|(value, offset)| value + offset).collect()
}

/// Moves the lanes of each arrow to one position, if their neighbours leave space for it.
fn straighten(rows: &[Row], centres: &mut [Vec<f64>]) {
    let lanes = rows.iter().flatten().filter(|item| matches!(item, Item::Lane(_)));
    for lane in lanes.copied().collect::<Vec<_>>() {
        let mut places = Vec::new();
        let (mut low, mut high) = (f64::NEG_INFINITY, f64::INFINITY);
        for (row, items) in rows.iter().enumerate() {
            let Some(index) = items.iter().position(|item| *item == lane) else { continue };
            let distance = |other: Item| (lane.width() + other.width()) / 2.0 + GAP;
            if let Some(before) = index.checked_sub(1) {
                low = low.max(centres[row][before] + distance(items[before]));
            }
            if let Some(after) = items.get(index + 1) {
                high = high.min(centres[row][index + 1] - distance(*after));
            }
            places.push((row, index));
        }
        let mean = places.iter().map(|(row, index)| centres[*row][*index]).sum::<f64>()
            / places.len() as f64;
        if low <= high {
            places.iter().for_each(|(row, index)| centres[*row][*index] = mean.clamp(low, high));
        }
    }
}

/// Returns the vertical pieces of each arrow, of which `chains` has the links. `spans` has the top
/// and the bottom of each row. Arrows at one side of a box keep the order of their other ends.
pub(super) fn pieces(
    rows: &[Row],
    centres: &[Vec<f64>],
    spans: &[(f64, f64)],
    chains: &[Vec<Link>],
) -> Vec<Vec<(f64, f64, f64)>> {
    let links = chains.concat();
    let centre = |row: usize, item: Item| centres[row][index_in(&rows[row], item)];
    // The neighbours at one side of an item, from left to right.
    let port = |row: usize, item: Item, downwards: bool, other: Item| {
        let beside = if downwards { row + 1 } else { row - 1 };
        let neighbours = links.iter().filter_map(|link| match downwards {
            true => (link.row == row && link.upper == item).then_some(link.lower),
            false => (link.row == beside && link.lower == item).then_some(link.upper),
        });
        let mut neighbours: Vec<Item> = neighbours.collect();
        neighbours.sort_by_key(|item| index_in(&rows[beside], *item));
        let gap = PORT_GAP.min(BOX_WIDTH / (neighbours.len() + 1) as f64);
        let middle = (neighbours.len() - 1) as f64 / 2.0;
        let index = neighbours.iter().position(|item| *item == other).unwrap_or_default();
        centre(row, item) + (index as f64 - middle) * gap
    };
    let piece = |links: &[Link]| -> Vec<(f64, f64, f64)> {
        let mut pieces = Vec::new();
        for link in links {
            if matches!(link.upper, Item::Crate(_)) {
                let bottom = spans[link.row].1;
                pieces.push((port(link.row, link.upper, true, link.lower), bottom, bottom));
            }
            let (top, bottom) = spans[link.row + 1];
            match link.lower {
                Item::Crate(_) => {
                    pieces.push((port(link.row + 1, link.lower, false, link.upper), top, top));
                }
                Item::Lane(_) => pieces.push((centre(link.row + 1, link.lower), top, bottom)),
            }
        }
        pieces
    };
    chains.iter().map(|links| piece(links)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::LANE_WIDTH;
    use super::*;

    #[test]
    fn test_spread_keeps_distances_and_otherwise_what_is_wanted() {
        let row = [Item::Crate(0), Item::Crate(1), Item::Lane(0)].to_vec();
        let near = spread(&row, &[(0.0, 1.0), (0.0, 3.0), (1000.0, 1.0)]);
        assert_eq!(near[1] - near[0], BOX_WIDTH + GAP);
        assert_eq!(near[0], -3.0 * near[1], "the one with less weight gives way");
        assert_eq!(near[2], 1000.0);
    }

    #[test]
    fn test_straighten_moves_lanes_as_far_as_their_neighbours_allow() {
        let (lane, other) = (Item::Lane(0), Item::Lane(1));
        let rows = vec![vec![lane], vec![Item::Crate(0), lane], vec![other, lane]];
        let beside = BOX_WIDTH / 2.0 + LANE_WIDTH / 2.0 + GAP;
        let mut centres = vec![vec![0.0], vec![0.0, beside], vec![-100.0, 20.0]];
        straighten(&rows, &mut centres);
        assert_eq!(centres, [vec![beside], vec![0.0, beside], vec![-100.0, beside]]);
    }
}
