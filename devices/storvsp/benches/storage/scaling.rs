//! The cost of a request on larger machines: more disks, more channels to one disk, more LUNs on
//! one channel. It should not depend on the machine's size.
//!
//! All channels are busy, and this thread serves them in turn. Threads would add parallelism, which
//! hides the cost. The limit of each number is that of the smallest machine.

use crate::clock::best;
use crate::direction::Direction;
use crate::machine::{Machine, Shape};
use crate::number::Number;

/// Requests in flight on each channel.
pub(crate) const DEPTH: usize = 16;

/// Returns machines with their names, the smallest first. Rings are short, so that eight channels
/// fit in the same cache as one.
pub(crate) fn shapes() -> Vec<(String, Shape)> {
    let one = Shape { ring_pages: 5, ..Shape::PLAIN };
    let mut shapes = vec![("scaling_1".to_owned(), one)];
    for count in [2, 4, 8] {
        shapes.push((format!("scaling_disks_{count}"), Shape { controllers: count, ..one }));
    }
    for count in [2, 4, 8] {
        shapes.push((format!("scaling_channels_{count}"), Shape { channels: count, ..one }));
    }
    for count in [4, 16, 64] {
        shapes.push((format!("scaling_luns_{count}"), Shape { luns: count, ..one }));
    }
    shapes
}

pub(crate) fn measure(numbers: &mut Vec<Number>) {
    let mut one = None;
    for (name, shape) in shapes() {
        let mut machine = Machine::new(shape);
        let mut load = machine.load(Direction::Read);
        let value = best(|requests| machine.run(&mut load, DEPTH, requests));
        let limit = *one.get_or_insert(value);
        numbers.push(Number::new(format!("storvsp_{name}_ns_per_io"), "ns", value, limit));
    }
}
