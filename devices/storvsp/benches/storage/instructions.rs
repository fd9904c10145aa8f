//! Instructions of the host's part of a request, and of the one unavoidable copy of the payload,
//! counted by callgrind.

use crate::callgrind;
use crate::direction::Direction;
use crate::limits;
use crate::machine::{BYTES, Machine, Shape};
use crate::number::Number;
use crate::path::DEPTHS;
use crate::scaling;

/// First argument of the process under callgrind. A direction or `copy`, a depth, and the machine's
/// shape in four numbers follow.
pub(crate) const COUNT: &str = "--count";

/// Number of counted requests; a multiple of all depths.
const REQUESTS: usize = 1280;
/// Number of requests before the count, enough to use every buffer once.
const WARM_UP: u64 = 1280;

/// Adds the instructions of each depth and direction, and of larger machines. Prints a message if
/// valgrind is missing.
pub(crate) fn measure(numbers: &mut Vec<Number>) -> Result<(), String> {
    let Some(limit) = instructions("copy", 1, Shape::PLAIN)? else {
        eprintln!("no instructions counted: there is no valgrind");
        return Ok(());
    };
    let mut count = |name: String, what: &str, depth, shape, limit| {
        let value = instructions(what, depth, shape)?.ok_or("valgrind went away")?;
        numbers.push(Number::new(name, "instructions", value, limit));
        Ok::<_, String>(value)
    };
    for direction in Direction::BOTH {
        for (depth, _) in DEPTHS {
            let name = format!("storvsp_{}_4k_qd{depth}_instructions", direction.name());
            count(name, direction.name(), depth, Shape::PLAIN, limit)?;
        }
    }
    let mut one = limit;
    for (name, shape) in scaling::shapes() {
        let count =
            count(format!("storvsp_{name}_instructions"), "read", scaling::DEPTH, shape, one)?;
        one = if one == limit { count } else { one };
    }
    Ok(())
}

/// Returns the instructions of one request, or of one copy of its payload. `None` without valgrind.
fn instructions(what: &str, depth: usize, shape: Shape) -> Result<Option<f64>, String> {
    let Shape { controllers, channels, luns, ring_pages } = shape;
    let numbers = [depth, controllers, channels, luns, ring_pages].map(|number| number.to_string());
    let words: Vec<String> = [COUNT, what].map(str::to_owned).into_iter().chain(numbers).collect();
    Ok(callgrind::instructions(&words)?.map(|count| count as f64 / REQUESTS as f64))
}

/// Runs the load in the process under callgrind.
pub(crate) fn count(mut words: impl Iterator<Item = String>) -> Result<(), String> {
    let what = words.next().unwrap_or_default();
    let numbers: Vec<usize> = words.filter_map(|word| word.parse().ok()).collect();
    let [depth, controllers, channels, luns, ring_pages] = numbers[..] else {
        return Err(format!("{COUNT} needs read, write or copy, and five numbers"));
    };
    let Some(direction) = Direction::of_name(&what) else {
        let (from, mut to) = (vec![1; BYTES], vec![2; BYTES]);
        (0..REQUESTS).for_each(|_| bench_counted_copy(&from, &mut to));
        return Ok(());
    };
    let mut machine = Machine::new(Shape { controllers, channels, luns, ring_pages });
    let mut load = machine.load(direction);
    machine.run(&mut load, depth, WARM_UP);
    for _ in 0..REQUESTS / (depth * controllers * channels) {
        machine.send(&mut load, depth);
        bench_counted_serve(&machine);
        machine.receive(depth);
    }
    Ok(())
}

#[inline(never)]
fn bench_counted_serve(machine: &Machine) {
    machine.serve();
}

#[inline(never)]
fn bench_counted_copy(from: &[u8], to: &mut [u8]) {
    limits::copy(from, to);
}
