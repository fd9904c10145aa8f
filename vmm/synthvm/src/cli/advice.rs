//! The user's view of the machine's errors: the option at fault, the remedy, and the exit status.
//!
//! The library `synthvm-machine` states facts and knows no option of the program.

use std::io;

use synthvm_machine::unix_socket::SocketError;
use synthvm_machine::{
    BootError, FirmwareError, HypervError, MachineError, MemoryError, MsvmError,
};

use super::exit::{Exit, Failure};

/// The program's part of a message: `option` precedes the library's text, and `remedy` follows it.
struct Advice {
    exit: Exit,
    option: String,
    remedy: String,
}

impl Advice {
    fn new(exit: Exit, option: impl Into<String>) -> Self {
        Advice { exit, option: option.into(), remedy: String::new() }
    }

    fn remedy(self, remedy: impl Into<String>) -> Self {
        Advice { remedy: remedy.into(), ..self }
    }

    /// Returns the failure for `error` with this advice.
    fn with(self, error: &dyn std::error::Error) -> Failure {
        let fact = Failure::new(self.exit, error);
        Failure::text(self.exit, format!("{}{fact}{}", self.option, self.remedy))
    }
}

const DOCTOR: &str = "; `synthvm doctor` lists its features";

impl From<MachineError> for Failure {
    fn from(error: MachineError) -> Self {
        let advice = match &error {
            MachineError::OpenKvm { source, .. } => {
                Advice::new(Exit::Host, "--kvm ").remedy(kvm_remedy(source))
            }
            MachineError::NotKvm { .. } => Advice::new(Exit::Host, "--kvm "),
            MachineError::Missing(_) => Advice::new(Exit::Host, "--kvm: ").remedy(DOCTOR),
            MachineError::MissingForSplit(_) => {
                Advice::new(Exit::Host, "--irqchip split: ").remedy("; use --irqchip full")
            }
            MachineError::TooManyCpus { .. } => Advice::new(Exit::Host, "--cpus: "),
            MachineError::AddressBits { .. } => Advice::new(Exit::Host, "--memory: "),
            MachineError::Memory(error) => memory(error),
            MachineError::Hyperv(error) => hyperv(error),
            MachineError::Boot(error) => boot(error),
            MachineError::Firmware(error) => firmware(error),
            MachineError::Msvm(error) => msvm(error),
            MachineError::NothingToStart => Advice::new(Exit::Usage, "--kernel: "),
            MachineError::SerialFile { port, .. } => {
                Advice::new(Exit::Input, format!("{} file=", serial(*port)))
            }
            MachineError::SerialSocket { port, .. } => {
                Advice::new(Exit::Input, format!("{} socket=", serial(*port)))
            }
            MachineError::TwoTerminals => Advice::new(Exit::Usage, "--serial2 stdio: ")
                .remedy("; choose file, socket or null for --serial or --serial2"),
            MachineError::Kvm { .. } | MachineError::Acpi(_) | MachineError::System { .. } => {
                Advice::new(Exit::Internal, "")
            }
        };
        advice.with(&error)
    }
}

impl From<BootError> for Failure {
    fn from(error: BootError) -> Self {
        boot(&error).with(&error)
    }
}

impl From<SocketError> for Failure {
    fn from(error: SocketError) -> Self {
        Advice::new(Exit::Input, "--control ").with(&error)
    }
}

fn memory(error: &MemoryError) -> Advice {
    let advice = Advice::new(Exit::Host, "--memory: ");
    match error {
        MemoryError::Hugepages { pages, .. } => advice.remedy(format!(
            "; reserve {pages} pages in /proc/sys/vm/nr_hugepages, or leave hugepages out"
        )),
        MemoryError::Memfd(_)
        | MemoryError::Size { .. }
        | MemoryError::Map { .. }
        | MemoryError::Regions(_) => advice,
    }
}

fn hyperv(error: &HypervError) -> Advice {
    match error {
        HypervError::NoHyperv { .. } => Advice::new(Exit::Host, "--kvm: ").remedy(DOCTOR),
        HypervError::Unavailable { option } => {
            Advice::new(Exit::Host, format!("--hyperv {option}=on: ")).remedy(DOCTOR)
        }
        HypervError::Mandatory { option, .. } => {
            Advice::new(Exit::Usage, format!("--hyperv {option}=off: "))
                .remedy(format!("; leave {option} on"))
        }
        HypervError::Requires { option, base } => {
            Advice::new(Exit::Usage, format!("--hyperv {option}=on: "))
                .remedy(format!("; add {base}=on"))
        }
    }
}

/// A file is at fault, or the options given with it.
fn boot(error: &BootError) -> Advice {
    match error {
        BootError::File { file, .. } => Advice::new(Exit::Input, format!("--{file} ")),
        BootError::MemoryForKernel { .. } | BootError::MemoryForInitrd { .. } => {
            Advice::new(Exit::Usage, "--memory: ")
        }
        BootError::CmdlineTooLong { .. } | BootError::CmdlineNul => {
            Advice::new(Exit::Usage, "--cmdline: ")
        }
        BootError::Memory(_) => Advice::new(Exit::Internal, ""),
    }
}

/// A file is at fault, or the host.
fn firmware(error: &FirmwareError) -> Advice {
    match error {
        FirmwareError::Image(_)
        | FirmwareError::Elf(_)
        | FirmwareError::NoPvhEntry { .. }
        | FirmwareError::NoKernel { .. }
        | FirmwareError::NoVariables { .. } => Advice::new(Exit::Input, "--firmware "),
        FirmwareError::Variables(_) => Advice::new(Exit::Input, "--firmware-vars "),
        FirmwareError::ReadOptionRom { .. } | FirmwareError::OptionRom { .. } => {
            Advice::new(Exit::Input, "--firmware option-rom=")
        }
        FirmwareError::BootFile { .. } => Advice::new(Exit::Input, "--kernel, --initrd: "),
        FirmwareError::NoReadOnlyMemory => Advice::new(Exit::Host, "--kvm: ").remedy(DOCTOR),
        FirmwareError::Item(_) | FirmwareError::Map(_) => Advice::new(Exit::Internal, ""),
    }
}

/// A file or an option is at fault, or the host.
fn msvm(error: &MsvmError) -> Advice {
    match error {
        MsvmError::Read { .. } | MsvmError::Image { .. } => {
            Advice::new(Exit::Input, "--firmware msvm:")
        }
        MsvmError::Variables(_) => Advice::new(Exit::Input, "--firmware-vars "),
        MsvmError::Memory { .. } => Advice::new(Exit::Usage, "--memory: "),
        MsvmError::NoTimers => {
            Advice::new(Exit::Usage, "--hyperv: ").remedy("; use --hyperv preset=windows")
        }
        MsvmError::System { .. } => Advice::new(Exit::Host, ""),
        MsvmError::Blob(_) => Advice::new(Exit::Internal, ""),
    }
}

/// Returns the option of the serial port with this index.
fn serial(port: usize) -> &'static str {
    if port == 0 { "--serial" } else { "--serial2" }
}

fn kvm_remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => {
            " (is KVM enabled in the firmware, and its kernel module loaded?)"
        }
        io::ErrorKind::PermissionDenied => {
            " (is this user in the group that owns it, usually `kvm`?)"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use synthvm_machine::{BootFile, FileProblem};
    use vm_memory::mmap::MmapRegionError;

    use super::*;

    fn denied() -> io::Error {
        io::ErrorKind::PermissionDenied.into()
    }

    fn kernel(problem: FileProblem) -> MachineError {
        BootError::File { file: BootFile::Kernel, path: "k".into(), problem }.into()
    }

    fn initrd(problem: FileProblem) -> MachineError {
        BootError::File { file: BootFile::Initrd, path: "i".into(), problem }.into()
    }

    #[test]
    fn test_machine_error_names_option_remedy_and_exit_status() {
        const MIB: u64 = 1 << 20;
        let cases: [(MachineError, Exit, &str); 21] = [
            (
                MachineError::OpenKvm { path: "/dev/kvm".into(), source: denied() },
                Exit::Host,
                "--kvm /dev/kvm: permission denied (is this user in the group that owns it, \
                usually `kvm`?)",
            ),
            (
                MachineError::NotKvm { path: "x".into() },
                Exit::Host,
                "--kvm x: not KVM, or a version of it that SynthVM does not know",
            ),
            (
                MachineError::Missing("KVM_CAP_IRQFD"),
                Exit::Host,
                "--kvm: this host's KVM lacks KVM_CAP_IRQFD; `synthvm doctor` lists its features",
            ),
            (
                MachineError::MissingForSplit("KVM_CAP_SPLIT_IRQCHIP"),
                Exit::Host,
                "--irqchip split: this host's KVM lacks KVM_CAP_SPLIT_IRQCHIP, which a split \
                irqchip needs; use --irqchip full",
            ),
            (
                MachineError::TooManyCpus { asked: 64, limit: 4 },
                Exit::Host,
                "--cpus: this host's KVM takes at most 4 vCPUs, not 64",
            ),
            (
                MachineError::AddressBits { needed: 43, offered: 39 },
                Exit::Host,
                "--memory: the RAM and its MMIO windows need 43 address bits, this host's CPU \
                offers guests 39",
            ),
            (
                MemoryError::Size { mib: 5, source: denied() }.into(),
                Exit::Host,
                "--memory: the host kernel refused 5 MiB of guest memory: permission denied",
            ),
            (
                MemoryError::Hugepages {
                    mib: 5,
                    pages: 3,
                    source: MmapRegionError::Mmap(denied()),
                }
                .into(),
                Exit::Host,
                "--memory: 5 MiB of hugepages are not free on this host: permission denied; \
                reserve 3 pages in /proc/sys/vm/nr_hugepages, or leave hugepages out",
            ),
            (
                HypervError::NoHyperv { option: "synic" }.into(),
                Exit::Host,
                "--kvm: this host's KVM does not offer Hyper-V's synic, without which there is no \
                VMBus; `synthvm doctor` lists its features",
            ),
            (
                HypervError::Unavailable { option: "vapic" }.into(),
                Exit::Host,
                "--hyperv vapic=on: this host's KVM does not offer the enlightenment vapic; \
                `synthvm doctor` lists its features",
            ),
            (
                HypervError::Mandatory { option: "synic", lost: "no VMBus" }.into(),
                Exit::Usage,
                "--hyperv synic=off: the enlightenment synic is off: no VMBus; leave synic on",
            ),
            (
                HypervError::Requires { option: "stimer", base: "time" }.into(),
                Exit::Usage,
                "--hyperv stimer=on: the enlightenment stimer needs time as well; add time=on",
            ),
            (kernel(denied().into()), Exit::Input, "--kernel k: permission denied"),
            (kernel(FileProblem::Empty), Exit::Input, "--kernel k: the file is empty"),
            (initrd(FileProblem::NotAFile), Exit::Input, "--initrd i: not a regular file"),
            (
                BootError::MemoryForKernel { ram: 16 * MIB, needed: 48 * MIB }.into(),
                Exit::Usage,
                "--memory: 16 MiB of RAM is too small for this kernel, which needs RAM up to 48 \
                MiB to unpack itself",
            ),
            (
                BootError::CmdlineTooLong { len: 3000, limit: 2047 }.into(),
                Exit::Usage,
                "--cmdline: a command line of 3000 bytes is too long; this kernel takes at most \
                2047",
            ),
            (
                BootError::CmdlineNul.into(),
                Exit::Usage,
                "--cmdline: the command line contains a NUL byte",
            ),
            (
                MachineError::SerialFile { port: 1, path: "log".into(), source: denied() },
                Exit::Input,
                "--serial2 file=log: permission denied",
            ),
            (
                MachineError::TwoTerminals,
                Exit::Usage,
                "--serial2 stdio: the terminal belongs to both serial ports; choose file, socket \
                or null for --serial or --serial2",
            ),
            (
                MachineError::Kvm { what: "TSS", source: denied() },
                Exit::Internal,
                "KVM: TSS: permission denied",
            ),
        ];
        for (error, exit, text) in cases {
            let failure = Failure::from(error);
            assert_eq!((failure.to_string().as_str(), failure.exit()), (text, exit));
        }
    }
}
