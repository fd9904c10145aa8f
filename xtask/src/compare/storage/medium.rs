//! The images of the two machines, on one file system that supports direct I/O.

use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use guest_images::cache::target_dir;
use integration_tests::host::is_emulated;
use integration_tests::image::WorkDir;
use integration_tests::ram_disk::RamDisk;

/// Bytes of each image.
pub(super) const IMAGE_BYTES: u64 = 128 << 20;

/// Two images with the same content. Removed on drop.
#[derive(Debug)]
pub(super) struct Medium {
    images: [PathBuf; 2],
    /// A description of the images' location, for people.
    pub(super) what: String,
    // Unmounted before its folder is removed.
    _ram_disk: Option<RamDisk>,
    _dir: WorkDir,
}

impl Medium {
    /// Creates the images. In an emulated host they are on ext4 on a block device in memory, which
    /// file accesses of the outer machine do not slow down; otherwise in cargo's target folder.
    pub(super) fn new() -> Result<Medium, String> {
        let dir = WorkDir::new().map_err(|error| error.to_string())?;
        let (folder, ram_disk, what) = if is_emulated() {
            let ram_disk = RamDisk::mount(&dir)?;
            (
                ram_disk.folder().to_owned(),
                Some(ram_disk),
                "ext4 on a block device in memory".to_owned(),
            )
        } else {
            let folder = target_dir().join("compare");
            fs::create_dir_all(&folder)
                .map_err(|error| format!("{}: {error}", folder.display()))?;
            let what = format!("files in {}", folder.display());
            (folder, None, what)
        };
        let images = ["synthvm.img", "peer.img"].map(|name| folder.join(name));
        let medium = Medium { images, what, _ram_disk: ram_disk, _dir: dir };
        let first =
            medium._dir.image("image", IMAGE_BYTES, 1).map_err(|error| error.to_string())?;
        for image in &medium.images {
            // The files are fully allocated: no request must be the first one to its blocks.
            let copied = fs::copy(&first, image).and_then(|_| File::open(image)?.sync_all());
            copied.map_err(|error| format!("{}: {error}", image.display()))?;
            File::options().read(true).custom_flags(libc::O_DIRECT).open(image).map_err(
                |error| {
                    format!(
                        "{}: {error}; its file system must be able to do direct I/O",
                        image.display()
                    )
                },
            )?;
        }
        let _ = fs::remove_file(first);
        Ok(medium)
    }

    /// Returns SynthVM's image.
    pub(super) fn ours(&self) -> &Path {
        &self.images[0]
    }

    /// Returns the peer's image.
    pub(super) fn peers(&self) -> &Path {
        &self.images[1]
    }
}

impl Drop for Medium {
    fn drop(&mut self) {
        for image in &self.images {
            let _ = fs::remove_file(image);
        }
    }
}
