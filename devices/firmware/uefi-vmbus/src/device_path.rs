//! UEFI device paths of channels and logical units, as Hyper-V's own firmware has them
//! (firmware-windows section A7 number 11). Boot entries name them, so they must stay the same over
//! runs of a VM.

use alloc::vec::Vec;

use vmbus_protocol::Guid;

use crate::controller::Address;

/// ACPI node with strings: hardware id "VMBus", the other ids empty.
const ROOT: [u8; 24] = *b"\x02\x02\x18\x00\0\0\0\0\0\0\0\0\0\0\0\0VMBus\0\0\0";
/// Header of a vendor's hardware node of 52 bytes: behind it are vendor GUID, class and instance.
const CHANNEL: [u8; 4] = [1, 4, 52, 0];
/// The vendor GUID of VMBus channels.
const CHANNEL_VENDOR: Guid =
    Guid::new(0x9b17_e5a2, 0x0891, 0x42dd, [0xb6, 0x53, 0x80, 0xb5, 0xc2, 0x28, 0x09, 0xba]);
/// Header of a SCSI node: behind it are target and LUN, 16 bits each.
const SCSI: [u8; 4] = [3, 2, 8, 0];
const END: [u8; 4] = [0x7F, 0xFF, 4, 0];
/// Header of a vendor's hardware node of 20 bytes: behind it is the vendor GUID.
const VENDOR: [u8; 4] = [1, 4, 20, 0];
/// The vendor GUID of the driver's recovery option.
const RECOVERY: Guid =
    Guid::new(0xb986_ac3e, 0x40c2, 0x4be4, [0xa0, 0x5e, 0xf6, 0x2e, 0xab, 0x13, 0xe8, 0xd0]);

/// Returns the device path of the channel with this class and instance, with the end node.
#[must_use]
pub fn channel(class: Guid, instance: Guid) -> Vec<u8> {
    let guids = [CHANNEL_VENDOR, class, instance].map(Guid::to_bytes);
    [&ROOT[..], &CHANNEL, guids.as_flattened(), &END].concat()
}

/// Returns the device path of the driver's recovery option, with the end node.
#[must_use]
pub fn recovery() -> Vec<u8> {
    [&VENDOR[..], &RECOVERY.to_bytes(), &END].concat()
}

/// Returns the node of a logical unit, without an end node.
#[must_use]
pub fn unit(address: Address) -> [u8; 8] {
    let [h0, h1, h2, h3] = SCSI;
    [h0, h1, h2, h3, address.target, 0, address.lun, 0]
}

/// Returns the address in a node of [`unit()`]. `None` for any other node.
#[must_use]
pub fn address(node: &[u8]) -> Option<Address> {
    match *node {
        [h0, h1, h2, h3, target, 0, lun, 0, ..] if [h0, h1, h2, h3] == SCSI => {
            Some(Address { target, lun })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmbus_protocol::guid::class;

    fn hex(text: &str) -> Vec<u8> {
        text.as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(core::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    /// The nodes are those of a boot entry that a distribution wrote on Hyper-V.
    #[test]
    fn test_path_of_a_disk_is_that_of_hyper_v() {
        let instance = hex("5a80e5d23e369c4494ed50c0a0cd8656").try_into().unwrap();
        let mut path = channel(class::SCSI, Guid::from_bytes(instance));
        path.truncate(path.len() - END.len());
        path.extend(unit(Address { target: 0, lun: 0 }));
        let expected = "02021800000000000000000000000000564d42757300000001043400a2e5179b9108dd42\
                        b65380b5c22809bad96361baa104294db60572e2ffb1dc7f5a80e5d23e369c4494ed50c0\
                        a0cd86560302080000000000";
        assert_eq!(path, hex(expected));
    }

    #[test]
    fn test_address_of_a_unit_node_is_the_unit() {
        let disk = Address { target: 1, lun: 63 };
        assert_eq!(address(&unit(disk)), Some(disk));
        assert_eq!(address(&[3, 2, 8, 0, 0, 1, 0, 0]), None);
        assert_eq!(address(&[3, 1, 8, 0, 0, 0, 0, 0]), None);
        assert_eq!(address(&[3, 2, 8]), None);
    }
}
