//! An image as its user wants it, and the news that nobody uses it any more.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};

use synthvm_storage::backend::{Backend, Extent, Geometry, IoError, Queue, RawFile};
use synthvm_storage::scsi;

use super::DiskError;
use crate::config::{BlockSize, DiskConfig};

/// Opens the image of `disk`, and locks it for this process.
pub(super) fn open(disk: &DiskConfig) -> Result<Arc<dyn Backend>, DiskError> {
    Ok(Arc::new(RawFile::open(&disk.path, disk.readonly)?))
}

/// An image with the block size that its user wants for it. It is what a controller and its workers hold.
#[derive(Debug)]
pub(super) struct Medium {
    image: Arc<dyn Backend>,
    block_size: scsi::BlockSize,
    /// Dropped along with this.
    _in_use: Sender<()>,
}

/// Ends when a [`Medium`] does: the last worker has let go of it.
pub(super) type Unused = Receiver<()>;

impl Medium {
    /// `image`, for a controller.
    pub(super) fn new(image: Arc<dyn Backend>, disk: &DiskConfig) -> (Self, Unused) {
        let block_size = match disk.block_size {
            BlockSize::B512 => scsi::BlockSize::B512,
            BlockSize::B4096 => scsi::BlockSize::B4096,
        };
        let (in_use, unused) = mpsc::channel();
        (Medium { image, block_size, _in_use: in_use }, unused)
    }
}

impl Backend for Medium {
    fn geometry(&self) -> Geometry {
        Geometry { block_size: self.block_size, ..self.image.geometry() }
    }

    fn identity(&self) -> &[u8] {
        self.image.identity()
    }

    fn queue(&self) -> io::Result<Box<dyn Queue>> {
        self.image.queue()
    }

    fn extent(&self, offset: u64) -> Result<Extent, IoError> {
        self.image.extent(offset)
    }

    fn resize(&self, capacity: u64) -> Result<(), IoError> {
        self.image.resize(capacity)
    }
}
