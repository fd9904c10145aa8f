//! The whole path in one thread. Without sleeping and waking, the numbers show the work of both
//! ends; `_host` is the card's part of it.

use std::sync::atomic::Ordering;

use crate::clock::{best, best_undone};
use crate::counting::counted;
use crate::load::{Kind, LARGE, Memory, Offload};
use crate::machine::{Machine, Shape};
use crate::number::Number;
use crate::ring;

/// The usual number of frames that become visible together.
pub(crate) const BATCH: usize = 16;
/// All numbers of frames.
pub(crate) const BATCHES: [usize; 3] = [1, BATCH, 64];

/// Lengths of received frames, by name.
pub(crate) const RECEIVED: [(&str, usize); 2] = [("64", 64), ("1500", 1500)];

/// A frame may cost this many times a bare message through a ring (issue 11).
const TARGET: f64 = 4.0;

/// Number of frames for counting allocations and copies.
const COUNTED: usize = 6400;

/// Returns the nanoseconds of a message of 16 bytes that is written to a ring and read from it, in
/// commits of 16: the limit of all other numbers.
pub(crate) fn bare_message(passes: usize) -> f64 {
    let all = (0..passes).map(|_| ring::copied(16, BATCH) / BATCH as f64);
    all.fold(f64::INFINITY, f64::min)
}

pub(crate) fn measure(bare: f64, numbers: &mut Vec<Number>) {
    let mut machine = Machine::new(Shape::PLAIN);
    for kind in Kind::ALL {
        for batch in batches(kind) {
            let name = format!("tx_{}{}", kind.name, suffix(batch));
            let is_target = batch == BATCH && kind.memory == Memory::Section;
            let target = (is_target && kind.offload == Offload::None).then_some(TARGET * bare);
            let mut load = kind.load(&machine.queues[0].channel);
            let (messages, packed) = (batch / kind.packed, kind.packed as f64);
            let value = best(|count| machine.send_all(&mut load, messages, count)) / packed;
            numbers.push(number(&name, value, bare).target(target));
            let host = host_of_send(&mut machine, kind, messages) / packed;
            numbers.push(number(&format!("{name}_host"), host, bare));
        }
    }
    for (name, length) in RECEIVED {
        for batch in BATCHES {
            let name = format!("rx_{name}{}", suffix(batch));
            let target = (batch == BATCH).then_some(TARGET * bare);
            let value = best(|count| machine.receive_all(length, batch, count));
            numbers.push(number(&name, value, bare).target(target));
            let host = host_of_receive(&mut machine, length, batch);
            numbers.push(number(&format!("{name}_host"), host, bare));
        }
    }
    let value = best(|count| machine.receive_all(1514, SEGMENTS, count * SEGMENTS as u64));
    numbers.push(number("rx_lso64k", value, bare));
}

/// Frames of 1,514 bytes that carry 64 KiB. A card that coalesces would send one.
pub(crate) const SEGMENTS: usize = LARGE.div_ceil(1460);

/// Returns the batches in which frames of `kind` are measured.
pub(crate) fn batches(kind: Kind) -> impl Iterator<Item = usize> {
    let has_all = matches!(kind.name, "64" | "1500");
    BATCHES.into_iter().filter(move |batch| has_all || *batch == BATCH)
}

/// Returns the end of a number's name.
pub(crate) fn suffix(batch: usize) -> String {
    if batch == BATCH { String::new() } else { format!("_batch{batch}") }
}

fn number(name: &str, value: f64, bare: f64) -> Number {
    Number::new(format!("netvsp_{name}_ns_per_packet"), "ns", value, bare)
}

/// Returns the nanoseconds of the card's part for one message.
fn host_of_send(machine: &mut Machine, kind: Kind, batch: usize) -> f64 {
    let mut load = kind.load(&machine.queues[0].channel);
    machine.send(&mut load, batch);
    let undo = |machine: &mut Machine| {
        machine.take_completions(batch);
        machine.send(&mut load, batch);
    };
    let value = best_undone(machine, |machine| machine.serve(), undo) / batch as f64;
    machine.serve();
    machine.take_completions(batch);
    value
}

fn host_of_receive(machine: &mut Machine, length: usize, batch: usize) -> f64 {
    machine.set_length(length);
    machine.supply(batch);
    let undo = |machine: &mut Machine| {
        machine.receive();
        machine.supply(batch);
    };
    let value = best_undone(machine, |machine| machine.serve(), undo) / batch as f64;
    machine.serve();
    machine.receive();
    machine.serve();
    value
}

/// Counts allocations and bytes that were copied in user space, over all kinds of frames.
pub(crate) fn count(numbers: &mut Vec<Number>) {
    let mut machine = Machine::new(Shape::PLAIN);
    let (mut allocations, mut frames) = (0, 0);
    let mut copied = Vec::new();
    for kind in Kind::ALL {
        let mut load = kind.load(&machine.queues[0].channel);
        machine.send_all(&mut load, BATCH, COUNTED as u64);
        let heap = counted(|| _ = machine.send_all(&mut load, BATCH, COUNTED as u64));
        allocations += heap.allocations;
        frames += COUNTED * kind.packed;
        machine.count_bytes();
        let bytes = copied_by(&mut machine, kind.length * kind.packed, |machine| {
            machine.send_all(&mut load, BATCH, COUNTED as u64);
        });
        copied.push((format!("tx_{}", kind.name), bytes / kind.packed as f64));
    }
    for (name, length) in RECEIVED {
        machine.receive_all(length, BATCH, COUNTED as u64);
        let heap = counted(|| _ = machine.receive_all(length, BATCH, COUNTED as u64));
        allocations += heap.allocations;
        frames += COUNTED;
        let bytes = copied_by(&mut machine, length, |machine| {
            machine.receive_all(length, BATCH, COUNTED as u64);
        });
        copied.push((format!("rx_{name}"), bytes));
    }
    let all = allocations as f64 / frames as f64;
    numbers.push(Number::new("netvsp_allocs_per_packet", "allocs", all, 0.0).target(0.0));
    // Headers that the card completes for a backend that segments are the only copy.
    let plain = copied.iter().filter(|(name, _)| !name.contains("lso"));
    let most = plain.map(|(_, bytes)| *bytes).fold(0.0, f64::max);
    numbers.push(Number::new("netvsp_copied_bytes_per_packet", "bytes", most, 0.0).target(0.0));
    for (name, bytes) in copied {
        let name = format!("netvsp_{name}_copied_bytes_per_packet");
        numbers.push(Number::new(name, "bytes", bytes, 0.0));
    }
}

/// Returns the bytes that the backend did not get in guest memory, for each of [`COUNTED`] messages
/// with `length` bytes of frames.
fn copied_by(machine: &mut Machine, length: usize, work: impl FnOnce(&mut Machine)) -> f64 {
    let in_place = |machine: &Machine| machine.queues[0].meter.in_place.load(Ordering::Relaxed);
    let before = in_place(machine);
    work(machine);
    length as f64 - (in_place(machine) - before) as f64 / COUNTED as f64
}
