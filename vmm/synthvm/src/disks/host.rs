//! The slow things that disks ask of the host: both may wait for storage or memory for seconds.

use std::fmt::Debug;
use std::sync::Arc;

use synthvm_block::{Backend, FixedError, FixedMemory};
use vmbus_gpadl::GuestRam;

use super::{DiskError, medium};
use crate::config::DiskConfig;

/// A seam for tests, which make these calls wait.
pub(super) trait Host: Debug + Send + Sync {
    /// Opens the image of `disk`, and locks it for this process.
    fn open(&self, disk: &DiskConfig) -> Result<Arc<dyn Backend>, DiskError>;

    /// Pins all of `ram`.
    fn pin(&self, ram: &GuestRam) -> Result<Arc<FixedMemory>, FixedError>;
}

/// The host itself.
#[derive(Debug)]
pub(super) struct Real;

impl Host for Real {
    fn open(&self, disk: &DiskConfig) -> Result<Arc<dyn Backend>, DiskError> {
        medium::open(disk)
    }

    fn pin(&self, ram: &GuestRam) -> Result<Arc<FixedMemory>, FixedError> {
        FixedMemory::new(ram)
    }
}
