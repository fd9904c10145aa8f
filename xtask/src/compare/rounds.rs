//! The rounds of a comparison, inside the host: those that are missing are measured.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::progress::Progress;
use crate::inner;

/// The numbers of vCPUs of the compared machines.
pub(super) const CPUS: [u32; 2] = [1, 2];

/// vCPUs of each machine, and the round's number from 0.
pub(super) type Key = (u32, u32);

/// A measurement of each case on each machine.
pub(super) trait Round: Serialize + DeserializeOwned {
    /// Returns the round's key.
    fn key(&self) -> Key;
}

/// Measures those of `count` rounds for each number of vCPUs that are not saved in `findings`.
/// Saves each immediately, so that it survives the loss of this host. A round has `loads` loads.
///
/// # Errors
/// A message of `measure`, or of a file that cannot be read or written.
pub(super) fn measure_missing<R: Round>(
    findings: &str,
    count: u32,
    loads: usize,
    mut measure: impl FnMut(Key, &mut Progress) -> Result<R, String>,
) -> Result<(), String> {
    let mut rounds: Vec<R> = inner::left(findings)?.unwrap_or_default();
    // All numbers of vCPUs in each round, so that partial results cover all of them.
    let wanted = (0..count).flat_map(|number| CPUS.map(|cpus| (cpus, number)));
    let missing: Vec<Key> =
        wanted.filter(|key| rounds.iter().all(|round| round.key() != *key)).collect();
    let mut progress = Progress::new(rounds.len() * loads, (rounds.len() + missing.len()) * loads);
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    progress.say(&format!("processors of the host, for all threads of all machines: {processors}"));
    for (cpus, number) in missing {
        let round = number + 1;
        progress.say(&format!("round {round} of {count}: booting the machines, {cpus} vCPUs each"));
        rounds.push(measure((cpus, number), &mut progress)?);
        inner::leave(findings, &rounds)?;
    }
    Ok(())
}
