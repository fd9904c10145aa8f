//! Services: GUIDs on the wire, port numbers for AF_VSOCK (A1).

use vmbus_protocol::Guid;

/// The service of port 0. Linux knows only services that differ from it in the first four bytes.
pub const TEMPLATE: Guid = service_of(0);

/// Returns the service of a port of AF_VSOCK.
#[must_use]
pub const fn service_of(port: u32) -> Guid {
    Guid::new(port, 0xfacb, 0x11e6, [0xbd, 0x58, 0x64, 0x00, 0x6a, 0x79, 0x86, 0xd3])
}

/// Returns the port of a service. `None`: the service is outside of AF_VSOCK.
#[must_use]
pub fn port_of(service: Guid) -> Option<u32> {
    let [a, b, c, d, ..] = service.to_bytes();
    let port = u32::from_le_bytes([a, b, c, d]);
    (service_of(port) == service).then_some(port)
}
