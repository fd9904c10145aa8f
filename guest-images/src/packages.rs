//! Distribution packages, downloaded and unpacked into the cache. Nothing is installed.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::apt::{Apt, Control};
use crate::logged::{self, Line};
use crate::progress::{Task, step};
use crate::{Error, cache::Cache};

/// A suite of the distribution, as a source of unpacked packages.
#[derive(Debug)]
pub struct Packages {
    cache: Cache,
    suite: String,
}

/// An unpacked package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// The name.
    pub name: String,
    /// The version.
    pub version: String,
    /// The folder that contains its files, in the layout below `/`.
    pub root: PathBuf,
    /// The packages that it depends on (first alternatives).
    pub depends: Vec<String>,
}

/// The saved record of a package, by which it is found without the archive.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    name: String,
    version: String,
    sha256: String,
    depends: Vec<String>,
}

impl Packages {
    /// Returns the packages of a suite, such as `bookworm`. Makes no request yet.
    pub fn new(cache: &Cache, suite: &str) -> Packages {
        Packages { cache: cache.clone(), suite: suite.to_owned() }
    }

    /// Returns the newest version of a package, unpacked. A package in the cache is used unchanged,
    /// without a network; delete the cache's `resolved` folder to get newer versions.
    ///
    /// # Errors
    /// The suite has no such package, or it cannot be fetched, or its checksum is wrong.
    pub fn get(&self, name: &str) -> Result<Package, Error> {
        let missing = || Error::Unusable(format!("{} has no package {name}", self.suite));
        self.get_all(&[name])?.pop().ok_or_else(missing)
    }

    /// Returns packages like [`Packages::get`], and fetches them together. Packages that the suite
    /// does not have are omitted, including virtual ones.
    ///
    /// # Errors
    /// A package cannot be fetched, or its checksum is wrong.
    pub fn get_all(&self, names: &[&str]) -> Result<Vec<Package>, Error> {
        let cached =
            || names.iter().map(|name| self.cached(name)).collect::<Option<Vec<Package>>>();
        if let Some(packages) = cached() {
            return Ok(packages);
        }
        let _lock = self.cache.lock(&format!("suite-{}", self.suite))?;
        // Another process may have fetched packages while this one waited for the lock.
        let missing: Vec<&str> =
            names.iter().copied().filter(|name| self.cached(name).is_none()).collect();
        if !missing.is_empty() {
            let apt = Apt::new(&self.cache, &self.suite)?;
            apt.update(false)?;
            // Lists become stale: the archive drops a version when the next one arrives.
            if let Err(first) = self.fetch(&apt, &missing) {
                step(&format!("{first}; trying again with new lists"));
                apt.update(true)?;
                self.fetch(&apt, &missing)?;
            }
        }
        Ok(names.iter().filter_map(|name| self.cached(name)).collect())
    }

    /// Removes the record of a package's chosen version, so that the newest is chosen again.
    pub(crate) fn forget(&self, name: &str) {
        // If the record cannot be removed, it is used again.
        let _ = fs::remove_file(self.record_path(name));
    }

    /// Returns the real kernel package of a metapackage such as `linux-image-cloud-amd64`,
    /// unpacked.
    pub fn get_kernel(&self, metapackage: &str) -> Result<Package, Error> {
        let meta = self.get(metapackage)?;
        match meta.depends.iter().find(|name| name.starts_with("linux-image-")) {
            Some(real) => self.get(real),
            // The name is that of a real kernel package.
            None => Ok(meta),
        }
    }

    fn record_path(&self, name: &str) -> PathBuf {
        self.cache.root().join("resolved").join(&self.suite).join(format!("{name}.json"))
    }

    fn cached(&self, name: &str) -> Option<Package> {
        let bytes = fs::read(self.record_path(name)).ok()?;
        let record: Record = serde_json::from_slice(&bytes).ok()?;
        let root = self.cache.root().join("packages").join(folder(&record));
        root.is_dir().then(|| package(&record, root))
    }

    /// Downloads and unpacks the missing packages, and records the chosen versions.
    fn fetch(&self, apt: &Apt, names: &[&str]) -> Result<(), Error> {
        let controls = apt.show(names)?;
        let folder_of = |control: &Control| -> Result<PathBuf, Error> {
            Ok(self.cache.dir("packages")?.join(folder(&record(control.clone()))))
        };
        let mut absent = Vec::new();
        for control in &controls {
            if !folder_of(control)?.is_dir() {
                absent.push(control.clone());
            }
        }
        if !absent.is_empty() {
            let task = Task::start(&format!("fetching {} from {}", summary(&absent), self.suite));
            let scratch = self.cache.scratch()?;
            let files = apt.download(&absent, scratch.path(), &task)?;
            for (control, file) in absent.iter().zip(files) {
                check(&file, control)?;
                let unpacked = scratch.path().join("unpacked");
                let doing = format!("unpacking {}", control.name);
                let mut command = Command::new("dpkg-deb");
                command.arg("-x").arg(&file).arg(&unpacked);
                logged::run(&self.cache, &mut command, &doing, |_| Line::Keep)?;
                let root = folder_of(control)?;
                fs::rename(&unpacked, &root).map_err(Error::file("moving into place", &root))?;
            }
            task.finish();
        }
        for control in controls {
            let record = record(control);
            let bytes =
                serde_json::to_vec_pretty(&record).map_err(|e| Error::Unusable(e.to_string()))?;
            self.cache.write(&self.record_path(&record.name), &bytes)?;
        }
        Ok(())
    }
}

/// Returns a description of a download: its first package, the number of others, and its size.
fn summary(controls: &[Control]) -> String {
    let bytes: u64 = controls.iter().map(|control| control.size).sum();
    // The archive counts in powers of 1000, as apt does.
    let size = if bytes < 1_000_000 {
        format!("{} kB", bytes.div_ceil(1000))
    } else {
        format!("{:.1} MB", bytes as f64 / 1e6)
    };
    match controls {
        [] => "nothing".to_owned(),
        [one] => format!("{} {} ({size})", one.name, one.version),
        [first, rest @ ..] => format!("{} and {} more packages ({size})", first.name, rest.len()),
    }
}

fn record(control: Control) -> Record {
    Record {
        name: control.name,
        version: control.version,
        sha256: control.sha256,
        depends: control.depends,
    }
}

fn package(record: &Record, root: PathBuf) -> Package {
    Package {
        name: record.name.clone(),
        version: record.version.clone(),
        root,
        depends: record.depends.clone(),
    }
}

/// Returns the name of a package's folder. It contains the checksum, because two archives may have
/// different files for a version.
fn folder(record: &Record) -> String {
    let sum = record.sha256.get(..16).unwrap_or(&record.sha256);
    format!("{}_{}_{sum}", record.name, record.version).replace(':', "%3a")
}

fn check(file: &Path, control: &Control) -> Result<(), Error> {
    let found = sha256_file(file)?;
    if found == control.sha256 {
        return Ok(());
    }
    Err(Error::Unusable(format!(
        "the checksum of {} {} is wrong: the archive says {}, the file has {found}",
        control.name, control.version, control.sha256
    )))
}

/// Returns the SHA-256 of a file in hexadecimal.
pub fn sha256_file(path: &Path) -> Result<String, Error> {
    let mut file = fs::File::open(path).map_err(Error::file("opening", path))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0_u8; 1 << 20];
    loop {
        let n = file.read(&mut buffer).map_err(Error::file("reading", path))?;
        if n == 0 {
            break;
        }
        hash.update(&buffer[..n]);
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Returns an unpacked package without files, in the cache under a suite that no archive has.
#[cfg(test)]
pub(crate) fn fake(cache: &Cache, suite: &str, name: &str, depends: &[&str]) -> Package {
    let depends = depends.iter().map(|name| (*name).to_owned()).collect();
    let record =
        Record { name: name.to_owned(), version: "1".to_owned(), sha256: "00".to_owned(), depends };
    let path = Packages::new(cache, suite).record_path(name);
    cache.write(&path, &serde_json::to_vec(&record).unwrap()).unwrap();
    let root = cache.dir(&format!("packages/{}", folder(&record))).unwrap();
    package(&record, root)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(sha256: &str) -> Control {
        Control {
            name: "a".to_owned(),
            version: "1:2".to_owned(),
            sha256: sha256.to_owned(),
            size: 1_234_567,
            depends: vec!["b".to_owned()],
        }
    }

    #[test]
    fn test_check_of_a_changed_file_names_both_checksums() {
        let path = std::env::temp_dir().join(format!("synthvm-check-{}", std::process::id()));
        fs::write(&path, "abc").unwrap();
        let right = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert!(check(&path, &control(right)).is_ok());
        let error = check(&path, &control("00")).unwrap_err().to_string();
        assert!(error.contains("says 00") && error.contains(right), "{error}");
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn test_package_in_the_cache_needs_no_archive() {
        let dir = std::env::temp_dir().join(format!("synthvm-packages-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        let cache = Cache::at(dir.clone());
        let packages = Packages::new(&cache, "nowhere");
        let record = record(control("00112233445566778899"));
        cache.write(&packages.record_path("a"), &serde_json::to_vec(&record).unwrap()).unwrap();
        assert_eq!(packages.cached("a"), None, "a record alone is not a package");
        cache.dir("packages/a_1%3a2_0011223344556677").unwrap();
        let package = packages.get("a").unwrap();
        assert_eq!(package.depends, ["b"]);
        assert_eq!(package.root, dir.join("packages/a_1%3a2_0011223344556677"));
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn test_summary_names_the_first_package_and_counts_the_rest() {
        let controls = [control("00"), control("11"), control("22")];
        assert_eq!(summary(&controls[..1]), "a 1:2 (1.2 MB)");
        assert_eq!(summary(&controls), "a and 2 more packages (3.7 MB)");
    }
}
