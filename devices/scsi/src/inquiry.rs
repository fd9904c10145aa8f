//! Standard INQUIRY data (spec storvsc section 6.1).

/// Bytes of standard INQUIRY data, the same number as Hyper-V returns.
pub(super) const STANDARD_LEN: usize = 104;

const SPC_3: u8 = 0x05;
const RESPONSE_FORMAT: u8 = 0x02;
const COMMAND_QUEUING: u8 = 0x02;
/// Qualifier 3 (this LUN cannot have a device), type 0x1F (unknown).
const NO_DEVICE: u8 = 0x7F;

/// Vendor: guests tie quirks (WRITE SAME, SCSI level) to the first four letters.
pub(super) const VENDOR: &[u8; 8] = b"Msft    ";
const PRODUCT: &[u8; 16] = b"Virtual Disk    ";
const REVISION: &[u8; 4] = b"1.0 ";

/// Returns the standard data of a disk.
pub(super) fn standard() -> [u8; STANDARD_LEN] {
    let mut data = [0; STANDARD_LEN];
    data[2] = SPC_3;
    data[3] = RESPONSE_FORMAT;
    data[4] = const { (STANDARD_LEN - 5) as u8 };
    data[7] = COMMAND_QUEUING;
    data[8..16].copy_from_slice(VENDOR);
    data[16..32].copy_from_slice(PRODUCT);
    data[32..36].copy_from_slice(REVISION);
    data
}

/// Returns the standard data of an absent LUN. Only LUN 0 has vendor and product names (spec
/// section 5.1).
pub(super) fn absent(lun: u8) -> [u8; STANDARD_LEN] {
    let mut data = standard();
    data[0] = NO_DEVICE;
    if lun != 0 {
        data[8..36].fill(0);
    }
    data
}
