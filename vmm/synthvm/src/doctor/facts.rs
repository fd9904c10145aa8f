//! The facts about a host, without a judgement.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use kvm_ioctls::Kvm;
use synthvm_machine::new_vm;

use super::capabilities::{CAPABILITIES, MAX_VCPUS};

/// The facts about a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Version of the kernel.
    pub kernel: String,
    /// The device node that was checked.
    pub kvm: PathBuf,
    /// The degree of access to KVM.
    pub access: Access,
    /// The KVM modules that are loaded ("kvm_amd"); empty when KVM is built in.
    pub modules: Vec<String>,
    /// Results of KVM_CHECK_EXTENSION by number; empty without access.
    pub capabilities: BTreeMap<u32, i32>,
    /// Bytes of available memory.
    pub memory_available: Option<u64>,
    /// The pool of default-size hugepages.
    pub hugepages: Option<Hugepages>,
    /// The setting for transparent large pages in memory files, in the kernel's words: `always`,
    /// `advise`, `never` ...
    pub large_pages: Option<String>,
    /// Error number of memfd_create, if it failed.
    pub memfd: Result<(), i32>,
    /// Soft and hard limit of open files.
    pub open_files: Option<(u64, u64)>,
    /// Error number of io_uring_setup, if it failed.
    pub io_uring: Result<(), i32>,
}

/// The file of the setting for transparent large pages in memory files.
pub(super) const LARGE_PAGES: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";

/// The degree of access to the KVM device node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The node cannot be opened: error number.
    Closed(i32),
    /// The node opens, but is not KVM (the ioctl for the API version fails): error number.
    NotKvm(i32),
    /// The node is KVM with this API version, but cannot create a VM: error number.
    NoVm(i32, i32),
    /// The node is KVM with this API version and can create VMs.
    Open(i32),
}

/// The pool of default-size hugepages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hugepages {
    /// Size of a page in bytes.
    pub size: u64,
    /// Pages in the pool.
    pub total: u64,
    /// Pages that are neither used nor reserved.
    pub free: u64,
}

impl Facts {
    /// Gathers the facts. Leaves nothing behind.
    pub fn gather(kvm: &Path) -> Facts {
        let (access, capabilities) = ask_kvm(kvm);
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Facts {
            kernel: kernel.trim().to_owned(),
            kvm: kvm.to_owned(),
            access,
            modules: modules(),
            capabilities,
            memory_available: field(&meminfo, "MemAvailable").map(|kib| kib.saturating_mul(1024)),
            hugepages: hugepages(&meminfo),
            large_pages: fs::read_to_string(LARGE_PAGES).ok().as_deref().and_then(chosen),
            memfd: ask_memfd(),
            open_files: ask_open_files(),
            io_uring: ask_io_uring(),
        }
    }
}

fn ask_kvm(path: &Path) -> (Access, BTreeMap<u32, i32>) {
    let none = BTreeMap::new();
    let Ok(name) = CString::new(path.as_os_str().as_bytes()) else {
        return (Access::Closed(libc::EINVAL), none);
    };
    let kvm = match Kvm::new_with_path(&name) {
        Ok(kvm) => kvm,
        Err(error) => return (Access::Closed(error.errno()), none),
    };
    let version = kvm.get_api_version();
    if version < 0 {
        return (Access::NotKvm(last_error()), none);
    }
    let numbers = CAPABILITIES.iter().map(|capability| capability.number).chain([MAX_VCPUS]);
    let capabilities =
        numbers.map(|number| (number, kvm.check_extension_raw(number.into()))).collect();
    let access = match new_vm(&kvm) {
        Ok(_) => Access::Open(version),
        Err(error) => Access::NoVm(version, error.errno()),
    };
    (access, capabilities)
}

fn modules() -> Vec<String> {
    let known = ["kvm_amd", "kvm_intel", "kvm_pvm"];
    let loaded = |name: &&&str| Path::new("/sys/module").join(name).exists();
    known.iter().filter(loaded).map(|name| (*name).to_owned()).collect()
}

/// Returns the number after `name:` in the text of /proc/meminfo.
fn field(meminfo: &str, name: &str) -> Option<u64> {
    let rest = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    rest.split_whitespace().next()?.parse().ok()
}

fn hugepages(meminfo: &str) -> Option<Hugepages> {
    let free = field(meminfo, "HugePages_Free")?
        .saturating_sub(field(meminfo, "HugePages_Rsvd").unwrap_or(0));
    let size = field(meminfo, "Hugepagesize")?.saturating_mul(1024);
    Some(Hugepages { size, total: field(meminfo, "HugePages_Total")?, free })
}

/// Returns the word in brackets, as in `always within_size [advise] never`.
fn chosen(words: &str) -> Option<String> {
    Some(words.split_once('[')?.1.split_once(']')?.0.to_owned())
}

fn ask_memfd() -> Result<(), i32> {
    // SAFETY: the name is a string that ends with a NUL; flags are a number.
    close(unsafe { libc::memfd_create(c"synthvm-doctor".as_ptr(), libc::MFD_CLOEXEC) }.into())
}

fn ask_open_files() -> Option<(u64, u64)> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a whole rlimit that the call fills in.
    let result = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    (result == 0).then_some((limit.rlim_cur, limit.rlim_max))
}

fn ask_io_uring() -> Result<(), i32> {
    // struct io_uring_params has 120 bytes (linux/io_uring.h); all zeros request the defaults.
    let mut parameters = [0_u64; 15];
    // SAFETY: one entry is requested; `parameters` has the size and alignment of the kernel's
    // structure.
    close(unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr()) })
}

/// Closes a descriptor that was created only as a test, and returns the test's result.
fn close(result: libc::c_long) -> Result<(), i32> {
    match i32::try_from(result) {
        Ok(fd) if fd >= 0 => {
            // SAFETY: the descriptor is new and has no other owner.
            unsafe { libc::close(fd) };
            Ok(())
        }
        _ => Err(last_error()),
    }
}

fn last_error() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_chosen_word_is_the_one_in_brackets() {
        assert_eq!(chosen("always within_size [advise] never deny\n").as_deref(), Some("advise"));
        assert_eq!(chosen("always"), None);
    }

    #[test]
    fn test_meminfo_hugepages_free_excludes_reserved_ones() {
        let text = "MemAvailable:    2048 kB\nHugePages_Total:      10\nHugePages_Free:        \
            8\nHugePages_Rsvd:        3\nHugepagesize:       2048 kB\n";
        assert_eq!(hugepages(text), Some(Hugepages { size: 2 << 20, total: 10, free: 5 }));
        assert_eq!(field(text, "MemAvailable"), Some(2048));
        assert_eq!(field(text, "HugePages"), None);
    }

    #[test]
    fn test_gather_without_the_device_still_tells_about_the_host() {
        let facts = Facts::gather(Path::new("/nonexistent/kvm"));
        assert_eq!(facts.access, Access::Closed(libc::ENOENT));
        assert!(
            facts.capabilities.is_empty()
                && facts.memory_available.is_some()
                && !facts.kernel.is_empty()
        );
    }

    #[test]
    fn test_gather_from_something_else_is_not_kvm() {
        assert!(matches!(Facts::gather(Path::new("/dev/null")).access, Access::NotKvm(_)));
    }
}
