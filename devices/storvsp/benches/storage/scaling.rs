//! What a request costs on larger machines: more disks, more channels to one disk, more LUNs on one
//! channel. It should cost the same.
//!
//! Everything is busy at once, and served in turn in this thread: what threads would add by running
//! side by side is left out, so that the numbers show what the program does. The limit of each
//! number is that of the machine with one of everything.

use crate::clock::best;
use crate::machine::{Direction, Machine, Shape};
use crate::number::Number;

/// Requests at a time on each channel.
pub(crate) const DEPTH: usize = 16;

/// Machines by name, the one with one of everything first. Rings are short, so that eight channels
/// fit the cache that one fits.
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
