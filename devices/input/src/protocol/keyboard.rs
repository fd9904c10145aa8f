//! The keyboard's protocol. Source: hid-video section 2.

use bitflags::bitflags;
use serde::{Deserialize, Serialize};

use super::{Rejected, word};
use crate::keys::{Key, KeyEvent, Prefix};

/// The one version, 1.0.
const VERSION: u32 = 0x0001_0000;

bitflags! {
    /// The LEDs that are on.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Leds: u16 {
        /// Scroll Lock.
        const SCROLL_LOCK = 1;
        /// Num Lock.
        const NUM_LOCK = 2;
        /// Caps Lock.
        const CAPS_LOCK = 4;
    }

    /// Flags of a key event.
    struct EventFlags: u32 {
        const UNICODE = 1;
        const BREAK = 2;
        const E0 = 4;
        const E1 = 8;
    }
}

/// The protocol state of an open channel, which is also its saved state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    is_ready: bool,
}

/// A decision about a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The guest gets this message.
    Reply {
        /// The message.
        message: Vec<u8>,
        /// The version that was refused, if it was.
        refused: Option<Rejected>,
    },
    /// The guest has set the LEDs.
    Leds(Leds),
}

impl Session {
    /// Handles a packet of the guest.
    ///
    /// # Errors
    /// [`Rejected`]: the packet has no effect and no answer.
    pub fn handle(&mut self, packet: &[u8]) -> Result<Outcome, Rejected> {
        let (kind, body) = word(packet)?;
        match kind {
            1 => {
                let (version, _) = word(body)?;
                self.is_ready = version == VERSION;
                let message = [2, u32::from(self.is_ready)].map(u32::to_le_bytes).concat();
                let refused = (!self.is_ready).then_some(Rejected::Version(version));
                Ok(Outcome::Reply { message, refused })
            }
            4 => {
                // The body is the LEDs and two bytes of padding.
                let (leds, _) = word(body)?;
                let [low, high, _, _] = leds.to_le_bytes();
                Ok(Outcome::Leds(Leds::from_bits_truncate(u16::from_le_bytes([low, high]))))
            }
            kind => Err(Rejected::Type(kind)),
        }
    }

    /// Returns whether the guest takes key events.
    pub fn is_ready(&self) -> bool {
        self.is_ready
    }
}

/// Returns the message of a key event.
pub fn event(event: KeyEvent) -> Vec<u8> {
    let (code, mut flags) = match event.key {
        Key::Scan { code, prefix } => {
            let flags = match prefix {
                Prefix::None => EventFlags::empty(),
                Prefix::E0 => EventFlags::E0,
                Prefix::E1 => EventFlags::E1,
            };
            (u16::from(code), flags)
        }
        Key::Unicode(unit) => (unit, EventFlags::UNICODE),
    };
    flags.set(EventFlags::BREAK, !event.is_pressed);
    [3, u32::from(code), flags.bits()].map(u32::to_le_bytes).concat()
}
