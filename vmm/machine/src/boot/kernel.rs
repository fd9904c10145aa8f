//! The kernel image: its format, its validity, and its load address.

use std::fs::File;
use std::io::{self, Seek};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use linux_loader::loader::bootparam::setup_header;
use linux_loader::loader::elf::PvhBootCapability;
use linux_loader::loader::{self, BzImage, Elf, KernelLoader};
use vm_memory::GuestAddress;

use super::{BootError, BootFile, FileProblem, place};
use crate::memory::{GuestMemory, MemoryLayout};

/// Offset of the setup header in a bzImage and in the zero page.
const SETUP_HEADER: u64 = 0x1F1;
/// End of the setup header in the newest known version. Older kernels have code there, which must
/// not be copied.
const SETUP_HEADER_END: usize = SETUP_HEADER as usize + size_of::<setup_header>();
/// The header's length counts from this offset; the byte before it holds the length.
const SETUP_HEADER_SIZE_FROM: usize = 0x202;
/// "HdrS", at 0x202.
const SETUP_MAGIC: u32 = 0x5372_6448;
/// Boot protocol 2.12: `xloadflags` and with it the 64-bit entry.
const PROTOCOL_64BIT: u16 = 0x020C;
/// `loadflags`: the protected-mode part loads at 1 MiB or above.
const LOADED_HIGH: u8 = 1;
/// `xloadflags`: there is a 64-bit entry point at 0x200.
const XLF_KERNEL_64: u16 = 1;
/// Bytes from the start of the protected-mode part to its 64-bit entry.
const ENTRY_64: u64 = 0x200;
/// Bytes of command line (with NUL) that a vmlinux accepts on x86; a bzImage has the limit in its
/// header.
const VMLINUX_CMDLINE: u32 = 2047;
/// Highest initrd address for a vmlinux; a bzImage has it in its header.
const VMLINUX_INITRD_MAX: u32 = 0x7FFF_FFFF;
/// `e_machine` of a kernel (x86-64), and of `CLOUDHV.fd`, whose entry is 32-bit code.
const MACHINES: [u16; 2] = [62, 3];
/// Bytes reserved for `.bss` and `.brk` behind a vmlinux's segments: the loader counts segments by
/// their size in the file.
const VMLINUX_SLACK: u64 = 16 << 20;

/// A kernel image, opened and checked.
#[derive(Debug)]
pub(crate) struct Kernel {
    path: PathBuf,
    file: File,
    format: Format,
}

#[derive(Debug)]
enum Format {
    BzImage(Box<setup_header>),
    Elf,
}

/// A kernel in guest memory.
#[derive(Debug)]
pub(super) struct Loaded {
    /// The setup header for the zero page.
    pub(super) header: setup_header,
    /// 64-bit entry point.
    pub(super) entry: u64,
    /// 32-bit entry point of the PVH protocol, if the kernel has one.
    pub(super) pvh_entry: Option<u32>,
    /// End of the memory that the kernel needs to unpack itself.
    pub(super) end: u64,
    /// The initrd must end at or below this address.
    pub(super) initrd_limit: u64,
}

impl Kernel {
    /// Opens `path` and checks that it is a whole 64-bit kernel.
    ///
    /// # Errors
    /// [`BootError::File`].
    pub(crate) fn open(path: &Path) -> Result<Kernel, BootError> {
        let (file, size) = open_regular(BootFile::Kernel, path)?;
        let format = match probe(&file).map_err(|error| kernel_error(path, error))? {
            Probe::Elf => {
                check_elf(path, &file, size)?;
                Format::Elf
            }
            Probe::BzImage(header) => {
                check_bzimage(path, &header, size)?;
                Format::BzImage(header)
            }
            Probe::Short => {
                let promised = SETUP_HEADER_END as u64;
                return Err(kernel_error(path, FileProblem::Truncated { promised, actual: size }));
            }
            Probe::Other => return Err(kernel_error(path, FileProblem::NotAKernel)),
        };
        Ok(Kernel { path: path.to_owned(), file, format })
    }

    /// Returns the longest command line in bytes, without its NUL.
    pub(super) fn cmdline_limit(&self) -> usize {
        let limit = match &self.format {
            Format::BzImage(header) => header.cmdline_size,
            Format::Elf => VMLINUX_CMDLINE,
        };
        // The space between the command line's address and the end of conventional memory suffices
        // for any real limit.
        (limit as usize).min((place::LOW_END - place::CMDLINE) as usize - 1)
    }

    /// Loads the kernel into guest memory.
    pub(super) fn load(
        &self,
        memory: &GuestMemory,
        layout: &MemoryLayout,
    ) -> Result<Loaded, BootError> {
        let mut file = self.file.try_clone().map_err(|error| kernel_error(&self.path, error))?;
        file.rewind().map_err(|error| kernel_error(&self.path, error))?;
        match &self.format {
            Format::BzImage(header) => self.load_bzimage(memory, layout, &mut file, header),
            Format::Elf => self.load_elf(memory, layout, &mut file),
        }
    }

    fn load_bzimage(
        &self,
        memory: &GuestMemory,
        layout: &MemoryLayout,
        file: &mut File,
        header: &setup_header,
    ) -> Result<Loaded, BootError> {
        let ram = layout.low_ram.end;
        // The kernel moves itself to its preferred address in any case: load it there directly.
        let alignment = u64::from(header.kernel_alignment).max(1);
        let start = { header.pref_address }.max(place::HIMEM).next_multiple_of(alignment);
        let payload = u64::from(header.syssize) * 16;
        let end = start.saturating_add(u64::from(header.init_size).max(payload));
        if end > ram {
            return Err(BootError::MemoryForKernel { ram, needed: end });
        }
        BzImage::load(memory, Some(GuestAddress(start)), file, None)
            .map_err(|error| kernel_error(&self.path, io::Error::other(error)))?;
        Ok(Loaded {
            header: *header,
            entry: start + ENTRY_64,
            pvh_entry: None,
            end,
            initrd_limit: u64::from(header.initrd_addr_max) + 1,
        })
    }

    fn load_elf(
        &self,
        memory: &GuestMemory,
        layout: &MemoryLayout,
        file: &mut File,
    ) -> Result<Loaded, BootError> {
        let ram = layout.low_ram.end;
        let segments = elf_segments(file).map_err(|error| kernel_error(&self.path, error))?;
        let needed = segments
            .iter()
            .map(|segment| segment.end)
            .max()
            .unwrap_or(0)
            .saturating_add(VMLINUX_SLACK);
        if needed > ram {
            return Err(BootError::MemoryForKernel { ram, needed });
        }
        let result =
            Elf::load(memory, None, file, Some(GuestAddress(place::HIMEM))).map_err(|error| {
                let why = match error {
                    loader::Error::Elf(error) => error.to_string(),
                    error => error.to_string(),
                };
                kernel_error(&self.path, FileProblem::BadElf(why))
            })?;
        let header = setup_header {
            header: SETUP_MAGIC,
            boot_flag: 0xAA55,
            version: PROTOCOL_64BIT,
            loadflags: LOADED_HIGH,
            kernel_alignment: 0x20_0000,
            cmdline_size: VMLINUX_CMDLINE,
            initrd_addr_max: VMLINUX_INITRD_MAX,
            ..Default::default()
        };
        let initrd_limit = u64::from(VMLINUX_INITRD_MAX) + 1;
        let pvh_entry = match result.pvh_boot_cap {
            PvhBootCapability::PvhEntryPresent(address) => u32::try_from(address.0).ok(),
            PvhBootCapability::PvhEntryNotPresent | PvhBootCapability::PvhEntryIgnored => None,
        };
        Ok(Loaded { header, entry: result.kernel_load.0, pvh_entry, end: needed, initrd_limit })
    }
}

/// Opens a regular, non-empty file. Returns the file and its size in bytes.
pub(super) fn open_regular(kind: BootFile, path: &Path) -> Result<(File, u64), BootError> {
    let failed = |error: io::Error| file_error(kind, path, error);
    // Opening a FIFO must not wait for a writer. The type is checked below.
    let file =
        File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(file_error(kind, path, FileProblem::NotAFile));
    }
    match metadata.size() {
        0 => Err(file_error(kind, path, FileProblem::Empty)),
        size => Ok((file, size)),
    }
}

/// Returns whether a file is an ELF file, as far as it can be read.
pub(super) fn is_elf(path: &Path) -> bool {
    let probed = open_regular(BootFile::Kernel, path).map(|(file, _)| probe(&file));
    matches!(probed, Ok(Ok(Probe::Elf)))
}

enum Probe {
    BzImage(Box<setup_header>),
    Elf,
    /// A bzImage or ELF that ends inside its header.
    Short,
    Other,
}

fn probe(file: &File) -> io::Result<Probe> {
    let mut start = [0; SETUP_HEADER_END];
    let have = read_up_to(file, &mut start, 0)?;
    let start = &start[..have];
    if start.starts_with(b"\x7FELF") {
        return Ok(if have < 64 { Probe::Short } else { Probe::Elf });
    }
    let magic = start.get(0x202..0x206).map(|magic| magic == SETUP_MAGIC.to_le_bytes());
    match magic {
        Some(true) if have < SETUP_HEADER_END => Ok(Probe::Short),
        Some(true) => {
            let mut header = setup_header::default();
            let bytes = vm_memory::ByteValued::as_mut_slice(&mut header);
            let end =
                (SETUP_HEADER_SIZE_FROM + usize::from(start[0x201])).clamp(0x206, SETUP_HEADER_END);
            let own = &start[SETUP_HEADER as usize..end];
            bytes[..own.len()].copy_from_slice(own);
            Ok(Probe::BzImage(Box::new(header)))
        }
        // A truncated bzImage may be a boot sector without its second sector.
        None if start.get(0x1FE..0x200) == Some(&[0x55, 0xAA]) => Ok(Probe::Short),
        Some(false) | None => Ok(Probe::Other),
    }
}

fn check_bzimage(path: &Path, header: &setup_header, actual: u64) -> Result<(), BootError> {
    let wrong = |what: String| Err(kernel_error(path, FileProblem::WrongKernel(what)));
    let version = header.version;
    if version < PROTOCOL_64BIT {
        return wrong(format!("a bzImage of boot protocol {}.{:02}", version >> 8, version & 0xFF));
    }
    if header.loadflags & LOADED_HIGH == 0 {
        return wrong("a zImage (loaded below 1 MiB)".to_owned());
    }
    if header.xloadflags & XLF_KERNEL_64 == 0 {
        return wrong("a 32-bit bzImage".to_owned());
    }
    let sectors = match header.setup_sects {
        0 => 4,
        sectors => u64::from(sectors),
    };
    let promised = (sectors + 1) * 512 + u64::from(header.syssize) * 16;
    // `syssize` counts whole 16-byte paragraphs; the last one in the file may be short.
    if actual + 15 < promised {
        return Err(kernel_error(path, FileProblem::Truncated { promised, actual }));
    }
    Ok(())
}

struct Segment {
    file_end: u64,
    /// End in guest memory, including `.bss`.
    end: u64,
}

fn check_elf(path: &Path, file: &File, actual: u64) -> Result<(), BootError> {
    let wrong = |what: &str| kernel_error(path, FileProblem::WrongKernel(what.to_owned()));
    let mut ident = [0; 20];
    file.read_exact_at(&mut ident, 0).map_err(|error| kernel_error(path, error))?;
    if ident[4] != 2 {
        return Err(wrong("a 32-bit ELF file"));
    }
    if ident[5] != 1 || !MACHINES.contains(&u16::from_le_bytes([ident[18], ident[19]])) {
        return Err(wrong("an ELF file for another processor"));
    }
    if u16::from_le_bytes([ident[16], ident[17]]) != 2 {
        return Err(wrong("an ELF file, but not an executable (a module or a library?)"));
    }
    let segments = match elf_segments(file) {
        Ok(segments) => segments,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            let promised = actual + 1;
            return Err(kernel_error(path, FileProblem::Truncated { promised, actual }));
        }
        Err(error) => return Err(kernel_error(path, error)),
    };
    if segments.is_empty() {
        return Err(wrong("an ELF file without loadable segments"));
    }
    let promised = segments.iter().map(|segment| segment.file_end).max().unwrap_or(0);
    if promised > actual {
        return Err(kernel_error(path, FileProblem::Truncated { promised, actual }));
    }
    Ok(())
}

/// Returns the loadable segments of a little-endian ELF64 file.
fn elf_segments(file: &File) -> io::Result<Vec<Segment>> {
    let mut header = [0; 64];
    file.read_exact_at(&mut header, 0)?;
    let u64_at = |bytes: &[u8], at: usize| {
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default())
    };
    let table = u64_at(&header, 32);
    let entry_size = u64::from(u16::from_le_bytes([header[54], header[55]]));
    let entries = u64::from(u16::from_le_bytes([header[56], header[57]]));
    let mut segments = Vec::new();
    for index in 0..entries {
        let mut entry = [0; 56];
        file.read_exact_at(&mut entry, table.saturating_add(index * entry_size))?;
        if entry[..4] == [1, 0, 0, 0] {
            segments.push(Segment {
                file_end: u64_at(&entry, 8).saturating_add(u64_at(&entry, 32)),
                end: u64_at(&entry, 24).saturating_add(u64_at(&entry, 40)),
            });
        }
    }
    Ok(segments)
}

fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut have = 0;
    while have < buffer.len() {
        match file.read_at(&mut buffer[have..], offset + have as u64) {
            Ok(0) => break,
            Ok(more) => have += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(have)
}

/// Returns the error that the file `path` of kind `file` cannot be used.
pub(super) fn file_error(
    file: BootFile,
    path: &Path,
    problem: impl Into<FileProblem>,
) -> BootError {
    BootError::File { file, path: path.to_owned(), problem: problem.into() }
}

fn kernel_error(path: &Path, problem: impl Into<FileProblem>) -> BootError {
    file_error(BootFile::Kernel, path, problem)
}

#[cfg(test)]
mod tests;
