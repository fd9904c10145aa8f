//! Sound images as starting points, and the locations in them where changes have an effect. The
//! crate under test makes them, except for the formats that it cannot make.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use synthvm_block::conformance::one;
use synthvm_block::{IoMode, Operation};
use synthvm_images::{CreateOptions, Format, OpenOptions, create, open};

use crate::image_checksums::seal_vhd;
use crate::memory_file::PAGE;

const KIB: u64 = 1 << 10;
pub(crate) const MIB: u64 = 1 << 20;
/// Bytes of each disk.
const SIZE: u64 = 8 * MIB;

/// A sound image, as the pages in it that are not zero.
pub(crate) struct Base {
    pub(crate) format: Format,
    pub(crate) length: u64,
    pub(crate) pages: Vec<(u64, Vec<u8>)>,
    /// Offset and length of each structure in the file.
    pub(crate) places: Vec<(u64, u64)>,
    /// Whether it has a parent, which is the first image.
    pub(crate) has_parent: bool,
    /// Whether it can only be read.
    pub(crate) read_only: bool,
}

/// Returns all images. The first one is the parent of those that have one.
pub(crate) fn all() -> Vec<Base> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name =
        format!("synthvm-fuzz-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let folder = std::env::temp_dir().join(name);
    fs::create_dir_all(&folder).expect("making a folder");
    let vhdx = |name: &str| {
        (folder.join(name), CreateOptions::new(Format::Vhdx, SIZE).with_block_size(MIB))
    };
    let qcow2 = |name: &str, cluster| {
        (folder.join(name), CreateOptions::new(Format::Qcow2, SIZE).with_block_size(cluster))
    };
    let (parent, options) = vhdx("parent.vhdx");
    let mut bases = vec![make(parent.clone(), &options)];
    let (path, options) = vhdx("fixed.vhdx");
    bases.push(make(path, &CreateOptions { fixed: true, ..options }));
    let (path, options) = vhdx("sectors.vhdx");
    bases.push(make(path, &CreateOptions { sector_size: Some(4096), ..options }));
    let (path, options) = vhdx("child.vhdx");
    bases.push(make(path, &CreateOptions { size: None, parent: Some(parent), ..options }));
    bases.push(make(folder.join("fixed.vhd"), &CreateOptions::new(Format::Vhd, MIB)));
    bases.push(dynamic_vhd());
    for (name, cluster) in [("large.qcow2", 64 * KIB), ("small.qcow2", 512)] {
        let (path, options) = qcow2(name, cluster);
        bases.push(make(path, &options));
    }
    let (path, options) = qcow2("child.qcow2", 4 * KIB);
    let backing = folder.join("small.qcow2");
    create(&path, &CreateOptions { size: None, parent: Some(backing), ..options })
        .expect("a qcow2 image");
    bases.push(read(&path, Format::Qcow2, false));
    let _ = fs::remove_dir_all(&folder);
    bases
}

/// Creates an image with data in its first block, in the middle and at the end.
fn make(path: PathBuf, options: &CreateOptions) -> Base {
    create(&path, options).expect("a new image");
    let open_options =
        OpenOptions { format: Some(options.format), io: IoMode::Sync, ..OpenOptions::default() };
    let image = open(&path, &open_options).expect("a new image opens");
    let capacity = image.geometry().capacity;
    let mut queue = image.queue().expect("a queue");
    for (offset, byte) in [(0, 0x11), (capacity / 2, 0x22), (capacity - PAGE, 0x33)] {
        let write = Operation::Write { fua: false };
        one(&mut *queue, write, offset, vec![byte; PAGE as usize])
            .expect("a new image can be written");
    }
    one(&mut *queue, Operation::Flush, 0, Vec::new()).expect("a flush");
    drop((queue, image));
    read(&path, options.format, options.parent.is_some())
}

fn read(path: &Path, format: Format, has_parent: bool) -> Base {
    of_bytes(&fs::read(path).expect("reading an image"), format, has_parent)
}

fn of_bytes(bytes: &[u8], format: Format, has_parent: bool) -> Base {
    let pages = bytes
        .chunks(PAGE as usize)
        .enumerate()
        .filter(|(_, page)| page.iter().any(|&byte| byte != 0));
    Base {
        format,
        length: bytes.len() as u64,
        pages: pages.map(|(number, page)| (number as u64 * PAGE, page.to_vec())).collect(),
        places: places(bytes, format),
        has_parent,
        read_only: false,
    }
}

fn places(bytes: &[u8], format: Format) -> Vec<(u64, u64)> {
    let length = bytes.len() as u64;
    let word = |at: u64| {
        bytes
            .get(at as usize..at as usize + 8)
            .map_or(0, |b| u64::from_be_bytes(b.try_into().expect("8 bytes")))
    };
    match format {
        // The headers, the region tables, the metadata table and items, the block allocation table,
        // and the log.
        Format::Vhdx => vec![
            (64 * KIB, 80),
            (128 * KIB, 80),
            (192 * KIB, 80),
            (256 * KIB, 80),
            (2 * MIB, 224),
            (2 * MIB + 64 * KIB, 520),
            (3 * MIB, 96),
            (MIB, 4 * KIB),
        ],
        Format::Vhd => vec![(length - 512, 128), (0, 128), (512, 80), (1536, 64)],
        Format::Qcow2 => {
            let (l1, counts) = (word(40), word(48));
            let (l2, block) = (word(l1) & !(1 << 63), word(counts));
            vec![(0, 160), (l1, 64), (l2, 128), (counts, 32), (block, 64)]
        }
        Format::Raw => Vec::new(),
    }
}

/// Builds a dynamic VHD, which no crate here can create: blocks of 4 KiB, every second one present.
fn dynamic_vhd() -> Base {
    const BLOCKS: u64 = 16;
    let (header, table, first) = (512_u64, 1536_u64, 4_u64);
    let mut bytes = vec![0; 2048];
    let mut footer = vec![0; 512];
    footer[..8].copy_from_slice(b"conectix");
    footer[8..12].copy_from_slice(&2_u32.to_be_bytes());
    footer[12..16].copy_from_slice(&0x1_0000_u32.to_be_bytes());
    footer[16..24].copy_from_slice(&header.to_be_bytes());
    footer[40..48].copy_from_slice(&(BLOCKS * 4096).to_be_bytes());
    footer[48..56].copy_from_slice(&(BLOCKS * 4096).to_be_bytes());
    footer[60..64].copy_from_slice(&3_u32.to_be_bytes());
    bytes[512..520].copy_from_slice(b"cxsparse");
    bytes[520..528].fill(0xFF);
    bytes[528..536].copy_from_slice(&table.to_be_bytes());
    bytes[536..540].copy_from_slice(&0x1_0000_u32.to_be_bytes());
    bytes[540..544].copy_from_slice(&(BLOCKS as u32).to_be_bytes());
    bytes[544..548].copy_from_slice(&4096_u32.to_be_bytes());
    for block in 0..BLOCKS {
        let sector = if block % 2 == 0 { (first + block / 2 * 9) as u32 } else { u32::MAX };
        let at = (table + block * 4) as usize;
        bytes[at..at + 4].copy_from_slice(&sector.to_be_bytes());
    }
    for _ in 0..BLOCKS / 2 {
        bytes.extend([0xFF; 512]);
        bytes.extend([0x44; 4096]);
    }
    bytes[..512].copy_from_slice(&footer);
    bytes.extend(&footer);
    seal_vhd(&mut bytes[..512], 64);
    seal_vhd(&mut bytes[512..1536], 36);
    let end = bytes.len() - 512;
    seal_vhd(&mut bytes[end..], 64);
    Base { read_only: true, ..of_bytes(&bytes, Format::Vhd, false) }
}
