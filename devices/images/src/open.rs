//! Opens an image of any format.

use std::path::Path;
use std::sync::Arc;

use synthvm_block::{Backend, LockedFile, RawFile};

use crate::OpenOptions;
use crate::error::OpenError;
use crate::file::lock;
use crate::format::Format;
use crate::mapped::Mapped;
use crate::qcow2::Qcow2;
use crate::vhd::Vhd;
use crate::vhdx::Vhdx;

/// Opens and locks the image at `path`.
///
/// If no format is given, the content decides. An image that may be raw by its name (`.img`,
/// `.raw`, ..., none at all) or is a block device, but looks like another format, is refused: the
/// guest of a raw image can write such content, and would then choose the files that the host
/// opens.
///
/// # Errors
/// [`OpenError`]: the flaw of the image, and the remedy.
pub fn open(path: &Path, options: &OpenOptions) -> Result<Arc<dyn Backend>, OpenError> {
    let file = lock(path, options.read_only)?;
    let format = options.format_of(&file)?;
    open_as(&file, format, options)
}

/// Opens the image in `file`, which has `format`.
pub(crate) fn open_as(
    file: &LockedFile,
    format: Format,
    options: &OpenOptions,
) -> Result<Arc<dyn Backend>, OpenError> {
    Ok(match format {
        Format::Raw => Arc::new(RawFile::from_locked(file, &options.raw())?),
        Format::Vhdx => Arc::new(Mapped::new(Arc::new(Vhdx::open(file, options)?))),
        Format::Vhd => Arc::new(Mapped::new(Arc::new(Vhd::open(file, options)?))),
        Format::Qcow2 => Arc::new(Mapped::new(Arc::new(Qcow2::open(file, options)?))),
    })
}
