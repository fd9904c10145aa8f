//! Devices for tests of the bus and of guests' drivers.

use std::error::Error;
use std::sync::Arc;

use synthvm_echo::echo;
use synthvm_net::Switch;
use synthvm_netvsp::protocol::MacAddress;
use synthvm_netvsp::{CardOptions, NetworkCard};
use vmbus_device::WorkerOptions;
use vmbus_host::VmBus;
use vmbus_protocol::Guid;

use crate::config::TestDevice;

/// Most channels of a network card. Linux opens as many as it has processors.
const CHANNELS: u16 = 4;

/// Offers `device`.
///
/// # Errors
/// The system's: out of file descriptors or memory.
pub(super) fn offer(device: TestDevice, bus: &VmBus) -> Result<(), Box<dyn Error>> {
    match device {
        TestDevice::Echo => _ = bus.offer(Box::new(echo()))?,
        TestDevice::Network => {
            let switch = Switch::new(2)?;
            for number in 0..2 {
                let port = switch.port(number).ok_or("the switch has no port")?;
                let (options, port) = (card(number as u8), Arc::new(port));
                bus.offer(Box::new(NetworkCard::with_channels(options, port, CHANNELS)))?;
            }
        }
    }
    Ok(())
}

/// Returns the options of card `number`. Its address and instance are the same on every boot.
fn card(number: u8) -> CardOptions {
    CardOptions {
        instance: Guid::new(u32::from(number) + 1, 0x6e65, 0x7400, *b"SynthVM!"),
        address: MacAddress([0x00, 0x15, 0x5D, 0, 0, number + 1]),
        name: format!("test {number}"),
        workers: WorkerOptions::default(),
    }
}
