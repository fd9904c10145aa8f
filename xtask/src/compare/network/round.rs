//! A round: all machines from boot to power-off, with each case once on each, in rotation.

use serde::{Deserialize, Serialize};

use super::super::load::Load;
use super::super::progress::Progress;
use super::super::rounds;
use super::cases::Case;
use super::iperf;
use super::round_trips;
use super::side::{COUNT, Side};

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

/// Measures all cases on all machines, and powers them off. Returns the results by case: SynthVM's
/// and the peers'.
///
/// # Errors
/// A message: a guest was lost, or a load failed.
pub(super) fn measure(
    number: u32,
    mut sides: [Side; COUNT],
    cases: &[Case],
    progress: &mut Progress,
) -> Result<Vec<[Run; COUNT]>, String> {
    let runs = rounds::take_turns(number, cases, |which, case| {
        let run = Run::measure(&mut sides[which], case)?;
        let work = format!("{:.0} packets", run.packets);
        progress.count(sides[which].machine.name, &case.name(), &work, run.load.seconds);
        Ok(run)
    })?;
    for side in sides {
        side.machine.power_off()?;
    }
    Ok(runs)
}

impl Run {
    fn measure(side: &mut Side, case: &Case) -> Result<Run, String> {
        let nothing = nearly_nothing(side, case)?;
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
        run.load = load.without(nothing);
        Ok(run)
    }
}

/// Returns the costs of a load like `case` that sends nearly nothing.
fn nearly_nothing(side: &mut Side, case: &Case) -> Result<Load, String> {
    let Side { machine, tap } = side;
    Load::of_nearly_nothing(machine, |machine| match case {
        Case::Stream(stream) => {
            let command = iperf::nearly_nothing(stream.streams, tap.host());
            machine.run(&["sh", "-c", &command]).map(drop)
        }
        Case::RoundTrips { .. } => round_trips::measure(machine, tap, 1).map(drop),
    })
}
