//! The course of all comparisons, in two halves (see [`crate::inner`]).

use guest_images::GuestImage;
use integration_tests::program;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::cost;
use super::options::Arguments;
use super::plot::Panel;
use super::progress::Progress;
use super::rounds::{self, Key, Round};
use super::rows::Row;

/// A comparison of SynthVM with its peers.
pub(super) trait Comparison {
    /// Its word on the command line.
    const NAME: &'static str;
    /// The panels of its picture.
    const PANELS: &'static [Panel];
    /// The results of a case in a round, as an array: SynthVM's, and each peer's.
    type Runs: Serialize + DeserializeOwned;

    /// Builds the guest, and everything else that the inner half cannot build or fetch.
    ///
    /// # Errors
    /// A message.
    fn guest(&self) -> Result<GuestImage, String>;

    /// Returns the number of loads in a round, those of all machines together.
    fn loads(&self) -> usize;

    /// Prepares the host for all rounds, in the inner half.
    ///
    /// # Errors
    /// A message.
    fn prepare(&mut self) -> Result<(), String> {
        Ok(())
    }

    /// Measures a round: boots the machines, measures each case on each, and ends them. Returns the
    /// results by case.
    ///
    /// # Errors
    /// A message: a guest was lost, or a load failed.
    fn measure(
        &mut self,
        guest: &GuestImage,
        key: Key,
        progress: &mut Progress,
    ) -> Result<Vec<Self::Runs>, String>;

    /// Returns all numbers, by vCPUs and case.
    fn rows(&self, rounds: &[Round<Self::Runs>]) -> Vec<Row>;
}

/// Runs the half that the arguments name, and in the outer half prints the numbers.
///
/// # Errors
/// A message.
pub(super) fn run<C: Comparison>(mut comparison: C, arguments: &Arguments) -> Result<(), String> {
    let findings = format!("compare-{}.json", C::NAME);
    if let Some(guest) = arguments.inside.guest() {
        cost::prepare()?;
        comparison.prepare()?;
        let (count, loads) = (arguments.rounds, comparison.loads());
        return rounds::measure_missing(&findings, count, loads, |key, progress| {
            comparison.measure(&guest, key, progress)
        });
    }
    // The release build is measured, because users run it.
    let program = program::build_release()?;
    let guest = comparison.guest()?;
    let rounds: Vec<Round<C::Runs>> = arguments.rounds(C::NAME, &findings, &guest, &program)?;
    arguments.output.write(&comparison.rows(&rounds), C::PANELS)
}
