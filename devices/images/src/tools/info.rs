//! Facts about an image.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::ToolError;
use crate::file::ImageFile;
use crate::file::lock;
use crate::mapped::Map;
use crate::open::open_as;
use crate::vhd::Vhd;
use crate::vhdx::{Report, Vhdx};
use crate::{Format, OpenOptions, Parents};

/// Facts about an image. Sizes are in bytes.
#[derive(Clone, Debug, Serialize)]
pub struct ImageInfo {
    /// Its path.
    pub path: PathBuf,
    /// Its format.
    pub format: Format,
    /// The disk's size.
    pub virtual_size: u64,
    /// The file's length.
    pub file_size: u64,
    /// The space that the file occupies.
    pub allocated_size: u64,
    /// The size of a sector, as the guest sees it.
    pub sector_size: u32,
    /// The unit in which the image is written best.
    pub physical_sector_size: u32,
    /// Whether all of its space was allocated when it was created. `None`: the format has no such
    /// property.
    pub fixed: Option<bool>,
    /// The size of a block.
    pub block_size: Option<u64>,
    /// The number of blocks of the disk, and the number of blocks that are in this file.
    pub blocks: Option<(u64, u64)>,
    /// Bytes of the file that are not used.
    pub unused: Option<u64>,
    /// The id of the disk.
    pub disk_id: Option<String>,
    /// The id of the disk's state, which children name.
    pub data_id: Option<String>,
    /// Entries of the log that must be replayed.
    pub log_entries: Option<usize>,
    /// The parent of the image.
    pub parent: Option<Box<ImageInfo>>,
}

/// Returns facts about the image at `path`, and about its `parents`, without changing anything.
///
/// # Errors
/// [`ToolError`]: the image cannot be opened.
pub fn info(path: &Path, format: Option<Format>, parents: Parents) -> Result<ImageInfo, ToolError> {
    let options = OpenOptions { parents, ..OpenOptions::reading(format) };
    let read = ToolError::file("read", path);
    let file = lock(path, true)?;
    match options.format_of(&file)? {
        Format::Vhdx => Ok(of_vhdx(Vhdx::open(&file, &options)?.report().map_err(read)?)),
        Format::Vhd => {
            let vhd = Vhd::open(&file, &options)?;
            let mut info = plain(path, Format::Vhd, vhd.file(), &vhd.geometry()).map_err(read)?;
            info.fixed = Some(vhd.is_fixed());
            info.block_size = vhd.block_size();
            info.disk_id = Some(vhd.id().to_string());
            Ok(info)
        }
        format @ (Format::Raw | Format::Qcow2) => {
            let metadata = file.metadata().clone();
            let image = open_as(&file, format, &options)?;
            let mut info = of_geometry(path, format, &image.geometry());
            info.file_size = if metadata.is_file() { metadata.len() } else { info.virtual_size };
            info.allocated_size = std::os::unix::fs::MetadataExt::blocks(&metadata) * 512;
            Ok(info)
        }
    }
}

fn plain(
    path: &Path,
    format: Format,
    file: &ImageFile,
    geometry: &synthvm_block::Geometry,
) -> std::io::Result<ImageInfo> {
    let mut info = of_geometry(path, format, geometry);
    info.file_size = file.len()?;
    info.allocated_size = file.allocated()?;
    Ok(info)
}

fn of_geometry(path: &Path, format: Format, geometry: &synthvm_block::Geometry) -> ImageInfo {
    ImageInfo {
        path: path.to_owned(),
        format,
        virtual_size: geometry.capacity,
        file_size: 0,
        allocated_size: 0,
        sector_size: geometry.block_size.bytes(),
        physical_sector_size: geometry.physical_block_size,
        fixed: None,
        block_size: None,
        blocks: None,
        unused: None,
        disk_id: None,
        data_id: None,
        log_entries: None,
        parent: None,
    }
}

fn of_vhdx(report: Report) -> ImageInfo {
    ImageInfo {
        path: report.path,
        format: Format::Vhdx,
        virtual_size: report.capacity,
        file_size: report.file_size,
        allocated_size: report.allocated,
        sector_size: report.sector,
        physical_sector_size: report.physical_sector,
        fixed: Some(report.fixed),
        block_size: Some(report.block_size),
        blocks: Some((report.blocks, report.present)),
        unused: Some(report.unused),
        disk_id: Some(report.disk_id.to_string()),
        data_id: Some(report.data_id.to_string()),
        log_entries: Some(report.log_entries),
        parent: report.parent.map(|parent| Box::new(of_vhdx(*parent))),
    }
}

impl fmt::Display for ImageInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.fixed {
            Some(true) => ", fixed",
            Some(false) => ", dynamic",
            None => "",
        };
        writeln!(f, "image:        {}", self.path.display())?;
        writeln!(f, "format:       {}{kind}", self.format)?;
        writeln!(f, "disk size:    {}", Size(self.virtual_size))?;
        writeln!(
            f,
            "file size:    {}, {} allocated",
            Size(self.file_size),
            Size(self.allocated_size)
        )?;
        writeln!(
            f,
            "sector size:  {} bytes, {} physical",
            self.sector_size, self.physical_sector_size
        )?;
        if let Some(size) = self.block_size {
            write!(f, "block size:   {}", Size(size))?;
            if let Some((all, present)) = self.blocks {
                write!(f, ", {present} of {all} blocks present")?;
            }
            writeln!(f)?;
        }
        if let Some(unused) = self.unused {
            writeln!(f, "unused:       {}", Size(unused))?;
        }
        if let Some(id) = &self.disk_id {
            writeln!(f, "disk id:      {id}")?;
        }
        if let Some(id) = &self.data_id {
            writeln!(f, "content id:   {id}")?;
        }
        match self.log_entries {
            Some(0) => writeln!(f, "log:          empty")?,
            Some(entries) => {
                writeln!(f, "log:          {entries} entries to replay: it was not closed")?;
            }
            None => {}
        }
        if let Some(parent) = &self.parent {
            writeln!(f, "\nwhich differs from")?;
            write!(f, "{parent}")?;
        }
        Ok(())
    }
}

/// A number of bytes in a form for people.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
        match units.into_iter().find(|(_, shift)| self.0 >> shift != 0) {
            Some((unit, shift)) if self.0.trailing_zeros() >= shift => {
                write!(f, "{} {unit}", self.0 >> shift)
            }
            Some((unit, shift)) => {
                write!(f, "{:.1} {unit}", self.0 as f64 / (1_u64 << shift) as f64)
            }
            None => write!(f, "{} bytes", self.0),
        }
    }
}
