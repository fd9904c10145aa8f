//! The contents of entries.

use bitflags::bitflags;

/// A range of the guest's RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRange {
    /// First byte.
    pub base: u64,
    /// Number of bytes.
    pub len: u64,
}

/// A window for memory-mapped I/O, in whole pages of 4 KiB. It may be empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MmioWindow {
    /// First byte.
    pub base: u64,
    /// Number of bytes.
    pub len: u64,
}

/// Numbers of processors. Firmware stops if one of the last three is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessorCounts {
    /// Most processors that the machine may get.
    pub max: u32,
    /// Processors that are present.
    pub present: u32,
    /// Processors of a socket.
    pub per_socket: u32,
    /// Threads of a core.
    pub threads_per_core: u32,
}

bitflags! {
    /// Flags of the machine.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct ConfigFlags: u64 {
        /// COM1 and COM2 exist.
        const SERIAL = 1;
        /// A failed boot waits for a key.
        const PAUSE_AFTER_BOOT_FAILURE = 1 << 1;
        /// A TPM exists.
        const TPM = 1 << 5;
        /// The machine can hibernate.
        const HIBERNATE = 1 << 6;
        /// The console is COM1; otherwise the display.
        const CONSOLE_COM1 = 1 << 7;
        /// There is no console, together with [`ConfigFlags::CONSOLE_COM1`].
        const CONSOLE_COM2 = 1 << 8;
        /// Without a bootable device, firmware shows no menu.
        const NO_FRONT_PAGE = 1 << 14;
        /// Firmware always tries the devices in their order, without stored entries.
        const DEFAULT_BOOT_ALWAYS = 1 << 15;
        /// The watchdog table for the system.
        const WATCHDOG = 1 << 24;
        /// The memory type registers of all processors are set.
        const MTRRS_SET = 1 << 28;
        /// There is no VMBus.
        const NO_VMBUS = 1 << 30;
        /// PCI addresses are assigned.
        const PCI_ASSIGNED = 1 << 31;
        const _ = !0;
    }
}
