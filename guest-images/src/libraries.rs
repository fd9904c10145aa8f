//! The shared libraries that programs of unpacked packages need, found in the packages'
//! dependencies.
//!
//! Only packages that contain a needed library are wanted. Their content is known only after
//! unpacking; before that, a package's name must suffice, which by the distribution's rules is
//! derived from the library's, with few exceptions. So packages are fetched in rounds, those with
//! matching names first, and other dependencies only for libraries that are still missing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use object::elf::{DT_NEEDED, DT_RPATH, DT_RUNPATH, FileHeader64};
use object::read::elf::{Dyn, FileHeader};
use object::{Endianness, elf};

use crate::Error;
use crate::packages::{Package, Packages};

/// The loader's name, which is compiled into every program.
pub(crate) const LOADER: &str = "ld-linux-x86-64.so.2";

/// The name of a file's own folder in its list of library folders.
const ORIGIN: &str = "$ORIGIN";

/// Folders in which packages have libraries.
const FOLDERS: [&str; 2] = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"];

/// Finds libraries in packages and in their dependencies.
pub(crate) struct Libraries<'a> {
    suite: &'a Packages,
    /// Unpacked packages, which may contain libraries.
    packages: Vec<Package>,
    /// Names of packages that were requested, including those that the suite does not have.
    asked: BTreeSet<String>,
    /// Libraries that were found, by the names that programs request.
    found: BTreeMap<String, PathBuf>,
}

/// A library that a file needs and no unpacked package contains.
struct Missing {
    name: String,
    /// Index of the package whose file needs it: the package depends on the library's.
    owner: usize,
    /// The file's own library folders, without the first slash.
    folders: Vec<String>,
}

impl<'a> Libraries<'a> {
    /// Returns the libraries of programs in these packages.
    pub(crate) fn new(suite: &'a Packages, packages: &[Package]) -> Libraries<'a> {
        let asked = packages.iter().map(|package| package.name.clone()).collect();
        Libraries { suite, packages: packages.to_vec(), asked, found: BTreeMap::new() }
    }

    /// Returns all libraries that these files need, directly or indirectly, and the loader, by the
    /// names that programs request. Each file is given with its package.
    ///
    /// # Errors
    /// A file is no ELF file, no package contains a library, or a package cannot be fetched.
    pub(crate) fn of(
        mut self,
        files: &[(&Package, &Path)],
    ) -> Result<BTreeMap<String, PathBuf>, Error> {
        let mut missing = Vec::new();
        for (package, path) in files {
            let owner =
                self.packages.iter().position(|other| other == *package).unwrap_or_default();
            missing.push(Missing { name: LOADER.to_owned(), owner, folders: Vec::new() });
            missing.extend(needs_of(path, owner, &package.root)?);
        }
        loop {
            missing = self.settle(missing)?;
            let Some(first) = missing.first() else { return Ok(self.found) };
            let wanted = self.next_packages(&missing);
            if wanted.is_empty() {
                return Err(Error::Unusable(format!("no package brings {}", first.name)));
            }
            let names: Vec<&str> = wanted.iter().map(String::as_str).collect();
            self.packages.extend(self.suite.get_all(&names)?);
            self.asked.extend(wanted);
        }
    }

    /// Finds libraries in the unpacked packages, with their dependencies. Returns the missing ones.
    fn settle(&mut self, mut open: Vec<Missing>) -> Result<Vec<Missing>, Error> {
        let mut missing: Vec<Missing> = Vec::new();
        while let Some(need) = open.pop() {
            if self.found.contains_key(&need.name)
                || missing.iter().any(|other| other.name == need.name)
            {
                continue;
            }
            match self.find(&need) {
                Some((owner, path)) => {
                    open.extend(needs_of(&path, owner, &self.packages[owner].root)?);
                    self.found.insert(need.name, path);
                }
                None => missing.push(need),
            }
        }
        Ok(missing)
    }

    fn find(&self, need: &Missing) -> Option<(usize, PathBuf)> {
        let folders = || FOLDERS.iter().copied().chain(need.folders.iter().map(String::as_str));
        let in_package = |package: &Package| {
            folders()
                .map(|folder| package.root.join(folder).join(&need.name))
                .find(|path| path.is_file())
        };
        self.packages
            .iter()
            .enumerate()
            .find_map(|(owner, package)| Some((owner, in_package(package)?)))
    }

    /// Returns the packages to fetch next; none if no dependency is left.
    fn next_packages(&self, missing: &[Missing]) -> BTreeSet<String> {
        let left = |owner: usize| {
            let depends = self.packages.get(owner).map_or(&[][..], |package| &package.depends);
            depends.iter().filter(|name| !self.asked.contains(*name))
        };
        let by_name = missing.iter().flat_map(|need| {
            left(need.owner).filter(|package| is_package_of(package, &need.name)).cloned()
        });
        let by_name: BTreeSet<String> = by_name.collect();
        if !by_name.is_empty() {
            return by_name;
        }
        let Some(Missing { owner, .. }) = missing.first() else { return BTreeSet::new() };
        let everywhere = || (0..self.packages.len()).flat_map(left);
        // Packages of libraries have "lib" in their names; others come last.
        let library = |name: &&String| name.contains("lib");
        let tiers: [Vec<&String>; 4] = [
            left(*owner).filter(library).collect(),
            left(*owner).collect(),
            everywhere().filter(library).collect(),
            everywhere().collect(),
        ];
        let tier = tiers.into_iter().find(|tier| !tier.is_empty()).unwrap_or_default();
        tier.into_iter().cloned().collect()
    }
}

/// Returns whether a package's name is derived from a library's by the distribution's rules:
/// `libpng16.so.16` is in `libpng16-16`, and a suffix may follow (`libjpeg62-turbo`).
fn is_package_of(package: &str, library: &str) -> bool {
    let plain =
        |text: &str| -> String { text.chars().filter(char::is_ascii_alphanumeric).collect() };
    let Some((stem, version)) = library.split_once(".so.") else { return false };
    let name = plain(&stem.to_ascii_lowercase()) + &plain(version);
    let rest = plain(package);
    let rest = rest.strip_prefix(&name);
    // Another digit would be another version.
    rest.is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_digit()))
}

/// Returns the libraries that a file of a package, unpacked at `root`, needs.
fn needs_of(path: &Path, owner: usize, root: &Path) -> Result<Vec<Missing>, Error> {
    let bytes = fs::read(path).map_err(Error::file("reading", path))?;
    let needs =
        Needs::read(&bytes).map_err(|e| Error::Unusable(format!("{}: {e}", path.display())))?;
    let own = path.parent().and_then(|folder| folder.strip_prefix(root).ok());
    let own = own.map(|folder| folder.display().to_string()).unwrap_or_default();
    let folders = needs.folders.into_iter();
    let folders: Vec<String> =
        folders.map(|folder| if folder == ORIGIN { own.clone() } else { folder }).collect();
    let missing = |name| Missing { name, owner, folders: folders.clone() };
    Ok(needs.libraries.into_iter().map(missing).collect())
}

/// The dependencies of an ELF file.
#[derive(Debug, Default)]
struct Needs {
    libraries: Vec<String>,
    /// The file's own library folders, without the first slash.
    folders: Vec<String>,
}

impl Needs {
    fn read(bytes: &[u8]) -> Result<Needs, object::Error> {
        let header = FileHeader64::<Endianness>::parse(bytes)?;
        let endian = header.endian()?;
        let sections = header.sections(endian, bytes)?;
        let mut needs = Needs::default();
        let Some((entries, link)) = sections.dynamic(endian, bytes)? else { return Ok(needs) };
        let strings = sections.strings(endian, bytes, link)?;
        for entry in entries {
            let tag = entry.d_tag(endian);
            if tag == u64::from(elf::DT_NULL) {
                break;
            }
            if ![DT_NEEDED, DT_RPATH, DT_RUNPATH].map(u64::from).contains(&tag) {
                continue;
            }
            let text = String::from_utf8_lossy(entry.string(endian, strings)?);
            if tag == u64::from(DT_NEEDED) {
                needs.libraries.push(text.into_owned());
            } else {
                let folders = text.split(':').filter_map(|folder| {
                    if folder == ORIGIN { Some(folder) } else { folder.strip_prefix('/') }
                });
                needs.folders.extend(folders.map(str::to_owned));
            }
        }
        Ok(needs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Cache;

    #[test]
    fn test_needs_of_a_dynamic_program_has_the_c_library() {
        let path = std::env::current_exe().unwrap();
        let names = Needs::read(&fs::read(path).unwrap()).unwrap().libraries;
        assert!(names.iter().any(|name| name.starts_with("libc.so")), "{names:?}");
    }

    #[test]
    fn test_needs_of_something_else_is_an_error() {
        assert!(Needs::read(b"#!/bin/sh").is_err());
    }

    #[test]
    fn test_package_of_a_library_is_known_by_its_name() {
        for (package, library) in [
            ("libpng16-16", "libpng16.so.16"),
            ("libglib2.0-0", "libglib-2.0.so.0"),
            ("libgcc-s1", "libgcc_s.so.1"),
            ("libjpeg62-turbo", "libjpeg.so.62"),
            ("libc6", "libc.so.6"),
        ] {
            assert!(is_package_of(package, library), "{package} {library}");
        }
        for (package, library) in [
            ("libc6", "libc.so.60"),
            ("libfoo12", "libfoo.so.1"),
            ("libpng-tools", "libpng16.so.16"),
        ] {
            assert!(!is_package_of(package, library), "{package} {library}");
        }
    }

    /// Tests a program in a package that has more dependencies than it needs.
    #[test]
    fn test_libraries_of_a_program_are_found_without_fetching_other_dependencies() {
        let dir = std::env::temp_dir().join(format!("synthvm-libraries-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        let cache = Cache::at(dir.clone());
        let depends = ["libc6", "libgcc-s1", "libspice9", "perl"];
        let own = crate::packages::fake(&cache, "nowhere", "own", &depends);
        let program = own.root.join("usr/bin/own");
        fs::create_dir_all(program.parent().unwrap()).unwrap();
        fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        // This machine's libraries stand for those of the packages: libspice9 and perl do not
        // exist.
        for (package, names) in
            [("libc6", &["libc.so.6", "libm.so.6", LOADER][..]), ("libgcc-s1", &["libgcc_s.so.1"])]
        {
            let root = crate::packages::fake(&cache, "nowhere", package, &[]).root.join(FOLDERS[0]);
            fs::create_dir_all(&root).unwrap();
            for name in names {
                fs::copy(Path::new("/").join(FOLDERS[0]).join(name), root.join(name)).unwrap();
            }
        }
        let suite = Packages::new(&cache, "nowhere");
        let found =
            Libraries::new(&suite, std::slice::from_ref(&own)).of(&[(&own, &program)]).unwrap();
        assert!(found.contains_key("libc.so.6") && found.contains_key(LOADER), "{found:?}");
        fs::remove_dir_all(&dir).unwrap();
    }
}
