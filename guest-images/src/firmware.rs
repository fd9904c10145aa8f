//! Stock UEFI firmware of the distribution, unpacked into the cache. Nothing is installed.
//!
//! Names, sizes and contents of the packages: `docs/spec/firmware-windows.md` sections B1 and B7.

use std::fs;
use std::path::PathBuf;

use crate::packages::{Package, Packages};
use crate::{Error, cache::Cache};

/// The 2 MiB image: code and variables have these sizes in bytes.
const SIZES_2M: [u64; 2] = [1_966_080, 131_072];

/// The 4 MiB image: code and variables have these sizes in bytes.
const SIZES_4M: [u64; 2] = [3_653_632, 540_672];

/// A build of OVMF, the UEFI firmware for virtual machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ovmf {
    /// 2 MiB, of bookworm. Its code implements Secure Boot.
    Bookworm2M,
    /// 4 MiB, of bookworm. Its code implements Secure Boot.
    Bookworm4M,
    /// 4 MiB, of trixie. Its code has no Secure Boot.
    Trixie4M,
}

/// The files of one build of OVMF.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OvmfFiles {
    /// The code, which is read-only for the guest and ends at 4 GiB.
    pub code: PathBuf,
    /// The template of an empty variable store, which is located directly below the code.
    pub vars: PathBuf,
    /// The template of a variable store with Microsoft's and the distribution's keys, which
    /// switches Secure Boot on.
    pub vars_secure: PathBuf,
    /// The package's version.
    pub version: String,
}

impl Ovmf {
    /// All builds.
    pub const ALL: [Ovmf; 3] = [Ovmf::Bookworm2M, Ovmf::Bookworm4M, Ovmf::Trixie4M];

    /// Returns the suite of the build.
    pub fn suite(self) -> &'static str {
        match self {
            Ovmf::Bookworm2M | Ovmf::Bookworm4M => "bookworm",
            Ovmf::Trixie4M => "trixie",
        }
    }

    /// Returns the name of the build in names of tests, such as `bookworm_4M`.
    pub fn name(self) -> &'static str {
        match self {
            Ovmf::Bookworm2M => "bookworm_2M",
            Ovmf::Bookworm4M => "bookworm_4M",
            Ovmf::Trixie4M => "trixie_4M",
        }
    }

    /// Returns whether the code implements Secure Boot.
    pub fn has_secure_boot(self) -> bool {
        matches!(self, Ovmf::Bookworm2M | Ovmf::Bookworm4M)
    }

    /// Returns the files, after fetching them if they are missing.
    ///
    /// # Errors
    /// The package cannot be fetched, or a file is missing or has an unexpected size.
    pub fn fetch(self, cache: &Cache) -> Result<OvmfFiles, Error> {
        let package = Packages::new(cache, self.suite()).get("ovmf")?;
        let (size, [code, vars]) = match self {
            Ovmf::Bookworm2M => ("", SIZES_2M),
            Ovmf::Bookworm4M | Ovmf::Trixie4M => ("_4M", SIZES_4M),
        };
        let find = |name: &str, bytes| file(&package, &format!("usr/share/OVMF/{name}"), bytes);
        Ok(OvmfFiles {
            code: find(&format!("OVMF_CODE{size}.fd"), code)?,
            vars: find(&format!("OVMF_VARS{size}.fd"), vars)?,
            vars_secure: find(&format!("OVMF_VARS{size}.ms.fd"), vars)?,
            version: package.version.clone(),
        })
    }
}

/// Returns `CLOUDHV.fd`, an ELF file of OVMF that is started through its PVH entry, after fetching
/// it if it is missing. Only sid has it.
///
/// # Errors
/// The package cannot be fetched, or the file is missing.
pub fn cloudhv(cache: &Cache) -> Result<PathBuf, Error> {
    let package = Packages::new(cache, "sid").get("cloudhv-efi-x86-64")?;
    let path = package.root.join("usr/share/cloudhv-efi-x86-64/CLOUDHV.fd");
    fs::metadata(&path).map_err(Error::file("looking for", &path))?;
    Ok(path)
}

/// Returns a file of a package, which must have this size: another size is another layout, with
/// which variables and code would not fit together.
fn file(package: &Package, path: &str, size: u64) -> Result<PathBuf, Error> {
    let path = package.root.join(path);
    let found = fs::metadata(&path).map_err(Error::file("looking for", &path))?.len();
    if found == size {
        return Ok(path);
    }
    Err(Error::Unusable(format!("{} has {found} bytes instead of {size}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::tests::cache;
    use crate::packages;

    /// Adds the package `ovmf` of a suite with these files of zeros.
    fn add_package(cache: &Cache, suite: &str, files: &[(&str, u64)]) {
        let root = packages::fake(cache, suite, "ovmf", &[]).root.join("usr/share/OVMF");
        fs::create_dir_all(&root).unwrap();
        for (name, size) in files {
            fs::File::create(root.join(name)).unwrap().set_len(*size).unwrap();
        }
    }

    #[test]
    fn test_ovmf_in_the_cache_is_found_with_its_three_files() {
        let cache = cache("ovmf");
        let files = [
            ("OVMF_CODE_4M.fd", 3_653_632),
            ("OVMF_VARS_4M.fd", 540_672),
            ("OVMF_VARS_4M.ms.fd", 540_672),
        ];
        add_package(&cache, "trixie", &files);
        let found = Ovmf::Trixie4M.fetch(&cache).unwrap();
        let [code, vars, vars_secure] = files.map(|(name, _)| name);
        assert!(found.code.ends_with(code) && found.vars.ends_with(vars));
        assert!(found.vars_secure.ends_with(vars_secure));
        fs::remove_dir_all(cache.root()).unwrap();
    }

    #[test]
    #[ignore = "fetches a package of sid"]
    fn test_cloudhv_of_sid_is_an_elf_file() {
        let path = cloudhv(&Cache::project()).unwrap();
        assert!(fs::read(path).unwrap().starts_with(b"\x7FELF"));
    }

    #[test]
    fn test_ovmf_with_a_file_of_another_size_is_refused() {
        let cache = cache("ovmf-size");
        add_package(&cache, "bookworm", &[("OVMF_CODE.fd", 1_966_080), ("OVMF_VARS.fd", 540_672)]);
        let error = Ovmf::Bookworm2M.fetch(&cache).unwrap_err().to_string();
        assert!(error.contains("OVMF_VARS.fd has 540672 bytes instead of 131072"), "{error}");
        fs::remove_dir_all(cache.root()).unwrap();
    }
}
