//! MODE SENSE and MODE SELECT: the caching page and the write-protect bit (spec storvsc section 6.3).

use super::{CheckCondition, Disk, ModeForm, PageControl, Sense};

const CACHING: u8 = 0x08;
const ALL_PAGES: u8 = 0x3F;
const ALL_SUBPAGES: u8 = 0xFF;

const CACHING_LEN: usize = 20;
const WRITE_CACHE_ENABLE: u8 = 0x04;
const READ_CACHE_DISABLE: u8 = 0x01;

const WRITE_PROTECT: u8 = 0x80;
const DPO_FUA: u8 = 0x10;

impl ModeForm {
    /// Bytes of the mode parameter header.
    pub(super) const fn header_len(self) -> usize {
        match self {
            Self::Six => 4,
            Self::Ten => 8,
        }
    }
}

/// Appends the whole answer (the caller cuts it to the allocation length; the length inside stays that of the whole).
///
/// # Errors
/// 5/39/00 for saved values, 5/24/00 for a page that is not there.
pub(super) fn sense(
    disk: &Disk,
    form: ModeForm,
    control: PageControl,
    (page, subpage): (u8, u8),
    out: &mut Vec<u8>,
) -> Result<(), CheckCondition> {
    if control == PageControl::Saved {
        return Err(CheckCondition::invalid(Sense::SAVING_NOT_SUPPORTED));
    }
    match (page, subpage) {
        (CACHING, 0) | (ALL_PAGES, 0 | ALL_SUBPAGES) => {}
        _ => return Err(CheckCondition::INVALID_FIELD),
    }
    let protect = if disk.is_read_only() { WRITE_PROTECT } else { 0 };
    let device_specific = protect | DPO_FUA;
    match form {
        ModeForm::Six => out.extend_from_slice(&[const { 4 + CACHING_LEN as u8 - 1 }, 0, device_specific, 0]),
        ModeForm::Ten => {
            out.extend_from_slice(&[0, const { 8 + CACHING_LEN as u8 - 2 }, 0, device_specific, 0, 0, 0, 0]);
        }
    }
    let flags = match control {
        PageControl::Changeable => 0,
        _ => caching_flags(disk),
    };
    let mut caching = [0; CACHING_LEN];
    caching[..3].copy_from_slice(&[CACHING, const { CACHING_LEN as u8 - 2 }, flags]);
    out.extend_from_slice(&caching);
    Ok(())
}

/// Judges a MODE SELECT parameter list. Nothing can be changed, so a list is good when it states what already holds.
///
/// # Errors
/// 5/1A/00 for lengths that do not fit, 5/26/00 for another page or another write cache setting (a guest that believes it turned
/// the cache off would stop flushing).
pub(super) fn select(disk: &Disk, form: ModeForm, list: &[u8]) -> Result<(), CheckCondition> {
    let length_error = CheckCondition::invalid(Sense::PARAMETER_LIST_LENGTH);
    let field_error = CheckCondition::invalid(Sense::INVALID_FIELD_IN_PARAMETERS);
    if list.is_empty() {
        return Ok(());
    }
    let Some((header, rest)) = list.split_at_checked(form.header_len()) else { return Err(length_error) };
    let descriptors = match form {
        ModeForm::Six => usize::from(header[3]),
        ModeForm::Ten => usize::from(u16::from_be_bytes([header[6], header[7]])),
    };
    let page = rest.get(descriptors..).ok_or(length_error)?;
    let Some((page, extra)) = page.split_at_checked(CACHING_LEN) else { return Err(length_error) };
    if page[0] & 0x7F != CACHING {
        return Err(field_error);
    }
    if usize::from(page[1]) != CACHING_LEN - 2 || !extra.is_empty() {
        return Err(length_error);
    }
    let mask = WRITE_CACHE_ENABLE | READ_CACHE_DISABLE;
    if page[2] & mask != caching_flags(disk) { Err(field_error) } else { Ok(()) }
}

fn caching_flags(disk: &Disk) -> u8 {
    if disk.has_write_cache() { WRITE_CACHE_ENABLE } else { 0 }
}
