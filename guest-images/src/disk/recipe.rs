//! Writes partition tables and file systems into an image, with programs of packages.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::{boot, tree};
use crate::cache::Scratch;
use crate::logged::{self, Line};
use crate::packages::sha256_file;
use crate::programs::Programs;
use crate::progress::Task;
use crate::{Error, cache::Cache};

/// One mebibyte.
const MIB: u64 = 1 << 20;

/// Bytes of a sector.
const SECTOR: u64 = 512;

/// The EFI system partition: start and size in bytes. FAT32 needs 65,525 clusters.
const ESP: (u64, u64) = (MIB, 36 * MIB);

/// The root partition: start and size in bytes. Small, because every test copies the disk.
const ROOT: (u64, u64) = (ESP.0 + ESP.1, 128 * MIB);

/// The partition table ends with its second copy, for which this is more than enough.
const TABLE: u64 = MIB;

/// The identifiers of the disk and its two partitions in the partition table.
const IDS: [&str; 3] = [
    "6a2c9a6e-7f0f-4d3c-9f5b-53796e746800",
    "6a2c9a6e-7f0f-4d3c-9f5b-53796e746802",
    "6a2c9a6e-7f0f-4d3c-9f5b-53796e746803",
];

/// The version of the layout, which is part of an image's name. To be raised when this module
/// makes other bytes of the same files.
const LAYOUT: u32 = 1;

/// The programs that make file systems. Those of trixie: an older `mke2fs` reads no archive.
const TOOLS: Programs = Programs {
    name: "disk-tools",
    suite: "trixie",
    programs: &[
        ("e2fsprogs", "usr/sbin/mke2fs"),
        ("fdisk", "usr/sbin/sfdisk"),
        ("mtools", "usr/bin/mtools"),
        ("xorriso", "usr/bin/xorriso"),
    ],
    libraries: &[("libarchive13t64", "usr/lib/x86_64-linux-gnu/libarchive.so.13")],
};

/// Images that were not used in this time are removed when another is made.
const UNUSED: Duration = Duration::from_secs(7 * 24 * 3600);

/// The content of a disk.
#[derive(Debug)]
pub(super) struct Recipe {
    /// The start of the image's name.
    pub(super) name: String,
    /// The files of the EFI system partition, by their paths without the first slash.
    pub(super) esp: BTreeMap<String, Vec<u8>>,
    /// The archive of the root file system; without it, there is no such partition.
    pub(super) root: Option<PathBuf>,
}

impl Recipe {
    /// Returns the image, after making it if it is missing.
    ///
    /// # Errors
    /// A package cannot be fetched, or a program fails.
    pub(super) fn build(&self, cache: &Cache) -> Result<PathBuf, Error> {
        let mut hash = Sha256::new();
        hash.update(LAYOUT.to_le_bytes());
        for (name, bytes) in &self.esp {
            hash.update(format!("{name}\0{}\0", bytes.len()));
            hash.update(bytes);
        }
        if let Some(archive) = &self.root {
            hash.update(sha256_file(archive)?);
        }
        make(cache, &format!("{}-{}.img", self.name, sum(hash)), |maker| {
            self.partition(maker)?;
            maker.make_fat(ESP, &self.esp)?;
            match &self.root {
                Some(archive) => maker.make_ext4(ROOT, archive),
                None => Ok(()),
            }
        })
    }

    /// Makes the empty image with its partition table.
    fn partition(&self, maker: &Maker<'_>) -> Result<(), Error> {
        let end = if self.root.is_some() { ROOT.0 + ROOT.1 } else { ESP.0 + ESP.1 };
        maker.make_empty(end + TABLE)?;
        let [disk, esp, root] = IDS;
        let line = |(start, size): (u64, u64), kind: &str, name: &str, id: &str| {
            let (start, size) = (start / SECTOR, size / SECTOR);
            format!("start={start}, size={size}, type={kind}, name={name}, uuid={id}\n")
        };
        let mut script = format!("label: gpt\nlabel-id: {disk}\n");
        script.push_str(&line(ESP, "U", "esp", esp));
        if self.root.is_some() {
            script.push_str(&line(ROOT, "L", boot::ROOT_PARTITION, root));
        }
        maker.run_with_input("sfdisk", &["--quiet", "--no-reread", "--no-tell-kernel"], &script)
    }
}

/// Returns the image with this name, after making it with `write` if it is missing.
pub(super) fn make(
    cache: &Cache,
    name: &str,
    write: impl FnOnce(&Maker<'_>) -> Result<(), Error>,
) -> Result<PathBuf, Error> {
    let path = cache.dir("disks")?.join(name);
    if path.exists() {
        cache.touch(&path);
        return Ok(path);
    }
    cache.remove_older("disks", UNUSED);
    let tools = TOOLS.folder(cache)?;
    let task = Task::start(&format!("making {name}"));
    let scratch = cache.scratch()?;
    let image = scratch.path().join("image");
    write(&Maker { cache, tools, scratch: &scratch, image: &image })?;
    fs::rename(&image, &path).map_err(Error::file("moving into place", &path))?;
    task.finish();
    Ok(path)
}

/// Returns the part of an image's name that depends on its content.
pub(super) fn sum(hash: Sha256) -> String {
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Makes one image.
pub(super) struct Maker<'a> {
    cache: &'a Cache,
    tools: PathBuf,
    scratch: &'a Scratch,
    image: &'a Path,
}

impl Maker<'_> {
    /// Returns the path of the image.
    pub(super) fn image(&self) -> &Path {
        self.image
    }

    /// Makes the image with this size in bytes.
    pub(super) fn make_empty(&self, size: u64) -> Result<(), Error> {
        let file = File::create(self.image).map_err(Error::file("making", self.image))?;
        file.set_len(size).map_err(Error::file("making", self.image))
    }

    /// Makes a FAT32 file system in a part of the image, given by start and size in bytes.
    pub(super) fn make_fat(
        &self,
        (start, size): (u64, u64),
        files: &BTreeMap<String, Vec<u8>>,
    ) -> Result<(), Error> {
        let folder = self.write_folder("fat", files)?;
        let partition = format!("{}@@{start}", self.image.display());
        let sectors = (size / SECTOR).to_string();
        // A fixed serial number, and one sector a cluster: FAT32 has a least number of clusters.
        let format =
            ["mformat", "-i", &partition, "-F", "-c", "1", "-T", &sectors, "-N", "53594e54", "::"];
        self.run(self.command("mtools").arg("-c").args(format))?;
        let mut copy = self.command("mtools");
        copy.args(["-c", "mcopy", "-s", "-i", &partition]);
        for entry in fs::read_dir(&folder).map_err(Error::file("reading folder", &folder))? {
            copy.arg(entry.map_err(Error::file("reading folder", &folder))?.path());
        }
        self.run(copy.arg("::"))
    }

    /// Makes an ext4 file system of an archive in a part of the image.
    fn make_ext4(&self, (start, size): (u64, u64), archive: &Path) -> Result<(), Error> {
        let id = boot::ROOT_UUID;
        let options = format!("offset={start},hash_seed={id},lazy_itable_init=0,root_owner=0:0");
        let mut command = self.command("mke2fs");
        command
            .args(["-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0", "-U", id, "-E", &options])
            // GRUB of bookworm does not know the newer features.
            .args(["-O", "^metadata_csum_seed,^orphan_file,^huge_file"])
            .arg("-d")
            .arg(archive)
            .arg(self.image)
            .arg((size / 4096).to_string());
        self.run(&mut command)
    }

    /// Writes files into a new folder. Returns its path.
    pub(super) fn write_folder(
        &self,
        name: &str,
        files: &BTreeMap<String, Vec<u8>>,
    ) -> Result<PathBuf, Error> {
        let folder = self.scratch.path().join(name);
        for (name, bytes) in files {
            let path = folder.join(name);
            let parent = path.parent().unwrap_or(&folder);
            fs::create_dir_all(parent).map_err(Error::file("making folder", parent))?;
            fs::write(&path, bytes).map_err(Error::file("writing", &path))?;
        }
        Ok(folder)
    }

    /// Returns a command that runs a tool with fixed times, so that it makes the same bytes.
    pub(super) fn command(&self, tool: &str) -> Command {
        fixed(&self.tools.join(tool))
    }

    /// Runs a command of [`Maker::command`].
    pub(super) fn run(&self, command: &mut Command) -> Result<(), Error> {
        logged::run(self.cache, command, "making a disk image", |_| Line::Keep)
    }

    /// Runs a tool on the image with a text on its standard input.
    fn run_with_input(&self, tool: &str, arguments: &[&str], text: &str) -> Result<(), Error> {
        let input = self.scratch.path().join("input");
        fs::write(&input, text).map_err(Error::file("writing", &input))?;
        // The log's runner gives programs no standard input, so a shell opens it.
        let mut command = fixed(Path::new("/bin/sh"));
        command
            .args(["-c", "input=$1; shift; exec \"$@\" <\"$input\"", "sh"])
            .arg(&input)
            .arg(self.tools.join(tool))
            .args(arguments)
            .arg(self.image);
        self.run(&mut command)
    }
}

/// Returns a command whose tool uses fixed times and none of the user's configuration.
fn fixed(program: &Path) -> Command {
    let mut command = Command::new(program);
    let time = tree::TIME.to_string();
    command
        .envs([("SOURCE_DATE_EPOCH", &time), ("E2FSPROGS_FAKE_TIME", &time)])
        .envs([("TZ", "UTC"), ("LC_ALL", "C"), ("MTOOLS_SKIP_CHECK", "1")])
        .envs([("MTOOLSRC", "/dev/null"), ("MKE2FS_CONFIG", "/dev/null")]);
    command
}
