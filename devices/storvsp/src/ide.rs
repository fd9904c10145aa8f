//! The synthetic channel of a disk behind an emulated IDE controller: one channel for each disk
//! (spec storvsc section 9).

use std::sync::Arc;

use vmbus_host::{Channel, Device, Offer, OpenError};
use vmbus_protocol::Guid;
use vmbus_protocol::offer::OfferFlags;

use crate::controller::{ControllerOptions, ScsiController};
use crate::error::{AddDiskError, FlushError};
use crate::lun::{DiskOptions, DiskReport};
use crate::protocol::Routing;
use synthvm_block::Backend;

/// {32412632-86cb-44a2-9b5c-50d1417354f5}: the class of IDE disks.
pub const IDE_DISK: Guid =
    Guid::new(0x3241_2632, 0x86cb, 0x44a2, [0x9b, 0x5c, 0x50, 0xd1, 0x41, 0x73, 0x54, 0xf5]);

/// The position of a disk on the emulated IDE controllers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum IdePlace {
    /// First controller, device 0.
    PrimaryMaster,
    /// First controller, device 1.
    PrimarySlave,
    /// Second controller, device 0.
    SecondaryMaster,
    /// Second controller, device 1.
    SecondarySlave,
}

impl IdePlace {
    /// Returns the numbers of controller and device, 0 or 1 each.
    const fn numbers(self) -> (u8, u8) {
        match self {
            Self::PrimaryMaster => (0, 0),
            Self::PrimarySlave => (0, 1),
            Self::SecondaryMaster => (1, 0),
            Self::SecondarySlave => (1, 1),
        }
    }
}

/// The channel of an IDE disk. Clones are handles to the same disk.
///
/// It has no subchannels and one LUN. Offer it only in a machine with the same disk and backend on
/// its emulated IDE ports. Without such a port, Linux ignores the channel. Windows boots from the
/// port and then switches to the channel.
#[derive(Clone, Debug)]
pub struct IdeDisk {
    place: IdePlace,
    inner: ScsiController,
}

impl IdeDisk {
    /// Returns the disk at `place`. `max_subchannels` in `options` is ignored.
    ///
    /// # Errors
    /// See [`AddDiskError`].
    pub fn new(
        place: IdePlace,
        backend: Arc<dyn Backend>,
        disk: DiskOptions,
        options: ControllerOptions,
    ) -> Result<Self, AddDiskError> {
        let (controller, device) = place.numbers();
        let number = u32::from(controller) * 2 + u32::from(device);
        let options = ControllerOptions { max_subchannels: 0, ..options };
        let inner = ScsiController::with_routing(number, options, Routing::Ide { device });
        inner.add_disk(0, backend, disk)?;
        Ok(Self { place, inner })
    }

    /// Sets the capacity to `capacity` bytes and notifies the guest. The backend must already serve
    /// them.
    pub fn resize(&self, capacity: u64) {
        self.inner.resize_disk(0, capacity);
    }

    /// Returns the disk's report. Its controller number is 0 to 3, in the order of [`IdePlace`].
    pub fn report(&self) -> Option<DiskReport> {
        self.inner.disks().pop()
    }

    /// Makes every completed write durable. Blocks until then.
    ///
    /// # Errors
    /// The backend failed the flush.
    pub fn flush(&self) -> Result<(), FlushError> {
        self.inner.flush()
    }

    /// Returns {0000000c-000d-8899-0000-000000000000}. c: the controller, d: the device. Linux
    /// derives the SCSI target from it.
    pub fn instance(&self) -> Guid {
        let (controller, device) = self.place.numbers();
        Guid::new(controller.into(), device.into(), 0x8899, [0; 8])
    }
}

impl Device for IdeDisk {
    fn offer(&self) -> Offer {
        const IS_IDE: u8 = 2;
        let (controller, device) = self.place.numbers();
        let order = u32::from(controller) * 2 + u32::from(device);
        let mut offer = Offer::new(IDE_DISK, self.instance(), order);
        offer.flags = OfferFlags::ENUMERATE_DEVICE_INTERFACE;
        // u16 0, u8 path, u8 target, u32 0, u32 flags.
        offer.user_defined[2..4].copy_from_slice(&[controller, device]);
        offer.user_defined[8] = IS_IDE;
        offer
    }

    fn open_blocks(&self) -> bool {
        self.inner.open_blocks()
    }

    fn open(&mut self, channel: Channel) -> Result<(), OpenError> {
        self.inner.open(channel)
    }

    fn pause(&mut self) {
        self.inner.pause();
    }

    fn resume(&mut self) {
        self.inner.resume();
    }

    fn save(&mut self, subchannel: u16) -> Option<Vec<u8>> {
        self.inner.save(subchannel)
    }

    fn restore(&mut self, channel: Channel, state: &[u8]) -> Result<(), OpenError> {
        self.inner.restore(channel, state)
    }
}
