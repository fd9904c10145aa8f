//! Full storage, and real block devices, if this machine permits them.

use std::fs::File;
use std::process::Command;

use super::super::*;
use super::image;
use crate::Operation;
use crate::conformance::{CAPACITY, check, check_reopen, one, over};

const ENV: &str = "SYNTHVM_STORAGE_TEST_FULL";
const MIB: u64 = 1 << 20;

/// A process in a mount namespace with 4 MiB in `/mnt`, and no test of its own.
#[test]
fn test_full_helper_process() {
    if std::env::var_os(ENV).is_none() {
        return;
    }
    for io in [IoMode::Sync, IoMode::Threads, IoMode::Auto] {
        let path = Path::new("/mnt/disk.img");
        File::create(path).unwrap().set_len(16 * MIB).unwrap();
        let raw = RawFile::open_with(path, &RawOptions { io, ..RawOptions::default() }).unwrap();
        assert!(raw.geometry().discard.is_some(), "tmpfs has holes");
        let mut queue = raw.queue().unwrap();
        let write = |fua, at: u64, queue: &mut dyn Queue| {
            one(queue, Operation::Write { fua }, at * MIB, vec![at as u8 + 1; MIB as usize])
                .map(drop)
        };
        let full = (0..16)
            .find(|&at| write(false, at, &mut *queue).is_err())
            .expect("4 MiB are soon full");
        assert_eq!(write(false, full, &mut *queue), Err(IoError::NoSpace));
        assert_eq!(write(true, full + 1, &mut *queue), Err(IoError::NoSpace));
        // Later requests work: the written data is there, also durably, and can be written again.
        assert_eq!(one(&mut *queue, Operation::Flush, 0, vec![]), Ok(vec![]));
        for at in 0..full {
            let bytes = one(&mut *queue, Operation::Read, at * MIB, vec![0; MIB as usize]).unwrap();
            assert!(bytes.iter().all(|&byte| byte == at as u8 + 1));
        }
        write(false, 0, &mut *queue).unwrap();
        // Discarding releases space.
        over(&mut *queue, Operation::Discard, 0, 2 * MIB).unwrap();
        assert!(!raw.extent(0).unwrap().mapped);
        write(true, 12, &mut *queue).unwrap();
        std::fs::remove_file(path).unwrap();
    }
    std::process::exit(42);
}

#[test]
fn test_full_file_system_fails_writes_with_no_space_and_recovers_by_discard() {
    let script = "mount -t tmpfs -o size=4m none /mnt && exec \"$0\" \"$@\"";
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "raw::tests::full::test_full_helper_process"])
        .env(ENV, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    match output.status.code() {
        Some(42) => {}
        // Messages of `unshare` and `mount` themselves: the test may be skipped only if namespaces
        // or mounts are forbidden.
        _ if said.starts_with("unshare:") || said.starts_with("mount:") => {
            eprintln!("left out: {said}");
        }
        code => panic!("the helper ended with {code:?}: {said}"),
    }
}

/// A loop device over a file, which is detached when this is dropped.
struct Loop(PathBuf);

impl Loop {
    /// Returns a loop device over `file`. `None`: this machine permits none.
    fn over(file: &Path) -> Option<Self> {
        let output = Command::new("losetup").args(["--find", "--show"]).arg(file).output().ok()?;
        let name = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| Self(name.trim().into()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.0).status();
    }
}

#[test]
fn test_block_device_conforms_by_every_way() {
    for io in [IoMode::Sync, IoMode::Threads, IoMode::Auto] {
        for cache in [CacheMode::Writeback, CacheMode::None] {
            let devices = std::cell::RefCell::new(Vec::new());
            let open = |device: &Loop| {
                RawFile::open_with(&device.0, &RawOptions { cache, io, ..RawOptions::default() })
                    .unwrap()
            };
            let probe = image(CAPACITY);
            let Some(device) = Loop::over(probe.as_path()) else {
                eprintln!("left out: no loop devices here");
                return;
            };
            assert!(open(&device).geometry().discard.is_some(), "loop devices discard");
            assert_eq!(open(&device).resize(CAPACITY), Ok(()), "the size it has");
            check_reopen(|| Arc::new(open(&device)));
            check(|| {
                let file = image(CAPACITY);
                let device = Loop::over(file.as_path()).unwrap();
                let raw = open(&device);
                devices.borrow_mut().push((device, file));
                Arc::new(raw)
            });
        }
    }
}
