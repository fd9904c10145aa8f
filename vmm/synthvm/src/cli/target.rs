//! The access of the control socket and the stop signals to a running machine.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use synthvm_display::Security;
use synthvm_machine::{MachineHandle, SerialHub};
use synthvm_net::LinkState;
use synthvm_storvsp::DiskReport;
use synthvm_tpm::TpmDevice;
use synthvm_web_console::WebConsole;
use vmbus_gpadl::leaked_address_space;
use vmbus_host::VmBus;

use super::exit::{Exit, Failure};
use super::watchdog::{TIMEOUT, Waiting, Watchdog};
use crate::config::{BufferMode, ByteSize, DiskConfig, DvdConfig, LimitsConfig};
use crate::control::{ControlTarget, DiskPlace, Responder, StopReason, StreamKind};
use crate::disks::DiskSet;
use crate::display::{Display, PointerRequest, ScreenSize};
use crate::dynamic_memory::{MemoryControl, MemoryReport};
use crate::inspect::{self, InspectReport, MachineReport, PanicReport};
use crate::networks::NetworkSet;
use crate::services::{GuestServices, ServiceRequest};
use crate::vsock::Vsock;

/// The parts of a machine that the control socket inspects and changes.
pub(super) struct Parts {
    pub(super) handle: MachineHandle,
    pub(super) bus: VmBus,
    pub(super) disks: Arc<DiskSet>,
    pub(super) networks: NetworkSet,
    pub(super) tpm: Option<Arc<TpmDevice>>,
    pub(super) display: Option<Display>,
    pub(super) vsock: Option<Vsock>,
    pub(super) services: GuestServices,
    /// The clients of the serial ports.
    pub(super) serial: Option<[SerialHub; 2]>,
    pub(super) memory: Option<MemoryControl>,
    pub(super) memory_bytes: u64,
    pub(super) resets: Arc<AtomicU64>,
}

pub(super) struct Target {
    parts: Parts,
    started: Instant,
    stopped: Mutex<Option<StopReason>>,
    watch: Mutex<Watch>,
    timeout: Duration,
    give_up: fn(String),
    web: Mutex<Option<WebConsole>>,
}

/// The shutdown watchdog of a machine.
enum Watch {
    /// The machine has not been stopped.
    NotYet,
    /// The machine is ending, and waits for the guest's requests.
    On { _watchdog: Watchdog },
    /// The guest's requests have ended.
    Over,
}

impl Target {
    /// Returns a running machine. Its handle's stop hook starts the shutdown watchdog.
    pub(super) fn new(parts: Parts) -> Arc<Self> {
        Self::with_watchdog(parts, TIMEOUT, give_up)
    }

    /// Returns a running machine with the given timeout and final action of the shutdown watchdog.
    fn with_watchdog(parts: Parts, timeout: Duration, give_up: fn(String)) -> Arc<Self> {
        let (started, stopped) = (Instant::now(), Mutex::default());
        let watch = Mutex::new(Watch::NotYet);
        let target = Arc::new(Target {
            parts,
            started,
            stopped,
            watch,
            timeout,
            give_up,
            web: Mutex::default(),
        });
        // The hook covers every source of the stop, even while the main thread is blocked.
        let stopped = Arc::downgrade(&target);
        target.parts.handle.set_stop_hook(Box::new(move || {
            if let Some(target) = stopped.upgrade() {
                target.ends();
            }
        }));
        target
    }

    /// Starts the shutdown watchdog: from here on, the wait for unresponsive storage is limited.
    pub(super) fn ends(&self) {
        let mut watch = self.watch();
        if let Watch::NotYet = *watch {
            let disks = Arc::clone(&self.parts.disks);
            let watchdog = Watchdog::start(self.timeout, move || waiting(&disks), self.give_up);
            *watch = Watch::On { _watchdog: watchdog };
        }
    }

    /// Ends the shutdown watchdog. The guest's requests have ended; the last flush has no time
    /// limit.
    pub(super) fn requests_ended(&self) {
        *self.watch() = Watch::Over;
    }

    fn display(&self) -> Result<&Display, String> {
        let missing = "the machine has no display; start it with --display headless";
        self.parts.display.as_ref().ok_or_else(|| missing.to_owned())
    }

    /// Returns the clients of serial port 1 or 2.
    fn hub(&self, number: u8) -> Result<&SerialHub, String> {
        let index = usize::from(number).checked_sub(1);
        let hub = index.and_then(|index| self.parts.serial.as_ref()?.get(index));
        hub.ok_or_else(|| format!("there is no serial port {number}; there are 1 and 2"))
    }

    /// Keeps the browser console until [`Target::end_web`].
    pub(super) fn set_web(&self, web: WebConsole) {
        *self.web.lock().unwrap_or_else(PoisonError::into_inner) = Some(web);
    }

    /// Ends the browser console. Its threads call this target, so it must not be the target's drop
    /// that ends them.
    pub(super) fn end_web(&self) {
        let web = self.web.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(web);
    }

    fn dynamic_memory(&self) -> Result<&MemoryControl, String> {
        let missing = "the machine has no dynamic memory; start it with --memory \
            SIZE,min=SIZE,max=SIZE";
        self.parts.memory.as_ref().ok_or_else(|| missing.to_owned())
    }

    fn watch(&self) -> MutexGuard<'_, Watch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the reason of the stop, if the control socket or a signal stopped the machine.
    pub(super) fn stop_reason(&self) -> Option<StopReason> {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the disks that have requests in flight.
fn waiting(disks: &DiskSet) -> Vec<Waiting> {
    let waits = |(disk, id, _): (DiskReport, String, _)| Waiting {
        id,
        path: disk.label,
        in_flight: disk.stats.in_flight,
        finished: disk.stats.requests,
    };
    disks.reports().into_iter().map(waits).filter(|disk| disk.in_flight != 0).collect()
}

/// Ends the program immediately. The kernel keeps guest memory until storage has finished with it.
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
                leaked_bytes: u64::try_from(leaked_address_space()).unwrap_or(u64::MAX),
                resets: parts.resets.load(Ordering::Relaxed),
                first_run_us: parts.handle.first_run_us(),
                state: parts.handle.state().to_string(),
            },
            disks: disks.collect(),
            tpm: parts.tpm.as_ref().map(|tpm| inspect::tpm(tpm.report())),
            panic: parts
                .handle
                .crash()
                .map(|crash| PanicReport { parameters: crash.0, message: None }),
            ..Default::default()
        };
        report.set_bus(&parts.bus.inspect());
        report.set_networks(parts.networks.reports());
        report.display = parts.display.as_ref().map(Display::report);
        report.vsock = parts.vsock.as_ref().map(Vsock::report);
        report.services = parts.services.report();
        report.memory = parts.memory.as_ref().map(MemoryControl::report);
        report.set_vcpus(&parts.handle.vcpu_exits());
        report
    }

    fn power_button(&self) -> Result<(), String> {
        self.parts.handle.power_button();
        Ok(())
    }

    fn power_off(&self) -> Result<(), String> {
        let handle = self.parts.handle.clone();
        self.parts.services.power_off(move || handle.power_button());
        Ok(())
    }

    fn new_generation(&self) -> Result<(), String> {
        self.parts.handle.renew_generation().map_err(|error| format!("generation id: {error}"))
    }

    fn reset(&self) -> Result<(), String> {
        self.parts.handle.reset();
        Ok(())
    }

    fn stop(&self, reason: StopReason) -> Result<(), String> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
        self.parts.handle.stop();
        Ok(())
    }

    fn pause(&self) -> Result<(), String> {
        self.parts.handle.pause();
        Ok(())
    }

    fn resume(&self) -> Result<(), String> {
        self.parts.handle.resume();
        Ok(())
    }

    fn check_stream(&self, kind: StreamKind) -> Result<(), String> {
        match kind {
            StreamKind::Screen => self.display().map(|_| ()),
            StreamKind::Serial(number) => match self.hub(number)?.has_room() {
                true => Ok(()),
                false => Err(format!("serial port {number} has too many clients already")),
            },
        }
    }

    fn open_stream(&self, kind: StreamKind, stream: UnixStream) -> Result<(), String> {
        match kind {
            StreamKind::Screen => {
                self.display()?.server().add_viewer(stream, Security::none());
                Ok(())
            }
            StreamKind::Serial(number) => {
                self.hub(number)?.attach(stream).map_err(|error| error.to_string())
            }
        }
    }

    fn web_link(&self) -> Result<String, String> {
        match &*self.web.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(web) => web.new_link().map_err(|error| error.to_string()),
            None => Err("the machine has no browser console of its own; start it with \
                         --display web=127.0.0.1:PORT, or use synthvm console --web"
                .to_owned()),
        }
    }

    fn add_disk(&self, disk: DiskConfig) -> Result<DiskPlace, String> {
        if self.parts.memory.is_some() && disk.buffers == BufferMode::Fixed {
            return Err("the machine has dynamic memory, which `buffers=fixed` forbids; use \
                buffers=plain"
                .into());
        }
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

    fn set_link(&self, id: &str, link: LinkState) -> Result<(), String> {
        self.parts.networks.set_link(id, link)
    }

    fn screenshot(&self, path: &Path) -> Result<ScreenSize, String> {
        self.display()?.screenshot(path)
    }

    fn send_keys(&self, keys: &str) -> Result<(), String> {
        self.display()?.send_keys(keys)
    }

    fn type_text(&self, text: &str) -> Result<(), String> {
        self.display()?.type_text(text)
    }

    fn point(&self, pointer: &PointerRequest) -> Result<(), String> {
        self.display()?.point(pointer)
    }

    fn service(&self, request: ServiceRequest, responder: Responder) {
        self.parts.services.perform(request, responder);
    }

    fn memory(&self) -> Result<MemoryReport, String> {
        self.dynamic_memory().map(MemoryControl::report)
    }

    fn set_memory(&self, size: Option<ByteSize>) -> Result<(), String> {
        self.dynamic_memory()?.set_size(size)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, Receiver, Sender};

    use super::*;
    use synthvm_machine::testing::{begin, end};

    use crate::disks::testing::Rig;
    use synthvm_machine::Escape;

    /// A timeout longer than any test.
    const NEVER: Duration = Duration::from_secs(3600);

    /// A machine whose main thread resets it and is blocked on the storage of its one disk.
    struct Stalled {
        rig: Rig,
        target: Arc<Target>,
        console: Arc<dyn Fn(Escape) + Send + Sync>,
        reset: Receiver<()>,
    }

    impl Stalled {
        fn new(give_up: fn(String)) -> Self {
            let mut rig = Rig::new(NEVER);
            let (handle, console) = MachineHandle::hanging();
            let target = Target::with_watchdog(
                Parts {
                    handle,
                    bus: rig.guest.bus.clone(),
                    disks: Arc::clone(&rig.disks),
                    networks: NetworkSet::default(),
                    tpm: None,
                    display: None,
                    vsock: None,
                    services: GuestServices::default(),
                    serial: None,
                    memory: None,
                    memory_bytes: 0,
                    resets: Arc::default(),
                },
                Duration::from_millis(1),
                give_up,
            );
            rig.hold_a_write();
            let bus = rig.guest.bus.clone();
            Stalled { rig, target, console, reset: begin(move || bus.reset()) }
        }

        /// Expects that the watchdog ends the program and names the disk.
        fn expect_given_up(self, said: &Receiver<String>) {
            let said = end(said);
            assert!(said.contains("`0:0` (/probe.img): 1 in flight"), "{said}");
            assert!(self.target.parts.handle.is_stop_queued());
            self.rig.host.probe.request_gate().open();
            end(&self.reset);
        }
    }

    /// The sender of a watchdog's last message. Each test has one of its own, because the function
    /// has no state.
    type Said = Mutex<Option<Sender<String>>>;

    fn hear(said: &Said) -> Receiver<String> {
        let (tell, heard) = mpsc::channel();
        *said.lock().unwrap() = Some(tell);
        heard
    }

    fn say(said: &Said, sentence: String) {
        said.lock().unwrap().as_ref().unwrap().send(sentence).unwrap();
    }

    #[test]
    fn test_console_stop_during_a_reset_that_waits_for_storage_ends_the_program() {
        static SAID: Said = Mutex::new(None);
        let said = hear(&SAID);
        let stalled = Stalled::new(|sentence| say(&SAID, sentence));
        (stalled.console)(Escape::Stop);
        stalled.expect_given_up(&said);
    }

    #[test]
    fn test_stop_by_request_during_a_reset_that_waits_for_storage_ends_the_program() {
        static SAID: Said = Mutex::new(None);
        let said = hear(&SAID);
        let stalled = Stalled::new(|sentence| say(&SAID, sentence));
        stalled.target.stop(StopReason::Signal(libc::SIGTERM)).unwrap();
        assert_eq!(stalled.target.stop_reason(), Some(StopReason::Signal(libc::SIGTERM)));
        stalled.expect_given_up(&said);
    }

    #[test]
    fn test_last_flush_is_waited_for_without_a_watchdog() {
        let rig = Rig::new(NEVER);
        let (handle, console) = MachineHandle::hanging();
        let (bus, disks) = (rig.guest.bus.clone(), Arc::clone(&rig.disks));
        let networks = NetworkSet::default();
        let (tpm, display, serial, memory, vsock) = (None, None, None, None, None);
        let resets = Arc::default();
        let (services, memory_bytes) = (GuestServices::default(), 0);
        let parts = Parts {
            handle,
            bus,
            disks,
            networks,
            tpm,
            display,
            vsock,
            services,
            serial,
            memory,
            memory_bytes,
            resets,
        };
        let target = Target::with_watchdog(parts, NEVER, |sentence| panic!("{sentence}"));
        target.ends();
        target.requests_ended();
        console(Escape::Stop);
        assert!(matches!(*target.watch(), Watch::Over));
    }
}
