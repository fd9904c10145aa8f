//! An image as its user wants it, and the news that nobody uses it any more.

use std::io;
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};

use synthvm_block::{
    Backend, BlockSize, Extent, FixedMemory, Geometry, IoError, Limits, Queue, Rate,
};
use synthvm_images::OpenOptions;

use super::{DiskError, memory};
use crate::config::{ByteSize, DiskConfig, DiskSource, LimitsConfig};

/// Opens the image of `disk`, and locks it for this process; or makes a disk that has none.
pub(super) fn open(disk: &DiskConfig) -> Result<Arc<dyn Backend>, DiskError> {
    match disk.source() {
        DiskSource::Image(path) => open_image(disk, path),
        DiskSource::Ram(size) => memory::ram(size),
        DiskSource::Null(size) => Ok(memory::null(size, disk.readonly)),
    }
}

fn open_image(disk: &DiskConfig, path: &Path) -> Result<Arc<dyn Backend>, DiskError> {
    let options = OpenOptions {
        read_only: disk.readonly,
        format: disk.format,
        cache: disk.cache,
        io: disk.io,
        parents: disk.parents,
        ..OpenOptions::default()
    };
    Ok(synthvm_images::open(path, &options)?)
}

/// The limits of a disk as the storage layer has them.
pub(super) fn limits(config: &LimitsConfig) -> Limits {
    let rate = |number: Option<NonZeroU64>| number.map(Rate::per_second);
    let bytes = |size: Option<ByteSize>| rate(size.and_then(|size| NonZeroU64::new(size.bytes())));
    Limits {
        requests: rate(config.iops),
        reads: rate(config.read_iops),
        writes: rate(config.write_iops),
        bytes: bytes(config.bps),
        read_bytes: bytes(config.read_bps),
        written_bytes: bytes(config.write_bps),
    }
}

/// An image with the block size that its user wants for it. It is what a controller and its workers
/// hold.
#[derive(Debug)]
pub(super) struct Medium {
    image: Arc<dyn Backend>,
    /// If it is not the image's own.
    block_size: Option<BlockSize>,
    /// Dropped along with this.
    _in_use: Sender<()>,
}

/// Ends when a [`Medium`] does: the last worker has let go of it.
pub(super) type Unused = Receiver<()>;

impl Medium {
    /// `image`, for a controller.
    ///
    /// # Errors
    /// The image cannot be used in blocks of this size.
    pub(super) fn new(
        image: Arc<dyn Backend>,
        block_size: Option<BlockSize>,
    ) -> Result<(Self, Unused), DiskError> {
        if let Some(size) = block_size {
            check_block_size(size.bytes(), image.geometry())?;
        }
        let (in_use, unused) = mpsc::channel();
        Ok((Medium { image, block_size, _in_use: in_use }, unused))
    }
}

/// Whole blocks of `asked` bytes must be whole blocks of the image's own, and the image must
/// consist of them.
fn check_block_size(asked: u32, image: Geometry) -> Result<(), DiskError> {
    let own = image.block_size.bytes();
    if asked < own {
        return Err(DiskError::SmallBlocks { asked, own });
    }
    // The disk's end would be out of the guest's reach, and with it what others have written there.
    if !image.capacity.is_multiple_of(asked.into()) {
        return Err(DiskError::OddSize { asked, size: image.capacity });
    }
    Ok(())
}

impl Backend for Medium {
    fn geometry(&self) -> Geometry {
        let image = self.image.geometry();
        Geometry { block_size: self.block_size.unwrap_or(image.block_size), ..image }
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

    fn use_fixed(&self, memory: &Arc<FixedMemory>) -> Result<(), IoError> {
        self.image.use_fixed(memory)
    }

    fn fixed_calls(&self) -> Option<u64> {
        self.image.fixed_calls()
    }
}
