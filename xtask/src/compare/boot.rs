//! `cargo xtask compare boot`: the time from power on to GRUB's menu and to the login prompt, with
//! the same stock OVMF and the same installed Debian, on a VMBus disk and on QEMU's virtio-blk.
//!
//! One machine runs at a time, in alternating order, because each uses all of a processor.

use std::path::Path;
use std::time::{Duration, Instant};

use guest_images::cache::Cache;
use guest_images::disk::{self, GRUB_READY};
use guest_images::option_rom::option_rom;
use guest_images::{GuestBuilder, Ovmf, StockKernel};
use integration_tests::firmware::{FirmwareMachine, FirmwareOptions};
use integration_tests::image::WorkDir;
use integration_tests::program;
use serde::{Deserialize, Serialize};

use super::options::Arguments;
use super::plot;
use super::progress::Progress;
use super::rounds::{self, CPUS, Key, Round as _};
use super::rows::{Better, Row, middle};

/// The results file of the inner half: the finished rounds.
const FINDINGS: &str = "compare-boot.json";

/// The panels of the picture.
const PANELS: [plot::Panel; 2] = [("_grub", "time to GRUB"), ("_login", "time to login")];

/// The firmware, whose package is in all suites, and the system.
const FIRMWARE: Ovmf = Ovmf::Bookworm4M;
const SYSTEM: StockKernel = StockKernel::V6_1;

/// Timeout of each stage. In an emulated host they take about 20 s.
const LIMIT: Duration = Duration::from_secs(300);

/// The stages, and the text by which each ends.
const STAGES: [(&str, &str); 2] = [("grub", GRUB_READY), ("login", "login: ")];

/// The times of both machines in a round.
#[derive(Debug, Serialize, Deserialize)]
struct Round {
    cpus: u32,
    number: u32,
    /// SynthVM's and QEMU's seconds from the start of the program to the end of each stage.
    seconds: [[f64; 2]; 2],
}

impl rounds::Round for Round {
    fn key(&self) -> Key {
        (self.cpus, self.number)
    }
}

pub(super) fn main(arguments: &Arguments) -> Result<(), String> {
    if arguments.inside.guest().is_some() {
        return inside(arguments.rounds);
    }
    // The release build is measured, because users run it.
    let program = program::build_release()?;
    let cache = Cache::project();
    let text = |error: guest_images::Error| error.to_string();
    // The inner half cannot fetch or build.
    FIRMWARE.fetch(&cache).map_err(text)?;
    option_rom(&cache).map_err(text)?;
    disk::debian(&cache, SYSTEM).map_err(text)?;
    let guest = GuestBuilder::stock(SYSTEM).build().map_err(text)?;
    let rounds: Vec<Round> = arguments.rounds("boot", FINDINGS, &guest, &program)?;
    arguments.output.write(&rows(&rounds), &PANELS)
}

fn inside(count: u32) -> Result<(), String> {
    rounds::measure_missing(FINDINGS, count, 2, |key, progress| {
        measure(key, progress).map_err(|error| error.to_string())
    })
}

fn measure(
    (cpus, number): Key,
    progress: &mut Progress,
) -> Result<Round, Box<dyn std::error::Error>> {
    let (cache, dir) = (Cache::project(), WorkDir::new()?);
    let source = disk::debian(&cache, SYSTEM)?;
    let mut seconds = [[0.0; 2]; 2];
    for side in if number % 2 == 0 { [0, 1] } else { [1, 0] } {
        let image = dir.copy("disk.img", &source)?;
        let options = FirmwareOptions::new(&FIRMWARE.fetch(&cache)?).disk(&image).cpus(cpus);
        let name = ["SynthVM", "QEMU"][side];
        seconds[side] = boot(side, options, &cache, dir.path())?;
        let [grub, login] = seconds[side];
        let work = format!("GRUB after {grub:.1} s, login");
        progress.count(name, &format!("boot_{cpus}vcpu"), &work, login);
    }
    Ok(Round { cpus, number, seconds })
}

/// Starts a machine. Returns the seconds to the end of each stage.
fn boot(
    side: usize,
    options: FirmwareOptions,
    cache: &Cache,
    dir: &Path,
) -> Result<[f64; 2], Box<dyn std::error::Error>> {
    // Each machine creates its variables, as at its first start.
    let options = options.variables(&dir.join(format!("variables-{side}")));
    let _ = std::fs::remove_file(dir.join(format!("variables-{side}")));
    let start = Instant::now();
    let mut machine = match side {
        0 => FirmwareMachine::start(&options.driver(&option_rom(cache)?))?,
        _ => FirmwareMachine::peer(&options)?,
    };
    let mut seconds = [0.0; 2];
    for ((_, text), seconds) in STAGES.iter().zip(&mut seconds) {
        machine.console.wait(text, LIMIT)?;
        *seconds = start.elapsed().as_secs_f64();
    }
    Ok(seconds)
}

fn rows(rounds: &[Round]) -> Vec<Row> {
    let mut rows = Vec::new();
    for cpus in CPUS {
        let alike: Vec<&Round> = rounds.iter().filter(|round| round.key().0 == cpus).collect();
        for (stage, (name, _)) in STAGES.iter().enumerate() {
            let sides = [0, 1].map(|side| middle(&alike, |round| round.seconds[side][stage]));
            rows.push(Row::new(format!("boot_{cpus}vcpu_{name}"), "s", sides, Better::Less, 0.0));
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_rows_have_the_middle_of_the_rounds_for_each_stage() {
        let round = |number, grub| Round { cpus: 1, number, seconds: [[grub, 20.0], [8.0, 30.0]] };
        let rows = rows(&[round(0, 4.0), round(1, 99.0), round(2, 5.0)]);
        let find = |name: &str| rows.iter().find(|row| row.case == name).unwrap();
        let grub = find("boot_1vcpu_grub");
        assert_eq!((grub.synthvm, grub.peer, grub.ratio), (5.0, 8.0, 1.6));
        assert_eq!(find("boot_1vcpu_login").ratio, 1.5);
    }
}
