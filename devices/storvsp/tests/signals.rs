//! Interrupts to the guest, and replies to requests of each version and shape. The workers are
//! inline, so each step is deterministic.

mod guest;

use std::sync::Arc;

use guest::scsi::*;
use guest::{BareChannel, BareGuest, DATA, GuestRange};
use synthvm_block::RamDisk;
use synthvm_storvsp::{
    ControllerOptions, DiskOptions, InlineWorkers, ScsiController, WorkerOptions,
};
use vmbus_ring::{GpaRange, OutPacket, PacketKind, gpa_direct_header};

const MIB: u64 = 1 << 20;

struct Setup {
    guest: BareGuest,
    channel: BareChannel,
    disk: Arc<RamDisk>,
    controller: ScsiController,
    workers: InlineWorkers,
}

fn start() -> Setup {
    let workers = InlineWorkers::default();
    let options = ControllerOptions {
        workers: WorkerOptions::default().inline(workers.clone()),
        ..ControllerOptions::default()
    };
    let controller = ScsiController::with_options(0, options);
    let disk = Arc::new(RamDisk::new(16 * MIB).unwrap());
    controller.add_disk(0, disk.clone(), DiskOptions::default()).unwrap();
    let (mut guest, _) = guest::connect_inline(std::slice::from_ref(&controller), &workers);
    let offer = guest.offers[0];
    let channel = guest.open(offer, 33);
    Setup { guest, channel, disk, controller, workers }
}

impl Setup {
    /// Writes `count` reads that become visible together.
    fn send(&mut self, count: u64) {
        let mut header = Vec::new();
        gpa_direct_header(
            &[GpaRange { byte_count: 512, byte_offset: 0, pages: &[DATA] }],
            &mut header,
        );
        let srb = read_srb(0, 0, 1);
        let mut batch = self.channel.outgoing.batch().unwrap();
        for id in 0..count {
            let payload = [&srb[..]];
            let packet =
                OutPacket::request(id, &payload).with_header(PacketKind::GpaDirect, &header);
            batch.write(&packet).unwrap();
        }
        // Inline workers do not sleep, so the doorbell is ignored.
        let _ = batch.commit();
    }

    fn events(&self) -> u64 {
        self.channel.synic.events(self.channel.relid as u16)
    }

    /// Serves the waiting requests. Returns the number of events in the meantime.
    fn events_of_serving(&self) -> u64 {
        let before = self.events();
        self.workers.serve();
        self.events() - before
    }

    fn drain(&mut self) -> usize {
        std::iter::from_fn(|| self.channel.try_receive()).count()
    }
}

#[test]
fn test_completions_of_any_number_of_requests_are_one_signal() {
    let mut setup = start();
    setup.channel.initialise();
    // 200 requests are several batches. The later ones find completions in the ring that the guest
    // has not read yet.
    for count in [1, 2, 64, 65, 200] {
        setup.send(count);
        assert_eq!(setup.events_of_serving(), 1, "{count} requests");
        assert_eq!(setup.drain(), count as usize);
    }
    assert_eq!(setup.events_of_serving(), 0);
}

#[test]
fn test_guest_that_polls_or_has_not_drained_is_not_signalled() {
    let mut setup = start();
    setup.channel.initialise();
    setup.channel.incoming.mask();
    setup.send(10);
    assert_eq!(setup.events_of_serving(), 0);
    assert_eq!(setup.drain(), 10);
    assert!(!setup.channel.incoming.unmask().unwrap());
    setup.send(1);
    assert_eq!(setup.events_of_serving(), 1);
    setup.send(10);
    assert_eq!(setup.events_of_serving(), 0, "a completion waits already");
    assert_eq!(setup.drain(), 11);
}

#[test]
fn test_worker_that_waits_leaves_the_ring_unmasked() {
    let mut setup = start();
    setup.channel.initialise();
    let mask = |setup: &Setup| setup.channel.peek(setup.channel.first_page as u64, 8, 4);
    assert_eq!(mask(&setup), [0; 4]);
    setup.send(3);
    setup.workers.serve();
    assert_eq!(mask(&setup), [0; 4]);
}

// Checklist 2, 4, 11 and 40, for every version.
#[test]
fn test_every_version_works_with_its_packets_and_is_notified_of_new_disks_if_it_can_be() {
    for (version, size, news) in
        [(0x0200, 48, 0), (0x0402, 48, 48), (0x0501, 64, 64), (0x0600, 64, 64), (0x0602, 64, 64)]
    {
        let mut setup = start();
        let channel = &mut setup.channel;
        for (operation, value) in
            [(BEGIN, 0), (QUERY_VERSION, version), (QUERY_PROPERTIES, 0), (END, 0)]
        {
            let reply = channel.ask(&packet(operation, value)[..size], &[]);
            assert_eq!((reply.len(), u32_at(&reply, 8)), (size, 0), "{version:#x}");
        }
        let reply = channel.ask(&read_srb(0, 0, 8)[..size], &[GuestRange::at(DATA, 4096)]);
        assert_eq!((reply.len(), Outcome::of(&reply)), (size, Outcome::good(4096)), "{version:#x}");
        let disk = Arc::new(RamDisk::new(MIB).unwrap());
        setup.controller.add_disk(9, disk, DiskOptions::default()).unwrap();
        setup.workers.serve();
        let told = setup.channel.try_receive().map_or(0, |packet| {
            assert_eq!((packet.kind, packet.transaction_id), (PacketKind::InBand, 0));
            assert_eq!(packet.payload[0], ENUMERATE_BUS);
            packet.payload.len()
        });
        assert_eq!(told, news, "{version:#x}");
        assert!(setup.channel.try_receive().is_none());
    }
}

// Checklist 12: chains of memory descriptors. One range of many pages, many ranges of one page, and
// ranges of any lengths.
#[test]
fn test_largest_request_moves_through_ranges_of_any_shape() {
    let mut setup = start();
    let properties = setup.channel.initialise();
    let most = u32_at(&properties, 24);
    assert!(most >= 1 << 20);
    let pages = |first: u64, count: u64| (first..first + count).rev().collect::<Vec<_>>();
    let one_range = vec![GuestRange { offset: 0x204, count: most, pages: pages(DATA, 257) }];
    let mut range_a_page =
        vec![GuestRange { offset: 0xE00, count: 0x200, pages: vec![DATA + 300] }];
    range_a_page.extend((0..255).map(|page| GuestRange {
        offset: 0,
        count: 4096,
        pages: vec![DATA + 302 + 2 * page],
    }));
    range_a_page.push(GuestRange { offset: 0, count: 0xE00, pages: vec![DATA + 301] });
    let mut odd = vec![GuestRange { offset: 3, count: 5, pages: vec![DATA + 1000] }];
    odd.push(GuestRange { offset: 0xFFF, count: 70_001, pages: pages(DATA + 1001, 19) });
    odd.push(GuestRange { offset: 1, count: most - 70_006, pages: pages(DATA + 1100, 240) });
    for (seed, memory) in [one_range, range_a_page, odd].into_iter().enumerate() {
        let bytes = pattern(seed as u64 + 1, most as usize);
        setup.disk.write(0, &bytes).unwrap();
        let sectors = most / 512;
        assert_eq!(setup.channel.execute(&read_srb(0, 0, sectors), &memory), Outcome::good(most));
        // Write the data to another location: it has then passed through guest memory both ways.
        let write = write_srb(0, 8 * MIB / 512, sectors);
        assert_eq!(setup.channel.execute(&write, &memory), Outcome::good(most));
        let mut back = vec![0; most as usize];
        setup.disk.read(8 * MIB, &mut back).unwrap();
        assert!(back == bytes, "shape {seed}");
    }
    assert_eq!(setup.controller.disks()[0].stats.copied_bytes, 0);
    setup.guest.close(setup.channel);
}
