//! Benchmark of raw images over each I/O path: random requests from guest memory, directly to a
//! backend's queue.
//!
//! `cargo xtask bench raw --json FILE` prints a table. It runs `cargo bench -p synthvm-block
//! --bench raw [-- --json FILE] [--directory DIR]`, on a 256 MiB file in DIR (default: cargo's
//! target directory).
//!
//! The I/O paths of a case take turns, and the median round of each counts. Compare numbers within
//! one run only, as all contain the speed of the storage. The limit of `fixed` (io_uring with
//! registered buffers) is the result of `uring`.

#[allow(dead_code, reason = "not all of it is needed here")]
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
use std::sync::Arc;

use direction::Direction;
use load::{Load, Memory, Spent};
use number::Number;
use synthvm_block::{Backend, CacheMode, FixedMemory, IoMode, Operation, RawFile, RawOptions};
use vmbus_gpadl::GuestRam;
use vmm_sys_util::tempfile::TempFile;

/// Number of rounds of each I/O path in a case; odd, for the median.
const ROUNDS: usize = 7;

/// An I/O path.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Way {
    name: &'static str,
    io: IoMode,
    fixed: bool,
}

const SYNC: Way = Way { name: "sync", io: IoMode::Sync, fixed: false };
const THREADS: Way = Way { name: "threads", io: IoMode::Threads, fixed: false };
const URING: Way = Way { name: "uring", io: IoMode::Uring, fixed: false };
const FIXED: Way = Way { name: "fixed", io: IoMode::Uring, fixed: true };

fn main() -> ExitCode {
    program::main("raw", |mut options| {
        let directory = options.value("--directory")?;
        let directory = directory.unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").to_owned());
        let only = options.value("--only")?.unwrap_or_default();
        let known = "--json FILE, --directory DIR and --only TEXT are";
        options.report(known, || measure(&directory, &only))
    })
}

fn measure(directory: &str, only: &str) -> Result<Vec<Number>, String> {
    let file =
        TempFile::new_in(Path::new(directory)).map_err(|error| format!("{directory}: {error}"))?;
    load::fill(file.as_file()).map_err(|error| format!("{directory}: {error}"))?;
    let ram = load::guest_memory()?;
    let fixed = FixedMemory::new(&ram).map_err(|error| error.to_string())?;
    let bench = Bench { path: file.as_path(), ram, fixed };
    let mut numbers = Vec::new();
    for (name, cache, load) in cases() {
        if name.contains(only) {
            bench.measure(&name, cache, load, &mut numbers)?;
        }
    }
    Ok(numbers)
}

fn cases() -> Vec<(String, CacheMode, Load)> {
    let mut cases = Vec::new();
    for (cache_name, cache) in [("none", CacheMode::None), ("writeback", CacheMode::Writeback)] {
        for (memory_name, memory) in
            [("4k", Memory::Page), ("128k", Memory::Run), ("128k_scattered", Memory::Scattered)]
        {
            for direction in Direction::BOTH {
                for depth in [1, 32] {
                    let (name, operation) = (direction.name(), direction.operation());
                    let name = format!("raw_{cache_name}_{name}_{memory_name}_qd{depth}");
                    cases.push((name, cache, Load { operation, memory, depth }));
                }
            }
        }
    }
    cases
}

struct Bench<'a> {
    path: &'a Path,
    ram: GuestRam,
    fixed: Arc<FixedMemory>,
}

impl Bench<'_> {
    fn measure(
        &self,
        name: &str,
        cache: CacheMode,
        load: Load,
        numbers: &mut Vec<Number>,
    ) -> Result<(), String> {
        let mut ways = if load.memory == Memory::Page {
            vec![SYNC, THREADS, URING, FIXED]
        } else {
            vec![URING, FIXED]
        };
        if cache == CacheMode::Writeback && load.operation != Operation::Read {
            // The image's threads make these writes, without registered memory.
            ways.pop();
        }
        let mut rounds = vec![Vec::new(); ways.len()];
        for round in 0..ROUNDS {
            for turn in 0..ways.len() {
                // Alternate the direction, so that no I/O path always follows the same one.
                let index = if round % 2 == 0 { turn } else { ways.len() - 1 - turn };
                rounds[index].push(self.round(ways[index], cache, load)?);
            }
        }
        let mut plain = Spent { wall: f64::NAN, cpu: f64::NAN };
        for (way, rounds) in ways.iter().zip(rounds) {
            let middle = |of: fn(&Spent) -> f64| {
                let mut all: Vec<f64> = rounds.iter().map(of).collect();
                all.sort_by(f64::total_cmp);
                all[ROUNDS / 2]
            };
            let spent = Spent { wall: middle(|spent| spent.wall), cpu: middle(|spent| spent.cpu) };
            let limit = if way.fixed { plain } else { Spent { wall: f64::NAN, cpu: f64::NAN } };
            let name = format!("{name}_{}", way.name);
            numbers.push(Number::new(format!("{name}_ns_per_io"), "ns", spent.wall, limit.wall));
            numbers.push(Number::new(format!("{name}_cpu_ns_per_io"), "ns", spent.cpu, limit.cpu));
            if *way == URING {
                plain = spent;
            }
        }
        Ok(())
    }

    fn round(&self, way: Way, cache: CacheMode, load: Load) -> Result<Spent, String> {
        let options = RawOptions { read_only: false, cache, io: way.io };
        let raw = RawFile::open_with(self.path, &options).map_err(|error| error.to_string())?;
        if way.fixed {
            raw.use_fixed(&self.fixed).map_err(|error| error.to_string())?;
        }
        let mut queue = raw.queue().map_err(|error| error.to_string())?;
        let spent = load.run(&mut *queue, &self.ram);
        match (way.fixed, raw.fixed_calls()) {
            (true, Some(0)) if load.memory != Memory::Scattered => {
                Err("nothing went by fixed buffers".to_owned())
            }
            _ => Ok(spent),
        }
    }
}
