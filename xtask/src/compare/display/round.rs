//! A round: both machines from boot to power-off, with each case once on each, in alternation.

use std::thread;

use guest_report::agent::Action;
use serde::{Deserialize, Serialize};

use super::super::load::Load;
use super::super::progress::Progress;
use super::super::rounds;
use super::cases::{Case, INTERVAL_US};
use super::side::Side;
use super::viewer::{Seen, Viewer};

/// The size of the screen.
const WIDTH: u16 = 1024;
const HEIGHT: u16 = 768;

/// A case on one machine.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Run {
    pub(super) seen: Seen,
    pub(super) load: Load,
}

/// Measures all cases on both machines, and powers them off. Returns the results by case: SynthVM's
/// and the peer's.
///
/// # Errors
/// A message: a guest was lost, or a viewer has not seen the last frame.
pub(super) fn measure(
    number: u32,
    mut sides: [Side; 2],
    cases: &[Case],
    progress: &mut Progress,
) -> Result<Vec<[Run; 2]>, String> {
    // Each animation has numbers of its own, beginning with those of the mode's first frame.
    let firsts = cases.iter().scan(1, |next, case| {
        let first = *next;
        *next += case.frames;
        Some(first)
    });
    let numbered: Vec<(u16, &Case)> = firsts.zip(cases).collect();
    let runs = rounds::take_turns(number, &numbered, |which, (first, case)| {
        let run = Run::measure(&mut sides[which], case, *first)?;
        let work = format!("{:.0} of {} frames", run.seen.frames, case.frames);
        progress.count(sides[which].machine.name, &case.name(), &work, run.load.seconds);
        Ok(run)
    })?;
    for side in sides {
        side.machine.power_off()?;
    }
    Ok(runs)
}

impl Run {
    fn measure(side: &mut Side, case: &Case, first: u16) -> Result<Run, String> {
        let action = |frames| Action::Animate {
            scene: case.scene,
            width: WIDTH,
            height: HEIGHT,
            first,
            frames,
            interval_us: INTERVAL_US,
        };
        // The mode and the first picture are no part of the load.
        side.machine.ask::<serde_json::Value>(action(0))?;
        let viewer = Viewer::connect(&side.socket, case)?;
        let (scene, frames) = (case.scene, case.frames);
        let watching = thread::spawn(move || viewer.watch(scene, first, frames));
        let mut seen = None;
        let load = Load::measure(&mut side.machine, |machine| {
            machine.ask::<serde_json::Value>(action(case.frames))?;
            let watched = watching.join();
            seen = Some(watched.map_err(|_| {
                format!("{}: the viewer has not seen the last frame", machine.name)
            })?);
            Ok(())
        })?;
        let seen = seen.ok_or("the viewer has seen nothing")?;
        Ok(Run { seen, load })
    }
}
