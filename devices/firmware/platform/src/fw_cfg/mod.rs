//! The fw_cfg device: items that firmware selects by a key and reads (spec firmware-windows section
//! B4; QEMU's `docs/specs/fw_cfg.rst`).

mod content;
mod dma;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use vm_memory::GuestMemoryMmap;

pub use self::content::Content;

/// Keys of the items that are not files.
pub mod key {
    /// "QEMU", by which firmware recognizes the device.
    pub const SIGNATURE: u16 = 0x00;
    /// The features: u32, bit 0 (this interface), bit 1 (DMA).
    pub const ID: u16 = 0x01;
    /// The number of vCPUs that run at power-on: u16.
    pub const CPUS: u16 = 0x05;
    /// Bytes of the kernel: u32.
    pub const KERNEL_SIZE: u16 = 0x08;
    /// Bytes of the initial RAM disk: u32.
    pub const INITRD_SIZE: u16 = 0x0B;
    /// The largest number of vCPUs: u16.
    pub const MAX_CPUS: u16 = 0x0F;
    /// The kernel: an EFI application.
    pub const KERNEL_DATA: u16 = 0x11;
    /// The initial RAM disk.
    pub const INITRD_DATA: u16 = 0x12;
    /// Bytes of the command line, with its NUL: u32.
    pub const CMDLINE_SIZE: u16 = 0x14;
    /// The command line, with its NUL.
    pub const CMDLINE_DATA: u16 = 0x15;
    /// The directory of files.
    pub const DIRECTORY: u16 = 0x19;
    /// The first file; the others have the following keys.
    pub const FIRST_FILE: u16 = 0x20;
}

const SELECTOR: u16 = 0;
const DATA: u16 = 1;
const DMA_HIGH: u16 = 4;
const DMA_LOW: u16 = 8;
/// The DMA registers read as this text, which tells that they exist.
const DMA_SIGNATURE: &[u8; 8] = b"QEMU CFG";

/// Most files of the device. Firmware reads the whole directory for each file that it looks for.
const MAX_FILES: usize = 64;
const NAME_BYTES: usize = 56;
const ENTRY_BYTES: usize = 64;

/// The device.
pub struct FwCfg {
    items: BTreeMap<u16, Content>,
    /// Names and sizes of the files, in the order of their keys.
    files: Vec<(String, u32)>,
    selected: u16,
    /// Offset of the next byte in the selected item.
    offset: u64,
    dma_high: u32,
}

/// An item that cannot be added.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FwCfgError {
    /// The name is empty, longer than 55 bytes, or has a NUL.
    #[error("`{0}` is no name of a fw_cfg file")]
    Name(String),
    /// The device has a file of this name.
    #[error("there are two fw_cfg files of the name {0}")]
    Twice(String),
    /// The device has 64 files.
    #[error("there are too many fw_cfg files")]
    TooMany,
    /// The content has 4 GiB or more.
    #[error("a fw_cfg item has at most 4 GiB")]
    TooLarge,
}

impl Default for FwCfg {
    fn default() -> FwCfg {
        FwCfg::new()
    }
}

impl FwCfg {
    /// First port. The ports are the selector (16 bits, at offset 0), the data (8 bits, at offset
    /// 1), and the address of a transfer (big-endian, high half at offset 4, low half at 8).
    pub const PORT: u16 = 0x510;
    /// Number of ports.
    pub const PORTS: u16 = 12;

    /// Returns a device with its signature and its features, and no files.
    #[must_use]
    pub fn new() -> FwCfg {
        let items = BTreeMap::from([
            (key::SIGNATURE, Content::from(b"QEMU".to_vec())),
            (key::ID, Content::from(3_u32.to_le_bytes().to_vec())),
            (key::DIRECTORY, Content::from(0_u32.to_be_bytes().to_vec())),
        ]);
        FwCfg { items, files: Vec::new(), selected: 0, offset: 0, dma_high: 0 }
    }

    /// Sets the item with this key. Numbers in items are little-endian.
    ///
    /// # Errors
    /// [`FwCfgError::TooLarge`].
    pub fn set(&mut self, key: u16, content: impl Into<Content>) -> Result<(), FwCfgError> {
        let content = content.into();
        u32::try_from(content.len()).map_err(|_| FwCfgError::TooLarge)?;
        self.items.insert(key, content);
        Ok(())
    }

    /// Adds a file, which firmware finds by its name.
    ///
    /// # Errors
    /// [`FwCfgError`].
    pub fn add_file(&mut self, name: &str, content: impl Into<Content>) -> Result<(), FwCfgError> {
        let content = content.into();
        let size = u32::try_from(content.len()).map_err(|_| FwCfgError::TooLarge)?;
        if name.is_empty() || name.len() >= NAME_BYTES || name.contains('\0') {
            return Err(FwCfgError::Name(name.to_owned()));
        }
        if self.files.iter().any(|(known, _)| known == name) {
            return Err(FwCfgError::Twice(name.to_owned()));
        }
        if self.files.len() >= MAX_FILES {
            return Err(FwCfgError::TooMany);
        }
        self.items.insert(key::FIRST_FILE + self.files.len() as u16, content);
        self.files.push((name.to_owned(), size));
        self.items.insert(key::DIRECTORY, Content::from(directory(&self.files)));
        Ok(())
    }

    /// Adds a file, or replaces the one of this name, which keeps its key.
    ///
    /// # Errors
    /// [`FwCfgError`].
    pub fn set_file(&mut self, name: &str, content: impl Into<Content>) -> Result<(), FwCfgError> {
        let content = content.into();
        let Some(index) = self.files.iter().position(|(known, _)| known == name) else {
            return self.add_file(name, content);
        };
        self.files[index].1 = u32::try_from(content.len()).map_err(|_| FwCfgError::TooLarge)?;
        self.items.insert(key::FIRST_FILE + index as u16, content);
        self.items.insert(key::DIRECTORY, Content::from(directory(&self.files)));
        Ok(())
    }

    /// Restores the reset state. The items stay.
    pub fn reset(&mut self) {
        self.select(key::SIGNATURE);
        self.dma_high = 0;
    }

    /// Reads the device's ports. `offset` is relative to [`FwCfg::PORT`]; `data` has 1, 2 or 4
    /// bytes.
    pub fn read_port(&mut self, offset: u16, data: &mut [u8]) {
        match (offset, data) {
            (DATA, [byte]) => *byte = self.next_byte(),
            (DMA_HIGH.., data) => {
                for (index, byte) in (usize::from(offset - DMA_HIGH)..).zip(data) {
                    *byte = DMA_SIGNATURE.get(index).copied().unwrap_or(0xFF);
                }
            }
            (_, data) => data.fill(0xFF),
        }
    }

    /// Writes the device's ports. The arguments are those of [`FwCfg::read_port`]. A transfer that
    /// the write starts has ended on return.
    pub fn write_port(&mut self, offset: u16, data: &[u8], memory: &GuestMemoryMmap<()>) {
        match (offset, data) {
            (SELECTOR, &[low, high]) => self.select(u16::from_le_bytes([low, high])),
            (DMA_HIGH, &[a, b, c, d]) => self.dma_high = u32::from_be_bytes([a, b, c, d]),
            (DMA_LOW, &[a, b, c, d]) => {
                let high = std::mem::take(&mut self.dma_high);
                let low = u32::from_be_bytes([a, b, c, d]);
                self.transfer(memory, u64::from(high) << 32 | u64::from(low));
            }
            // The data register is read-only.
            _ => {}
        }
    }

    fn select(&mut self, key: u16) {
        self.selected = key;
        self.offset = 0;
    }

    /// Returns the next byte of the selected item; 0 behind its end.
    fn next_byte(&mut self) -> u8 {
        let mut byte = [0];
        if let Some(item) = self.items.get(&self.selected)
            && self.offset < item.len()
        {
            // A file that has shrunk reads as zero here: this register has no place for an error.
            let _ = item.read(self.offset, &mut byte);
            self.offset += 1;
        }
        byte[0]
    }
}

impl fmt::Debug for FwCfg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, offset) = (self.selected, self.offset);
        f.debug_struct("FwCfg").field("key", &key).field("offset", &offset).finish_non_exhaustive()
    }
}

/// Returns the directory: a count, then an entry for each file, big-endian.
fn directory(files: &[(String, u32)]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 + files.len() * ENTRY_BYTES);
    bytes.extend((files.len() as u32).to_be_bytes());
    for (key, (name, size)) in (key::FIRST_FILE..).zip(files) {
        bytes.extend(size.to_be_bytes());
        bytes.extend(key.to_be_bytes());
        bytes.extend([0; 2]);
        bytes.extend(name.as_bytes());
        bytes.extend(std::iter::repeat_n(0, NAME_BYTES - name.len()));
    }
    bytes
}
