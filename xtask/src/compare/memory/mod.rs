//! `cargo xtask compare memory`: the balloon of the dynamic memory compared with QEMU's
//! virtio-balloon.
//!
//! Both guests have used nearly all of their memory, so the host has to free it. Each gives half of
//! it to the host and gets it back. The time ends when the program of the machine says that the
//! guest has the size; the memory of the process must have shrunk.

mod round;
mod side;

use guest_images::{GuestBuilder, GuestImage, StockKernel};
use integration_tests::program;

use super::cost;
use super::options::Arguments;
use super::plot;
use super::rounds::{self, CPUS, Round as _};
use super::rows::{Better, Row, middle};
use round::{CHANGES, Round, Run};
use side::{BALLOON_MIB, Side};

/// The results file of the inner half: the finished rounds.
const FINDINGS: &str = "compare-memory.json";

/// The panels of the picture.
const PANELS: [plot::Panel; 3] =
    [("_rate", "rate"), ("_vmm_cpu", "processor time"), ("_exits", "exits")];

pub(super) fn main(arguments: &Arguments) -> Result<(), String> {
    if let Some(guest) = arguments.inside.guest() {
        return inside(&guest, arguments.rounds);
    }
    // The release build is measured, because users run it.
    let program = program::build_release()?;
    let guest = GuestBuilder::stock(StockKernel::ALL[0])
        .without_programs()
        .module("virtio_pci", true)
        .module("virtio_balloon", false)
        .build()
        .map_err(|error| error.to_string())?;
    let rounds: Vec<Round> = arguments.rounds("memory", FINDINGS, &guest, &program)?;
    arguments.output.write(&rows(&rounds), &PANELS)
}

fn inside(guest: &GuestImage, count: u32) -> Result<(), String> {
    cost::prepare()?;
    rounds::measure_missing(FINDINGS, count, CHANGES.len() * 2, |key, progress| {
        Round::measure(key, Side::both(guest, key.0)?, progress)
    })
}

fn rows(rounds: &[Round]) -> Vec<Row> {
    let gib = f64::from(BALLOON_MIB) / 1024.0;
    let gigabytes = f64::from(BALLOON_MIB) * f64::from(1 << 20) / 1e9;
    let mut rows = Vec::new();
    for cpus in CPUS {
        let alike: Vec<&Round> = rounds.iter().filter(|round| round.key().0 == cpus).collect();
        for (index, change) in CHANGES.iter().enumerate().filter(|_| !alike.is_empty()) {
            let mut row = |what: &str, unit: &str, better, of: &dyn Fn(&Run) -> f64| {
                let sides = [0, 1].map(|side| middle(&alike, |round| of(&round.runs[index][side])));
                let name = format!("{}_{cpus}vcpu_{what}", change.name());
                rows.push(Row::new(name, unit, sides, better, 0.0));
            };
            row("rate", "GB/min", Better::More, &|run| gigabytes * 60.0 / run.seconds);
            row("vmm_cpu", "s per GiB", Better::Less, &|run| {
                (run.cost.vcpu_seconds + run.cost.device_seconds) / gib
            });
            row("exits", "exits per GiB", Better::Less, &|run| run.cost.exits / gib);
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::super::cost::Cost;
    use super::*;

    #[test]
    fn test_rows_have_the_middle_of_the_rates() {
        let run = |seconds| Run { seconds, cost: Cost { exits: 8.0, ..Cost::default() } };
        let round = |number, ours| {
            let runs = serde_json::to_value([[run(ours), run(12.0)], [run(1.0), run(1.0)]]);
            let value = serde_json::json!({"cpus": 1, "number": number, "runs": runs.unwrap()});
            serde_json::from_value::<Round>(value).unwrap()
        };
        let rows = rows(&[round(0, 6.0), round(1, 99.0), round(2, 3.0)]);
        assert_eq!(rows.len(), 6, "{rows:?}");
        let rate = &rows[0];
        assert_eq!((rate.case.as_str(), rate.ratio), ("inflate_1vcpu_rate", 2.0));
        assert_eq!(rate.synthvm, 10.74);
    }
}
