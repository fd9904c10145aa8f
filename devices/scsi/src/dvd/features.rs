//! GET CONFIGURATION: the kinds of disc and command that the drive supports (MMC-6 section 5).

use super::super::CheckCondition;
use super::super::fields::be16;
use super::{Answer, DVD_BLOCK};

const DVD_ROM: u16 = 0x0010;
const CD_ROM: u16 = 0x0008;

/// The condition under which a feature is in force.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    /// Always.
    Persistent,
    /// With a disc in the drive.
    Disc,
    /// Only with a disc of a kind that this drive never has.
    Never,
}

struct Feature {
    code: u16,
    version: u8,
    when: When,
    data: &'static [u8],
}

const BLOCK: [u8; 4] = DVD_BLOCK.to_be_bytes();

/// The features, ordered by code. The profile list is not here because it names the disc.
const FEATURES: [Feature; 9] = [
    // Core: a SCSI interface.
    Feature { code: 0x0001, version: 2, when: When::Persistent, data: &[0, 0, 0, 1, 0, 0, 0, 0] },
    // Morphing: only the disc can change by itself.
    Feature { code: 0x0002, version: 1, when: When::Persistent, data: &[0, 0, 0, 0] },
    // Removable medium: a tray that loads, ejects and locks.
    Feature { code: 0x0003, version: 1, when: When::Persistent, data: &[0x39, 0, 0, 0] },
    // Random readable: block size, 16 blocks together, no error recovery page.
    Feature {
        code: 0x0010,
        version: 0,
        when: When::Disc,
        data: &[BLOCK[0], BLOCK[1], BLOCK[2], BLOCK[3], 0, 16, 0, 0],
    },
    // CD read: no C2 pointers, no CD text.
    Feature { code: 0x001E, version: 2, when: When::Never, data: &[0, 0, 0, 0] },
    Feature { code: 0x001F, version: 0, when: When::Disc, data: &[] },
    Feature { code: 0x0100, version: 0, when: When::Persistent, data: &[] },
    Feature { code: 0x0105, version: 0, when: When::Persistent, data: &[] },
    // Real-time streaming.
    Feature { code: 0x0107, version: 0, when: When::Disc, data: &[0, 0, 0, 0] },
];

pub(super) fn configuration(cdb: &[u8; 16], has_disc: bool, out: &mut Vec<u8>) -> Answer {
    let (first, allocation) = (be16(cdb, 2), be16(cdb, 7));
    let (all, one) = match cdb[1] & 0x03 {
        0 => (true, false),
        1 => (false, false),
        2 => (true, true),
        _ => return Err(CheckCondition::INVALID_FIELD),
    };
    let wanted = |code| if one { code == first } else { code >= first };
    let start = out.len();
    let profile = if has_disc { DVD_ROM } else { 0 };
    out.extend_from_slice(&[0; 6]);
    out.extend_from_slice(&profile.to_be_bytes());
    if wanted(0) {
        let current = u8::from(has_disc);
        let ([dvd_high, dvd_low], [cd_high, cd_low]) =
            (DVD_ROM.to_be_bytes(), CD_ROM.to_be_bytes());
        put(
            0,
            0,
            When::Persistent,
            has_disc,
            &[dvd_high, dvd_low, current, 0, cd_high, cd_low, 0, 0],
            out,
        );
    }
    for feature in FEATURES.iter().filter(|feature| wanted(feature.code)) {
        if all || is_current(feature.when, has_disc) {
            put(feature.code, feature.version, feature.when, has_disc, feature.data, out);
        }
    }
    // The length field does not count itself.
    let length = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    Ok(allocation.into())
}

fn put(code: u16, version: u8, when: When, has_disc: bool, data: &[u8], out: &mut Vec<u8>) {
    let (persistent, current) =
        (u8::from(when == When::Persistent), u8::from(is_current(when, has_disc)));
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(&[version << 2 | persistent << 1 | current, data.len() as u8]);
    out.extend_from_slice(data);
}

fn is_current(when: When, has_disc: bool) -> bool {
    match when {
        When::Persistent => true,
        When::Disc => has_disc,
        When::Never => false,
    }
}
