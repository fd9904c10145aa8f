//! Vital product data pages (spec storvsc section 6.1).

use super::limits::{MAX_UNMAP_DESCRIPTORS, MAX_WRITE_SAME};
use super::{CheckCondition, Disk, inquiry};

const SUPPORTED_PAGES: u8 = 0x00;
const SERIAL_NUMBER: u8 = 0x80;
const DEVICE_IDENTIFICATION: u8 = 0x83;
const BLOCK_LIMITS: u8 = 0xB0;
const BLOCK_CHARACTERISTICS: u8 = 0xB1;
const PROVISIONING: u8 = 0xB2;
const VIRTUAL_DEVICE: u8 = 0xCF;

/// All pages, sorted, as page 0x00 must list them.
const PAGES: [u8; 7] = [
    SUPPORTED_PAGES,
    SERIAL_NUMBER,
    DEVICE_IDENTIFICATION,
    BLOCK_LIMITS,
    BLOCK_CHARACTERISTICS,
    PROVISIONING,
    VIRTUAL_DEVICE,
];

/// {89a98f15-c928-4d8b-94cd-ef51faa99d33} in wire order: Microsoft's mark of a virtual device.
const VIRTUAL_DEVICE_GUID: [u8; 16] = [
    0x15, 0x8f, 0xa9, 0x89, 0x28, 0xc9, 0x8b, 0x4d, 0x94, 0xcd, 0xef, 0x51, 0xfa, 0xa9, 0x9d, 0x33,
];

/// Block limits: bit 31 marks the alignment in the other bits as valid.
const UNMAP_ALIGNMENT_VALID: u32 = 1 << 31;

/// LBPU, LBPWS and LBPWS10. Guests prefer UNMAP for discards, and WRITE SAME with its UNMAP bit for
/// zeroing.
const UNMAP_AND_WRITE_SAME: u8 = 0xE0;
/// LBPRZ.
const READS_ZERO: u8 = 0x04;
const FULLY_PROVISIONED: u8 = 0;
const THIN: u8 = 2;

/// First four bytes of the NAA designator: type 6, and Microsoft's company id.
const NAA_PREFIX: [u8; 4] = [0x60, 0x02, 0x24, 0x80];

/// Appends page `page` of `disk` to `out`, header included.
///
/// # Errors
/// 5/24/00 for a page that is not offered.
pub(super) fn page(disk: &Disk, page: u8, out: &mut Vec<u8>) -> Result<(), CheckCondition> {
    let start = out.len();
    out.extend_from_slice(&[0, page, 0, 0]);
    match page {
        SUPPORTED_PAGES => out.extend_from_slice(&PAGES),
        SERIAL_NUMBER => out.extend_from_slice(disk.identity().serial.as_bytes()),
        DEVICE_IDENTIFICATION => device_identification(&disk.identity().guid, out),
        BLOCK_LIMITS => block_limits(disk, out),
        BLOCK_CHARACTERISTICS => block_characteristics(disk, out),
        PROVISIONING => provisioning(disk, out),
        VIRTUAL_DEVICE => {
            out.extend_from_slice(&[1, 0, 0, 0]);
            out.extend_from_slice(&VIRTUAL_DEVICE_GUID);
        }
        _ => {
            out.truncate(start);
            return Err(CheckCondition::INVALID_FIELD);
        }
    }
    let length = u16::try_from(out.len() - start - 4).unwrap_or(u16::MAX);
    out[start + 2..start + 4].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

fn device_identification(guid: &[u8; 16], out: &mut Vec<u8>) {
    // T10 vendor id: binary, associated with the logical unit.
    out.extend_from_slice(&[0x01, 0x01, 0, 24]);
    out.extend_from_slice(inquiry::VENDOR);
    out.extend_from_slice(guid);
    // NAA 6: Linux makes the names in /dev/disk/by-id from it.
    out.extend_from_slice(&[0x01, 0x03, 0, 16]);
    out.extend_from_slice(&NAA_PREFIX);
    out.extend_from_slice(&guid[..6]);
    out.extend_from_slice(&guid[10..]);
}

fn block_limits(disk: &Disk, out: &mut Vec<u8>) {
    let mut page = [0; 0x3C];
    let granularity = 1u16 << disk.physical_exponent();
    page[2..4].copy_from_slice(&granularity.to_be_bytes());
    page[0] = 0x01; // WSNZ: a WRITE SAME of 0 blocks is refused
    page[4..8].copy_from_slice(&disk.max_transfer_blocks().to_be_bytes());
    if let Some(discard) = disk.discard() {
        // As many blocks as the field can state, in as many descriptors as a list can hold. The
        // granules begin at block 0. Windows reads 0 as "no UNMAP".
        let granularity = (discard.granularity / disk.block_size().bytes()).max(1);
        page[16..20].copy_from_slice(&u32::MAX.to_be_bytes());
        page[20..24].copy_from_slice(&MAX_UNMAP_DESCRIPTORS.to_be_bytes());
        page[24..28].copy_from_slice(&granularity.to_be_bytes());
        page[28..32].copy_from_slice(&UNMAP_ALIGNMENT_VALID.to_be_bytes());
    }
    let same = MAX_WRITE_SAME >> disk.block_size().shift();
    page[32..40].copy_from_slice(&same.to_be_bytes());
    // No COMPARE AND WRITE, no atomic writes: all zero.
    out.extend_from_slice(&page);
}

/// Appends the commands that unmap blocks, and whether unmapped blocks read as zero. The first byte
/// is an exponent for the size of threshold sets. No threshold is ever reported, but Hyper-V states
/// the exponent with which 32 bits count the disk.
fn provisioning(disk: &Disk, out: &mut Vec<u8>) {
    let exponent = (u64::BITS - disk.last_lba().leading_zeros()).saturating_sub(32).max(1) as u8;
    let (commands, kind) = match disk.discard() {
        None => (0, FULLY_PROVISIONED),
        Some(discard) if discard.zeroes => (UNMAP_AND_WRITE_SAME | READS_ZERO, THIN),
        Some(_) => (UNMAP_AND_WRITE_SAME, THIN),
    };
    out.extend_from_slice(&[exponent, commands, kind, 0]);
}

fn block_characteristics(disk: &Disk, out: &mut Vec<u8>) {
    let mut page = [0; 0x3C];
    // 0: not reported, 1: does not rotate.
    let rotation: u16 = if disk.is_rotational() { 0 } else { 1 };
    page[..2].copy_from_slice(&rotation.to_be_bytes());
    out.extend_from_slice(&page);
}
