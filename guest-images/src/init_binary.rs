//! Builds the static programs that run as process 1 in guests and in the test host.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use crate::cache::{Cache, target_dir, workspace_dir};
use crate::progress::Task;
use crate::{Error, logged};

/// A static program of this workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InitBinary {
    /// Process 1 of a test guest.
    Guest,
    /// Process 1 of the test host.
    TestHost,
    /// Process 1 of the initial RAM disk of an installed system.
    Root,
}

impl InitBinary {
    fn name(self) -> &'static str {
        match self {
            InitBinary::Guest => "guest-init",
            InitBinary::TestHost => "host-init",
            InitBinary::Root => "root-init",
        }
    }

    /// Builds the program if its sources changed, and returns its bytes. It is small and needs no
    /// libraries: the initial RAM disk contains no others, and an emulated machine has to unpack
    /// it.
    pub fn build(self, cache: &Cache) -> Result<Vec<u8>, Error> {
        let print = hash_of(&["guest-images/init", "guest-images/report"], &[])?;
        let path = cache.root().join("init").join(format!("{}-{print}", self.name()));
        if let Ok(bytes) = fs::read(&path) {
            return Ok(bytes);
        }
        let _lock = cache.lock("init")?;
        if let Ok(bytes) = fs::read(&path) {
            return Ok(bytes);
        }
        let bytes = self.build_now(cache)?;
        cache.write(&path, &bytes)?;
        Ok(bytes)
    }

    fn build_now(self, cache: &Cache) -> Result<Vec<u8>, Error> {
        const TARGET: &str = "x86_64-unknown-linux-gnu";
        let task = Task::start(&format!("building {}", self.name()));
        // A separate target folder: the outer cargo may hold the lock of the usual one.
        let target = target_dir().join("init");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command
            .args(["build", "--release", "--package", "guest-init", "--bin", self.name()])
            .args(["--target", TARGET])
            .arg("--target-dir")
            .arg(&target)
            .current_dir(workspace_dir())
            .env("RUSTFLAGS", "-C target-feature=+crt-static -C relocation-model=static")
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "z")
            .env("CARGO_PROFILE_RELEASE_LTO", "fat")
            .env("CARGO_PROFILE_RELEASE_STRIP", "symbols")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env_remove("CARGO_BUILD_TARGET");
        logged::cargo(cache, &mut command, &format!("building {}", self.name()), &task)?;
        task.finish();
        let path = target.join(TARGET).join("release").join(self.name());
        fs::read(&path).map_err(Error::file("reading", &path))
    }
}

/// Returns a short hash of all files in these folders and of these files, with paths from the root
/// of the project's source.
pub(crate) fn hash_of(folders: &[&str], files: &[&str]) -> Result<String, Error> {
    let workspace = workspace_dir();
    let mut paths: Vec<PathBuf> = files.iter().map(|file| workspace.join(file)).collect();
    for folder in folders {
        collect(&workspace.join(folder), &mut paths)?;
    }
    paths.sort();
    let mut hash = Sha256::new();
    for path in paths {
        hash.update(path.strip_prefix(&workspace).unwrap_or(&path).to_string_lossy().as_bytes());
        hash.update(fs::read(&path).map_err(Error::file("reading", &path))?);
    }
    Ok(hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> Result<(), Error> {
    for entry in fs::read_dir(dir).map_err(Error::file("reading folder", dir))? {
        let path = entry.map_err(Error::file("reading folder", dir))?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}
