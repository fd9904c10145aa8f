//! Programs of packages that are unpacked into the cache, runnable with their own libraries.
//! Nothing is installed.
//!
//! A set of programs is a folder with links to the packages' files and a script for each program. A
//! script starts its program through the packages' own loader, so the program works on every
//! machine in the same way, regardless of the libraries that are installed there.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::libraries::{LOADER, Libraries};
use crate::packages::{Package, Packages};
use crate::{Error, cache::Cache};

/// Programs of packages of one suite.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Programs {
    /// The set's name, by which it is found again.
    pub(crate) name: &'static str,
    /// The suite of the packages.
    pub(crate) suite: &'static str,
    /// Each program's package and path in it.
    pub(crate) programs: &'static [(&'static str, &'static str)],
    /// Libraries that a program loads by itself: package and path in it.
    pub(crate) libraries: &'static [(&'static str, &'static str)],
}

impl Programs {
    /// Returns the folder that contains the programs, after making it if it is missing.
    ///
    /// # Errors
    /// A package cannot be fetched, or lacks a file.
    pub(crate) fn folder(&self, cache: &Cache) -> Result<PathBuf, Error> {
        if let Some(made) = self.made(cache) {
            return Ok(made);
        }
        let _lock = cache.lock(self.name)?;
        // Another process may have made it while this one waited for the lock.
        match self.made(cache) {
            Some(made) => Ok(made),
            None => self.make(cache),
        }
    }

    /// Returns the folder that was made before. That of an older version may lack a program.
    fn made(&self, cache: &Cache) -> Option<PathBuf> {
        let bin = self.set().made(cache)?;
        let has =
            |path: &str| Path::new(path).file_name().is_some_and(|name| bin.join(name).is_file());
        self.programs.iter().all(|(_, path)| has(path)).then_some(bin)
    }

    fn set(&self) -> Set<'static> {
        Set { suite: self.suite, name: self.name }
    }

    fn make(&self, cache: &Cache) -> Result<PathBuf, Error> {
        let suite = Packages::new(cache, self.suite);
        let wanted: Vec<_> = self.programs.iter().chain(self.libraries).collect();
        let mut packages: Vec<Package> = Vec::new();
        for (name, _) in &wanted {
            if packages.iter().all(|package| package.name != *name) {
                packages.push(suite.get(name)?);
            }
        }
        let mut files = Vec::new();
        for (name, path) in wanted {
            if let Some(package) = packages.iter().find(|package| package.name == *name) {
                files.push((package, package.root.join(path)));
            }
        }
        let borrowed: Vec<_> = files.iter().map(|(package, path)| (*package, &**path)).collect();
        let libraries = Libraries::new(&suite, &packages).of(&borrowed)?;

        let mut links = BTreeMap::new();
        links.extend(libraries.into_iter().map(|(name, path)| (format!("lib/{name}"), path)));
        let mut scripts = BTreeMap::new();
        for (number, (_, path)) in files.into_iter().enumerate() {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if number < self.programs.len() {
                scripts.insert(name.clone(), script(&name, "", ""));
                links.insert(format!("program/{name}"), path);
            } else {
                links.insert(format!("lib/{name}"), path);
            }
        }
        self.set().assemble(cache, &links, &scripts)
    }
}

/// The name of a set of programs, and the suite of its packages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Set<'a> {
    /// The suite.
    pub(crate) suite: &'a str,
    /// The name.
    pub(crate) name: &'a str,
}

/// The record of a made folder, by which it is found without the archive.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    folder: String,
}

impl Set<'_> {
    /// Returns the folder of scripts that was made before, if all its links are valid.
    pub(crate) fn made(self, cache: &Cache) -> Option<PathBuf> {
        let record = fs::read(self.record_path(cache)).ok()?;
        let record: Record = serde_json::from_slice(&record).ok()?;
        let root = cache.root().join("programs").join(record.folder);
        for folder in fs::read_dir(&root).ok()? {
            for entry in fs::read_dir(folder.ok()?.path()).ok()? {
                // Follows the link.
                fs::metadata(entry.ok()?.path()).ok()?;
            }
        }
        let bin = root.join("bin");
        bin.is_dir().then_some(bin)
    }

    /// Makes the folder with these links to unpacked packages and with these scripts, and returns
    /// the folder of scripts. Its name is a hash of its content. Links are relative, so that the
    /// cache can be moved.
    ///
    /// # Errors
    /// A link leads out of the cache, or a file cannot be written.
    pub(crate) fn assemble(
        self,
        cache: &Cache,
        links: &BTreeMap<String, PathBuf>,
        scripts: &BTreeMap<String, String>,
    ) -> Result<PathBuf, Error> {
        let mut hash = Sha256::new();
        let mut targets = Vec::new();
        for (name, path) in links {
            let inside = path
                .strip_prefix(cache.root())
                .map_err(|_| Error::Unusable(format!("{} is not in the cache", path.display())))?;
            // From programs/FOLDER/KIND, or a folder below it, to the cache's root.
            let depth = Path::new(name).components().count();
            let target = Path::new(&"../".repeat(depth + 1)).join(inside);
            hash.update(format!("{name}\0{}\0", target.display()));
            targets.push((name, target));
        }
        for text in scripts.values() {
            hash.update(text);
        }
        let sum: String =
            hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let folder = format!("{}-{sum}", self.name);
        let root = cache.dir("programs")?.join(&folder);
        if !root.is_dir() {
            let scratch = cache.scratch()?;
            let new = scratch.path().join("new");
            for (name, target) in targets {
                let link = new.join(name);
                make_parent(&link)?;
                symlink(target, &link).map_err(Error::file("making link", &link))?;
            }
            for (program, text) in scripts {
                let path = new.join("bin").join(program);
                make_parent(&path)?;
                fs::write(&path, text).map_err(Error::file("writing", &path))?;
                let mode = fs::Permissions::from_mode(0o755);
                fs::set_permissions(&path, mode)
                    .map_err(Error::file("setting the mode of", &path))?;
            }
            fs::rename(&new, &root).map_err(Error::file("moving into place", &root))?;
        }
        let record =
            serde_json::to_vec(&Record { folder }).map_err(|e| Error::Unusable(e.to_string()))?;
        cache.write(&self.record_path(cache), &record)?;
        Ok(root.join("bin"))
    }

    fn record_path(self, cache: &Cache) -> PathBuf {
        let folder = cache.root().join("resolved").join(self.suite).join("programs");
        folder.join(format!("{}.json", self.name))
    }
}

fn make_parent(path: &Path) -> Result<(), Error> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).map_err(Error::file("making folder", parent))
}

/// Returns the script that starts a program: it replaces itself with the loader of the program's
/// libraries, which runs the program. `before` are lines of the shell before that, and `arguments`
/// precede those of the caller. Both may use `$top`, the folder of the set.
pub(crate) fn script(program: &str, before: &str, arguments: &str) -> String {
    format!(
        "#!/bin/sh\n\
         # Runs {program} with its own libraries, from the folder above.\n\
         top=${{0%/*}}/..\n\
         {before}\
         exec \"$top/lib/{LOADER}\" --inhibit-cache --library-path \"$top/lib\" --argv0 \"$0\" \
         \"$top/program/{program}\"{arguments} \"$@\"\n"
    )
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::cache::tests::cache;

    const SET: Set<'_> = Set { suite: "nowhere", name: "tools" };

    /// Makes a set with a program of this machine, which suffices for a script to run it.
    fn assemble(cache: &Cache) -> (PathBuf, BTreeMap<String, PathBuf>) {
        let packages = cache.dir("packages/p").unwrap();
        let libraries = Path::new("/lib/x86_64-linux-gnu");
        let mut links = BTreeMap::new();
        for (name, from) in [
            ("lib/libc.so.6".to_owned(), libraries.join("libc.so.6")),
            (format!("lib/{LOADER}"), libraries.join(LOADER)),
            ("program/echo".to_owned(), PathBuf::from("/bin/echo")),
        ] {
            let path = packages.join(name.replace('/', "-"));
            fs::copy(from, &path).unwrap();
            links.insert(name, path);
        }
        let text = script("echo", "word=$top\n", " \"${word##*/}\"");
        let scripts = BTreeMap::from([("echo".to_owned(), text)]);
        (SET.assemble(cache, &links, &scripts).unwrap(), links)
    }

    #[test]
    fn test_script_runs_its_program_with_its_arguments_also_after_the_cache_was_moved() {
        let cache = cache("programs-moved");
        let (bin, _) = assemble(&cache);
        assert_eq!(SET.made(&cache), Some(bin.clone()), "found again without an archive");
        let moved = cache.root().with_extension("moved to");
        let _ = fs::remove_dir_all(&moved);
        fs::rename(cache.root(), &moved).unwrap();
        let bin = moved.join(bin.strip_prefix(cache.root()).unwrap());
        let said = Command::new(bin.join("echo")).args(["a b", "c"]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&said.stdout), ".. a b c\n", "{said:?}");
        fs::remove_dir_all(&moved).unwrap();
    }

    #[test]
    fn test_set_that_lacks_a_new_program_is_made_again() {
        let cache = cache("programs-new");
        let (bin, _) = assemble(&cache);
        let old: &[(&str, &str)] = &[("coreutils", "bin/echo")];
        let mut set = Programs { name: "tools", suite: "nowhere", programs: old, libraries: &[] };
        assert_eq!(set.made(&cache), Some(bin));
        set.programs = &[("coreutils", "bin/echo"), ("coreutils", "bin/cat")];
        assert_eq!(set.made(&cache), None);
        fs::remove_dir_all(cache.root()).unwrap();
    }

    #[test]
    fn test_set_with_a_lost_package_is_made_again() {
        let cache = cache("programs-lost");
        let (_, links) = assemble(&cache);
        fs::remove_file(&links["lib/libc.so.6"]).unwrap();
        assert_eq!(SET.made(&cache), None);
        fs::remove_dir_all(cache.root()).unwrap();
    }
}
