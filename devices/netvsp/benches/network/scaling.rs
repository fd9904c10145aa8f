//! The cost of a frame on larger machines: more cards, and more queues of a card. It should not
//! depend on the machine's size.
//!
//! All channels are busy, and this thread serves them in turn. Threads would add parallelism, which
//! hides the cost. The limit of each number is that of the smallest machine.

use crate::clock::best;
use crate::load::Kind;
use crate::machine::{Machine, Shape};
use crate::number::Number;
use crate::path::BATCH;

/// Returns machines with their names, the smallest first.
pub(crate) fn shapes() -> Vec<(String, Shape)> {
    let mut shapes = vec![("scaling_1".to_owned(), Shape::PLAIN)];
    for cards in [2, 4, 8] {
        shapes.push((format!("scaling_cards_{cards}"), Shape { cards, ..Shape::PLAIN }));
    }
    for channels in [2, 4, 8] {
        shapes.push((format!("scaling_queues_{channels}"), Shape { channels, ..Shape::PLAIN }));
    }
    shapes
}

pub(crate) fn measure(numbers: &mut Vec<Number>) {
    let mut one = None;
    for (name, shape) in shapes() {
        let mut machine = Machine::new(shape);
        let mut load = Kind::FULL.load(&machine.queues[0].channel);
        let sent = best(|count| machine.send_all(&mut load, BATCH, count));
        let received = best(|count| machine.receive_all(Kind::FULL.length, BATCH, count));
        let limits = *one.get_or_insert([sent, received]);
        for (way, value, limit) in [("tx", sent, limits[0]), ("rx", received, limits[1])] {
            let name = format!("netvsp_{way}_1500_{name}_ns_per_packet");
            numbers.push(Number::new(name, "ns", value, limit));
        }
    }
}
