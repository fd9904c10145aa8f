//! A round: both machines from boot to power-off, with each case once on each, in alternation.

use guest_report::agent::{Action, RoundTrips, SocketDirection, SocketStreams};
use serde::{Deserialize, Serialize};

use super::super::machine::Machine;
use super::super::progress::Progress;
use super::super::round::Load;
use super::super::rounds;
use super::cases::Case;
use super::host_program::{ECHO, SINK, SOURCE};

/// Repetitions of the loads that measure the costs of everything but bytes. The smallest counts.
const NEARLY_NOTHING: u32 = 2;

/// The results of both machines in a round.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Round {
    cpus: u32,
    number: u32,
    /// By case, in the given order: SynthVM's and the peer's.
    pub(super) runs: Vec<[Run; 2]>,
}

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

impl rounds::Round for Round {
    fn key(&self) -> rounds::Key {
        (self.cpus, self.number)
    }
}

impl Round {
    /// Measures all cases on both machines, and powers them off.
    ///
    /// # Errors
    /// A message: a guest was lost, or a load failed.
    pub(super) fn measure(
        (cpus, number): rounds::Key,
        mut machines: [Machine; 2],
        cases: &[Case],
        progress: &mut Progress,
    ) -> Result<Round, String> {
        let mut runs = Vec::new();
        for (index, case) in (number as usize..).zip(cases) {
            let mut both = [None; 2];
            for which in if index % 2 == 0 { [0, 1] } else { [1, 0] } {
                let run = Run::measure(&mut machines[which], case)?;
                let work = format!("{:.1} a second, {:.0}", run.speed, run.work);
                progress.count(machines[which].name, &case.name(), &work, run.load.seconds);
                both[which] = Some(run);
            }
            let [Some(ours), Some(peer)] = both else {
                return Err("a machine had no turn".to_owned());
            };
            runs.push([ours, peer]);
        }
        for machine in machines {
            machine.power_off()?;
        }
        Ok(Round { cpus, number, runs })
    }
}

impl Run {
    fn measure(machine: &mut Machine, case: &Case) -> Result<Run, String> {
        let nothing = case.nearly_nothing();
        let mut least: Option<Load> = None;
        for _ in 0..NEARLY_NOTHING {
            let load = Load::measure(machine, |machine| perform(machine, &nothing).map(drop))?;
            least = Some(least.map_or(load, |least| least.with(load, f64::min)));
        }
        let mut result = (0.0, None);
        let load = Load::measure(machine, |machine| {
            result = perform(machine, case)?;
            Ok(())
        })?;
        let (seconds, p99_us) = result;
        let own = load.with(least.unwrap_or_default(), |own, way| (own - way).max(0.0));
        let work = case.work();
        let load = Load { seconds: load.seconds, ..own };
        Ok(Run { speed: work / seconds, work, p99_us, load })
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
