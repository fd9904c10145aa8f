//! The mouse's protocol. Source: hid-video section 3.

use bitflags::bitflags;
use serde::{Deserialize, Serialize};

use super::{Rejected, word};

/// The one version, 2.0.
const VERSION: u32 = 0x0002_0000;
/// The type of a pipe's packet with data.
const PIPE_DATA: u32 = 1;
/// Guests look for this vendor and product.
const VENDOR: u16 = 0x045E;
const PRODUCT: u16 = 0x0621;

/// The largest coordinate of a pointer.
pub const MAX_COORDINATE: u16 = 0x7FFF;

/// The HID report descriptor: five buttons, an absolute position, a wheel.
pub const REPORT_DESCRIPTOR: [u8; 67] = [
    0x05, 0x01, 0x09, 0x02, 0xA1, 0x01, // Usage page: desktop; usage: mouse; application
    0x09, 0x01, 0xA1, 0x00, // Usage: pointer; physical
    0x05, 0x09, 0x19, 0x01, 0x29, 0x05, 0x15, 0x00, 0x25, 0x01, // Buttons 1 to 5: 0 or 1
    0x95, 0x05, 0x75, 0x01, 0x81, 0x02, // Five fields of a bit: data, absolute
    0x95, 0x01, 0x75, 0x03, 0x81, 0x01, // Three bits of padding
    0x05, 0x01, 0x09, 0x30, 0x09, 0x31, // Usage page: desktop; usages: X, Y
    0x15, 0x00, 0x26, 0xFF, 0x7F, // 0 to 32767
    0x75, 0x10, 0x95, 0x02, 0x81, 0x02, // Two fields of 16 bits: data, absolute
    0x05, 0x01, 0x09, 0x38, 0x16, 0x01, 0x80, 0x26, 0xFF, 0x7F, // Wheel: -32767 to 32767
    0x75, 0x10, 0x95, 0x01, 0x81, 0x06, // A field of 16 bits: data, relative
    0xC0, 0xC0, // End of both collections
];

bitflags! {
    /// The pressed buttons of a mouse.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Buttons: u8 {
        /// The left button.
        const LEFT = 1;
        /// The right button.
        const RIGHT = 2;
        /// The middle button.
        const MIDDLE = 4;
        /// The first extra button, usually "back".
        const EXTRA_1 = 8;
        /// The second extra button, usually "forward".
        const EXTRA_2 = 16;
    }
}

/// A state of the pointer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The pressed buttons.
    pub buttons: Buttons,
    /// Horizontal position, 0 (left) to [`MAX_COORDINATE`].
    pub x: u16,
    /// Vertical position, 0 (top) to [`MAX_COORDINATE`].
    pub y: u16,
    /// Steps of the wheel since the last report; positive away from the user.
    pub wheel: i16,
}

/// The protocol state of an open channel, which is also its saved state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Session {
    /// No version is agreed.
    #[default]
    New,
    /// The guest has the device information, and has not acknowledged it.
    Described,
    /// The guest takes reports.
    Ready,
}

/// A decision about a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Messages to the guest, in their order: at most two.
    pub replies: Vec<Vec<u8>>,
    /// The version that was refused, if it was.
    pub refused: Option<Rejected>,
}

impl Session {
    /// Handles a packet of the guest.
    ///
    /// # Errors
    /// [`Rejected`]: the packet has no effect and no answer.
    pub fn handle(&mut self, packet: &[u8]) -> Result<Outcome, Rejected> {
        let (pipe, rest) = word(packet)?;
        if pipe != PIPE_DATA {
            return Err(Rejected::Pipe(pipe));
        }
        let (size, rest) = word(rest)?;
        let size = usize::try_from(size).map_err(|_| Rejected::Short)?;
        let (kind, body) = word(rest.get(..size).ok_or(Rejected::Short)?)?;
        let (_size, body) = word(body)?;
        match kind {
            0 => {
                let (version, _) = word(body)?;
                let is_approved = version == VERSION;
                let response = [&version.to_le_bytes()[..], &[u8::from(is_approved)]].concat();
                let mut outcome = Outcome::default();
                outcome.replies.push(message(1, &response));
                if is_approved {
                    *self = Self::Described;
                    outcome.replies.push(message(2, &device_info()));
                } else {
                    *self = Self::New;
                    outcome.refused = Some(Rejected::Version(version));
                }
                Ok(outcome)
            }
            3 if *self == Self::New => Err(Rejected::Order),
            3 => {
                *self = Self::Ready;
                Ok(Outcome::default())
            }
            kind => Err(Rejected::Type(kind)),
        }
    }

    /// Returns whether the guest takes reports.
    pub fn is_ready(self) -> bool {
        self == Self::Ready
    }
}

/// Returns the message of a report.
pub fn report(report: Report) -> Vec<u8> {
    let Report { buttons, x, y, wheel } = report;
    let [x0, x1] = x.to_le_bytes();
    let [y0, y1] = y.to_le_bytes();
    let [w0, w1] = wheel.to_le_bytes();
    message(4, &[buttons.bits(), x0, x1, y0, y1, w0, w1])
}

/// Returns the pointer's coordinate for pixel `pixel` of `size`: from 0 for the first pixel to
/// [`MAX_COORDINATE`] for the last one, and for each one beyond it.
pub fn coordinate(pixel: u32, size: u32) -> u16 {
    let last = u64::from(size.saturating_sub(1));
    let pixel = u64::from(pixel).min(last);
    let scaled = (pixel * u64::from(MAX_COORDINATE) + last / 2).checked_div(last).unwrap_or(0);
    u16::try_from(scaled).unwrap_or(MAX_COORDINATE)
}

/// Returns the device information: attributes, HID descriptor, report descriptor.
fn device_info() -> Vec<u8> {
    const ATTRIBUTES: u32 = 32;
    const RESERVED: [u8; 22] = [0; 22];
    // Hyper-V pads the report descriptor to this size.
    let mut padded = [0; 128];
    padded[..REPORT_DESCRIPTOR.len()].copy_from_slice(&REPORT_DESCRIPTOR);
    let length = u16::try_from(REPORT_DESCRIPTOR.len()).unwrap_or(u16::MAX);
    [
        &ATTRIBUTES.to_le_bytes()[..],
        &VENDOR.to_le_bytes(),
        &PRODUCT.to_le_bytes(),
        // Version 1.
        &[1, 0],
        &RESERVED,
        // Length 9, type HID, HID 1.1, no country, one descriptor, of type report.
        &[9, 0x21, 0x01, 0x01, 0, 1, 0x22],
        &length.to_le_bytes(),
        &padded,
    ]
    .concat()
}

/// Returns a message in the pipe's packet.
fn message(kind: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let words = [PIPE_DATA, length.saturating_add(8), kind, length];
    words.into_iter().flat_map(u32::to_le_bytes).chain(body.iter().copied()).collect()
}
