//! The offer of a device.

use thiserror::Error;
use vmbus_protocol::Guid;
use vmbus_protocol::limits::MAX_OFFER_USER_DATA;
use vmbus_protocol::offer::OfferFlags;

/// The offer of a device to the guest (vmbus-core 4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Offer {
    /// Device class (vmbus-core section 12).
    pub class: Guid,
    /// Device instance: unique over all devices of the VM and the same on every boot, because
    /// Windows ties its settings to it.
    pub instance: Guid,
    /// Order among offers of the same class. It decides relids, and with them names in the guest.
    pub order: u32,
    /// Flags.
    pub flags: OfferFlags,
    /// MMIO that the device needs, MiB.
    pub mmio_megabytes: u16,
    /// Class-specific data.
    pub user_defined: [u8; MAX_OFFER_USER_DATA],
}

impl Offer {
    /// Returns an offer without flags, MMIO and user data.
    #[must_use]
    pub fn new(class: Guid, instance: Guid, order: u32) -> Self {
        Self {
            class,
            instance,
            order,
            flags: OfferFlags::empty(),
            mmio_megabytes: 0,
            user_defined: [0; MAX_OFFER_USER_DATA],
        }
    }

    /// Returns true for the channel of one socket connection (hvsock-vpci A3). Such a channel is
    /// opened at most once; when either end closes it, or the guest connects again, it is rescinded
    /// and its device dropped.
    #[must_use]
    pub fn is_socket(&self) -> bool {
        self.flags.contains(OfferFlags::TLNPI_PROVIDER)
    }

    /// Sets the flags.
    #[must_use]
    pub fn flags(mut self, flags: OfferFlags) -> Self {
        self.flags = flags;
        self
    }

    /// Sets the MiB of MMIO that the device needs.
    #[must_use]
    pub fn mmio_megabytes(mut self, mmio_megabytes: u16) -> Self {
        self.mmio_megabytes = mmio_megabytes;
        self
    }

    /// Sets the class-specific data.
    #[must_use]
    pub fn user_defined(mut self, user_defined: [u8; MAX_OFFER_USER_DATA]) -> Self {
        self.user_defined = user_defined;
        self
    }
}

/// The error of offering a device.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum OfferError {
    /// The instance is in use: guests tell devices apart by instance alone.
    #[error("a device with instance {0} exists, or the guest has not released it yet")]
    InstanceInUse(Guid),
    /// There are 2,047 channels, as many as event flags can tell apart.
    #[error("no more channels: 2,047 exist")]
    TooMany,
    /// The offer is a socket connection, and no guest is connected that knows sockets (4.0).
    #[error("the guest knows no sockets, or has not connected yet")]
    NoSockets,
}
