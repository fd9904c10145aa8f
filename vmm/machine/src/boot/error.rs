//! Errors that stop a boot.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// An error that stops a boot. Each variant tells which field of
/// [`MachineConfig`](crate::MachineConfig) is at fault.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The kernel or the initrd cannot be used.
    #[error("{}: {problem}", path.display())]
    File {
        /// The field that names the file.
        file: BootFile,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        problem: FileProblem,
    },
    /// `memory_bytes` is too small for the kernel.
    #[error(
        "{} MiB of RAM is too small for this kernel, which needs RAM up to {} MiB to unpack itself",
        ram >> 20, needed.div_ceil(1 << 20)
    )]
    MemoryForKernel {
        /// Bytes of low RAM.
        ram: u64,
        /// End of the memory that the kernel needs.
        needed: u64,
    },
    /// `memory_bytes` is too small for the kernel and the initrd.
    #[error(
        "{} MiB of RAM is too small for the kernel and its initrd of {} MiB together; give at \
        least {} MiB",
        ram >> 20, initrd.div_ceil(1 << 20), needed.div_ceil(1 << 20)
    )]
    MemoryForInitrd {
        /// Bytes of low RAM.
        ram: u64,
        /// Bytes of initrd.
        initrd: u64,
        /// Bytes of low RAM needed.
        needed: u64,
    },
    /// `cmdline` is longer than the kernel accepts.
    #[error("a command line of {len} bytes is too long; this kernel takes at most {limit}")]
    CmdlineTooLong {
        /// Bytes given.
        len: usize,
        /// Bytes allowed, without the closing NUL.
        limit: usize,
    },
    /// `cmdline` contains a NUL byte, which would end it early.
    #[error("the command line contains a NUL byte")]
    CmdlineNul,
    /// A write to guest memory failed. Cannot happen with a layout that was checked.
    #[error("loading the guest: {0}")]
    Memory(#[from] vm_memory::GuestMemoryError),
}

/// A file of the guest, by its field of [`MachineConfig`](crate::MachineConfig).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootFile {
    /// `kernel`.
    Kernel,
    /// `initrd`.
    Initrd,
}

impl BootFile {
    /// Returns the name of the field.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            BootFile::Kernel => "kernel",
            BootFile::Initrd => "initrd",
        }
    }
}

impl fmt::Display for BootFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The cause for which a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileProblem {
    /// The file cannot be opened or read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The path is a directory, a socket, or a device.
    #[error("not a regular file")]
    NotAFile,
    /// The file has no bytes.
    #[error("the file is empty")]
    Empty,
    /// The file is neither a bzImage nor an ELF file.
    #[error("not a Linux kernel (neither a bzImage nor an ELF vmlinux)")]
    NotAKernel,
    /// The file is a kernel that SynthVM cannot boot: the kind of kernel.
    #[error("{0}; SynthVM boots 64-bit x86 kernels")]
    WrongKernel(String),
    /// The headers declare more bytes than the file has.
    #[error("truncated: its header promises {promised} bytes, the file has {actual}")]
    Truncated {
        /// Bytes that the headers declare.
        promised: u64,
        /// Bytes in the file.
        actual: u64,
    },
    /// The loader refuses the ELF file: its message.
    #[error("damaged ELF file: {0}")]
    BadElf(String),
}
