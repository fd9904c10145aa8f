//! storvsp and SCSI as a guest's driver speaks them.

use super::{BareChannel, GuestRange};

pub const EXECUTE_SRB: u32 = 3;
pub const RESET_LUN: u32 = 4;
pub const RESET_ADAPTER: u32 = 5;
pub const RESET_BUS: u32 = 6;
pub const BEGIN: u32 = 7;
pub const END: u32 = 8;
pub const QUERY_VERSION: u32 = 9;
pub const QUERY_PROPERTIES: u32 = 10;
pub const ENUMERATE_BUS: u8 = 11;
pub const CREATE_SUB_CHANNELS: u32 = 13;

pub const NO_DATA: u8 = 2;
pub const TO_DISK: u8 = 0;
pub const FROM_DISK: u8 = 1;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub srb: u8,
    pub scsi: u8,
    pub length: u32,
    pub packet: u32,
    /// Key, ASC, ASCQ; zero without valid sense.
    pub sense: [u8; 3],
}

impl Outcome {
    pub fn good(length: u32) -> Self {
        Self { srb: 1, scsi: 0, length, packet: 0, sense: [0; 3] }
    }

    pub fn failed(srb: u8, sense: [u8; 3]) -> Self {
        Self { srb, scsi: 2, length: 0, packet: 0xC000_0185, sense }
    }

    /// RESERVATION CONFLICT: a status without sense.
    pub fn conflict() -> Self {
        Self { srb: 0x04, scsi: 0x18, length: 0, packet: 0xC000_0185, sense: [0; 3] }
    }

    /// TASK SET FULL: come again.
    pub fn queue_full() -> Self {
        Self { srb: 0x05, scsi: 0x28, length: 0, packet: 0x8000_0011, sense: [0; 3] }
    }

    pub fn no_such_lun() -> Self {
        Self { srb: 0x20, scsi: 2, length: 0, packet: 0xC000_00C0, sense: [0; 3] }
    }

    pub fn of(reply: &[u8]) -> Self {
        assert!(reply.len() + 16 <= 80, "Linux would lose its place in the ring");
        assert_eq!(u32_at(reply, 0), 1, "every reply is COMPLETE_IO");
        let sense = [reply[30], reply[40], reply[41]];
        assert_eq!(reply[14] & 0x80 != 0, reply[28] == 0x70, "bit 7 is set iff sense is there");
        Self {
            srb: reply[14],
            scsi: reply[15],
            length: u32_at(reply, 24),
            packet: u32_at(reply, 8),
            sense,
        }
    }
}

pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

pub fn packet(operation: u32, value: u16) -> [u8; 64] {
    let mut packet = [0; 64];
    packet[..4].copy_from_slice(&operation.to_le_bytes());
    packet[4] = 1;
    packet[12..14].copy_from_slice(&value.to_le_bytes());
    packet
}

pub fn srb(lun: u8, cdb: &[u8], direction: u8, length: u32) -> [u8; 64] {
    let mut packet = packet(EXECUTE_SRB, 0x34);
    packet[19] = lun;
    packet[20] = cdb.len() as u8;
    packet[21] = 20;
    packet[22] = direction;
    packet[24..28].copy_from_slice(&length.to_le_bytes());
    packet[28..28 + cdb.len()].copy_from_slice(cdb);
    packet
}

pub fn rw(opcode: u8, flags: u8, lba: u64, blocks: u32) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[..2].copy_from_slice(&[opcode, flags]);
    cdb[2..10].copy_from_slice(&lba.to_be_bytes());
    cdb[10..14].copy_from_slice(&blocks.to_be_bytes());
    cdb
}

/// READ(16) of `blocks` sectors.
pub fn read_srb(lun: u8, lba: u64, blocks: u32) -> [u8; 64] {
    srb(lun, &rw(0x88, 0, lba, blocks), FROM_DISK, blocks * 512)
}

/// WRITE(16) of `blocks` sectors.
pub fn write_srb(lun: u8, lba: u64, blocks: u32) -> [u8; 64] {
    srb(lun, &rw(0x8A, 0, lba, blocks), TO_DISK, blocks * 512)
}

/// Storage requests on a channel.
pub trait StorageChannel {
    /// Initialises as Linux does. Returns the reply to QUERY_PROPERTIES.
    fn initialise(&mut self) -> Vec<u8>;

    /// Sends a request and returns its outcome.
    fn execute(&mut self, srb: &[u8], memory: &[GuestRange]) -> Outcome;

    /// Executes TEST UNIT READY.
    fn test_unit_ready(&mut self, lun: u8) -> Outcome;

    /// Returns INQUIRY data of 36 bytes, through page `page`.
    fn inquiry(&mut self, lun: u8, page: u64) -> (Outcome, Vec<u8>);
}

impl StorageChannel for BareChannel {
    fn initialise(&mut self) -> Vec<u8> {
        let mut properties = Vec::new();
        for (operation, value) in
            [(BEGIN, 0), (QUERY_VERSION, 0x0602), (QUERY_PROPERTIES, 0), (END, 0)]
        {
            let reply = self.ask(&packet(operation, value), &[]);
            assert_eq!((u32_at(&reply, 0), u32_at(&reply, 8)), (1, 0), "operation {operation}");
            if operation == QUERY_PROPERTIES {
                properties = reply;
            }
        }
        properties
    }

    fn execute(&mut self, srb: &[u8], memory: &[GuestRange]) -> Outcome {
        Outcome::of(&self.ask(srb, memory))
    }

    fn test_unit_ready(&mut self, lun: u8) -> Outcome {
        self.execute(&srb(lun, &[0; 6], NO_DATA, 0), &[])
    }

    fn inquiry(&mut self, lun: u8, page: u64) -> (Outcome, Vec<u8>) {
        self.poke(page, 0, &[0xEE; 64]);
        let memory = [GuestRange::at(page, 36)];
        let outcome = self.execute(&srb(lun, &[0x12, 0, 0, 0, 36, 0], FROM_DISK, 36), &memory);
        (outcome, self.peek(page, 0, 36))
    }
}

/// Bytes that tell each sector and each byte from the others.
pub fn pattern(seed: u64, length: usize) -> Vec<u8> {
    (0..length as u64)
        .map(|at| (at.wrapping_mul(0x9E37_79B9).wrapping_add(seed * 77) >> 7) as u8)
        .collect()
}
