//! Direct boot of Linux: kernel, initrd, command line, zero page and the CPU state that the 64-bit
//! entry requires (spec hypervisor-platform section 10; the kernel's own
//! `Documentation/arch/x86/boot.rst`). An ELF kernel with a PVH entry is started through that.

mod cpu;
mod error;
mod initrd;
mod kernel;
mod params;
mod pvh;

use std::path::Path;

use synthvm_msvm::EntryState;

use crate::memory::{GuestMemory, MemoryLayout};

pub(crate) use cpu::{BootMsr, apply as apply_cpu_state, boot_msrs};
pub use error::{BootError, BootFile, FileProblem};
pub(crate) use initrd::Initrd;
pub(crate) use kernel::Kernel;

/// Guest addresses below 1 MiB that the loader uses. The kernel may reuse all of them once it runs.
mod place {
    /// Global descriptor table.
    pub(super) const GDT: u64 = 0x500;
    /// Zero page (`boot_params`).
    pub(super) const ZERO_PAGE: u64 = 0x7000;
    /// Page tables: one PML4, one PDPT, four page directories.
    pub(super) const PML4: u64 = 0x9000;
    /// Command line.
    pub(super) const CMDLINE: u64 = 0x2_0000;
    /// End of conventional memory in the E820 map. Firmware keeps its data in the kilobyte above.
    pub(super) const LOW_END: u64 = 0x9_FC00;
    /// Start of RAM above the legacy hole.
    pub(super) const HIMEM: u64 = 0x10_0000;
}

/// The files of a guest: opened and checked once, loaded at each start and reset.
#[derive(Debug)]
pub struct BootSource {
    kernel: Kernel,
    initrd: Option<Initrd>,
    cmdline: String,
}

/// The entry state of the boot processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The 64-bit entry of a Linux kernel.
    Linux {
        /// Address of the first instruction.
        rip: u64,
        /// Address of the zero page, for RSI.
        zero_page: u64,
    },
    /// The PVH entry of an ELF kernel, in 32-bit mode without paging.
    Pvh {
        /// Address of the first instruction.
        eip: u32,
        /// Address of the structure that describes the machine, for EBX.
        start_info: u32,
    },
    /// The reset state: 16-bit mode, 16 bytes below 4 GiB.
    ResetVector,
    /// The SEC core of Hyper-V's generation 2 firmware, in 64-bit mode.
    Msvm(EntryState),
}

impl BootSource {
    /// Opens the files and checks everything that does not need guest memory.
    ///
    /// # Errors
    /// [`BootError`]: the field of the configuration at fault, and the cause.
    pub fn open(
        kernel: &Path,
        initrd: Option<&Path>,
        cmdline: &str,
    ) -> Result<BootSource, BootError> {
        let kernel = Kernel::open(kernel)?;
        let initrd = initrd.map(Initrd::open).transpose()?;
        let limit = kernel.cmdline_limit();
        if cmdline.len() > limit {
            return Err(BootError::CmdlineTooLong { len: cmdline.len(), limit });
        }
        if cmdline.contains('\0') {
            return Err(BootError::CmdlineNul);
        }
        Ok(BootSource { kernel, initrd, cmdline: cmdline.to_owned() })
    }

    /// Returns whether the file is an ELF file, as far as it can be read.
    pub(crate) fn is_elf(path: &Path) -> bool {
        kernel::is_elf(path)
    }

    /// Writes the kernel, the initrd, the command line and the zero page into guest memory. The
    /// caller writes the ACPI tables; the zero page holds only their address, `rsdp`.
    ///
    /// # Errors
    /// [`BootError`]; a file that changed after it was opened counts as truncated.
    pub fn load(
        &self,
        memory: &GuestMemory,
        layout: &MemoryLayout,
        rsdp: u64,
    ) -> Result<Entry, BootError> {
        let loaded = self.kernel.load(memory, layout)?;
        let initrd = match &self.initrd {
            Some(initrd) => Some(initrd.load(memory, layout, &loaded)?),
            None => None,
        };
        if let Some(eip) = loaded.pvh_entry {
            let info = pvh::write(memory, layout, initrd, &self.cmdline, rsdp)?;
            return Ok(Entry::Pvh { eip, start_info: info as u32 });
        }
        params::write(memory, layout, &loaded, initrd, &self.cmdline, rsdp)?;
        cpu::write_tables(memory)?;
        Ok(Entry::Linux { rip: loaded.entry, zero_page: place::ZERO_PAGE })
    }
}
