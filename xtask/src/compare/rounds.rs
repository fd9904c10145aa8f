//! The rounds of a comparison, inside the host: those that are missing are measured.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::progress::Progress;
use crate::inner;

/// The numbers of vCPUs of the compared machines.
const CPUS: [u32; 2] = [1, 2];

/// vCPUs of each machine, and the round's number from 0.
pub(super) type Key = (u32, u32);

/// A measurement of each case on each machine. `A` is an array by machine: SynthVM first.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Round<A> {
    cpus: u32,
    number: u32,
    /// By case, in the given order.
    runs: Vec<A>,
}

impl<A> Round<A> {
    /// Returns the results of a round.
    pub(super) fn new((cpus, number): Key, runs: Vec<A>) -> Self {
        Self { cpus, number, runs }
    }

    fn key(&self) -> Key {
        (self.cpus, self.number)
    }
}

/// Measures those of `count` rounds for each number of vCPUs that are not saved in `findings`.
/// Saves each immediately, so that it survives the loss of this host. A round has `loads` loads.
///
/// # Errors
/// A message of `measure`, or of a file that cannot be read or written.
pub(super) fn measure_missing<A: Serialize + DeserializeOwned>(
    findings: &str,
    count: u32,
    loads: usize,
    mut measure: impl FnMut(Key, &mut Progress) -> Result<Vec<A>, String>,
) -> Result<(), String> {
    let mut rounds: Vec<Round<A>> = inner::left(findings)?.unwrap_or_default();
    // All numbers of vCPUs in each round, so that partial results cover all of them.
    let wanted = (0..count).flat_map(|number| CPUS.map(|cpus| (cpus, number)));
    let missing: Vec<Key> =
        wanted.filter(|key| rounds.iter().all(|round| round.key() != *key)).collect();
    let mut progress = Progress::new(rounds.len() * loads, (rounds.len() + missing.len()) * loads);
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    progress.say(&format!("processors of the host, for all threads of all machines: {processors}"));
    for key in missing {
        let (cpus, round) = (key.0, key.1 + 1);
        progress.say(&format!("round {round} of {count}: booting the machines, {cpus} vCPUs each"));
        rounds.push(Round::new(key, measure(key, &mut progress)?));
        inner::leave(findings, &rounds)?;
    }
    Ok(())
}

/// Runs each case once on each of `N` machines, in an order that rotates with the case and with the
/// round's number. `run` gets the index of the machine. Returns the results by case and machine.
///
/// # Errors
/// Those of `run`.
pub(super) fn take_turns<C, R, const N: usize>(
    number: u32,
    cases: &[C],
    mut run: impl FnMut(usize, &C) -> Result<R, String>,
) -> Result<Vec<[R; N]>, String> {
    let mut all = Vec::new();
    for (index, case) in (number as usize..).zip(cases) {
        let mut runs = [const { None }; N];
        for turn in 0..N {
            let machine = (index + turn) % N;
            runs[machine] = Some(run(machine, case)?);
        }
        let runs: Vec<R> = runs.into_iter().flatten().collect();
        all.push(runs.try_into().map_err(|_| "a machine had no turn")?);
    }
    Ok(all)
}

/// Returns `rows` of each case and number of vCPUs that has rounds. `rows` gets a name of the two,
/// the case, and the results by machine and round.
pub(super) fn rows_of<C, A: AsRef<[R]>, R: Copy, Row>(
    rounds: &[Round<A>],
    cases: &[C],
    name: impl Fn(&C) -> String,
    mut rows: impl FnMut(&str, &C, &[Vec<R>]) -> Vec<Row>,
) -> Vec<Row> {
    let mut all = Vec::new();
    for cpus in CPUS {
        let alike = || rounds.iter().filter(|round| round.cpus == cpus);
        for (index, case) in cases.iter().enumerate() {
            let mut machines: Vec<Vec<R>> = Vec::new();
            for runs in alike().filter_map(|round| round.runs.get(index)) {
                machines.resize_with(runs.as_ref().len(), Vec::new);
                for (machine, run) in machines.iter_mut().zip(runs.as_ref()) {
                    machine.push(*run);
                }
            }
            if !machines.is_empty() {
                all.extend(rows(&format!("{}_{cpus}vcpu", name(case)), case, &machines));
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_turns_rotate_and_each_machine_has_one_for_each_case() {
        let mut order = Vec::new();
        let runs: Vec<[usize; 3]> = take_turns(1, &["a", "b"], |machine, case| {
            order.push((machine, *case));
            Ok(machine * 10)
        })
        .unwrap();
        assert_eq!(runs, [[0, 10, 20]; 2]);
        assert_eq!(order, [(1, "a"), (2, "a"), (0, "a"), (2, "b"), (0, "b"), (1, "b")]);
    }

    #[test]
    fn test_rows_get_the_results_of_all_rounds_by_machine() {
        let rounds = [
            Round::new((1, 0), vec![[1, 2], [3, 4]]),
            Round::new((1, 1), vec![[5, 6], [7, 8]]),
            Round::new((2, 0), vec![[9, 10]]),
        ];
        let rows = rows_of(
            &rounds,
            &["a", "b"],
            |case| (*case).to_owned(),
            |name, _, runs| vec![(name.to_owned(), runs.to_vec())],
        );
        let row = |name: &str, ours: &[i32], peer: &[i32]| {
            (name.to_owned(), vec![ours.to_vec(), peer.to_vec()])
        };
        let expected = [
            row("a_1vcpu", &[1, 5], &[2, 6]),
            row("b_1vcpu", &[3, 7], &[4, 8]),
            row("a_2vcpu", &[9], &[10]),
        ];
        assert_eq!(rows, expected);
    }
}
