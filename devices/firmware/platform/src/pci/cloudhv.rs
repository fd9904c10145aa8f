//! The host bridge of Cloud Hypervisor, the one function that `CLOUDHV.fd` looks for.

use super::function::{Function, Identity};

const IDENTITY: Identity = Identity { vendor: 0x8086, device: 0x0D57, class: 0x06_0000, header: 0 };

/// Returns the function with its device and function number.
pub(super) fn host_bridge() -> (u8, Function) {
    (0, Function::new(IDENTITY))
}
