//! Standard INQUIRY data (spec storvsc section 6.1).

/// Bytes of standard INQUIRY data, as Hyper-V returns them.
pub(super) const STANDARD_LEN: usize = 104;

const SPC_3: u8 = 0x05;
const RESPONSE_FORMAT: u8 = 0x02;
const COMMAND_QUEUING: u8 = 0x02;
/// Qualifier 3 (no device can be here), type 0x1F (unknown).
const NO_DEVICE: u8 = 0x7F;

/// Vendor: guests tie quirks (WRITE SAME, SCSI level) to the first four letters.
pub(super) const VENDOR: &[u8; 8] = b"Msft    ";
const PRODUCT: &[u8; 16] = b"Virtual Disk    ";
const REVISION: &[u8; 4] = b"1.0 ";

/// A disk's answer.
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

/// The answer of a LUN that is not there. Names are kept at LUN 0 only (spec section 5.1).
pub(super) fn absent(lun: u8) -> [u8; STANDARD_LEN] {
    let mut data = standard();
    data[0] = NO_DEVICE;
    if lun != 0 {
        data[8..36].fill(0);
    }
    data
}
