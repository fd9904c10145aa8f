//! The header, which is checked before any of it is used.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;

use zerocopy::FromBytes;

use super::compressed::Compression;
use super::layout::{
    AT_COMPRESSION, AT_COUNTS, AT_FEATURES, AT_L1, AT_SIZE, COMPRESSION, CORRUPT, DIRTY,
    EXTENDED_ENTRIES, EXTENSION_BACKING_FORMAT, EXTENSION_BITMAPS, EXTENSION_DATA_FILE,
    EXTENSION_ENCRYPTION, EXTENSION_END, EXTERNAL_DATA, HEADER_V2, HEADER_V3, Layout, MAGIC,
    MAX_COUNTS, MAX_L1, RAW_EXTERNAL, RawHeader,
};
use crate::error::Flaw;
use crate::file::ImageFile;

/// Longest name of a backing file, in bytes ("Header").
const MAX_NAME: u32 = 1023;

/// The known incompatible features.
const KNOWN: u64 = DIRTY | CORRUPT | EXTERNAL_DATA | COMPRESSION | EXTENDED_ENTRIES;

/// A header whose numbers fit the file.
#[derive(Clone, Debug)]
pub(super) struct Header {
    pub(super) layout: Layout,
    /// Bytes of the disk.
    pub(super) capacity: u64,
    /// First-level table: offset and entries.
    pub(super) l1_offset: u64,
    pub(super) l1_entries: u64,
    /// Reference count table: offset and clusters.
    pub(super) counts_offset: u64,
    pub(super) counts_clusters: u64,
    /// Log2 of the bits of a reference count: 0 to 6.
    pub(super) count_order: u32,
    pub(super) snapshots: u32,
    pub(super) snapshots_offset: u64,
    pub(super) incompatible: u64,
    pub(super) autoclear: u64,
    pub(super) compression: Compression,
    /// Name of the backing file, and of its format.
    pub(super) backing: Option<OsString>,
    pub(super) backing_format: Option<String>,
    /// Name of the data file, if the disk's bytes lie in one.
    pub(super) data_file: Option<OsString>,
    /// An extension that this code does not know names clusters.
    pub(super) has_foreign_clusters: bool,
}

impl Header {
    /// Reads and checks the header. Refuses a disk that its own tables do not cover and tables that
    /// do not lie in the file, so that the file's real length bounds walks over the disk and memory
    /// for tables.
    pub(super) fn read(file: &ImageFile, read_only: bool) -> Result<Self, Flaw> {
        let length = file.len()?;
        let mut bytes = [0; size_of::<RawHeader>()];
        let there = bytes.len().min(usize::try_from(length).unwrap_or(usize::MAX));
        file.read(&mut bytes[..there], 0)?;
        let raw = RawHeader::read_from_bytes(&bytes)
            .map_err(|_| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        if &raw.magic != MAGIC || there < HEADER_V2 as usize {
            return Err(Flaw::damaged("its signature is missing"));
        }
        let layout = layout_of(&raw)?;
        let header_length = if layout.version == 2 { HEADER_V2 } else { raw.header_length.get() };
        if layout.version != 2
            && (header_length < HEADER_V3
                || !header_length.is_multiple_of(8)
                || u64::from(header_length) > layout.cluster())
        {
            return Err(Flaw::damaged(format!("its header claims {header_length} bytes")));
        }
        let is_v2 = layout.version == 2;
        let feature = |value: u64| if is_v2 { 0 } else { value };
        let mut header = Self {
            layout,
            capacity: raw.size.get(),
            l1_offset: raw.l1_offset.get(),
            l1_entries: raw.l1_entries.get().into(),
            counts_offset: raw.counts_offset.get(),
            counts_clusters: raw.counts_clusters.get().into(),
            count_order: if is_v2 { 4 } else { raw.count_order.get() },
            snapshots: raw.snapshots.get(),
            snapshots_offset: raw.snapshots_offset.get(),
            incompatible: feature(raw.incompatible.get()),
            autoclear: feature(raw.autoclear.get()),
            compression: Compression::Deflate,
            backing: None,
            backing_format: None,
            data_file: None,
            has_foreign_clusters: false,
        };
        header.check(length)?;
        let mut first = vec![0; layout.cluster().min(length) as usize];
        file.read(&mut first, 0)?;
        header.compression = compression(&header, &first, header_length)?;
        header.read_names(&first, header_length, &raw)?;
        if !read_only {
            header.check_writable()?;
        }
        Ok(header)
    }

    /// Returns whether the image was not closed after the last change: its reference counts may be
    /// wrong.
    pub(super) fn is_dirty(&self) -> bool {
        self.incompatible & DIRTY != 0
    }

    fn check(&self, length: u64) -> Result<(), Flaw> {
        let layout = self.layout;
        let lies_in_file = |what: &str, offset: u64, bytes: u64| match offset.checked_add(bytes) {
            Some(end) if end <= length && offset.is_multiple_of(layout.cluster()) => Ok(()),
            _ => Err(Flaw::damaged(format!(
                "its {what} ({bytes} bytes at {offset}) does not lie in the file"
            ))),
        };
        if self.l1_entries < layout.l1_entries(self.capacity) {
            return Err(Flaw::damaged(format!(
                "its disk has {} bytes, its table has {} entries for {} bytes each",
                self.capacity,
                self.l1_entries,
                layout.reach()
            )));
        }
        if self.l1_entries * 8 > MAX_L1 {
            return Err(Flaw::unsupported(
                format!(
                    "its table has {} entries, and at most {} are supported",
                    self.l1_entries,
                    MAX_L1 / 8
                ),
                "convert it to larger clusters with: qemu-img convert -o cluster_size=2M",
            ));
        }
        lies_in_file("first-level table", self.l1_offset, self.l1_entries * 8)?;
        lies_in_file(
            "reference count table",
            self.counts_offset,
            self.counts_clusters << layout.bits,
        )?;
        if self.count_order > 6 {
            return Err(Flaw::damaged(format!(
                "its reference counts have 2^{} bits",
                self.count_order
            )));
        }
        Ok(())
    }

    fn check_writable(&self) -> Result<(), Flaw> {
        let read = "it can be read with readonly=on";
        if self.incompatible & CORRUPT != 0 {
            return Err(Flaw::unsupported(
                "it is marked as corrupt",
                format!("{read}; repair it with: qemu-img check -r all"),
            ));
        }
        if self.layout.extended {
            return Err(Flaw::unsupported(
                "it has extended L2 entries, which can only be read",
                format!("{read}; convert it with: qemu-img convert -O qcow2 -o extended_l2=off"),
            ));
        }
        if self.counts_clusters << self.layout.bits > MAX_COUNTS {
            return Err(Flaw::unsupported(
                format!("its table of reference counts has more than {} MiB", MAX_COUNTS >> 20),
                format!(
                    "{read}; convert it to larger clusters with: qemu-img convert -o \
                    cluster_size=2M"
                ),
            ));
        }
        Ok(())
    }

    /// Returns the names of other files. `first`: the first cluster, or the part of it that is in
    /// the file.
    fn read_names(
        &mut self,
        first: &[u8],
        header_length: u32,
        raw: &RawHeader,
    ) -> Result<(), Flaw> {
        let offset = raw.backing_offset.get();
        let name_length = raw.backing_length.get();
        let mut end = first.len();
        if offset != 0 {
            let name = usize::try_from(offset)
                .ok()
                .and_then(|at| first.get(at..)?.get(..name_length as usize));
            let name = name.filter(|name| name_length <= MAX_NAME && !name.is_empty());
            let name = name.ok_or_else(|| {
                Flaw::damaged("the name of its backing file is not in its header")
            })?;
            self.backing = Some(OsString::from_vec(name.to_vec()));
            end = offset as usize;
        }
        if self.layout.external && self.backing.is_some() && self.autoclear & RAW_EXTERNAL != 0 {
            return Err(Flaw::damaged("it has both a raw data file and a backing file"));
        }
        let mut at = header_length as usize;
        while let Some(extension) = first.get(at..end).and_then(|rest| rest.first_chunk::<8>()) {
            let [a, b, c, d, rest @ ..] = *extension;
            let (kind, length) =
                (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes(rest) as usize);
            if kind == EXTENSION_END {
                break;
            }
            let content = first.get(at + 8..end).and_then(|rest| rest.get(..length));
            let content = content.ok_or_else(|| {
                Flaw::damaged("an extension of its header is longer than its cluster")
            })?;
            match kind {
                EXTENSION_BACKING_FORMAT => {
                    self.backing_format = Some(String::from_utf8_lossy(content).into_owned());
                }
                EXTENSION_DATA_FILE => self.data_file = Some(OsString::from_vec(content.to_vec())),
                EXTENSION_BITMAPS | EXTENSION_ENCRYPTION => self.has_foreign_clusters = true,
                _ => {}
            }
            at += 8 + length.next_multiple_of(8);
        }
        if self.layout.external && self.data_file.is_none() {
            return Err(Flaw::unsupported(
                "its data lies in a file that it does not name",
                "name it with: qemu-img amend -o data_file=FILE",
            ));
        }
        Ok(())
    }

    /// Marks the image as being written, or as closed, durably. Clears the flags of features whose
    /// data this code does not maintain.
    pub(super) fn write_features(&mut self, file: &ImageFile, dirty: bool) -> io::Result<()> {
        if self.layout.version < 3 {
            return Ok(());
        }
        let incompatible =
            if dirty { self.incompatible | DIRTY } else { self.incompatible & !DIRTY };
        let autoclear = self.autoclear & RAW_EXTERNAL;
        // Three fields of one sector: no crash tears them. The field between them may be ignored;
        // its value stays.
        let mut bytes = [0; 24];
        file.read(&mut bytes, AT_FEATURES)?;
        bytes[..8].copy_from_slice(&incompatible.to_be_bytes());
        bytes[16..].copy_from_slice(&autoclear.to_be_bytes());
        write_durably(file, &bytes, AT_FEATURES)?;
        (self.incompatible, self.autoclear) = (incompatible, autoclear);
        Ok(())
    }

    /// Sets the disk's size, durably.
    pub(super) fn write_capacity(&mut self, file: &ImageFile, capacity: u64) -> io::Result<()> {
        write_durably(file, &capacity.to_be_bytes(), AT_SIZE)?;
        self.capacity = capacity;
        Ok(())
    }

    /// Makes `offset` the location of the first-level table, durably. The table is durable already.
    pub(super) fn write_l1(
        &mut self,
        file: &ImageFile,
        offset: u64,
        entries: u64,
    ) -> io::Result<()> {
        let bytes = [&count(entries)?[..], &offset.to_be_bytes()].concat();
        write_durably(file, &bytes, AT_L1)?;
        (self.l1_offset, self.l1_entries) = (offset, entries);
        Ok(())
    }

    /// Makes `offset` the location of the reference count table, durably. The table is durable
    /// already.
    pub(super) fn write_counts(
        &mut self,
        file: &ImageFile,
        offset: u64,
        clusters: u64,
    ) -> io::Result<()> {
        let bytes = [&offset.to_be_bytes()[..], &count(clusters)?].concat();
        write_durably(file, &bytes, AT_COUNTS)?;
        (self.counts_offset, self.counts_clusters) = (offset, clusters);
        Ok(())
    }
}

/// Returns a count as a field of the header.
fn count(count: u64) -> io::Result<[u8; 4]> {
    let count = u32::try_from(count).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
    Ok(count.to_be_bytes())
}

fn write_durably(file: &ImageFile, bytes: &[u8], offset: u64) -> io::Result<()> {
    file.write(bytes, offset)?;
    file.sync()
}

fn layout_of(raw: &RawHeader) -> Result<Layout, Flaw> {
    let (version, bits) = (raw.version.get(), raw.cluster_bits.get());
    if !matches!(version, 2 | 3) {
        return Err(Flaw::unsupported(
            format!("it is of version {version}, and only versions 2 and 3 are supported"),
            "convert it with: qemu-img convert -O qcow2",
        ));
    }
    if !(9..=21).contains(&bits) {
        return Err(Flaw::damaged(format!(
            "its clusters have 2^{bits} bytes, and only 2^9 to 2^21 are valid"
        )));
    }
    if raw.encryption.get() != 0 {
        return Err(Flaw::unsupported("it is encrypted", "decrypt it with: qemu-img convert"));
    }
    let incompatible = if version == 2 { 0 } else { raw.incompatible.get() };
    if incompatible & !KNOWN != 0 {
        return Err(Flaw::unsupported(
            format!(
                "it has the incompatible features {:#x}, which are not supported",
                incompatible & !KNOWN
            ),
            "convert it with: qemu-img convert -O qcow2",
        ));
    }
    let extended = incompatible & EXTENDED_ENTRIES != 0;
    if extended && bits < 14 {
        return Err(Flaw::damaged(format!("it has subclusters in clusters of 2^{bits} bytes")));
    }
    Ok(Layout { bits, version, extended, external: incompatible & EXTERNAL_DATA != 0 })
}

fn compression(header: &Header, first: &[u8], header_length: u32) -> Result<Compression, Flaw> {
    if header.incompatible & COMPRESSION == 0 {
        return Ok(Compression::Deflate);
    }
    let kind = first.get(AT_COMPRESSION).filter(|_| header_length as usize > AT_COMPRESSION);
    match kind {
        Some(1) => Ok(Compression::Zstd),
        kind => Err(Flaw::unsupported(
            format!("its clusters have an unsupported compression ({kind:?})"),
            "convert it with: qemu-img convert -O qcow2",
        )),
    }
}
