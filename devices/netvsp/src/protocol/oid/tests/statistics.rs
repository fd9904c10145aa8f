//! Counters (netvsc section 7.7).

use super::super::*;
use super::*;

/// Each total has a value of its own.
fn statistics() -> Statistics {
    let count = |seed: u64| Count { frames: seed, bytes: (seed << 32) + 1 };
    let traffic = |seed: u64| Traffic {
        directed: count(seed),
        multicast: count(seed + 1),
        broadcast: count(seed + 2),
    };
    Statistics {
        sent: traffic(10),
        received: traffic(20),
        send_errors: 31,
        send_discards: 32,
        receive_errors: 33,
        receive_no_buffer: 34,
    }
}

fn answer(code: u32, ndis_version: NdisVersion) -> Result<Vec<u8>, RndisStatus> {
    let connection = Connection { ndis_version, ..CONNECTION };
    query(code, &properties(), &settings(), &connection, LINK, &statistics())
        .map(|answer| answer.bytes().to_vec())
}

/// Checklist 29.
#[test]
fn test_query_of_each_counter_has_8_bytes_or_4_before_ndis_6() {
    let bytes = |seed: u64| (seed << 32) + 1;
    let counters = [
        (0x0002_0101, 33),
        (0x0002_0102, 63),
        (0x0002_0103, 31),
        (0x0002_0104, 33),
        (0x0002_0105, 34),
        (0x0002_0201, bytes(10)),
        (0x0002_0202, 10),
        (0x0002_0203, bytes(11)),
        (0x0002_0204, 11),
        (0x0002_0205, bytes(12)),
        (0x0002_0206, 12),
        (0x0002_0207, bytes(20)),
        (0x0002_0208, 20),
        (0x0002_0209, bytes(21)),
        (0x0002_020A, 21),
        (0x0002_020B, bytes(22)),
        (0x0002_020C, 22),
        (0x0002_0219, (63 << 32) + 3),
        (0x0002_021A, (33 << 32) + 3),
        (0x0002_021B, 34),
        (0x0002_021C, 32),
    ];
    for (code, number) in counters {
        for version in [NdisVersion::V6_0, NdisVersion::V6_30] {
            assert_eq!(answer(code, version).unwrap(), u64::to_le_bytes(number), "{code:#x}");
        }
        let lower = u32::to_le_bytes(number as u32);
        assert_eq!(answer(code, NdisVersion::V5_0).unwrap(), lower, "{code:#x}");
    }
}

#[test]
fn test_query_of_all_statistics_has_the_layout_of_ndis() {
    let answer = answer(0x0002_0106, NdisVersion::V6_30).unwrap();
    assert_eq!((answer.len(), &answer[..4]), (152, &[0x80, 1, 152, 0][..]));
    assert_eq!(word_at(&answer, 4), 0x003F_87FF);
    let numbers: Vec<_> =
        answer[8..].chunks(8).map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap())).collect();
    let bytes = |seed: u64| (seed << 32) + 1;
    let received = [34, 33, (63 << 32) + 3, 20, 21, 22];
    let sent = [(33 << 32) + 3, 10, 11, 12, 31, 32];
    assert_eq!(numbers, [&received[..], &sent, &[20, 21, 22, 10, 11, 12].map(bytes)].concat());
}

#[test]
fn test_traffic_counted_by_destination_sums_up_and_wraps() {
    let mut statistics = Statistics::default();
    statistics.sent.count(ADDRESS, 60);
    statistics.sent.count(MacAddress::BROADCAST, 1514);
    statistics.sent.count(MacAddress([0x33, 0x33, 0, 0, 0, 1]), 90);
    statistics.sent.count(ADDRESS, 61);
    let sent = statistics.sent;
    assert_eq!(sent.directed, Count { frames: 2, bytes: 121 });
    assert_eq!(sent.multicast, Count { frames: 1, bytes: 90 });
    assert_eq!(sent.broadcast, Count { frames: 1, bytes: 1514 });
    assert_eq!(sent.total(), Count { frames: 4, bytes: 1725 });
    let other = Statistics { receive_errors: u64::MAX, send_errors: 5, ..statistics };
    let mut sum = Statistics { receive_errors: 2, ..statistics };
    sum.add(&other);
    assert_eq!((sum.receive_errors, sum.send_errors), (1, 5));
    assert_eq!(sum.sent.total(), Count { frames: 8, bytes: 3450 });
}
