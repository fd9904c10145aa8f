//! The network path in one process: a guest's ring, NVSP and RNDIS, a backend, completions. Needs no
//! KVM.

use super::Output;
use super::in_process::InProcess;
use super::scaling_plot::{self, Line};

/// The lines of the picture: the numbers' names around the size, and the name for people.
const LINES: [Line; 4] = [
    Line { begin: "netvsp_tx_1500_scaling_cards_", name: "sent, by cards" },
    Line { begin: "netvsp_rx_1500_scaling_cards_", name: "received, by cards" },
    Line { begin: "netvsp_tx_1500_scaling_queues_", name: "sent, by queues" },
    Line { begin: "netvsp_rx_1500_scaling_queues_", name: "received, by queues" },
];

/// The options of `cargo xtask bench network`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    output: Output,
    /// Measure everything once instead of five times.
    #[arg(long)]
    quick: bool,
}

pub(super) fn main(arguments: &Arguments) -> Result<(), String> {
    let bench = InProcess::new("synthvm-netvsp", "network")?.valgrind()?;
    let bench = if arguments.quick { bench.argument("--quick") } else { bench };
    let numbers = bench.numbers(&arguments.output)?;
    let Some(file) = &arguments.output.json else { return Ok(()) };
    let drawn = scaling_plot::draw(&numbers, &LINES, "instructions")?;
    let picture = file.with_extension("svg");
    std::fs::write(&picture, drawn).map_err(|error| format!("{}: {error}", picture.display()))
}
