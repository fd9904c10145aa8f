//! Devices for tests of the bus and of guests' drivers.

use synthvm_echo::echo;
use vmbus_host::{OfferError, VmBus};

use crate::config::TestDevice;

/// Offers `device`.
///
/// # Errors
/// The system is out of file descriptors or memory.
pub(super) fn offer(device: TestDevice, bus: &VmBus) -> Result<(), OfferError> {
    match device {
        TestDevice::Echo => bus.offer(Box::new(echo())).map(drop),
    }
}
