//! Random packets and random orders of calls against a naive model: a queue of packets and a count
//! of bytes.

mod common;

use std::collections::VecDeque;

use common::{Seen, TestRing, padded, ring_of, take};
use proptest::prelude::*;
use vmbus_ring::{Mode, OutPacket, PacketKind, WriteError};

#[derive(Clone, Debug)]
struct Sent {
    kind: PacketKind,
    id: u64,
    completion: bool,
    header: Vec<u8>,
    pieces: Vec<Vec<u8>>,
}

#[derive(Clone, Debug)]
enum Step {
    /// Writes these packets, then commits or not.
    Write(Vec<Sent>, bool),
    /// Reads up to this number of packets, then commits or not.
    Read(usize, bool),
    /// Masks signals and drains again later, or unmasks.
    Mask,
    Unmask,
}

fn sent() -> impl Strategy<Value = Sent> {
    let kind = prop_oneof![
        Just(PacketKind::InBand),
        Just(PacketKind::Completion),
        Just(PacketKind::GpaDirect)
    ];
    let bytes = |most| proptest::collection::vec(any::<u8>(), 0..most);
    let pieces = prop_oneof![
        8 => proptest::collection::vec(bytes(60), 0..4),
        1 => proptest::collection::vec(bytes(5000), 0..3),
    ];
    (kind, any::<u64>(), any::<bool>(), bytes(40), pieces).prop_map(
        |(kind, id, completion, header, pieces)| Sent { kind, id, completion, header, pieces },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (proptest::collection::vec(sent(), 1..8), prop::bool::weighted(0.9))
            .prop_map(|(sent, commit)| Step::Write(sent, commit)),
        4 => (0_usize..12, prop::bool::weighted(0.9))
            .prop_map(|(count, commit)| Step::Read(count, commit)),
        1 => Just(Step::Mask),
        2 => Just(Step::Unmask),
    ]
}

impl Sent {
    fn length(&self) -> usize {
        let payload: usize = self.pieces.iter().map(Vec::len).sum();
        (16 + self.header.len()).next_multiple_of(8) + payload.next_multiple_of(8)
    }

    fn seen(&self) -> Seen {
        let payload = padded(&self.pieces.concat());
        Seen {
            kind: self.kind,
            transaction_id: self.id,
            completion_requested: self.completion,
            payload,
        }
    }
}

/// The ring as a queue: the packets that were committed and not read, and whether the reader must
/// be signalled.
#[derive(Default)]
struct Model {
    queue: VecDeque<(Seen, usize)>,
    used: usize,
    masked: bool,
}

fn run(mut ring: TestRing, steps: &[Step]) -> Result<(), TestCaseError> {
    let size = ring.data_size() as usize;
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Write(packets, commit) => write(&mut ring, &mut model, packets, *commit, size)?,
            Step::Read(count, commit) => read(&mut ring, &mut model, *count, *commit)?,
            Step::Mask => {
                ring.incoming.mask();
                model.masked = true;
            }
            Step::Unmask => {
                model.masked = false;
                prop_assert_eq!(ring.incoming.unmask(), Ok(!model.queue.is_empty()));
            }
        }
        prop_assert_eq!(ring.incoming.used().map(|used| used as usize), Ok(model.used));
        prop_assert_eq!(ring.outgoing.free().map(|free| free as usize), Ok(size - model.used));
    }
    Ok(())
}

fn write(
    ring: &mut TestRing,
    model: &mut Model,
    packets: &[Sent],
    commit: bool,
    size: usize,
) -> Result<(), TestCaseError> {
    let mut batch = ring.outgoing.batch().unwrap();
    let mut added = Vec::new();
    let mut used = model.used;
    for sent in packets {
        let pieces: Vec<&[u8]> = sent.pieces.iter().map(Vec::as_slice).collect();
        let packet = OutPacket {
            kind: sent.kind,
            transaction_id: sent.id,
            completion_requested: sent.completion,
            header: &sent.header,
            payload: &pieces,
        };
        let total = sent.length() + 8;
        let expected = if total > size - 8 {
            Err(WriteError::TooBig { length: total as u32 - 8, limit: size as u32 - 16 })
        } else if size - used > total {
            used += total;
            added.push((sent.seen(), total));
            Ok(())
        } else {
            Err(WriteError::Full { needed: total as u32 })
        };
        prop_assert_eq!(batch.write(&packet), expected);
    }
    if commit {
        let signal = !added.is_empty() && model.queue.is_empty() && !model.masked;
        prop_assert_eq!(batch.commit(), signal);
        model.queue.extend(added);
        model.used = used;
    }
    Ok(())
}

fn read(
    ring: &mut TestRing,
    model: &mut Model,
    count: usize,
    commit: bool,
) -> Result<(), TestCaseError> {
    let mut batch = ring.incoming.batch().unwrap();
    let mut taken = 0;
    for expected in model.queue.iter().take(count) {
        let packet = take(&mut batch).unwrap();
        prop_assert_eq!(packet.as_ref(), Some(&expected.0));
        taken += 1;
    }
    if taken < count {
        prop_assert_eq!(take(&mut batch), Ok(None));
    }
    if commit {
        prop_assert!(!batch.commit(), "nobody waits for space");
        for (_, total) in model.queue.drain(..taken) {
            model.used -= total;
        }
    }
    Ok(())
}

/// Returns control page and data pages in any order, neighbours or not.
fn pages() -> impl Strategy<Value = Vec<u64>> {
    (1_usize..5).prop_flat_map(|data| {
        prop_oneof![
            Just((0..=data as u64).collect::<Vec<_>>()),
            Just((0..12_u64).collect::<Vec<_>>())
                .prop_shuffle()
                .prop_map(move |pages| pages[..=data].to_vec()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Both modes show the same packets, indices and signals, because both must match the model.
    #[test]
    fn test_ring_random_traffic_matches_the_model(
        pages in pages(),
        start in 0_u32..512,
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        for mode in [Mode::Mirrored, Mode::Paged] {
            let mut ring = ring_of(pages.clone(), mode);
            prop_assert_eq!(ring.incoming.memory().mode(), mode);
            ring.advance_to(start * 8 % ring.data_size());
            run(ring, &steps)?;
        }
    }
}
