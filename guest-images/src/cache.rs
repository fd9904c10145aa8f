//! The folder of all fetched and built files, and the lock that lets several processes share it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use crate::Error;

/// The cache folder. Entries are made next to their path and then renamed, so an existing entry is
/// complete.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// Returns the project's cache: `$SYNTHVM_CACHE`, or `guest-images` in cargo's target folder.
    pub fn project() -> Cache {
        match std::env::var_os("SYNTHVM_CACHE") {
            Some(dir) => Cache::at(PathBuf::from(dir)),
            None => Cache::at(target_dir().join("guest-images")),
        }
    }

    /// Returns a cache in the given folder.
    pub fn at(root: PathBuf) -> Cache {
        Cache { root }
    }

    /// Returns the folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns a folder inside the cache, after creating it if it is missing.
    pub fn dir(&self, name: &str) -> Result<PathBuf, Error> {
        let path = self.root.join(name);
        fs::create_dir_all(&path).map_err(Error::file("making folder", &path))?;
        Ok(path)
    }

    /// Waits until no other process (or thread) holds the lock with this name. The lock is released
    /// on drop, or when the process ends.
    pub fn lock(&self, name: &str) -> Result<CacheLock, Error> {
        let path = self.dir("locks")?.join(name);
        let file = File::create(&path).map_err(Error::file("making lock file", &path))?;
        file.lock().map_err(Error::file("locking", &path))?;
        Ok(CacheLock { _file: file })
    }

    /// Returns a new empty folder inside the cache for work in progress.
    pub fn scratch(&self) -> Result<Scratch, Error> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("work/{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = self.root.join(&name);
        // An earlier process with this id may have left the folder.
        let _ = fs::remove_dir_all(&path);
        Ok(Scratch { path: self.dir(&name)? })
    }

    /// Marks a file as used now.
    pub fn touch(&self, path: &Path) {
        // Only a hint for remove_older: a read-only cache remains usable.
        let _ = File::options()
            .append(true)
            .open(path)
            .and_then(|file| file.set_modified(SystemTime::now()));
    }

    /// Removes the files of a folder that were not used for `unused`.
    pub fn remove_older(&self, folder: &str, unused: Duration) {
        let now = SystemTime::now();
        for entry in fs::read_dir(self.root.join(folder)).into_iter().flatten().flatten() {
            let used = entry.metadata().and_then(|data| data.modified());
            if used.is_ok_and(|used| now.duration_since(used).is_ok_and(|age| age > unused)) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Writes a file atomically: readers see either the new content or the old.
    pub fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        let scratch = self.scratch()?;
        let new = scratch.path().join("new");
        fs::write(&new, bytes).map_err(Error::file("writing", &new))?;
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(Error::file("making folder", parent))?;
        }
        fs::rename(&new, path).map_err(Error::file("moving into place", path))
    }
}

/// A lock on a part of the cache, for one process at a time.
#[derive(Debug)]
pub struct CacheLock {
    _file: File,
}

/// A folder for work in progress, removed on drop.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Returns the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Returns the root folder of this project's source.
pub fn workspace_dir() -> PathBuf {
    // This crate is one folder below the root.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default()
}

/// Returns cargo's target folder: `$CARGO_TARGET_DIR`, or `target` in the root folder.
pub fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => workspace_dir().join(dir),
        None => workspace_dir().join("target"),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Returns an empty cache for the test `name`.
    pub(crate) fn cache(name: &str) -> Cache {
        let dir = std::env::temp_dir().join(format!("synthvm-cache-{}-{name}", process::id()));
        let _ = fs::remove_dir_all(&dir);
        Cache::at(dir)
    }

    #[test]
    fn test_write_over_an_old_file_replaces_it_whole() {
        let cache = cache("write");
        let path = cache.root().join("a/b");
        cache.write(&path, b"one").unwrap();
        cache.write(&path, b"2").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"2");
        fs::remove_dir_all(cache.root()).unwrap();
    }

    #[test]
    fn test_remove_older_keeps_what_was_touched() {
        let cache = cache("older");
        let old = SystemTime::now() - Duration::from_secs(1000);
        for name in ["unused", "used"] {
            let path = cache.root().join("x").join(name);
            cache.write(&path, b"").unwrap();
            File::options().append(true).open(&path).unwrap().set_modified(old).unwrap();
        }
        cache.touch(&cache.root().join("x/used"));
        cache.remove_older("x", Duration::from_secs(500));
        assert!(!cache.root().join("x/unused").exists());
        assert!(cache.root().join("x/used").exists());
        fs::remove_dir_all(cache.root()).unwrap();
    }

    #[test]
    fn test_scratch_dropped_is_gone() {
        let cache = cache("scratch");
        let scratch = cache.scratch().unwrap();
        let path = scratch.path().to_owned();
        fs::write(path.join("x"), "y").unwrap();
        drop(scratch);
        assert!(!path.exists());
        fs::remove_dir_all(cache.root()).unwrap();
    }

    #[test]
    fn test_lock_held_keeps_a_second_holder_out() {
        let cache = cache("lock");
        let held = cache.lock("x").unwrap();
        let second = File::open(cache.root().join("locks/x")).unwrap();
        assert!(second.try_lock().is_err());
        drop(held);
        assert!(second.try_lock().is_ok());
        fs::remove_dir_all(cache.root()).unwrap();
    }
}
