//! Creates `seeds/`: a few inputs for each target that reach deep code immediately, from which the
//! fuzzer starts. Run it with `cargo run --manifest-path fuzz/Cargo.toml --example seeds`. The
//! `run` function of each target documents its layout.

use std::fs;
use std::path::Path;

/// Bytes of one input.
#[derive(Default)]
struct Seed(Vec<u8>);

impl Seed {
    fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    fn u16(mut self, value: u16) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Appends `part` with its length before it.
    fn counted(self, part: Seed) -> Self {
        self.u16(part.0.len() as u16).bytes(&part.0)
    }
}

fn seed() -> Seed {
    Seed::default()
}

fn main() {
    let seeds: [(&str, Vec<(&str, Seed)>); 14] = [
        ("host_messages", host_messages()),
        ("gpadl_assembly", gpadl_assembly()),
        ("ring_reading", ring_reading()),
        ("gpa_direct", gpa_direct()),
        ("image_files", image_files()),
        ("network_protocol", network_protocol()),
        ("msvm_firmware", msvm_firmware()),
        ("display_protocols", display_protocols()),
        ("rfb", rfb()),
        ("web", web()),
        ("dynamic_memory", dynamic_memory()),
        ("firmware_platform", firmware_platform()),
        ("socket_streams", socket_streams()),
        ("service_protocols", service_protocols()),
    ];
    for (target, seeds) in seeds {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
        fs::create_dir_all(&folder).expect("making the folder");
        for (name, seed) in seeds {
            fs::write(folder.join(name), seed.0).expect("writing a seed");
        }
    }
}

/// Returns the contact with version number `version` of `Version::ALL`, and the offers. Devices
/// have relids 2 to 5.
fn connected(version: u8) -> Seed {
    seed().bytes(&[1, version, 0]).u8(2)
}

/// Adds a ring GPADL of 8 pages, an open, and the device's answer.
fn opened(seed: Seed, relid: u8, id: u8, accept: bool) -> Seed {
    let seed = seed.bytes(&[4, relid, id]).u16(8).bytes(&[10, relid, id, 4, 0, relid]);
    seed.bytes(&[if accept { 21 } else { 20 }, 0])
}

/// Adds a close, the end of the device's channel, its delivery to the bus, and a teardown.
fn closed(seed: Seed, relid: u8, id: u8) -> Seed {
    seed.bytes(&[12, relid, 24, 0, 31, 7, 13, relid, id])
}

/// Adds a header for `pages` pages, and bodies of 27 and 28 words up to the end of the list.
fn long_list(mut seed: Seed, relid: u8, id: u8, pages: u16) -> Seed {
    seed = seed.bytes(&[6, relid, id]).u16(0).u16(pages - 1);
    let mut left = pages.saturating_sub(26);
    while left > 0 {
        let now = left.min(28);
        seed = seed.bytes(&[8, id, now as u8]);
        for page in 0..now {
            seed = seed.u16(page * 3);
        }
        left -= now;
    }
    seed
}

fn host_messages() -> Vec<(&'static str, Seed)> {
    let newest = 9;
    let session = |version| closed(opened(connected(version), 2, 1, true), 2, 1).bytes(&[15, 2, 3]);
    let raw_contact = [14, 0, 0, 0, 0, 0, 0, 0, 3, 0, 5, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0];
    let raw = seed()
        .bytes(&[0, 4, 40])
        .bytes(&raw_contact)
        .bytes(&[0; 16])
        .bytes(&[0, 4, 8, 3, 0, 0, 0, 0, 0, 0, 0]);
    vec![
        ("session_newest", session(newest)),
        ("session_oldest", session(0)),
        ("session_middle", session(5)),
        ("session_raw", raw.bytes(&[0, 4, 8, 16, 0, 0, 0, 0, 0, 0, 0])),
        ("open_refused", opened(connected(newest), 3, 7, false)),
        (
            "gpadl_27_pages",
            long_list(connected(newest), 2, 9, 27).bytes(&[27, 2, 9, 13, 2, 9, 29, 0, 31, 1]),
        ),
        ("gpadl_300_pages", long_list(connected(newest), 3, 9, 300).bytes(&[13, 3, 9])),
        ("gpadl_any_words", {
            let words = [16, 1, 0, 0, 0, 0x10, 3, 80, 5, 0, 80, 0xFF, 0x7F];
            connected(newest).bytes(&[7, 2, 4, 1, 0, 2, 40, 0, 5]).bytes(&words)
        }),
        (
            "teardown_while_open",
            opened(connected(newest), 2, 1, true).bytes(&[13, 2, 1, 12, 2, 24, 0, 31, 7]),
        ),
        ("view_outlives_close", {
            let seed = opened(connected(newest), 2, 1, true).bytes(&[5, 2, 2, 8, 0, 27, 2, 2]);
            closed(seed, 2, 1).bytes(&[13, 2, 2, 35, 0, 29, 0, 31, 7])
        }),
        (
            "rescind_and_offer",
            opened(connected(newest), 2, 1, true).bytes(&[35, 0, 24, 0, 31, 7, 15, 2, 34, 9]),
        ),
        (
            "subchannels",
            opened(connected(newest), 2, 1, true)
                .bytes(&[36, 0, 3, 0])
                .bytes(&[12, 2, 24, 0, 31, 7]),
        ),
        (
            "unload_with_open_channel",
            opened(connected(newest), 2, 1, true).bytes(&[3, 24, 0, 31, 7, 1, newest, 0, 2]),
        ),
        (
            "contact_over_contact",
            opened(connected(newest), 2, 1, true).bytes(&[1, 4, 1, 24, 0, 31, 7, 2, 38]),
        ),
        (
            "reset_with_views",
            opened(connected(newest), 2, 1, true)
                .bytes(&[5, 2, 2, 8, 0, 27, 2, 2, 37, 24, 0, 29, 0]),
        ),
        ("fault", opened(connected(newest), 2, 1, true).bytes(&[26, 0, 31, 7, 12, 2, 13, 2, 1])),
        (
            "reserved_and_modify",
            connected(newest).bytes(&[17, 9, 0, 2, 18, 9, 0, 2, 16, 2, 1, 19, 38, 39]),
        ),
    ]
}

/// Adds a range of `pages` pages from page `first` on, with `style` as in `page_list::words`.
fn range(seed: Seed, style: u8, pages: u16, first: u16, offset: u16, trim: u16) -> Seed {
    seed.u8(style << 2).u16(pages).u16(first).u16(offset).u16(trim)
}

/// Adds parts to check: offset, length, and the number of powers of two.
fn parts(mut seed: Seed, parts: &[(u16, u16, u8)]) -> Seed {
    for (offset, len, shift) in parts {
        seed = seed.u8(shift << 1).u16(*offset).u16(*len);
    }
    seed
}

fn gpadl_assembly() -> Vec<(&'static str, Seed)> {
    let list = |flags: u8, ranges: u16, words: Seed, declared: Seed, cuts: &[u8]| {
        seed()
            .u8(flags)
            .u16(ranges)
            .counted(words)
            .bytes(&declared.0)
            .u8(cuts.len() as u8)
            .bytes(cuts)
    };
    let some = [(0, 100, 0), (4000, 300, 0), (5000, 9000, 0), (1, 5000, 3)];
    let one = |style, pages, first, offset, trim| range(seed(), style, pages, first, offset, trim);
    let two = range(one(0, 3, 5, 0x200, 100), 0, 4, 63, 0xFFF, 7);
    vec![
        ("pages_27", parts(list(0, 1, one(0, 27, 3, 0, 0), seed(), &[27]), &some)),
        ("pages_scattered", parts(list(0, 1, one(6, 61, 0, 0x10, 3), seed(), &[26, 28]), &some)),
        ("pages_8190", parts(list(0, 1, one(56 + 3, 8190, 0, 0, 0), seed(), &[26, 28, 28]), &some)),
        ("pages_twice", parts(list(4, 1, one(5, 9, 70, 1, 1), seed(), &[1, 1, 1]), &some)),
        ("pages_falling", parts(list(0, 1, one(4, 40, 100, 0, 0), seed(), &[9, 0, 9]), &some)),
        ("ranges_2", parts(list(4, 2, two, seed(), &[0x44, 2, 0x83]), &some)),
        ("ranges_many", {
            let words =
                (0..40).fold(seed(), |words, n| range(words, 7, 1 + n % 4, n * 5, n * 100, n));
            parts(list(0, 40, words, seed(), &[7; 20]), &some)
        }),
        ("edges_of_regions", {
            let words = seed().u8(3).u32(16 * 4096).u16(0).u8(2 | 8 << 2);
            let words =
                (0..8).fold(words, |words, n| words.u16(0xF000 + [0, 3, 4, 5, 6, 9, 0, 4][n]));
            let words = (0..8).fold(words.u8(2 | 8 << 2), |words, n| words.u16(60 + n));
            parts(list(0, 1, words, seed(), &[]), &some)
        }),
        ("declared_more", list(2, 1, one(0, 27, 3, 0, 0), seed().u16(400), &[27])),
        ("declared_less", list(2, 1, one(0, 27, 3, 0, 0), seed().u16(80), &[3])),
        (
            "declared_most",
            list(3, 1, seed().u8(1).u64(u64::from(u32::MAX)), seed().u32(600_000), &[]),
        ),
        ("outside_ram", list(0, 1, seed().u8(3).u32(4096).u16(0).u8(1).u64(64), seed(), &[])),
        ("words_behind", list(0, 1, one(0, 2, 3, 0, 0).u8(1).u64(u64::MAX), seed(), &[3])),
    ]
}

/// Adds the descriptor of an in-band packet, its payload of `words` words, and its trailer.
fn in_band(seed: Seed, kind: u64, words: u64) -> Seed {
    let seed = seed.u64(kind | 2 << 16 | (2 + words) << 32 | 1 << 48).u64(words);
    (0..words).fold(seed, Seed::u64).u64(0)
}

fn ring_reading() -> Vec<(&'static str, Seed)> {
    let ring = |shape: u8, read: u16, image: Seed| {
        let write = read + image.0.len() as u16 / 8;
        seed().u8(shape).u8(1).u16(read).u16(write).counted(image)
    };
    let three = || in_band(in_band(in_band(seed(), 6, 5), 11, 0), 6, 20);
    let ranges = in_band(seed(), 9, 0).u64(0);
    // A GPA-direct packet of one range of one page.
    let direct =
        seed().u64(9 | 5 << 16 | 6 << 32).u64(1).u64(1 << 32).u64(4096).u64(7).u64(3).u64(0);
    vec![
        ("read_three", ring(0, 0, three()).bytes(&[0, 9, 4, 10, 11])),
        ("read_wrapping", ring(0, 500, three()).bytes(&[0, 9, 4, 10])),
        ("read_wrapping_scattered", ring(2, 1530, three()).bytes(&[0, 9, 4, 10])),
        ("read_and_drop", ring(1, 2040, three()).bytes(&[0, 2, 1, 0, 1, 0, 0, 9, 0])),
        ("read_rewritten", ring(1, 0, three()).bytes(&[0, 9, 2, 0]).u64(u64::MAX).u8(1).u64(6)),
        ("read_gpa_direct", ring(2, 508, direct).bytes(&[0, 9, 4])),
        ("read_broken", ring(0, 3, ranges).bytes(&[0, 9, 4, 10, 11])),
        (
            "write_and_read",
            ring(0, 100, seed()).bytes(&[2, 6, 0, 40, 0, 3, 9, 9, 0, 0, 0, 1, 0, 9, 0, 10]),
        ),
        ("write_wrapping", ring(0, 505, seed()).bytes(&[2, 0, 5]).u16(300).bytes(&[7, 1, 0, 9, 0])),
        ("write_until_full", {
            let seed = ring(0, 8, seed())
                .bytes(&[2, 6, 0])
                .u16(3000)
                .bytes(&[0, 0, 0])
                .u16(1000)
                .bytes(&[0, 0]);
            seed.bytes(&[0]).u16(900).bytes(&[0, 0, 12, 0]).u16(1024).bytes(&[0, 9, 0, 13, 14])
        }),
        (
            "write_too_big",
            ring(0, 0, seed()).bytes(&[15]).u16(64).bytes(&[2, 0, 0]).u16(500).bytes(&[0, 0]),
        ),
        (
            "indices_broken",
            ring(1, 0, three())
                .bytes(&[8, 0])
                .u32(4097)
                .bytes(&[0, 9, 0, 8, 1])
                .u32(1)
                .bytes(&[14]),
        ),
        ("descriptor_made", ring(1, 7, three()).bytes(&[5, 0, 0, 2]).u16(9).bytes(&[0, 3, 4])),
    ]
}

fn gpa_direct() -> Vec<(&'static str, Seed)> {
    let made = |flags: u8, place: u16, count: u8, words: Seed| {
        seed().u8(flags).u16(place).u8(count).u16(0).u8(6).counted(words)
    };
    let some = [(0, 100, 0), (4000, 300, 0)];
    let one = |style, pages, first, offset, trim| range(seed(), style, pages, first, offset, trim);
    let descriptor = 9_u64 | 5 << 16 | 6 << 32 | 1 << 48;
    let raw = seed().u64(descriptor).u64(1).u64(1 << 32).u64(4096).u64(7).u64(3);
    vec![
        ("ranges_1", parts(made(0, 0, 1, one(0, 1, 3, 0, 0)), &some)),
        (
            "ranges_2",
            parts(made(0, 7600, 2, range(one(0, 3, 5, 0x200, 100), 0, 4, 63, 0xFFF, 7)), &some),
        ),
        ("pages_64", parts(made(0, 7, 1, one(32 + 6, 64, 0, 0x10, 3)), &some)),
        ("pages_65_wrapping", parts(made(0, 7670, 1, one(32 + 4, 65, 80, 0, 0)), &some)),
        ("pages_7000", parts(made(0, 100, 1, one(56 + 5, 7000, 80, 0, 0)), &some)),
        ("bytes_too_many", made(0, 100, 2, range(one(56, 300, 80, 0, 0), 56, 8000, 0, 0, 0))),
        ("ranges_32", {
            let words = (0..32).fold(seed(), |words, n| range(words, 0, 1, n, 8 * n, 40));
            parts(made(0, 3000, 32, words), &some)
        }),
        ("count_0", made(0, 0, 0, one(0, 1, 3, 0, 0))),
        ("transfer_pages", made(4, 7678, 2, seed().u8(1).u64(9).u8(1).u64(1 << 40))),
        ("transfer_pages_short", made(4, 7678, 3, seed().u8(1).u64(9).u8(1).u64(1 << 40))),
        ("raw", seed().u8(1).u16(3).counted(raw)),
        ("rewritten", made(2, 3, 1, one(0, 5, 3, 0, 0)).u16(5).u64(63)),
    ]
}

/// Returns sound image number `base` with `flags`, and no changes.
fn image(base: u8, flags: u8) -> Seed {
    seed().bytes(&[base, flags, 0, 0])
}

/// Adds writes, clears, flushes, resizes and reopens. Each step is an operation, a location, a
/// number of pages and a byte.
fn all_steps(seed: Seed) -> Seed {
    let at = |seed: Seed, operation: u8, place: u16, count: u8, byte: u8| {
        seed.u8(operation).u16(place).u8(count).u8(byte)
    };
    let seed = at(at(seed, 0, 3, 4, 0xAA), 0x81, 0x8000, 140, 0xBB);
    let seed = at(at(seed, 3, 3, 2, 0), 0x84 + 9, 0xC000, 1, 0);
    let seed = at(seed.u8(5).u8(6).u16(64).u8(7), 0, 0xC000, 0, 0xCC);
    at(at(seed, 2, 0, 149, 0), 4, 0, 40, 0).u8(7).u8(8).u8(6).u16(3).u8(5)
}

fn image_files() -> Vec<(&'static str, Seed)> {
    let [dynamic, fixed, sectors, child, vhd, dynamic_vhd, large, small, qcow2_child] =
        [0, 1, 2, 3, 4, 5, 6, 7, 8];
    // One change: the structure, the location in it, the kind of number, shift, value.
    let one = |base: u8, class: u8, at: u16, kind: u8, value: u64| {
        seed().bytes(&[base, 0, 1, 0, class]).u16(at).u8(kind).u8(0).u64(value)
    };
    // A log of one entry that changes one number in structure `class`.
    let log = |class: u8, at: u16, kind: u8, value: u64| {
        let entry = seed().bytes(&[dynamic, 0, 0, 1, 4, 0, 0, 0, class]).u16(at).u8(kind).u8(0);
        all_steps(entry.u64(value))
    };
    vec![
        ("vhdx", all_steps(image(dynamic, 0))),
        ("vhdx_fixed", all_steps(image(fixed, 0))),
        ("vhdx_4k", all_steps(image(sectors, 0))),
        ("vhdx_child", all_steps(image(child, 0))),
        ("vhdx_child_alone", image(child, 2)),
        ("vhdx_read_only", all_steps(image(dynamic, 1))),
        ("vhdx_block_elsewhere", all_steps(one(dynamic, 6, 8, 3, 5 << 20 | 6))),
        ("vhdx_huge_disk", all_steps(one(dynamic, 5, 64, 3, 1 << 40))),
        ("vhdx_large_blocks", all_steps(one(dynamic, 5, 0, 2, 256 << 20))),
        ("vhdx_log", log(6, 8, 3, 7 << 20 | 6)),
        ("vhdx_log_on_metadata", log(5, 64, 3, 1 << 22)),
        ("vhdx_log_on_header", log(0, 8, 3, 99)),
        ("vhd", all_steps(image(vhd, 0))),
        ("vhd_dynamic", all_steps(image(dynamic_vhd, 0))),
        ("vhd_dynamic_huge", all_steps(one(dynamic_vhd, 0, 48, 3, 1 << 41))),
        ("qcow2", all_steps(image(large, 0))),
        ("qcow2_small_clusters", all_steps(image(small, 0))),
        ("qcow2_child", image(qcow2_child, 0)),
        ("qcow2_read_only", all_steps(image(large, 1))),
        ("qcow2_huge_disk", all_steps(one(small, 0, 24, 3, 1 << 62))),
        ("qcow2_compressed", all_steps(one(large, 2, 0, 3, 1 << 62 | 0x50000))),
        ("qcow2_table_on_itself", all_steps(one(small, 2, 0, 3, 1 << 63))),
        ("cut_off", all_steps(seed().bytes(&[dynamic, 0, 1, 0, 255]).u32(3 << 20))),
    ]
}

/// An NVSP message of 40 bytes that requests a completion.
fn nvsp(seed: Seed, words: &[u32]) -> Seed {
    let mut words = words.to_vec();
    words.resize(10, 0);
    words.iter().fold(seed.bytes(&[0, 80]), |seed, word| seed.u32(*word))
}

/// A card with all options after INIT of `version`, NDIS_CONFIG, NDIS 6.30, and both buffers.
fn card(version: u32) -> Seed {
    let seed = nvsp(nvsp(seed().u8(0xFF), &[1, version, version]), &[125, 1514, 0, 0xFF, 0]);
    let seed = nvsp(nvsp(seed, &[100, 6, 30]), &[101, 9, 0xCAFE]);
    let seed = seed.bytes(&[1, 0]).u32(1 << 20);
    nvsp(seed, &[104, 10, 0]).bytes(&[1, 0x80]).u32(1 << 20)
}

/// A control message with its length, on a link that is up.
fn rndis_control(seed: Seed, kind: u32, body: &[u32], data: &[u8]) -> Seed {
    let length = 8 + 4 * body.len() + data.len();
    let seed = seed.u8(3).u16(length as u16).u32(kind).u32(length as u32);
    let seed = body.iter().fold(seed, |seed, word| seed.u32(*word));
    seed.bytes(data).bytes(&[0, 37, 0])
}

fn set_oid(seed: Seed, oid: u32, data: &[u8]) -> Seed {
    rndis_control(seed, 5, &[7, oid, data.len() as u32, 20, 0], data)
}

fn network_protocol() -> Vec<(&'static str, Seed)> {
    let newest = 0x6_0001;
    let ready = || rndis_control(card(newest), 2, &[1, 1, 0, 0x4000], &[]);
    let words =
        |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let query = |seed, oid: u32| rndis_control(seed, 4, &[7, oid, 0, 20, 0], &[]);
    let rss = {
        let header = [0x28_0289, 0, 0x1701, 16, 40, 40, 56, 0, 0, 0];
        [words(&header), words(&[0, 1, 2, 3]), vec![0x5A; 40]].concat()
    };
    let with_rss = || set_oid(nvsp(ready(), &[133, 1, 3]), 0x0001_0204, &rss);
    let offloads = [&[0x80, 3, 28, 0, 4, 4, 2, 3, 1, 0, 0, 2, 1][..], &[0; 15]].concat();
    let address = {
        let text = "NetworkAddress02abcd012345".encode_utf16().flat_map(u16::to_le_bytes);
        words(&[20, 28, 2, 48, 24]).into_iter().chain(text).collect::<Vec<_>>()
    };
    let tcp4 = [
        &[1, 0, 0x5E, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0]
            [..],
        &[10, 0, 0, 1, 10, 0, 0, 2, 0, 80, 1, 187],
    ]
    .concat();
    let checksum_item = |seed: Seed| seed.u8(0).u32(0x0022_0005);
    vec![
        (
            "init_each_version",
            [0x7_0000, 2].iter().fold(seed().u8(0), |s, v| nvsp(s, &[1, *v, *v])),
        ),
        ("ready", ready()),
        ("oldest", nvsp(nvsp(seed().u8(0), &[1, 2, 2]), &[101, 9, 1]).bytes(&[1, 0]).u32(1 << 16)),
        ("rndis_with_section", nvsp(nvsp(card(newest), &[107, 0, 3, 700]), &[107, 1, u32::MAX, 0])),
        ("revoke", nvsp(nvsp(card(newest), &[103, 0xCAFE]), &[106, 0])),
        ("obsolete", (109..136).fold(card(0x6_0000), |seed, kind| nvsp(seed, &[kind, 1, 1]))),
        (
            "queries",
            [0x0001_0101, 0xFC01_020D, 0x0002_0216, 0x0001_0203].into_iter().fold(ready(), query),
        ),
        ("offload_parameters", set_oid(ready(), 0xFC01_020C, &offloads)),
        ("network_address", set_oid(ready(), 0x0001_021B, &address)),
        (
            "filter_and_list",
            set_oid(set_oid(ready(), 0x0001_010E, &[0xB, 0, 0, 0]), 0x0101_0103, &[1; 12]),
        ),
        ("rss_and_frame", with_rss().bytes(&[4, tcp4.len() as u8]).bytes(&tcp4)),
        ("halt", rndis_control(ready(), 3, &[9], &[])),
        ("packet_1", checksum_item(card(newest).bytes(&[2, 1, 0xC1]))),
        ("packet_offloads", {
            let seed = card(newest).bytes(&[2, 1, 0xC3, 6]).u32(0x1235).u8(2).u32(0x4220_05B4);
            checksum_item(seed)
        }),
        (
            "packets_8",
            (0..8).fold(card(newest).bytes(&[2, 0x71]), |seed, _| checksum_item(seed.u8(0x21))),
        ),
        ("packet_changed", checksum_item(card(newest).bytes(&[2, 3, 0xC1])).u8(2).u32(u32::MAX)),
        ("subchannels", {
            let granted = nvsp(ready(), &[133, 1, 3]).bytes(&[5, 0x43, 1, 5, 0xE2, 1]);
            granted.bytes(&[7, 16]).u32(107).u32(0).u32(u32::MAX).u32(0).u8(6).u64(0).u8(6).u64(2)
        }),
        (
            "sub_allocations",
            card(newest).bytes(&[5, 3, 1, 5, 9, 0, 6]).u64(0).u8(6).u64(0).u8(6).u64(1),
        ),
    ]
}

/// Writes `bytes` to guest memory at `at`.
fn in_memory(seed: Seed, at: u16, bytes: &[u8]) -> Seed {
    seed.u8(0).u16(at).u8(bytes.len() as u8).bytes(bytes)
}

/// A variable request: the name is at 0x100, the data at 0x200, the descriptor at 0x300.
fn variable(seed: Seed, command: u8, attributes: u8, name: u16, data: u16) -> Seed {
    seed.bytes(&[3, command, attributes]).u16(0x100).u16(name).u8(1).u16(0x200).u16(data).u16(0x300)
}

fn msvm_firmware() -> Vec<(&'static str, Seed)> {
    let named = || in_memory(seed(), 0x100, b"a\0b\0\0\0");
    let set = || variable(in_memory(named(), 0x200, b"value"), 1, 7, 6, 5);
    let log = |kind: &[u8]| in_memory(in_memory(seed(), 0x400, kind), 0x440, &[1; 16]);
    vec![
        ("set_get", variable(set(), 0, 0, 6, 64)),
        ("set_append", variable(set(), 1, 0x47, 6, 5)),
        ("set_delete", variable(set(), 1, 0, 6, 0)),
        ("set_authenticated", variable(named(), 1, 0x27, 6, 5)),
        // Each write as it was signed: which, no changed bytes, not cut.
        ("authenticated", (0..8).fold(seed(), |seed, number| seed.bytes(&[4, number, 0, 0]))),
        (
            "authenticated_changed",
            (0..2)
                .fold(seed(), |seed, number| seed.bytes(&[4, number, 0, 0]))
                .bytes(&[4, 2, 1])
                .u16(1700)
                .bytes(&[1, 0]),
        ),
        ("names", variable(variable(set(), 2, 0, 256, 0), 3, 0, 256, 0)),
        ("query", variable(set(), 4, 7, 0, 0)),
        ("runtime", variable(variable(set(), 5, 0, 0, 0), 0, 0, 6, 64).u8(5)),
        ("debug_string", variable(named(), 6, 0, 6, 0)),
        ("small_buffer", variable(set(), 0, 0, 6, 2)),
        ("watchdog", seed().bytes(&[1, 0x29]).u16(10).bytes(&[1, 0x27]).u16(0x13).u8(5)),
        ("event_log", log(&[0; 28]).bytes(&[1, 0x30]).u16(0x400)),
        ("diagnostics", log(b"ALOG\x05").bytes(&[1, 0x2B]).u16(0x400).bytes(&[1, 0x2C]).u16(1)),
        ("random", in_memory(seed(), 0x500, &[5]).bytes(&[1, 0x26]).u16(0x500)),
        ("generation", seed().bytes(&[1, 0x0E]).u16(0x600).bytes(&[1, 0x0F]).u16(0)),
        ("image", seed().bytes(&[6, 0x48 + 18, 4, 6, 0x48 + 20, 0])),
        ("blob", seed().bytes(&[7, 16]).u32(0).u32(16).u32(1).u32(16)),
        ("widths", seed().bytes(&[2, 0, 4]).u32(0x37).bytes(&[2, 4, 2]).u16(0)),
    ]
}

/// Appends a message to a device: 0 screen, 1 mouse, 2 keyboard.
fn to_device(seed: Seed, device: u8, kind: u8, body: Seed) -> Seed {
    seed.u8(device).u8(kind).counted(body)
}

/// Returns a screen with a mode of 800 by 600 pixels.
fn screen() -> Seed {
    let version = to_device(seed(), 0, 1, seed().u32(0x0005_0003));
    let place = to_device(version, 0, 3, seed().u64(1).u8(1).u64(0xF800_0000));
    let mode = seed().u64(2).bytes(&[1, 1]).u32(0).u8(32).u32(800).u32(600).u32(3200);
    to_device(place, 0, 5, mode)
}

/// Streams of viewers: logging in in each way, and each message.
fn rfb() -> Vec<(&'static str, Seed)> {
    let start = |ways: u8, flags: u8, piece: u8| seed().u8(ways).u8(flags).u8(piece);
    let logged_in = |piece: u8| start(0, 3, piece);
    let format = |bits: u8, depth: u8, colour: u8| {
        let head = seed().bytes(&[0, 0, 0, 0, bits, depth, 0, colour]);
        head.bytes(&[0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0]).0
    };
    let area = [0, 0, 0, 0, 4, 0, 3, 0];
    vec![
        ("none", start(0, 0, 1).bytes(b"RFB 003.008\n\x01\x01")),
        ("old", start(0, 0, 5).bytes(b"RFB 003.003\n\x01")),
        ("vnc", start(1, 0, 9).bytes(b"RFB 003.007\n\x02").bytes(&[0; 16])),
        ("tls_none", start(2, 0, 1).bytes(b"RFB 003.008\n\x13\0\x02\0\0\x01\x04\x01")),
        (
            "tls_plain",
            start(3, 0, 1)
                .bytes(b"RFB 003.008\n\x13\0\x02\0\0\x01\x06")
                .bytes(b"\0\0\0\x01\0\0\0\x01ua\x01"),
        ),
        ("refused", start(5, 0, 1).bytes(b"RFB 003.008\n")),
        ("formats", logged_in(7).bytes(&format(32, 24, 1)).bytes(&format(8, 8, 0))),
        (
            "encodings",
            logged_in(3).bytes(&[2, 0, 0, 3, 0, 0, 0, 7, 0, 0, 0, 16, 0xFF, 0xFF, 0xFF, 0x21]),
        ),
        ("requests", logged_in(1).bytes(&[3, 1]).bytes(&area).bytes(&[150, 1]).bytes(&area)),
        (
            "input",
            logged_in(2)
                .bytes(&[4, 1, 0, 0, 0, 0, 0, 0x61])
                .bytes(&[5, 0x80, 0, 1, 0, 2, 1])
                .bytes(&[255, 0, 0, 1, 0, 0, 0xFF, 0x53, 0, 0, 0, 0xCD]),
        ),
        ("text", logged_in(4).bytes(&[6, 0, 0, 0, 0, 0, 0, 5]).bytes(b"hello")),
        ("extended_text", logged_in(4).bytes(&[6, 0, 0, 0, 255, 255, 255, 252, 1, 2, 3, 4])),
        ("fence", logged_in(1).bytes(&[248, 0, 0, 0, 0x80, 0, 0, 1, 2, 8, 9])),
        (
            "size",
            logged_in(1)
                .bytes(&[251, 0, 4, 0, 3, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 4, 0, 3, 0, 0, 0, 0, 0]),
        ),
    ]
}

/// Browsers of the console: requests with and without a session, and frames of each kind.
fn web() -> Vec<(&'static str, Seed)> {
    let heads = |piece: u8, text: &[u8]| seed().u8(0).u8(piece).bytes(text);
    let frame = |head: u8, payload: &[u8]| {
        // The mask is zero, so the payload is readable.
        seed().u8(head).u8(0x80 | payload.len() as u8).u32(0).bytes(payload).0
    };
    let frames =
        |kind: u8, piece: u8, parts: &[Vec<u8>]| seed().u8(kind).u8(piece).bytes(&parts.concat());
    let action = |text: &str| frame(0x81, text.as_bytes());
    vec![
        ("enter", heads(7, b"GET /enter/\x03 HTTP/1.1\r\nHost: localhost:8006\r\n\r\n")),
        (
            "page",
            heads(
                1,
                b"GET /s/\x01/ HTTP/1.1\r\nHost: [::1]:1\r\nCookie: a=b; synthvm=\x02\r\n\r\n",
            ),
        ),
        ("no_session", heads(255, b"GET /s/\x01/console.js HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")),
        (
            "websocket",
            heads(
                9,
                b"GET /s/\x01/screen HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\
                Origin: http://127.0.0.1:1\r\nCookie: synthvm=\x02\r\nUpgrade: websocket\r\n\
                Connection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            ),
        ),
        (
            "other_origin",
            heads(
                9,
                b"GET /s/\x01/control HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\
                Origin: http://127.0.0.1:2\r\nCookie: synthvm=\x02\r\nUpgrade: websocket\r\n\
                Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            ),
        ),
        (
            "refused",
            heads(
                3,
                b"POST / HTTP/1.1\r\n\r\n\0GET /../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n\0\
                GET / HTTP/1.0\r\n\r\n\0GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            ),
        ),
        ("binary", frames(1, 5, &[frame(0x82, b"RFB 003.008\n"), frame(0x88, &[3, 232])])),
        ("text_for_bytes", frames(1, 1, &[frame(0x81, b"hello")])),
        ("fragments", frames(1, 2, &[frame(0x02, b"ab"), frame(0x89, b"?"), frame(0x80, b"cd")])),
        ("too_long", seed().u8(1).u8(9).bytes(&[0x82, 0xFF]).bytes(&[0x7F; 12])),
        (
            "actions",
            frames(
                2,
                6,
                &[
                    action(r#"{"id":1,"do":"reset"}"#),
                    action(r#"{"id":2,"do":"type-text","text":"ab"}"#),
                    action(r#"{"id":3,"do":"eject-disc","drive":"0:1"}"#),
                ],
            ),
        ),
        (
            "nonsense",
            frames(2, 4, &[action("[]"), action(r#"{"id":1,"do":"x"}"#), frame(0x82, b"a")]),
        ),
    ]
}

fn display_protocols() -> Vec<(&'static str, Seed)> {
    let shape =
        |index, argb, size: u32| seed().u8(index).u8(argb).u32(size).u32(size).u32(1).u32(1);
    let dirt = |count: u8| {
        (0..count).fold(seed().bytes(&[0, count]), |seed, at| {
            let at = u32::from(at) * 7;
            seed.u32(at).u32(at / 2).u32(at + 9).u32(at + 3)
        })
    };
    let mouse = || to_device(seed(), 1, 0, seed().u32(0x0002_0000));
    vec![
        ("versions", (0..7).fold(seed(), |s, v| to_device(s, 0, 1, seed().u32(v << 16 | 3)))),
        ("resolutions", to_device(screen(), 0, 13, seed().u8(64))),
        ("mode", screen()),
        ("inactive", to_device(screen(), 0, 5, seed().u64(1).bytes(&[1, 0]).bytes(&[0; 17]))),
        ("dirt", to_device(to_device(screen(), 0, 10, dirt(3)), 0, 10, dirt(90))),
        ("pointer", to_device(screen(), 0, 7, seed().bytes(&[1, 0]).u32(5).u32(u32::MAX))),
        ("shape", to_device(screen(), 0, 8, shape(0xFF, 1, 2).bytes(&[7; 16]))),
        ("masks", to_device(screen(), 0, 8, shape(0xFF, 0, 9).bytes(&[0x5A; 36]))),
        ("parts", {
            let first = to_device(screen(), 0, 8, shape(0, 1, 4).bytes(&[7; 40]));
            to_device(first, 0, 8, shape(0xFF, 1, 4).bytes(&[7; 24]))
        }),
        ("queries", to_device(to_device(screen(), 0, 11, seed()), 0, 15, seed())),
        ("nowhere", to_device(screen(), 0, 3, seed().u64(1).u8(0).u64(0))),
        ("mouse", to_device(mouse(), 1, 3, seed().u8(0))),
        ("keyboard", {
            let version = to_device(seed(), 2, 1, seed().u32(0x0001_0000));
            to_device(version, 2, 4, seed().u32(7))
        }),
        ("any", to_device(screen(), 3, 0, seed().bytes(&[0x5A; 40]))),
    ]
}

/// Adds a user's size, a report, and a balloon response of one range.
fn give(seed: Seed, first: u16, pages: u16) -> Seed {
    let seed = seed.u8(6).u16(900).u8(1).u16(5000).u16(9);
    seed.u8(2).bytes(&[0, 1]).u16(first).u8(0).u16(pages)
}

fn dynamic_memory() -> Vec<(&'static str, Seed)> {
    let begin = |unit| seed().u8(unit);
    let taken = |seed: Seed| seed.u8(6).u16(3000).u8(1).u16(5000).u16(5000).u8(4);
    vec![
        ("balloon", taken(give(begin(0), 1200, 700))),
        ("shared", give(begin(0), 900, 300)),
        ("hugepages", taken(give(give(begin(1), 512, 511), 1023, 513))),
        ("twice", give(give(begin(0), 1200, 700), 1300, 10)),
        ("no_ram", give(begin(0), 2000, 100)),
        ("hot_add", begin(0).u8(1).u16(0).u16(60_000).u8(5).u16(2048).u8(1)),
        ("reopen", give(begin(0), 1200, 700).u8(7).bytes(&[90, 0]).u8(0).u16(16).bytes(&[1; 16])),
    ]
}

/// Adds a transfer: block and address below 64 KiB, a file, flags, length.
fn transfer(seed: Seed, block: u16, address: u16, file: u8, flags: u8, len: u16) -> Seed {
    let seed = seed.u8(1).u16(block).u8(0).u16(address).u8(0);
    seed.bytes(&[1, file, flags, 0]).u16(len)
}

/// Adds a write of a byte to the flash.
fn flash(seed: Seed, offset: u16, value: u8) -> Seed {
    seed.bytes(&[3, 2]).u16(offset).bytes(&[0, value, 0])
}

/// Adds a dword write to the configuration of a function (0 to 3).
fn config(seed: Seed, function: u8, register: u8, value: u32) -> Seed {
    seed.bytes(&[5, 1, function, register, 0]).u32(value).bytes(&[2, 0])
}

fn firmware_platform() -> Vec<(&'static str, Seed)> {
    let program = flash(flash(flash(seed(), 100, 0x10), 100, 0x42), 100, 0xFF);
    let erase = flash(flash(flash(seed(), 5000, 0x20), 5000, 0xD0), 0, 0xFF);
    let rom = config(config(seed(), 3, 0x30, 0xC000_0001), 3, 4, 2);
    vec![
        ("dma_read", transfer(seed(), 0x100, 0x1000, 1, 8 | 2, 300)),
        ("dma_skip_read", transfer(transfer(seed(), 0, 0, 2, 8 | 4, 9), 0, 0x80, 2, 2, 40)),
        ("dma_overlap", transfer(seed(), 0x100, 0xF8, 0, 8 | 2, 64)),
        ("dma_write", transfer(seed(), 0x100, 0x1000, 0, 8 | 16, 4)),
        ("flash_program", program.u8(7)),
        ("flash_erase", erase.u8(4)),
        ("rom_decoded", rom.u8(6).u16(4998).u8(3)),
        ("ports", seed().bytes(&[0, 0, 0x19, 0, 0, 0, 1]).bytes(&[0, 1, 0, 0, 0, 0, 0]).u8(7)),
    ]
}

fn socket_streams() -> Vec<(&'static str, Seed)> {
    let sent = |seed: Seed, length| seed.u8(0).u16(length);
    let written = |seed: Seed, length| seed.u8(6).u16(length);
    let read = |seed: Seed, length| seed.u8(7).u16(length);
    let full = (0..4).fold(seed().u8(0), |seed, _| sent(seed, 4088));
    let paged = (0..4).fold(seed().u8(1), |seed, _| sent(seed, 3001));
    let flood = |mode| (0..8).fold(seed().u8(mode), |seed, _| written(seed, 60_000).u8(5));
    vec![
        ("echo", read(sent(written(seed().u8(0), 100).u8(5), 100), 200)),
        ("full", read(read(full, 5000), 60_000)),
        ("paged", read(paged, 60_000)),
        ("flood", flood(0)),
        ("flood_paged", flood(1)),
        ("end_of_guest", written(sent(seed().u8(0), 8).u8(2), 9).u8(5)),
        ("data_after_end", sent(seed().u8(0).u8(2), 8)),
        ("end_of_host", written(seed().u8(0), 9).u8(8).u8(0).u8(5)),
        ("vanished", sent(written(seed().u8(0), 9).u8(8).u8(2), 10).u8(5)),
        ("closed", sent(seed().u8(0), 4000).u8(8).u8(3)),
        ("header", seed().u8(0).u8(3).u32(1).u32(77).u16(16)),
        ("index", sent(seed().u8(0), 10).u8(4).u16(0).u64(8)),
        ("changed", (0..40).fold(seed().u8(0), |seed, _| sent(seed, 4088)).u8(4).u16(515).u64(0)),
        ("request", seed().bytes(b"CONNECT 5000\n")),
        ("request_guid", seed().bytes(b"connect 00001388-facb-11e6-bd58-64006a7986d3\r\n")),
    ]
}

/// Returns a session of service number `service` (of `ServiceKind::ALL`) that has agreed on the
/// newest versions.
fn service(service: u8, version: [u16; 2]) -> Seed {
    let body = [1, 1, 0, 0, 3, 0, version[0], version[1]];
    let body = body.into_iter().fold(seed(), Seed::u16);
    answered(seed().u8(service), 0, 0, 0, body)
}

/// Adds a response: message type, transaction (0: any number, 1: the oldest without a response, 2:
/// the outstanding one), status and body.
fn answered(seed: Seed, kind: u8, transaction: u8, status: u32, body: Seed) -> Seed {
    let seed = seed.bytes(&[1, kind, transaction]);
    let seed = if transaction == 0 { seed.u8(255) } else { seed };
    seed.u8(1).u32(status).counted(body)
}

fn service_protocols() -> Vec<(&'static str, Seed)> {
    let text = |text: &str, bytes: usize| {
        let mut field: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        field.resize(bytes, 0);
        field
    };
    let pair = seed().bytes(&[3, 2, 0, 0]).u32(0).u32(1).u32(8).u32(8);
    let pair = pair.bytes(&text("key", 512)).bytes(&text("one", 2048));
    let ip = seed().bytes(&[0; 260]).bytes(&text("10.0.0.7;fe80::1", 7168));
    let asked = |seed: Seed, length| seed.u8(0).u16(length);
    let beat = || asked(service(2, [3, 0]), 40);
    vec![
        ("shutdown", answered(asked(service(0, [3, 2]), 2060), 3, 2, 0, seed().bytes(&[0; 12]))),
        ("time", answered(asked(service(1, [4, 0]), 24), 4, 2, 0, seed())),
        ("heartbeat", answered(beat(), 1, 2, 0, seed().u64(1).u32(1))),
        ("pair", answered(asked(service(3, [4, 0]), 2580), 2, 2, 0, pair)),
        ("addresses", answered(asked(service(3, [4, 0]), 7428), 2, 2, 0, ip)),
        ("backup", answered(asked(service(4, [5, 0]), 12), 5, 2, 5, seed().u64(5).u32(5))),
        ("copy", answered(asked(service(5, [1, 1]), 6196), 7, 2, 0x8007_0070, seed())),
        ("late", answered(beat().bytes(&[3, 11]), 1, 1, 0, seed().u64(1).u32(1))),
        ("silent", (0..9).fold(service(2, [3, 0]), |s, _| asked(s, 40).bytes(&[3, 11]))),
        ("restored", answered(beat().u8(4), 1, 1, 0, seed())),
        ("no_version", answered(seed().u8(0), 0, 0, 0, seed().u64(0))),
    ]
}
