//! A round: all machines from boot to power-off, with each case once on each, in rotation.

use serde::{Deserialize, Serialize};

use super::super::progress::Progress;
use super::super::round::Load;
use super::super::rounds;
use super::cases::Case;
use super::iperf;
use super::round_trips;
use super::side::{COUNT, Side};

/// Repetitions of the loads that measure the costs of everything but packets. The smallest counts.
const NEARLY_NOTHING: u32 = 2;

/// The results of all machines in a round.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Round {
    cpus: u32,
    number: u32,
    /// By case, in the given order: SynthVM's and the peers'.
    pub(super) runs: Vec<[Run; COUNT]>,
}

/// A case on one machine.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Run {
    /// Bytes of payload a second, or round trips a second.
    pub(super) speed: f64,
    /// Packets on the wire, or round trips.
    pub(super) packets: f64,
    /// The part of the datagrams that was lost on the way.
    pub(super) lost: f64,
    /// The 99th percentile of a round trip in microseconds.
    pub(super) p99_us: Option<f64>,
    /// The costs, without those of a load of nearly nothing.
    pub(super) load: Load,
}

impl rounds::Round for Round {
    fn key(&self) -> rounds::Key {
        (self.cpus, self.number)
    }
}

impl Round {
    /// Measures all cases on all machines, and powers them off.
    ///
    /// # Errors
    /// A message: a guest was lost, or a load failed.
    pub(super) fn measure(
        (cpus, number): (u32, u32),
        mut sides: [Side; COUNT],
        cases: &[Case],
        progress: &mut Progress,
    ) -> Result<Round, String> {
        let mut runs = Vec::new();
        for (index, case) in (number as usize..).zip(cases) {
            let mut all = [None; COUNT];
            for turn in 0..COUNT {
                let which = (index + turn) % COUNT;
                let run = Run::measure(&mut sides[which], case)?;
                let work = format!("{:.0} packets", run.packets);
                let name = sides[which].machine.name;
                progress.count(name, &case.name(), &work, run.load.seconds);
                all[which] = Some(run);
            }
            let [Some(ours), Some(virtio), Some(vhost)] = all else {
                return Err("a machine had no turn".to_owned());
            };
            runs.push([ours, virtio, vhost]);
        }
        for side in sides {
            side.machine.power_off()?;
        }
        Ok(Round { cpus, number, runs })
    }
}

impl Run {
    fn measure(side: &mut Side, case: &Case) -> Result<Run, String> {
        let way = way(side, case)?;
        let Side { machine, tap } = side;
        let mut run =
            Run { speed: 0.0, packets: 0.0, lost: 0.0, p99_us: None, load: Load::default() };
        let load = Load::measure(machine, |machine| {
            match case {
                Case::Stream(stream) => {
                    let line = machine.run(&["sh", "-c", &iperf::command(stream, tap.host())])?;
                    let measured = iperf::Measured::parse(&line, stream)
                        .map_err(|error| format!("{}: {error}", machine.name))?;
                    (run.speed, run.packets) = (measured.bytes_per_second, measured.packets);
                    run.lost = measured.lost;
                }
                Case::RoundTrips { count } => {
                    let trips = round_trips::measure(machine, tap, *count)?;
                    run.packets = f64::from(*count);
                    run.speed = run.packets / trips.seconds;
                    run.p99_us = Some(trips.p99_us);
                }
            }
            Ok(())
        })?;
        run.load = load.with(way, |own, way| (own - way).max(0.0));
        run.load.seconds = load.seconds;
        Ok(run)
    }
}

/// Returns the costs of a load like `case` that sends nearly nothing.
fn way(side: &mut Side, case: &Case) -> Result<Load, String> {
    let Side { machine, tap } = side;
    let mut least: Option<Load> = None;
    for _ in 0..NEARLY_NOTHING {
        let load = Load::measure(machine, |machine| match case {
            Case::Stream(stream) => {
                let command = iperf::nearly_nothing(stream.streams, tap.host());
                machine.run(&["sh", "-c", &command]).map(drop)
            }
            Case::RoundTrips { .. } => round_trips::measure(machine, tap, 1).map(drop),
        })?;
        least = Some(least.map_or(load, |least| least.with(load, f64::min)));
    }
    Ok(least.unwrap_or_default())
}
