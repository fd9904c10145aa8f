//! `cargo xtask demo`: boots a stock guest under SynthVM, which works on its VMBus disk, with
//! visible output.
//!
//! The outer half builds and fetches everything on this machine. The inner half ([`show`]) runs on
//! a KVM with Hyper-V support.

mod show;

use std::collections::BTreeMap;
use std::time::Instant;

use guest_images::cache::target_dir;
use guest_images::{GuestBuilder, StockKernel};
use integration_tests::host;
use integration_tests::program;
use serde::{Deserialize, Serialize};

use crate::inner::{self, Inside};
use crate::style;

/// The results file of the inner half.
const FINDINGS: &str = "demo.json";

/// The options of `cargo xtask demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The guest's stock kernel: 6.1 or 6.12.
    #[arg(long, value_name = "VERSION", default_value = "6.1")]
    kernel: String,
    #[command(flatten)]
    inside: Inside,
}

/// The last line of the demo. Other programs depend on its format.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Findings {
    ok: bool,
    kernel: String,
    vmbus: String,
    channels: usize,
    gpadls: usize,
    gpadl_pages: u64,
    disk_sha256_match: bool,
    doorbell_user_exits: u64,
    /// Seconds by step.
    seconds: BTreeMap<String, f64>,
}

/// A reporter of the steps and their durations.
struct Steps {
    seconds: BTreeMap<String, f64>,
}

impl Steps {
    fn new() -> Steps {
        Steps { seconds: BTreeMap::new() }
    }

    fn run<T>(
        &mut self,
        name: &str,
        what: &str,
        step: impl FnOnce() -> Result<T, String>,
    ) -> Result<T, String> {
        style::heading(what);
        let start = Instant::now();
        let done = step().map_err(|error| format!("{what}: {error}"))?;
        let took = round(start.elapsed().as_secs_f64());
        println!("    done in {took} s");
        self.seconds.insert(name.to_owned(), took);
        Ok(done)
    }
}

pub(crate) fn main(arguments: &Arguments) -> Result<(), String> {
    match arguments.inside.guest() {
        Some(guest) => show::inside(&guest),
        None => outside(&arguments.kernel),
    }
}

fn outside(kernel: &str) -> Result<(), String> {
    let start = Instant::now();
    let stock = StockKernel::ALL.into_iter().find(|stock| stock.version() == kernel);
    let stock = stock.ok_or_else(|| format!("--kernel {kernel}: there are 6.1 and 6.12"))?;
    let mut steps = Steps::new();
    println!(
        "SynthVM demo: an unmodified Linux {kernel} kernel, its own Hyper-V drivers, a disk on \
        VMBus."
    );
    println!(
        "All that is built or downloaded stays in {}: nothing is installed.",
        target_dir().display()
    );
    let program = steps.run("build", "building the VMM", program::build)?;
    let guest =
        steps.run("guest", "making a guest from the distribution's kernel package", || {
            GuestBuilder::stock(stock).without_programs().build().map_err(|error| error.to_string())
        })?;

    let went_in = Instant::now();
    style::heading("looking for a KVM with Hyper-V support");
    if host::is_usable_here() {
        println!("    this machine's own has it");
    } else {
        println!(
            "    this machine has none (`synthvm doctor` gives the reason), so one is emulated in \
            software: expect"
        );
        println!("    seconds where a real machine takes a tenth of one");
    }
    let mut found: Findings = inner::run(FINDINGS, &["demo".to_owned()], &guest, &program)?;
    let within: f64 = found.seconds.values().sum();
    found.seconds.append(&mut steps.seconds);
    found
        .seconds
        .insert("host".to_owned(), round((went_in.elapsed().as_secs_f64() - within).max(0.0)));
    found.seconds.insert("total".to_owned(), round(start.elapsed().as_secs_f64()));
    println!("{}", serde_json::to_string(&found).map_err(|error| error.to_string())?);
    if found.ok { Ok(()) } else { Err("a step failed, see above".to_owned()) }
}

fn round(seconds: f64) -> f64 {
    (seconds * 100.0).round() / 100.0
}
