//! A guest: a stock kernel and an initial RAM disk with its Hyper-V modules, SynthVM's init and
//! real tools.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::cpio::Archive;
use crate::init_binary::InitBinary;
use crate::kernel::{Kernel, StockKernel};
use crate::kmods::{self, Modules};
use crate::{Error, cache::Cache, tools};

/// Modules that every guest loads at its start, if its kernel has them as modules.
const AT_BOOT: [&str; 7] = ["hv_vmbus", "hv_storvsc", "sd_mod", "sg", "ext4", "button", "evdev"];

/// Modules that every guest contains but does not load at its start.
const AT_HAND: [&str; 14] = [
    "hv_utils",
    "hv_netvsc",
    "hv_balloon",
    "hv_sock",
    "uio_hv_generic",
    "hid_hyperv",
    "hyperv_keyboard",
    "pci_hyperv",
    "sr_mod",
    "vfat",
    "nls_ascii",
    "nls_cp437",
    "crc32c_generic",
    "crc32c_intel",
];

/// Images that were not used in this time are removed when another is made.
const UNUSED: Duration = Duration::from_secs(7 * 24 * 3600);

/// A guest that can be booted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestImage {
    /// The kernel's image.
    pub kernel: PathBuf,
    /// The initial RAM disk. Not compressed: an emulated machine copies faster than it unpacks.
    pub initrd: PathBuf,
    /// The kernel's release.
    pub release: String,
}

/// A builder of guests.
#[derive(Debug, Clone)]
pub struct GuestBuilder {
    cache: Cache,
    kernel: Source,
    programs: bool,
    packages: Vec<Taken>,
    /// Packages, and files or folders to take from each.
    data: Vec<(String, String)>,
    kexec: bool,
    at_boot: Vec<String>,
    at_hand: Vec<String>,
    files: Vec<(String, u32, Vec<u8>)>,
}

/// Programs of a package.
#[derive(Debug, Clone)]
struct Taken {
    suite: &'static str,
    name: String,
    programs: Vec<String>,
}

#[derive(Debug, Clone)]
enum Source {
    Stock(StockKernel),
    Full(StockKernel),
    Named(Kernel),
}

impl GuestBuilder {
    /// Returns a builder of a guest with a stock kernel.
    pub fn stock(kernel: StockKernel) -> GuestBuilder {
        GuestBuilder::new(Source::Stock(kernel))
    }

    /// Returns a builder of a guest with the full flavour of a stock kernel, which has the
    /// display's driver too.
    pub fn full(kernel: StockKernel) -> GuestBuilder {
        GuestBuilder::new(Source::Full(kernel))
    }

    /// Returns a builder of a guest with the given kernel and modules.
    ///
    /// # Errors
    /// The kernel or the modules do not exist.
    pub fn named(image: &Path, modules: &Path) -> Result<GuestBuilder, Error> {
        let kernel = Kernel::from_files(image.to_owned(), modules.to_owned())?;
        Ok(GuestBuilder::new(Source::Named(kernel)))
    }

    fn new(kernel: Source) -> GuestBuilder {
        GuestBuilder {
            cache: Cache::project(),
            kernel,
            programs: true,
            packages: Vec::new(),
            data: Vec::new(),
            kexec: false,
            at_boot: AT_BOOT.map(str::to_owned).to_vec(),
            at_hand: AT_HAND.map(str::to_owned).to_vec(),
            files: Vec::new(),
        }
    }

    /// Uses another cache than the project's.
    #[must_use]
    pub fn cache(mut self, cache: &Cache) -> GuestBuilder {
        self.cache = cache.clone();
        self
    }

    /// Omits the file system and SCSI programs, for a small guest.
    #[must_use]
    pub fn without_programs(mut self) -> GuestBuilder {
        self.programs = false;
        self
    }

    /// Adds programs of a distribution package, such as `usr/bin/fio` of `fio`, with their
    /// libraries.
    #[must_use]
    pub fn package(self, name: &str, programs: &[&str]) -> GuestBuilder {
        self.package_from(tools::SUITE, name, programs)
    }

    /// Adds programs like [`GuestBuilder::package`], of another suite. Its libraries replace those
    /// of the same names.
    #[must_use]
    pub fn package_from(
        mut self,
        suite: &'static str,
        name: &str,
        programs: &[&str],
    ) -> GuestBuilder {
        let programs = programs.iter().map(|program| (*program).to_owned()).collect();
        self.packages.push(Taken { suite, name: name.to_owned(), programs });
        self
    }

    /// Adds a file of a distribution package, or a folder with all that is in it, such as
    /// `usr/share/X11/xkb` of `xkb-data`.
    #[must_use]
    pub fn data(mut self, name: &str, path: &str) -> GuestBuilder {
        self.data.push((name.to_owned(), path.to_owned()));
        self
    }

    /// Packs the guest itself into the guest, so that it can start itself by kexec.
    #[must_use]
    pub fn with_kexec(mut self) -> GuestBuilder {
        self.kexec = true;
        self
    }

    /// Adds a module, and loads it at the start if `at_boot` is true.
    #[must_use]
    pub fn module(mut self, name: &str, at_boot: bool) -> GuestBuilder {
        if at_boot { &mut self.at_boot } else { &mut self.at_hand }.push(name.to_owned());
        self
    }

    /// Adds a file.
    #[must_use]
    pub fn file(mut self, path: &str, mode: u32, content: Vec<u8>) -> GuestBuilder {
        self.files.push((path.to_owned(), mode, content));
        self
    }

    /// Fetches missing parts and makes the image. The same parts make the same file, which is not
    /// written again.
    pub fn build(&self) -> Result<GuestImage, Error> {
        let kernel = match &self.kernel {
            Source::Stock(which) => Kernel::stock(&self.cache, *which)?,
            Source::Full(which) => Kernel::full(&self.cache, *which)?,
            Source::Named(kernel) => kernel.clone(),
        };
        let mut initrd = self.initrd(&kernel)?;
        if self.kexec {
            let mut boot = Archive::new();
            let image = fs::read(&kernel.image).map_err(Error::file("reading", &kernel.image))?;
            boot.file("boot/vmlinuz", 0o644, &image);
            boot.file("boot/initrd", 0o644, &initrd);
            initrd.extend(boot.finish());
        }
        let sum: String =
            Sha256::digest(&initrd).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let path = self.cache.dir("guests")?.join(format!("{}-{sum}.initrd", kernel.release));
        if path.exists() {
            self.cache.touch(&path);
        } else {
            self.cache.remove_older("guests", UNUSED);
            self.cache.write(&path, &initrd)?;
        }
        Ok(GuestImage { kernel: kernel.image, initrd: path, release: kernel.release })
    }

    fn initrd(&self, kernel: &Kernel) -> Result<Vec<u8>, Error> {
        let mut archive = Archive::new();
        archive.char_device("dev/console", 5, 1);
        archive.file("init", 0o755, &InitBinary::Guest.build(&self.cache)?);
        // The kernel calls this program to request a module.
        archive.link("sbin/modprobe", "/init");
        // Tests of the network send and check bytes by this program.
        archive.link("bin/traffic", "/init");
        archive.link("bin/memory-load", "/init");
        for (path, mode, content) in &self.files {
            archive.file(path, *mode, content);
        }
        let modules = Modules::find(&kernel.modules)?;
        let wanted: Vec<&String> = self.at_boot.iter().chain(&self.at_hand).collect();
        let packed = modules.load_order(&wanted)?;
        kmods::pack(&packed, &mut archive);
        let names: Vec<String> = self.at_boot.iter().map(|name| name.replace('-', "_")).collect();
        let at_boot: Vec<&str> = names
            .iter()
            .map(String::as_str)
            .filter(|name| packed.iter().any(|m| m.name == *name))
            .collect();
        archive.file("modules/boot", 0o644, at_boot.join("\n").as_bytes());
        archive.file("etc/mtab", 0o644, b"");
        tools::add_busybox(&self.cache, &mut archive)?;
        if self.programs {
            tools::add_programs(&self.cache, &mut archive)?;
        }
        for Taken { suite, name, programs } in &self.packages {
            tools::add_package(&self.cache, &mut archive, suite, name, programs)?;
        }
        for (name, path) in &self.data {
            tools::add_data(&self.cache, &mut archive, name, path)?;
        }
        Ok(archive.finish())
    }
}
