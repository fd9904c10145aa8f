//! Errors that stop a boot, with one message each that names the option at fault.

use std::io;
use std::path::PathBuf;

/// An error that stops a boot.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// A file cannot be opened or read.
    #[error("{option} {}: {source}", path.display())]
    File {
        /// `--kernel` or `--initrd`.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The path is a directory, a socket, or a device.
    #[error("{option} {}: not a regular file", path.display())]
    NotAFile {
        /// `--kernel` or `--initrd`.
        option: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// The file has no bytes.
    #[error("{option} {}: the file is empty", path.display())]
    Empty {
        /// `--kernel` or `--initrd`.
        option: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// The file is neither a bzImage nor an ELF file.
    #[error("--kernel {}: not a Linux kernel (neither a bzImage nor an ELF vmlinux)", path.display())]
    NotAKernel {
        /// The file.
        path: PathBuf,
    },
    /// The file is a kernel that SynthVM cannot boot.
    #[error("--kernel {}: {what}; SynthVM boots 64-bit x86 kernels", path.display())]
    WrongKernel {
        /// The file.
        path: PathBuf,
        /// The kind of kernel.
        what: String,
    },
    /// The headers declare more bytes than the file has.
    #[error("--kernel {}: truncated: its header promises {promised} bytes, the file has {actual}", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Bytes that the headers declare.
        promised: u64,
        /// Bytes in the file.
        actual: u64,
    },
    /// The loader refuses the ELF file.
    #[error("--kernel {}: damaged ELF file: {why}", path.display())]
    BadElf {
        /// The file.
        path: PathBuf,
        /// The loader's message.
        why: String,
    },
    /// RAM is too small for the kernel.
    #[error("--memory: {} MiB is too small for this kernel, which needs RAM up to {} MiB to unpack itself", ram >> 20, needed.div_ceil(1 << 20))]
    MemoryForKernel {
        /// Bytes of low RAM.
        ram: u64,
        /// End of the memory that the kernel needs.
        needed: u64,
    },
    /// RAM is too small for the initrd.
    #[error("--memory: {} MiB is too small for the kernel and its initrd of {} MiB together; give at least {} MiB", ram >> 20, initrd.div_ceil(1 << 20), needed.div_ceil(1 << 20))]
    MemoryForInitrd {
        /// Bytes of low RAM.
        ram: u64,
        /// Bytes of initrd.
        initrd: u64,
        /// Bytes of low RAM needed.
        needed: u64,
    },
    /// The command line is longer than the kernel accepts.
    #[error("--cmdline: {len} bytes, this kernel takes at most {limit}")]
    CmdlineTooLong {
        /// Bytes given.
        len: usize,
        /// Bytes allowed, without the closing NUL.
        limit: usize,
    },
    /// The command line contains a NUL byte, which would end it early.
    #[error("--cmdline: contains a NUL byte")]
    CmdlineNul,
    /// A write to guest memory failed. Cannot happen with a layout that was checked.
    #[error("loading the guest: {0}")]
    Memory(#[from] vm_memory::GuestMemoryError),
}
