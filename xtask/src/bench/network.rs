//! The network path in one process: a guest's ring, NVSP and RNDIS, a backend, completions. Needs
//! no KVM.

use super::Counted;
use super::scaling_plot::{self, Line};

/// The lines of the picture: the numbers' names around the size, and the name for people.
const LINES: [Line; 4] = [
    Line { begin: "netvsp_tx_1500_scaling_cards_", name: "sent, by cards" },
    Line { begin: "netvsp_rx_1500_scaling_cards_", name: "received, by cards" },
    Line { begin: "netvsp_tx_1500_scaling_queues_", name: "sent, by queues" },
    Line { begin: "netvsp_rx_1500_scaling_queues_", name: "received, by queues" },
];

pub(super) fn main(arguments: &Counted) -> Result<(), String> {
    let bench = arguments.bench("synthvm-netvsp", "network")?;
    let numbers = bench.numbers(&arguments.output)?;
    let Some(file) = &arguments.output.json else { return Ok(()) };
    let drawn = scaling_plot::draw(&numbers, &LINES, "instructions")?;
    let picture = file.with_extension("svg");
    std::fs::write(&picture, drawn).map_err(|error| format!("{}: {error}", picture.display()))
}
