//! Helpers for several tests of images.

#![allow(dead_code, reason = "each test uses some of it")]

pub(crate) mod crash;
pub(crate) mod qcow2;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use synthvm_block::conformance::one;
use synthvm_block::{Backend, Operation};
use vmm_sys_util::tempdir::TempDir;

/// A folder for one test, which is removed when dropped.
pub(crate) struct Folder {
    folder: TempDir,
    count: AtomicU32,
}

impl Folder {
    pub(crate) fn new() -> Self {
        Self { folder: TempDir::new().unwrap(), count: AtomicU32::new(0) }
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.folder.as_path().join(name)
    }

    /// Returns a new path that ends in `name`.
    pub(crate) fn unique(&self, name: &str) -> PathBuf {
        self.join(&format!("{}-{name}", self.count.fetch_add(1, Ordering::Relaxed)))
    }
}

/// The variable with the folder of QEMU's programs; `cargo xtask test` sets it. Without it, the
/// programs are looked up in `$PATH`.
const QEMU_FOLDER: &str = "SYNTHVM_QEMU";

/// Returns a call of one of QEMU's programs, such as `qemu-img`.
pub(crate) fn qemu_command(program: &str) -> Command {
    match std::env::var_os(QEMU_FOLDER) {
        Some(folder) => Command::new(Path::new(&folder).join(program)),
        None => Command::new(program),
    }
}

/// Runs one of QEMU's programs to its end and returns its output.
///
/// # Panics
/// The program failed, or does not exist.
pub(crate) fn qemu(program: &str, arguments: &[&str]) -> String {
    let output = qemu_output(program, arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}\n{text}\n{errors}",
        output.status
    );
    text
}

/// Runs one of QEMU's programs to its end and returns its status and output, for a caller that
/// judges failure.
///
/// # Panics
/// The program does not exist.
pub(crate) fn qemu_output(program: &str, arguments: &[&str]) -> Output {
    qemu_command(program).args(arguments).output().unwrap_or_else(|error| {
        panic!(
            "{program}: {error}; run these tests by `cargo xtask test`, which fetches QEMU's \
            programs \
             and installs nothing, or set {QEMU_FOLDER} to what `cargo xtask qemu` prints"
        )
    })
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

pub(crate) fn write(backend: &Arc<dyn Backend>, offset: u64, bytes: Vec<u8>) {
    one(&mut *backend.queue().unwrap(), Operation::Write { fua: false }, offset, bytes).unwrap();
}

pub(crate) fn read(backend: &Arc<dyn Backend>, offset: u64, length: usize) -> Vec<u8> {
    one(&mut *backend.queue().unwrap(), Operation::Read, offset, vec![0xA5; length]).unwrap()
}

pub(crate) fn flush(backend: &Arc<dyn Backend>) {
    one(&mut *backend.queue().unwrap(), Operation::Flush, 0, Vec::new()).unwrap();
}

/// A generator of the same numbers in each run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).take(length).collect()
    }
}
