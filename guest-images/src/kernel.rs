//! A kernel to boot, with its modules.

use std::fs;
use std::path::{Path, PathBuf};

use ruzstd::decoding::StreamingDecoder;

use crate::packages::Packages;
use crate::{Error, cache::Cache};

/// A kernel image and its modules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// The image to boot: a bzImage, or the user's file.
    pub image: PathBuf,
    /// The folder with the kernel's modules.
    pub modules: PathBuf,
    /// The release, such as `6.1.0-56-cloud-amd64`.
    pub release: String,
}

/// The stock kernels of the guests under test: the distribution's cloud flavour, which has every
/// Hyper-V driver except the display's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StockKernel {
    /// Linux 6.1.
    V6_1,
    /// Linux 6.12.
    V6_12,
}

impl StockKernel {
    /// All stock kernels.
    pub const ALL: [StockKernel; 2] = [StockKernel::V6_1, StockKernel::V6_12];

    /// Returns the short version that people use as its name.
    pub fn version(self) -> &'static str {
        match self {
            StockKernel::V6_1 => "6.1",
            StockKernel::V6_12 => "6.12",
        }
    }

    /// Returns the suite of the kernel.
    pub fn suite(self) -> &'static str {
        match self {
            StockKernel::V6_1 => "bookworm",
            StockKernel::V6_12 => "trixie",
        }
    }
}

impl std::str::FromStr for StockKernel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = StockKernel::ALL.into_iter().find(|kernel| kernel.version() == text);
        known.ok_or_else(|| format!("there is no stock kernel {text:?}; there are 6.1 and 6.12"))
    }
}

impl Kernel {
    /// Fetches a stock kernel.
    pub fn stock(cache: &Cache, which: StockKernel) -> Result<Kernel, Error> {
        Kernel::from_package(cache, which.suite(), "linux-image-cloud-amd64")
    }

    /// Fetches the full flavour of a stock kernel, for hardware of every kind.
    pub fn full(cache: &Cache, which: StockKernel) -> Result<Kernel, Error> {
        Kernel::from_package(cache, which.suite(), "linux-image-amd64")
    }

    /// Fetches the kernel of a package or metapackage of a suite.
    pub fn from_package(cache: &Cache, suite: &str, package: &str) -> Result<Kernel, Error> {
        let package = Packages::new(cache, suite).get_kernel(package)?;
        let image = entry(&package.root.join("boot"), "vmlinuz-")?;
        let modules = ["usr/lib/modules", "lib/modules"]
            .iter()
            .map(|folder| package.root.join(folder))
            .find(|folder| folder.is_dir())
            .ok_or_else(|| Error::Unusable(format!("{} has no modules", package.name)))?;
        Kernel::from_files(image, entry(&modules, "")?)
    }

    /// Returns the kernel in the given files. The name of the modules' folder is the release, as
    /// below `/lib/modules`.
    ///
    /// # Errors
    /// The image or the folder does not exist.
    pub fn from_files(image: PathBuf, modules: PathBuf) -> Result<Kernel, Error> {
        for path in [&image, &modules] {
            fs::metadata(path).map_err(Error::file("looking for", path))?;
        }
        let release = modules.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Kernel { image, modules, release })
    }
}

/// Returns the ELF kernel inside a bzImage, after unpacking it into the cache.
///
/// # Errors
/// The file is no bzImage, or its kernel is not compressed by Zstandard, as that of 6.12 is.
pub fn vmlinux(cache: &Cache, image: &Path) -> Result<PathBuf, Error> {
    let name =
        image.file_name().unwrap_or_default().to_string_lossy().replace("vmlinuz", "vmlinux");
    let path = cache.root().join("vmlinux").join(name);
    if path.is_file() {
        return Ok(path);
    }
    let bytes = fs::read(image).map_err(Error::file("reading", image))?;
    let unusable = |what: &str| Error::Unusable(format!("{}: {what}", image.display()));
    let mut payload = payload(&bytes).ok_or_else(|| unusable("is no bzImage"))?;
    let mut decoder = StreamingDecoder::new(&mut payload)
        .map_err(|error| unusable(&format!("its kernel: {error}")))?;
    let mut kernel = Vec::new();
    std::io::copy(&mut decoder, &mut kernel).map_err(Error::file("unpacking", image))?;
    if !kernel.starts_with(b"\x7FELF") {
        return Err(unusable("has no ELF kernel inside"));
    }
    cache.write(&path, &kernel)?;
    Ok(path)
}

/// Returns the compressed kernel in a bzImage (Documentation/arch/x86/boot.rst: `setup_sects`,
/// `payload_offset`, `payload_length`).
fn payload(image: &[u8]) -> Option<&[u8]> {
    let word = |at: usize| Some(u32::from_le_bytes(image.get(at..at + 4)?.try_into().ok()?));
    let sectors = match image.get(0x1F1)? {
        0 => 4,
        sectors => usize::from(*sectors),
    };
    let start = (sectors + 1) * 512 + word(0x248)? as usize;
    image.get(start..start.checked_add(word(0x24C)? as usize)?)
}

/// Returns the only entry of a folder whose name starts with `prefix`.
fn entry(dir: &Path, prefix: &str) -> Result<PathBuf, Error> {
    let entries = fs::read_dir(dir).map_err(Error::file("reading folder", dir))?;
    entries
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
        .ok_or_else(|| Error::Unusable(format!("{} has no {prefix}*", dir.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_stock_kernel_is_named_by_its_version() {
        assert_eq!("6.12".parse(), Ok(StockKernel::V6_12));
        let error = "5.4".parse::<StockKernel>().unwrap_err();
        assert!(error.contains("6.1 and 6.12"), "{error}");
    }

    #[test]
    fn test_payload_is_where_the_header_says_or_absent() {
        let mut image = vec![0; 4096];
        image[0x1F1] = 1;
        image[0x248] = 16;
        image[0x24C] = 3;
        image[1040..1043].copy_from_slice(b"abc");
        assert_eq!(payload(&image), Some(&b"abc"[..]));
        image[0x24F] = 1;
        assert_eq!(payload(&image), None, "longer than the file");
        assert_eq!(payload(b"short"), None);
    }

    #[test]
    fn test_kernel_from_files_that_are_not_there_names_the_file() {
        let error = Kernel::from_files("/no/vmlinuz".into(), "/".into()).unwrap_err().to_string();
        assert!(error.contains("/no/vmlinuz"), "{error}");
    }
}
