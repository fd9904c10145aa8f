//! The rounds as rows: each number of SynthVM beside QEMU's.

use guest_report::animation::Scene;

use super::super::rounds::{self, Round};
use super::super::rows::{Better, Row, middle};
use super::cases::Case;
use super::round::Run;

/// Returns all numbers, by vCPUs and case.
pub(super) fn all(cases: &[Case], rounds: &[Round<[Run; 2]>]) -> Vec<Row> {
    rounds::rows_of(rounds, cases, Case::name, compare)
}

/// Returns the numbers of a case, from the runs by machine.
fn compare(name: &str, case: &Case, runs: &[Vec<Run>]) -> Vec<Row> {
    let row = |what: &str, unit: &str, better: Better, of: fn(&Run) -> f64| {
        let values = [0, 1].map(|machine| middle(&runs[machine], of));
        Row::new(format!("{name}_{what}"), unit, values, better, 0.001)
    };
    let less = Better::Less;
    let mut rows = vec![row("frames", "1/s", Better::More, |run| run.seen.per_second)];
    if case.scene == Scene::Key {
        rows.push(row("delay", "ms", less, |run| run.seen.delay_ms.unwrap_or(f64::NAN)));
    }
    rows.extend([
        row("bytes", "bytes per frame", less, |run| run.seen.bytes / run.seen.frames),
        row("device_cpu", "ms per frame", less, |run| {
            run.load.cost.device_seconds * 1e3 / run.seen.frames
        }),
        row("vmm_cpu", "ms per frame", less, |run| {
            (run.load.cost.vcpu_seconds + run.load.cost.device_seconds) * 1e3 / run.seen.frames
        }),
    ]);
    rows
}

#[cfg(test)]
mod tests {
    use super::super::super::load::Load;
    use super::super::viewer::Seen;
    use super::*;

    #[test]
    fn test_rows_have_the_middle_of_the_rounds_for_each_frame() {
        let run = |per_second, bytes| {
            let seen = Seen { frames: 10.0, per_second, bytes, delay_ms: Some(per_second) };
            Run { seen, load: Load::default() }
        };
        let case = Case { scene: Scene::Key, ..Case::all(true)[0] };
        let ours = vec![run(9.0, 50.0), run(1.0, 50.0), run(2.0, 50.0)];
        let rows = compare("a", &case, &[ours, vec![run(4.0, 100.0)]]);
        let find = |name: &str| rows.iter().find(|row| row.case == name).unwrap();
        assert_eq!((find("a_frames").synthvm, find("a_frames").ratio), (2.0, 0.5));
        assert_eq!((find("a_bytes").synthvm, find("a_bytes").ratio), (5.0, 2.0));
        assert_eq!(find("a_delay").ratio, 2.0);
    }
}
