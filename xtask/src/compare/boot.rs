//! `cargo xtask compare boot`: the time from power on to GRUB's menu and to the login prompt, with
//! the same stock OVMF and the same installed Debian, on a VMBus disk and on QEMU's virtio-blk.
//!
//! One machine runs at a time, in alternating order, because each uses all of a processor.

use std::path::Path;
use std::time::{Duration, Instant};

use guest_images::cache::Cache;
use guest_images::disk::{self, GRUB_READY};
use guest_images::option_rom::option_rom;
use guest_images::{GuestBuilder, GuestImage, Ovmf, StockKernel};
use integration_tests::firmware::{FirmwareMachine, FirmwareOptions};
use integration_tests::image::WorkDir;

use super::comparison::{self, Comparison};
use super::options::Arguments;
use super::plot::Panel;
use super::progress::Progress;
use super::rounds::{self, Key, Round};
use super::rows::{Better, Row, middle};

/// The firmware, whose package is in all suites, and the system.
const FIRMWARE: Ovmf = Ovmf::Bookworm4M;
const SYSTEM: StockKernel = StockKernel::V6_1;

/// Timeout of each stage. In an emulated host they take about 20 s.
const LIMIT: Duration = Duration::from_secs(300);

/// The stages, and the text by which each ends.
const STAGES: [(&str, &str); 2] = [("grub", GRUB_READY), ("login", "login: ")];

/// The machines.
const NAMES: [&str; 2] = ["SynthVM", "QEMU"];

pub(super) fn main(arguments: &Arguments) -> Result<(), String> {
    comparison::run(Boot, arguments)
}

struct Boot;

impl Comparison for Boot {
    const NAME: &'static str = "boot";
    const PANELS: &'static [Panel] = &[("_grub", "time to GRUB"), ("_login", "time to login")];
    /// Seconds from the start of the program to the end of a stage.
    type Runs = [f64; 2];

    fn guest(&self) -> Result<GuestImage, String> {
        let cache = Cache::project();
        let text = |error: guest_images::Error| error.to_string();
        FIRMWARE.fetch(&cache).map_err(text)?;
        option_rom(&cache).map_err(text)?;
        disk::debian(&cache, SYSTEM).map_err(text)?;
        GuestBuilder::stock(SYSTEM).build().map_err(text)
    }

    fn loads(&self) -> usize {
        NAMES.len()
    }

    fn measure(
        &mut self,
        _: &GuestImage,
        key: Key,
        progress: &mut Progress,
    ) -> Result<Vec<[f64; 2]>, String> {
        measure(key, progress).map_err(|error| error.to_string())
    }

    fn rows(&self, rounds: &[Round<[f64; 2]>]) -> Vec<Row> {
        let name = |_: &(&str, &str)| "boot".to_owned();
        rounds::rows_of(rounds, &STAGES, name, |name, (stage, _), runs: &[Vec<f64>]| {
            let values = [0, 1].map(|machine| middle(&runs[machine], |seconds| *seconds));
            vec![Row::new(format!("{name}_{stage}"), "s", values, Better::Less, 0.0)]
        })
    }
}

/// Boots each machine. Returns the seconds by stage and machine.
fn measure(
    (cpus, number): Key,
    progress: &mut Progress,
) -> Result<Vec<[f64; 2]>, Box<dyn std::error::Error>> {
    let (cache, dir) = (Cache::project(), WorkDir::new()?);
    let source = disk::debian(&cache, SYSTEM)?;
    let mut seconds = [[0.0; 2]; 2];
    for side in if number % 2 == 0 { [0, 1] } else { [1, 0] } {
        let image = dir.copy("disk.img", &source)?;
        let options = FirmwareOptions::new(&FIRMWARE.fetch(&cache)?).disk(&image).cpus(cpus);
        seconds[side] = boot(side, options, &cache, dir.path())?;
        let [grub, login] = seconds[side];
        let work = format!("GRUB after {grub:.1} s, login");
        progress.count(NAMES[side], &format!("boot_{cpus}vcpu"), &work, login);
    }
    let [ours, theirs] = seconds;
    Ok(ours.into_iter().zip(theirs).map(<[f64; 2]>::from).collect())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_rows_have_the_middle_of_the_rounds_for_each_stage() {
        let round = |number, grub| Round::new((1, number), vec![[grub, 8.0], [20.0, 30.0]]);
        let rows = Boot.rows(&[round(0, 4.0), round(1, 99.0), round(2, 5.0)]);
        let find = |name: &str| rows.iter().find(|row| row.case == name).unwrap();
        let grub = find("boot_1vcpu_grub");
        assert_eq!((grub.synthvm, grub.peer, grub.ratio), (5.0, 8.0, 1.6));
        assert_eq!(find("boot_1vcpu_login").ratio, 1.5);
    }
}
