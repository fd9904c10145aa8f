//! `cargo xtask compare memory`: the balloon of the dynamic memory compared with QEMU's
//! virtio-balloon.
//!
//! Both guests have used nearly all of their memory, so the host has to free it. Each gives half of
//! it to the host and gets it back. The time ends when the program of the machine says that the
//! guest has the size; the memory of the process must have shrunk.

mod round;
mod side;

use guest_images::{GuestBuilder, GuestImage, StockKernel};

use super::comparison::{self, Comparison};
use super::options::Arguments;
use super::plot::Panel;
use super::progress::Progress;
use super::rounds::{self, Key, Round};
use super::rows::{Better, Row, middle};
use round::{CHANGES, Change, Run};
use side::{BALLOON_MIB, Side};

pub(super) fn main(arguments: &Arguments) -> Result<(), String> {
    comparison::run(Memory, arguments)
}

struct Memory;

impl Comparison for Memory {
    const NAME: &'static str = "memory";
    const PANELS: &'static [Panel] =
        &[("_rate", "rate"), ("_vmm_cpu", "processor time"), ("_exits", "exits")];
    type Runs = [Run; 2];

    fn guest(&self) -> Result<GuestImage, String> {
        GuestBuilder::stock(StockKernel::ALL[0])
            .without_programs()
            .module("virtio_pci", true)
            .module("virtio_balloon", false)
            .build()
            .map_err(|error| error.to_string())
    }

    fn loads(&self) -> usize {
        CHANGES.len() * 2
    }

    fn measure(
        &mut self,
        guest: &GuestImage,
        (cpus, number): Key,
        progress: &mut Progress,
    ) -> Result<Vec<[Run; 2]>, String> {
        round::measure(number, Side::both(guest, cpus)?, progress)
    }

    fn rows(&self, rounds: &[Round<[Run; 2]>]) -> Vec<Row> {
        let name = |change: &Change| change.name().to_owned();
        rounds::rows_of(rounds, &CHANGES, name, |name, _, runs| compare(name, runs))
    }
}

/// Returns the numbers of a change, from the runs by machine.
fn compare(name: &str, runs: &[Vec<Run>]) -> Vec<Row> {
    let gib = f64::from(BALLOON_MIB) / 1024.0;
    let gigabytes = f64::from(BALLOON_MIB) * f64::from(1 << 20) / 1e9;
    let row = |what: &str, unit: &str, better, of: &dyn Fn(&Run) -> f64| {
        let values = [0, 1].map(|machine| middle(&runs[machine], of));
        Row::new(format!("{name}_{what}"), unit, values, better, 0.0)
    };
    vec![
        row("rate", "GB/min", Better::More, &|run| gigabytes * 60.0 / run.seconds),
        row("vmm_cpu", "s per GiB", Better::Less, &|run| {
            (run.cost.vcpu_seconds + run.cost.device_seconds) / gib
        }),
        row("exits", "exits per GiB", Better::Less, &|run| run.cost.exits / gib),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::cost::Cost;
    use super::*;

    #[test]
    fn test_rows_have_the_middle_of_the_rates() {
        let run = |seconds| Run { seconds, cost: Cost { exits: 8.0, ..Cost::default() } };
        let round = |number, ours| {
            Round::new((1, number), vec![[run(ours), run(12.0)], [run(1.0), run(1.0)]])
        };
        let rows = Memory.rows(&[round(0, 6.0), round(1, 99.0), round(2, 3.0)]);
        assert_eq!(rows.len(), 6, "{rows:?}");
        let rate = &rows[0];
        assert_eq!((rate.case.as_str(), rate.ratio), ("inflate_1vcpu_rate", 2.0));
        assert_eq!(rate.synthvm, 5.369);
    }
}
