//! Disks and files: their properties, checksums and patterns.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use guest_report::agent::{Disk, PatternRange, Sum};
use guest_report::pattern;
use sha2::{Digest, Sha256};

use crate::{Outcome, context, uevent};

/// Bytes of one transfer: more than the device's limit per request, and little compared with the
/// smallest guest's memory.
const PIECE: usize = 1 << 20;

/// The alignment of addresses for `O_DIRECT` that suffices on every device, in bytes.
const ALIGNMENT: usize = 4096;

/// Returns the SCSI disks, once there are at least `at_least`.
pub fn disks(at_least: usize, limit: Duration) -> Outcome<Vec<Disk>> {
    let look = || {
        let disks = list().ok()?;
        // A disk whose capacity has not yet been read has size 0.
        (disks.iter().filter(|disk| disk.size > 0).count() >= at_least).then_some(disks)
    };
    let found = uevent::wait_for(limit, look).map_err(context("listening for devices"))?;
    match found {
        Some(disks) => Ok(disks),
        None => {
            let names: Vec<_> = list()?.into_iter().map(|disk| disk.name).collect();
            Err(format!(
                "{at_least} disks were expected within {} s, there are: {names:?}",
                limit.as_secs()
            ))
        }
    }
}

fn list() -> Outcome<Vec<Disk>> {
    let mut disks = Vec::new();
    for entry in fs::read_dir("/sys/block").map_err(context("/sys/block"))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("sd") || name.starts_with("sr") {
            disks.push(disk(&entry.path(), name));
        }
    }
    disks.sort_by(|a, b| (a.name.len(), &a.name).cmp(&(b.name.len(), &b.name)));
    Ok(disks)
}

fn disk(dir: &Path, name: String) -> Disk {
    let text =
        |file: &str| fs::read_to_string(dir.join(file)).unwrap_or_default().trim().to_owned();
    let number = |file: &str| text(file).parse::<u64>().unwrap_or(0);
    let small = |file: &str| u32::try_from(number(file)).unwrap_or(0);
    let device = fs::canonicalize(dir.join("device")).unwrap_or_default();
    Disk {
        // The kernel counts in units of 512 bytes, regardless of the disk's block size.
        size: number("size") * 512,
        read_only: number("ro") == 1,
        logical_block: small("queue/logical_block_size"),
        physical_block: small("queue/physical_block_size"),
        vendor: text("device/vendor"),
        model: text("device/model"),
        revision: text("device/rev"),
        serial: serial(&dir.join("device/vpd_pg80")),
        wwid: Some(text("device/wwid")).filter(|wwid| !wwid.is_empty()),
        address: device.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        vmbus_device: vmbus_device(&device),
        discard_max: number("queue/discard_max_bytes"),
        name,
    }
}

/// Returns the serial number in VPD page 80h, after four bytes of header.
fn serial(path: &Path) -> Option<String> {
    let page = fs::read(path).ok()?;
    let length = usize::from(u16::from_be_bytes([*page.get(2)?, *page.get(3)?]));
    let text = page.get(4..4 + length)?;
    Some(String::from_utf8_lossy(text).trim().to_owned())
}

/// Returns the part of a device's path that names its VMBus instance.
fn vmbus_device(device: &Path) -> Option<String> {
    let is_guid =
        |text: &str| text.len() == 36 && text.chars().all(|c| c == '-' || c.is_ascii_hexdigit());
    device.iter().filter_map(|part| part.to_str()).find(|part| is_guid(part)).map(str::to_owned)
}

/// A buffer with the alignment that `O_DIRECT` needs.
pub struct Aligned {
    bytes: Vec<u8>,
    start: usize,
    length: usize,
}

impl Aligned {
    /// Returns a buffer of zeros.
    pub fn new(length: usize) -> Aligned {
        let bytes = vec![0; length + ALIGNMENT];
        let start = bytes.as_ptr().align_offset(ALIGNMENT);
        Aligned { bytes, start, length }
    }

    /// Returns the bytes.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.length]
    }
}

fn open(path: &str, write: bool, direct: bool) -> Outcome<File> {
    let flags = if direct { libc::O_DIRECT } else { 0 };
    File::options().read(true).write(write).custom_flags(flags).open(path).map_err(context(path))
}

/// Reads a range and returns its checksum.
pub fn sha256(path: &str, offset: u64, length: Option<u64>, direct: bool) -> Outcome<Sum> {
    let mut hash = Sha256::new();
    let mut file = open(path, false, direct)?;
    let end = match length {
        Some(length) => offset.checked_add(length).ok_or("offset and length are too large")?,
        None => file.seek(SeekFrom::End(0)).map_err(context(path))?,
    };
    let read = read_range(&file, path, offset, end, |piece, _| {
        hash.update(piece);
        Ok(())
    })?;
    let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Sum { sha256, bytes: read })
}

/// Writes the pattern and flushes it to the device.
pub fn write_pattern(range: &PatternRange) -> Outcome<()> {
    let file = open(&range.path, true, range.direct)?;
    let mut buffer = Aligned::new(PIECE);
    let mut done = 0;
    while done < range.length {
        let piece = &mut buffer.bytes_mut()[..piece_length(range.length - done)];
        let at = range.offset + done;
        pattern::fill(piece, range.seed, at);
        file.write_all_at(piece, at).map_err(context(format!("writing {} at {at}", range.path)))?;
        done += piece.len() as u64;
    }
    file.sync_all().map_err(context(format!("flushing {}", range.path)))
}

/// Reads the range and compares it with the pattern.
pub fn verify_pattern(range: &PatternRange) -> Outcome<()> {
    let file = open(&range.path, false, range.direct)?;
    let end = range.offset.checked_add(range.length).ok_or("offset and length are too large")?;
    let read = read_range(&file, &range.path, range.offset, end, |piece, at| {
        match pattern::first_difference(piece, range.seed, at) {
            None => Ok(()),
            Some(place) => Err(format!("{} differs from the pattern at byte {place}", range.path)),
        }
    })?;
    if read == range.length {
        Ok(())
    } else {
        Err(format!("{} ended after {read} bytes", range.path))
    }
}

fn piece_length(left: u64) -> usize {
    usize::try_from(left).unwrap_or(PIECE).min(PIECE)
}

/// Passes each piece of a range and its offset to `each`. Returns the number of bytes.
fn read_range(
    file: &File,
    path: &str,
    offset: u64,
    end: u64,
    mut each: impl FnMut(&[u8], u64) -> Outcome<()>,
) -> Outcome<u64> {
    let mut buffer = Aligned::new(PIECE);
    let mut at = offset;
    while at < end {
        let piece = &mut buffer.bytes_mut()[..piece_length(end - at)];
        let n = match file.read_at(piece, at) {
            Ok(0) => break,
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(format!("reading {path} at {at}: {error}")),
        };
        each(&piece[..n], at)?;
        at += n as u64;
    }
    Ok(at - offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> String {
        std::env::temp_dir()
            .join(format!("guest-init-{}-{name}", std::process::id()))
            .display()
            .to_string()
    }

    #[test]
    fn test_pattern_written_to_a_file_is_verified_and_a_change_is_found() {
        let path = file("pattern");
        fs::write(&path, b"").unwrap();
        let length = PIECE as u64 + 12_345;
        let range =
            PatternRange { path: path.clone(), offset: 512, length, seed: 3, direct: false };
        write_pattern(&range).unwrap();
        verify_pattern(&range).unwrap();
        File::options().write(true).open(&path).unwrap().write_all_at(b"!", 70_000).unwrap();
        let error = verify_pattern(&range).unwrap_err();
        assert!(error.contains("at byte 70000"), "{error}");
        let longer = PatternRange { length: range.length + 1, offset: 1 << 20, ..range };
        assert!(verify_pattern(&longer).is_err());
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn test_sha256_of_a_range_counts_its_bytes() {
        let path = file("sum");
        fs::write(&path, b"xxabcyy").unwrap();
        let sum = sha256(&path, 2, Some(3), false).unwrap();
        assert_eq!(sum.bytes, 3);
        assert!(sum.sha256.starts_with("ba7816bf"));
        assert_eq!(sha256(&path, 0, None, false).unwrap().bytes, 7);
        assert!(sha256(&path, u64::MAX, Some(2), false).is_err());
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn test_aligned_buffer_is_aligned_and_whole() {
        let mut buffer = Aligned::new(5000);
        assert_eq!(buffer.bytes_mut().len(), 5000);
        assert_eq!(buffer.bytes_mut().as_ptr().align_offset(ALIGNMENT), 0);
    }

    #[test]
    fn test_vmbus_device_is_found_in_a_path() {
        let path = Path::new(
            "/sys/devices/a/f8b3781a-1e82-4818-a1c3-63d806ec15bb/host0/target0:0:0/0:0:0:0",
        );
        assert_eq!(vmbus_device(path), Some("f8b3781a-1e82-4818-a1c3-63d806ec15bb".to_owned()));
        assert_eq!(vmbus_device(Path::new("/sys/devices/pci")), None);
    }
}
