//! The whole device path in one thread. Without sleeping and waking, the numbers show the work of
//! both ends.

use crate::clock::best;
use crate::counting::counted;
use crate::direction::Direction;
use crate::limits;
use crate::machine::{Machine, Shape};
use crate::number::Number;

/// Queue depths, with the maximum nanoseconds of one request (shared design, section 5).
pub(crate) const DEPTHS: [(usize, f64); 4] = [(1, 600.0), (4, 450.0), (16, 400.0), (64, 400.0)];

/// Number of requests for counting allocations and copies.
const COUNTED: u64 = 6400;

pub(crate) fn measure(numbers: &mut Vec<Number>) {
    let mut machine = Machine::new(Shape::PLAIN);
    for direction in Direction::BOTH {
        let limit = limits::request(direction);
        for (depth, target) in DEPTHS {
            let mut load = machine.load(direction);
            let value = best(|requests| machine.run(&mut load, depth, requests));
            let name = format!("storvsp_{}_4k_qd{depth}_ns_per_io", direction.name());
            numbers.push(Number::new(name, "ns", value, limit).target(target));
        }
    }
    let mut load = machine.load(Direction::Write);
    let copied = machine.copied_bytes();
    let heap = counted(|| {
        machine.run(&mut load, 16, COUNTED);
    });
    let per_io = |count: u64| count as f64 / COUNTED as f64;
    let allocations = Number::new("storvsp_allocs_per_io", "allocs", per_io(heap.allocations), 0.0);
    let copied = per_io(machine.copied_bytes() - copied);
    numbers.push(allocations.target(0.0));
    numbers.push(Number::new("storvsp_copied_bytes_per_io", "bytes", copied, 0.0).target(0.0));
}
