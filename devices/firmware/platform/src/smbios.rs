//! SMBIOS 3 tables (DMTF DSP0134 3.2), as two fw_cfg files from which firmware publishes them.

const LOW_LIMIT: u64 = 1 << 32;

/// The identity of the machine. An empty text is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Manufacturer of system, board, chassis and processors.
    pub manufacturer: String,
    /// Product name of system and board.
    pub product: String,
    /// Version of system, board and chassis.
    pub version: String,
    /// Serial number of system, board and chassis.
    pub serial: String,
    /// Stock number of the system.
    pub sku: String,
    /// Family of the system.
    pub family: String,
    /// Asset tag of the chassis.
    pub asset_tag: String,
    /// UUID of the machine as a GUID: the first three fields are little-endian. Zeros tell that
    /// there is none.
    pub uuid: [u8; 16],
}

/// What the tables tell of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemTables {
    /// The machine's identity.
    pub identity: Identity,
    /// Number of vCPUs.
    pub cpus: u16,
    /// RAM as address ranges (start and end), ascending.
    pub ram: Vec<(u64, u64)>,
}

/// The two files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmbiosFiles {
    /// `etc/smbios/smbios-anchor`: the entry point, whose address firmware fills in.
    pub anchor: Vec<u8>,
    /// `etc/smbios/smbios-tables`.
    pub tables: Vec<u8>,
}

impl SmbiosFiles {
    /// Returns the entry point for tables at this address.
    #[must_use]
    pub fn anchor_for(&self, address: u64) -> Vec<u8> {
        let mut anchor = self.anchor.clone();
        anchor[16..24].copy_from_slice(&address.to_le_bytes());
        seal(&mut anchor);
        anchor
    }
}

/// Handles of the structures that others refer to.
mod handle {
    pub(super) const CHASSIS: u16 = 0x300;
    pub(super) const MEMORY_ARRAY: u16 = 0x1000;
}

impl SystemTables {
    /// Returns the files.
    #[must_use]
    pub fn files(&self) -> SmbiosFiles {
        let tables = self.tables();
        let mut anchor = b"_SM3_\0\x18\x03\x02\0\x01\0".to_vec();
        anchor.extend((tables.len() as u32).to_le_bytes());
        anchor.extend([0; 8]);
        seal(&mut anchor);
        SmbiosFiles { anchor, tables }
    }

    fn tables(&self) -> Vec<u8> {
        let Identity { manufacturer, product, version, serial, sku, family, asset_tag, uuid } =
            &self.identity;
        let ram: u64 = self.ram.iter().map(|(start, end)| end - start).sum();
        let mut tables = Vec::new();

        // BIOS: starts at E800h; characteristics unsupported (bit 3); UEFI, virtual machine.
        let mut texts = Texts::default();
        let mut bios = structure(0, 0);
        bios.extend([texts.number(manufacturer), texts.number(version), 0, 0xE8, 0, 0]);
        bios.extend(8_u64.to_le_bytes());
        bios.extend([0, 0b1_1000, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0]);
        finish(&mut tables, bios, &texts.0);

        // System; woken by the power switch.
        let mut texts = Texts::default();
        let mut system = structure(1, 0x100);
        system.extend([manufacturer, product, version, serial].map(|text| texts.number(text)));
        system.extend(uuid);
        system.extend([6, texts.number(sku), texts.number(family)]);
        finish(&mut tables, system, &texts.0);

        // Board, in the chassis; a motherboard.
        let mut texts = Texts::default();
        let mut board = structure(2, 0x200);
        board.extend([manufacturer, product, version, serial].map(|text| texts.number(text)));
        board.extend([0, 1, 0]);
        board.extend(handle::CHASSIS.to_le_bytes());
        board.extend([0xA, 0]);
        finish(&mut tables, board, &texts.0);

        // Chassis: other; all states are safe, security unknown.
        let mut texts = Texts::default();
        let mut chassis = structure(3, handle::CHASSIS);
        chassis.extend([texts.number(manufacturer), 1]);
        chassis.extend([version, serial, asset_tag].map(|text| texts.number(text)));
        chassis.extend([3, 3, 3, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        finish(&mut tables, chassis, &texts.0);

        for cpu in 0..self.cpus {
            let mut processor = structure(4, 0x400 + cpu);
            // Central processor of an other family; identity and voltage unknown.
            processor.extend([1, 3, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0]);
            // Speeds unknown; populated and enabled; other upgrade; no cache structures.
            processor.extend([0, 0, 0, 0, 0, 0, 0x41, 1]);
            processor.extend([0xFF; 6]);
            // Serial, asset, part; one core, one thread; 64-bit capable.
            processor.extend([0, 0, 0, 1, 1, 1, 4, 0, 1, 0, 1, 0, 1, 0, 1, 0]);
            finish(&mut tables, processor, &[&format!("CPU {cpu}"), manufacturer]);
        }

        // Memory array: system memory on an other location, multi-bit correction.
        let mut array = structure(16, handle::MEMORY_ARRAY);
        array.extend([1, 3, 6]);
        array.extend(0x8000_0000_u32.to_le_bytes());
        array.extend(0xFFFE_u16.to_le_bytes());
        array.extend(1_u16.to_le_bytes());
        array.extend(ram.to_le_bytes());
        finish(&mut tables, array, &[]);

        // Memory device: one module, size in MiB in the extended field.
        let mut device = structure(17, 0x1100);
        device.extend(handle::MEMORY_ARRAY.to_le_bytes());
        device.extend(0xFFFE_u16.to_le_bytes());
        device.extend([0xFF; 4]);
        device.extend(0x7FFF_u16.to_le_bytes());
        device.extend([9, 0, 1, 0, 7, 2, 0, 0, 0, 2, 0, 0, 0, 0]);
        device.extend(((ram >> 20) as u32).to_le_bytes());
        device.extend([0; 8]);
        finish(&mut tables, device, &["DIMM 0", manufacturer]);

        for (index, (start, end)) in (0..).zip(&self.ram) {
            let mut mapped = structure(19, 0x1300 + index);
            let is_low = *end <= LOW_LIMIT;
            let kib = |address: u64| if is_low { (address >> 10) as u32 } else { u32::MAX };
            mapped.extend(kib(*start).to_le_bytes());
            mapped.extend(kib(end - 1).to_le_bytes());
            mapped.extend(handle::MEMORY_ARRAY.to_le_bytes());
            mapped.push(1);
            let extended = if is_low { [0, 0] } else { [*start, end - 1] };
            extended.iter().for_each(|address| mapped.extend(address.to_le_bytes()));
            finish(&mut tables, mapped, &[]);
        }

        let mut boot = structure(32, 0x2000);
        boot.extend([0; 7]);
        finish(&mut tables, boot, &[]);
        finish(&mut tables, structure(127, 0x7F00), &[]);
        tables
    }
}

/// Returns a structure's header; [`finish`] sets its length.
fn structure(kind: u8, handle: u16) -> Vec<u8> {
    let [low, high] = handle.to_le_bytes();
    vec![kind, 0, low, high]
}

/// The strings of a structure.
#[derive(Default)]
struct Texts<'a>(Vec<&'a str>);

impl<'a> Texts<'a> {
    /// Returns the number of a string in its structure; 0 for an empty one, which is left out.
    fn number(&mut self, text: &'a str) -> u8 {
        if text.is_empty() {
            return 0;
        }
        self.0.push(text);
        self.0.len() as u8
    }
}

/// Sets the checksum of an entry point.
fn seal(anchor: &mut [u8]) {
    anchor[5] = 0;
    anchor[5] = anchor.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte));
}

/// Appends a structure and its strings, which its fields number from 1.
fn finish(tables: &mut Vec<u8>, mut structure: Vec<u8>, strings: &[&str]) {
    structure[1] = structure.len() as u8;
    tables.extend(structure);
    for text in strings {
        // An empty string would end the list.
        let text = if text.is_empty() { " " } else { text };
        tables.extend(text.bytes().filter(|byte| *byte != 0));
        tables.push(0);
    }
    tables.push(0);
    if strings.is_empty() {
        tables.push(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(cpus: u16, ram: &[(u64, u64)]) -> SmbiosFiles {
        let tables = SystemTables {
            identity: Identity {
                manufacturer: "SynthVM".into(),
                product: "Virtual Machine".into(),
                serial: "S-1".into(),
                asset_tag: "A-2".into(),
                uuid: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
                ..Identity::default()
            },
            cpus,
            ram: ram.to_vec(),
        };
        tables.files()
    }

    /// Walks the tables as an operating system does; returns each structure without its strings.
    fn walk(tables: &[u8]) -> Vec<(Vec<u8>, Vec<String>)> {
        let mut found = Vec::new();
        let mut rest = tables;
        while !rest.is_empty() {
            let (structure, after) = rest.split_at(usize::from(rest[1]));
            let end = after.windows(2).position(|pair| pair == [0, 0]).unwrap();
            let text = after[..end].split(|byte| *byte == 0).filter(|text| !text.is_empty());
            let strings = text.map(|text| String::from_utf8(text.to_vec()).unwrap()).collect();
            found.push((structure.to_vec(), strings));
            rest = &after[end + 2..];
        }
        found
    }

    #[test]
    fn test_anchor_sums_to_zero_and_has_the_length_of_the_tables() {
        let files = files(2, &[(0, 1 << 30)]);
        assert_eq!(files.anchor.len(), 24);
        assert_eq!(files.anchor.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)), 0);
        assert_eq!(files.anchor[12..16], (files.tables.len() as u32).to_le_bytes());
    }

    #[test]
    fn test_anchor_for_an_address_has_it_and_sums_to_zero() {
        let anchor = files(1, &[(0, 1 << 30)]).anchor_for(0xF_0020);
        assert_eq!(anchor[16..24], 0xF_0020_u64.to_le_bytes());
        assert_eq!(anchor.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)), 0);
    }

    #[test]
    fn test_tables_walk_to_the_end_with_all_types_in_their_sizes() {
        let files = files(2, &[(0, 3 << 30), (4 << 30, 6 << 30)]);
        let structures = walk(&files.tables);
        let sizes: Vec<_> = structures.iter().map(|(bytes, _)| (bytes[0], bytes[1])).collect();
        let expected = [
            (0, 26),
            (1, 27),
            (2, 15),
            (3, 22),
            (4, 48),
            (4, 48),
            (16, 23),
            (17, 40),
            (19, 31),
            (19, 31),
            (32, 11),
            (127, 4),
        ];
        assert_eq!(sizes, expected);
        let (system, strings) = &structures[1];
        assert_eq!(system[4..12], [1, 2, 0, 3, 0, 1, 2, 3]);
        assert_eq!(*strings, ["SynthVM", "Virtual Machine", "S-1"]);
        let (chassis, strings) = &structures[3];
        assert_eq!(chassis[4..9], [1, 1, 0, 2, 3]);
        assert_eq!(*strings, ["SynthVM", "S-1", "A-2"]);
        let mut handles: Vec<_> =
            structures.iter().map(|(bytes, _)| [bytes[2], bytes[3]]).collect();
        handles.sort_unstable();
        handles.dedup();
        assert_eq!(handles.len(), structures.len());
    }

    #[test]
    fn test_memory_above_4_gib_is_in_the_extended_fields() {
        let structures = walk(&files(1, &[(0, 3 << 30), (4 << 30, 6 << 30)]).tables);
        let mapped: Vec<_> = structures.iter().filter(|(bytes, _)| bytes[0] == 19).collect();
        assert_eq!(mapped[0].0[8..12], ((3 << 20) - 1_u32).to_le_bytes());
        assert_eq!(mapped[1].0[4..12], [0xFF; 8]);
        assert_eq!(mapped[1].0[15..23], (4_u64 << 30).to_le_bytes());
        let device = &structures.iter().find(|(bytes, _)| bytes[0] == 17).unwrap().0;
        assert_eq!(device[28..32], (5_u32 << 10).to_le_bytes());
    }
}
