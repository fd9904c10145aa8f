//! QEMU's programs, unpacked into the cache with their libraries. Nothing is installed.
//!
//! The QEMU is always that of the same suite, regardless of this machine's: so the emulator, and
//! the programs for comparison of image formats, are the same for all users, and no package of the
//! user is changed. `$SYNTHVM_QEMU` names another folder with such programs, such as `/usr/bin`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::libraries::Libraries;
use crate::packages::{Package, Packages};
use crate::programs::{self, Set};
use crate::{Error, cache::Cache};

/// The variable with the folder of the QEMU programs to use instead of those in the cache. `cargo
/// xtask test` sets it for its tests.
pub const FOLDER: &str = "SYNTHVM_QEMU";

/// The emulator of a PC.
pub const EMULATOR: &str = "qemu-system-x86_64";

/// The suite of QEMU: the test host was tested with this version.
const SUITE: &str = "bookworm";

/// Packages that are fetched by name; library packages follow from the programs.
const PACKAGES: [&str; 5] =
    ["qemu-system-x86", "qemu-utils", "qemu-system-common", "qemu-system-data", "seabios"];

/// Number of packages of one build, whose versions must be equal.
const OF_ONE_BUILD: usize = 3;

/// Programs, each with the index of its package.
const PROGRAMS: [(usize, &str); 4] =
    [(0, EMULATOR), (1, "qemu-img"), (1, "qemu-io"), (1, "qemu-nbd")];

/// The module with the software emulation, which QEMU loads by itself, and its package.
const MODULE: (usize, &str) = (2, "usr/lib/x86_64-linux-gnu/qemu/accel-tcg-x86_64.so");

/// Folders with firmware, and their packages.
const FIRMWARE: [(usize, &str); 2] = [(3, "usr/share/qemu"), (4, "usr/share/seabios")];

/// The set of programs.
const SET: Set<'_> = Set { suite: SUITE, name: "qemu-patched" };

/// A function that the module calls only to assert that the emulator's big lock is held, and one of
/// the C library that never returns zero.
///
/// A nested guest that writes CR8 while an interrupt window is open calls the module without the
/// lock, on its own processor's thread, and the emulator aborts (QEMU 7.2 to 10.0,
/// `helper_write_crN` and `tcg_handle_interrupt`). UEFI firmware does so at the end of each
/// interrupt, so it would lose the test host within seconds. The call itself only sets bits of its
/// own processor.
const ASSERTED: (&[u8], &[u8]) = (b"\0qemu_mutex_iothread_locked\0", b"\0__ctype_get_mb_cur_max\0");

/// Returns the folder that contains QEMU's programs, after making it if it is missing.
///
/// # Errors
/// The packages cannot be fetched, or the user's folder lacks a program.
pub fn folder(cache: &Cache) -> Result<PathBuf, Error> {
    if let Some(named) = std::env::var_os(FOLDER) {
        let named = PathBuf::from(named);
        return match PROGRAMS.iter().find(|(_, program)| !named.join(program).is_file()) {
            None => Ok(named),
            Some((_, program)) => Err(Error::Unusable(format!(
                "{FOLDER}={}: there is no {program}; unset {FOLDER} to use the cache's",
                named.display()
            ))),
        };
    }
    if let Some(made) = SET.made(cache) {
        return Ok(made);
    }
    let _lock = cache.lock("qemu")?;
    // Another process may have made it while this one waited for the lock.
    match SET.made(cache) {
        Some(made) => Ok(made),
        None => make(cache),
    }
}

/// Returns the path of one of QEMU's programs, such as [`EMULATOR`].
///
/// # Errors
/// The errors of [`folder`].
pub fn program(cache: &Cache, name: &str) -> Result<PathBuf, Error> {
    folder(cache).map(|folder| folder.join(name))
}

fn make(cache: &Cache) -> Result<PathBuf, Error> {
    let suite = Packages::new(cache, SUITE);
    let packages = packages(&suite)?;
    let original = packages[MODULE.0].root.join(MODULE.1);
    let module = patched(cache, &original)?;
    let programs: Vec<(&Package, PathBuf)> = PROGRAMS
        .iter()
        .map(|(package, program)| {
            (&packages[*package], packages[*package].root.join("usr/bin").join(program))
        })
        .collect();
    let mut files: Vec<(&Package, &Path)> =
        programs.iter().map(|(package, path)| (*package, path.as_path())).collect();
    files.push((&packages[MODULE.0], &original));
    let libraries = Libraries::new(&suite, &packages).of(&files)?;

    let mut links: BTreeMap<String, PathBuf> = BTreeMap::new();
    links.extend(libraries.into_iter().map(|(name, path)| (format!("lib/{name}"), path)));
    for ((_, name), (_, path)) in PROGRAMS.iter().zip(&programs) {
        links.insert(format!("program/{name}"), path.clone());
    }
    links.insert(format!("modules/{}", original.file_name().unwrap_or_default().display()), module);
    for (number, (package, folder)) in FIRMWARE.iter().enumerate() {
        links.insert(format!("firmware/{number}"), packages[*package].root.join(folder));
    }
    let scripts = PROGRAMS.map(|(_, program)| (program.to_owned(), script(program)));
    SET.assemble(cache, &links, &scripts.into())
}

/// Returns a copy of the module without the assertion of [`ASSERTED`], or the module itself if it
/// does not have it.
fn patched(cache: &Cache, module: &Path) -> Result<PathBuf, Error> {
    let mut bytes = fs::read(module).map_err(Error::file("reading", module))?;
    if !replace_import(&mut bytes) {
        return Ok(module.to_owned());
    }
    let name = module.file_name().unwrap_or_default();
    let path = cache.dir("patched")?.join(name);
    cache.write(&path, &bytes)?;
    Ok(path)
}

/// Makes a module import another function. Returns false if it does not import the one to replace.
/// The name of an import is only in the table of names: nothing else depends on it.
fn replace_import(bytes: &mut [u8]) -> bool {
    let (old, new) = ASSERTED;
    let mut places = bytes.windows(old.len()).enumerate().filter(|(_, part)| *part == old);
    let (Some((at, _)), None) = (places.next(), places.next()) else { return false };
    let place = &mut bytes[at..at + old.len()];
    place.fill(0);
    place[..new.len()].copy_from_slice(new);
    true
}

/// Fetches the packages by name, with equal versions for those of one build.
fn packages(suite: &Packages) -> Result<Vec<Package>, Error> {
    let fetch = || -> Result<Vec<Package>, Error> {
        let packages = suite.get_all(&PACKAGES)?;
        if packages.len() != PACKAGES.len() {
            return Err(Error::Unusable(format!("{SUITE} lacks one of {}", PACKAGES.join(", "))));
        }
        Ok(packages)
    };
    let packages = fetch()?;
    if is_one_build(&packages) {
        return Ok(packages);
    }
    // Some records are old: the emulator loads no module of another build.
    PACKAGES.iter().for_each(|name| suite.forget(name));
    let packages = fetch()?;
    if is_one_build(&packages) {
        return Ok(packages);
    }
    Err(Error::Unusable(format!("the packages {} have different versions", PACKAGES.join(", "))))
}

fn is_one_build(packages: &[Package]) -> bool {
    packages
        .iter()
        .take(OF_ONE_BUILD)
        .all(|package| Some(&package.version) == packages.first().map(|p| &p.version))
}

/// Returns the script that starts a program. The emulator also finds its module and firmware.
fn script(program: &str) -> String {
    if program != EMULATOR {
        return programs::script(program, "", "");
    }
    let mut firmware = String::new();
    for number in 0..FIRMWARE.len() {
        let _ = write!(firmware, " -L \"$top/firmware/{number}\"");
    }
    let before = "QEMU_MODULE_DIR=$top/modules\nexport QEMU_MODULE_DIR\n";
    programs::script(program, before, &firmware)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::tests::cache;

    #[test]
    fn test_script_of_the_emulator_names_its_module_and_its_firmware() {
        let text = script(EMULATOR);
        assert!(text.contains("QEMU_MODULE_DIR=$top/modules\n"), "{text}");
        assert!(text.contains(" -L \"$top/firmware/0\" -L \"$top/firmware/1\" \"$@\""), "{text}");
        assert!(!script("qemu-img").contains("firmware"));
    }

    #[test]
    fn test_import_of_the_module_is_replaced_only_if_it_is_there_once() {
        let mut bytes = b"a\0qemu_mutex_iothread_locked\0b".to_vec();
        assert!(replace_import(&mut bytes));
        assert_eq!(bytes, b"a\0__ctype_get_mb_cur_max\0\0\0\0\0b");
        assert!(!replace_import(&mut bytes), "it is no longer there");
        let once = b"\0qemu_mutex_iothread_locked\0".to_vec();
        let mut twice = [once.clone(), once].concat();
        let before = twice.clone();
        assert!(!replace_import(&mut twice));
        assert_eq!(twice, before);
    }

    #[test]
    fn test_packages_of_different_builds_are_distinguished() {
        let cache = cache("qemu-builds");
        let one = crate::packages::fake(&cache, "nowhere", "a", &[]);
        let other = Package { version: "2".to_owned(), ..one.clone() };
        assert!(is_one_build(&[one.clone(), one.clone(), one.clone(), other.clone()]));
        assert!(!is_one_build(&[one.clone(), other, one]));
        fs::remove_dir_all(cache.root()).unwrap();
    }
}
