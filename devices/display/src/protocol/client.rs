//! Messages of a viewer that has logged in.

use super::area::Area;
use super::pixel_format::PixelFormat;

/// Maximum number of encodings of a viewer. The ones in use have about 60.
pub const MAX_ENCODINGS: usize = 1024;

/// Maximum number of bytes of a clipboard, which are discarded.
const MAX_CUT_TEXT: u32 = 16 << 20;

/// Maximum number of bytes that a fence returns.
const MAX_FENCE: usize = 64;

/// A message of a viewer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientMessage {
    /// Pixels are wanted in this format.
    SetPixelFormat(PixelFormat),
    /// Encodings that the viewer knows, the one that it prefers first.
    SetEncodings(Vec<i32>),
    /// Requests an update of an area.
    UpdateRequest {
        /// Only changed pixels are wanted.
        is_incremental: bool,
        /// The area.
        area: Area,
    },
    /// A key by its symbol (X11's keysymdef.h).
    Key {
        /// Whether it is pressed.
        is_pressed: bool,
        /// The symbol.
        symbol: u32,
    },
    /// A key by its symbol and its scan code.
    ExtendedKey {
        /// Whether it is pressed.
        is_pressed: bool,
        /// The symbol.
        symbol: u32,
        /// The scan code of set 1, with the highest bit for prefix E0; 0: unknown.
        code: u32,
    },
    /// The pointer.
    Pointer {
        /// A bit for each pressed button: left, middle, right, wheel up, down, left, right, back,
        /// forward.
        buttons: u16,
        /// The column.
        x: u16,
        /// The row.
        y: u16,
    },
    /// Text of the clipboard. It is discarded: guests have no clipboard.
    CutText,
    /// Switches updates without requests.
    ContinuousUpdates {
        /// Whether they are wanted.
        is_enabled: bool,
        /// The area.
        area: Area,
    },
    /// A fence.
    Fence {
        /// Flags, the highest of which is set in requests.
        flags: u32,
        /// Bytes to return, at most 64.
        payload: Vec<u8>,
    },
    /// Requests another size of the screen.
    SetDesktopSize {
        /// Pixels of a row.
        width: u16,
        /// Number of rows.
        height: u16,
        /// Whether there is one screen, which is as large.
        is_one_screen: bool,
    },
    /// A message of an extension that has no effect: sound, and power commands.
    Ignored,
}

/// The error of a message that ends the connection, as its length is unknown or too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// An unknown message.
    #[error("a message of unknown type {0}")]
    Type(u8),
    /// An unknown message of QEMU's.
    #[error("a message of unknown type 255, {0}")]
    QemuType(u8),
    /// A pixel format that RFB does not have.
    #[error("a pixel format that RFB does not have")]
    PixelFormat,
    /// A message that is too long.
    #[error("a message of {0} bytes or elements")]
    TooLong(u64),
    /// Not the protocol's version.
    #[error("the first bytes are not the version of RFB")]
    Version,
    /// A security type that was not offered.
    #[error("security type {0}, which was not offered")]
    Security(u32),
    /// Bytes before TLS, which must be within it.
    #[error("bytes without TLS, where TLS begins")]
    BeforeTls,
}

/// Reads messages from a stream of bytes.
#[derive(Clone, Debug, Default)]
pub struct ClientReader {
    /// Whether a pointer event with the highest button has a second byte of buttons.
    pub has_extended_buttons: bool,
    /// Bytes to discard.
    skip: usize,
}

impl ClientReader {
    /// Reads a message at the start of `bytes`, and returns it and its length. `None`: more bytes
    /// are needed. A length without a message has bytes to discard.
    ///
    /// # Errors
    /// [`ProtocolError`]: the rest of the stream cannot be read.
    pub fn read(
        &mut self,
        bytes: &[u8],
    ) -> Result<Option<(Option<ClientMessage>, usize)>, ProtocolError> {
        if self.skip != 0 {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            return Ok((skipped != 0).then_some((None, skipped)));
        }
        let mut reader = Reader { bytes, at: 0 };
        let message = self.message(&mut reader)?;
        Ok(message.map(|message| (Some(message), reader.at)))
    }

    fn message(&mut self, reader: &mut Reader<'_>) -> Result<Option<ClientMessage>, ProtocolError> {
        let Some(kind) = reader.byte() else { return Ok(None) };
        Ok(match kind {
            0 => match reader.skip(3).and_then(|()| reader.array::<16>()) {
                Some(format) => {
                    let format = PixelFormat::read(&format);
                    let format = format.map_err(|_| ProtocolError::PixelFormat)?;
                    Some(ClientMessage::SetPixelFormat(format))
                }
                None => None,
            },
            2 => return set_encodings(reader),
            3 => update_request(reader),
            4 => key(reader),
            5 => self.pointer(reader),
            6 => return self.cut_text(reader),
            150 => continuous_updates(reader),
            248 => return fence(reader),
            250 => reader.skip(3).map(|()| ClientMessage::Ignored),
            251 => set_desktop_size(reader),
            255 => return qemu(reader),
            kind => return Err(ProtocolError::Type(kind)),
        })
    }

    fn pointer(&self, reader: &mut Reader<'_>) -> Option<ClientMessage> {
        let low = u16::from(reader.byte()?);
        let (x, y) = (reader.half()?, reader.half()?);
        let high = match self.has_extended_buttons && low & 0x80 != 0 {
            true => u16::from(reader.byte()?),
            false => 0,
        };
        Some(ClientMessage::Pointer { buttons: low & 0x7F | high << 7, x, y })
    }

    /// Reads the length of a text. A negative one is that of the extended clipboard, which the
    /// server does not offer.
    fn cut_text(
        &mut self,
        reader: &mut Reader<'_>,
    ) -> Result<Option<ClientMessage>, ProtocolError> {
        let Some(length) = reader.skip(3).and_then(|()| reader.word()) else { return Ok(None) };
        let length = (length as i32).unsigned_abs();
        if length > MAX_CUT_TEXT {
            return Err(ProtocolError::TooLong(length.into()));
        }
        self.skip = length as usize;
        Ok(Some(ClientMessage::CutText))
    }
}

fn set_encodings(reader: &mut Reader<'_>) -> Result<Option<ClientMessage>, ProtocolError> {
    let Some(count) = reader.skip(1).and_then(|()| reader.half()) else { return Ok(None) };
    if usize::from(count) > MAX_ENCODINGS {
        return Err(ProtocolError::TooLong(count.into()));
    }
    let Some(bytes) = reader.slice(usize::from(count) * 4) else { return Ok(None) };
    let (words, _) = bytes.as_chunks::<4>();
    let encodings = words.iter().map(|word| i32::from_be_bytes(*word)).collect();
    Ok(Some(ClientMessage::SetEncodings(encodings)))
}

fn update_request(reader: &mut Reader<'_>) -> Option<ClientMessage> {
    let is_incremental = reader.byte()? != 0;
    Some(ClientMessage::UpdateRequest { is_incremental, area: reader.area()? })
}

fn key(reader: &mut Reader<'_>) -> Option<ClientMessage> {
    let is_pressed = reader.byte()? != 0;
    reader.skip(2)?;
    Some(ClientMessage::Key { is_pressed, symbol: reader.word()? })
}

fn continuous_updates(reader: &mut Reader<'_>) -> Option<ClientMessage> {
    let is_enabled = reader.byte()? != 0;
    Some(ClientMessage::ContinuousUpdates { is_enabled, area: reader.area()? })
}

fn fence(reader: &mut Reader<'_>) -> Result<Option<ClientMessage>, ProtocolError> {
    let head = reader.skip(3).and_then(|()| Some((reader.word()?, reader.byte()?)));
    let Some((flags, length)) = head else { return Ok(None) };
    if usize::from(length) > MAX_FENCE {
        return Err(ProtocolError::TooLong(length.into()));
    }
    let payload = reader.slice(length.into()).map(<[u8]>::to_vec);
    Ok(payload.map(|payload| ClientMessage::Fence { flags, payload }))
}

fn set_desktop_size(reader: &mut Reader<'_>) -> Option<ClientMessage> {
    reader.skip(1)?;
    let (width, height) = (reader.half()?, reader.half()?);
    let count = reader.byte()?;
    reader.skip(1)?;
    let screens = reader.slice(usize::from(count) * 16)?;
    let mut first = Reader { bytes: screens, at: 4 };
    let is_one_screen = count == 1 && first.area() == Some(Area { x: 0, y: 0, width, height });
    Some(ClientMessage::SetDesktopSize { width, height, is_one_screen })
}

fn qemu(reader: &mut Reader<'_>) -> Result<Option<ClientMessage>, ProtocolError> {
    let Some(kind) = reader.byte() else { return Ok(None) };
    match kind {
        0 => {
            let mut event = || {
                let is_pressed = reader.half()? != 0;
                let (symbol, code) = (reader.word()?, reader.word()?);
                Some(ClientMessage::ExtendedKey { is_pressed, symbol, code })
            };
            Ok(event())
        }
        kind => Err(ProtocolError::QemuType(kind)),
    }
}

/// Reads numbers. `None`: there are too few bytes.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn slice(&mut self, length: usize) -> Option<&'a [u8]> {
        let slice = self.bytes.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(slice)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.slice(N)?.try_into().ok()
    }

    fn skip(&mut self, length: usize) -> Option<()> {
        self.slice(length).map(drop)
    }

    fn byte(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    fn half(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn word(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn area(&mut self) -> Option<Area> {
        let (x, y) = (self.half()?, self.half()?);
        Some(Area { x, y, width: self.half()?, height: self.half()? })
    }
}
