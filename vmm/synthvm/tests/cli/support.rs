//! Support for tests: starting the program, and a directory for its files.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// The result of a run of the program.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A directory of its own for each test, removed on drop. The program is started in it.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("synthvm-cli-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Scratch(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Creates a file of `size` bytes.
    pub(crate) fn file(&self, name: &str, size: u64) {
        std::fs::File::create(self.0.join(name)).unwrap().set_len(size).unwrap();
    }

    /// Creates a bzImage that is complete but has no code (the boot protocol's header,
    /// Documentation/arch/x86/boot.rst).
    pub(crate) fn kernel(&self, name: &str) {
        let mut image = vec![0; 0x600 + 4096];
        let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
        put(0x1F1, &[2]);
        put(0x1F4, &256_u32.to_le_bytes());
        put(0x1FE, &[0x55, 0xAA]);
        put(0x201, b"\x6AHdrS");
        put(0x206, &0x020F_u16.to_le_bytes());
        put(0x211, &[1]);
        put(0x22C, &0x7FFF_FFFF_u32.to_le_bytes());
        put(0x230, &0x20_0000_u32.to_le_bytes());
        put(0x236, &1_u16.to_le_bytes());
        put(0x238, &2047_u32.to_le_bytes());
        put(0x258, &0x100_0000_u64.to_le_bytes());
        put(0x260, &0x200_0000_u32.to_le_bytes());
        std::fs::write(self.0.join(name), image).unwrap();
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.join(name), text).unwrap();
    }

    /// Returns the names in the directory and their sizes.
    fn listing(&self) -> Vec<(PathBuf, u64)> {
        let entries = std::fs::read_dir(&self.0).unwrap().map(|entry| {
            let path = entry.unwrap().path();
            let size = std::fs::symlink_metadata(&path).unwrap().len();
            (path, size)
        });
        let mut entries: Vec<_> = entries.collect();
        entries.sort();
        entries
    }

    /// Runs the program with these words and returns its result.
    pub(crate) fn synthvm(&self, words: &[&str]) -> Ended {
        let output = Command::new(env!("CARGO_BIN_EXE_synthvm"))
            .args(words)
            .current_dir(&self.0)
            .env_remove("SYNTHVM_LOG")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        Ended {
            status: output
                .status
                .code()
                .unwrap_or_else(|| panic!("{words:?} was killed: {output:?}")),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Expects that the program succeeds and writes nothing to standard error. Returns standard
    /// output.
    #[track_caller]
    pub(crate) fn accepts(&self, words: &[&str]) -> String {
        let ended = self.synthvm(words);
        assert_eq!((ended.status, ended.stderr.as_str()), (0, ""), "{words:?}");
        ended.stdout
    }

    /// Expects that a machine with the kernel `k` and these options is refused, like
    /// [`Scratch::refuses`].
    #[track_caller]
    pub(crate) fn refuses_run(&self, options: &[&str], status: i32, parts: &[&str]) {
        self.refuses(&[&["run", "--kernel", "k"], options].concat(), status, parts);
    }

    /// Expects that the program fails with this status and one line that contains these parts, and
    /// leaves the directory unchanged.
    #[track_caller]
    pub(crate) fn refuses(&self, words: &[&str], status: i32, parts: &[&str]) {
        let before = self.listing();
        let ended = self.synthvm(words);
        assert_eq!(ended.status, status, "{words:?}: {ended:?}");
        assert_eq!(ended.stdout, "", "{words:?}");
        let line = ended.stderr.strip_suffix('\n').unwrap_or(&ended.stderr);
        assert!(
            line.starts_with("synthvm: ") && !line.contains('\n'),
            "{words:?} must fail with one line: {ended:?}"
        );
        for part in parts {
            assert!(line.contains(part), "{words:?}: `{part}` is not in: {line}");
        }
        assert_eq!(self.listing(), before, "{words:?} left something behind");
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
