//! The whole machine: disks, KVM, bus, remote control; run to its end, and let go of in order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use synthvm_storage::backend::{Backend, Extent, Geometry, IoError, Queue, RawFile};
use synthvm_storage::{DiskOptions, ScsiController, scsi};
use vmbus_gpadl::GuestRam;
use vmbus_host::VmBus;

use super::exit::{Exit, Failure};
use super::target::{Parts, Target};
use crate::config::{BlockSize, DiskConfig, VmConfig};
use crate::control::{ControlServer, ControlSocket, ControlTarget, StopSignals};
use crate::hyperv::HypercallHandler;
use crate::machine::{self, Machine};

/// SCSI controllers by number.
pub(super) type Controllers = BTreeMap<u32, ScsiController>;

/// Builds the machine, runs it to its end and tells how it ended.
pub(super) fn launch(
    config: &VmConfig,
    controllers: &Controllers,
    socket: Option<ControlSocket>,
) -> Result<Exit, Failure> {
    let mut machine = Machine::build(config)?;
    let internal =
        |what: &str, error: &dyn std::fmt::Display| Failure::text(Exit::Internal, format!("{what}: {error}"));
    let ram = GuestRam::new(machine.memory().clone()).map_err(|error| internal("guest memory", &error))?;
    let bus = VmBus::new(ram, machine.synic());
    for controller in controllers.values() {
        bus.offer(Box::new(controller.clone()))
            .map_err(|error| internal("offering a SCSI controller", &error))?;
    }
    machine.set_hypercalls(Arc::new(BusHypercalls(bus.clone())));
    let resets = Arc::new(AtomicU64::new(0));
    machine.add_reset_hook(reset_hook(&bus, &resets));

    let target = Arc::new(Target::new(Parts {
        handle: machine.handle(),
        bus: bus.clone(),
        controllers: controllers.values().cloned().collect(),
        names: config
            .disks
            .iter()
            .map(|disk| ((disk.controller, disk.lun.unwrap_or(0)), disk.id.clone()))
            .collect(),
        memory_bytes: config.memory.size.bytes(),
        resets,
    }));
    watch(&machine, config, socket, &target)?;

    let end = machine.run();
    // No vCPU runs any more: close the rings, then make durable what the guest wrote.
    bus.reset();
    for (number, controller) in controllers {
        let what = format!("controller {number}");
        controller.flush().map_err(|error| internal(&what, &error))?;
    }
    outcome(end, &target)
}

/// Puts the remote control and the stop signals on the machine's event loop.
fn watch(
    machine: &Machine,
    config: &VmConfig,
    socket: Option<ControlSocket>,
    target: &Arc<Target>,
) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::text(Exit::Internal, format!("event loop: {error}"));
    let grace = Duration::from_secs(config.stop_timeout.into());
    let target = || -> Arc<dyn ControlTarget> { Arc::clone(target) as _ };
    machine.events().add(Box::new(StopSignals::new(grace, target()).map_err(failed)?)).map_err(failed)?;
    match socket {
        Some(socket) => machine.events().add(Box::new(ControlServer::new(socket, target()))).map_err(failed),
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
        // Without a reason it was the console's own key.
        machine::Exit::Stopped => Ok(target.stop_reason().map_or(Exit::Stopped, Exit::from)),
        machine::Exit::Failed(failure) => Err(Failure::new(Exit::Internal, &failure)),
    }
}

/// The controllers that the disks name, with their disks: opened, and locked for this process.
pub(super) fn open_disks(config: &VmConfig) -> Result<Controllers, Failure> {
    let mut controllers = Controllers::new();
    let subchannels = u16::from(config.cpus).saturating_sub(1);
    for disk in &config.disks {
        let refuse = |error: &dyn std::error::Error| {
            let failure = Failure::new(Exit::Input, error);
            Failure::text(Exit::Input, format!("--disk {}: {failure}", disk.path.display()))
        };
        let image = RawFile::open(&disk.path, disk.readonly).map_err(|error| refuse(&error))?;
        let controller = controllers
            .entry(disk.controller)
            .or_insert_with(|| ScsiController::new(disk.controller, subchannels));
        let options = DiskOptions { serial: disk.serial.clone(), label: disk.path.display().to_string() };
        let backend = Arc::new(Medium { image, block_size: disk_block_size(disk) });
        controller.add_disk(disk.lun.unwrap_or(0), backend, options).map_err(|error| refuse(&error))?;
    }
    Ok(controllers)
}

fn disk_block_size(disk: &DiskConfig) -> scsi::BlockSize {
    match disk.block_size {
        BlockSize::B512 => scsi::BlockSize::B512,
        BlockSize::B4096 => scsi::BlockSize::B4096,
    }
}

/// An image with the block size that its user wants for it.
#[derive(Debug)]
struct Medium {
    image: RawFile,
    block_size: scsi::BlockSize,
}

impl Backend for Medium {
    fn geometry(&self) -> Geometry {
        Geometry { block_size: self.block_size, ..self.image.geometry() }
    }

    fn identity(&self) -> &[u8] {
        self.image.identity()
    }

    fn queue(&self) -> std::io::Result<Box<dyn Queue>> {
        self.image.queue()
    }

    fn extent(&self, offset: u64) -> Result<Extent, IoError> {
        self.image.extent(offset)
    }

    fn resize(&self, capacity: u64) -> Result<(), IoError> {
        self.image.resize(capacity)
    }
}

/// The bus as the vCPUs see it.
struct BusHypercalls(VmBus);

impl HypercallHandler for BusHypercalls {
    fn post_message(&self, _vp: u32, connection_id: u32, message_type: u32, payload: &[u8]) -> u16 {
        self.0.post_message(connection_id, message_type, payload).code()
    }
}
