//! A firmware image: volumes, files and sections, walked to the SEC core (spec firmware-windows
//! section A1).
//!
//! Every step of the walk moves forward by at least one header, inside the range of the structure
//! around it; so a walk ends, and reads nothing outside the image.

mod executable;
mod flat;
#[cfg(test)]
mod tests;

use crate::fields::{le16, le24, le32, le64};
use crate::placement::Placement;

pub use flat::wrap_flat;

/// The sizes of images that the firmware's project builds.
const SIZES: [usize; 2] = [6 << 20, 8 << 20];
/// Volumes start at a multiple of the image's block size.
const BLOCK: usize = 0x1000;
const VOLUME_SIGNATURE: u32 = u32::from_le_bytes(*b"_FVH");
const VOLUME_HEADER: usize = 56;
const FILE_HEADER: usize = 24;
/// Of a file with a 64-bit size.
const LARGE_FILE_HEADER: usize = 32;
const LARGE_FILE: u8 = 1;
const SECURITY_CORE: u8 = 3;
const SECTION_HEADER: usize = 4;
/// Of a section with a 32-bit size.
const LARGE_SECTION_HEADER: usize = 8;
const LARGE_SIZE: u32 = 0xFF_FFFF;
const SECTION_PE32: u8 = 0x10;
const SECTION_TE: u8 = 0x12;

/// An image that was checked: its size is one of the two that exist, and it has a SEC core.
#[derive(Clone, PartialEq, Eq)]
pub struct FirmwareImage {
    bytes: Vec<u8>,
    entry: u64,
    sec_volume: u64,
}

/// The reason that a file is no image of this firmware. The caller names the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// Neither 6 nor 8 MiB.
    #[error(
        "has {0} bytes; an MSVM.fd has 6291456 (6 MiB), or 8388608 in a GCC debug build. Use \
        FV/MSVM.fd from a release of mu_msvm; OVMF images are started with --firmware PATH"
    )]
    Size(u64),
    /// No firmware volume.
    #[error("has no firmware volume; use FV/MSVM.fd from a release of mu_msvm")]
    NoVolume,
    /// No volume with a SEC core.
    #[error(
        "has firmware volumes but no SEC core for a 64-bit PC; use FV/MSVM.fd of the X64 release \
        of mu_msvm"
    )]
    NoSecCore,
}

impl std::fmt::Debug for FirmwareImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FirmwareImage")
            .field("len", &self.bytes.len())
            .field("entry", &self.entry)
            .field("sec_volume", &self.sec_volume)
            .finish()
    }
}

impl FirmwareImage {
    /// The largest image in bytes. A caller reads one byte more than this at most.
    pub const MAX_BYTES: u64 = 8 << 20;

    /// Checks an image.
    ///
    /// # Errors
    /// [`ImageError`].
    pub fn new(bytes: Vec<u8>) -> Result<FirmwareImage, ImageError> {
        if !SIZES.contains(&bytes.len()) {
            return Err(ImageError::Size(bytes.len() as u64));
        }
        let (sec_volume, entry) = find_sec_core(&bytes)?;
        Ok(FirmwareImage { entry: entry as u64, sec_volume: sec_volume as u64, bytes })
    }

    /// Returns the image.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the offset of the SEC core's first instruction.
    #[must_use]
    pub fn entry(&self) -> u64 {
        self.entry
    }

    /// Returns the offset of the volume that has the SEC core.
    #[must_use]
    pub fn sec_volume(&self) -> u64 {
        self.sec_volume
    }

    /// Returns the addresses of the image and of what is loaded with it.
    #[must_use]
    pub fn placement(&self) -> Placement {
        Placement::new(self.bytes.len() as u64)
    }
}

/// Returns the offsets of the first volume with a SEC core and of its first instruction.
fn find_sec_core(image: &[u8]) -> Result<(usize, usize), ImageError> {
    let mut error = ImageError::NoVolume;
    let mut at = 0;
    while at < image.len() {
        let Some((header, len)) = volume(&image[at..]) else {
            at += BLOCK;
            continue;
        };
        error = ImageError::NoSecCore;
        if let Some(entry) = sec_core_entry(&image[at..at + len], header) {
            return Ok((at, at + entry));
        }
        at = (at + len).next_multiple_of(BLOCK);
    }
    Err(error)
}

/// Returns the lengths of the header and of all of the volume at the start of `bytes`, if there is
/// one.
fn volume(bytes: &[u8]) -> Option<(usize, usize)> {
    let is_volume = le32(bytes, 40)? == VOLUME_SIGNATURE;
    let len = usize::try_from(le64(bytes, 32)?).ok()?;
    let header = usize::from(le16(bytes, 48)?);
    let is_sound = header >= VOLUME_HEADER && header <= len && len <= bytes.len();
    (is_volume && is_sound).then_some((header, len))
}

/// Returns the offset of the SEC core's first instruction in `volume`.
fn sec_core_entry(volume: &[u8], header: usize) -> Option<usize> {
    let mut at = header.next_multiple_of(8);
    loop {
        let file = volume.get(at..)?;
        let is_large = file.get(19)? & LARGE_FILE != 0;
        let (header, len) = match is_large {
            true => (LARGE_FILE_HEADER, usize::try_from(le64(file, 24)?).ok()?),
            false => (FILE_HEADER, le24(file, 20)? as usize),
        };
        // Also the end of the volume's files: free space is FFh, with a length beyond the volume.
        let content = file.get(header..len)?;
        if file[18] == SECURITY_CORE
            && let Some(entry) = section_entry(content)
        {
            return Some(at + header + entry);
        }
        at = at.checked_add(len)?.next_multiple_of(8);
    }
}

/// Returns the offset of the first instruction of the executable among a file's sections.
fn section_entry(sections: &[u8]) -> Option<usize> {
    let mut at = 0_usize;
    loop {
        let section = sections.get(at..)?;
        let (header, len) = match le24(section, 0)? {
            LARGE_SIZE => (LARGE_SECTION_HEADER, usize::try_from(le32(section, 4)?).ok()?),
            len => (SECTION_HEADER, len as usize),
        };
        let content = section.get(header..len)?;
        let entry = match section[3] {
            SECTION_PE32 => executable::pe_entry(content),
            SECTION_TE => executable::te_entry(content),
            _ => None,
        };
        if let Some(entry) = entry {
            return Some(at + header + entry);
        }
        at = at.checked_add(len)?.next_multiple_of(4);
    }
}
