//! MODE SENSE and MODE SELECT of a disk: the caching and the control page, and the write-protect
//! bit (SPC-4 section 7.5, SBC-3 section 6.5; spec storvsc section 6.3).

use super::{CheckCondition, Disk, ModeForm, PageControl, Sense};

const CACHING: u8 = 0x08;
const CONTROL: u8 = 0x0A;
/// The page code of a request for all pages, and the subpage code for all subpages.
pub(super) const ALL_PAGES: u8 = 0x3F;
pub(super) const ALL_SUBPAGES: u8 = 0xFF;

/// All pages, in the ascending order in which MODE SENSE returns them.
const PAGES: [u8; 2] = [CACHING, CONTROL];

/// Code and length of a page that has no subpage code.
const PAGE_HEADER: usize = 2;

/// Subpage format (SPF): a page with a subpage code and a length of 16 bits. There is none.
const SUBPAGE_FORMAT: u8 = 0x40;
const PAGE_CODE: u8 = 0x3F;

const WRITE_CACHE_ENABLE: u8 = 0x04;

/// QUEUE ALGORITHM MODIFIER 1: requests are executed in any order.
const UNRESTRICTED_ORDER: u8 = 0x10;

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

/// Appends the whole answer. The caller cuts it to the allocation length; the length field in it
/// stays that of the whole answer. There is never a block descriptor, so DBD and LLBAA have no
/// effect.
///
/// # Errors
/// 5/39/00 for saved values, 5/24/00 for a page that the disk does not have.
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
    let is_wanted = |code: u8| page == ALL_PAGES || page == code;
    if !matches!(subpage, 0 | ALL_SUBPAGES) || !PAGES.into_iter().any(is_wanted) {
        return Err(CheckCondition::INVALID_FIELD);
    }
    let start = out.len();
    let protect = if disk.is_read_only() { WRITE_PROTECT } else { 0 };
    let device_specific = protect | DPO_FUA;
    match form {
        ModeForm::Six => out.extend_from_slice(&[0, 0, device_specific, 0]),
        ModeForm::Ten => out.extend_from_slice(&[0, 0, 0, device_specific, 0, 0, 0, 0]),
    }
    for code in PAGES.into_iter().filter(|code| is_wanted(*code)) {
        let at = out.len();
        out.extend_from_slice(current(disk, code));
        if control == PageControl::Changeable {
            out[at + PAGE_HEADER..].fill(0);
        }
    }
    // The length field does not count itself.
    let total = out.len() - start;
    match form {
        ModeForm::Six => out[start] = (total - 1) as u8,
        ModeForm::Ten => out[start..start + 2].copy_from_slice(&((total - 2) as u16).to_be_bytes()),
    }
    Ok(())
}

/// Returns the current values of page `code`. They are also the default values, as no value can be
/// changed.
fn current(disk: &Disk, code: u8) -> &'static [u8] {
    /// Builds the caching page. Byte 2 has WCE; RCD is 0, as reads may always come from the page
    /// cache.
    const fn caching(flags: u8) -> [u8; 20] {
        let mut page = [0; 20];
        (page[0], page[1], page[2]) = (CACHING, 18, flags);
        page
    }
    const CACHED: [u8; 20] = caching(WRITE_CACHE_ENABLE);
    const UNCACHED: [u8; 20] = caching(0);
    // One task set (TST), fixed-format sense (D_SENSE), no error affects other commands (QERR), no
    // software write protection (SWP): all 0. Busy and self-test times are undefined.
    const CONTROLS: [u8; 12] = [CONTROL, 10, 0, UNRESTRICTED_ORDER, 0, 0, 0, 0, 0, 0, 0, 0];
    match code {
        CACHING if disk.has_write_cache() => &CACHED,
        CACHING => &UNCACHED,
        _ => &CONTROLS,
    }
}

/// Checks a MODE SELECT parameter list. No value can be changed, so a list is valid when each of
/// its pages states the current values.
///
/// # Errors
/// 5/1A/00 for a list that ends within its header or a page. 5/26/00 for a block descriptor, an
/// unknown page, or another value: a guest that believed it had turned the cache off would stop
/// flushing.
pub(super) fn select(disk: &Disk, form: ModeForm, list: &[u8]) -> Result<(), CheckCondition> {
    let length_error = CheckCondition::invalid(Sense::PARAMETER_LIST_LENGTH);
    let field_error = CheckCondition::invalid(Sense::INVALID_FIELD_IN_PARAMETERS);
    if list.is_empty() {
        return Ok(());
    }
    let Some((header, mut rest)) = list.split_at_checked(form.header_len()) else {
        return Err(length_error);
    };
    let descriptors = match form {
        ModeForm::Six => usize::from(header[3]),
        ModeForm::Ten => usize::from(u16::from_be_bytes([header[6], header[7]])),
    };
    if descriptors != 0 {
        return Err(if descriptors > rest.len() { length_error } else { field_error });
    }
    while let Some(&first) = rest.first() {
        // Bit 7 (PS) is reserved here, because a guest may send back the page that it read.
        let code = first & PAGE_CODE;
        if first & SUBPAGE_FORMAT != 0 || !PAGES.contains(&code) {
            return Err(field_error);
        }
        let expected = current(disk, code);
        if rest.get(1).is_some_and(|length| *length != expected[1]) {
            return Err(field_error);
        }
        let Some((page, after)) = rest.split_at_checked(expected.len()) else {
            return Err(length_error);
        };
        if page[PAGE_HEADER..] != expected[PAGE_HEADER..] {
            return Err(field_error);
        }
        rest = after;
    }
    Ok(())
}
