//! QEMU's programs, unpacked into the cache with their libraries. Nothing is installed.
//!
//! The QEMU is always that of the same suite, regardless of this machine's: so the emulator, and
//! the programs for comparison of image formats, are the same for all users, and no package of the
//! user is changed. `$SYNTHVM_QEMU` names another folder with such programs, such as `/usr/bin`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::libraries::{LOADER, Libraries};
use crate::packages::{Package, Packages};
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

/// The record of the made folder, by which it is found without the archive.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    folder: String,
}

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
    if let Some(made) = made(cache) {
        return Ok(made);
    }
    let _lock = cache.lock("qemu")?;
    // Another process may have made it while this one waited for the lock.
    match made(cache) {
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

fn record_path(cache: &Cache) -> PathBuf {
    cache.root().join("resolved").join(SUITE).join("programs").join("qemu.json")
}

/// Returns the folder that was made before, if all its links are valid.
fn made(cache: &Cache) -> Option<PathBuf> {
    let record: Record = serde_json::from_slice(&fs::read(record_path(cache)).ok()?).ok()?;
    let root = cache.root().join("programs").join(record.folder);
    for folder in ["lib", "program", "modules", "firmware"] {
        for entry in fs::read_dir(root.join(folder)).ok()? {
            // Follows the link.
            fs::metadata(entry.ok()?.path()).ok()?;
        }
    }
    let bin = root.join("bin");
    bin.is_dir().then_some(bin)
}

fn make(cache: &Cache) -> Result<PathBuf, Error> {
    let suite = Packages::new(cache, SUITE);
    let packages = packages(&suite)?;
    let module = packages[MODULE.0].root.join(MODULE.1);
    let programs: Vec<(&Package, PathBuf)> = PROGRAMS
        .iter()
        .map(|(package, program)| {
            (&packages[*package], packages[*package].root.join("usr/bin").join(program))
        })
        .collect();
    let mut files: Vec<(&Package, &Path)> =
        programs.iter().map(|(package, path)| (*package, path.as_path())).collect();
    files.push((&packages[MODULE.0], &module));
    let libraries = Libraries::new(&suite, &packages).of(&files)?;

    let mut links: BTreeMap<String, PathBuf> = BTreeMap::new();
    links.extend(libraries.into_iter().map(|(name, path)| (format!("lib/{name}"), path)));
    for ((_, name), (_, path)) in PROGRAMS.iter().zip(&programs) {
        links.insert(format!("program/{name}"), path.clone());
    }
    links.insert(format!("modules/{}", module.file_name().unwrap_or_default().display()), module);
    for (number, (package, folder)) in FIRMWARE.iter().enumerate() {
        links.insert(format!("firmware/{number}"), packages[*package].root.join(folder));
    }
    assemble(cache, &links)
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

/// Makes the folder with these links to unpacked packages and with a script for each program. Its
/// name is a hash of its content. Links are relative, so that the cache can be moved.
fn assemble(cache: &Cache, links: &BTreeMap<String, PathBuf>) -> Result<PathBuf, Error> {
    let mut hash = Sha256::new();
    let mut targets = Vec::new();
    for (name, path) in links {
        let inside = path
            .strip_prefix(cache.root())
            .map_err(|_| Error::Unusable(format!("{} is not in the cache", path.display())))?;
        // From programs/FOLDER/KIND to the cache's root.
        let target = Path::new("../../..").join(inside);
        hash.update(format!("{name}\0{}\0", target.display()));
        targets.push((name, target));
    }
    let scripts = PROGRAMS.map(|(_, program)| (program, script(program)));
    for (_, text) in &scripts {
        hash.update(text);
    }
    let sum: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let folder = format!("qemu-{sum}");
    let root = cache.dir("programs")?.join(&folder);
    if !root.is_dir() {
        let scratch = cache.scratch()?;
        let new = scratch.path().join("new");
        for (name, target) in targets {
            let link = new.join(name);
            make_parent(&link)?;
            symlink(target, &link).map_err(Error::file("making link", &link))?;
        }
        for (program, text) in &scripts {
            let path = new.join("bin").join(program);
            make_parent(&path)?;
            fs::write(&path, text).map_err(Error::file("writing", &path))?;
            let mode = fs::Permissions::from_mode(0o755);
            fs::set_permissions(&path, mode).map_err(Error::file("setting the mode of", &path))?;
        }
        fs::rename(&new, &root).map_err(Error::file("moving into place", &root))?;
    }
    let record =
        serde_json::to_vec(&Record { folder }).map_err(|e| Error::Unusable(e.to_string()))?;
    cache.write(&record_path(cache), &record)?;
    Ok(root.join("bin"))
}

fn make_parent(path: &Path) -> Result<(), Error> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).map_err(Error::file("making folder", parent))
}

/// Returns the script that starts a program. It replaces itself with the loader of the program's
/// libraries, which runs the program.
fn script(program: &str) -> String {
    let mut text = format!(
        "#!/bin/sh\n\
         # Runs {program} with its own libraries, from the folder above.\n\
         top=${{0%/*}}/..\n"
    );
    let mut firmware = String::new();
    if program == EMULATOR {
        text.push_str("QEMU_MODULE_DIR=$top/modules\nexport QEMU_MODULE_DIR\n");
        for number in 0..FIRMWARE.len() {
            let _ = write!(firmware, " -L \"$top/firmware/{number}\"");
        }
    }
    let _ = writeln!(
        text,
        "exec \"$top/lib/{LOADER}\" --inhibit-cache --library-path \"$top/lib\" --argv0 \"$0\" \
         \"$top/program/{program}\"{firmware} \"$@\""
    );
    text
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn cache(name: &str) -> Cache {
        let dir = std::env::temp_dir().join(format!("synthvm-qemu-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        Cache::at(dir)
    }

    /// Returns links to packages whose programs are tools of this machine like `printf`, which
    /// suffice for a script to run one.
    fn links(cache: &Cache) -> BTreeMap<String, PathBuf> {
        let packages = cache.dir("packages/p").unwrap();
        let mut links = BTreeMap::new();
        let mut add = |name: String, from: &Path| {
            let path = packages.join(name.replace('/', "-"));
            fs::copy(from, &path).unwrap();
            links.insert(name, path);
        };
        let libraries = Path::new("/lib/x86_64-linux-gnu");
        for name in ["libc.so.6", LOADER] {
            add(format!("lib/{name}"), &libraries.join(name));
        }
        for (_, program) in PROGRAMS {
            add(format!("program/{program}"), Path::new("/bin/echo"));
        }
        add("modules/a.so".to_owned(), Path::new("/etc/hostname"));
        links.insert("firmware/0".to_owned(), packages);
        links
    }

    #[test]
    fn test_script_runs_its_program_with_its_arguments_also_after_the_cache_was_moved() {
        let cache = cache("moved");
        let bin = assemble(&cache, &links(&cache)).unwrap();
        assert_eq!(made(&cache), Some(bin.clone()), "found again without an archive");
        let moved = cache.root().with_extension("moved to");
        let _ = fs::remove_dir_all(&moved);
        fs::rename(cache.root(), &moved).unwrap();
        let bin = moved.join(bin.strip_prefix(cache.root()).unwrap());
        let said = Command::new(bin.join("qemu-img")).args(["a b", "c"]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&said.stdout), "a b c\n", "{said:?}");
        let said = Command::new(bin.join(EMULATOR)).arg("-m").output().unwrap();
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.starts_with("-L ") && said.ends_with("/firmware/1 -m\n"), "{said}");
        fs::remove_dir_all(&moved).unwrap();
    }

    #[test]
    fn test_folder_with_a_lost_package_is_made_again() {
        let cache = cache("lost");
        let links = links(&cache);
        assemble(&cache, &links).unwrap();
        fs::remove_file(&links["lib/libc.so.6"]).unwrap();
        assert_eq!(made(&cache), None);
        fs::remove_dir_all(cache.root()).unwrap();
    }

    #[test]
    fn test_packages_of_different_builds_are_distinguished() {
        let cache = cache("builds");
        let one = crate::packages::fake(&cache, "nowhere", "a", &[]);
        let other = Package { version: "2".to_owned(), ..one.clone() };
        assert!(is_one_build(&[one.clone(), one.clone(), one.clone(), other.clone()]));
        assert!(!is_one_build(&[one.clone(), other, one]));
        fs::remove_dir_all(cache.root()).unwrap();
    }
}
