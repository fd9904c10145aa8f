//! The recorded writes of OVMF to its flash.

use miniz_oxide::inflate::decompress_to_vec_zlib;

/// Compressed: a count, as many parts of the empty store that are not erased, and operations. A
/// part is u32 offset, u16 length, bytes. An operation is "P" with a part, whose bytes are
/// programmed one by one, or "W" with u32 offset and the written byte. Little-endian.
const RECORDING: &[u8] = include_bytes!("ovmf-2m.flash");

/// Bytes of the flash: variables of a 2 MiB image.
const FLASH: usize = 0x20000;

/// What the firmware wrote.
pub(crate) struct Recording {
    template: Vec<u8>,
    operations: Vec<Operation>,
}

/// A part of the recording.
pub(crate) enum Operation {
    /// Bytes that are programmed one by one from an offset on.
    Program(usize, Vec<u8>),
    /// A command.
    Write(usize, u8),
}

/// The command that programs the byte of the next write.
const PROGRAM: u8 = 0x10;

impl Recording {
    /// Reads the recording.
    pub(crate) fn read() -> Recording {
        let bytes = decompress_to_vec_zlib(RECORDING).unwrap();
        let mut rest = &bytes[..];
        let parts = u32::from_le_bytes(take(&mut rest));
        let mut template = vec![0xFF; FLASH];
        for _ in 0..parts {
            let (start, bytes) = part(&mut rest);
            template[start..start + bytes.len()].copy_from_slice(bytes);
        }
        let mut operations = Vec::new();
        while !rest.is_empty() {
            operations.push(match take(&mut rest) {
                [b'P'] => {
                    let (start, bytes) = part(&mut rest);
                    Operation::Program(start, bytes.to_vec())
                }
                [_] => {
                    let offset = u32::from_le_bytes(take(&mut rest)) as usize;
                    let [value] = take(&mut rest);
                    Operation::Write(offset, value)
                }
            });
        }
        Recording { template, operations }
    }

    /// Returns the flash before the first write.
    pub(crate) fn template(&self) -> &[u8] {
        &self.template
    }

    /// Returns the operations.
    pub(crate) fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// Returns all writes: offset and byte.
    pub(crate) fn writes(&self) -> impl Iterator<Item = (u64, u8)> + '_ {
        self.operations.iter().flat_map(|operation| match operation {
            Operation::Program(start, bytes) => (*start..)
                .zip(bytes)
                .flat_map(|(at, byte)| [(at as u64, PROGRAM), (at as u64, *byte)])
                .collect(),
            Operation::Write(offset, value) => vec![(*offset as u64, *value)],
        })
    }
}

impl Operation {
    /// Returns the number of writes.
    pub(crate) fn writes(&self) -> usize {
        match self {
            Operation::Program(_, bytes) => 2 * bytes.len(),
            Operation::Write(..) => 1,
        }
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> [u8; N] {
    let (first, rest) = bytes.split_first_chunk().unwrap();
    *bytes = rest;
    *first
}

fn part<'a>(bytes: &mut &'a [u8]) -> (usize, &'a [u8]) {
    let start = u32::from_le_bytes(take(bytes)) as usize;
    let length = u16::from_le_bytes(take(bytes)).into();
    let (part, rest) = bytes.split_at(length);
    *bytes = rest;
    (start, part)
}
