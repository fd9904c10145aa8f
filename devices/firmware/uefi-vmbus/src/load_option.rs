//! Load options: the values of the variables `Boot####` and `PlatformRecovery####`
//! (`EFI_LOAD_OPTION`, UEFI specification section 3.1.3).

use alloc::vec::Vec;

/// Attributes: the boot manager starts the option by itself.
const ACTIVE: u32 = 1;
/// Attributes: the category, of which 0 is that of systems. Others are applications, such as the
/// firmware's setup.
const CATEGORY: u32 = 0x1F00;

/// Bytes before the description.
const HEADER: usize = 6;

/// Type and subtype of a node that names a file in the firmware's own volume.
const FIRMWARE_FILE: [u8; 2] = [4, 6];
/// Type of the node that ends a path or an instance of it.
const END: u8 = 0x7F;

/// Returns an active option with this description and device path, which has its end node.
#[must_use]
pub fn build(description: &str, path: &[u8]) -> Vec<u8> {
    let mut option = Vec::new();
    option.extend(ACTIVE.to_le_bytes());
    // The driver's paths are far below 64 KiB.
    option.extend((path.len() as u16).to_le_bytes());
    let units = description.encode_utf16().chain([0]);
    option.extend(units.flat_map(u16::to_le_bytes));
    option.extend(path);
    option
}

/// The kinds of options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A system, or an application on a disk or in the network.
    System,
    /// An application that is part of the firmware and that it starts like a system: its shell.
    FirmwareShell,
    /// Another application of the firmware, such as its setup.
    Application,
}

/// Returns the kind of the option in `bytes`. `None`: they are not a load option.
#[must_use]
pub fn kind(bytes: &[u8]) -> Option<Kind> {
    let (attributes, rest) = bytes.split_first_chunk()?;
    let (path_len, rest) = rest.split_first_chunk()?;
    let mut units = rest.chunks_exact(2);
    let description = units.position(|unit| unit == [0, 0])? + 1;
    let start = HEADER + 2 * description;
    let path = bytes.get(start..start + usize::from(u16::from_le_bytes(*path_len)))?;
    if u32::from_le_bytes(*attributes) & CATEGORY != 0 {
        return Some(Kind::Application);
    }
    let is_firmware = nodes(path).any(|node| node == FIRMWARE_FILE);
    Some(if is_firmware { Kind::FirmwareShell } else { Kind::System })
}

/// Returns type and subtype of each node before the end, up to the first that is invalid.
fn nodes(mut path: &[u8]) -> impl Iterator<Item = [u8; 2]> {
    core::iter::from_fn(move || {
        let (&[kind, subtype, low, high], _) = path.split_first_chunk()?;
        let len = usize::from(u16::from_le_bytes([low, high]));
        path = path.get(len..).filter(|_| len >= 4)?;
        (kind != END).then_some([kind, subtype])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const END_NODE: [u8; 4] = [END, 0xFF, 4, 0];

    /// Returns the path of a file in a firmware volume.
    fn firmware_file() -> Vec<u8> {
        let volume = [&[4, 7, 20, 0][..], &[0x11; 16]].concat();
        let file = [&[4, 6, 20, 0][..], &[0x22; 16]].concat();
        [volume, file, END_NODE.to_vec()].concat()
    }

    #[test]
    fn test_built_option_has_attributes_length_description_and_path() {
        let option = build("Ab", &END_NODE);
        assert_eq!(option, *b"\x01\0\0\0\x04\0A\0b\0\0\0\x7F\xFF\x04\0");
        assert_eq!(kind(&option), Some(Kind::System));
    }

    #[test]
    fn test_file_of_the_firmware_is_its_shell_unless_it_is_an_application() {
        let mut option = build("EFI Internal Shell", &firmware_file());
        assert_eq!(kind(&option), Some(Kind::FirmwareShell));
        option[1] = 1;
        assert_eq!(kind(&option), Some(Kind::Application));
    }

    #[test]
    fn test_cut_option_is_none_and_a_bad_node_ends_the_path() {
        let option = build("Shell", &firmware_file());
        for len in 0..option.len() {
            assert_eq!(kind(&option[..len]), None, "{len}");
        }
        let mut bad = build("Shell", &firmware_file());
        let node = bad.len() - 44;
        bad[node + 2] = 3;
        assert_eq!(kind(&bad), Some(Kind::System));
    }
}
