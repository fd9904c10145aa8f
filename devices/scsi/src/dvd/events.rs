//! GET EVENT STATUS NOTIFICATION, by which guests poll for inserted and ejected discs.

use super::super::CheckCondition;
use super::super::fields::be16;
use super::Answer;
use super::tray::{Event, Tray};

const MEDIA_CLASS: u8 = 4;
const NO_CLASS: u8 = 0x80;
/// Classes that have events, as bits.
const SUPPORTED: u8 = 1 << MEDIA_CLASS;

const TRAY_OPEN: u8 = 0x01;
const DISC_PRESENT: u8 = 0x02;

/// Bytes of the answer up to the end of the event: a guest with a shorter buffer does not consume
/// it.
const EVENT_END: u32 = 6;

pub(super) fn status(cdb: &[u8; 16], room: u32, tray: &mut Tray, out: &mut Vec<u8>) -> Answer {
    let polled = cdb[1] & 0x01 != 0;
    // An unpolled command would have to wait for an event.
    if !polled {
        return Err(CheckCondition::INVALID_FIELD);
    }
    let allocation = u32::from(be16(cdb, 7));
    let asked = cdb[4];
    if asked & SUPPORTED == 0 {
        out.extend_from_slice(&[0, 2, NO_CLASS, SUPPORTED]);
        return Ok(allocation);
    }
    let event = tray.event(allocation.min(room) >= EVENT_END);
    let (code, disc) = match event {
        Event::None => (0, tray.disc().is_ok()),
        Event::EjectRequest => (1, tray.disc().is_ok()),
        Event::NewMedia => (2, tray.disc().is_ok()),
        Event::Removal | Event::Exchange => (3, false),
    };
    let open = if tray.is_open() { TRAY_OPEN } else { 0 };
    let present = if disc { DISC_PRESENT } else { 0 };
    out.extend_from_slice(&[0, 6, MEDIA_CLASS, SUPPORTED, code, open | present, 0, 0]);
    Ok(allocation)
}
