//! Host calls of the disk set that may block for seconds, on storage or memory.

use std::fmt::Debug;
use std::sync::Arc;

use synthvm_block::{Backend, FixedError, FixedMemory};
use vmbus_gpadl::GuestRam;

use super::{DiskError, medium};
use crate::config::DiskConfig;

/// The blocking host calls. Tests replace them to control when they return.
pub(super) trait Host: Debug + Send + Sync {
    /// Opens the image of `disk`, and locks it for this process.
    fn open(&self, disk: &DiskConfig) -> Result<Arc<dyn Backend>, DiskError>;

    /// Pins all of `ram`.
    fn pin(&self, ram: &GuestRam) -> Result<Arc<FixedMemory>, FixedError>;
}

/// The real host.
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
