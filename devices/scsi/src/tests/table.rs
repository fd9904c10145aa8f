//! Every command that a disk offers, field by field, as one table: CDB and transfer in, outcome
//! out.
//!
//! The disk has 0x20000 blocks of 512 bytes, can unmap, and transfers at most 0x800 blocks.
//! Sources: SPC-4 and SBC-3. A row that deviates from them says why.

use super::*;

/// The outcome of a command.
#[derive(Clone, Debug, PartialEq)]
enum End {
    Good,
    /// Data of that many bytes, which begins with these bytes.
    Data(usize, &'static [u8]),
    /// An I/O: first block, blocks.
    Read(u64, u64),
    Write(u64, u64),
    Forced(u64, u64),
    Zero(u64, u64),
    /// A request for a parameter list of that many bytes.
    List(usize),
    /// A compound command.
    Job,
    Flush,
    Query,
    /// 5/20/00.
    Opcode,
    /// 5/24/00.
    Field,
    /// 5/24/00, with the buffer too small for an answer.
    Overrun,
    /// 5/1A/00.
    Length,
    /// 5/21/00.
    Beyond,
    /// 5/39/00.
    Saving,
}

use End::*;

/// The transfers: no data, data for the guest, data for the disk.
const N: Transfer = Transfer::None;
const fn to_guest(bytes: u32) -> Transfer {
    Transfer::ToGuest(bytes)
}
const fn to_disk(bytes: u32) -> Transfer {
    Transfer::ToDisk(bytes)
}

fn end(disk: &Disk, cdb: &[u8], transfer: Transfer) -> End {
    let blocks = |range: Range| (range.offset / 512, range.length / 512);
    let (decision, answer) = match run(disk, cdb, transfer) {
        Ok(all) => all,
        Err(condition) => {
            return match (condition.sense, condition.cause) {
                (Sense::INVALID_OPCODE, _) => Opcode,
                (Sense::INVALID_FIELD_IN_CDB, Cause::DataOverrun) => Overrun,
                (Sense::INVALID_FIELD_IN_CDB, _) => Field,
                (Sense::PARAMETER_LIST_LENGTH, _) => Length,
                (Sense::LBA_OUT_OF_RANGE, _) => Beyond,
                (Sense::SAVING_NOT_SUPPORTED, _) => Saving,
                other => panic!("{other:?}"),
            };
        }
    };
    match decision {
        Decision::Good => Good,
        Decision::Reply => Data(answer.len(), answer.leak()),
        Decision::Io(Io { operation, range }) => {
            let (lba, count) = blocks(range);
            match operation {
                Operation::Read => Read(lba, count),
                Operation::Write { fua: false } => Write(lba, count),
                Operation::Write { fua: true } => Forced(lba, count),
                Operation::WriteZeroes { .. } | Operation::Discard => Zero(lba, count),
                Operation::Flush => panic!("a flush has no range"),
            }
        }
        Decision::Parameters(parameters) => List(parameters.length()),
        Decision::Job(_) => Job,
        Decision::Flush => Flush,
        Decision::LbaStatus(_) => Query,
        other @ (Decision::Ejected | Decision::Conflict) => panic!("{other:?}"),
    }
}

type Row = (&'static [u8], Transfer, End);

fn check(rows: &[Row]) {
    let discard = Some(Discard { granularity: 4096, zeroes: true });
    let disk = disk_of(Geometry { discard, ..geometry() });
    for (cdb, transfer, wanted) in rows {
        let mut ended = end(&disk, cdb, *transfer);
        if let (Data(_, bytes), Data(_, prefix)) = (&mut ended, wanted) {
            *bytes = &bytes[..prefix.len().min(bytes.len())];
        }
        assert_eq!(ended, *wanted, "{cdb:02x?} {transfer:?}");
    }
}

#[test]
fn test_table_commands_without_data() {
    check(&[
        // TEST UNIT READY; the control byte's NACA (bit 2), vendor bits and the obsolete LINK.
        (&[0x00, 0, 0, 0, 0, 0], N, Good),
        (&[0x00, 0, 0, 0, 0, 0x04], N, Field),
        (&[0x00, 0, 0, 0, 0, 0xC3], N, Good),
        (&[0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0], N, Good),
        // RESERVE and RELEASE; a third party.
        (&[0x16, 0, 0, 0, 0, 0], N, Good),
        (&[0x17, 0, 0, 0, 0, 0], N, Good),
        (&[0x16, 0x10, 0, 0, 0, 0], N, Field),
        (&[0x17, 0x01, 0, 0, 0, 0], N, Field),
        (&[0x56, 0, 0, 0, 0, 0, 0, 0, 0, 0], N, Good),
        (&[0x57, 0, 0, 0, 0, 0, 0, 0, 0, 0], N, Good),
        (&[0x56, 0x10, 0, 0, 0, 0, 0, 0, 0, 0], N, Field),
        // START STOP UNIT: start, stop, IMMED, NO_FLUSH (which permits a flush), LOEJ.
        (&[0x1B, 0, 0, 0, 0x01, 0], N, Good),
        (&[0x1B, 1, 0, 0, 0x01, 0], N, Good),
        (&[0x1B, 0, 0, 0, 0x00, 0], N, Flush),
        (&[0x1B, 1, 0, 0, 0x00, 0], N, Flush),
        (&[0x1B, 0, 0, 0, 0x04, 0], N, Flush),
        (&[0x1B, 0, 0, 0, 0x02, 0], N, Field),
        (&[0x1B, 0, 0, 0, 0x03, 0], N, Field),
        // Power conditions, with which START and LOEJ have no effect.
        (&[0x1B, 0, 0, 0, 0x10, 0], N, Good),
        (&[0x1B, 0, 0, 0, 0x12, 0], N, Good),
        (&[0x1B, 0, 0, 0, 0x20, 0], N, Flush),
        (&[0x1B, 0, 0, 1, 0x23, 0], N, Flush),
        (&[0x1B, 0, 0, 0, 0x30, 0], N, Flush),
        (&[0x1B, 0, 0, 0, 0x40, 0], N, Field),
        (&[0x1B, 0, 0, 0, 0x60, 0], N, Field),
        (&[0x1B, 0, 0, 0, 0x70, 0], N, Good),
        (&[0x1B, 0, 0, 0, 0xA0, 0], N, Flush),
        (&[0x1B, 0, 0, 0, 0xB0, 0], N, Flush),
        (&[0x1B, 0, 0, 0, 0xF0, 0], N, Field),
        // SEND DIAGNOSTIC: the default self-test, with PF, DEVOFFL and UNITOFFL; others; a page.
        (&[0x1D, 0, 0, 0, 0, 0], N, Good),
        (&[0x1D, 0x04, 0, 0, 0, 0], N, Good),
        (&[0x1D, 0x17, 0, 0, 0, 0], N, Good),
        (&[0x1D, 0x20, 0, 0, 0, 0], N, Field),
        (&[0x1D, 0x84, 0, 0, 0, 0], N, Field),
        (&[0x1D, 0x10, 0, 0, 4, 0], to_disk(4), Field),
        // PREVENT ALLOW MEDIUM REMOVAL, on a disk that cannot be removed.
        (&[0x1E, 0, 0, 0, 0, 0], N, Good),
        (&[0x1E, 0, 0, 0, 3, 0], N, Good),
        // SYNCHRONIZE CACHE: all, SYNC_NV and IMMED, some, up to the end, one past it.
        (&[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0], N, Flush),
        (&[0x35, 6, 0, 0, 0, 0, 0, 0, 0, 0], N, Flush),
        (&[0x35, 0, 0, 1, 0xFF, 0xFF, 0, 0, 1, 0], N, Flush),
        (&[0x35, 0, 0, 2, 0, 0, 0, 0, 0, 0], N, Flush),
        (&[0x35, 0, 0, 1, 0xFF, 0xFF, 0, 0, 2, 0], N, Beyond),
        (&[0x35, 0, 0, 2, 0, 1, 0, 0, 0, 0], N, Beyond),
        (&[0x91, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], N, Flush),
        (&[0x91, 2, 0, 0, 0, 0, 0, 1, 0xFF, 0xFF, 0, 0, 0, 1, 0, 0], N, Flush),
        (&[0x91, 0, 0, 0, 0, 0, 0, 1, 0xFF, 0xFF, 0, 0, 0, 2, 0, 0], N, Beyond),
        (&[0x91, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0, 0, 0], N, Beyond),
        (&[0x91, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4], N, Field),
    ]);
}

#[test]
fn test_table_inquiry_and_request_sense() {
    const STANDARD: End = Data(104, &[0, 0, 5, 2, 99, 0, 0, 2, b'M', b's', b'f', b't']);
    check(&[
        // REQUEST SENSE; DESC, which is not offered (SPC-4 section 6.39); cut short.
        (
            &[0x03, 0, 0, 0, 0xFF, 0],
            to_guest(255),
            Data(18, &[0x70, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0]),
        ),
        (&[0x03, 0, 0, 0, 8, 0], to_guest(255), Data(8, &[0x70, 0, 0, 0, 0, 0, 0, 10])),
        (&[0x03, 0, 0, 0, 0xFF, 0], to_guest(4), Data(4, &[0x70])),
        (&[0x03, 0, 0, 0, 0, 0], to_guest(18), Data(0, &[])),
        (&[0x03, 0, 0, 0, 0, 0], N, Good),
        (&[0x03, 0, 0, 0, 18, 0], N, Overrun),
        (&[0x03, 1, 0, 0, 18, 0], to_guest(18), Field),
        (&[0x03, 0, 0, 0, 18, 0x04], to_guest(18), Field),
        // INQUIRY: allocation lengths of 8 and 16 bits, none, and beyond the buffer (storvsc's
        // rule).
        (&[0x12, 0, 0, 0, 0xFF, 0], to_guest(255), STANDARD),
        (&[0x12, 0, 0, 2, 0, 0], to_guest(512), STANDARD),
        (&[0x12, 0, 0, 1, 0xFF, 0], to_guest(512), STANDARD),
        (&[0x12, 0, 0, 0, 5, 0], to_guest(5), Data(5, &[0, 0, 5, 2, 99])),
        (&[0x12, 0, 0, 0, 0, 0], to_guest(5), Data(0, &[])),
        (&[0x12, 0, 0, 0, 0, 0], N, Good),
        (&[0x12, 0, 0, 0, 36, 0], to_guest(35), Field),
        (&[0x12, 0, 0, 0, 36, 0], N, Field),
        (&[0x12, 0, 0, 0, 36, 0], to_disk(36), Field),
        // A page without EVPD, the obsolete CMDDT, NACA.
        (&[0x12, 0, 0x83, 0, 36, 0], to_guest(36), Field),
        (&[0x12, 2, 0, 0, 36, 0], to_guest(36), Field),
        (&[0x12, 3, 0, 0, 36, 0], to_guest(36), Field),
        (&[0x12, 0, 0, 0, 36, 4], to_guest(36), Field),
        // Vital product data: each page, and none of the others.
        (
            &[0x12, 1, 0x00, 0, 255, 0],
            to_guest(255),
            Data(11, &[0, 0, 0, 7, 0, 0x80, 0x83, 0xB0, 0xB1, 0xB2, 0xCF]),
        ),
        (&[0x12, 1, 0x00, 0, 2, 0], to_guest(255), Data(2, &[0, 0])),
        (&[0x12, 1, 0x80, 0, 255, 0], to_guest(255), Data(20, &[0, 0x80, 0, 16])),
        (&[0x12, 1, 0x83, 0, 255, 0], to_guest(255), Data(52, &[0, 0x83, 0, 48, 1, 1, 0, 24])),
        (
            &[0x12, 1, 0xB0, 0, 255, 0],
            to_guest(255),
            Data(64, &[0, 0xB0, 0, 0x3C, 1, 0, 0, 8, 0, 0, 8, 0, 0, 0, 0, 0]),
        ),
        (&[0x12, 1, 0xB1, 0, 255, 0], to_guest(255), Data(64, &[0, 0xB1, 0, 0x3C, 0, 1, 0, 0, 0])),
        (&[0x12, 1, 0xB2, 0, 255, 0], to_guest(255), Data(8, &[0, 0xB2, 0, 4, 1, 0xE4, 2, 0])),
        (&[0x12, 1, 0xCF, 0, 255, 0], to_guest(255), Data(24, &[0, 0xCF, 0, 20, 1, 0, 0, 0])),
        (&[0x12, 1, 0x86, 0, 255, 0], to_guest(255), Field),
        (&[0x12, 1, 0x89, 0, 255, 0], to_guest(255), Field),
        (&[0x12, 1, 0xB3, 0, 255, 0], to_guest(255), Field),
        (&[0x12, 1, 0x80, 0, 0, 0], N, Field),
    ]);
}

#[test]
fn test_table_capacity_and_luns() {
    const SIXTEEN: End = Data(32, &[0, 0, 0, 0, 0, 1, 0xFF, 0xFF, 0, 0, 2, 0, 0, 3, 0xC0, 0, 0]);
    check(&[
        // READ CAPACITY(10): PMI and its address are obsolete and ignored.
        (&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], to_guest(8), Data(8, &[0, 1, 0xFF, 0xFF, 0, 0, 2, 0])),
        (&[0x25, 0, 0, 0, 0, 9, 0, 0, 0, 0], to_guest(8), Data(8, &[0, 1, 0xFF, 0xFF])),
        (&[0x25, 0, 0, 0, 0, 9, 0, 0, 1, 0], to_guest(64), Data(8, &[0, 1, 0xFF, 0xFF])),
        (&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], to_guest(7), Overrun),
        (&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], N, Overrun),
        (&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 4], to_guest(8), Field),
        // READ CAPACITY(16): LBPME and LBPRZ are set, 8 blocks are a physical one.
        (&[0x9E, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0], to_guest(32), SIXTEEN),
        (&[0x9E, 0x10, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 32, 1, 0], to_guest(32), SIXTEEN),
        (&[0x9E, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0], to_guest(512), SIXTEEN),
        (&[0x9E, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0], to_guest(32), Data(8, &[])),
        (&[0x9E, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0], to_guest(8), Data(8, &[])),
        (&[0x9E, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], N, Good),
        (&[0x9E, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0], N, Overrun),
        (&[0x9E, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 4], to_guest(32), Field),
        // Other service actions.
        (&[0x9E, 0x11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0], to_guest(32), Field),
        (&[0x9E, 0x00, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0], to_guest(32), Field),
        // GET LBA STATUS: the last block, the one after it, any length. REPORT TYPE is ignored.
        (&[0x9E, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 24, 0, 0], to_guest(24), Query),
        (&[0x9E, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0], to_guest(16), Query),
        (&[0x9E, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 2, 0], to_guest(512), Query),
        (&[0x9E, 0x12, 0, 0, 0, 0, 0, 1, 0xFF, 0xFF, 0, 0, 0, 24, 0, 0], to_guest(24), Query),
        (&[0x9E, 0x12, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 24, 0, 0], to_guest(24), Beyond),
        (
            &[0x9E, 0x12, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 24, 0, 0],
            to_guest(24),
            Beyond,
        ),
        (&[0x9E, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], N, Good),
        (&[0x9E, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 24, 0, 0], N, Overrun),
    ]);
}

#[test]
fn test_table_reads() {
    check(&[
        // READ(6): 21 bits of address, 0 means 256 blocks.
        (&[0x08, 0, 0, 5, 1, 0], to_guest(512), Read(5, 1)),
        (&[0x08, 0, 0, 0, 0, 0], to_guest(256 * 512), Read(0, 256)),
        (&[0x08, 0xE1, 0xFF, 0xFF, 1, 0], to_guest(512), Read(0x1FFFF, 1)),
        (&[0x08, 0x01, 0xFF, 0xFF, 2, 0], to_guest(1024), Beyond),
        (&[0x08, 0x1F, 0xFF, 0xFF, 1, 0], to_guest(512), Beyond),
        // (10): RDPROTECT, DPO, FUA, RARC, FUA_NV, the obsolete RELADR, the group, the length.
        (&[0x28, 0, 0, 0, 0, 5, 0, 0, 2, 0], to_guest(1024), Read(5, 2)),
        (&[0x28, 0x1E, 0, 0, 0, 5, 0x1F, 0, 2, 0], to_guest(1024), Read(5, 2)),
        (&[0x28, 0x20, 0, 0, 0, 5, 0, 0, 2, 0], to_guest(1024), Field),
        (&[0x28, 0xE0, 0, 0, 0, 5, 0, 0, 2, 0], to_guest(1024), Field),
        (&[0x28, 0x01, 0, 0, 0, 5, 0, 0, 2, 0], to_guest(1024), Field),
        (&[0x28, 0, 0, 0, 0, 5, 0, 0, 2, 4], to_guest(1024), Field),
        (&[0x28, 0, 0, 0, 0, 5, 0, 0, 0, 0], N, Good),
        (&[0x28, 0, 0, 2, 0, 1, 0, 0, 0, 0], N, Beyond),
        (&[0x28, 0, 0, 1, 0xFF, 0xFF, 0, 0, 1, 0], to_guest(512), Read(0x1FFFF, 1)),
        (&[0x28, 0, 0, 1, 0xFF, 0xFF, 0, 0, 2, 0], to_guest(1024), Beyond),
        (&[0x28, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 1, 0], to_guest(512), Beyond),
        (&[0x28, 0, 0, 0, 0, 0, 0, 8, 0, 0], to_guest(1 << 20), Read(0, 2048)),
        (&[0x28, 0, 0, 0, 0, 0, 0, 8, 1, 0], to_guest(1 << 20), Field),
        (&[0x28, 0, 0, 0, 0, 0, 0, 0, 2, 0], to_guest(1023), Beyond),
        (&[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], to_disk(512), Field),
        (&[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], N, Field),
        // (12) and (16); the DLD bits of (16) hint at durations.
        (&[0xA8, 0x18, 0, 0, 0, 5, 0, 0, 0, 2, 0, 0], to_guest(1024), Read(5, 2)),
        (&[0xA8, 0x40, 0, 0, 0, 5, 0, 0, 0, 2, 0, 0], to_guest(1024), Field),
        (&[0xA8, 0, 0, 2, 0, 0, 0, 0, 0, 1, 0, 0], to_guest(512), Beyond),
        (&[0xA8, 0, 0, 0, 0, 0, 0, 0, 8, 1, 0, 0], to_guest(1 << 20), Field),
        (&[0xA8, 0, 0, 0, 0, 5, 0, 0, 0, 2, 0, 4], to_guest(1024), Field),
        (&[0x88, 0x19, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 2, 0xC0, 0], to_guest(1024), Read(5, 2)),
        (&[0x88, 0x20, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 2, 0, 0], to_guest(1024), Field),
        (&[0x88, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], to_guest(512), Beyond),
        (&[0x88, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 2, 0, 4], to_guest(1024), Field),
    ]);
}

#[test]
fn test_table_writes() {
    check(&[
        (&[0x0A, 0, 0, 5, 1, 0], to_disk(512), Write(5, 1)),
        (&[0x0A, 0, 0, 0, 0, 0], to_disk(256 * 512), Write(0, 256)),
        (&[0x0A, 0x01, 0xFF, 0xFF, 2, 0], to_disk(1024), Beyond),
        // DPO, FUA, WRPROTECT.
        (&[0x2A, 0x10, 0, 0, 0, 5, 0, 0, 2, 0], to_disk(1024), Write(5, 2)),
        (&[0x2A, 0x08, 0, 0, 0, 5, 0x1F, 0, 2, 0], to_disk(1024), Forced(5, 2)),
        (&[0x2A, 0x20, 0, 0, 0, 5, 0, 0, 2, 0], to_disk(1024), Field),
        (&[0x2A, 0, 0, 0, 0, 5, 0, 0, 0, 0], N, Good),
        (&[0x2A, 0, 0, 2, 0, 0, 0, 0, 1, 0], to_disk(512), Beyond),
        (&[0x2A, 0, 0, 0, 0, 0, 0, 8, 1, 0], to_disk(1 << 20), Field),
        (&[0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0], to_guest(512), Field),
        (&[0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 4], to_disk(512), Field),
        (&[0xAA, 0x08, 0, 0, 0, 5, 0, 0, 0, 2, 0, 0], to_disk(1024), Forced(5, 2)),
        (&[0xAA, 0x20, 0, 0, 0, 5, 0, 0, 0, 2, 0, 0], to_disk(1024), Field),
        (&[0x8A, 0x08, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 2, 0, 0], to_disk(1024), Forced(5, 2)),
        (&[0x8A, 0xE0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 2, 0, 0], to_disk(1024), Field),
        // WRITE AND VERIFY: BYTCHK 0 and 1; 2 and 3 are reserved.
        (&[0x2E, 0x10, 0, 0, 0, 5, 0, 0, 2, 0], to_disk(1024), Forced(5, 2)),
        (&[0x2E, 0x02, 0, 0, 0, 5, 0, 0, 2, 0], to_disk(1024), Job),
        (&[0x2E, 0x04, 0, 0, 0, 5, 0, 0, 2, 0], to_disk(1024), Field),
        (&[0x2E, 0x06, 0, 0, 0, 5, 0, 0, 2, 0], to_disk(512), Field),
        (&[0x2E, 0x20, 0, 0, 0, 5, 0, 0, 2, 0], to_disk(1024), Field),
        (&[0xAE, 0x02, 0, 0, 0, 5, 0, 0, 0, 2, 0, 0], to_disk(1024), Job),
        (&[0x8E, 0x00, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 2, 0, 0], to_disk(1024), Forced(5, 2)),
        (&[0x8E, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 1, 0, 0], to_disk(512), Beyond),
        // VERIFY: BYTCHK 0 to 3, no blocks, one past the end, one past the transfer length.
        (&[0x2F, 0x10, 0, 0, 0, 5, 0, 0xFF, 0xFF, 0], N, Good),
        (&[0x2F, 0x02, 0, 0, 0, 5, 0, 0, 2, 0], to_disk(1024), Job),
        (&[0x2F, 0x04, 0, 0, 0, 5, 0, 0, 2, 0], to_disk(1024), Field),
        (&[0x2F, 0x06, 0, 0, 0, 5, 0, 0, 2, 0], to_disk(512), List(512)),
        (&[0x2F, 0x06, 0, 0, 0, 5, 0, 0, 2, 0], to_disk(1024), Field),
        (&[0x2F, 0x02, 0, 0, 0, 5, 0, 0, 0, 0], N, Good),
        (&[0x2F, 0x06, 0, 0, 0, 5, 0, 0, 0, 0], N, Good),
        (&[0x2F, 0x20, 0, 0, 0, 5, 0, 0, 2, 0], N, Field),
        (&[0x2F, 0x02, 0, 0, 0, 5, 0, 0, 2, 0], to_disk(1023), Beyond),
        (&[0x2F, 0x02, 0, 0, 0, 5, 0, 8, 1, 0], to_disk(1 << 20), Field),
        (&[0x2F, 0, 0, 2, 0, 0, 0, 0, 1, 0], N, Beyond),
        (&[0xAF, 0x02, 0, 0, 0, 5, 0, 0, 0, 2, 0, 0], to_disk(1024), Job),
        (&[0x8F, 0x06, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 2, 0, 0], to_disk(512), List(512)),
        (&[0x8F, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 1, 0, 0], N, Beyond),
    ]);
}

#[test]
fn test_table_provisioning() {
    check(&[
        // UNMAP: ANCHOR, the group, no list, lists without a header.
        (&[0x42, 0, 0, 0, 0, 0, 0x1F, 0, 24, 0], to_disk(24), List(24)),
        (&[0x42, 1, 0, 0, 0, 0, 0, 0, 24, 0], to_disk(24), Field),
        (&[0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0], N, Good),
        (&[0x42, 0, 0, 0, 0, 0, 0, 0, 7, 0], to_disk(7), Length),
        (&[0x42, 0, 0, 0, 0, 0, 0, 0, 8, 0], to_disk(8), List(8)),
        (&[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], to_disk(23), Field),
        (&[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], to_guest(24), Field),
        (&[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 4], to_disk(24), Field),
        // WRITE SAME(10): UNMAP, ANCHOR, LBDATA, PBDATA, WRPROTECT, none (WSNZ), one past the
        // limit.
        (&[0x41, 0, 0, 0, 0, 5, 0, 0, 2, 0], to_disk(512), List(512)),
        (&[0x41, 8, 0, 0, 0, 5, 0, 0, 2, 0], to_disk(512), List(512)),
        (&[0x41, 0x10, 0, 0, 0, 5, 0, 0, 2, 0], to_disk(512), Field),
        (&[0x41, 0x02, 0, 0, 0, 5, 0, 0, 2, 0], to_disk(512), Field),
        (&[0x41, 0x04, 0, 0, 0, 5, 0, 0, 2, 0], to_disk(512), Field),
        (&[0x41, 0x20, 0, 0, 0, 5, 0, 0, 2, 0], to_disk(512), Field),
        (&[0x41, 0x01, 0, 0, 0, 5, 0, 0, 2, 0], N, Field),
        (&[0x41, 0, 0, 0, 0, 5, 0, 0, 0, 0], to_disk(512), Field),
        (&[0x41, 0, 0, 1, 0xFF, 0xFF, 0, 0, 2, 0], to_disk(512), Beyond),
        (&[0x41, 0, 0, 0, 0, 5, 0, 0, 2, 0], to_disk(256), Field),
        (&[0x41, 0, 0, 0, 0, 5, 0, 0, 2, 0], to_disk(1024), Field),
        (&[0x41, 0, 0, 0, 0, 5, 0, 0, 2, 0], to_guest(512), Field),
        // (16): NDOB, with which the guest sends no block.
        (&[0x93, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 2, 0, 0], to_disk(512), List(512)),
        (&[0x93, 1, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 2, 0, 0], N, Zero(5, 2)),
        (&[0x93, 9, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 2, 0, 0], N, Zero(5, 2)),
        (&[0x93, 0x11, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 2, 0, 0], N, Field),
        (&[0x93, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0], N, Zero(0, 65536)),
        (&[0x93, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0], N, Field),
        (&[0x93, 1, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0], N, Field),
        (&[0x93, 1, 0, 0, 0, 0, 0, 1, 0xFF, 0xFF, 0, 0, 0, 2, 0, 0], N, Beyond),
    ]);
}

#[test]
fn test_table_mode_and_reservations() {
    check(&[
        // MODE SENSE: PC, subpages; the pages are in tests/mode.rs.
        (&[0x1A, 0, 0x3F, 0, 255, 0], to_guest(255), Data(36, &[35, 0, 0x10, 0, 8, 18])),
        (&[0x1A, 0, 0x0A, 0, 255, 0], to_guest(255), Data(16, &[15, 0, 0x10, 0, 10, 10, 0, 0x10])),
        (&[0x1A, 0, 0xCA, 0, 255, 0], to_guest(255), Saving),
        (&[0x1A, 0, 0x0A, 1, 255, 0], to_guest(255), Field),
        (&[0x1A, 0, 0x0A, 0, 255, 4], to_guest(255), Field),
        (&[0x1A, 0, 0x0A, 0, 0, 0], N, Good),
        (&[0x1A, 0, 0x0A, 0, 16, 0], N, Overrun),
        (
            &[0x5A, 0, 0x3F, 0xFF, 0, 0, 0, 0, 255, 0],
            to_guest(255),
            Data(40, &[0, 38, 0, 0x10, 0, 0, 0, 0, 8]),
        ),
        (&[0x5A, 0, 0x3F, 0, 0, 0, 0, 0xFF, 0xFF, 0], to_guest(255), Data(40, &[0, 38])),
        // MODE SELECT: PF, the reserved RTD, SP, none, more than there is.
        (&[0x15, 0x10, 0, 0, 24, 0], to_disk(24), List(24)),
        (&[0x15, 0x00, 0, 0, 24, 0], to_disk(24), List(24)),
        (&[0x15, 0x11, 0, 0, 24, 0], to_disk(24), Field),
        (&[0x15, 0x10, 0, 0, 0, 0], N, Good),
        (&[0x15, 0x10, 0, 0, 24, 0], to_disk(23), Length),
        (&[0x15, 0x10, 0, 0, 24, 0], N, Length),
        (&[0x55, 0x10, 0, 0, 0, 0, 0, 1, 0, 0], to_disk(256), List(256)),
        (&[0x55, 0x11, 0, 0, 0, 0, 0, 1, 0, 0], to_disk(256), Field),
        // PERSISTENT RESERVE IN: four service actions, cut short; another.
        (&[0x5E, 0, 0, 0, 0, 0, 0, 0, 255, 0], to_guest(255), Data(8, &[0; 8])),
        (&[0x5E, 1, 0, 0, 0, 0, 0, 0, 255, 0], to_guest(255), Data(8, &[0; 8])),
        (
            &[0x5E, 2, 0, 0, 0, 0, 0, 0, 255, 0],
            to_guest(255),
            Data(8, &[0, 8, 0x10, 0x80, 0xEA, 1, 0, 0]),
        ),
        (&[0x5E, 3, 0, 0, 0, 0, 0, 0, 255, 0], to_guest(255), Data(8, &[0; 8])),
        (&[0x5E, 2, 0, 0, 0, 0, 0, 0, 2, 0], to_guest(255), Data(2, &[0, 8])),
        (&[0x5E, 0, 0, 0, 0, 0, 0, 0, 0, 0], N, Good),
        (&[0x5E, 4, 0, 0, 0, 0, 0, 0, 255, 0], to_guest(255), Field),
        (&[0x5E, 0, 0, 0, 0, 0, 0, 0, 8, 4], to_guest(8), Field),
        // PERSISTENT RESERVE OUT: lengths, scope, type, REGISTER AND MOVE.
        (&[0x5F, 0, 0, 0, 0, 0, 0, 0, 24, 0], to_disk(24), List(24)),
        (&[0x5F, 6, 0, 0, 0, 0, 0, 0, 24, 0], to_disk(24), List(24)),
        (&[0x5F, 0, 0, 0, 0, 0, 0, 0, 23, 0], to_disk(24), Length),
        (&[0x5F, 0, 0, 0, 0, 0, 0, 0, 25, 0], to_disk(25), Length),
        (&[0x5F, 0, 0, 0, 0, 1, 0, 0, 24, 0], to_disk(24), Length),
        (&[0x5F, 1, 0x11, 0, 0, 0, 0, 0, 24, 0], to_disk(24), Field),
        (&[0x5F, 1, 0x02, 0, 0, 0, 0, 0, 24, 0], to_disk(24), Field),
        (&[0x5F, 7, 0, 0, 0, 0, 0, 0, 24, 0], to_disk(24), Field),
    ]);
}

/// COMPARE AND WRITE, LOG SENSE, REPORT SUPPORTED OPERATION CODES and similar commands are refused.
#[test]
fn test_table_operation_codes_that_are_not_offered() {
    let offered = [
        0x00, 0x03, 0x08, 0x0A, 0x12, 0x15, 0x16, 0x17, 0x1A, 0x1B, 0x1D, 0x1E, 0x25, 0x28, 0x2A,
        0x2E, 0x2F, 0x35, 0x41, 0x42, 0x55, 0x56, 0x57, 0x5A, 0x5E, 0x5F, 0x88, 0x8A, 0x8E, 0x8F,
        0x91, 0x93, 0x9E, 0xA0, 0xA8, 0xAA, 0xAE, 0xAF,
    ];
    for opcode in 0..=0xFF {
        let mut bytes = [0; 16];
        bytes[0] = opcode;
        let is_unknown = Command::parse(&bytes, 16) == Err(CheckCondition::INVALID_OPCODE);
        assert_eq!(is_unknown, !offered.contains(&opcode), "{opcode:#x}");
    }
}
