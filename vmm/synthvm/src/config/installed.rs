//! Files and programs that a configuration does not name: those that are installed on this system,
//! and those in the project's cache, which is beside a program that cargo has built.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The places of OVMF's code in distributions: Debian and Ubuntu, Fedora, Arch, openSUSE. The
/// template of the variables is beside it.
const OVMF: [&str; 6] = [
    "/usr/share/OVMF/OVMF_CODE_4M.fd",
    "/usr/share/OVMF/OVMF_CODE.fd",
    "/usr/share/edk2/ovmf/OVMF_CODE.fd",
    "/usr/share/edk2/x64/OVMF_CODE.4m.fd",
    "/usr/share/edk2-ovmf/x64/OVMF_CODE.fd",
    "/usr/share/qemu/ovmf-x86_64-code.bin",
];

/// The place of OVMF's code in a package of the cache.
const OVMF_IN_PACKAGE: &str = "usr/share/OVMF/OVMF_CODE_4M.fd";

/// The option ROM of an installation, relative to the folder above the program's.
const OPTION_ROM: &str = "share/synthvm/uefi-vmbus.rom";

/// Returns whether `PATH` has an executable file of this name.
pub(super) fn has_program(name: &str) -> bool {
    let is_executable = |path: PathBuf| {
        fs::metadata(path)
            .is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
    };
    let folders = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&folders).any(|folder| is_executable(folder.join(name)))
}

/// Returns the code of OVMF: the installed one, or else the newest in the project's cache.
pub(super) fn ovmf() -> Option<PathBuf> {
    let installed = OVMF.iter().map(PathBuf::from).find(|path| path.exists());
    installed.or_else(|| cached_ovmf(&cache()?))
}

/// Returns the option ROM with the driver for VMBus: the installed one, or else the newest in the
/// project's cache.
pub(super) fn option_rom() -> Option<PathBuf> {
    let program = env::current_exe().ok()?;
    let installed = program.parent()?.parent().map(|prefix| prefix.join(OPTION_ROM));
    installed.filter(|path| path.exists()).or_else(|| cached_option_rom(&cache()?))
}

/// Returns the project's cache, if there is one.
fn cache() -> Option<PathBuf> {
    if let Some(folder) = env::var_os("SYNTHVM_CACHE") {
        return Some(folder.into());
    }
    // The program is in a folder of cargo's target folder, or one deeper with `--target`.
    let program = env::current_exe().ok()?;
    let folders = program.ancestors().skip(2).take(2);
    folders.map(|folder| folder.join("guest-images")).find(|folder| folder.is_dir())
}

fn cached_ovmf(cache: &Path) -> Option<PathBuf> {
    let packages = names(cache.join("packages")).filter(|path| starts_with(path, "ovmf_"));
    let codes = packages.map(|package| package.join(OVMF_IN_PACKAGE));
    // The version is part of the name.
    codes.filter(|code| code.exists()).max()
}

fn cached_option_rom(cache: &Path) -> Option<PathBuf> {
    let roms = names(cache.join("firmware")).filter(|path| {
        starts_with(path, "uefi-vmbus-") && path.extension().is_some_and(|end| end == "rom")
    });
    roms.max_by_key(|path| fs::metadata(path).and_then(|data| data.modified()).ok())
}

fn names(folder: PathBuf) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

fn starts_with(path: &Path, prefix: &str) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn test_program_in_path_is_found_by_its_name() {
        assert!(has_program("sh"));
        assert!(!has_program("no-such-program-of-synthvm"));
    }

    #[test]
    fn test_cache_has_the_newest_ovmf_and_the_option_rom_built_last() {
        let name = format!("synthvm-installed-{}", std::process::id());
        let cache = env::temp_dir().join(name);
        let make = |path: &str| {
            let path = cache.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::File::create(&path).unwrap();
            path
        };
        assert_eq!((cached_ovmf(&cache), cached_option_rom(&cache)), (None, None));
        make("packages/ovmf_2022.11-6+deb12u2_f/usr/share/OVMF/OVMF_CODE_4M.fd");
        let newest = make("packages/ovmf_2025.02-8+deb13u1_0/usr/share/OVMF/OVMF_CODE_4M.fd");
        make("packages/ovmf-generic_2026.08_0/usr/share/OVMF/OVMF_CODE_4M.fd");
        assert_eq!(cached_ovmf(&cache), Some(newest));
        let last = make("firmware/uefi-vmbus-0.rom");
        let first = fs::File::create(make("firmware/uefi-vmbus-1.rom")).unwrap();
        first.set_modified(SystemTime::now() - Duration::from_secs(9)).unwrap();
        make("firmware/other");
        assert_eq!(cached_option_rom(&cache), Some(last));
        fs::remove_dir_all(cache).unwrap();
    }
}
