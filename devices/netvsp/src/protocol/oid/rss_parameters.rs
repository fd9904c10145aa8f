//! SET of GEN_RECEIVE_SCALE_PARAMETERS (netvsc section 7.5).

use super::super::bytes::{slice_at, u16_at, u32_at};
use super::super::rndis::RndisStatus;
use super::super::rss::{HashTypes, RssTable, ToeplitzKey};
use super::card::RssSettings;

/// Returns the settings after RSS parameters. `channels`: channels in use, the limit of the table's
/// entries.
///
/// # Errors
/// [`RndisStatus::InvalidData`]: a field, the key or the table is malformed.
pub(super) fn apply(
    data: &[u8],
    current: &RssSettings,
    channels: u16,
) -> Result<RssSettings, RndisStatus> {
    parse(data, current, channels).ok_or(RndisStatus::InvalidData)
}

fn parse(data: &[u8], current: &RssSettings, channels: u16) -> Option<RssSettings> {
    // The header of the object is not checked: Hyper-V does not check it either.
    data.get(..MIN_SIZE)?;
    let flags = u16_at(data, 4)?;
    let hash_info = u32_at(data, 8)?;
    let mut settings = current.clone();
    if flags & HASH_INFO_UNCHANGED == 0 {
        settings.types = HashTypes(hash_info & !FUNCTION_MASK);
    }
    let function = hash_info & FUNCTION_MASK;
    if flags & DISABLE != 0 || (flags & HASH_INFO_UNCHANGED == 0 && function == 0) {
        settings.is_enabled = false;
        return Some(settings);
    }
    if flags & HASH_INFO_UNCHANGED == 0 && function != TOEPLITZ {
        return None;
    }
    if flags & KEY_UNCHANGED == 0 {
        settings.key = key(data)?;
    }
    if flags & TABLE_UNCHANGED == 0 {
        settings.table = table(data, channels)?;
    }
    settings.is_enabled = true;
    Some(settings)
}

fn key(data: &[u8]) -> Option<ToeplitzKey> {
    let bytes = slice_at(data, u32_at(data, 24)?, u16_at(data, 20)?.into())?;
    bytes.try_into().ok().map(ToeplitzKey::new)
}

fn table(data: &[u8], channels: u16) -> Option<RssTable> {
    let bytes = slice_at(data, u32_at(data, 16)?, u16_at(data, 12)?.into())?;
    let (entries, rest) = bytes.as_chunks::<4>();
    let entries = entries.iter().map(|entry| u32::from_le_bytes(*entry));
    RssTable::new(entries, channels).filter(|_| rest.is_empty())
}

/// Bytes of revision 1, which has all fields that the host reads.
const MIN_SIZE: usize = 28;

// Flags.
const HASH_INFO_UNCHANGED: u16 = 2;
const TABLE_UNCHANGED: u16 = 4;
const KEY_UNCHANGED: u16 = 8;
const DISABLE: u16 = 0x10;

/// The bits of the hash information that name the function.
const FUNCTION_MASK: u32 = 0xFF;
const TOEPLITZ: u32 = 1;
