//! The offer of a connection (A3).

use vmbus_host::Offer;
use vmbus_protocol::Guid;
use vmbus_protocol::offer::OfferFlags;

/// Byte of the user-defined data that says which end has connected.
const HOST_INITIATED: usize = 4;
/// First byte of the version of the user-defined data.
const VERSION: usize = 6;
/// Windows 10 1809 and later.
const VERSION_RS5: u8 = 1;

/// The end that connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initiator {
    /// The guest: the offer answers its request.
    Guest,
    /// The host: a program in the guest must be listening.
    Host,
}

/// Returns the offer of a connection. `service`: the service that is connected to. `endpoint`: the
/// connecting end: the guest's own from its request, or a random one of the host.
#[must_use]
pub fn offer(initiator: Initiator, service: Guid, endpoint: Guid) -> Offer {
    // The pipe type in the first four bytes is 0: bytes.
    let mut user_defined = Offer::new(service, endpoint, 0).user_defined;
    user_defined[HOST_INITIATED] = u8::from(initiator == Initiator::Host);
    user_defined[VERSION] = VERSION_RS5;
    let flags = OfferFlags::ENUMERATE_DEVICE_INTERFACE
        | OfferFlags::NAMED_PIPE_MODE
        | OfferFlags::TLNPI_PROVIDER;
    Offer::new(service, endpoint, 0).flags(flags).user_defined(user_defined)
}
