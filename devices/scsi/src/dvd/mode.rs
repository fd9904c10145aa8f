//! MODE SENSE and MODE SELECT of a DVD drive.

use super::super::mode::{ALL_PAGES, ALL_SUBPAGES};
use super::super::{CheckCondition, ModeForm, Sense};
use super::Answer;
use super::information::SPEED;
use super::tray::Tray;

const ERROR_RECOVERY: u8 = 0x01;
const POWER_CONDITION: u8 = 0x1A;
const TIMEOUT: u8 = 0x1D;
const CAPABILITIES: u8 = 0x2A;

/// The pages in the order of their codes, which MODE SENSE must use.
const PAGES: [u8; 4] = [ERROR_RECOVERY, POWER_CONDITION, TIMEOUT, CAPABILITIES];

/// Bytes of a page whose fields are all zero, code and length included.
const PLAIN_LEN: usize = 12;
const CAPABILITIES_LEN: usize = 22;

/// Page control: saved values (3), and the mask of the fields that can be changed (1).
const SAVED: u8 = 3;
const CHANGEABLE: u8 = 1;

pub(super) fn sense(
    cdb: &[u8; 16],
    form: ModeForm,
    allocation: u16,
    tray: &Tray,
    out: &mut Vec<u8>,
) -> Answer {
    let (control, page, subpage) = (cdb[2] >> 6, cdb[2] & 0x3F, cdb[3]);
    if control == SAVED {
        return Err(CheckCondition::invalid(Sense::SAVING_NOT_SUPPORTED));
    }
    let is_there = page == ALL_PAGES || PAGES.contains(&page);
    if !is_there || !matches!(subpage, 0 | ALL_SUBPAGES) {
        return Err(CheckCondition::INVALID_FIELD);
    }
    let start = out.len();
    out.resize(start + form.header_len(), 0);
    for &code in PAGES.iter().filter(|&&code| page == ALL_PAGES || page == code) {
        let values = match code {
            CAPABILITIES => capabilities(tray).to_vec(),
            _ => vec![0; PLAIN_LEN],
        };
        out.extend_from_slice(&[code, (values.len() - 2) as u8]);
        let mask = if control == CHANGEABLE { 0 } else { 0xFF };
        out.extend(values[2..].iter().map(|value| value & mask));
    }
    // The length field does not count itself. Medium type and device-specific byte are 0, and there
    // is no block descriptor.
    let total = out.len() - start;
    match form {
        ModeForm::Six => out[start] = (total - 1) as u8,
        ModeForm::Ten => out[start..start + 2].copy_from_slice(&((total - 2) as u16).to_be_bytes()),
    }
    Ok(allocation.into())
}

/// Returns the page "CD/DVD capabilities and mechanical status", from which Linux's sr driver
/// learns the abilities of the drive. The caller fills in code and length.
fn capabilities(tray: &Tray) -> [u8; CAPABILITIES_LEN] {
    let mut page = [0; CAPABILITIES_LEN];
    // The drive reads every kind of CD and DVD and writes none.
    page[2] = 0x3F;
    // The drive reads several sessions, and both forms of mode 2.
    page[4] = 0x70;
    // A tray that ejects and locks; bit 1: it is locked.
    page[6] = 1 << 5 | 0x08 | 0x01 | u8::from(tray.is_locked()) << 1;
    page[8..10].copy_from_slice(&SPEED.to_be_bytes());
    page[14..16].copy_from_slice(&SPEED.to_be_bytes());
    page
}

/// Checks a MODE SELECT parameter list. Pages 01, 1A and 1D are accepted with any values and change
/// nothing.
///
/// # Errors
/// 5/1A/00 for inconsistent lengths, 5/26/00 for another page.
pub(super) fn select(form: ModeForm, list: &[u8]) -> Result<(), CheckCondition> {
    let length_error = CheckCondition::invalid(Sense::PARAMETER_LIST_LENGTH);
    let (header, rest) = list.split_at_checked(form.header_len()).ok_or(length_error)?;
    let descriptors = match form {
        ModeForm::Six => usize::from(header[3]),
        ModeForm::Ten => usize::from(u16::from_be_bytes([header[6], header[7]])),
    };
    let mut pages = rest.get(descriptors..).ok_or(length_error)?;
    while let [code, length, after @ ..] = pages {
        if ![ERROR_RECOVERY, POWER_CONDITION, TIMEOUT].contains(&(code & 0x3F)) {
            return Err(CheckCondition::invalid(Sense::INVALID_FIELD_IN_PARAMETERS));
        }
        pages = after.get(usize::from(*length)..).ok_or(length_error)?;
    }
    if pages.is_empty() { Ok(()) } else { Err(length_error) }
}
