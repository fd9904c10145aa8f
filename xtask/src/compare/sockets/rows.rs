//! The rounds as rows: each number of SynthVM beside the peer's.

use super::super::rounds::{self, Round};
use super::super::rows::{Better, Row, middle};
use super::cases::Case;
use super::round::Run;

/// Returns all numbers, by vCPUs and case.
pub(super) fn all(cases: &[Case], rounds: &[Round<[Run; 2]>]) -> Vec<Row> {
    rounds::rows_of(rounds, cases, Case::name, |name, case, runs: &[Vec<Run>]| {
        compare(name, case, &runs[0], &runs[1])
    })
}

fn compare(name: &str, case: &Case, ours: &[Run], peer: &[Run]) -> Vec<Row> {
    let row = |what: &str, unit: &str, better: Better, least: f64, of: fn(&Run) -> f64| {
        let values = [ours, peer].map(|runs| middle(runs, of));
        Row::new(format!("{name}_{what}"), unit, values, better, least)
    };
    let (speed, each) = match case {
        Case::Stream { .. } => ("MiB/s", "MiB"),
        Case::RoundTrips { .. } => ("1/s", "round trip"),
    };
    let less = Better::Less;
    let mut rows = vec![row("speed", speed, Better::More, 0.0, |run| run.speed)];
    if let Case::RoundTrips { .. } = case {
        rows.push(row("p99", "us", less, 0.0, |run| run.p99_us.unwrap_or(f64::NAN)));
    }
    // The smallest measurable value: one event in all of the work.
    let once = 1.0 / middle(ours, |run| run.work);
    rows.extend([
        row("vmm_cpu", &format!("us per {each}"), less, 0.01, |run| {
            (run.load.cost.vcpu_seconds + run.load.cost.device_seconds) * 1e6 / run.work
        }),
        row("device_cpu", &format!("us per {each}"), less, 0.01, |run| {
            run.load.cost.device_seconds * 1e6 / run.work
        }),
        row("exits", &format!("exits per {each}"), less, once, |run| {
            run.load.cost.exits / run.work
        }),
        row("interrupts", &format!("interrupts per {each}"), less, once, |run| {
            run.load.interrupts / run.work
        }),
        row("sleeps", &format!("sleeps per {each}"), less, once, |run| {
            run.load.cost.device_sleeps / run.work
        }),
    ]);
    rows
}

#[cfg(test)]
mod tests {
    use super::super::super::load::Load;
    use super::*;

    #[test]
    fn test_rows_have_the_middle_of_the_rounds_for_each_unit_of_work() {
        let run = |speed, interrupts| Run {
            speed,
            work: 100.0,
            p99_us: Some(speed),
            load: Load { interrupts, ..Load::default() },
        };
        let ours = [run(9.0, 50.0), run(1.0, 50.0), run(2.0, 50.0)];
        let case = Case::RoundTrips { count: 100 };
        let rows = compare("a", &case, &ours, &[run(4.0, 100.0)]);
        let find = |name: &str| rows.iter().find(|row| row.case == name).unwrap();
        assert_eq!((find("a_speed").synthvm, find("a_speed").ratio), (2.0, 0.5));
        assert_eq!(find("a_p99").ratio, 2.0);
        assert_eq!((find("a_interrupts").synthvm, find("a_interrupts").ratio), (0.5, 2.0));
    }
}
