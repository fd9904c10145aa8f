//! The rounds as rows: each number of SynthVM beside each peer's.

use super::super::rounds::{self, Round};
use super::super::rows::{Better, Row, middle};
use super::cases::{Case, Protocol, Stream};
use super::round::Run;
use super::side::{COUNT, PEERS};

/// Returns all numbers, by vCPUs, case and peer.
pub(super) fn all(cases: &[Case], rounds: &[Round<[Run; COUNT]>]) -> Vec<Row> {
    rounds::rows_of(rounds, cases, Case::name, |name, case, runs: &[Vec<Run>]| {
        let peers = PEERS.iter().zip(&runs[1..]);
        let rows =
            peers.map(|(peer, theirs)| compare(&format!("{name}_{peer}"), case, &runs[0], theirs));
        rows.flatten().collect()
    })
}

fn compare(name: &str, case: &Case, ours: &[Run], peer: &[Run]) -> Vec<Row> {
    let row = |what: &str, unit: &str, better: Better, least: f64, of: fn(&Run) -> f64| {
        let values = [ours, peer].map(|runs| middle(runs, of));
        Row::new(format!("{name}_{what}"), unit, values, better, least)
    };
    // The smallest measurable value: one event in all packets.
    let once = 1.0 / middle(ours, |run| run.packets);
    let less = Better::Less;
    let mut rows = match case {
        Case::Stream(_) => {
            vec![row("speed", "Mbit/s", Better::More, 0.0, |run| run.speed * 8.0 / 1e6)]
        }
        Case::RoundTrips { .. } => vec![
            row("speed", "1/s", Better::More, 0.0, |run| run.speed),
            row("p99", "us", less, 0.0, |run| run.p99_us.unwrap_or(f64::NAN)),
        ],
    };
    rows.extend([
        row("vmm_cpu", "us per packet", less, 0.01, |run| {
            (run.load.cost.vcpu_seconds + run.load.cost.device_seconds) * 1e6 / run.packets
        }),
        row("device_cpu", "us per packet", less, 0.01, |run| {
            run.load.cost.device_seconds * 1e6 / run.packets
        }),
        row("exits", "exits per packet", less, once, |run| run.load.cost.exits / run.packets),
        row("user_exits", "exits per packet", less, once, |run| {
            run.load.cost.user_exits / run.packets
        }),
        row("interrupts", "interrupts per packet", less, once, |run| {
            run.load.interrupts / run.packets
        }),
    ]);
    if let Case::Stream(Stream { protocol: Protocol::Udp, .. }) = case {
        rows.push(row("lost", "% of the datagrams", less, 0.01, |run| run.lost * 100.0));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::super::super::load::Load;
    use super::*;

    fn run(speed: f64, interrupts: f64) -> Run {
        let load = Load { interrupts, ..Load::default() };
        Run { speed, packets: 100.0, lost: 0.0, p99_us: Some(speed), load }
    }

    #[test]
    fn test_rows_of_a_peer_have_the_middle_of_the_rounds_for_each_packet() {
        let case = Case::RoundTrips { count: 100 };
        let ours = [run(9.0, 50.0), run(1.0, 50.0), run(2.0, 50.0)];
        let rows = compare("a", &case, &ours, &[run(4.0, 100.0)]);
        let find = |name: &str| rows.iter().find(|row| row.case == name).unwrap();
        assert_eq!((find("a_speed").synthvm, find("a_speed").ratio), (2.0, 0.5));
        assert_eq!(find("a_p99").ratio, 2.0);
        assert_eq!((find("a_interrupts").synthvm, find("a_interrupts").ratio), (0.5, 2.0));
    }
}
