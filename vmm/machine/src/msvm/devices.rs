//! The BIOS device at its ports. An access runs on the vCPU's thread that made it, under the
//! device's lock; a write of a variable returns when its file has it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use synthvm_firmware::BootFailure;
use synthvm_msvm::{
    BiosDevice, BiosRequest, Nvram, VariableStore, Variables, VariablesFile, VolatileStore,
};
use tracing::{error, warn};
use vm_device::DevicePio;
use vm_device::bus::{Error as BusError, PioAddress, PioAddressOffset};

use super::watchdog::Watchdog;
use super::{MsvmError, MsvmSource};
use crate::devices::{Buses, Power, PowerRequest};
use crate::machine::Subscriber;
use crate::memory::GuestMemory;
use crate::options::MsvmConfig;

/// The firmware of a machine: the image, the BIOS device and its watchdog.
pub(crate) struct MsvmDevices {
    source: MsvmSource,
    ports: Arc<BiosPorts>,
}

/// The BIOS device with the memory that its requests are in.
pub(super) struct BiosPorts {
    pub(super) device: Mutex<BiosDevice>,
    memory: GuestMemory,
    pub(super) watchdog: Watchdog,
}

/// The generation id of the BIOS device.
pub(crate) struct GenerationPort(Arc<BiosPorts>);

impl GenerationPort {
    /// Changes the id, also where the guest reads it. Returns whether the guest has such a place.
    pub(crate) fn set(&self, id: [u8; 16]) -> bool {
        self.0.device().set_generation(id, &self.0.memory)
    }
}

impl MsvmDevices {
    /// Builds the devices. Opens the variables file, which may create it.
    pub(crate) fn new(
        config: &MsvmConfig,
        source: MsvmSource,
        memory: &GuestMemory,
        generation: [u8; 16],
    ) -> Result<MsvmDevices, MsvmError> {
        let (store, variables): (Box<dyn VariableStore>, Variables) = match &config.variables {
            Some(path) => {
                let (file, variables) = VariablesFile::open(path)?;
                (Box::new(file), variables)
            }
            None => (Box::new(VolatileStore), Variables::new()),
        };
        let start = Instant::now();
        let device = BiosDevice::new(
            Nvram::new(variables, store, None),
            generation,
            Box::new(move || start.elapsed()),
            // `MsvmSource::load` reports a host without random numbers.
            Box::new(|bytes| {
                let _ = getrandom::fill(bytes);
            }),
        );
        let watchdog = Watchdog::new(start)
            .map_err(|source| MsvmError::System { what: "watchdog", source })?;
        let ports = BiosPorts { device: Mutex::new(device), memory: memory.clone(), watchdog };
        Ok(MsvmDevices { source, ports: Arc::new(ports) })
    }

    /// Returns the device's generation id.
    pub(crate) fn generation(&self) -> GenerationPort {
        GenerationPort(Arc::clone(&self.ports))
    }

    /// Places the device on the buses. It reports failed boots to `power`.
    pub(crate) fn add_to(&self, buses: &mut Buses, power: Arc<dyn Power>) -> Result<(), BusError> {
        let access = Access { ports: Arc::clone(&self.ports), power };
        buses.add_wide_ports(BiosDevice::PORT, BiosDevice::PORTS, Arc::new(access))
    }

    /// Returns the event loop's part of the watchdog, which resets the machine with `power`.
    pub(crate) fn watchdog(&self, power: Arc<dyn Power>) -> Subscriber {
        Box::new(Expiry { ports: Arc::clone(&self.ports), power })
    }

    /// Restores the reset state. Kept variables remain.
    pub(crate) fn reset(&self) {
        let mut device = self.ports.device();
        device.reset();
        self.ports.watchdog.set(device.deadline());
    }

    /// Returns the image, to be loaded for a start.
    pub(crate) fn source(&self) -> &MsvmSource {
        &self.source
    }
}

impl BiosPorts {
    pub(super) fn device(&self) -> MutexGuard<'_, BiosDevice> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The ports on the bus.
struct Access {
    ports: Arc<BiosPorts>,
    power: Arc<dyn Power>,
}

impl DevicePio for Access {
    fn pio_read(&self, _base: PioAddress, offset: PioAddressOffset, data: &mut [u8]) {
        self.ports.device().read_port(offset, data);
    }

    fn pio_write(&self, _base: PioAddress, offset: PioAddressOffset, data: &[u8]) {
        let mut device = self.ports.device();
        match device.write_port(offset, data, &self.ports.memory) {
            Some(BiosRequest::Timer) => self.ports.watchdog.set(device.deadline()),
            Some(BiosRequest::NoBootDevice) => {
                drop(device);
                self.power.request(PowerRequest::BootFailure(BootFailure::NoOption));
            }
            None => {}
        }
    }
}

/// Resets the machine when the deadline has passed.
struct Expiry {
    ports: Arc<BiosPorts>,
    power: Arc<dyn Power>,
}

impl MutEventSubscriber for Expiry {
    fn process(&mut self, _events: Events, _ops: &mut EventOps<'_>) {
        let mut device = self.ports.device();
        let expired = device.expire();
        // Also ends the timer's event: a deadline that was moved is still to come.
        self.ports.watchdog.set(device.deadline());
        drop(device);
        if expired {
            warn!("the firmware's watchdog expired; the machine is reset");
            self.power.request(PowerRequest::Reset);
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        let events = Events::new_raw(self.ports.watchdog.descriptor(), EventSet::IN);
        if let Err(error) = ops.add(events) {
            error!("cannot watch the firmware's watchdog: {error}");
        }
    }
}
