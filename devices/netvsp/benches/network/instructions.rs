//! Instructions of the card's part of a frame, and of a bare message through a ring, counted by
//! callgrind.

use crate::callgrind;
use crate::load::Kind;
use crate::machine::{Machine, Shape};
use crate::number::Number;
use crate::path::{BATCH, RECEIVED, batches, suffix};
use crate::{path, ring, scaling};

/// First argument of the process under callgrind. A kind of frame with its direction or `bare`, a
/// batch, and the machine's shape in two numbers follow.
pub(crate) const COUNT: &str = "--count";

/// Number of counted messages; a multiple of all batches.
const MESSAGES: usize = 1280;

/// Adds the instructions of each kind of frame, and of larger machines. Prints a message if
/// valgrind is missing.
pub(crate) fn measure(numbers: &mut Vec<Number>) -> Result<(), String> {
    let Some(bare) = instructions("bare", BATCH, Shape::PLAIN)? else {
        eprintln!("no instructions counted: there is no valgrind");
        return Ok(());
    };
    let mut count = |name: &str, what: &str, batch, shape, limit| {
        let value = instructions(what, batch, shape)?.ok_or("valgrind went away")?;
        let name = format!("netvsp_{name}_instructions");
        numbers.push(Number::new(name, "instructions", value, limit));
        Ok::<_, String>(value)
    };
    for kind in Kind::ALL {
        for batch in batches(kind) {
            let what = format!("tx_{}", kind.name);
            count(&format!("{what}{}", suffix(batch)), &what, batch, Shape::PLAIN, bare)?;
        }
    }
    for (name, _) in RECEIVED {
        for batch in path::BATCHES {
            let what = format!("rx_{name}");
            count(&format!("{what}{}", suffix(batch)), &what, batch, Shape::PLAIN, bare)?;
        }
    }
    for what in ["tx_1500", "rx_1500"] {
        let mut one = None;
        for (name, shape) in scaling::shapes() {
            let limit = one.unwrap_or(bare);
            let value = count(&format!("{what}_{name}"), what, BATCH, shape, limit)?;
            one = one.or(Some(value));
        }
    }
    Ok(())
}

/// Returns the instructions of one frame, or of one message. `None` without valgrind.
fn instructions(what: &str, batch: usize, shape: Shape) -> Result<Option<f64>, String> {
    let numbers = [batch, shape.cards, shape.channels].map(|number| number.to_string());
    let words: Vec<String> = [COUNT, what].map(str::to_owned).into_iter().chain(numbers).collect();
    let frames = MESSAGES * packed(what);
    Ok(callgrind::instructions(&words)?.map(|count| count as f64 / frames as f64))
}

/// Returns the number of frames in a message.
fn packed(what: &str) -> usize {
    let of_kind = |kind: &Kind| what.strip_prefix("tx_") == Some(kind.name);
    Kind::ALL.iter().find(|kind| of_kind(kind)).map_or(1, |kind| kind.packed)
}

/// Runs the load in the process under callgrind.
pub(crate) fn count(mut words: impl Iterator<Item = String>) -> Result<(), String> {
    let what = words.next().unwrap_or_default();
    let numbers: Vec<usize> = words.filter_map(|word| word.parse().ok()).collect();
    let [batch, cards, channels] = numbers[..] else {
        return Err(format!("{COUNT} needs a kind of frame, and three numbers"));
    };
    if what == "bare" {
        count_bare();
        return Ok(());
    }
    let mut machine = Machine::new(Shape { cards, channels });
    let batch = batch / packed(&what);
    let rounds = MESSAGES / (batch * cards * channels);
    let (way, name) = what.split_once('_').unwrap_or_default();
    match way {
        "tx" => {
            let kind = Kind::ALL.into_iter().find(|kind| kind.name == name);
            let kind = kind.ok_or_else(|| format!("no frame is called {name}"))?;
            let mut load = kind.load(&machine.queues[0].channel);
            machine.send_all(&mut load, batch, MESSAGES as u64);
            for _ in 0..rounds {
                machine.send(&mut load, batch);
                bench_counted_serve(&machine);
                machine.take_completions(batch);
            }
        }
        _ => {
            let length = RECEIVED.iter().find(|(known, _)| *known == name);
            let (_, length) = length.ok_or_else(|| format!("no frame is called {name}"))?;
            machine.receive_all(*length, batch, MESSAGES as u64);
            for _ in 0..rounds {
                machine.supply(batch);
                bench_counted_serve(&machine);
                machine.receive();
            }
        }
    }
    Ok(())
}

fn count_bare() {
    let mut ends = ring::Ends::new(ring::DATA_PAGES);
    let mut to = [0; 16];
    for _ in 0..MESSAGES / BATCH {
        bench_counted_message(&mut ends, &mut to);
    }
}

#[inline(never)]
fn bench_counted_serve(machine: &Machine) {
    machine.serve();
}

#[inline(never)]
fn bench_counted_message(ends: &mut ring::Ends, to: &mut [u8; 16]) {
    ends.write(&[1; 16], BATCH);
    ends.read(to);
}
