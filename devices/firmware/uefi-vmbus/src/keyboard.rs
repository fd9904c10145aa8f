//! The synthetic keyboard (hid-video section 2), from the guest's side.

use vmbus_client::{Client, Platform};
use vmbus_protocol::Guid;

use crate::error::DisplayError;
use crate::messages::Messages;

/// {f912ad6d-2b17-48ea-bd65-f927a61c7684}: the class of keyboards.
pub const KEYBOARD: Guid =
    Guid::new(0xf912_ad6d, 0x2b17, 0x48ea, [0xbd, 0x65, 0xf9, 0x27, 0xa6, 0x1c, 0x76, 0x84]);

/// Version 1.0, the only one.
const VERSION: u32 = 0x0001_0000;

/// The most bytes of a message: an event, padded.
const MAX_MESSAGE: usize = 16;

mod kind {
    pub(super) const PROTOCOL_REQUEST: u32 = 1;
    pub(super) const PROTOCOL_RESPONSE: u32 = 2;
    pub(super) const EVENT: u32 = 3;
}

/// A key that was pressed or released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyEvent {
    /// The make code of set 1.
    pub code: u16,
    /// The code has the prefix E0.
    pub is_extended: bool,
    /// The key was pressed, or repeats.
    pub is_pressed: bool,
}

/// The keyboard, with an open channel.
#[derive(Debug)]
pub struct Keyboard {
    messages: Messages,
}

impl Keyboard {
    /// Opens the channel of the device `instance`, and agrees on the version.
    ///
    /// # Errors
    /// [`DisplayError`]; no channel is left open.
    pub fn open<P: Platform>(client: &mut Client<P>, instance: Guid) -> Result<Self, DisplayError> {
        let messages = Messages::open(client, (KEYBOARD, instance), false, MAX_MESSAGE)?;
        let keyboard = Self { messages };
        match keyboard.negotiate(client) {
            Ok(()) => Ok(keyboard),
            Err(error) => {
                keyboard.messages.close(client);
                Err(error)
            }
        }
    }

    /// Takes the next event.
    pub fn next_event<P: Platform>(&mut self, client: &mut Client<P>) -> Option<KeyEvent> {
        loop {
            let message = self.messages.receive(client)?;
            if let Some(event) = event(&message) {
                return Some(event);
            }
        }
    }

    fn negotiate<P: Platform>(&self, client: &mut Client<P>) -> Result<(), DisplayError> {
        let mut request = [0; 8];
        request[..4].copy_from_slice(&kind::PROTOCOL_REQUEST.to_le_bytes());
        request[4..].copy_from_slice(&VERSION.to_le_bytes());
        self.messages.send(client, &request)?;
        let is_accepted = self.messages.wait(client, |answer| {
            (word(answer, 0)? == kind::PROTOCOL_RESPONSE).then_some(word(answer, 4)? & 1 != 0)
        })?;
        if is_accepted { Ok(()) } else { Err(DisplayError::Version) }
    }
}

/// Returns the event of a message. `None` for other messages, keys of Unicode, and Pause, which
/// alone has the prefix E1.
fn event(message: &[u8]) -> Option<KeyEvent> {
    const UNICODE: u32 = 1;
    const BREAK: u32 = 2;
    const E0: u32 = 4;
    const E1: u32 = 8;
    let (kind, code, flags) = (word(message, 0)?, word(message, 4)?, word(message, 8)?);
    if kind != kind::EVENT || flags & (UNICODE | E1) != 0 {
        return None;
    }
    Some(KeyEvent {
        code: u16::try_from(code & 0xFFFF).ok()?,
        is_extended: flags & E0 != 0,
        is_pressed: flags & BREAK == 0,
    })
}

fn word(message: &[u8], at: usize) -> Option<u32> {
    message.get(at..at + 4)?.try_into().map(u32::from_le_bytes).ok()
}
