//! Disk images from the host's side.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use guest_report::agent::Load;
use guest_report::{pattern, records};

/// A folder for one test, removed on drop.
#[derive(Debug)]
pub struct WorkDir {
    path: PathBuf,
}

impl WorkDir {
    /// Creates a folder below the system's folder for temporary files.
    pub fn new() -> io::Result<WorkDir> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("synthvm-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path)?;
        Ok(WorkDir { path })
    }

    /// Returns the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Creates an image of `size` bytes, filled with the pattern of a seed.
    pub fn image(&self, name: &str, size: u64, seed: u64) -> io::Result<PathBuf> {
        let path = self.path.join(name);
        let mut file = File::create(&path)?;
        let mut buffer = vec![0; 1 << 20];
        let mut at = 0;
        while at < size {
            let piece = usize::try_from(size - at).unwrap_or(usize::MAX).min(buffer.len());
            pattern::fill(&mut buffer[..piece], seed, at);
            file.write_all(&buffer[..piece])?;
            at += piece as u64;
        }
        Ok(path)
    }

    /// Creates a copy of an image, in which blocks of zeros take no space.
    pub fn copy(&self, name: &str, from: &Path) -> io::Result<PathBuf> {
        let path = self.path.join(name);
        let (mut source, copy) = (File::open(from)?, File::create(&path)?);
        let mut buffer = vec![0; 256 << 10];
        let mut at = 0;
        loop {
            let length = source.read(&mut buffer)?;
            if length == 0 {
                copy.set_len(at)?;
                return Ok(path);
            }
            let piece = &buffer[..length];
            if piece.iter().any(|byte| *byte != 0) {
                copy.write_all_at(piece, at)?;
            }
            at += length as u64;
        }
    }

    /// Creates an image of `size` zero bytes.
    pub fn empty_image(&self, name: &str, size: u64) -> io::Result<PathBuf> {
        let path = self.path.join(name);
        File::create(&path)?.set_len(size)?;
        Ok(path)
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Returns the first byte of a range that differs from the pattern; `None` if all match.
pub fn first_difference(
    path: &Path,
    offset: u64,
    length: u64,
    seed: u64,
) -> io::Result<Option<u64>> {
    let file = File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    let mut done = 0;
    while done < length {
        let piece = usize::try_from(length - done).unwrap_or(usize::MAX).min(buffer.len());
        file.read_exact_at(&mut buffer[..piece], offset + done)?;
        if let Some(place) = pattern::first_difference(&buffer[..piece], seed, offset + done) {
            return Ok(Some(place));
        }
        done += piece as u64;
    }
    Ok(None)
}

/// Checks that an image holds every record that a load acknowledged.
///
/// # Errors
/// A message that names the missing records.
pub fn check_records(path: &Path, load: &Load, acknowledged: u64) -> Result<(), String> {
    let file = File::open(path).map_err(|e| format!("{}: {e}", path.display()))?;
    records::check(acknowledged, load.seed, load.blocks, load.order, |block| {
        let mut bytes = vec![0; records::RECORD_SIZE];
        file.read_exact_at(&mut bytes, block * records::RECORD_SIZE as u64)?;
        Ok(bytes)
    })
}

/// Returns the end of a text file; an empty string if it cannot be read.
pub(crate) fn tail(path: &Path, bytes: usize) -> String {
    let text = fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&text[text.len().saturating_sub(bytes)..]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_copy_has_the_same_bytes_also_at_a_hole_at_the_end() {
        let dir = WorkDir::new().unwrap();
        let path = dir.image("a", 300_000, 5).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(1 << 20).unwrap();
        let copy = dir.copy("b", &path).unwrap();
        assert_eq!(fs::read(&copy).unwrap(), fs::read(&path).unwrap());
    }

    #[test]
    fn test_image_is_its_pattern_and_a_change_is_found() {
        let dir = WorkDir::new().unwrap();
        let path = dir.image("a", 3_000_000, 5).unwrap();
        assert_eq!(first_difference(&path, 0, 3_000_000, 5).unwrap(), None);
        File::options().write(true).open(&path).unwrap().write_all_at(&[0; 8], 2_500_000).unwrap();
        let place = first_difference(&path, 1 << 20, 1_900_000, 5).unwrap().unwrap();
        assert!((2_500_000..2_500_008).contains(&place));
        assert!(first_difference(&path, 0, 3_000_001, 5).is_err());
    }
}
