//! A running machine as the control socket and the stop signals see it.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use synthvm_storage::DiskReport;
use vmbus_host::VmBus;

use super::exit::{Exit, Failure};
use super::vigil::{PATIENCE, Vigil, Waiting};
use crate::config::{DiskConfig, DvdConfig, LimitsConfig};
use crate::control::{ControlTarget, DiskPlace, StopReason};
use crate::disks::DiskSet;
use crate::inspect::{self, InspectReport, MachineReport, PanicReport};
use crate::machine::MachineHandle;

/// What there is to look at and to act on.
pub(super) struct Parts {
    pub(super) handle: MachineHandle,
    pub(super) bus: VmBus,
    pub(super) disks: Arc<DiskSet>,
    pub(super) memory_bytes: u64,
    pub(super) resets: Arc<AtomicU64>,
}

pub(super) struct Target {
    parts: Parts,
    started: Instant,
    stopped: Mutex<Option<StopReason>>,
    vigil: OnceLock<Vigil>,
}

impl Target {
    pub(super) fn new(parts: Parts) -> Self {
        Target { parts, started: Instant::now(), stopped: Mutex::default(), vigil: OnceLock::new() }
    }

    /// The machine is to end now: from here on the program does not wait for storage that has stopped answering.
    pub(super) fn ends(&self) {
        self.vigil.get_or_init(|| {
            let disks = Arc::clone(&self.parts.disks);
            Vigil::begin(PATIENCE, move || waiting(&disks), give_up)
        });
    }

    /// Why the machine was stopped, if it was stopped through this.
    pub(super) fn stop_reason(&self) -> Option<StopReason> {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The disks that have requests in flight.
fn waiting(disks: &DiskSet) -> Vec<Waiting> {
    let waits = |(disk, id, _): (DiskReport, String, _)| Waiting {
        id,
        path: disk.label,
        in_flight: disk.stats.in_flight,
        finished: disk.stats.requests,
    };
    disks.reports().into_iter().map(waits).filter(|disk| disk.in_flight != 0).collect()
}

/// Ends the program in the middle of whatever it does. The kernel keeps guest memory for as long as storage needs it.
fn give_up(sentence: String) {
    let failure = Failure::text(Exit::Internal, sentence);
    failure.print();
    std::process::exit(failure.exit().code().into());
}

impl ControlTarget for Target {
    fn inspect(&self) -> InspectReport {
        let parts = &self.parts;
        let disks = parts.disks.reports().into_iter();
        let disks = disks.map(|(disk, id, throttle)| inspect::disk(disk, id, throttle));
        let mut report = InspectReport {
            machine: MachineReport {
                pid: std::process::id(),
                uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
                memory_bytes: parts.memory_bytes,
                resets: parts.resets.load(Ordering::Relaxed),
                first_run_us: parts.handle.first_run_us(),
            },
            disks: disks.collect(),
            panic: parts.handle.crash().map(|crash| PanicReport { parameters: crash.0, message: None }),
            ..Default::default()
        };
        report.set_bus(&parts.bus.inspect());
        report.set_vcpus(&parts.handle.vcpu_exits());
        report
    }

    fn power_button(&self) -> Result<(), String> {
        self.parts.handle.power_button();
        Ok(())
    }

    fn reset(&self) -> Result<(), String> {
        self.parts.handle.reset();
        Ok(())
    }

    fn stop(&self, reason: StopReason) -> Result<(), String> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
        self.parts.handle.stop();
        self.ends();
        Ok(())
    }

    fn add_disk(&self, disk: DiskConfig) -> Result<DiskPlace, String> {
        self.parts.disks.add(&disk).map_err(|error| error.to_string())
    }

    fn add_dvd(&self, dvd: DvdConfig) -> Result<DiskPlace, String> {
        self.parts.disks.add_dvd(&dvd).map_err(|error| error.to_string())
    }

    fn remove_disk(&self, id: &str) -> Result<(), String> {
        self.parts.disks.remove(id).map_err(|error| error.to_string())
    }

    fn resize_disk(&self, id: &str, size: u64) -> Result<(), String> {
        self.parts.disks.resize(id, size).map_err(|error| error.to_string())
    }

    fn throttle_disk(&self, id: &str, limits: &LimitsConfig) -> Result<(), String> {
        self.parts.disks.throttle(id, limits).map_err(|error| error.to_string())
    }

    fn insert_disc(&self, id: &str, path: &Path) -> Result<(), String> {
        self.parts.disks.insert(id, path).map_err(|error| error.to_string())
    }

    fn eject_disc(&self, id: &str, force: bool) -> Result<(), String> {
        self.parts.disks.eject(id, force).map_err(|error| error.to_string())
    }
}
