//! The wake-ups of an idle machine with all integration services, measured on a KVM with Hyper-V
//! support.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use guest_images::{GuestBuilder, GuestImage, StockKernel};
use guest_report::agent::Action;
use integration_tests::image::WorkDir;
use integration_tests::program;
use integration_tests::vm::{Vm, VmOptions};

use super::Output;
use super::table::{self, Number};
use crate::inner::{self, Inside};
use crate::threads;

/// The results file of the inner half.
const NUMBERS: &str = "bench-idle.json";

/// Target for wake-ups of the program's threads a second, without those of vCPUs.
const AIM: f64 = 0.5;

/// Time until all services have begun: the time is set when the driver starts, and the guest's
/// daemons answer soon after their start.
const SETTLE: Duration = Duration::from_secs(20);

/// Time of the measurement: two time samples and six heartbeats.
const TIME: Duration = Duration::from_secs(60);

/// The services that are ready in the end.
const SERVICES: usize = 6;

/// The options of `cargo xtask bench idle`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    inside: Inside,
}

pub(super) fn main(arguments: &Arguments) -> Result<(), String> {
    match arguments.inside.guest() {
        Some(guest) => inside(&guest).map_err(|error| error.to_string()),
        None => outside(&arguments.output),
    }
}

fn outside(output: &Output) -> Result<(), String> {
    // The release build is measured, because users run it.
    let program = program::build_release()?;
    let kernel = StockKernel::V6_1;
    let daemons = ["usr/sbin/hv_kvp_daemon", "usr/sbin/hv_vss_daemon", "usr/sbin/hv_fcopy_daemon"];
    let guest = GuestBuilder::stock(kernel)
        .without_programs()
        .package_from(kernel.suite(), "hyperv-daemons", &daemons)
        .build()
        .map_err(|error| error.to_string())?;
    let words = ["bench", "idle"].map(str::to_owned);
    let numbers: Vec<Number> = inner::run(NUMBERS, &words, &guest, &program)?;
    table::print(&numbers);
    output.json.as_deref().map_or(Ok(()), |file| table::write(&numbers, file))
}

fn inside(guest: &GuestImage) -> Result<(), Box<dyn std::error::Error>> {
    let dir = WorkDir::new()?;
    let socket = dir.path().join("vm.sock").display().to_string();
    let options = VmOptions::new(guest).argument("--services", "all").argument("--vsock", &socket);
    let mut vm = Vm::boot(&options)?;
    for name in ["hv_utils", "hv_sock"] {
        vm.tell(Action::LoadModule { name: name.to_owned(), parameters: String::new() })?;
    }
    vm.shell("mkdir -p /var/lib && hv_kvp_daemon && hv_vss_daemon && hv_fcopy_daemon")?;
    thread::sleep(SETTLE);
    let status = vm.synthvm(&["status"], &["--json"])?;
    let ready = status.matches("\"ready\"").count();
    if ready != SERVICES {
        return Err(format!("{ready} of {SERVICES} services are ready: {status}").into());
    }

    let (start, before) = (Instant::now(), threads::by_id(vm.pid())?);
    thread::sleep(TIME);
    let (seconds, after) = (start.elapsed().as_secs_f64(), threads::by_id(vm.pid())?);
    let mut by_name: BTreeMap<String, f64> = BTreeMap::new();
    for (id, thread) in after.into_iter().filter(|(_, thread)| !thread.is_vcpu()) {
        let earlier = before.get(&id).map_or(0, |thread| thread.sleeps);
        let wakeups = thread.sleeps.saturating_sub(earlier) as f64 / seconds;
        *by_name.entry(thread.name).or_default() += wakeups;
    }
    let all = by_name.values().sum();
    let mut numbers = vec![Number::new("idle_wakeups", "1/s", all).target(AIM)];
    let by_name = by_name.into_iter().filter(|(_, wakeups)| *wakeups > 0.0);
    numbers.extend(
        by_name.map(|(name, wakeups)| Number::new(format!("idle_wakeups_{name}"), "1/s", wakeups)),
    );
    vm.power_off()?;
    Ok(inner::leave(NUMBERS, &numbers)?)
}
