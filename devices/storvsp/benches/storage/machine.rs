//! A guest, its machine and its disks, all in the calling thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use synthvm_block::RamDisk;
use synthvm_storvsp::{
    ControllerOptions, DiskOptions, InlineWorkers, ScsiController, WorkerOptions,
};
use vmbus_ring::{GpaRange, OutPacket, PacketKind, gpa_direct_header};

use crate::direction::Direction;
use crate::guest::scsi::{
    CREATE_SUB_CHANNELS, StorageChannel, packet, read_srb, u32_at, write_srb,
};
use crate::guest::{BareChannel, BareGuest, DATA};

/// Bytes of a request.
pub(crate) const BYTES: usize = 4096;
/// Number of pages of guest memory, and of blocks of disk, that requests cycle through. They fit a
/// second-level cache, so that the benchmark measures the path and not the machine's memory.
pub(crate) const PLACES: usize = 64;

/// The shape of a machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// SCSI controllers.
    pub(crate) controllers: usize,
    /// Channels of each controller.
    pub(crate) channels: usize,
    /// Disks of each controller. They share [`PLACES`] blocks, so that more disks use no more
    /// memory.
    pub(crate) luns: usize,
    /// Pages of each ring.
    pub(crate) ring_pages: usize,
}

impl Shape {
    /// One controller, channel and disk, with rings of Linux's default size.
    pub(crate) const PLAIN: Self = Self { controllers: 1, channels: 1, luns: 1, ring_pages: 33 };
}

pub(crate) struct Machine {
    /// Keeps the bus alive.
    _guest: BareGuest,
    controllers: Vec<ScsiController>,
    workers: InlineWorkers,
    channels: Vec<BareChannel>,
    luns: usize,
}

/// Prepared requests, one for each page.
pub(crate) struct Load {
    packets: Vec<([u8; 64], Vec<u8>)>,
    next: usize,
}

impl Machine {
    pub(crate) fn new(shape: Shape) -> Self {
        let workers = InlineWorkers::default();
        let options = ControllerOptions {
            max_subchannels: shape.channels as u16 - 1,
            workers: WorkerOptions::default().inline(workers.clone()),
        };
        let controllers: Vec<_> = (0..shape.controllers)
            .map(|number| ScsiController::with_options(number as u32, options.clone()))
            .collect();
        for controller in &controllers {
            for lun in 0..shape.luns {
                let disk =
                    Arc::new(RamDisk::new((PLACES * BYTES) as u64).expect("memory for a disk"));
                controller.add_disk(lun as u8, disk, DiskOptions::default()).expect("an empty LUN");
            }
        }
        let (mut guest, _) = crate::guest::connect_inline(&controllers, &workers);
        let mut channels = Vec::new();
        for offer in guest.offers.clone() {
            let mut primary = guest.open(offer, shape.ring_pages);
            primary.initialise();
            if shape.channels > 1 {
                let asked = primary.ask(&packet(CREATE_SUB_CHANNELS, options.max_subchannels), &[]);
                assert_eq!(u32_at(&asked, 8), 0, "no subchannels");
            }
            channels.push(primary);
        }
        guest.await_offers(shape.controllers * shape.channels);
        for offer in guest.offers.split_off(shape.controllers) {
            channels.push(guest.open(offer, shape.ring_pages));
        }
        assert_eq!(channels.len(), shape.controllers * shape.channels);
        let machine = Self { _guest: guest, controllers, workers, channels, luns: shape.luns };
        machine.touch();
        machine
    }

    /// Returns requests in `direction` that cycle through all disks.
    pub(crate) fn load(&self, direction: Direction) -> Load {
        let packets = (0..PLACES).map(|place| {
            let page = [DATA + place as u64];
            let mut header = Vec::new();
            let range = GpaRange { byte_count: BYTES as u32, byte_offset: 0, pages: &page };
            gpa_direct_header(&[range], &mut header);
            let (lun, lba) = ((place % self.luns) as u8, (place / self.luns * 8) as u64);
            let srb = match direction {
                Direction::Read => read_srb(lun, lba, 8),
                Direction::Write => write_srb(lun, lba, 8),
            };
            (srb, header)
        });
        Load { packets: packets.collect(), next: 0 }
    }

    /// Sends and serves `count` requests, `depth` at a time on each channel. Returns the time that
    /// this took.
    pub(crate) fn run(&mut self, load: &mut Load, depth: usize, count: u64) -> Duration {
        let start = Instant::now();
        let rounds = count.div_ceil((depth * self.channels.len()) as u64);
        for _ in 0..rounds {
            self.send(load, depth);
            self.serve();
            self.receive(depth);
        }
        // The last round may exceed the count.
        let done = rounds * (depth * self.channels.len()) as u64;
        start.elapsed().mul_f64(count as f64 / done as f64)
    }

    /// Writes `depth` requests to each channel, which become visible together.
    pub(crate) fn send(&mut self, load: &mut Load, depth: usize) {
        for channel in &mut self.channels {
            let mut batch = channel.outgoing.batch().expect("a sound ring");
            for id in 0..depth {
                let (srb, header) = &load.packets[load.next % PLACES];
                load.next += 1;
                let payload = [&srb[..]];
                let packet = OutPacket::request(id as u64, &payload)
                    .with_header(PacketKind::GpaDirect, header);
                batch.write(&packet).expect("room in the ring");
            }
            // The doorbell is the hypervisor's work, and not measured.
            assert!(batch.commit(), "the host should sleep");
        }
    }

    /// Runs the host's part: serves all channels.
    pub(crate) fn serve(&self) {
        self.workers.serve();
    }

    /// Takes `depth` completions from each channel. All must be present and successful.
    pub(crate) fn receive(&mut self, depth: usize) {
        for channel in &mut self.channels {
            let mut batch = channel.incoming.batch().expect("a sound ring");
            let mut received = 0;
            while let Some(packet) = batch.next().expect("a sound ring") {
                let mut reply = [0; 64];
                packet.read_payload(&mut reply);
                assert_eq!(reply[14], 1, "a request failed");
                received += 1;
            }
            assert_eq!(received, depth, "requests that were not completed");
            assert!(!batch.commit(), "the host should not wait for space");
        }
    }

    /// Returns the bytes copied through intermediate buffers of the host.
    pub(crate) fn copied_bytes(&self) -> u64 {
        let disks = self.controllers.iter().flat_map(ScsiController::disks);
        disks.map(|disk| disk.stats.copied_bytes).sum()
    }

    /// Touches every page of memory and disk, so that no page fault is measured.
    fn touch(&self) {
        for channel in &self.channels {
            for place in 0..PLACES as u64 {
                channel.poke(DATA + place, 0, &[1; BYTES]);
            }
        }
    }
}
