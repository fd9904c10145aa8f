//! MDL chains of any shape, described by the client and mapped by the host, against a byte-by-byte
//! model.

mod common;

use std::collections::HashMap;

use common::{CLASS, client, offer};
use proptest::prelude::*;
use vmbus_client::{GpadlError, GpadlFlags, Mdl};
use vmbus_host::ReadWrite;
use vmbus_loopback::{Config, LoopbackVm, Mode};

/// Returns a VM with several regions and holes; some regions touch in guest addresses.
fn vm(regions: u64) -> LoopbackVm {
    let regions = (0..regions)
        .map(|index| (index * 0x40_0000, 0x10_0000 * if index % 3 == 1 { 4 } else { 1 }));
    LoopbackVm::with_config(Config::new(Mode::Stepped).regions(regions)).unwrap()
}

#[derive(Clone, Debug)]
struct Piece {
    offset: u32,
    count: u32,
    pages: Vec<u64>,
}

fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    let piece = (0..4096_u32, prop_oneof![Just(0_u32), 1..200_u32, 1..300_000_u32]).prop_flat_map(
        |(offset, count)| {
            let len = if count == 0 { 0 } else { (offset + count).div_ceil(4096) as usize };
            // Scattered, contiguous or repeated pages; some in a hole or beyond the address space.
            let first = 1..250_u64;
            let any = prop_oneof![20 => 1..200_u64, 1 => Just(0x3FF), 1 => Just(u64::MAX)];
            let pages = prop_oneof![
                8 => proptest::collection::vec(1..200_u64, len),
                4 => first.prop_map(move |first| (first..first + len as u64).collect()),
                2 => (1..200_u64).prop_map(move |page| vec![page; len]),
                1 => proptest::collection::vec(any, len),
            ];
            pages.prop_map(move |pages| Piece { offset, count, pages })
        },
    );
    proptest::collection::vec(piece, 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn test_gpadl_of_any_chain_offset_and_length_equals_the_bytewise_model(
        pieces in pieces(),
        regions in prop_oneof![Just(1_u64), Just(2), Just(16)],
        cut in (0..1000_u64, 0..1000_u64),
    ) {
        let vm = vm(regions);
        let (_, opened) = vm.offer_manual(offer(0)).unwrap();
        let mut client = client(&vm);
        let id = client.open(CLASS, None, None).unwrap();
        let host = opened.take().unwrap();

        let mut mdls = pieces
            .iter()
            .map(|piece| Mdl::new(piece.count, piece.offset, piece.pages.clone()).unwrap());
        let head = mdls.next().unwrap();
        let mdl = mdls.fold(head, Mdl::chain);
        let total = mdl.total_bytes();
        let offset = total * cut.0 / 999;
        let length = (total - offset) * cut.1 / 999;

        // The model: the guest address of every byte.
        let addresses: Vec<u64> = pieces
            .iter()
            .flat_map(|piece| (0..piece.count).map(|at| {
                let at = piece.offset + at;
                let page = piece.pages[at as usize / 4096];
                page.wrapping_mul(4096).wrapping_add(u64::from(at) % 4096)
            }))
            .collect();
        let end = if length == 0 { total } else { offset + length };
        let named = &addresses[offset as usize..end as usize];
        let in_ram = |address: &u64| (0..regions).any(|index| {
            let pages = if index % 3 == 1 { 0x400 } else { 0x100 };
            (index * 0x400..index * 0x400 + pages).contains(&(address / 4096))
        });

        let mut channel = client.channel(id);
        match channel.create_gpadl_from_mdl(GpadlFlags::empty(), &mdl, offset, length) {
            Err(GpadlError::Empty) => prop_assert!(named.is_empty()),
            Err(GpadlError::Host(_)) => prop_assert!(!named.iter().all(in_ram)),
            Err(other) => prop_assert!(false, "{other}"),
            Ok(handle) => {
                prop_assert!(named.iter().all(in_ram));
                let view = host.map_gpadl(handle.id(), ReadWrite).unwrap();
                prop_assert_eq!(view.len(), named.len());
                // Bytes are written through the view, in order; a repeated page keeps the last
                // byte.
                let bytes: Vec<u8> = (0..named.len()).map(|at| (at * 31 / 7) as u8).collect();
                view.write(0, &bytes).unwrap();
                let model: HashMap<u64, u8> = named.iter().copied().zip(bytes).collect();
                let mut seen = vec![0; named.len()];
                view.read(0, &mut seen).unwrap();
                for (address, seen) in named.iter().zip(&seen) {
                    prop_assert_eq!(model[address], *seen);
                }
                drop(view);
                client.channel(id).delete_gpadl(handle).unwrap();
            }
        }
        prop_assert_eq!(vm.inspect().gpadls.len(), 1, "the rings");
    }
}
