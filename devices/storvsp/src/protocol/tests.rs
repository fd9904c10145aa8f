//! The protocol half of the conformance checklist (spec storvsc section 12).

use std::sync::Arc;

use super::*;
use synthvm_scsi::{CheckCondition, Transfer};
use synthvm_storvsc::operation as op;

const BAD_STATE: u32 = 0xC000_0184;
const BAD_VERSION: u32 = 0xC000_0059;
const BAD_PARAMETER: u32 = 0xC000_000D;

fn primary() -> Session {
    Session::new(Arc::default(), true, 4)
}

fn packet(operation: u32, size: usize) -> Vec<u8> {
    let mut packet = vec![0; size];
    packet[..4].copy_from_slice(&operation.to_le_bytes());
    packet[4] = 1;
    packet
}

fn with_u16(operation: u32, size: usize, value: u16) -> Vec<u8> {
    let mut packet = packet(operation, size);
    packet[12..14].copy_from_slice(&value.to_le_bytes());
    packet
}

/// Returns the bytes of the reply to an init packet. Panics on any other action.
fn reply(session: &mut Session, packet: &[u8]) -> Vec<u8> {
    match session.handle(packet, 0).unwrap() {
        Action::Reply(reply) | Action::Ready(reply) | Action::OfferSubchannels { reply, .. } => {
            reply.bytes().to_vec()
        }
        other => panic!("{other:?}"),
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn status(session: &mut Session, packet: &[u8]) -> u32 {
    let reply = reply(session, packet);
    assert_eq!(u32_at(&reply, 0), op::COMPLETE_IO);
    assert_eq!(u32_at(&reply, 4), 0);
    u32_at(&reply, 8)
}

/// A session that is ready for requests at `version`, with packets of `size`.
fn ready(version: u16, size: usize) -> Session {
    let mut session = primary();
    assert_eq!(status(&mut session, &packet(op::BEGIN_INITIALIZATION, size)), 0);
    assert_eq!(status(&mut session, &with_u16(op::QUERY_PROTOCOL_VERSION, size, version)), 0);
    assert_eq!(status(&mut session, &packet(op::QUERY_PROPERTIES, size)), 0);
    assert_eq!(status(&mut session, &packet(op::END_INITIALIZATION, size)), 0);
    session
}

fn srb(size: usize, cdb: &[u8], data_in: u8, length: u32) -> Vec<u8> {
    let mut packet = packet(op::EXECUTE_SRB, size);
    packet[12] = (size - 12) as u8;
    packet[19] = 3;
    packet[20] = cdb.len() as u8;
    packet[21] = 20;
    packet[22] = data_in;
    packet[24..28].copy_from_slice(&length.to_le_bytes());
    packet[28..28 + cdb.len().min(16)].copy_from_slice(&cdb[..cdb.len().min(16)]);
    packet
}

fn refused(session: &mut Session, packet: &[u8], buffer: usize) -> Vec<u8> {
    match session.handle(packet, buffer).unwrap() {
        Action::Complete(completion) => completion.reply().bytes().to_vec(),
        other => panic!("{other:?}"),
    }
}

fn accepted(session: &mut Session, packet: &[u8], buffer: usize) -> Srb {
    match session.handle(packet, buffer).unwrap() {
        Action::Execute(srb) => srb,
        other => panic!("{other:?}"),
    }
}

/// (srb status, scsi status, transfer length, packet status, sense triple)
fn outcome(reply: &[u8]) -> (u8, u8, u32, u32, [u8; 3]) {
    (reply[14], reply[15], u32_at(reply, 24), u32_at(reply, 8), [reply[30], reply[40], reply[41]])
}

const INVALID: (u8, u8, u32, u32, [u8; 3]) = (0x86, 2, 0, 0xC000_0185, [5, 0x24, 0]);

// Checklist 1.
#[test]
fn test_init_first_packet_other_than_begin_is_refused_and_begin_still_works() {
    for operation in
        (0..=14).chain([99, u32::MAX]).filter(|&operation| operation != op::BEGIN_INITIALIZATION)
    {
        let mut session = primary();
        assert_eq!(
            status(&mut session, &packet(operation, 64)),
            BAD_STATE,
            "operation {operation}"
        );
        assert_eq!(status(&mut session, &packet(op::BEGIN_INITIALIZATION, 64)), 0);
    }
}

// Checklist 2 and 4.
#[test]
fn test_init_reply_mirrors_the_request_size_up_to_64() {
    for (size, expected) in [(16, 16), (40, 40), (48, 48), (56, 56), (64, 64), (72, 64), (4096, 64)]
    {
        assert_eq!(reply(&mut primary(), &packet(op::BEGIN_INITIALIZATION, size)).len(), expected);
    }
}

// Checklist 2.
#[test]
fn test_init_reply_is_zero_padded_whatever_the_request_held() {
    let mut noisy = vec![0xAA; 64];
    noisy[..4].copy_from_slice(&op::BEGIN_INITIALIZATION.to_le_bytes());
    let reply = reply(&mut primary(), &noisy);
    assert_eq!(u32_at(&reply, 0), 1);
    assert!(reply[4..].iter().all(|&byte| byte == 0));
}

// Checklist 3.
#[test]
fn test_version_unknown_ones_are_refused_and_can_be_retried() {
    for good in [0x0602, 0x0600, 0x0501, 0x0402, 0x0200] {
        let mut session = primary();
        reply(&mut session, &packet(op::BEGIN_INITIALIZATION, 64));
        for bad in [0x0603, 0x0500, 0xFFFF, 0] {
            let reply = reply(&mut session, &with_u16(op::QUERY_PROTOCOL_VERSION, 64, bad));
            assert_eq!((u32_at(&reply, 0), u32_at(&reply, 8)), (1, BAD_VERSION));
            assert_eq!(reply[12..14], bad.to_le_bytes());
        }
        assert_eq!(status(&mut session, &with_u16(op::QUERY_PROTOCOL_VERSION, 64, good)), 0);
        assert_eq!(session.negotiation().version().unwrap().number(), good);
    }
}

// Checklist 5.
#[test]
fn test_properties_before_version_are_refused() {
    let mut session = primary();
    assert_eq!(status(&mut session, &packet(op::BEGIN_INITIALIZATION, 64)), 0);
    assert_eq!(status(&mut session, &packet(op::QUERY_PROPERTIES, 64)), BAD_STATE);
    assert_eq!(status(&mut session, &packet(op::END_INITIALIZATION, 64)), BAD_STATE);
}

// Checklist 5.
#[test]
fn test_properties_state_transfer_limit_and_subchannels_only_from_5_1() {
    for (version, size, channels) in
        [(0x0200, 48, 0), (0x0402, 48, 0), (0x0501, 64, 4), (0x0600, 64, 4), (0x0602, 64, 4)]
    {
        let mut session = primary();
        reply(&mut session, &packet(op::BEGIN_INITIALIZATION, size));
        reply(&mut session, &with_u16(op::QUERY_PROTOCOL_VERSION, size, version));
        let properties = reply(&mut session, &packet(op::QUERY_PROPERTIES, size));
        assert_eq!(u16::from_le_bytes([properties[16], properties[17]]), channels);
        assert_eq!(u32_at(&properties, 20), u32::from(channels > 0));
        let limit = u32_at(&properties, 24);
        assert!(limit >= 1 << 20 && limit.is_multiple_of(4096));
    }
}

#[test]
fn test_properties_without_subchannels_do_not_claim_multi_channel() {
    let mut session = Session::new(Arc::default(), true, 0);
    reply(&mut session, &packet(op::BEGIN_INITIALIZATION, 64));
    reply(&mut session, &with_u16(op::QUERY_PROTOCOL_VERSION, 64, 0x0602));
    let properties = reply(&mut session, &packet(op::QUERY_PROPERTIES, 64));
    assert_eq!((u32_at(&properties, 16), u32_at(&properties, 20)), (0, 0));
}

// Checklist 6.
#[test]
fn test_subchannels_before_and_after_end_up_to_the_limit() {
    let mut session = primary();
    reply(&mut session, &packet(op::BEGIN_INITIALIZATION, 64));
    reply(&mut session, &with_u16(op::QUERY_PROTOCOL_VERSION, 64, 0x0602));
    let ask = |session: &mut Session, total| {
        session.handle(&with_u16(op::CREATE_SUB_CHANNELS, 64, total), 0).unwrap()
    };
    assert!(
        matches!(ask(&mut session, 1), Action::Reply(reply) if u32_at(reply.bytes(), 8) == BAD_STATE)
    );
    reply(&mut session, &packet(op::QUERY_PROPERTIES, 64));
    assert!(matches!(ask(&mut session, 2), Action::OfferSubchannels { total: 2, .. }));
    reply(&mut session, &packet(op::END_INITIALIZATION, 64));
    assert!(matches!(ask(&mut session, 4), Action::OfferSubchannels { total: 4, .. }));
    assert!(
        matches!(ask(&mut session, 5), Action::Reply(reply) if u32_at(reply.bytes(), 8) == BAD_PARAMETER)
    );
}

// Checklist 6.
#[test]
fn test_subchannel_refuses_initialisation_and_runs_requests() {
    let negotiation: Arc<Negotiation> = Arc::default();
    let mut primary = Session::new(Arc::clone(&negotiation), true, 4);
    let mut sub = Session::new(negotiation, false, 4);
    assert!(!sub.may_read());
    assert!(primary.may_read());
    reply(&mut primary, &packet(op::BEGIN_INITIALIZATION, 64));
    reply(&mut primary, &with_u16(op::QUERY_PROTOCOL_VERSION, 64, 0x0602));
    reply(&mut primary, &packet(op::QUERY_PROPERTIES, 64));
    assert!(matches!(primary.handle(&packet(op::END_INITIALIZATION, 64), 0), Ok(Action::Ready(_))));
    assert!(sub.may_read());
    for operation in [7, 8, 9, 10, 13] {
        assert_eq!(status(&mut sub, &packet(operation, 64)), BAD_STATE);
    }
    accepted(&mut sub, &srb(64, &[0; 6], 0, 0), 0);
}

// Checklist 8.
#[test]
fn test_execute_before_end_is_refused_and_not_executed() {
    let mut session = primary();
    assert_eq!(status(&mut session, &srb(64, &[0; 6], 0, 0)), BAD_STATE);
    reply(&mut session, &packet(op::BEGIN_INITIALIZATION, 64));
    reply(&mut session, &with_u16(op::QUERY_PROTOCOL_VERSION, 64, 0x0602));
    reply(&mut session, &packet(op::QUERY_PROPERTIES, 64));
    assert_eq!(status(&mut session, &srb(64, &[0; 6], 0, 0)), BAD_STATE);
    reply(&mut session, &packet(op::END_INITIALIZATION, 64));
    accepted(&mut session, &srb(64, &[0; 6], 0, 0), 0);
}

// Checklist 9.
#[test]
fn test_unknown_operation_and_second_begin_when_ready_are_refused() {
    let mut session = ready(0x0602, 64);
    for operation in [0, 1, 2, 7, 8, 9, 10, 11, 12, 14, 99] {
        assert_eq!(
            status(&mut session, &packet(operation, 64)),
            BAD_STATE,
            "operation {operation}"
        );
    }
    assert!(session.negotiation().is_ready());
}

// Checklist 10.
#[test]
fn test_reopened_primary_restarts_at_begin() {
    let negotiation: Arc<Negotiation> = Arc::default();
    let mut session = Session::new(Arc::clone(&negotiation), true, 4);
    reply(&mut session, &packet(op::BEGIN_INITIALIZATION, 64));
    reply(&mut session, &with_u16(op::QUERY_PROTOCOL_VERSION, 64, 0x0602));
    let mut session = Session::new(Arc::clone(&negotiation), true, 4);
    assert_eq!((negotiation.stage(), negotiation.version()), (Stage::Begin, None));
    assert_eq!(status(&mut session, &packet(op::BEGIN_INITIALIZATION, 64)), 0);
}

// Checklist 11.
#[test]
fn test_success_is_srb_1_scsi_0_with_all_bytes() {
    for (version, size, payload) in [(0x0602, 64, 0x34), (0x0402, 48, 0x24)] {
        let mut session = ready(version, size);
        let srb =
            accepted(&mut session, &srb(size, &[0x28, 0, 0, 0, 0, 0, 0, 0, 8, 0], 1, 4096), 4096);
        assert_eq!(srb.transfer, Transfer::ToGuest(4096));
        assert_eq!(srb.address, Address { path: 0, target: 0, lun: 3 });
        let reply = srb.completer.good(4096).reply();
        assert_eq!(reply.bytes().len(), size);
        assert_eq!(outcome(reply.bytes()), (1, 0, 4096, 0, [0; 3]));
        assert_eq!((reply.bytes()[12], reply.bytes()[20], reply.bytes()[21]), (payload, 16, 20));
    }
}

// Checklist 13 and 15.
#[test]
fn test_execute_with_less_memory_than_announced_is_invalid() {
    let mut session = ready(0x0602, 64);
    let read = srb(64, &[0x28, 0, 0, 0, 0, 0, 0, 0, 8, 0], 1, 4096);
    assert_eq!(outcome(&refused(&mut session, &read, 4095)), INVALID);
    assert_eq!(outcome(&refused(&mut session, &read, 0)), INVALID);
    accepted(&mut session, &read, 4097);
}

// Checklist 14.
#[test]
fn test_execute_above_the_transfer_limit_is_invalid() {
    let mut session = ready(0x0602, 64);
    let at = |length| srb(64, &[0x88; 16], 1, length);
    accepted(&mut session, &at(MAX_TRANSFER), MAX_TRANSFER as usize);
    for length in [MAX_TRANSFER + 1, u32::MAX] {
        assert_eq!(outcome(&refused(&mut session, &at(length), usize::MAX)), INVALID);
    }
}

// Checklist 16.
#[test]
fn test_execute_cdb_length_0_and_17_are_invalid() {
    let mut session = ready(0x0602, 64);
    for length in [0, 17, 255] {
        let mut packet = srb(64, &[0; 6], 0, 0);
        packet[20] = length;
        assert_eq!(outcome(&refused(&mut session, &packet, 0)), INVALID);
    }
}

#[test]
fn test_execute_unknown_direction_is_fine_without_data_only() {
    let mut session = ready(0x0602, 64);
    assert_eq!(accepted(&mut session, &srb(64, &[0; 6], 2, 0), 0).transfer, Transfer::None);
    assert_eq!(outcome(&refused(&mut session, &srb(64, &[0; 6], 2, 512), 512)), INVALID);
}

#[test]
fn test_execute_shorter_than_a_request_is_an_invalid_parameter() {
    let mut session = ready(0x0602, 64);
    for size in [16, 24, 32, 40] {
        let reply = reply(&mut session, &packet(op::EXECUTE_SRB, size));
        assert_eq!((reply.len(), u32_at(&reply, 8)), (size, BAD_PARAMETER));
    }
}

#[test]
fn test_packet_without_a_header_is_malformed() {
    for size in [0, 8, 11] {
        assert_eq!(primary().handle(&vec![0; size], 0), Err(Malformed::TooShort(size)));
    }
}

// Checklist 17 and 19.
#[test]
fn test_failures_carry_the_words_both_guests_understand() {
    let mut session = ready(0x0602, 64);
    let srb = accepted(&mut session, &srb(64, &[0; 6], 0, 0), 0);
    let of = |condition| {
        let reply = srb.completer.check(condition).reply();
        assert_eq!((reply.bytes()[28], reply.bytes()[35], reply.bytes()[21]), (0x70, 10, 20));
        outcome(reply.bytes())
    };
    assert_eq!(of(CheckCondition::OUT_OF_RANGE), (0x84, 2, 0, 0xC000_0185, [5, 0x21, 0]));
    assert_eq!(of(CheckCondition::INVALID_OPCODE), (0x86, 2, 0, 0xC000_0185, [5, 0x20, 0]));
    assert_eq!(of(CheckCondition::OVERRUN), (0x92, 2, 0, 0x8000_0005, [5, 0x24, 0]));
    assert_eq!(
        outcome(srb.completer.invalid_lun().reply().bytes()),
        (0x20, 2, 0, 0xC000_00C0, [0; 3])
    );
}

#[test]
fn test_address_only_bus_0_target_0_has_disks() {
    let at = |path, target| Routing::Scsi.lun(Address { path, target, lun: 7 });
    assert_eq!((at(0, 0), at(1, 0), at(0, 1)), (Some(7), None, None));
}

// Checklist 50.
#[test]
fn test_address_of_an_ide_disk_is_its_target_on_any_path() {
    let at = |path, target| Routing::Ide { device: 1 }.lun(Address { path, target, lun: 0 });
    assert_eq!((at(0, 1), at(7, 1), at(0, 0), at(1, 2)), (Some(0), Some(0), None, None));
}

// Checklist 24: 64 bytes and a 16-byte descriptor are 80.
#[test]
fn test_enumerate_bus_has_the_negotiated_size_and_needs_4_2() {
    let of = |version| Reply::enumerate_bus(version).map(|reply| reply.bytes().to_vec());
    assert_eq!(of(Version::Win6), None);
    assert_eq!(of(Version::Win7).unwrap().len(), 48);
    for version in [Version::Win8, Version::Blue, Version::Win10] {
        let bytes = of(version).unwrap();
        assert_eq!((bytes.len(), bytes[0]), (64, 11));
        assert!(bytes[1..].iter().all(|&byte| byte == 0));
    }
}

#[test]
fn test_any_packet_at_any_stage_neither_panics_nor_exceeds_its_limits() {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..2_000 {
        let mut session = primary();
        for _ in 0..60 {
            let size = (next() % 12 * 8) as usize;
            let mut packet: Vec<u8> = (0..size).map(|_| (next() & next()) as u8).collect();
            if size >= 4 {
                let operation =
                    [7, 9, 10, 8, 3, 3, 3, 3, 13, 6, 4, next() as u32 % 20][next() as usize % 12];
                packet[..4].copy_from_slice(&operation.to_le_bytes());
            }
            if size >= 14 && packet[0] == 9 {
                packet[12..14].copy_from_slice(&[0x02, 0x06]);
            }
            let buffer = (next() % (2 << 20)) as usize;
            match session.handle(&packet, buffer) {
                Ok(Action::Reply(reply) | Action::Ready(reply) | Action::Reset(reply)) => {
                    assert_eq!(reply.bytes().len(), size.min(MAX_PACKET));
                }
                Ok(Action::OfferSubchannels { total, .. }) => assert!(total <= 4),
                Ok(Action::Execute(srb)) => {
                    assert!(srb.transfer.length() as usize <= buffer.min(MAX_TRANSFER as usize));
                    assert!((1..=16).contains(&srb.cdb_length));
                }
                Ok(Action::Complete(completion)) => {
                    assert_eq!(completion.reply().bytes().len(), size.min(MAX_PACKET));
                }
                Err(Malformed::TooShort(length)) => assert!(length < 12),
            }
        }
    }
}
