//! A test that makes a file system, fills and unmounts it, reads it back and checks it.

use std::fs::{self, File};
use std::io::Write;
use std::time::Duration;

use guest_report::agent::FsReport;
use guest_report::pattern;

use crate::{Outcome, context, process, sys};

const MOUNT_POINT: &str = "/mnt/fs-check";
const TOOL_LIMIT: Duration = Duration::from_secs(600);

/// Runs the whole test. The device's content is lost.
pub fn run(path: &str, files: u32, file_size: u64) -> Outcome<FsReport> {
    // -F: the device may hold an older file system. No discard, because another test covers it.
    process::run_ok(&["mke2fs", "-q", "-F", "-t", "ext4", "-E", "nodiscard", path], TOOL_LIMIT)?;
    mounted(path, 0, || write_files(files, file_size))?;
    process::run_ok(&["e2fsck", "-f", "-n", path], TOOL_LIMIT)?;
    mounted(path, libc::MS_RDONLY, || verify_files(files, file_size))?;
    Ok(FsReport { files, bytes: u64::from(files) * file_size })
}

fn mounted(path: &str, flags: libc::c_ulong, inside: impl FnOnce() -> Outcome<()>) -> Outcome<()> {
    sys::mount_new(path, MOUNT_POINT, "ext4", flags, "").map_err(|e| e.to_string())?;
    let outcome = inside();
    let unmounted = sys::unmount(MOUNT_POINT).map_err(context("unmounting"));
    outcome.and(unmounted)
}

fn file_name(number: u32) -> String {
    format!("{MOUNT_POINT}/dir{}/file{number}", number % 4)
}

fn content(number: u32, size: u64) -> Outcome<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(size).map_err(|e| e.to_string())?];
    pattern::fill(&mut bytes, u64::from(number) + 1, 0);
    Ok(bytes)
}

fn write_files(files: u32, size: u64) -> Outcome<()> {
    for folder in 0..4 {
        let path = format!("{MOUNT_POINT}/dir{folder}");
        fs::create_dir_all(&path).map_err(context(&path))?;
    }
    for number in 0..files {
        let path = file_name(number);
        let bytes = content(number, size)?;
        let mut file = File::create(&path).map_err(context(&path))?;
        file.write_all(&bytes).map_err(context(&path))?;
    }
    Ok(())
}

fn verify_files(files: u32, size: u64) -> Outcome<()> {
    for number in 0..files {
        let path = file_name(number);
        let found = fs::read(&path).map_err(context(&path))?;
        if found != content(number, size)? {
            return Err(format!("{path} came back changed"));
        }
    }
    Ok(())
}
