//! The instructions that a format adds to a request whose location is in memory: 4 KiB requests to
//! a VHDX and a qcow2 image, beside a raw image in the same run.
//!
//! `cargo xtask bench images --json FILE` prints a table. It runs `cargo bench -p synthvm-images
//! --bench images [-- --json FILE]`.
//!
//! Requests are system calls on the bench's own thread (`io=sync`), to a file in cargo's target
//! folder. The kernel's instructions are not counted. Limit: the same requests to the raw image.

#[path = "../../../../vmbus/loopback/benches/bus/callgrind.rs"]
mod callgrind;
#[path = "../../../block/benches/raw/direction.rs"]
mod direction;
mod load;
#[path = "../../../../vmbus/loopback/benches/bus/number.rs"]
#[allow(dead_code, reason = "not all of it is needed here")]
mod number;
#[path = "../../../../vmbus/loopback/benches/bus/program.rs"]
#[allow(dead_code, reason = "not all of it is needed here")]
mod program;

use std::path::Path;
use std::process::ExitCode;

use direction::Direction;
use load::Load;
use number::Number;
use synthvm_images::Format;

/// First word of the counted program's arguments. A format, a direction and a depth follow.
const COUNT: &str = "--count";
/// Requests that are counted; a multiple of all depths.
const REQUESTS: usize = 1280;
/// Requests in one batch.
const DEPTHS: [usize; 2] = [1, 16];
/// Formats that are compared with the raw format.
const FORMATS: [Format; 2] = [Format::Vhdx, Format::Qcow2];

fn main() -> ExitCode {
    program::main("images", |mut options| match options.after(COUNT) {
        Some(words) => count(&words),
        None => options.report("only --json FILE is", measure),
    })
}

fn measure() -> Result<Vec<Number>, String> {
    let mut numbers = Vec::new();
    for direction in Direction::BOTH {
        for depth in DEPTHS {
            let limit = instructions(Format::Raw, direction, depth)?;
            for format in FORMATS {
                let value = instructions(format, direction, depth)?;
                let name =
                    format!("{}_{}_4k_qd{depth}_instructions", format.name(), direction.name());
                numbers.push(Number::new(name, "instructions", value, limit));
            }
        }
    }
    Ok(numbers)
}

/// Returns the instructions of one request.
fn instructions(format: Format, direction: Direction, depth: usize) -> Result<f64, String> {
    let words = [COUNT, format.name(), direction.name(), &depth.to_string()].map(str::to_owned);
    let count = callgrind::instructions(&words)?.ok_or("no instructions counted: no valgrind")?;
    Ok(count as f64 / REQUESTS as f64)
}

/// Runs the counted program.
fn count(words: &[String]) -> Result<(), String> {
    let usage = || format!("{COUNT} needs a format, read or write, and a depth");
    let [format, direction, depth] = words else { return Err(usage()) };
    let format = format.parse().map_err(|_| usage())?;
    let direction = Direction::of_name(direction).ok_or_else(usage)?;
    let depth = depth.parse().map_err(|_| usage())?;
    let mut load = Load::new(format, depth, Path::new(env!("CARGO_TARGET_TMPDIR")))?;
    for _ in 0..REQUESTS / depth {
        load.prepare(direction);
        bench_counted_serve(&mut load);
        load.finish()?;
        if load.ready() != depth {
            return Err("a request was not done when it was polled".to_owned());
        }
    }
    Ok(())
}

#[inline(never)]
fn bench_counted_serve(load: &mut Load) {
    load.serve();
}
