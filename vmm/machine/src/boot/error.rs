//! Why a guest cannot be booted: one message each, naming the option.

use std::io;
use std::path::PathBuf;

/// Why a guest cannot be booted.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// A file cannot be opened or read.
    #[error("{option} {}: {source}", path.display())]
    File {
        /// `--kernel` or `--initrd`.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A directory, socket, or device was named.
    #[error("{option} {}: not a regular file", path.display())]
    NotAFile {
        /// `--kernel` or `--initrd`.
        option: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// Zero bytes.
    #[error("{option} {}: the file is empty", path.display())]
    Empty {
        /// `--kernel` or `--initrd`.
        option: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// Neither bzImage nor ELF.
    #[error("--kernel {}: not a Linux kernel (neither a bzImage nor an ELF vmlinux)", path.display())]
    NotAKernel {
        /// The file.
        path: PathBuf,
    },
    /// A kernel of another kind.
    #[error("--kernel {}: {what}; SynthVM boots 64-bit x86 kernels", path.display())]
    WrongKernel {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: String,
    },
    /// The headers promise more bytes than the file has.
    #[error("--kernel {}: truncated: its header promises {promised} bytes, the file has {actual}", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Bytes that must be there.
        promised: u64,
        /// Bytes that are.
        actual: u64,
    },
    /// An ELF file that the loader refuses.
    #[error("--kernel {}: damaged ELF file: {why}", path.display())]
    BadElf {
        /// The file.
        path: PathBuf,
        /// The loader's words.
        why: String,
    },
    /// No room for the kernel.
    #[error("--memory: {} MiB is too small for this kernel, which needs RAM up to {} MiB to unpack itself", ram >> 20, needed.div_ceil(1 << 20))]
    MemoryForKernel {
        /// Bytes of low RAM.
        ram: u64,
        /// End of what the kernel needs.
        needed: u64,
    },
    /// No room for the initrd.
    #[error("--memory: {} MiB is too small for the kernel and its initrd of {} MiB together; give at least {} MiB", ram >> 20, initrd.div_ceil(1 << 20), needed.div_ceil(1 << 20))]
    MemoryForInitrd {
        /// Bytes of low RAM.
        ram: u64,
        /// Bytes of initrd.
        initrd: u64,
        /// Bytes needed.
        needed: u64,
    },
    /// The kernel's limit.
    #[error("--cmdline: {len} bytes, this kernel takes at most {limit}")]
    CmdlineTooLong {
        /// Bytes given.
        len: usize,
        /// Bytes allowed, without the closing NUL.
        limit: usize,
    },
    /// A NUL byte would cut it.
    #[error("--cmdline: contains a NUL byte")]
    CmdlineNul,
    /// Guest memory refused a write. Cannot happen with a layout that was checked.
    #[error("loading the guest: {0}")]
    Memory(#[from] vm_memory::GuestMemoryError),
}
