//! A round: both machines from boot to power-off, with each case once on each, in alternation.

use guest_report::agent::{Action, RoundTrips, SocketDirection, SocketStreams};
use serde::{Deserialize, Serialize};

use super::super::load::Load;
use super::super::machine::Machine;
use super::super::progress::Progress;
use super::super::rounds;
use super::cases::Case;
use super::host_program::{ECHO, SINK, SOURCE};

/// A case on one machine.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Run {
    /// Mebibytes or round trips a second.
    pub(super) speed: f64,
    /// Mebibytes or round trips.
    pub(super) work: f64,
    /// The 99th percentile of a round trip in microseconds.
    pub(super) p99_us: Option<f64>,
    /// The costs, without those of a load of nearly nothing.
    pub(super) load: Load,
}

/// Measures all cases on both machines, and powers them off. Returns the results by case: SynthVM's
/// and the peer's.
///
/// # Errors
/// A message: a guest was lost, or a load failed.
pub(super) fn measure(
    number: u32,
    mut machines: [Machine; 2],
    cases: &[Case],
    progress: &mut Progress,
) -> Result<Vec<[Run; 2]>, String> {
    let runs = rounds::take_turns(number, cases, |which, case| {
        let run = Run::measure(&mut machines[which], case)?;
        let work = format!("{:.1} a second, {:.0}", run.speed, run.work);
        progress.count(machines[which].name, &case.name(), &work, run.load.seconds);
        Ok(run)
    })?;
    for machine in machines {
        machine.power_off()?;
    }
    Ok(runs)
}

impl Run {
    fn measure(machine: &mut Machine, case: &Case) -> Result<Run, String> {
        let nothing = case.nearly_nothing();
        let nothing =
            Load::of_nearly_nothing(machine, |machine| perform(machine, &nothing).map(drop))?;
        let mut result = (0.0, None);
        let load = Load::measure(machine, |machine| {
            result = perform(machine, case)?;
            Ok(())
        })?;
        let (seconds, p99_us) = result;
        let work = case.work();
        Ok(Run { speed: work / seconds, work, p99_us, load: load.without(nothing) })
    }
}

/// Runs a case once. Returns its seconds by the guest's clock, without the time to connect, and
/// the 99th percentile of a round trip in microseconds.
fn perform(machine: &mut Machine, case: &Case) -> Result<(f64, Option<f64>), String> {
    match *case {
        Case::Stream { direction, streams, bytes } => {
            let port = match direction {
                SocketDirection::Send => SINK,
                SocketDirection::Receive => SOURCE,
            };
            let bytes = bytes / u64::from(streams);
            let times: SocketStreams =
                machine.ask(Action::SocketTransfer { port, direction, count: streams, bytes })?;
            Ok((times.seconds - times.connected, None))
        }
        Case::RoundTrips { count } => {
            let action = Action::SocketRoundTrips { port: ECHO, count, bytes: Case::BYTES };
            let trips: RoundTrips = machine.ask(action)?;
            Ok((trips.seconds, Some(trips.p99_us)))
        }
    }
}
