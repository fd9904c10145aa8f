//! The files of a machine that firmware starts: opened and checked once.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use synthvm_firmware::{Content, FirmwareImage, MAX_OPTION_ROM_BYTES, OptionRom};

use super::FirmwareError;
use crate::options::FirmwareConfig;

/// The files of a machine that firmware starts. The variables file is not one of them: it is opened
/// when the machine is built, which may create it.
#[derive(Debug)]
pub struct FirmwareSource {
    pub(super) image: FirmwareImage,
    pub(super) option_rom: Option<OptionRom>,
    pub(super) kernel: Option<Content>,
    pub(super) initrd: Option<Content>,
    pub(super) cmdline: String,
}

impl FirmwareSource {
    /// Opens the files and checks them. Nothing is created or changed.
    ///
    /// # Errors
    /// [`FirmwareError`]: the file at fault, and the cause.
    pub fn open(
        firmware: &FirmwareConfig,
        kernel: Option<&Path>,
        initrd: Option<&Path>,
        cmdline: &str,
    ) -> Result<FirmwareSource, FirmwareError> {
        Ok(FirmwareSource {
            image: FirmwareImage::open(&firmware.image, firmware.template.as_deref())?,
            option_rom: firmware.option_rom.as_deref().map(open_option_rom).transpose()?,
            kernel: kernel.map(open_content).transpose()?,
            initrd: initrd.map(open_content).transpose()?,
            cmdline: cmdline.to_owned(),
        })
    }
}

/// Opens and checks an option ROM.
pub(super) fn open_option_rom(path: &Path) -> Result<OptionRom, FirmwareError> {
    let read = || {
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        let mut bytes = Vec::new();
        file.take(MAX_OPTION_ROM_BYTES as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let failed = |source| FirmwareError::ReadOptionRom { path: path.to_owned(), source };
    OptionRom::new(read().map_err(failed)?)
        .map_err(|source| FirmwareError::OptionRom { path: path.to_owned(), source })
}

fn open_content(path: &Path) -> Result<Content, FirmwareError> {
    let open = || {
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        let metadata = file.metadata()?;
        match metadata.is_file() {
            true => Ok(Content::File { len: metadata.len(), file: Arc::new(file) }),
            false => Err(std::io::Error::other("not a regular file")),
        }
    };
    open().map_err(|source| FirmwareError::BootFile { path: path.to_owned(), source })
}
