//! New images.

use std::path::{Path, PathBuf};

use synthvm_block::BlockSize;

use super::ToolError;
use super::partial::Partial;
use crate::file::lock;
use crate::open::open_as;
use crate::vhdx::Make;
use crate::{Format, OpenOptions, qcow2, vhd, vhdx};

/// Largest VHD: the limit of its geometry, and of other programs.
const MAX_VHD: u64 = 2040 << 30;
/// Largest VHDX.
const MAX_VHDX: u64 = 64 << 40;

/// Options of [`create`].
#[derive(Clone, Debug)]
pub struct CreateOptions {
    /// The format of the image.
    pub format: Format,
    /// Bytes of the disk, in whole sectors. `None`: the parent's size.
    pub size: Option<u64>,
    /// Whether all of its space is allocated immediately. It always is for VHD.
    pub fixed: bool,
    /// Bytes of a block (VHDX: a power of two from 1 MiB to 256 MiB) or cluster (qcow2: 512 bytes
    /// to 2 MiB). `None`: a default that suits the format.
    pub block_size: Option<u64>,
    /// Bytes of a sector as the guest sees it: 512, or, for VHDX only, 4096. `None`: the parent's
    /// size, or 512.
    pub sector_size: Option<u32>,
    /// The parent: VHDX for a VHDX, qcow2 or raw for a qcow2.
    pub parent: Option<PathBuf>,
}

impl CreateOptions {
    /// Returns the options for an image of `format` with a disk of `size` bytes. Its file grows as
    /// the disk fills.
    pub fn new(format: Format, size: u64) -> Self {
        Self {
            format,
            size: Some(size),
            fixed: false,
            block_size: None,
            sector_size: None,
            parent: None,
        }
    }

    /// Returns the options for a differencing image of `format` over `parent`, with a disk of the
    /// parent's size.
    pub fn child(format: Format, parent: PathBuf) -> Self {
        Self { size: None, parent: Some(parent), ..Self::new(format, 0) }
    }

    /// Sets the bytes of a block or cluster.
    #[must_use]
    pub fn with_block_size(self, bytes: u64) -> Self {
        Self { block_size: Some(bytes), ..self }
    }
}

/// Creates an image at `path`. It appears complete, or not at all.
///
/// # Errors
/// [`ToolError`]: the flaw, the option at fault, the remedy.
pub fn create(path: &Path, options: &CreateOptions) -> Result<(), ToolError> {
    let partial = Partial::begin(path).map_err(ToolError::file("create", path))?;
    make(&partial, path, options)?;
    partial.finish().map_err(ToolError::file("create", path))
}

/// Creates an image in `partial` that will become `path`.
pub(super) fn make(
    partial: &Partial,
    path: &Path,
    options: &CreateOptions,
) -> Result<(), ToolError> {
    check(options)?;
    let create = ToolError::file("create", path);
    match options.format {
        Format::Raw => {
            let size = required_size(options)?;
            if options.fixed { allocate(partial, size) } else { partial.file().set_len(size) }
                .map_err(create)
        }
        Format::Vhd => {
            vhd::make(partial.file(), required_size(options)?, !options.fixed).map_err(create)
        }
        Format::Vhdx => vhdx::make(partial.file(), &vhdx_make(path, options)?).map_err(create),
        Format::Qcow2 => {
            let (size, backing) = qcow2_backing(path, options)?;
            let cluster = qcow2_cluster(size, options)?;
            qcow2::make(partial.file(), size, cluster, backing.as_ref()).map_err(create)
        }
    }
}

fn check(options: &CreateOptions) -> Result<(), ToolError> {
    let sector = options.sector_size.unwrap_or(512);
    if !matches!(sector, 512 | 4096) || sector == 4096 && options.format != Format::Vhdx {
        return Err(ToolError::option(
            "--sector-size",
            format!("{sector} bytes is not supported; use 512, or 4096 with --format vhdx"),
        ));
    }
    if let Some(size) = options.size {
        let limit = match options.format {
            Format::Vhdx => MAX_VHDX,
            Format::Vhd => MAX_VHD,
            Format::Raw | Format::Qcow2 => 1 << 62,
        };
        if size == 0 || !size.is_multiple_of(sector.into()) {
            return Err(ToolError::option(
                "--size",
                format!(
                    "{size} bytes is not valid: a disk consists of whole sectors of {sector} \
                    bytes, at least one"
                ),
            ));
        }
        if size > limit {
            let format = options.format;
            return Err(ToolError::option(
                "--size",
                format!("{size} bytes are more than the {limit} that a {format} image can have"),
            ));
        }
    }
    let format = options.format;
    match (format, options.block_size) {
        (_, None) => {}
        (Format::Vhdx, Some(size))
            if size.is_power_of_two() && (1 << 20..=256 << 20).contains(&size) => {}
        (Format::Qcow2, Some(size))
            if size.is_power_of_two() && (512..=2 << 20).contains(&size) => {}
        (Format::Vhdx, Some(size)) => {
            return Err(ToolError::option(
                "--block-size",
                format!("{size} bytes is not valid; VHDX has powers of two from 1 MiB to 256 MiB"),
            ));
        }
        (Format::Qcow2, Some(size)) => {
            return Err(ToolError::option(
                "--block-size",
                format!(
                    "{size} bytes is not valid; qcow2 has powers of two from 512 bytes to 2 MiB"
                ),
            ));
        }
        (Format::Raw | Format::Vhd, Some(_)) => {
            return Err(ToolError::option(
                "--block-size",
                format!("a {format} image as made here has no blocks; leave it out"),
            ));
        }
    }
    if options.parent.is_some() && matches!(format, Format::Raw | Format::Vhd) {
        return Err(ToolError::option(
            "--parent",
            format!("a {format} image has no parent; use --format vhdx or qcow2"),
        ));
    }
    if options.fixed && (options.parent.is_some() || format == Format::Qcow2) {
        return Err(ToolError::option(
            "--fixed",
            "only raw, vhd and vhdx images without a parent can be fixed; leave it out",
        ));
    }
    Ok(())
}

fn required_size(options: &CreateOptions) -> Result<u64, ToolError> {
    options.size.ok_or_else(|| ToolError::option("--size", "is needed unless there is a parent"))
}

fn vhdx_make(path: &Path, options: &CreateOptions) -> Result<Make, ToolError> {
    let parent = match &options.parent {
        Some(parent) => Some(vhdx::Parent::open(parent, path)?),
        None => None,
    };
    let sector = match (options.sector_size, &parent) {
        (Some(4096), _) => BlockSize::B4096,
        (Some(_), _) | (None, None) => BlockSize::B512,
        (None, Some(parent)) => parent.sector,
    };
    let capacity = match &parent {
        Some(parent) if options.size.is_some_and(|size| size != parent.capacity) => {
            return Err(ToolError::option(
                "--size",
                format!(
                    "a differencing VHDX has its parent's size ({} bytes); leave it out",
                    parent.capacity
                ),
            ));
        }
        Some(parent) if sector != parent.sector => {
            return Err(ToolError::option(
                "--sector-size",
                format!("the parent has sectors of {} bytes; leave it out", parent.sector.bytes()),
            ));
        }
        Some(parent) => parent.capacity,
        None => required_size(options)?,
    };
    // The sizes that Windows accepts.
    let block_size =
        options.block_size.unwrap_or(if parent.is_some() { 2 << 20 } else { 32 << 20 });
    Ok(Make { capacity, block_size, sector, fixed: options.fixed, parent })
}

/// Returns the bytes of a cluster, large enough that the tables of a disk of `size` bytes stay
/// small.
fn qcow2_cluster(size: u64, options: &CreateOptions) -> Result<u64, ToolError> {
    let cluster = options.block_size.unwrap_or(64 << 10);
    if qcow2::l1_bytes(size, cluster) <= qcow2::MAX_L1_BYTES {
        return Ok(cluster);
    }
    Err(ToolError::option(
        "--size",
        format!(
            "{size} bytes are too many for clusters of {cluster} bytes; choose larger ones with \
            --block-size"
        ),
    ))
}

/// Returns the size, and the name and format of the backing file.
fn qcow2_backing(
    path: &Path,
    options: &CreateOptions,
) -> Result<(u64, Option<(String, String)>), ToolError> {
    let Some(parent) = &options.parent else { return Ok((required_size(options)?, None)) };
    let open_options = OpenOptions::reading(None);
    let file = lock(parent, true)?;
    let format = open_options.format_of(&file)?;
    if !matches!(format, Format::Raw | Format::Qcow2) {
        return Err(ToolError::option(
            "--parent",
            format!("a qcow2 image cannot have a {format} parent; convert that first"),
        ));
    }
    let capacity = open_as(&file, format, &open_options)?.geometry().capacity;
    let same_folder = parent.parent() == path.parent();
    let name = if same_folder {
        parent.file_name().map(PathBuf::from).unwrap_or_default()
    } else {
        parent.canonicalize().map_err(ToolError::file("find", parent))?
    };
    let name = name.into_os_string().into_string().map_err(|_| {
        ToolError::option(
            "--parent",
            "its name is not UTF-8, and qcow2 can keep no other; rename it",
        )
    })?;
    Ok((options.size.unwrap_or(capacity), Some((name, format.name().to_owned()))))
}

fn allocate(partial: &Partial, size: u64) -> std::io::Result<()> {
    use std::os::fd::AsRawFd;
    let length =
        libc::off_t::try_from(size).map_err(|_| std::io::Error::from_raw_os_error(libc::EFBIG))?;
    // SAFETY: plain integers; the descriptor is open while `partial` lives.
    match unsafe { libc::posix_fallocate(partial.file().as_raw_fd(), 0, length) } {
        0 => Ok(()),
        libc::EOPNOTSUPP | libc::EINVAL => partial.file().set_len(size),
        code => Err(std::io::Error::from_raw_os_error(code)),
    }
}
