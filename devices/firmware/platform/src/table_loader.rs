//! The script by which firmware places ACPI tables: which fw_cfg files to load into memory, which
//! pointers in them to adjust, which checksums to compute (spec firmware-windows section B4.4).

const NAME_BYTES: usize = 56;
const COMMAND_BYTES: usize = 128;

const ALLOCATE: u32 = 1;
const ADD_POINTER: u32 = 2;
const ADD_CHECKSUM: u32 = 3;

/// The memory in which firmware places a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Zone {
    /// Any RAM below 4 GiB.
    High = 1,
    /// Below 1 MiB, where an RSDP must be.
    FSegment = 2,
}

/// A script, command by command. Files are named as in fw_cfg; a name has at most 55 bytes, and the
/// rest is cut off.
#[derive(Clone, Debug, Default)]
pub struct TableLoader {
    script: Vec<u8>,
}

impl TableLoader {
    /// Returns an empty script.
    #[must_use]
    pub fn new() -> TableLoader {
        TableLoader::default()
    }

    /// Loads `file` to memory in `zone`. `align` is a power of two.
    pub fn allocate(&mut self, file: &str, align: u32, zone: Zone) {
        self.command(ALLOCATE, |command| {
            command.extend(name(file));
            command.extend(align.to_le_bytes());
            command.push(zone as u8);
        });
    }

    /// Adds the address of the file `target` to the little-endian number of `size` bytes (1, 2, 4
    /// or 8) at `offset` of `file`. Both were allocated before. The number is the offset of a table
    /// in `target`.
    pub fn add_pointer(&mut self, file: &str, target: &str, offset: u32, size: u8) {
        self.command(ADD_POINTER, |command| {
            command.extend(name(file));
            command.extend(name(target));
            command.extend(offset.to_le_bytes());
            command.push(size);
        });
    }

    /// Sets the byte at `offset` of `file`, which must be 0, so that the sum of the `len` bytes
    /// from
    /// `start` is 0.
    pub fn add_checksum(&mut self, file: &str, offset: u32, start: u32, len: u32) {
        self.command(ADD_CHECKSUM, |command| {
            command.extend(name(file));
            for number in [offset, start, len] {
                command.extend(number.to_le_bytes());
            }
        });
    }

    /// Returns the bytes of the file `etc/table-loader`.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.script
    }

    fn command(&mut self, number: u32, operands: impl FnOnce(&mut Vec<u8>)) {
        let start = self.script.len();
        self.script.extend(number.to_le_bytes());
        operands(&mut self.script);
        self.script.resize(start + COMMAND_BYTES, 0);
    }
}

fn name(file: &str) -> [u8; NAME_BYTES] {
    let mut name = [0; NAME_BYTES];
    let len = file.len().min(NAME_BYTES - 1);
    name[..len].copy_from_slice(&file.as_bytes()[..len]);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_script_has_128_bytes_a_command_and_fields_at_their_offsets() {
        let mut loader = TableLoader::new();
        loader.allocate("a", 64, Zone::FSegment);
        loader.add_pointer("a", "b", 0x18, 8);
        loader.add_checksum("b", 9, 4, 36);
        let script = loader.into_bytes();
        let [allocate, pointer, checksum] = [0, 1, 2].map(|index| &script[index * 128..][..128]);
        assert_eq!(script.len(), 3 * 128);
        assert_eq!((allocate[0], allocate[4], allocate[60], allocate[64]), (1, b'a', 64, 2));
        assert_eq!((pointer[0], pointer[4], pointer[60]), (2, b'a', b'b'));
        assert_eq!((pointer[116], pointer[120]), (0x18, 8));
        assert_eq!((checksum[0], checksum[4], checksum[60]), (3, b'b', 9));
        assert_eq!((checksum[64], checksum[68]), (4, 36));
    }

    #[test]
    fn test_name_that_is_too_long_keeps_its_nul() {
        let mut loader = TableLoader::new();
        loader.allocate(&"x".repeat(100), 1, Zone::High);
        assert_eq!(loader.into_bytes()[58..61], *b"x\0\x01");
    }
}
