//! Tests of whole channels: a guest, the bus, a controller, its workers, its disks (spec storvsc
//! section 12).

mod guest;

use std::sync::Arc;

use guest::scsi::*;
use guest::{BareChannel, BareGuest, DATA, GuestRange};
use synthvm_block::{Backend, Fault, Faulty, IoError, Operation, RamDisk, RawFile};
use synthvm_storvsp::{DiskOptions, SCSI_CONTROLLER, ScsiController};
use vmbus_protocol::message::MessageType;
use vmbus_ring::{OutPacket, PacketKind};
use vmm_sys_util::tempfile::TempFile;

const MIB: u64 = 1 << 20;

fn ram_disk() -> Arc<RamDisk> {
    Arc::new(RamDisk::new(16 * MIB).unwrap())
}

fn controller_with(backend: Arc<dyn Backend>) -> ScsiController {
    let controller = ScsiController::new(0, 3);
    controller.add_disk(0, backend, DiskOptions::default()).unwrap();
    controller
}

/// Returns a guest with an initialised channel to a controller with one disk at LUN 0.
fn start(controller: &ScsiController) -> (BareGuest, BareChannel) {
    let (mut guest, _) = guest::connect(std::slice::from_ref(controller));
    let offer = guest.offers[0];
    let mut channel = guest.open(offer, 16);
    channel.initialise();
    (guest, channel)
}

#[test]
fn test_offer_names_the_class_and_a_stable_instance() {
    let controllers = [ScsiController::new(0, 0), ScsiController::new(1, 0)];
    let (guest, _) = guest::connect(&controllers);
    let offers = &guest.offers;
    assert_eq!(offers.len(), 2);
    assert!(
        offers
            .iter()
            .all(|offer| (offer.class, offer.flags, offer.subchannel) == (SCSI_CONTROLLER, 0, 0))
    );
    assert_eq!(offers[0].instance, ScsiController::new(0, 5).instance());
    assert_ne!(offers[0].instance, offers[1].instance);
}

// Checklist 11 and 12.
#[test]
fn test_write_and_read_reach_the_disk_through_any_pages() {
    let disk = ram_disk();
    let (_guest, mut channel) = start(&controller_with(disk.clone()));
    let bytes = pattern(1, 256 << 10);
    // 256 KiB from offset 0x200 of the first page: 65 pages, in reverse order.
    let memory =
        GuestRange { offset: 0x200, count: 256 << 10, pages: (DATA..DATA + 65).rev().collect() };
    let mut at = 0;
    for (index, page) in memory.pages.iter().enumerate() {
        let offset = if index == 0 { 0x200 } else { 0 };
        let length = (4096 - offset).min(bytes.len() - at);
        channel.poke(*page, offset as u64, &bytes[at..at + length]);
        at += length;
    }
    assert_eq!(
        channel.execute(&write_srb(0, 8, 512), std::slice::from_ref(&memory)),
        Outcome::good(256 << 10)
    );
    let mut seen = vec![0; 256 << 10];
    disk.read(4096, &mut seen).unwrap();
    assert!(seen == bytes);
    let back = GuestRange::at(DATA + 100, 256 << 10);
    assert_eq!(channel.execute(&read_srb(0, 8, 512), &[back]), Outcome::good(256 << 10));
    assert!(channel.peek(DATA + 100, 0, 256 << 10) == bytes);
}

#[test]
fn test_ranges_that_are_several_are_one_buffer() {
    let disk = ram_disk();
    disk.write(0, &pattern(2, 4096)).unwrap();
    let (_guest, mut channel) = start(&controller_with(disk));
    let memory = [
        GuestRange { offset: 0xF00, count: 0x300, pages: vec![DATA + 9, DATA + 3] },
        GuestRange { offset: 4, count: 0xD00, pages: vec![DATA + 5] },
    ];
    assert_eq!(channel.execute(&read_srb(0, 0, 8), &memory), Outcome::good(4096));
    let expected = pattern(2, 4096);
    assert_eq!(channel.peek(DATA + 9, 0xF00, 0x100), expected[..0x100]);
    assert_eq!(channel.peek(DATA + 3, 0, 0x200), expected[0x100..0x300]);
    assert_eq!(channel.peek(DATA + 5, 4, 0xD00), expected[0x300..]);
}

// Checklist 13 and 15.
#[test]
fn test_bad_memory_fails_the_request_and_the_channel_lives() {
    let (_guest, mut channel) = start(&controller_with(ram_disk()));
    let invalid = Outcome::failed(0x86, [5, 0x24, 0]);
    channel.poke(DATA, 0, &[0xEE; 4096]);
    let short = GuestRange { offset: 0, count: 511, pages: vec![DATA] };
    let outside = GuestRange { offset: 0, count: 4096, pages: vec![0x7_FFFF_FFFF] };
    let beyond_page = GuestRange { offset: 4096, count: 512, pages: vec![DATA] };
    let empty = GuestRange { offset: 0, count: 0, pages: vec![] };
    for memory in [short, outside, beyond_page, empty] {
        assert_eq!(channel.execute(&read_srb(0, 0, 1), &[memory]), invalid);
    }
    assert_eq!(channel.execute(&read_srb(0, 0, 1), &[]), invalid);
    assert_eq!(channel.peek(DATA, 0, 4096), [0xEE; 4096]);
    assert_eq!(channel.test_unit_ready(0), Outcome::good(0));
}

// Checklist 18.
#[test]
fn test_failed_inquiry_and_mode_sense_leave_the_buffer_alone() {
    let (_guest, mut channel) = start(&controller_with(ram_disk()));
    channel.poke(DATA, 0, &[0xEE; 64]);
    for cdb in [[0x12, 1, 0x77, 0, 64, 0], [0x1A, 0, 0x1C, 0, 64, 0]] {
        let outcome = channel.execute(&srb(0, &cdb, FROM_DISK, 64), &[GuestRange::at(DATA, 64)]);
        assert_eq!(outcome, Outcome::failed(0x86, [5, 0x24, 0]));
    }
    assert_eq!(channel.peek(DATA, 0, 64), [0xEE; 64]);
}

// Checklist 19 and 20.
#[test]
fn test_lun_0_absent_and_lun_5_present_is_found_as_linux_looks() {
    let controller = ScsiController::new(0, 0);
    controller.add_disk(5, ram_disk(), DiskOptions::default()).unwrap();
    let (_guest, mut channel) = start(&controller);
    let (outcome, data) = channel.inquiry(0, DATA);
    assert_eq!((outcome, data[0]), (Outcome::good(36), 0x7F));
    let mut cdb = [0; 12];
    cdb[0] = 0xA0;
    cdb[6..10].copy_from_slice(&4096_u32.to_be_bytes());
    let report = |channel: &mut BareChannel, target| {
        let mut srb = srb(0, &cdb, FROM_DISK, 4096);
        srb[18] = target;
        let outcome = channel.execute(&srb, &[GuestRange::at(DATA, 4096)]);
        (outcome.length, channel.peek(DATA, 0, 16))
    };
    let (length, list) = report(&mut channel, 0);
    assert_eq!((length, list[3], list[9]), (16, 8, 5));
    assert_eq!(report(&mut channel, 1).0, 8);
    let (outcome, data) = channel.inquiry(5, DATA);
    assert_eq!((outcome, data[0]), (Outcome::good(36), 0));
    assert_eq!(channel.test_unit_ready(5), Outcome::good(0));
    assert_eq!(channel.test_unit_ready(0), Outcome::no_such_lun());
    assert_eq!(
        channel.execute(&read_srb(4, 0, 1), &[GuestRange::at(DATA, 512)]),
        Outcome::no_such_lun()
    );
    assert_eq!(channel.test_unit_ready(200), Outcome::no_such_lun());
}

// Checklist 21, 22 and 7.
#[test]
fn test_four_channels_complete_each_request_once_where_it_came_from() {
    let disk = ram_disk();
    for sector in 0..1024 {
        disk.write(sector * 512, &pattern(sector, 512)).unwrap();
    }
    let (mut guest, mut primary) = start(&controller_with(disk));
    assert_eq!(u32_at(&primary.ask(&packet(CREATE_SUB_CHANNELS, 4), &[]), 8), 0xC000_000D);
    assert_eq!(u32_at(&primary.ask(&packet(CREATE_SUB_CHANNELS, 3), &[]), 8), 0);
    guest.await_offers(4);
    let subs: Vec<_> = guest.offers[1..].to_vec();
    assert!(subs.iter().map(|offer| offer.subchannel).eq(1..=3));
    assert!(subs.iter().all(|offer| offer.instance == guest.offers[0].instance));
    let mut channels = vec![primary];
    for offer in subs {
        channels.push(guest.open(offer, 16));
    }
    const EACH: u64 = 256;
    for round in 0..2 {
        let mut sent = [0; 4];
        let mut answered = [[false; EACH as usize]; 4];
        // Fill every ring, drain one completion, repeat: all channels are busy together.
        while answered.iter().flatten().any(|answered| !answered) {
            for (number, channel) in channels.iter_mut().enumerate() {
                while sent[number] < EACH {
                    let id = sent[number];
                    let index = number as u64 * EACH + id;
                    let memory = GuestRange {
                        offset: (id as u32 % 8) * 512,
                        count: 512,
                        pages: vec![DATA + index],
                    };
                    if !channel.try_send(id, &read_srb(0, index, 1), &[memory]) {
                        break;
                    }
                    sent[number] += 1;
                }
                if answered[number].iter().any(|answered| !answered) {
                    let packet = channel.receive();
                    assert_eq!(Outcome::of(&packet.payload), Outcome::good(512));
                    let once = &mut answered[number][packet.transaction_id as usize];
                    assert!(!std::mem::replace(once, true), "completed twice in round {round}");
                }
            }
        }
        for (number, channel) in channels.iter_mut().enumerate() {
            assert_eq!(channel.try_receive(), None);
            for id in 0..EACH {
                let index = number as u64 * EACH + id;
                assert_eq!(channel.peek(DATA + index, (id % 8) * 512, 512), pattern(index, 512));
            }
        }
    }
}

// Checklist 7: an early subchannel waits for END.
#[test]
fn test_subchannel_opened_before_end_is_served_after_it() {
    let (mut guest, _) = guest::connect(&[controller_with(ram_disk())]);
    let offer = guest.offers[0];
    let mut primary = guest.open(offer, 8);
    for (operation, value) in
        [(BEGIN, 0), (QUERY_VERSION, 0x0602), (QUERY_PROPERTIES, 0), (CREATE_SUB_CHANNELS, 1)]
    {
        assert_eq!(u32_at(&primary.ask(&packet(operation, value), &[]), 8), 0);
    }
    guest.await_offers(2);
    let offer = guest.offers[1];
    let mut sub = guest.open(offer, 8);
    sub.send(1, &srb(0, &[0; 6], NO_DATA, 0), &[]);
    assert_eq!(u32_at(&primary.ask(&packet(END, 0), &[]), 8), 0);
    assert_eq!(Outcome::of(&sub.completion(1)), Outcome::good(0));
}

// Checklist 23.
#[test]
fn test_ring_full_of_completions_blocks_and_resumes_without_loss() {
    const REQUESTS: u64 = 300;
    let (mut guest, _) = guest::connect(&[controller_with(ram_disk())]);
    let offer = guest.offers[0];
    // One data page for each ring: 46 completions fit.
    let mut channel = guest.open(offer, 2);
    channel.initialise();
    for id in 0..REQUESTS {
        while !channel.try_send(id, &srb(0, &[0; 6], NO_DATA, 0), &[]) {
            std::thread::yield_now();
        }
    }
    // Wait until the host has set its pending send size: it waits for space.
    while channel.peek(channel.first_page as u64 + 2, 12, 4) == [0; 4] {
        std::thread::yield_now();
    }
    let mut seen = [false; REQUESTS as usize];
    for _ in 0..REQUESTS {
        let packet = channel.receive();
        assert_eq!(Outcome::of(&packet.payload), Outcome::good(0));
        assert!(!std::mem::replace(&mut seen[packet.transaction_id as usize], true));
    }
    assert_eq!(channel.test_unit_ready(0), Outcome::good(0));
    assert_eq!(channel.peek(channel.first_page as u64 + 2, 12, 4), [0; 4], "nobody waits any more");
}

// Checklist 33 and 39.
#[test]
fn test_backend_errors_reach_the_guest_in_its_words_and_are_counted() {
    let faulty = Faulty::new(ram_disk(), |request| match (request.operation, request.offset) {
        (Operation::Read, 512) => Fault::Fail(IoError::Os(5)),
        (Operation::Write { .. }, 1024) => Fault::Fail(IoError::NoSpace),
        (Operation::Write { .. }, 1536) => Fault::Fail(IoError::Os(5)),
        (Operation::Flush, _) => Fault::Fail(IoError::FlushLost),
        _ => Fault::None,
    });
    let controller = controller_with(Arc::new(faulty));
    let (_guest, mut channel) = start(&controller);
    let memory = [GuestRange::at(DATA, 512)];
    assert_eq!(channel.execute(&read_srb(0, 1, 1), &memory), Outcome::failed(0x84, [3, 0x11, 0]));
    assert_eq!(channel.execute(&write_srb(0, 2, 1), &memory), Outcome::failed(0x84, [7, 0x27, 7]));
    assert_eq!(channel.execute(&write_srb(0, 3, 1), &memory), Outcome::failed(0x84, [3, 0x0C, 0]));
    let sync = srb(0, &[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0], NO_DATA, 0);
    assert_eq!(channel.execute(&sync, &[]), Outcome::failed(0x84, [3, 0x0C, 0]));
    assert_eq!(channel.execute(&read_srb(0, 0, 1), &memory), Outcome::good(512));
    assert_eq!(controller.disks()[0].stats.errors, 4);
    assert!(controller.flush().is_err());
}

#[test]
fn test_stalled_disk_keeps_nothing_else_from_going_on() {
    let stalled = Faulty::new(ram_disk(), |_| Fault::Stall);
    let hold = stalled.hold();
    let controller = controller_with(Arc::new(stalled));
    controller.add_disk(1, ram_disk(), DiskOptions::default()).unwrap();
    let (_guest, mut channel) = start(&controller);
    channel.send(1, &read_srb(0, 0, 1), &[GuestRange::at(DATA, 512)]);
    channel.send(2, &packet(RESET_BUS, 0), &[]);
    channel.send(3, &read_srb(1, 0, 1), &[GuestRange::at(DATA + 1, 512)]);
    assert_eq!(Outcome::of(&channel.completion(3)), Outcome::good(512));
    assert_eq!(channel.try_receive(), None);
    // Checklist 43: the reset completes after all earlier requests.
    hold.release();
    assert_eq!(Outcome::of(&channel.completion(1)), Outcome::good(512));
    assert_eq!(u32_at(&channel.completion(2), 8), 0);
}

#[test]
fn test_close_with_stalled_io_ends_and_reopening_starts_over() {
    let stalled = Faulty::new(ram_disk(), |request| match request.operation {
        Operation::Read => Fault::Stall,
        _ => Fault::None,
    });
    let (mut guest, mut channel) = start(&controller_with(Arc::new(stalled)));
    channel.send(1, &read_srb(0, 0, 1), &[GuestRange::at(DATA, 512)]);
    channel.send(2, &srb(0, &[0; 6], NO_DATA, 0), &[]);
    channel.completion(2);
    guest.close(channel);
    // Checklist 10.
    let offer = guest.offers[0];
    let mut channel = guest.open(offer, 8);
    assert_eq!(u32_at(&channel.ask(&srb(0, &[0; 6], NO_DATA, 0), &[]), 8), 0xC000_0184);
    channel.initialise();
    assert_eq!(channel.test_unit_ready(0), Outcome::good(0));
    guest.close(channel);
}

#[test]
fn test_primary_close_ends_subchannels_and_they_come_back() {
    let (mut guest, mut primary) = start(&controller_with(ram_disk()));
    assert_eq!(u32_at(&primary.ask(&packet(CREATE_SUB_CHANNELS, 1), &[]), 8), 0);
    guest.await_offers(2);
    let offer = guest.offers[1];
    let sub = guest.open(offer, 8);
    guest.post_close(primary.relid);
    guest.expect(MessageType::RescindChannelOffer);
    guest.teardown(sub.relid, sub.gpadl);
    guest.release(sub.relid);
    guest.teardown(primary.relid, primary.gpadl);
    let offer = guest.offers[0];
    let mut primary = guest.open(offer, 8);
    primary.initialise();
    assert_eq!(u32_at(&primary.ask(&packet(CREATE_SUB_CHANNELS, 1), &[]), 8), 0);
    guest.await_offers(3);
    assert_eq!(guest.offers[2].subchannel, 1);
}

#[test]
fn test_broken_channel_is_abandoned_and_another_controller_continues() {
    let controllers = [controller_with(ram_disk()), ScsiController::new(1, 0)];
    controllers[1].add_disk(0, ram_disk(), DiskOptions::default()).unwrap();
    let (mut guest, _) = guest::connect(&controllers);
    let (first, second) = (guest.offers[0], guest.offers[1]);
    let mut healthy = guest.open(second, 8);
    healthy.initialise();
    for attempt in 0..3 {
        let mut broken = guest.open_at(first, 512, 8);
        broken.initialise();
        match attempt {
            // A payload too short for a header.
            0 => broken.send(1, &[3, 0, 0, 0, 0, 0, 0, 0], &[]),
            // A packet of a kind that storage channels do not carry.
            1 => {
                let transfer = OutPacket::in_band(1, &[&[0; 64]])
                    .with_header(PacketKind::TransferPages, &[0; 8]);
                assert!(broken.try_write(&transfer));
            }
            // An index outside the ring.
            _ => {
                broken.poke(broken.first_page as u64, 0, &0xFFFF_FFF8_u32.to_le_bytes());
                broken.ring_doorbell();
            }
        }
        // Returns after the worker has released the ring.
        guest.close(broken);
        assert_eq!(healthy.test_unit_ready(0), Outcome::good(0));
    }
}

#[test]
fn test_panic_in_a_worker_costs_its_channel_only() {
    let disk = Faulty::new(ram_disk(), |request| match request.offset {
        512 => panic!("a bug in a backend"),
        _ => Fault::None,
    });
    let (mut guest, mut channel) = start(&controller_with(Arc::new(disk)));
    channel.send(1, &read_srb(0, 1, 1), &[GuestRange::at(DATA, 512)]);
    guest.close(channel);
    let offer = guest.offers[0];
    let mut channel = guest.open(offer, 8);
    channel.initialise();
    assert_eq!(
        channel.execute(&read_srb(0, 0, 1), &[GuestRange::at(DATA, 512)]),
        Outcome::good(512)
    );
}

#[test]
fn test_random_packets_never_stop_the_host_and_answers_stay_single() {
    let controller = controller_with(ram_disk());
    let (mut guest, _) = guest::connect(std::slice::from_ref(&controller));
    let offer = guest.offers[0];
    let mut state = 0xD1B5_4A32_D192_ED03_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for round in 0..150 {
        let mut channel = guest.open_at(offer, 512, 16);
        if round % 8 != 0 {
            channel.initialise();
        }
        let mut answered = [false; 200];
        // Half of the rounds may send packets without a header, which close the channel. The other
        // rounds run to the end.
        let may_end = round % 2 == 0;
        for id in 0..200 {
            let mut memory = GuestRange::at(DATA + next() % 3000, 1 + (next() % 70_000) as u32);
            let (lba, blocks) = (next() % (20 * MIB / 512), (next() % 100) as u32);
            let mut payload = match next() % 8 {
                0..3 => read_srb(0, lba, blocks).to_vec(),
                3..6 => write_srb(0, lba, blocks).to_vec(),
                6 => packet(next() as u32 % 16, next() as u16).to_vec(),
                _ => {
                    let size =
                        if may_end && next() % 8 == 0 { next() % 24 } else { 16 + next() % 70 };
                    (0..size & !7).map(|_| (next() & next()) as u8).collect()
                }
            };
            // Corrupt half of the packets, in the packet or in the page list.
            if next() % 2 == 0 && !payload.is_empty() {
                let place = next() as usize % payload.len();
                payload[place] = next() as u8;
            }
            match next() % 16 {
                0 => memory.offset = next() as u32 % 5000,
                1 => memory.pages.truncate(1),
                2 => memory.pages[0] = next(),
                3 => memory.count = next() as u32,
                4 => memory.pages.reverse(),
                _ => {}
            }
            let memory = if next() % 8 == 0 { vec![] } else { vec![memory] };
            if !channel.try_send(id, &payload, &memory) {
                break;
            }
            while let Some(packet) = channel.try_receive() {
                if packet.kind == PacketKind::Completion {
                    let once = answered
                        .get_mut(packet.transaction_id as usize)
                        .expect("an id that was sent");
                    assert!(!std::mem::replace(once, true), "completed twice");
                }
            }
        }
        if !may_end {
            while !channel.try_send(u64::MAX, &srb(0, &[0; 6], NO_DATA, 0), &[]) {
                channel.receive();
            }
            while channel.receive().transaction_id != u64::MAX {}
        }
        guest.close(channel);
    }
    let mut channel = guest.open_at(offer, 512, 16);
    channel.initialise();
    assert_eq!(channel.test_unit_ready(0), Outcome::good(0));
    let stats = controller.disks()[0].stats;
    assert!(
        stats.reads > 1000 && stats.writes > 1000 && stats.refused > 1000,
        "the packets were too random: {stats:?}"
    );
}

#[test]
fn test_request_without_completion_flag_is_executed_and_not_answered() {
    let disk = ram_disk();
    let (_guest, mut channel) = start(&controller_with(disk));
    assert!(channel.try_write(&OutPacket::in_band(7, &[&srb(0, &[0; 6], NO_DATA, 0)])));
    channel.send(8, &srb(0, &[0; 6], NO_DATA, 0), &[]);
    channel.completion(8);
    assert_eq!(channel.try_receive(), None);
}

// Checklist 40.
#[test]
fn test_added_disk_is_announced_once_and_found() {
    let controller = controller_with(ram_disk());
    let (_guest, mut channel) = start(&controller);
    controller.add_disk(7, ram_disk(), DiskOptions::default()).unwrap();
    let news = channel.receive();
    assert_eq!((news.kind, news.transaction_id), (PacketKind::InBand, 0));
    assert_eq!((news.payload.len(), news.payload[0]), (64, ENUMERATE_BUS));
    assert!(news.payload[1..].iter().all(|&byte| byte == 0));
    assert_eq!(channel.test_unit_ready(7), Outcome::good(0));
    assert_eq!(channel.try_receive(), None);
}

// Checklist 41.
#[test]
fn test_removed_disk_finishes_what_it_has_and_is_gone() {
    let stalled = Faulty::new(ram_disk(), |_| Fault::Stall);
    let hold = stalled.hold();
    let controller = controller_with(Arc::new(stalled));
    let (_guest, mut channel) = start(&controller);
    channel.send(1, &read_srb(0, 0, 1), &[GuestRange::at(DATA, 512)]);
    assert_eq!(channel.test_unit_ready(0), Outcome::good(0));
    assert!(controller.remove_disk(0));
    assert!(!controller.remove_disk(0));
    assert_eq!(channel.receive().payload[0], ENUMERATE_BUS);
    assert_eq!(channel.test_unit_ready(0), Outcome::no_such_lun());
    hold.release();
    assert_eq!(Outcome::of(&channel.completion(1)), Outcome::good(512));
    assert!(controller.disks().is_empty());
}

// Checklist 42.
#[test]
fn test_resized_disk_reports_it_once_over_all_commands() {
    let controller = controller_with(ram_disk());
    let (_guest, mut channel) = start(&controller);
    assert!(controller.resize_disk(0, 8 * MIB));
    assert_eq!(channel.receive().payload[0], ENUMERATE_BUS);
    let memory = [GuestRange::at(DATA, 512)];
    assert_eq!(channel.execute(&read_srb(0, 0, 1), &memory), Outcome::failed(0x84, [6, 0x2A, 9]));
    assert_eq!(channel.execute(&read_srb(0, 0, 1), &memory), Outcome::good(512));
    let end = 8 * MIB / 512;
    assert_eq!(channel.execute(&read_srb(0, end, 1), &memory), Outcome::failed(0x84, [5, 0x21, 0]));
}

// Checklist 44.
#[test]
fn test_rescinded_controller_ends_its_worker() {
    let (mut guest, keys) = guest::connect(&[controller_with(ram_disk())]);
    let offer = guest.offers[0];
    let mut channel = guest.open(offer, 8);
    channel.initialise();
    guest.bus.rescind(keys[0]);
    guest.expect(MessageType::RescindChannelOffer);
    guest.teardown(channel.relid, channel.gpadl);
}

#[test]
fn test_raw_image_moves_bytes_without_a_copy_and_counts_them() {
    let file = TempFile::new().unwrap();
    file.as_file().set_len(MIB).unwrap();
    let controller = ScsiController::new(0, 0);
    let backend = Arc::new(RawFile::open(file.as_path(), false).unwrap());
    let options = DiskOptions { serial: Some("S-1".into()), label: "a.img".into() };
    controller.add_disk(0, backend, options).unwrap();
    let (_guest, mut channel) = start(&controller);
    channel.poke(DATA, 0x200, &pattern(9, 3584));
    let memory = [GuestRange { offset: 0x200, count: 3584, pages: vec![DATA] }];
    assert_eq!(channel.execute(&write_srb(0, 3, 7), &memory), Outcome::good(3584));
    let fua = srb(0, &rw(0x8A, 8, 100, 1), TO_DISK, 512);
    assert_eq!(channel.execute(&fua, &[GuestRange::at(DATA, 512)]), Outcome::good(512));
    let sync = srb(0, &[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0], NO_DATA, 0);
    assert_eq!(channel.execute(&sync, &[]), Outcome::good(0));
    assert_eq!(std::fs::read(file.as_path()).unwrap()[1536..5120], pattern(9, 3584));
    channel.inquiry(0, DATA);
    assert_eq!(channel.execute(&srb(0, &[0x4D; 10], NO_DATA, 0), &[]).sense, [5, 0x20, 0]);
    let report = controller.disks().remove(0);
    assert_eq!(
        (report.label.as_str(), report.serial.as_str(), report.capacity),
        ("a.img", "S-1", MIB)
    );
    let stats = report.stats;
    assert_eq!(
        (stats.reads, stats.writes, stats.flushes, stats.refused, stats.errors),
        (0, 2, 1, 1, 0)
    );
    assert_eq!(
        (stats.requests, stats.bytes, stats.copied_bytes, stats.metadata_bytes),
        (5, 4096, 0, 36)
    );
    assert_eq!(controller.flush(), Ok(()));
}

#[test]
fn test_read_only_image_refuses_writes_and_says_so_in_mode_sense() {
    let file = TempFile::new().unwrap();
    file.as_file().set_len(MIB).unwrap();
    let controller = controller_with(Arc::new(RawFile::open(file.as_path(), true).unwrap()));
    let (_guest, mut channel) = start(&controller);
    let memory = [GuestRange::at(DATA, 512)];
    assert_eq!(channel.execute(&write_srb(0, 0, 1), &memory), Outcome::failed(0x84, [7, 0x27, 0]));
    let sense = srb(0, &[0x1A, 0, 0x3F, 0, 4, 0], FROM_DISK, 4);
    assert_eq!(channel.execute(&sense, &[GuestRange::at(DATA, 4)]), Outcome::good(4));
    assert_eq!(channel.peek(DATA, 2, 1), [0x90]);
    assert_eq!(channel.execute(&read_srb(0, 0, 1), &memory), Outcome::good(512));
}

// Checklist 31, through the ring: the parameter list comes from guest memory.
#[test]
fn test_mode_select_reads_its_list_from_the_guest() {
    let (_guest, mut channel) = start(&controller_with(ram_disk()));
    let mut list = [0; 24];
    list[4..6].copy_from_slice(&[0x08, 0x12]);
    let select = srb(0, &[0x15, 0x10, 0, 0, 24, 0], TO_DISK, 24);
    channel.poke(DATA, 0xFF0, &list);
    let memory = [GuestRange { offset: 0xFF0, count: 24, pages: vec![DATA, DATA + 1] }];
    assert_eq!(channel.execute(&select, &memory), Outcome::good(24));
    // The RAM disk has no write cache to enable.
    list[6] = 0x04;
    channel.poke(DATA, 0xFF0, &list);
    assert_eq!(channel.execute(&select, &memory), Outcome::failed(0x86, [5, 0x26, 0]));
}

#[test]
fn test_disks_that_cannot_be_added_are_refused_by_name() {
    let controller = controller_with(ram_disk());
    let add = |lun, options| controller.add_disk(lun, ram_disk(), options).unwrap_err().to_string();
    assert!(add(0, DiskOptions::default()).contains("LUN 0"));
    assert!(add(64, DiskOptions::default()).contains("LUN 64"));
    let serial = DiskOptions { serial: Some("\n".into()), ..DiskOptions::default() };
    assert!(add(1, serial).contains("serial"));
    assert_eq!(controller.disks().len(), 1);
}
