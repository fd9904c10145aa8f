//! The machine's devices: construction, interrupts, and buses.

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex};

use kvm_ioctls::VmFd;
use vmm_sys_util::eventfd::EventFd;

use super::error::MachineError;
use super::events::Subscriber;
use crate::devices::ioapic::{self, Ioapic};
use crate::devices::pci::{self, PciPorts};
use crate::devices::pm::{self, PmRegisters};
use crate::devices::rtc::{self, Rtc};
use crate::devices::serial::{
    self, Escape, FileOutput, Null, SerialHub, SerialPort, SharedOutput, SocketServer, StdioInput,
    StdoutOutput,
};
use crate::devices::{
    Buses, FastReset, InterruptLine, KeyboardReset, NoPci, PioDevice, Power, ResetControl,
    SystemPort,
};
use crate::firmware::{CloudHvPorts, FirmwareDevices};
use crate::irq::{KernelLine, Routes};
use crate::memory::{IOAPIC_BASE, MemoryLayout};
use crate::msvm::MsvmDevices;
use crate::options::{IrqchipMode, MachineConfig, SerialConfig};

/// The ports of POST codes and of the delay that old drivers use.
const DELAY_PORTS: [u16; 2] = [0x80, 0xED];

/// The devices that the machine accesses directly.
pub(super) struct Platform {
    pub(super) buses: Buses,
    pub(super) pm: Arc<PmRegisters>,
    pub(super) serial: [Arc<SerialPort>; 2],
    /// The clients of the serial ports.
    pub(super) hubs: [SerialHub; 2],
    pub(super) ioapic: Option<Arc<Ioapic>>,
    /// Subscribers for the event loop, which are added when the machine runs.
    pub(super) inputs: Vec<Subscriber>,
    /// Whether a serial port uses the terminal.
    pub(super) terminal: bool,
}

/// The connections of the devices.
pub(super) struct Wiring<'a> {
    pub(super) vm: &'a Arc<VmFd>,
    pub(super) routes: &'a Arc<Routes>,
    pub(super) layout: &'a MemoryLayout,
    pub(super) power: Arc<dyn Power>,
    pub(super) firmware: Option<&'a FirmwareDevices>,
    pub(super) msvm: Option<&'a MsvmDevices>,
    pub(super) stop: &'a Arc<EventFd>,
    /// Called for the terminal's Ctrl-A commands.
    pub(super) escape: Arc<dyn Fn(Escape) + Send + Sync>,
}

/// Drops writes and reads as all ones. Claimed so that traces do not show the ports as unclaimed.
struct Delay;

impl PioDevice for Delay {
    fn read(&self, _offset: u16) -> u8 {
        0xFF
    }

    fn write(&self, _offset: u16, _value: u8) {}
}

/// Builds all devices. Socket files exist from here on, until the subscribers in `inputs` are
/// dropped.
pub(super) fn build(config: &MachineConfig, wiring: &Wiring<'_>) -> Result<Platform, MachineError> {
    let [first, second] = &config.serial;
    if *first == SerialConfig::Stdio && *second == SerialConfig::Stdio {
        return Err(MachineError::TwoTerminals);
    }
    let ioapic = match config.irqchip {
        IrqchipMode::Full => None,
        IrqchipMode::Split => {
            Some(Arc::new(Ioapic::new(Arc::clone(wiring.vm), Arc::clone(wiring.routes))))
        }
    };
    let line = |irq: u16| -> Result<Arc<dyn InterruptLine>, MachineError> {
        Ok(match &ioapic {
            Some(ioapic) => Arc::new(ioapic::Pin::new(ioapic, irq.into())),
            None => Arc::new(
                KernelLine::new(wiring.vm, irq.into())
                    .map_err(MachineError::system("interrupt line"))?,
            ),
        })
    };

    let mut inputs: Vec<Subscriber> = Vec::new();
    let mut port = |index, config: &SerialConfig, irq: u8| {
        serial_port(index, config, line(irq.into())?, wiring, &mut inputs)
    };
    let (first, first_hub) = port(0, first, serial::COM1_IRQ)?;
    let (second, second_hub) = port(1, second, serial::COM2_IRQ)?;
    let (serial, hubs) = ([first, second], [first_hub, second_hub]);
    let pm = Arc::new(PmRegisters::new(line(pm::SCI)?, Arc::clone(&wiring.power)));

    let mut buses = Buses::default();
    let power = || Arc::clone(&wiring.power);
    place(&mut buses, |buses| {
        buses.add_ports(serial::COM1_PORT, serial::PORTS, &serial[0])?;
        buses.add_ports(serial::COM2_PORT, serial::PORTS, &serial[1])?;
        buses.add_ports(rtc::PORT, 2, &Arc::new(Rtc::new(wiring.layout, config.rtc)))?;
        buses.add_wide_ports(pm::BASE, pm::PORTS, Arc::new(pm::Wide(Arc::clone(&pm))))?;
        buses.add_ports(KeyboardReset::PORT, 1, &Arc::new(KeyboardReset(power())))?;
        buses.add_ports(FastReset::PORT, 1, &Arc::new(FastReset::new(power())))?;
        let reset = ResetControl::new(power());
        if let Some(msvm) = wiring.msvm {
            msvm.add_to(buses, power())?;
        }
        match wiring.firmware {
            Some(firmware) => {
                firmware.add_to(buses)?;
                if firmware.is_cloudhv() {
                    let ports = Arc::new(CloudHvPorts { pm: Arc::clone(&pm), power: power() });
                    buses.add_wide_ports(CloudHvPorts::PORT, CloudHvPorts::PORTS, ports)?;
                }
                let ports = PciPorts { bus: Arc::clone(firmware.pci()), reset, power: power() };
                buses.add_wide_ports(pci::CONFIG_PORT, pci::CONFIG_PORTS, Arc::new(ports))?;
            }
            None => {
                let ports = Arc::new(NoPci(reset));
                buses.add_wide_ports(pci::CONFIG_PORT, pci::CONFIG_PORTS, ports)?;
            }
        }
        // With the full irqchip, KVM's PIT handles this port in the kernel.
        buses.add_ports(SystemPort::PORT, 1, &Arc::new(SystemPort::default()))?;
        for port in DELAY_PORTS {
            buses.add_ports(port, 1, &Arc::new(Delay))?;
        }
        if let Some(ioapic) = &ioapic {
            buses.add_mmio(IOAPIC_BASE, ioapic::SIZE, Arc::clone(ioapic) as _)?;
        }
        Ok(())
    })?;
    let terminal = config.serial.contains(&SerialConfig::Stdio);
    Ok(Platform { buses, pm, serial, hubs, ioapic, inputs, terminal })
}

/// Adds a device to the buses. An overlap of two devices is a defect of this file, not of a
/// configuration.
pub(super) fn place(
    buses: &mut Buses,
    add: impl FnOnce(&mut Buses) -> Result<(), vm_device::bus::Error>,
) -> Result<(), MachineError> {
    add(buses).map_err(|error| MachineError::System {
        what: "device bus",
        source: io::Error::other(error),
    })
}

/// Builds the serial port with this index in the configuration, and its clients.
fn serial_port(
    index: usize,
    config: &SerialConfig,
    line: Arc<dyn InterruptLine>,
    wiring: &Wiring<'_>,
    inputs: &mut Vec<Subscriber>,
) -> Result<(Arc<SerialPort>, SerialHub), MachineError> {
    let failed = MachineError::system("serial port");
    let hub = SerialHub::new().map_err(failed)?;
    let new = |output: SharedOutput| {
        SerialPort::new(line, hub.output(output))
            .map(Arc::new)
            .map_err(MachineError::system("serial port"))
    };
    let port = match config {
        SerialConfig::Null => new(Arc::new(Mutex::new(Null)))?,
        SerialConfig::File(path) => {
            let file = File::create(path).map_err(|source| MachineError::SerialFile {
                port: index,
                path: path.clone(),
                source,
            })?;
            new(Arc::new(Mutex::new(FileOutput::new(file))))?
        }
        SerialConfig::Stdio => {
            let port = new(Arc::new(Mutex::new(StdoutOutput::new(Arc::clone(wiring.stop)))))?;
            let escape = Arc::clone(&wiring.escape);
            inputs.push(Box::new(StdioInput::new(
                Arc::clone(&port),
                Box::new(move |command| escape(command)),
            )));
            port
        }
        SerialConfig::Socket(path) => {
            let mut server = SocketServer::bind(path)
                .map_err(|source| MachineError::SerialSocket { port: index, source })?;
            let port = new(server.output())?;
            server.connect(Arc::clone(&port));
            inputs.push(Box::new(server));
            port
        }
    };
    let server = hub.server(Arc::clone(&port)).map_err(MachineError::system("serial port"))?;
    inputs.push(Box::new(server));
    Ok((port, hub))
}
