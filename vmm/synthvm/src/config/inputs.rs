//! Checks of the files that a configuration names, before anything is created.

use std::fmt;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use synthvm_block::BlockSize;
use synthvm_images::Format;
use synthvm_machine::{OnNoBootDevice, unix_socket};

use super::{DiskConfig, DiskSource, SerialConfig, VmConfig, profile};

/// An unusable file: the option at fault, the file, the cause, and the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputError {
    option: &'static str,
    path: PathBuf,
    message: String,
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--{} {}: {}", self.option, self.path.display(), self.message)
    }
}

impl std::error::Error for InputError {}

impl VmConfig {
    /// Opens every input file with its later access mode, checks its kind and size, and closes it.
    /// Checks that output files can be created. Writes and creates nothing. The loader checks the
    /// content of a kernel.
    ///
    /// # Errors
    /// Returns an error for the first file that is absent, unreadable, empty, of the wrong kind or
    /// of an invalid size.
    pub fn check_inputs(&self) -> Result<(), InputError> {
        if let Some(kernel) = &self.kernel {
            check_image("kernel", kernel, "give a bzImage or an ELF vmlinux")?;
        }
        self.check_firmware()?;
        if let Some(initrd) = &self.initrd {
            check_image("initrd", initrd, "give a cpio archive, or leave --initrd out")?;
        }
        let mut seen: Vec<((u64, u64), bool, &Path)> = Vec::new();
        let images = self.disks.iter().filter(|disk| matches!(disk.source(), DiskSource::Image(_)));
        for (index, disk) in images.clone().enumerate() {
            if disk.is_new() {
                check_new(disk).map_err(|message| fail("disk", &disk.path, message))?;
                if images.clone().take(index).any(|other| other.path == disk.path) {
                    let message = "is the image of another disk; name another file".to_owned();
                    return Err(fail("disk", &disk.path, message));
                }
                continue;
            }
            let identity = check_disk(disk).map_err(|message| fail("disk", &disk.path, message))?;
            // Two disks may share an image only if both are read-only.
            let twice = seen
                .iter()
                .find(|(other, readonly, _)| *other == identity && !(*readonly && disk.readonly));
            if let Some((_, _, path)) = twice {
                let message = format!(
                    "is the same image as {}; make both readonly=on, or copy it",
                    path.display()
                );
                return Err(fail("disk", &disk.path, message));
            }
            seen.push((identity, disk.readonly, &disk.path));
        }
        for dvd in &self.dvds {
            let Some(path) = dvd.path.as_deref() else { continue };
            let is_install = dvd.id.as_deref() == Some(profile::INSTALL_ID);
            let option = if is_install { "install" } else { "dvd" };
            check_disc(path).map_err(|message| fail(option, path, message))?;
        }
        check_port("serial", &self.serial)?;
        check_port("serial2", &self.serial2)?;
        match &self.vsock {
            Some(vsock) => check_port("vsock", &SerialConfig::Socket(vsock.socket.clone())),
            None => Ok(()),
        }
    }
}

impl VmConfig {
    /// Checks that firmware exists; its content is checked by the machine.
    fn check_firmware(&self) -> Result<(), InputError> {
        let Some(firmware) = &self.firmware else { return Ok(()) };
        if let Some(image) = &firmware.msvm {
            let advice = "give FV/MSVM.fd of a release of mu_msvm (docs/firmware.md)";
            return check_image("firmware msvm", image, advice);
        }
        let Some(image) = firmware.image() else {
            let message = "is not installed; install the package ovmf (Debian, Ubuntu) or \
                           edk2-ovmf, fetch it by `cargo xtask firmware`, or give --firmware FILE";
            return Err(fail("firmware", Path::new("ovmf"), message.into()));
        };
        let reports = self.on_no_boot_device == OnNoBootDevice::Exit;
        let has_disks = !self.disks.is_empty() || !self.dvds.is_empty();
        if firmware.ovmf && has_disks && self.kernel.is_none() && firmware.option_rom().is_none() {
            let message = "cannot read disks without the driver for VMBus, which is not \
                           installed; build it by `cargo xtask firmware`, or give \
                           option-rom=FILE";
            return Err(fail("firmware", Path::new("ovmf"), message.into()));
        }
        if firmware.ovmf && reports && firmware.option_rom().is_none() {
            let message = "cannot report that there is no system to boot without the driver for \
                           VMBus, which is not installed; build it by `cargo xtask firmware`, or \
                           give option-rom=FILE";
            return Err(fail("firmware", Path::new("ovmf"), message.into()));
        }
        check_image("firmware", &image, "give an image of OVMF, such as OVMF_CODE_4M.fd")?;
        if let Some(rom) = &firmware.option_rom {
            check_image("firmware option-rom", rom, "give an option ROM, or leave it out")?;
        }
        let vars = self.firmware_vars.as_ref();
        if let Some(template) = vars.and_then(|vars| vars.template.as_deref()) {
            let advice = "give a variables file of this firmware, such as OVMF_VARS_4M.fd";
            check_image("firmware-vars template", template, advice)?;
        }
        Ok(())
    }
}

fn fail(option: &'static str, path: &Path, message: String) -> InputError {
    InputError { option, path: path.to_owned(), message }
}

fn check_image(option: &'static str, path: &Path, advice: &str) -> Result<(), InputError> {
    let refuse = |message: String| Err(fail(option, path, message));
    let metadata = match open(path, false).and_then(|file| file.metadata()) {
        Ok(metadata) => metadata,
        Err(error) => return refuse(format!("cannot open: {error}; {advice}")),
    };
    match kind(&metadata) {
        Kind::File if metadata.len() == 0 => refuse(format!("is empty; {advice}")),
        Kind::File => Ok(()),
        Kind::BlockDevice => refuse(format!("is a block device, not a file; {advice}")),
        Kind::Other(name) => refuse(format!("is {name}, not a file; {advice}")),
    }
}

fn check_port(option: &'static str, port: &SerialConfig) -> Result<(), InputError> {
    let path = match port {
        SerialConfig::Null | SerialConfig::Stdio => return Ok(()),
        SerialConfig::File(path) | SerialConfig::Socket(path) => path,
    };
    check_folder(path).map_err(|message| fail(option, path, message))?;
    if let SerialConfig::Socket(_) = port {
        return unix_socket::check(path).map_err(|message| fail(option, path, message));
    }
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => {
            Err(fail(option, path, "is a directory; name a file in it".to_owned()))
        }
        _ => Ok(()),
    }
}

/// Checks that the folder of a new file exists.
fn check_folder(path: &Path) -> Result<(), String> {
    let parent =
        path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match parent.is_dir() {
        true => Ok(()),
        false => Err(format!("there is no directory {}; make it first", parent.display())),
    }
}

/// Checks that the image of a disk can be created.
fn check_new(disk: &DiskConfig) -> Result<(), String> {
    if disk.new_format().is_none() {
        return Err("its name implies no format; add format=raw, vhdx, vhd or qcow2".into());
    }
    check_folder(&disk.path)
}

/// Checks a disk and returns the identity of its image: device and inode, or the block device's
/// number.
fn check_disk(disk: &DiskConfig) -> Result<(u64, u64), String> {
    // The kind is checked before the image is opened for writing: the error for a directory would
    // be misleading.
    let metadata = std::fs::metadata(&disk.path).map_err(|error| cannot_open(disk, &error))?;
    if let Kind::Other(name) = kind(&metadata) {
        return Err(format!("is {name}, not a file or a block device"));
    }
    let mut file = open(&disk.path, !disk.readonly).map_err(|error| cannot_open(disk, &error))?;
    let size =
        file.seek(SeekFrom::End(0)).map_err(|error| format!("cannot tell its size: {error}"))?;
    let block = u64::from(disk.block_size.map_or(512, BlockSize::bytes));
    if size == 0 {
        return Err(format!(
            "is empty; give it a size, for example: truncate -s 1G {}",
            disk.path.display()
        ));
    }
    let is_raw = disk.format.map_or_else(
        || Format::of_name(&disk.path).is_none_or(|format| format == Format::Raw),
        |format| format == Format::Raw,
    );
    if is_raw && !size.is_multiple_of(block) {
        let whole = size.next_multiple_of(block);
        return Err(format!(
            "has {size} bytes, which is not a multiple of {block}; is it a raw image? If so: \
            truncate -s {whole} {}",
            disk.path.display()
        ));
    }
    Ok(match kind(&metadata) {
        Kind::BlockDevice => (0, metadata.rdev()),
        Kind::File | Kind::Other(_) => (metadata.dev(), metadata.ino()),
    })
}

fn check_disc(path: &Path) -> Result<(), String> {
    let advice = "give an ISO image, or a drive without a path";
    let cannot = |error: io::Error| format!("cannot open: {error}; {advice}");
    if let Kind::Other(name) = kind(&std::fs::metadata(path).map_err(cannot)?) {
        return Err(format!("is {name}; {advice}"));
    }
    let size =
        open(path, false).and_then(|mut file| file.seek(SeekFrom::End(0))).map_err(cannot)?;
    if size == 0 { Err(format!("is empty; {advice}")) } else { Ok(()) }
}

fn cannot_open(disk: &DiskConfig, error: &io::Error) -> String {
    let advice = match error.kind() {
        io::ErrorKind::NotFound => {
            format!("; create one with: truncate -s 1G {}", disk.path.display())
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem if !disk.readonly => {
            "; if the guest need not write, add readonly=on".to_owned()
        }
        _ => String::new(),
    };
    format!("cannot open: {error}{advice}")
}

/// Opens a file without waiting: a FIFO without a writer must be detected.
fn open(path: &Path, write: bool) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(write)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)
}

enum Kind {
    File,
    BlockDevice,
    Other(&'static str),
}

fn kind(metadata: &Metadata) -> Kind {
    let file_type = metadata.file_type();
    if file_type.is_file() {
        Kind::File
    } else if file_type.is_block_device() {
        Kind::BlockDevice
    } else if file_type.is_dir() {
        Kind::Other("a directory")
    } else if file_type.is_char_device() {
        Kind::Other("a character device")
    } else if file_type.is_fifo() {
        Kind::Other("a pipe")
    } else {
        Kind::Other("a socket")
    }
}
