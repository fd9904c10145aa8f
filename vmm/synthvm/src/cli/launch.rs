//! The whole machine: disks, KVM, bus and control socket; run until it ends, then closed in order.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use synthvm_machine::unix_socket::ListeningSocket;
use synthvm_machine::{self as machine, Machine};
use synthvm_tpm::Emulator;
use synthvm_web_console::Libraries;
use vmbus_host::VmBus;

use super::console::start_web;
use super::exit::{Exit, Failure};
use super::target::{Parts, Target};
use super::test_device;
use super::tpm::attach_tpm;
use super::trace::start_trace;
use crate::config::VmConfig;
use crate::control::{ControlServer, ControlTarget, StopSignals};
use crate::disks::{DiskError, DiskSet};
use crate::display::{Display, Vnc};
use crate::dynamic_memory::{MemoryControl, guest_ram};
use crate::networks::{NetworkSet, OpenNetworks};
use crate::services::{ClockWatch, GuestServices};
use crate::trace::TraceFile;
use crate::vsock::Vsock;

/// What the machine uses and has opened before it exists. Dropping it leaves nothing behind.
pub(super) struct Opened {
    pub(super) disks: DiskSet,
    pub(super) networks: OpenNetworks,
    pub(super) tpm: Option<Emulator>,
    pub(super) vnc: Option<Vnc>,
    pub(super) trace: Option<TraceFile>,
    pub(super) vsock: Option<ListeningSocket>,
    /// The libraries of the browser console, if there is one.
    pub(super) web: Option<Libraries>,
}

/// Builds the machine, runs it until it ends and returns its exit status.
pub(super) fn launch(
    config: &VmConfig,
    opened: Opened,
    socket: Option<ListeningSocket>,
) -> Result<Exit, Failure> {
    let Opened { disks, networks, tpm, vnc, trace, vsock, web } = opened;
    let mut machine = Machine::build(&config.machine())?;
    let internal = |what: &str, error: &dyn std::fmt::Display| {
        Failure::text(Exit::Internal, format!("{what}: {error}"))
    };
    let ram = guest_ram(&machine).map_err(|error| internal("guest memory", &error))?;
    let bus = VmBus::new(ram.clone(), machine.synic());
    let _trace = trace.map(|file| start_trace(file, &bus)).transpose()?;
    let disks = Arc::new(disks);
    disks.use_memory(&ram).map_err(|(path, error)| {
        let exit = if let DiskError::Fixed(_) = error { Exit::Host } else { Exit::Input };
        refuse("disk", Some(&path), exit, &error)
    })?;
    disks.offer(&bus).map_err(|error| internal("disks", &error))?;
    let networks =
        NetworkSet::start(networks, &bus).map_err(|error| internal("network cards", &error))?;
    let display = Display::start(&config.display, vnc, &mut machine, &bus)
        .map_err(|error| internal("the display", &*error))?;
    let vsock = config.vsock.as_ref().zip(vsock);
    let vsock = vsock.map(|(config, listener)| Vsock::start(config, listener, &bus)).transpose();
    let vsock = vsock.map_err(|error| internal("host sockets", &error))?;
    let services = GuestServices::start(config, &machine, &networks, &bus)
        .map_err(|error| internal("the services", &*error))?;
    if let Some(device) = config.test_device {
        test_device::offer(device, &bus).map_err(|error| internal("the test device", &error))?;
    }
    machine.set_bus(bus.clone());
    let has_presence = config.tpm.as_ref().is_some_and(|tpm| tpm.presence);
    let tpm = tpm.map(|emulator| attach_tpm(&mut machine, emulator, has_presence)).transpose()?;
    let resets = Arc::new(AtomicU64::new(0));
    machine.add_reset_hook(reset_hook(&bus, &resets));
    if let Some(display) = &display {
        machine.add_reset_hook(display.reset_hook());
    }
    let memory = MemoryControl::start(&config.memory, &mut machine, &ram, &bus)
        .map_err(|error| internal("dynamic memory", &*error))?;

    let target = Target::new(Parts {
        handle: machine.handle(),
        bus: bus.clone(),
        disks: Arc::clone(&disks),
        networks,
        tpm,
        display,
        vsock,
        services: services.clone(),
        serial: Some(machine.serial_hubs().clone()),
        memory,
        memory_bytes: config.memory.size.bytes(),
        resets,
    });
    watch(&machine, config, socket, &target)?;
    if services.has_time_sync() {
        let failed = |error| internal("the clock", &error);
        let watch = ClockWatch::new(services).map_err(failed)?;
        machine.events().add(Box::new(watch)).map_err(failed)?;
    }
    if let (Some(address), Some(libraries)) = (config.display.web, web) {
        start_web(address, config, libraries, &target)?;
    }

    let end = machine.run();
    target.end_web();
    target.ends();
    // No vCPU runs from here on: close the rings, then flush the guest's writes to storage.
    bus.reset();
    target.requests_ended();
    disks.flush().map_err(|error| Failure::new(Exit::Internal, &error))?;
    outcome(end, &target)
}

/// Adds the control socket and the stop signals to the machine's event loop.
fn watch(
    machine: &Machine,
    config: &VmConfig,
    socket: Option<ListeningSocket>,
    target: &Arc<Target>,
) -> Result<(), Failure> {
    let failed =
        |error: std::io::Error| Failure::text(Exit::Internal, format!("event loop: {error}"));
    let grace = Duration::from_secs(config.stop_timeout.into());
    let target = || -> Arc<dyn ControlTarget> { Arc::clone(target) as _ };
    machine
        .events()
        .add(Box::new(StopSignals::new(grace, target()).map_err(failed)?))
        .map_err(failed)?;
    match socket {
        Some(socket) => {
            let server = ControlServer::new(socket, target()).map_err(failed)?;
            machine.events().add(Box::new(server)).map_err(failed)
        }
        None => Ok(()),
    }
}

fn reset_hook(bus: &VmBus, resets: &Arc<AtomicU64>) -> Box<dyn FnMut() + Send> {
    let (bus, resets) = (bus.clone(), Arc::clone(resets));
    Box::new(move || {
        bus.reset();
        resets.fetch_add(1, Ordering::Relaxed);
    })
}

fn outcome(end: machine::Exit, target: &Target) -> Result<Exit, Failure> {
    match end {
        machine::Exit::PowerOff => Ok(Exit::Success),
        machine::Exit::Reset => Ok(Exit::GuestReset),
        machine::Exit::Panic(parameters) => {
            Err(Failure::text(Exit::GuestPanicked, format!("the guest panicked: {parameters}")))
        }
        machine::Exit::NoBootDevice(failure) => {
            let advice = "check --disk, --dvd and the boot entries in --firmware-vars";
            Err(Failure::text(Exit::NoBootDevice, format!("{failure}; {advice}")))
        }
        // Without a stop reason, the console's key combination stopped the machine.
        machine::Exit::Stopped => Ok(target.stop_reason().map_or(Exit::Stopped, Exit::from)),
        machine::Exit::Failed(failure) => Err(Failure::new(Exit::Internal, &failure)),
    }
}

/// Opens the disks, and locks them for this process.
pub(super) fn open_disks(config: &VmConfig) -> Result<DiskSet, Failure> {
    let busy_poll = Duration::from_micros(config.disk_busy_poll.into());
    let disks =
        DiskSet::new(config.cpus).with_busy_poll(busy_poll).with_moderation(config.disk_moderation);
    let disks = match config.disk_channels {
        Some(channels) => disks.with_channels(channels),
        None => disks,
    };
    for disk in &config.disks {
        disks.add(disk).map_err(|error| {
            let exit = match error {
                DiskError::HostMemory { .. } | DiskError::Memory { .. } => Exit::Host,
                _ => Exit::Input,
            };
            refuse("disk", Some(Path::new(&disk.source().to_string())), exit, &error)
        })?;
    }
    for dvd in &config.dvds {
        disks
            .add_dvd(dvd)
            .map_err(|error| refuse("dvd", dvd.path.as_deref(), Exit::Input, &error))?;
    }
    Ok(disks)
}

/// Returns the failure to open a disk, with the option at fault.
fn refuse(option: &str, path: Option<&Path>, exit: Exit, error: &DiskError) -> Failure {
    let failure = Failure::new(exit, error);
    Failure::text(
        exit,
        format!("--{option} {}: {failure}", path.unwrap_or(Path::new("")).display()),
    )
}
