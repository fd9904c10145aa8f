//! A disk's backend with the user's options, and a drop notifier for it.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};

use synthvm_block::{Backend, BlockSize, Geometry, Wrapper};
use synthvm_images::{CreateOptions, Format, OpenOptions};
use tracing::info;

use super::{DiskError, memory};
use crate::config::{DiskConfig, DiskSource};

/// Opens the image of `disk` and locks it for this process, or creates a disk without an image.
pub(super) fn open(disk: &DiskConfig) -> Result<Arc<dyn Backend>, DiskError> {
    match disk.source() {
        DiskSource::Image(path) => open_image(disk, path),
        DiskSource::Ram(size) => memory::ram(size),
        DiskSource::Null(size) => Ok(memory::null(size, disk.readonly)),
    }
}

fn open_image(disk: &DiskConfig, path: &Path) -> Result<Arc<dyn Backend>, DiskError> {
    create_image(disk)?;
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

/// Creates the image of a disk that has a size, if it does not exist.
fn create_image(disk: &DiskConfig) -> Result<(), DiskError> {
    let (Some(size), Some(format), true) = (disk.size, disk.new_format(), disk.is_new()) else {
        return Ok(());
    };
    let sector_size = (format == Format::Vhdx).then_some(disk.block_size).flatten();
    let options = CreateOptions {
        sector_size: sector_size.map(BlockSize::bytes),
        ..CreateOptions::new(format, size.bytes())
    };
    synthvm_images::create(&disk.path, &options)?;
    info!("{}: a new {format} image of {size}", disk.path.display());
    Ok(())
}

/// A backend with the block size of the user's choice. Controllers and their workers hold it, while
/// the disk set holds the image below it.
#[derive(Debug)]
pub(super) struct Medium {
    image: Arc<dyn Backend>,
    /// The block size, if it differs from the image's own.
    block_size: Option<BlockSize>,
    /// Dropping it disconnects the drop notifier.
    _in_use: Sender<()>,
}

/// A drop notifier: it disconnects when the last worker has dropped its [`Medium`].
pub(super) type Unused = Receiver<()>;

impl Medium {
    /// Wraps `image` for a controller. Returns the wrapper and its drop notifier.
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

/// Checks that `asked` is at least the image's own block size, and that the image's size is a
/// multiple of it.
fn check_block_size(asked: u32, image: Geometry) -> Result<(), DiskError> {
    let own = image.block_size.bytes();
    if asked < own {
        return Err(DiskError::SmallBlocks { asked, own });
    }
    // A partial last block would be out of the guest's reach, and it may hold data.
    if !image.capacity.is_multiple_of(asked.into()) {
        return Err(DiskError::OddSize { asked, size: image.capacity });
    }
    Ok(())
}

impl Wrapper for Medium {
    fn inner(&self) -> &dyn Backend {
        &*self.image
    }

    fn wrap_geometry(&self, image: Geometry) -> Geometry {
        Geometry { block_size: self.block_size.unwrap_or(image.block_size), ..image }
    }
}
