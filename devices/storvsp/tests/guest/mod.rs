//! The loopback's bare guest, which speaks storvsp here.
#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "each test program uses its own part"
)]

pub mod scsi;

use std::fmt;
use std::sync::Arc;

use synthvm_block::{Backend, Extent, IoError, RamDisk, Wrapper};
use synthvm_storvsp::{InlineWorkers, ScsiController};
use vmbus_host::core::ChannelKey;
use vmbus_loopback::bare::Serve;

pub use vmbus_loopback::bare::{BareChannel, BareGuest, DATA, GuestOffer, GuestRange};

/// Returns a guest that has the offers of `controllers`.
pub fn connect(controllers: &[ScsiController]) -> (BareGuest, Vec<ChannelKey>) {
    BareGuest::new(controllers.iter().map(|one| Box::new(one.clone()) as _).collect())
}

/// Returns a guest that runs the workers `inline` of `controllers` whenever it waits.
pub fn connect_inline(
    controllers: &[ScsiController],
    inline: &InlineWorkers,
) -> (BareGuest, Vec<ChannelKey>) {
    let (mut guest, keys) = connect(controllers);
    guest.serve = Some(serve(inline));
    (guest, keys)
}

/// Returns the guest's call of `inline`.
pub fn serve(inline: &InlineWorkers) -> Serve {
    let inline = inline.clone();
    Arc::new(move || inline.serve())
}

/// A RAM disk that calls a hook at each query of block states, before it answers.
pub struct HookedDisk<H> {
    disk: RamDisk,
    hook: H,
}

impl<H: Fn() -> Result<(), IoError> + Send + Sync> HookedDisk<H> {
    /// Returns a disk of `size` bytes. The query fails with the error of `hook`, if any.
    pub fn new(size: u64, hook: H) -> Arc<Self> {
        Arc::new(Self { disk: RamDisk::new(size).unwrap(), hook })
    }
}

impl<H> fmt::Debug for HookedDisk<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HookedDisk")
    }
}

impl<H: Fn() -> Result<(), IoError> + Send + Sync> Wrapper for HookedDisk<H> {
    fn inner(&self) -> &dyn Backend {
        &self.disk
    }

    fn wrap_extent(&self, offset: u64) -> Result<Extent, IoError> {
        (self.hook)()?;
        self.disk.extent(offset)
    }
}
