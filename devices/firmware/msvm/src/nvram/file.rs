//! The file of the variables.
//!
//! A page with magic number and version, then two slots, each with a sequence number, a length, a
//! CRC-32C and all variables. A change goes to the slot with the older content and is on the disk
//! before the guest is answered. So a crash or power loss at any time leaves the variables before
//! the change or those after it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::variables::{decode, encode};
use super::{MAX_STORED_BYTES, VariableStore, Variables};
use crate::fields::{le32, le64};

const MAGIC: &[u8; 16] = b"SynthVM MSVM var";
const VERSION: u32 = 1;
const PAGE: u64 = 4096;
/// Magic number, version, bytes of a slot.
const HEADER_BYTES: usize = 24;
/// Sequence number, length, CRC-32C of both and of the content.
const SLOT_HEADER: usize = 16;
const SLOT_BYTES: u64 = PAGE + MAX_STORED_BYTES as u64;
const FILE_BYTES: u64 = PAGE + 2 * SLOT_BYTES;

/// The open file, locked against other machines.
#[derive(Debug)]
pub struct VariablesFile {
    file: File,
    /// The sequence number of the newest content; its slot is its lowest bit.
    sequence: u64,
}

/// A file that cannot keep the variables.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened, created, read or written.
    #[error("{}: {what}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The failed operation.
        what: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// Another program uses the file.
    #[error(
        "{} is in use by another SynthVM; stop that one first, or name another file",
        .path.display()
    )]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The file is something else, which stays as it is.
    #[error(
        "{} {problem}; name another file, which is then created",
        .path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The difference.
        problem: String,
    },
}

impl VariablesFile {
    /// Opens, locks and reads the file at `path`, and creates it if it does not exist.
    ///
    /// # Errors
    /// [`StoreError`]. A file with other content is not changed.
    pub fn open(path: &Path) -> Result<(VariablesFile, Variables), StoreError> {
        let failed = |what| move |source| StoreError::Io { path: path.to_owned(), what, source };
        // A FIFO that is opened for both directions does not wait for another end.
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(path).map_err(failed("cannot open it"))?;
        let foreign = |problem: &str| StoreError::Foreign {
            path: path.to_owned(),
            problem: problem.to_owned(),
        };
        let metadata = file.metadata().map_err(failed("cannot inspect it"))?;
        if !metadata.is_file() {
            return Err(foreign("is not a regular file"));
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::Locked { path: path.to_owned() });
            }
            Err(TryLockError::Error(source)) => return Err(failed("cannot lock it")(source)),
        }
        // Read under the lock: its holder may have been creating the file.
        let len = file.metadata().map_err(failed("cannot inspect it"))?.len();
        if len != 0 && len != FILE_BYTES {
            return Err(foreign("is no file of MSVM variables"));
        }
        let mut bytes = vec![0; len as usize];
        file.read_exact_at(&mut bytes, 0).map_err(failed("cannot read it"))?;
        if bytes.iter().all(|byte| *byte == 0) {
            // New, or its creation was interrupted.
            create(&file).map_err(failed("cannot create it"))?;
            let _ = sync_folder(path);
            return Ok((VariablesFile { file, sequence: 0 }, Variables::new()));
        }
        check_header(&bytes).map_err(|problem| foreign(&problem))?;
        let slots = [0, 1].map(|slot| read_slot(&bytes, slot));
        let newest = slots.into_iter().flatten().max_by_key(|(sequence, _)| *sequence);
        let (sequence, variables) =
            newest.ok_or_else(|| foreign("is damaged: it has no complete set of variables"))?;
        Ok((VariablesFile { file, sequence }, variables))
    }
}

impl VariableStore for VariablesFile {
    fn save(&mut self, variables: &Variables) -> io::Result<()> {
        let sequence = self.sequence + 1;
        let slot = slot_bytes(sequence, &encode(variables));
        self.file.write_all_at(&slot, slot_offset(sequence))?;
        self.file.sync_data()?;
        self.sequence = sequence;
        Ok(())
    }
}

/// Writes the header. Slots of zeros are an empty set of variables.
fn create(file: &File) -> io::Result<()> {
    file.set_len(FILE_BYTES)?;
    let mut header = MAGIC.to_vec();
    header.extend(VERSION.to_le_bytes());
    header.extend((SLOT_BYTES as u32).to_le_bytes());
    file.write_all_at(&header, 0)?;
    file.sync_all()
}

/// Makes the name of a new file as durable as its content.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

fn check_header(bytes: &[u8]) -> Result<(), String> {
    let header = bytes.get(..HEADER_BYTES).ok_or("is too short")?;
    if !header.starts_with(MAGIC) {
        return Err("is no file of MSVM variables".to_owned());
    }
    match (le32(header, 16), le32(header, 20)) {
        (Some(VERSION), Some(slot)) if u64::from(slot) == SLOT_BYTES => Ok(()),
        (version, _) => Err(format!(
            "has format {}, and this SynthVM knows format {VERSION}",
            version.unwrap_or_default()
        )),
    }
}

fn slot_offset(sequence: u64) -> u64 {
    PAGE + (sequence & 1) * SLOT_BYTES
}

fn slot_bytes(sequence: u64, content: &[u8]) -> Vec<u8> {
    let mut bytes = sequence.to_le_bytes().to_vec();
    bytes.extend((content.len() as u32).to_le_bytes());
    bytes.extend(checksum(&bytes, content).to_le_bytes());
    bytes.extend(content);
    bytes
}

fn read_slot(file: &[u8], slot: u64) -> Option<(u64, Variables)> {
    let slot_bytes = file.get(slot_offset(slot) as usize..)?.get(..SLOT_BYTES as usize)?;
    let (header, content) = slot_bytes.split_at(SLOT_HEADER);
    if slot == 0 && header.iter().all(|byte| *byte == 0) {
        return Some((0, Variables::new()));
    }
    let sequence = le64(header, 0)?;
    let content = content.get(..le32(header, 8)? as usize)?;
    let is_complete = le32(header, 12)? == checksum(&header[..12], content);
    (is_complete && sequence & 1 == slot).then_some((sequence, decode(content)?))
}

fn checksum(header: &[u8], content: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(header), content)
}
