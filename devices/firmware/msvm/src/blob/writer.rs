//! Writes a blob.

use vmbus_protocol::Guid;

use super::{
    BlobError, ConfigFlags, EntryType, HEADER, MAX_BYTES, MemoryRange, MmioWindow, ProcessorCounts,
    SmbiosText,
};
use crate::fields::le32;

const PAGE: u64 = 0x1000;
/// Of every ACPI table.
const ACPI_HEADER: usize = 36;

/// A blob that is being written. Entries appear in the order of the calls; the firmware keeps the
/// last of a type.
#[derive(Clone, Debug, Default)]
pub struct BlobWriter {
    entries: Vec<u8>,
    types: Vec<EntryType>,
    error: Option<BlobError>,
}

impl BlobWriter {
    /// Returns a blob without entries.
    #[must_use]
    pub fn new() -> BlobWriter {
        BlobWriter::default()
    }

    /// Adds the size of the image in bytes.
    #[must_use]
    pub fn image_bytes(self, bytes: u64) -> BlobWriter {
        // Flag 0 stays clear: ranges of the memory map have 24 bytes.
        let pages = (bytes / PAGE) as u32;
        self.entry(EntryType::BiosInformation, &u64::from(pages).to_le_bytes())
    }

    /// Adds the RAM. Without a range the firmware has no memory.
    #[must_use]
    pub fn memory_map(self, ranges: &[MemoryRange]) -> BlobWriter {
        let content: Vec<u8> = ranges
            .iter()
            .flat_map(|range| [range.base, range.len, 0])
            .flat_map(u64::to_le_bytes)
            .collect();
        self.entry(EntryType::MemoryMap, &content)
    }

    /// Adds random bytes, from which the firmware seeds its own random numbers.
    #[must_use]
    pub fn entropy(self, bytes: &[u8; 64]) -> BlobWriter {
        self.entry(EntryType::Entropy, bytes)
    }

    /// Adds the machine's GUID, which becomes the SMBIOS UUID.
    #[must_use]
    pub fn guid(self, guid: Guid) -> BlobWriter {
        self.entry(EntryType::BiosGuid, &guid.to_bytes())
    }

    /// Adds a text of the SMBIOS tables: printable ASCII, without others.
    #[must_use]
    pub fn smbios(self, text: SmbiosText, value: &str) -> BlobWriter {
        let mut content: Vec<u8> =
            value.bytes().filter(|byte| matches!(byte, b' '..=b'~')).take(255).collect();
        content.push(0);
        content.resize(content.len().next_multiple_of(8), 0);
        self.entry(text.into(), &content)
    }

    /// Adds the flags.
    #[must_use]
    pub fn flags(self, flags: ConfigFlags) -> BlobWriter {
        self.entry(EntryType::Flags, &flags.bits().to_le_bytes())
    }

    /// Adds the numbers of processors.
    #[must_use]
    pub fn processors(mut self, counts: ProcessorCounts) -> BlobWriter {
        let ProcessorCounts { max, present, per_socket, threads_per_core } = counts;
        if present == 0 || per_socket == 0 || threads_per_core == 0 {
            self.fail(BlobError::Content(EntryType::Processors));
        }
        let content: Vec<u8> = [max, present, per_socket, threads_per_core]
            .iter()
            .flat_map(|n| n.to_le_bytes())
            .collect();
        self.entry(EntryType::Processors, &content)
    }

    /// Adds the MMIO windows: one that ends at 4 GiB at most, and one from 4 GiB up.
    #[must_use]
    pub fn mmio(mut self, low: MmioWindow, high: MmioWindow) -> BlobWriter {
        let is_whole =
            [low, high].iter().all(|w| w.base.is_multiple_of(PAGE) && w.len.is_multiple_of(PAGE));
        let low_end = low.base.checked_add(low.len);
        let is_placed = low_end.is_some_and(|end| end <= 1 << 32) && high.base >= 1 << 32;
        if !is_whole || !is_placed {
            self.fail(BlobError::Content(EntryType::Mmio));
        }
        let content: Vec<u8> = [low.base, low.len, high.base, high.len]
            .iter()
            .flat_map(|bytes| (bytes / PAGE).to_le_bytes())
            .collect();
        self.entry(EntryType::Mmio, &content)
    }

    /// Adds the MADT.
    #[must_use]
    pub fn madt(self, table: &[u8]) -> BlobWriter {
        self.table(EntryType::Madt, table)
    }

    /// Adds another ACPI table, which replaces the firmware's own table of the same signature.
    #[must_use]
    pub fn acpi_table(self, table: &[u8]) -> BlobWriter {
        self.table(EntryType::AcpiTable, table)
    }

    /// Returns the blob.
    ///
    /// # Errors
    /// [`BlobError`]: the firmware would stop.
    pub fn finish(self) -> Result<Vec<u8>, BlobError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let missing = |kind: &&EntryType| !self.types.contains(kind);
        if let Some(kind) = EntryType::MANDATORY.iter().find(missing) {
            return Err(BlobError::Missing(*kind));
        }
        let total = 2 * HEADER + self.entries.len();
        if total > MAX_BYTES {
            return Err(BlobError::TooLarge);
        }
        let count = 1 + self.types.len();
        let first = [EntryType::Count.number(), 2 * HEADER as u32, count as u32, total as u32];
        let mut blob: Vec<u8> = first.iter().flat_map(|number| number.to_le_bytes()).collect();
        blob.extend(self.entries);
        Ok(blob)
    }

    fn table(mut self, kind: EntryType, table: &[u8]) -> BlobWriter {
        // The firmware compares the table's own length with the entry's, which is padded: it may
        // only be larger.
        if table.len() < ACPI_HEADER || le32(table, 4) != u32::try_from(table.len()).ok() {
            self.fail(BlobError::Content(kind));
        }
        let mut content = table.to_vec();
        content.resize(content.len().next_multiple_of(8), 0);
        self.entry(kind, &content)
    }

    fn entry(mut self, kind: EntryType, content: &[u8]) -> BlobWriter {
        if content.is_empty() {
            self.fail(BlobError::Content(kind));
        }
        // A blob that is already too large stays as it is, and `finish` refuses it.
        if self.entries.len() <= MAX_BYTES {
            self.entries.extend(kind.number().to_le_bytes());
            self.entries.extend(((HEADER + content.len()) as u32).to_le_bytes());
            self.entries.extend(content);
        }
        self.types.push(kind);
        self
    }

    fn fail(&mut self, error: BlobError) {
        self.error.get_or_insert(error);
    }
}
