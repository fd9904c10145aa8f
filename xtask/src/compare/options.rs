//! The options of all comparisons, and the way to their rounds and results.

use std::path::{Path, PathBuf};

use guest_images::GuestImage;
use integration_tests::host::HostOptions;
use serde::de::DeserializeOwned;

use super::plot;
use super::rows::{self, Row};
use crate::inner::{self, Inside};

/// Limit of rounds that may be lost with their host. In an emulated host with several processors,
/// either machine's guest is sometimes lost (it resets or stops answering).
const LOSSES: u32 = 8;

/// The options of a comparison.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(super) output: Output,
    /// Run shorter loads.
    #[arg(long)]
    pub(super) quick: bool,
    /// Run only cases whose names contain this text, such as `randread_4k` or `tcp_send`.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(super) only: String,
    /// Number of rounds: measurements of each case on each machine. The result is the median.
    #[arg(
        long,
        value_name = "COUNT",
        default_value_t = 3,
        value_parser = crate::number::<u32>(1..=99)
    )]
    pub(super) rounds: u32,
    /// Continue with the rounds of an interrupted comparison of the same cases, instead of
    /// repeating all.
    #[arg(long)]
    resume: bool,
    /// Processors of an emulated host. With more than one, guests are sometimes lost.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = crate::number::<u32>(1..=64))]
    host_cpus: u32,
    #[command(flatten)]
    pub(super) inside: Inside,
}

/// The destination of the numbers.
#[derive(Debug, clap::Args)]
pub(crate) struct Output {
    /// Write the numbers to this file, as a JSON array of {case, unit, synthvm, peer, ratio}, and a
    /// picture of the ratios next to it (.svg). A ratio above 1 is in favour of SynthVM.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Arguments {
    /// Returns the cases that are wanted.
    ///
    /// # Errors
    /// A message: there is none.
    pub(super) fn wanted<C>(
        &self,
        all: Vec<C>,
        name: impl Fn(&C) -> String,
    ) -> Result<Vec<C>, String> {
        let names: Vec<String> = all.iter().map(&name).collect();
        let wanted: Vec<C> =
            all.into_iter().filter(|case| name(case).contains(&self.only)).collect();
        if wanted.is_empty() {
            let names = names.join(", ");
            return Err(format!(
                "--only {}: no case has such a name; there are {names}",
                self.only
            ));
        }
        Ok(wanted)
    }

    /// Runs the inner half of the comparison `what`, and returns the rounds that it saved under
    /// `findings`.
    pub(super) fn rounds<R: DeserializeOwned>(
        &self,
        what: &str,
        findings: &str,
        guest: &GuestImage,
        program: &Path,
    ) -> Result<R, String> {
        let rounds = self.rounds.to_string();
        let words = ["compare", what, "--only", &self.only, "--rounds", &rounds];
        let mut words = words.map(str::to_owned).to_vec();
        words.extend(self.quick.then(|| "--quick".to_owned()));
        if !self.resume {
            inner::forget(findings)?;
        }
        let host = HostOptions { cpus: self.host_cpus, ..HostOptions::default() };
        inner::run_until_done(findings, &words, guest, program, &host, LOSSES)
    }
}

impl Output {
    /// Prints the rows, and writes them and their picture if a file is wanted.
    pub(super) fn write(&self, rows: &[Row], panels: &[plot::Panel]) -> Result<(), String> {
        rows::print(rows);
        let Some(file) = &self.json else { return Ok(()) };
        rows::write(rows, file)?;
        let picture = file.with_extension("svg");
        let drawn = plot::draw(rows, panels)?;
        rows::write_text(&picture, &drawn)
            .map_err(|error| format!("{}: {error}", picture.display()))
    }
}
