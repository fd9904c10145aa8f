//! A kernel's modules: their files, dependencies and bytes.
//!
//! Distribution packages contain no `modules.dep` (the installer generates it), so dependencies are
//! read from the main source of `depmod`: each module's own `.modinfo` section.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use object::{Object, ObjectSection};

use crate::Error;

/// The modules below a folder.
#[derive(Debug)]
pub struct Modules {
    files: BTreeMap<String, PathBuf>,
    builtin: BTreeSet<String>,
}

/// A module that can be loaded into the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// The name that the kernel shows, with underscores.
    pub name: String,
    /// All direct and indirect dependencies, in load order.
    pub needs: Vec<String>,
    /// The uncompressed module.
    pub bytes: Vec<u8>,
}

impl Modules {
    /// Searches for modules below a folder such as `/lib/modules/6.1.0-1-amd64`.
    ///
    /// # Errors
    /// The folder cannot be read or contains no module.
    pub fn find(dir: &Path) -> Result<Modules, Error> {
        let mut files = BTreeMap::new();
        let mut folders = vec![dir.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).map_err(Error::file("reading folder", &folder))? {
                let entry = entry.map_err(Error::file("reading folder", &folder))?;
                let path = entry.path();
                let kind = entry.file_type().map_err(Error::file("looking at", &path))?;
                if kind.is_dir() {
                    folders.push(path);
                } else if let Some(name) = module_name(&path) {
                    files.insert(name, path);
                }
            }
        }
        if files.is_empty() {
            return Err(Error::Unusable(format!("{} holds no kernel modules", dir.display())));
        }
        let list = fs::read_to_string(dir.join("modules.builtin")).unwrap_or_default();
        let builtin = list.lines().filter_map(|line| module_name(Path::new(line))).collect();
        Ok(Modules { files, builtin })
    }

    /// Returns the wanted modules and all dependencies, in load order. Modules that are built into
    /// the kernel or do not exist are omitted.
    pub fn load_order<S: AsRef<str>>(&self, wanted: &[S]) -> Result<Vec<Module>, Error> {
        let mut order = Order { modules: self, done: BTreeSet::new(), found: Vec::new() };
        for name in wanted {
            order.add(&name.as_ref().replace('-', "_"))?;
        }
        Ok(order.found)
    }

    /// Returns whether the module is a file of this set or built into the kernel.
    pub fn has(&self, name: &str) -> bool {
        let name = name.replace('-', "_");
        self.files.contains_key(&name) || self.builtin.contains(&name)
    }
}

struct Order<'a> {
    modules: &'a Modules,
    done: BTreeSet<String>,
    found: Vec<Module>,
}

impl Order<'_> {
    fn add(&mut self, name: &str) -> Result<(), Error> {
        if !self.done.insert(name.to_owned()) {
            return Ok(());
        }
        let Some(path) = self.modules.files.get(name) else { return Ok(()) };
        let bytes = read_module(path)?;
        let direct = dependencies(&bytes, path)?;
        for needed in &direct {
            self.add(needed)?;
        }
        let needs = self.all_needs(&direct);
        self.found.push(Module { name: name.to_owned(), needs, bytes });
        Ok(())
    }

    /// Returns direct and indirect dependencies, in load order. Those of modules found before are
    /// known.
    fn all_needs(&self, direct: &[String]) -> Vec<String> {
        let wanted: BTreeSet<&str> = self
            .found
            .iter()
            .filter(|module| direct.contains(&module.name))
            .flat_map(|module| {
                module.needs.iter().map(String::as_str).chain([module.name.as_str()])
            })
            .collect();
        let names = self.found.iter().map(|module| module.name.as_str());
        names.filter(|name| wanted.contains(name)).map(str::to_owned).collect()
    }
}

/// Adds modules to an archive, in the layout that the process-1 programs use.
pub fn pack(modules: &[Module], archive: &mut crate::cpio::Archive) {
    let mut order = String::new();
    for module in modules {
        order.push_str(&module.name);
        for needed in &module.needs {
            order.push(' ');
            order.push_str(needed);
        }
        order.push('\n');
        archive.file(&format!("modules/{}.ko", module.name), 0o644, &module.bytes);
    }
    archive.file("modules/order", 0o644, order.as_bytes());
}

/// Returns the module's name: `9p` for `kernel/fs/9p/9p.ko.xz`.
fn module_name(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    let (name, rest) = file.split_once(".ko")?;
    matches!(rest, "" | ".xz" | ".zst" | ".gz").then(|| name.replace('-', "_"))
}

fn read_module(path: &Path) -> Result<Vec<u8>, Error> {
    let bytes = fs::read(path).map_err(Error::file("reading", path))?;
    match path.extension().and_then(|e| e.to_str()) {
        Some("xz") => {
            let mut plain = Vec::new();
            let mut reader = lzma_rust2::XzReader::new(bytes.as_slice(), true);
            std::io::copy(&mut reader, &mut plain).map_err(Error::file("unpacking", path))?;
            Ok(plain)
        }
        Some("zst") => unpack_with("zstd", path),
        Some("gz") => unpack_with("gzip", path),
        _ => Ok(bytes),
    }
}

/// Unpacks a module with a program. Distributions that compress modules install the program by
/// default.
fn unpack_with(tool: &str, path: &Path) -> Result<Vec<u8>, Error> {
    let output = Command::new(tool)
        .arg("-dc")
        .arg(path)
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Error::Start { program: tool.to_owned(), source })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(Error::Program {
        program: tool.to_owned(),
        status: output.status.to_string(),
        doing: format!("unpacking {}", path.display()),
        said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

fn dependencies(module: &[u8], path: &Path) -> Result<Vec<String>, Error> {
    let unusable =
        |why: String| Error::Unusable(format!("{} is no kernel module: {why}", path.display()));
    let file = object::File::parse(module).map_err(|e| unusable(e.to_string()))?;
    let Some(section) = file.section_by_name(".modinfo") else {
        return Err(unusable("it has no .modinfo".to_owned()));
    };
    let info = section.data().map_err(|e| unusable(e.to_string()))?;
    Ok(parse_dependencies(info))
}

/// Returns the names in `depends=` and in `softdep=pre:`, in order.
fn parse_dependencies(info: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for field in info.split(|byte| *byte == 0) {
        let text = String::from_utf8_lossy(field);
        if let Some(list) = text.strip_prefix("depends=") {
            found.extend(
                list.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")),
            );
        } else if let Some(soft) = text.strip_prefix("softdep=") {
            let words = soft.split_whitespace().skip_while(|word| *word != "pre:").skip(1);
            found.extend(
                words.take_while(|word| *word != "post:").map(|name| name.replace('-', "_")),
            );
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_module_names_of_every_packing_are_the_kernels() {
        let name = |path: &str| module_name(Path::new(path));
        assert_eq!(name("kernel/fs/9p/9p.ko"), Some("9p".to_owned()));
        assert_eq!(name("kernel/arch/x86/kvm/kvm-amd.ko.xz"), Some("kvm_amd".to_owned()));
        assert_eq!(name("a/b.ko.zst"), Some("b".to_owned()));
        assert_eq!(name("modules.order"), None);
        assert_eq!(name("x.ko.sig"), None);
    }

    #[test]
    fn test_dependencies_come_from_depends_and_soft_pre() {
        let info =
            b"license=GPL\0depends=jbd2,mb-cache\0softdep=pre: crc32c post: late\0depends=\0";
        assert_eq!(parse_dependencies(info), ["jbd2", "mb_cache", "crc32c"]);
    }

    #[test]
    fn test_dependencies_of_a_file_that_is_no_module_name_the_file() {
        let error = dependencies(b"not elf", Path::new("/x/y.ko")).unwrap_err().to_string();
        assert!(error.contains("/x/y.ko"), "{error}");
    }

    #[test]
    fn test_find_in_a_folder_without_modules_is_refused() {
        let dir = std::env::temp_dir().join(format!("synthvm-kmods-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        assert!(Modules::find(&dir).unwrap_err().to_string().contains("no kernel modules"));
        fs::remove_dir_all(&dir).unwrap();
    }
}
