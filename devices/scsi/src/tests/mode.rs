//! MODE SENSE and MODE SELECT: every form, page, page control and length.

use super::*;

const CACHING: [u8; 20] = [0x08, 18, 0x04, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const CONTROL: [u8; 12] = [0x0A, 10, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0];

/// Sends MODE SENSE (6) and (10), whose pages must be the same. Returns the pages.
fn pages(disk: &Disk, control: u8, page: u8, subpage: u8) -> Vec<u8> {
    let selector = control << 6 | page;
    let six = data(disk, &[0x1A, 0, selector, subpage, 255, 0], 255);
    let ten = data(disk, &[0x5A, 0, selector, subpage, 0, 0, 0, 1, 0, 0], 256);
    assert_eq!(usize::from(six[0]), six.len() - 1);
    assert_eq!(usize::from(u16::from_be_bytes([ten[0], ten[1]])), ten.len() - 2);
    // Medium type, device-specific byte, no block descriptors.
    assert_eq!((six[1], six[3]), (0, 0));
    assert_eq!((ten[2], ten[3], &ten[4..8]), (0, six[2], &[0; 4][..]));
    assert_eq!(six[4..], ten[8..]);
    six[4..].to_vec()
}

#[test]
fn test_mode_sense_gives_each_page_alone_and_all_in_order_of_their_codes() {
    let disk = disk();
    let all = [&CACHING[..], &CONTROL].concat();
    // Subpage 0 is the page itself; 0xFF is the page and all its subpages, of which there are none.
    for subpage in [0, 0xFF] {
        assert_eq!(pages(&disk, 0, 0x08, subpage), CACHING);
        assert_eq!(pages(&disk, 0, 0x0A, subpage), CONTROL);
        assert_eq!(pages(&disk, 0, 0x3F, subpage), all);
    }
}

#[test]
fn test_mode_sense_default_values_are_the_current_ones_and_nothing_is_changeable() {
    for disk in [disk(), read_only()] {
        for page in [0x08, 0x0A, 0x3F] {
            assert_eq!(pages(&disk, 2, page, 0), pages(&disk, 0, page, 0));
        }
    }
    let disk = disk();
    let mask = |page: &[u8]| [&page[..2], &vec![0; page.len() - 2]].concat();
    assert_eq!(pages(&disk, 1, 0x08, 0), mask(&CACHING));
    assert_eq!(pages(&disk, 1, 0x0A, 0), mask(&CONTROL));
    assert_eq!(pages(&disk, 1, 0x3F, 0xFF), [mask(&CACHING), mask(&CONTROL)].concat());
}

// Checklist 30.
#[test]
fn test_mode_sense_cuts_data_at_any_allocation_but_states_the_whole_length() {
    let disk = disk();
    for page in [0x08, 0x0A, 0x3F] {
        let six = data(&disk, &[0x1A, 0, page, 0, 255, 0], 255);
        let ten = data(&disk, &[0x5A, 0, page, 0, 0, 0, 0, 0, 255, 0], 255);
        for allocation in 0..=50_u8 {
            let length = usize::from(allocation);
            let cut = data(&disk, &[0x1A, 0, page, 0, allocation, 0], 255);
            assert_eq!(cut, six[..length.min(six.len())]);
            let cut = data(&disk, &[0x5A, 0, page, 0, 0, 0, 0, 0, allocation, 0], 255);
            assert_eq!(cut, ten[..length.min(ten.len())]);
        }
    }
    // Linux's own queries: for the write-protect bit, and for the length of the caching page.
    assert_eq!(data(&disk, &[0x1A, 0, 0x3F, 0, 4, 0], 4), [35, 0, 0x10, 0]);
    assert_eq!(data(&disk, &[0x1A, 0, 0x08, 0, 4, 0], 4), [23, 0, 0x10, 0]);
}

#[test]
fn test_mode_sense_without_block_descriptors_ignores_dbd_and_llbaa() {
    let disk = disk();
    let plain = data(&disk, &[0x5A, 0, 0x3F, 0, 0, 0, 0, 0, 255, 0], 255);
    for flags in [0x08, 0x10, 0x18] {
        assert_eq!(data(&disk, &[0x5A, flags, 0x3F, 0, 0, 0, 0, 0, 255, 0], 255), plain);
    }
    let plain = data(&disk, &[0x1A, 0, 0x3F, 0, 255, 0], 255);
    assert_eq!(data(&disk, &[0x1A, 0x08, 0x3F, 0, 255, 0], 255), plain);
}

// Checklist 30.
#[test]
fn test_mode_sense_read_only_disk_sets_write_protect_and_no_write_cache() {
    let six = data(&read_only(), &[0x1A, 0, 0x3F, 0, 255, 0], 255);
    assert_eq!((six[2], six[6]), (0x90, 0));
    assert_eq!(six[24..], CONTROL, "SWP is of software, which protects nothing");
}

// Checklist 30.
#[test]
fn test_mode_sense_saved_unknown_page_and_subpage_fail() {
    for page in [0x08, 0x0A, 0x1C, 0x3F] {
        assert_eq!(
            failure(&disk(), &[0x1A, 0, 0xC0 | page, 0, 24, 0], Transfer::ToGuest(24)),
            (Sense::SAVING_NOT_SUPPORTED, Cause::InvalidRequest)
        );
    }
    for (page, subpage) in [
        (0x0A, 1),
        (0x0A, 5),
        (0x08, 1),
        (0x08, 0xFE),
        (0x1C, 0),
        (0x1C, 0xFF),
        (0, 0),
        (0x3F, 1),
        (0x3F, 0xFE),
    ] {
        let six = [0x1A, 0, page, subpage, 24, 0];
        assert_eq!(
            failure(&disk(), &six, Transfer::ToGuest(24)),
            INVALID_FIELD,
            "{page:#x}/{subpage:#x}"
        );
        let ten = [0x5A, 0, page, subpage, 0, 0, 0, 0, 24, 0];
        assert_eq!(
            failure(&disk(), &ten, Transfer::ToGuest(24)),
            INVALID_FIELD,
            "{page:#x}/{subpage:#x}"
        );
    }
}

/// Sends MODE SELECT (6) with `list`.
fn select(disk: &Disk, list: &[u8]) -> Result<Decision, CheckCondition> {
    let bytes = [0x15, 0x10, 0, 0, list.len() as u8, 0];
    select_by(disk, &bytes, list)
}

fn select_by(disk: &Disk, bytes: &[u8], list: &[u8]) -> Result<Decision, CheckCondition> {
    match run(disk, bytes, Transfer::ToDisk(list.len() as u32))?.0 {
        Decision::Parameters(parameters) => {
            assert_eq!(parameters.length(), list.len());
            disk.parameters(parameters, list)
        }
        other => Ok(other),
    }
}

fn list(pages: &[&[u8]]) -> Vec<u8> {
    [&[0; 4], &pages.concat()[..]].concat()
}

// Checklist 31.
#[test]
fn test_mode_select_restating_what_holds_is_good_in_any_order_and_form() {
    let disk = disk();
    let good: [&[&[u8]]; 5] =
        [&[], &[&CACHING], &[&CONTROL], &[&CACHING, &CONTROL], &[&CONTROL, &CACHING]];
    for pages in good {
        let six = list(pages);
        assert_eq!(select(&disk, &six), Ok(Decision::Good));
        let ten = [&[0; 8], &six[4..]].concat();
        let bytes = [0x55, 0x10, 0, 0, 0, 0, 0, 0, ten.len() as u8, 0];
        assert_eq!(select_by(&disk, &bytes, &ten), Ok(Decision::Good));
    }
    // The pages of MODE SENSE, sent back unchanged; PS is reserved here.
    let mut back = data(&disk, &[0x1A, 0, 0x3F, 0, 255, 0], 255);
    assert_eq!(select(&disk, &back), Ok(Decision::Good));
    back[4] |= 0x80;
    assert_eq!(select(&disk, &back), Ok(Decision::Good));
    assert_eq!(select(&disk, &[]), Ok(Decision::Good));
}

// Checklist 31.
#[test]
fn test_mode_select_changing_any_field_is_refused() {
    let disk = disk();
    let good = list(&[&CACHING, &CONTROL]);
    // After the header: subpage format, code and length of a page, and each of its fields.
    for at in 4..good.len() {
        for bit in 0..8 {
            if (at == 4 || at == 24) && bit == 7 {
                continue;
            }
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            let sense = select(&disk, &bad).unwrap_err().sense;
            assert_eq!(sense, Sense::INVALID_FIELD_IN_PARAMETERS, "byte {at} bit {bit}");
        }
    }
}

#[test]
fn test_mode_select_lists_that_end_too_early_are_length_errors() {
    let disk = disk();
    let good = list(&[&CACHING, &CONTROL]);
    for length in (1..good.len()).filter(|length| ![4, 24].contains(length)) {
        let sense = select(&disk, &good[..length]).unwrap_err().sense;
        assert_eq!(sense, Sense::PARAMETER_LIST_LENGTH, "{length}");
    }
    // A stated block descriptor without its bytes, and one with them: the disk has none to select.
    let mut descriptor = good.clone();
    descriptor[3] = 0xFF;
    assert_eq!(select(&disk, &descriptor).unwrap_err().sense, Sense::PARAMETER_LIST_LENGTH);
    descriptor[3] = 8;
    assert_eq!(select(&disk, &descriptor).unwrap_err().sense, Sense::INVALID_FIELD_IN_PARAMETERS);
    // SP, a list longer than the buffer, the wrong direction.
    assert_eq!(failure(&disk, &[0x15, 0x11, 0, 0, 24, 0], Transfer::ToDisk(24)), INVALID_FIELD);
    assert_eq!(
        failure(&disk, &[0x15, 0x10, 0, 0, 24, 0], Transfer::ToDisk(23)).0,
        Sense::PARAMETER_LIST_LENGTH
    );
    assert_eq!(failure(&disk, &[0x15, 0x10, 0, 0, 24, 0], Transfer::ToGuest(24)), INVALID_FIELD);
}
