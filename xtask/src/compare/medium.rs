//! Where the two machines' images lie: on a file system that can do direct I/O, the same for both.

use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use guest_images::cache::target_dir;
use integration_tests::host::is_emulated;
use integration_tests::image::WorkDir;
use integration_tests::ram_disk::RamDisk;

/// Bytes of each image.
pub(super) const IMAGE_BYTES: u64 = 128 << 20;

/// Two images of the same content side by side. Removed when dropped.
#[derive(Debug)]
pub(super) struct Medium {
    images: [PathBuf; 2],
    /// How people are told where the images lie.
    pub(super) what: String,
    // Unmounted before its folder is removed.
    _ram_disk: Option<RamDisk>,
    _dir: WorkDir,
}

impl Medium {
    /// Makes the images. In an emulated host they lie on ext4 on a block device in memory, which
    /// the outside machine's files do not slow down; elsewhere in cargo's target folder.
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
            // Whole files: a request must not be the first that its blocks see.
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

    /// SynthVM's image.
    pub(super) fn ours(&self) -> &Path {
        &self.images[0]
    }

    /// The peer's image.
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
