//! Disk images of an installed Debian that starts by itself: a partition table, an EFI system
//! partition with the distribution's signed boot loaders, and a root file system with its kernel and
//! systemd.
//!
//! Made from packages without any privilege: files belong to root only inside the image, because
//! `mke2fs` reads them from an archive. The same packages make the same bytes.

mod boot;
mod system;
mod tree;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use sha2::{Digest, Sha256};

pub use boot::GRUB_READY;

use crate::kernel::{Kernel, StockKernel};
use crate::logged::{self, Line};
use crate::packages::{Package, Packages, sha256_file};
use crate::programs::Programs;
use crate::progress::Task;
use crate::{Error, cache::Cache};

/// One mebibyte.
const MIB: u64 = 1 << 20;

/// The EFI system partition: start and size in bytes.
const ESP: (u64, u64) = (MIB, 64 * MIB);

/// The root partition: start and size in bytes.
const ROOT: (u64, u64) = (ESP.0 + ESP.1, 256 * MIB);

/// The size of the disk. The last mebibyte has the second partition table.
const DISK: u64 = ROOT.0 + ROOT.1 + MIB;

/// Bytes of a sector.
const SECTOR: u64 = 512;

/// The programs that make file systems. Those of trixie: an older `mke2fs` reads no archive.
const TOOLS: Programs = Programs {
    name: "disk-tools",
    suite: "trixie",
    programs: &[
        ("e2fsprogs", "usr/sbin/mke2fs"),
        ("fdisk", "usr/sbin/sfdisk"),
        ("mtools", "usr/bin/mtools"),
    ],
    libraries: &[("libarchive13t64", "usr/lib/x86_64-linux-gnu/libarchive.so.13")],
};

/// Images that were not used in this time are removed when another is made.
const UNUSED: Duration = Duration::from_secs(7 * 24 * 3600);

/// An installed Debian on a disk.
#[derive(Debug, Clone)]
pub struct DebianDisk {
    cache: Cache,
    release: StockKernel,
}

impl DebianDisk {
    /// Returns a builder of the Debian release that has this kernel.
    pub fn new(release: StockKernel) -> DebianDisk {
        DebianDisk { cache: Cache::project(), release }
    }

    /// Uses another cache than the project's.
    #[must_use]
    pub fn cache(mut self, cache: &Cache) -> DebianDisk {
        self.cache = cache.clone();
        self
    }

    /// Fetches missing parts and makes the raw image, which is sparse. Callers must not write to
    /// it: they copy it. The same parts are the same file, which is not made again.
    ///
    /// # Errors
    /// A package cannot be fetched, or a program fails.
    pub fn build(&self) -> Result<PathBuf, Error> {
        let cache = &self.cache;
        let suite = self.release.suite();
        let kernel = Kernel::stock(cache, self.release)?;
        let initrd = boot::initrd(cache, &kernel)?;
        let tree = system::tree(cache, suite, &kernel, initrd)?;
        let scratch = cache.scratch()?;
        let archive = scratch.path().join("root.tar");
        tree.write_tar(&archive)?;
        let loaders = loaders(cache, suite)?;
        let tools = TOOLS.folder(cache)?;

        let mut hash = Sha256::new();
        hash.update(sha256_file(&archive)?);
        hash.update(boot::stub());
        for (_, path) in &loaders {
            hash.update(sha256_file(path)?);
        }
        let sum: String =
            hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let path = cache.dir("disks")?.join(format!("debian-{suite}-{sum}.img"));
        if path.exists() {
            cache.touch(&path);
            return Ok(path);
        }
        cache.remove_older("disks", UNUSED);
        let task = Task::start(&format!("making a disk of Debian {suite}"));
        let image = scratch.path().join("image");
        let maker = Maker { cache, tools: &tools, image: &image };
        maker.partition()?;
        maker.make_root(&archive)?;
        maker.make_esp(&loaders, scratch.path())?;
        fs::rename(&image, &path).map_err(Error::file("moving into place", &path))?;
        task.finish();
        Ok(path)
    }
}

/// Returns the boot loaders' paths on the ESP and their files: the removable media's path, at which
/// firmware without boot entries looks, and the distribution's own.
fn loaders(cache: &Cache, suite: &str) -> Result<Vec<(&'static str, PathBuf)>, Error> {
    let suite = Packages::new(cache, suite);
    let get = |name: &str, path: &str| -> Result<PathBuf, Error> {
        let Package { root, .. } = suite.get(name)?;
        Ok(root.join(path))
    };
    let shim = get("shim-signed", "usr/lib/shim/shimx64.efi.signed")?;
    let grub = get("grub-efi-amd64-signed", "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed")?;
    Ok(vec![
        ("EFI/BOOT/BOOTX64.EFI", shim.clone()),
        ("EFI/BOOT/grubx64.efi", grub.clone()),
        ("EFI/debian/shimx64.efi", shim),
        ("EFI/debian/grubx64.efi", grub),
    ])
}

/// Makes one image.
struct Maker<'a> {
    cache: &'a Cache,
    tools: &'a Path,
    image: &'a Path,
}

impl Maker<'_> {
    /// Makes the empty image with its partition table.
    fn partition(&self) -> Result<(), Error> {
        let file = File::create(self.image).map_err(Error::file("making", self.image))?;
        file.set_len(DISK).map_err(Error::file("making", self.image))?;
        let (esp, root) = (ESP.0 / SECTOR, ROOT.0 / SECTOR);
        let script = format!(
            "label: gpt\n\
             label-id: 6a2c9a6e-7f0f-4d3c-9f5b-53796e746800\n\
             start={esp}, size={}, type=U, name=esp, uuid=6a2c9a6e-7f0f-4d3c-9f5b-53796e746802\n\
             start={root}, size={}, type=L, name={}, uuid=6a2c9a6e-7f0f-4d3c-9f5b-53796e746803\n",
            ESP.1 / SECTOR,
            ROOT.1 / SECTOR,
            boot::ROOT_PARTITION,
        );
        let mut command = self.command("sfdisk");
        command.args(["--quiet", "--no-reread", "--no-tell-kernel"]).arg(self.image);
        self.run_with_input(command, script.as_bytes())
    }

    fn make_root(&self, archive: &Path) -> Result<(), Error> {
        let mut command = self.command("mke2fs");
        command
            .args(["-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0", "-U", boot::ROOT_UUID])
            .arg("-E")
            .arg(format!(
                "offset={},hash_seed={},lazy_itable_init=0,root_owner=0:0",
                ROOT.0,
                boot::ROOT_UUID
            ))
            // GRUB of bookworm knows no larger set of features.
            .args(["-O", "^metadata_csum_seed,^orphan_file,^huge_file"])
            .arg("-d")
            .arg(archive)
            .arg(self.image)
            .arg((ROOT.1 / 4096).to_string());
        self.run(command)
    }

    fn make_esp(&self, loaders: &[(&str, PathBuf)], scratch: &Path) -> Result<(), Error> {
        let partition = format!("{}@@{}", self.image.display(), ESP.0);
        let mtools = |arguments: &[&str]| {
            let mut command = self.command("mtools");
            command.arg("-c").args(arguments);
            command
        };
        let sectors = (ESP.1 / SECTOR).to_string();
        // FAT32 with the fixed serial number, and one sector a cluster so that it is large enough.
        let format =
            ["mformat", "-i", &partition, "-F", "-c", "1", "-T", &sectors, "-N", "53594e54", "::"];
        self.run(mtools(&format))?;
        for folder in ["::EFI", "::EFI/BOOT", "::EFI/debian"] {
            self.run(mtools(&["mmd", "-i", &partition, folder]))?;
        }
        let stub = scratch.join("grub.cfg");
        fs::write(&stub, boot::stub()).map_err(Error::file("writing", &stub))?;
        let stub = ("EFI/debian/grub.cfg", stub);
        for (name, path) in loaders.iter().chain([&stub]) {
            let target = format!("::{name}");
            let mut command = mtools(&["mcopy", "-i", &partition]);
            command.arg(path).arg(target);
            self.run(command)?;
        }
        Ok(())
    }

    /// Returns a command that runs a tool with fixed times, so that it makes the same bytes.
    fn command(&self, tool: &str) -> Command {
        let mut command = Command::new(self.tools.join(tool));
        command
            .env("SOURCE_DATE_EPOCH", tree::TIME.to_string())
            .env("E2FSPROGS_FAKE_TIME", tree::TIME.to_string())
            .env("MTOOLSRC", "/dev/null")
            .env("MKE2FS_CONFIG", "/dev/null")
            .env("MTOOLS_SKIP_CHECK", "1")
            .env("TZ", "UTC")
            .env("LC_ALL", "C");
        command
    }

    fn run(&self, mut command: Command) -> Result<(), Error> {
        logged::run(self.cache, &mut command, "making a disk image", |_| Line::Keep)
    }

    /// Runs a program that reads its instructions from standard input.
    fn run_with_input(&self, mut command: Command, input: &[u8]) -> Result<(), Error> {
        let program = command.get_program().to_string_lossy().into_owned();
        let failed = |source| Error::Start { program: program.clone(), source };
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        if let Some(mut pipe) = child.stdin.take() {
            pipe.write_all(input).map_err(failed)?;
        }
        let output = child.wait_with_output().map_err(failed)?;
        if output.status.success() {
            return Ok(());
        }
        Err(Error::Program {
            program,
            status: output.status.to_string(),
            doing: "making a partition table".to_owned(),
            said: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}
