//! Both ends of a ring against a peer that rewrites indices, descriptors and data between any two
//! steps. The mirrored and the paged ring are compared with each other and with a naive model, byte
//! by byte.

use std::cell::RefCell;

use vmbus_gpadl::GuestBuffer;
use vmbus_ring::{Incoming, Mode, OutPacket, Outgoing, PacketKind, WriteError};

use crate::input::Input;
use crate::packet_model::check_external;
use crate::page_list::{Memory, PAGE};
use crate::ring_model::Model;
use crate::twin::{FEATURES, MASK, PENDING, READ_INDEX, Twin, WRITE_INDEX};

/// Most steps of one input.
const MAX_STEPS: usize = 48;
/// The rings: the smallest one, neighbouring pages, scattered pages.
const SHAPES: [&[u64]; 3] = [&[1, 2], &[3, 4, 5, 6, 7], &[9, 3, 7, 5]];

struct Fixture {
    memory: Memory,
    /// Each shape as a mirrored and as a paged ring.
    twins: Vec<[Twin; 2]>,
    model: Model,
    scratch: Scratch,
}

/// Buffers that are reused from step to step.
#[derive(Default)]
struct Scratch {
    packet: Vec<u8>,
    payload: Vec<u8>,
    got: Vec<u8>,
}

thread_local! {
    static FIXTURE: RefCell<Fixture> = RefCell::new(Fixture {
        memory: Memory::new(),
        twins: SHAPES
            .map(|pages| [Mode::Mirrored, Mode::Paged].map(|mode| Twin::new(pages, mode)))
            .into(),
        model: Model::default(),
        scratch: Scratch::default(),
    });
}

/// Runs one input. Layout: shape, feature bits, read and write index (u16 each, in 8-byte units),
/// bytes of the ring's data (u16 and that many), then steps.
pub fn run(data: &[u8]) {
    FIXTURE.with_borrow_mut(|fixture| {
        let mut input = Input::new(data);
        let shape = usize::from(input.u8()) % SHAPES.len();
        let Fixture { memory, twins, model, scratch } = fixture;
        let twins = &twins[shape];
        let size = twins[0].data_size();
        model.reset(size as usize);
        model.features = u32::from(input.u8());
        model.read_index = u32::from(input.u16()) * 8 % size;
        model.write_index = u32::from(input.u16()) * 8 % size;
        let image = usize::from(input.u16());
        let image = input.bytes(image.min(size as usize));
        model.write(model.read_index, image);
        for twin in twins {
            twin.start(model.read_index, model.write_index);
            twin.set_field(FEATURES, model.features);
            twin.write(0, &model.data);
        }
        model.open_reader().expect("sound indices");
        model.open_writer().expect("sound indices");
        let mut ends = Ends {
            readers: twins
                .each_ref()
                .map(|twin| Incoming::new(twin.map.clone()).expect("sound indices")),
            writers: twins
                .each_ref()
                .map(|twin| Outgoing::new(twin.map.clone()).expect("sound indices")),
            twins,
            memory,
            model,
            scratch,
        };
        ends.check_control();
        for _ in 0..MAX_STEPS {
            if input.is_empty() {
                break;
            }
            ends.step(&mut input);
            ends.check_control();
        }
        ends.check_data();
    });
}

struct Ends<'a> {
    twins: &'a [Twin; 2],
    readers: [Incoming; 2],
    writers: [Outgoing; 2],
    memory: &'a mut Memory,
    model: &'a mut Model,
    scratch: &'a mut Scratch,
}

impl Ends<'_> {
    fn step(&mut self, input: &mut Input<'_>) {
        match input.u8() & 15 {
            0 | 1 => self.read(input),
            2 | 3 => self.write(input),
            4 => self.rewrite(u32::from(input.u16()), input.u64()),
            5 => self.rewrite_descriptor(input),
            6 => {
                let at = u32::from(input.u16()) * 8 % self.model.size();
                self.set_field(WRITE_INDEX, at);
            }
            7 => {
                let at = u32::from(input.u16()) * 8 % self.model.size();
                self.set_field(READ_INDEX, at);
            }
            8 => {
                let fields = [WRITE_INDEX, READ_INDEX, MASK, PENDING, FEATURES];
                let field = fields[usize::from(input.u8()) % fields.len()];
                self.set_field(field, input.u32());
            }
            9 => {
                if self.model.reader.stopped.is_none() {
                    self.model.mask = 1;
                }
                self.readers.iter().for_each(Incoming::mask);
            }
            10 => {
                let expected = self.model.unmask();
                self.readers.iter_mut().for_each(|reader| assert_eq!(reader.unmask(), expected));
            }
            11 => {
                let expected = self.model.sample();
                self.readers.iter_mut().for_each(|reader| assert_eq!(reader.used(), expected));
            }
            12 => {
                let needed = if input.u8() & 1 == 0 { input.u16().into() } else { input.u32() };
                let expected = self.model.wait_for_space(needed);
                self.writers
                    .iter_mut()
                    .for_each(|writer| assert_eq!(writer.wait_for_space(needed), expected));
            }
            13 => {
                self.model.space_came();
                self.writers.iter_mut().for_each(Outgoing::space_came);
            }
            14 => {
                let expected = self.model.free_now();
                self.writers.iter_mut().for_each(|writer| assert_eq!(writer.free(), expected));
            }
            _ => {
                let limit = u32::from(input.u16());
                self.model.writer.max_packet = limit.min(self.model.size() - 16).min(0xFFFF * 8);
                self.writers.iter_mut().for_each(|writer| writer.limit_packets(limit));
            }
        }
    }

    /// Reads one batch. The peer may rewrite a word after each packet was returned and before it is
    /// used.
    fn read(&mut self, input: &mut Input<'_>) {
        let (packets, flags) = (input.u8(), input.u8());
        let expected = self.model.sample();
        let mut available = match expected {
            Ok(bytes) => bytes,
            Err(error) => {
                self.readers
                    .iter_mut()
                    .for_each(|reader| assert_eq!(reader.batch().map(|_| ()), Err(error)));
                return;
            }
        };
        let [first, second] = &mut self.readers;
        let mut batches = [first, second].map(|reader| reader.batch().expect("a good index"));
        let mut at = self.model.reader.read;
        for n in 0..packets {
            if available == 0 {
                batches.iter_mut().for_each(|batch| {
                    assert!(batch.next().expect("the end of the batch").is_none())
                });
                break;
            }
            let frame = match self.model.packet(at, available, &mut self.scratch.packet) {
                Ok(frame) => frame,
                Err(error) => {
                    batches
                        .iter_mut()
                        .for_each(|batch| assert_eq!(batch.next().map(|_| ()), Err(error)));
                    // A batch of a stopped ring has no more packets.
                    available = 0;
                    continue;
                }
            };
            let got = batches
                .each_mut()
                .map(|batch| batch.next().expect("a sound packet").expect("a packet"));
            if flags & 2 != 0 {
                let (word, value) = (at / 8 + u32::from(input.u8()), input.u64());
                rewrite(self.model, self.twins, word, value);
                self.model.bytes(at, frame.length, &mut self.scratch.packet);
            }
            for packet in &got {
                frame.check(packet);
                let bytes = &self.scratch.packet[frame.data_offset..];
                check_payload(packet, bytes, usize::from(flags >> 3), &mut self.scratch.got);
                if n == 0 && flags & 4 != 0 {
                    let mut buffer = GuestBuffer::new(self.memory.ram.clone());
                    let packet_bytes = &self.scratch.packet;
                    check_external(
                        self.memory,
                        packet,
                        &frame,
                        packet_bytes,
                        &mut buffer,
                        &mut Input::new(&[]),
                    );
                }
            }
            let total = frame.length as u32 + 8;
            (at, available) = ((at + total) % self.model.size(), available - total);
            batches.iter().for_each(|batch| assert_eq!(batch.remaining(), available));
        }
        if flags & 1 != 0 {
            return;
        }
        let expected = self.model.commit_read(at);
        let [first, second] = batches.map(|batch| batch.commit());
        assert_eq!(first, second, "both modes signal alike");
        assert!(
            expected.is_none_or(|expected| expected == first),
            "signal {first}, expected {expected:?}"
        );
    }

    fn write(&mut self, input: &mut Input<'_>) {
        let flags = input.u8();
        let expected = self.model.begin_write();
        let mut free = match expected {
            Ok(free) => free,
            Err(error) => {
                self.writers
                    .iter_mut()
                    .for_each(|writer| assert_eq!(writer.batch().map(|_| ()), Err(error)));
                return;
            }
        };
        let [first, second] = &mut self.writers;
        let mut batches = [first, second].map(|writer| writer.batch().expect("a sound ring"));
        let mut at = self.model.writer.write;
        for n in 0..1 + (flags >> 1 & 3) {
            let header = usize::from(input.u8() & 63);
            let lengths = [usize::from(input.u16() & 0x1FFF), usize::from(input.u8())];
            let id = u64::from(input.u8()) << 56 | u64::from(n);
            let fill = &mut self.scratch.payload;
            fill.clear();
            fill.extend(
                (0..header + lengths[0] + lengths[1]).map(|at| (at as u8).wrapping_mul(31) | 1),
            );
            let (header, payload) = fill.split_at(header);
            let (one, two) = payload.split_at(lengths[0]);
            let kind = [
                PacketKind::InBand,
                PacketKind::TransferPages,
                PacketKind::GpaDirect,
                PacketKind::Completion,
            ][usize::from(flags >> 4 & 3)];
            let pieces: [&[u8]; 2] = [one, two];
            let packet = OutPacket {
                kind,
                transaction_id: id,
                completion_requested: flags & 0x40 != 0,
                header,
                payload: &pieces,
            };
            flatten(&packet, &mut self.scratch.packet);
            let expected = self.model.write_packet(at, &mut free, &self.scratch.packet);
            batches
                .iter_mut()
                .for_each(|batch| assert_eq!(batch.write(&packet), expected.map(|_| ())));
            match expected {
                Ok(after) => at = after,
                Err(WriteError::Corrupt(_)) => break,
                Err(_) => {}
            }
        }
        if flags & 1 != 0 {
            return;
        }
        let expected = self.model.commit_write(at);
        batches.into_iter().for_each(|batch| assert_eq!(batch.commit(), expected));
    }

    fn rewrite(&mut self, word: u32, value: u64) {
        rewrite(self.model, self.twins, word, value);
    }

    /// Writes a descriptor that is nearly or completely valid, because random bytes rarely are.
    fn rewrite_descriptor(&mut self, input: &mut Input<'_>) {
        let (ahead, kind, offset, length) = (input.u8(), input.u8(), input.u8(), input.u16());
        let kind = [6, 7, 9, 11, 9, 6, 11, 0][usize::from(kind & 7)] | u64::from(kind & 8) << 48;
        let word = kind | u64::from(offset) << 16 | u64::from(length) << 32;
        let at = self.model.reader.read / 8 + u32::from(ahead);
        self.rewrite(at, word);
    }

    fn set_field(&mut self, field: usize, value: u32) {
        let model = &mut self.model;
        match field {
            WRITE_INDEX => model.write_index = value,
            READ_INDEX => model.read_index = value,
            MASK => model.mask = value,
            PENDING => model.pending = value,
            _ => model.features = value,
        }
        self.twins.iter().for_each(|twin| twin.set_field(field, value));
    }

    fn check_control(&self) {
        let model = &self.model;
        let fields =
            [model.write_index, model.read_index, model.mask, model.pending, model.features];
        for (n, twin) in self.twins.iter().enumerate() {
            assert_eq!(
                [WRITE_INDEX, READ_INDEX, MASK, PENDING, FEATURES].map(|field| twin.field(field)),
                fields
            );
            assert_eq!(self.readers[n].stopped(), model.reader.stopped);
            assert_eq!(self.writers[n].stopped(), model.writer.stopped);
            assert_eq!(self.writers[n].is_waiting(), model.writer.waiting);
            let seen = self.readers[n].indices();
            assert_eq!((seen.write_index, seen.read_index), (model.write_index, model.read_index));
        }
    }

    fn check_data(&self) {
        for twin in self.twins {
            for (index, page) in self.model.data.chunks(PAGE).enumerate() {
                assert_eq!(twin.page(index), page, "page {index} of the data");
            }
            twin.check_others();
        }
    }
}

fn rewrite(model: &mut Model, twins: &[Twin; 2], word: u32, value: u64) {
    let at = word * 8 % model.size();
    model.write(at, &value.to_le_bytes());
    twins.iter().for_each(|twin| twin.write(at, &value.to_le_bytes()));
}

/// Reads the payload with each function that does so.
fn check_payload(packet: &vmbus_ring::Packet<'_>, bytes: &[u8], offset: usize, got: &mut Vec<u8>) {
    got.clear();
    got.resize(bytes.len() + 8, 0xEE);
    assert_eq!(packet.read_payload(got), bytes.len());
    assert_eq!((&got[..bytes.len()], &got[bytes.len()..]), (bytes, &[0xEE; 8][..]));
    let rest = bytes.get(offset..).unwrap_or(&[]);
    got.clear();
    got.resize(rest.len().min(300), 0);
    assert_eq!(packet.read_payload_at(offset, got), got.len());
    assert_eq!(got[..], rest[..got.len()]);
    let mut left = bytes;
    for slice in packet.payload_slices() {
        got.clear();
        got.resize(slice.len(), 0);
        slice.copy_to(got);
        let (now, later) = left.split_at(slice.len());
        assert_eq!(got[..], *now);
        left = later;
    }
    assert!(left.is_empty());
    if let Some(slice) = packet.payload_slice() {
        assert_eq!(slice.len(), bytes.len());
    }
    let head: Option<[u8; 24]> = packet.read();
    assert_eq!(head.as_ref().map(|head| &head[..]), bytes.get(..24));
}

/// Copies the bytes of a packet without its trailer to `out`, in the form that they have in the
/// ring.
fn flatten(packet: &OutPacket<'_>, out: &mut Vec<u8>) {
    out.clear();
    out.resize(16, 0);
    out.extend_from_slice(packet.header);
    out.resize(out.len().next_multiple_of(8), 0);
    let data_offset = out.len() as u64 / 8;
    packet.payload.iter().for_each(|piece| out.extend_from_slice(piece));
    out.resize(out.len().next_multiple_of(8), 0);
    let kind: u64 = match packet.kind {
        PacketKind::InBand => 6,
        PacketKind::TransferPages => 7,
        PacketKind::GpaDirect => 9,
        PacketKind::Completion => 11,
    };
    let length = out.len() as u64 / 8;
    let flags = u64::from(packet.completion_requested);
    out[..8]
        .copy_from_slice(&(kind | data_offset << 16 | length << 32 | flags << 48).to_le_bytes());
    out[8..16].copy_from_slice(&packet.transaction_id.to_le_bytes());
}
