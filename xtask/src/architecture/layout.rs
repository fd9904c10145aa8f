//! The layout of boxes and arrows. Each group of connected crates is a column of bands (folders),
//! each band a stack of rows; arrows run downwards. An arrow that passes a row has a lane of its
//! own there, so that it crosses no box.

mod order;
mod place;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;

use super::graph::{Graph, Node, Use};
use super::text;

/// Sizes in pixels.
pub(super) const BOX_WIDTH: f64 = 212.0;
pub(super) const NAME_LINE: f64 = 24.0;
pub(super) const TEXT_SIZE: f64 = 12.0;
pub(super) const TEXT_LINE: f64 = 15.5;
pub(super) const BOX_INSET: f64 = 14.0;
const LANE_WIDTH: f64 = 8.0;
/// The gap between two neighbours of a row.
const GAP: f64 = 24.0;
/// The gap between two rows of a band, where arrows bend.
const ROW_GAP: f64 = 40.0;
/// The gap between a band's edge and its rows.
const BAND_PADDING: f64 = 16.0;
/// The width of a band's label, at its left edge.
pub(super) const BAND_LABEL: f64 = 36.0;
/// The gap between two bands.
const BAND_GAP: f64 = 20.0;
const COLUMN_GAP: f64 = 24.0;

/// The finished drawing, without its margins.
#[derive(Debug, Default)]
pub(super) struct Layout {
    pub(super) width: f64,
    pub(super) height: f64,
    pub(super) bands: Vec<Band>,
    pub(super) boxes: Vec<CrateBox>,
    pub(super) arrows: Vec<Arrow>,
}

/// The background of a folder's crates.
#[derive(Debug)]
pub(super) struct Band {
    pub(super) band: usize,
    pub(super) area: Area,
}

/// A crate's box.
#[derive(Debug)]
pub(super) struct CrateBox {
    pub(super) id: usize,
    pub(super) area: Area,
    pub(super) lines: Vec<String>,
}

/// A rectangle: left, top, width, height.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Area {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

/// An arrow as the vertical pieces that it consists of; it bends between two of them.
#[derive(Debug)]
pub(super) struct Arrow {
    pub(super) how: Use,
    /// `(x, top, bottom)`; the first and the last have no length.
    pub(super) pieces: Vec<(f64, f64, f64)>,
}

/// An item that takes up space in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Item {
    Crate(usize),
    /// A lane of the arrow with this number.
    Lane(usize),
}

/// A row of a column, from left to right.
type Row = Vec<Item>;

/// A part of an arrow: from an item of a row to one of the row below.
#[derive(Debug, Clone, Copy)]
struct Link {
    /// The upper item's row.
    row: usize,
    upper: Item,
    lower: Item,
}

/// Returns the index of an item in its row.
fn index_in(row: &Row, item: Item) -> usize {
    row.iter().position(|other| *other == item).unwrap_or_default()
}

impl Item {
    fn width(self) -> f64 {
        match self {
            Item::Crate(_) => BOX_WIDTH,
            Item::Lane(_) => LANE_WIDTH,
        }
    }
}

/// Returns the layout of a graph.
pub(super) fn arrange(graph: &Graph) -> Layout {
    let arrows = graph.arrows();
    let mut layout = Layout::default();
    for members in columns(graph, &arrows) {
        let arrows: Vec<_> =
            arrows.iter().copied().filter(|arrow| members.contains(&arrow.0)).collect();
        column(graph, &members, &arrows, &mut layout);
    }
    layout
}

/// Groups crates that arrows connect, the largest group first.
fn columns(graph: &Graph, arrows: &[(usize, usize, Use)]) -> Vec<Vec<usize>> {
    let mut group: Vec<usize> = (0..graph.crates().len()).collect();
    for (from, to, _) in arrows {
        let (old, new) = (group[*from].max(group[*to]), group[*from].min(group[*to]));
        for entry in &mut group {
            if *entry == old {
                *entry = new;
            }
        }
    }
    let members =
        |wanted: usize| (0..group.len()).filter(|id| group[*id] == wanted).collect::<Vec<_>>();
    let mut columns: Vec<Vec<usize>> =
        (0..group.len()).map(members).filter(|found| !found.is_empty()).collect();
    columns.sort_by_key(|members| Reverse(members.len()));
    columns
}

/// Adds one column to the right of the existing ones.
fn column(graph: &Graph, members: &[usize], arrows: &[(usize, usize, Use)], layout: &mut Layout) {
    let (crate_rows, bands) = rows(graph, members, arrows);
    let row_of =
        |id: usize| crate_rows.iter().position(|row| row.contains(&id)).unwrap_or_default();
    let mut rows: Vec<Row> =
        crate_rows.iter().map(|row| row.iter().map(|id| Item::Crate(*id)).collect()).collect();
    // The parts of each arrow, from the top down.
    let mut chains: Vec<Vec<Link>> = Vec::new();
    for (number, (from, to, _)) in arrows.iter().enumerate() {
        let (first, last) = (row_of(*from), row_of(*to));
        let lane = Item::Lane(number);
        rows[first + 1..last].iter_mut().for_each(|row| row.push(lane));
        let link = |row: usize| Link {
            row,
            upper: if row == first { Item::Crate(*from) } else { lane },
            lower: if row + 1 == last { Item::Crate(*to) } else { lane },
        };
        chains.push((first..last).map(link).collect());
    }
    let links = chains.concat();
    order::untangle(&mut rows, &links);
    let centres = place::centres(&rows, &links);

    let left = if layout.width > 0.0 { layout.width + COLUMN_GAP } else { 0.0 };
    let centres: Vec<Vec<f64>> =
        centres.iter().map(|row| row.iter().map(|x| x + left + BAND_LABEL).collect()).collect();
    let right = rows
        .iter()
        .zip(&centres)
        .filter_map(|(row, centres)| Some(centres.last()? + row.last()?.width() / 2.0));
    let width = right.fold(0.0, f64::max) + BAND_PADDING - left;
    let (mut y, mut spans) = (0.0, Vec::new());
    for (index, row) in crate_rows.iter().enumerate() {
        let first = index == 0 || bands[index] != bands[index - 1];
        let last = bands.get(index + 1) != Some(&bands[index]);
        if first {
            y += if index == 0 { 0.0 } else { BAND_GAP };
            layout
                .bands
                .push(Band { band: bands[index], area: Area { x: left, y, width, height: 0.0 } });
            y += BAND_PADDING;
        }
        let height = row.iter().map(|id| box_height(graph.node(*id))).fold(0.0, f64::max);
        spans.push((y, y + height));
        y += height + if last { BAND_PADDING } else { ROW_GAP };
        if let Some(band) = layout.bands.last_mut() {
            band.area.height = y - band.area.y;
        }
    }
    for ((row, centres), (top, bottom)) in rows.iter().zip(&centres).zip(&spans) {
        for (item, centre) in row.iter().zip(centres) {
            if let Item::Crate(id) = item {
                let (x, height) = (centre - BOX_WIDTH / 2.0, bottom - top);
                let area = Area { x, y: *top, width: BOX_WIDTH, height };
                layout.boxes.push(CrateBox { id: *id, area, lines: lines(graph.node(*id)) });
            }
        }
    }
    let how = arrows.iter().map(|arrow| arrow.2);
    let pieces = place::pieces(&rows, &centres, &spans, &chains);
    layout.arrows.extend(how.zip(pieces).map(|(how, pieces)| Arrow { how, pieces }));
    layout.width = left + width;
    layout.height = layout.height.max(y);
}

/// Returns the crates of each row, and the band of each row.
fn rows(
    graph: &Graph,
    members: &[usize],
    arrows: &[(usize, usize, Use)],
) -> (Vec<Vec<usize>>, Vec<usize>) {
    let height = heights(graph, members, arrows);
    let mut keys: Vec<(usize, Reverse<usize>)> =
        members.iter().map(|id| (graph.node(*id).band, Reverse(height[*id]))).collect();
    keys.sort_unstable();
    keys.dedup();
    let in_row = |key: &(usize, Reverse<usize>)| {
        members
            .iter()
            .copied()
            .filter(|id| (graph.node(*id).band, Reverse(height[*id])) == *key)
            .collect()
    };
    (keys.iter().map(in_row).collect(), keys.iter().map(|key| key.0).collect())
}

/// Returns the number of rows of its band below each crate: above all crates that it uses there,
/// and as low as possible; but directly below its users if that makes more arrows short than long.
fn heights(graph: &Graph, members: &[usize], arrows: &[(usize, usize, Use)]) -> Vec<usize> {
    let band = |id: usize| graph.node(id).band;
    let mut height = vec![0_usize; graph.crates().len()];
    // Arrows form no cycle, so the loop ends after as many rounds as the longest path has arrows.
    loop {
        let too_low = arrows
            .iter()
            .find(|arrow| band(arrow.0) == band(arrow.1) && height[arrow.0] <= height[arrow.1]);
        match too_low {
            Some((from, to, _)) => height[*from] = height[*to] + 1,
            None => break,
        }
    }
    let mut from_the_top = members.to_vec();
    from_the_top.sort_by_key(|id| Reverse(height[*id]));
    for id in from_the_top {
        let users = arrows.iter().filter(|arrow| arrow.1 == id);
        let used = arrows.iter().filter(|arrow| arrow.0 == id).count();
        let lowest = users
            .clone()
            .map(|arrow| arrow.0)
            .filter(|user| band(*user) == band(id))
            .map(|user| height[user])
            .min();
        if let Some(lowest) = lowest.filter(|_| users.count() > used) {
            height[id] = lowest - 1;
        }
    }
    height
}

fn lines(node: &Node) -> Vec<String> {
    text::wrap(node.description.trim_end_matches('.'), (BOX_WIDTH - 2.0 * BOX_INSET) / TEXT_SIZE)
}

fn box_height(node: &Node) -> f64 {
    BOX_INSET + NAME_LINE + lines(node).len() as f64 * TEXT_LINE + BOX_INSET / 2.0
}
